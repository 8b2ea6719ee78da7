"""What is compared: the detector with its reference and without, the plain difference to the reference, the cascade.

Each takes a picture and its references and gives every find down to a confidence below which no threshold will lie.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.defects_outcome import Found
from calibration.evaluate.defects_truth import Case, Picture
from calibration.train.defects_figures import LEAST
from engines.cascade import Beside, Cascade
from engines.cascade_levels import EITHER, NOT_DEFECT
from engines.defects import CLASSES, DefectFinder
from engines.depth import Depth
from engines.readings import Relief
from engines.reference import GoldenError, golden_reference, median_of_copies, repetition
from engines.scene import Scene, levels_of, padded

SMOOTHED_PX = 1.5
USUAL = 99.0  # percentile of the differences that a clean picture has anyway: rough edges differ too
LEAST_DIFFERENCE = 0.5  # of that
SPOT_PX = 9  # of the difference's summits, and its boxes
MOST_SPOTS = 128  # as many as the network may say

DETECTOR = "detector"
BARE = "detector without reference"
GOLDEN = "detector, golden reference"
CASCADE = "cascade"
TEMPLATE = "template difference"
GOLDEN_TEMPLATE = "template difference, golden"
NO_CLASSES = (TEMPLATE, GOLDEN_TEMPLATE)


@dataclass(frozen=True)
class Views:
    """One picture with what it can be compared with; None: nothing repeats, or there is no golden frame of it."""

    picture: Picture
    own: NDArray[np.uint8] | None
    golden: NDArray[np.uint8] | None
    pitch_px: float | None = None  # by which it repeats

    @property
    def case(self) -> Case:
        return self.picture.case


@dataclass(frozen=True)
class Tree:
    """The cascade, and the depth model whose heights it is told; None: no heights."""

    cascade: Cascade
    depth: Depth | None

    def relief(self, image: NDArray[np.uint8], scene: Scene) -> Relief | None:
        if self.depth is None:
            return None
        read = self.depth.begin(padded(image), scene, levels_of(image))()
        return None if read is None else read.within(image.shape)


Find = Callable[[Views], tuple[Found, ...] | None]  # None: not for this picture


@dataclass(frozen=True)
class Method:
    name: str
    find: Find
    note: str = ""
    thresholds: dict[float, float] = field(default_factory=dict)  # false alarms a frame -> the package's own


def views(picture: Picture) -> Views:
    """A golden frame that shows another place is none."""
    golden = None
    if picture.golden is not None:
        try:
            golden = golden_reference(picture.image, picture.golden)
        except GoldenError:
            golden = None
    found = repetition(picture.image)
    if found is None:
        return Views(picture, None, golden)
    return Views(picture, median_of_copies(picture.image, found), golden, found.period_px)


def methods(finder: DefectFinder, thresholds: dict[float, float], tree: Tree | None = None) -> tuple[Method, ...]:
    """tree: None where there is no cascade."""
    takes = finder.wants_reference
    own = "reference: the picture's own repetition" if takes else "the package takes no reference"
    listed = [Method(DETECTOR, lambda seen: detected(finder, seen, seen.own), own, thresholds)]
    if takes:
        listed += [
            Method(BARE, lambda seen: detected(finder, seen, None), "its second channel is the frame itself"),
            Method(GOLDEN, lambda seen: _golden(finder, seen), "frames that have a golden one", thresholds),
        ]
    if tree is not None:
        note = "names what the detector found, and takes back what is no defect"
        listed.append(
            Method(CASCADE, lambda seen: judged(tree, seen, detected(finder, seen, seen.own)), note, thresholds)
        )
    return (
        *listed,
        Method(TEMPLATE, lambda seen: differing(seen.picture.image, seen.own), "against the picture's own repetition"),
        Method(
            GOLDEN_TEMPLATE,
            lambda seen: None if seen.golden is None else differing(seen.picture.image, seen.golden),
            "frames that have a golden one",
        ),
    )


def _golden(finder: DefectFinder, seen: Views) -> tuple[Found, ...] | None:
    return None if seen.golden is None else detected(finder, seen, seen.golden)


def detected(finder: DefectFinder, seen: Views, reference: NDArray[np.uint8] | None) -> tuple[Found, ...]:
    """Every peak, through the engine and the clean-up that serve."""
    image = seen.picture.image
    shown = None if reference is None else padded(reference)
    found = finder.read(padded(image), seen.case.scene, levels_of(image), reference=shown, threshold=LEAST)
    return tuple(Found(each.name, each.confidence, each.box_px, each.seen) for each in found)


def judged(tree: Tree, seen: Views, found: Sequence[Found]) -> tuple[Found, ...]:
    """The cascade's names; what it calls no defect is gone, the rest keeps the detector's confidence."""
    case, image = seen.case, seen.picture.image
    beside = Beside(seen.own, tree.relief(image, case.scene), case.scene, seen.pitch_px)
    told = tree.cascade.judge(image, found, beside=beside)
    kept = [(find, said) for find, said in zip(found, told, strict=True) if said.name != NOT_DEFECT]
    return tuple(
        Found(
            name=said.name,
            confidence=find.confidence,
            box_px=find.box_px,
            sure=said.levels[-1].probability if said.levels else 0.0,
            undecided=any(level.said == EITHER for level in said.levels),
        )
        for find, said in kept
    )


def differing(image: NDArray[np.uint8], reference: NDArray[np.uint8] | None) -> tuple[Found, ...]:
    """Where the picture differs most from its reference; nothing where there is none. It knows no classes."""
    if reference is None:
        return ()
    off = np.abs(_smooth(image) - _smooth(reference))
    off /= max(float(np.percentile(off, USUAL)), 1e-3)
    return tuple(_summits(off))


def _smooth(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTHED_PX), np.float32)


def _summits(off: NDArray[np.float32]) -> Iterator[Found]:
    """The confidence is a measure of the difference, and may pass 1."""
    summit = (cv2.dilate(off, np.ones((SPOT_PX, SPOT_PX), np.uint8)) == off) & (off > LEAST_DIFFERENCE)
    places = np.argwhere(summit)
    half = SPOT_PX / 2
    for y, x in places[np.argsort(-off[summit])][:MOST_SPOTS]:
        box = (float(x - half), float(y - half), float(x + half), float(y + half))
        yield Found(CLASSES[-1], float(off[y, x]), box)
