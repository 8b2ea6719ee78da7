"""What is known of the pictures a defect finder is judged on: their pixels, and every defect that is in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.dataset.outside import Picture as Read
from calibration.train.defects_figures import FRAME_PX
from engines.scene import Scene

HALF_PITCH, LEAST_PX, LEAST_SNR = 0.5, 6.0, 10.0  # of the defects that must be found: either size, and the signal

Box = tuple[float, float, float, float]  # x0, y0, x1, y1; the last two exclusive
Reader = Callable[[Path], Read]


class SetError(ValueError):
    """A set that cannot be evaluated: what, where, which value, what to do."""


@dataclass(frozen=True)
class TrueDefect:
    """One defect as it is labelled; None where nobody says."""

    name: str
    box_px: Box
    visible: bool = True  # False: to find it is neither a capture nor a false alarm
    area_px: float | None = None  # pixels that differ
    pitch_share: float | None = None  # size over pitch
    matched: float | None = None  # signal to noise of the matched filter
    to_noise: float | None = None  # |mean defect - mean reference| / sigma of a pixel

    @property
    def size_px(self) -> float:
        """Side of a square as large; where only the box is known, of the box."""
        x0, y0, x1, y1 = self.box_px
        return sqrt((x1 - x0) * (y1 - y0) if self.area_px is None else self.area_px)

    @property
    def must_be_found(self) -> bool:
        """Large enough by pitch or pixels, and clear of the noise where its signal is known."""
        large = self.size_px >= LEAST_PX or (self.pitch_share or 0.0) >= HALF_PITCH
        return self.visible and large and (self.matched is None or self.matched >= LEAST_SNR)


@dataclass(frozen=True)
class Case:
    """One picture without its pixels."""

    key: str  # one of its kind in its set
    split: str
    specimen: str  # pictures that share it are not independent
    shape: tuple[int, int]
    scene: Scene  # as the model is told
    truth: tuple[TrueDefect, ...]
    pixel_size_m: float | None = None  # exact, whether or not the model is told
    border_px: int = 0  # what is centred nearer to the edge is not looked at
    kind: str = ""  # family of layout, where one is told
    layout: bool = True  # False: no layout at all, as fibres or noise: nothing that is inspected for defects

    @property
    def clean(self) -> bool:
        return not self.truth

    @property
    def frames(self) -> float:
        """Of 512 x 512: false alarms are counted by these."""
        return self.shape[0] * self.shape[1] / FRAME_PX

    @property
    def visible(self) -> int:
        return sum(each.visible for each in self.truth)


@dataclass(frozen=True)
class Picture:
    case: Case
    image: NDArray[np.uint8]  # (h, w)
    golden: NDArray[np.uint8] | None = None  # (h, w) the same design without a defect, another frame


@dataclass(frozen=True)
class Split:
    name: str
    purpose: str
    tunes: bool = False  # its clean frames fix thresholds, and only that


@dataclass(frozen=True)
class PictureSet:
    """A folder that can be read as often as wanted; one picture in memory at a time."""

    folder: Path
    kind: str  # dataset, scenes, boxes
    splits: tuple[Split, ...]
    count: int
    read: Callable[[], Iterator[Picture]]
    notes: tuple[str, ...] = ()  # for people: what was left out, what to beware of

    def split(self, name: str) -> Split:
        return next(each for each in self.splits if each.name == name)


def checked(case: Case) -> Case:
    """Raises SetError where labels contradict themselves or one another."""
    height, width = case.shape
    for number, each in enumerate(case.truth, 1):
        x0, y0, x1, y1 = each.box_px
        if not (0.0 <= x0 < x1 <= width and 0.0 <= y0 < y1 <= height):
            told = ", ".join(f"{side:g}" for side in each.box_px)
            raise SetError(
                f"{case.key}: box {number} ({each.name}) is {told}; x0 < x1 and y0 < y1 within the picture of "
                f"{width}x{height} px are expected: mend the label"
            )
    boxes: dict[Box, str] = {}
    for each in case.truth:
        other = boxes.setdefault(each.box_px, each.name)
        if other != each.name:
            raise SetError(f"{case.key}: one box is labelled {other} and {each.name}: keep one of the two")
    return case
