"""A frame in, findings out: crop the databar, convert to 8 bits, pad, run the models that are due, take the evidence.

Autofocus reads each frame, depth and defects those that `Wanted` names; all that are due are begun before the first
answer is waited for, so that on a GPU they run side by side. What a picture is compared with is made while the others
are at work where the defect model compares, and else when something was found that a cascade or a recipe looks at
again. The focus evidence is taken from the original pixels; one conversion and one padding serve all models.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.comparing import Compared, compared
from agent.control.fractions import of_boxes
from agent.control.histogram import histogram_of
from agent.errors import EngineError
from agent.evidence import take_evidence
from agent.judging import judged
from agent.messages import NOT_BUILT, SOURCES, Defect, Evidence, Findings, Frame, Optics, Shown, Wanted
from agent.models import CascadeModel, DefectModel, DepthModel, FocusModel
from agent.pixels import (
    BLANK_LEVELS,
    INSPECTED_PX,
    SATURATED,
    central,
    eight_bits,
    mean_and_spread,
    picture,
    same,
    saturated_share,
    scene_of,
    shape_shown,
    some_rows,
    unreadable,
)
from agent.placing import height_above_surroundings, placed, within
from engines.cascade import Beside, Judged, Sizes
from engines.errors import DeviceLostError, InferenceError
from engines.readings import Defects, FocusReading, FoundDefect, Relief
from engines.scene import Levels, Scene, levels_of, padded

T = TypeVar("T")

LOST = 1000  # failures that a lost GPU counts as: more than any number that is waited for


class Laps:
    """How long each stage took."""

    def __init__(self) -> None:
        self.took_s: dict[str, float] = {}
        self._at = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.took_s[stage], self._at = now - self._at, now


@dataclass(frozen=True)
class Job:
    """One frame under way: what is asked of it, who hears that it goes on, and how long each stage took."""

    frame: Frame
    wanted: Wanted
    progress: Callable[[], None]
    laps: Laps = field(default_factory=Laps)


@dataclass(frozen=True)
class View:
    """A picture as depth and defects are shown it."""

    picture: NDArray[np.uint8]  # (h, w)
    image: NDArray[np.uint8]  # padded
    scene: Scene
    levels: Levels  # of the picture itself


@dataclass(frozen=True)
class Sight:
    """A frame's pixels as they are read."""

    pixels: NDArray[Any]  # (h, w) as they came, without the data bar
    image: NDArray[np.uint8]  # what models are shown: padded, of a large picture the middle
    mean: float  # grey levels
    refused: str | None
    unseen: str | None
    view: View | None  # None: depth and defects are not due, or cannot be read


@dataclass(frozen=True)
class Begun:
    """What the models were given; each is called for its answer. None: not due, or there is no such model."""

    focus: Callable[[], FocusReading | None] | None = None
    depth: Callable[[], Relief | None] | None = None
    defects: Callable[[], Defects] | None = None


@dataclass(frozen=True)
class Inspected:
    """What depth and defects said. beside None: nobody asked what the picture is compared with."""

    relief: Relief | None = None
    defects: tuple[Defect, ...] | None = None
    beside: Compared | None = None


class Perceiver:
    """Owns the models. `look` raises EngineError when one of them fails."""

    def __init__(
        self,
        autofocus: FocusModel | None,
        depth: DepthModel | None = None,
        defects: DefectModel | None = None,
        *,
        cascade: CascadeModel | None = None,
        share: Callable[[NDArray[np.uint8]], None] = lambda _: None,
        lacks: Callable[[tuple[int, ...]], bool] = lambda _: False,
        maps: bool = True,
    ) -> None:
        """cascade: judges what the defect model finds. share: told of each picture that the models are about to read,
        so that it is uploaded once. lacks: is there a faster backend that was not built for this shape? maps: are whole
        depth maps wanted, which are megabytes, or only the heights of defects?"""
        self.autofocus, self.depth, self.defects = autofocus, depth, defects
        self.cascade = cascade
        self._share, self._lacks, self._maps = share, lacks, maps
        self._last: OrderedDict[str, tuple[int, NDArray[Any]]] = OrderedDict()  # source -> frame number, pixels
        self._failures: Counter[str] = Counter()  # by model, since it last answered

    @property
    def models(self) -> tuple[str, ...]:
        served = (self.autofocus, self.depth, self.defects, self.cascade)
        return tuple(model.name for model in served if model is not None)

    @property
    def failures(self) -> int:
        """Of one model in a row, whatever the others did meanwhile."""
        return max(self._failures.values(), default=0)

    def lacks(self, frame: Frame) -> bool:
        """Will this frame be read by a slower backend, for want of an engine of its shape?"""
        return self._lacks(shape_shown(picture(frame).shape))

    def look(self, frame: Frame, wanted: Wanted, progress: Callable[[], None] = lambda: None) -> Findings:
        """Everything that is due on this frame; `progress` is called between the long readings of one to inspect."""
        job = Job(frame, wanted, progress)
        sight = self._sight(job)
        job.laps.lap("convert")
        begun = self._begin(sight, frame.optics)
        beside = self._compared(job, sight.view) if self._compares(wanted) else None
        begun = self._begin_defects(begun, sight.view, beside, threshold=wanted.threshold)
        reading = self._focus(begun)
        job.laps.lap("autofocus")
        seen = Inspected() if sight.view is None else self._inspected(job, begun, sight.view, beside)
        evidence = take_evidence(frame, sight.pixels, wanted) if wanted.evidence and sight.refused is None else None
        job.laps.lap("evidence")
        return self._told(job, sight, reading=reading, seen=seen, evidence=evidence)

    def _sight(self, job: Job) -> Sight:
        """Conversion, padding and upload, and why what cannot be read is refused."""
        frame = job.frame
        pixels = picture(frame)
        levels = eight_bits(pixels, frame.optics)
        some = some_rows(levels)
        mean, spread = mean_and_spread(some)
        refused = self._refused(frame, pixels, some if levels is pixels else some_rows(pixels), spread)
        # Beyond what can be read in time focus is read in the middle, and nothing else.
        shown = levels if levels.size <= INSPECTED_PX else central(levels)
        image = padded(shown) if refused != "blank" and self.models else shown
        if refused != "blank":
            self._ask("upload", lambda: self._share(image))
            self._failures["upload"] = 0
        inspecting = job.wanted.inspection and (self.depth is not None or self.defects is not None)
        unseen = unreadable(frame, pixels, spread) if inspecting else None
        view = None
        if inspecting and unseen is None:
            view = View(levels, image, scene_of(frame.optics), levels_of(levels))
        return Sight(pixels, image, mean, refused=refused, unseen=unseen, view=view)

    def _compares(self, wanted: Wanted) -> bool:
        """Is the picture to be compared before anything is found? By a model that does, or for a recipe that counts
        on it: whether there is a reference must not hang on whether there are finds."""
        if self.defects is None:
            return False
        return self.defects.wants_reference or (wanted.reference.expected and self._again(wanted))

    def _again(self, wanted: Wanted) -> bool:
        """Will finds be looked at again, beside a reference?"""
        return self.cascade is not None or wanted.nuisances

    def _compared(self, job: Job, view: View | None) -> Compared | None:
        if view is None:
            return None
        beside = compared(view.picture, job.wanted.reference)
        job.laps.lap("reference")
        return beside

    def _inspected(self, job: Job, begun: Begun, view: View, beside: Compared | None) -> Inspected:
        job.progress()
        relief = self._relief(begun, view, job.wanted.height_scale)
        job.laps.lap("depth")
        job.progress()
        found = self._found(begun, view)
        defects = None if found is None else tuple(_told(each, relief, job.frame) for each in found)
        job.laps.lap("defects")
        if found and beside is None and self._again(job.wanted):
            beside = self._compared(job, view)
        if self.cascade is not None and found and defects is not None:
            near = _near(found, view, relief=relief, compared=beside or Compared(), wanted=job.wanted)
            defects = judged(defects, self._said(self.cascade, found, view, beside=near, wanted=job.wanted))
            job.laps.lap("cascade")
        return Inspected(relief, defects, beside)

    def _told(
        self, job: Job, sight: Sight, *, reading: FocusReading | None, seen: Inspected, evidence: Evidence | None
    ) -> Findings:
        blank = 0.0 if sight.refused == "blank" else None
        beside, found, shown = seen.beside or Compared(), seen.defects, None
        if found is not None and sight.view is not None:
            shown = Shown(image=sight.view.picture, reference=beside.reference)
        return Findings(
            score=reading.score if reading else blank,
            blur_px=reading.blur_px if reading else None,
            blur_uncertainty_px=reading.blur_uncertainty_px if reading else None,
            content=reading.content if reading else None,
            evidence=evidence,
            refused=sight.refused,
            flags=(NOT_BUILT,) if self._lacks(sight.image.shape) else (),
            mean_level=sight.mean / 255.0,
            histogram=histogram_of(sight.pixels, job.frame.optics) if job.wanted.histogram else None,
            depth=seen.relief.metres() if seen.relief is not None and self._maps else None,
            defects=found,
            unseen=sight.unseen,
            unreferenced=beside.missing,
            shown=shown,
            models=self._read(reading, seen.relief, found),
            took_s=job.laps.took_s,
        )

    def _read(self, reading: object, depth: object, found: object) -> tuple[str, ...]:
        """The models that answered on this frame."""
        answers = ((self.autofocus, reading), (self.depth, depth), (self.defects, found))
        return tuple(model.name for model, answer in answers if model is not None and answer is not None)

    def _begin(self, sight: Sight, optics: Optics) -> Begun:
        """Give each model that is due its work: autofocus first, for it answers first.

        Defects come last: they wait for their reference, and the others are at work meanwhile.
        """
        focus, depth, view, begun = self.autofocus, self.depth, sight.view, Begun()
        if sight.refused == "blank":
            return begun
        if focus is not None:
            begun = replace(begun, focus=self._ask(focus.name, lambda: focus.begin(sight.image, optics.pixel_size_m)))
        if view is not None and depth is not None:
            start = partial(depth.begin, view.image, view.scene, view.levels)
            begun = replace(begun, depth=self._ask(depth.name, start))
        return begun

    def _begin_defects(
        self, begun: Begun, view: View | None, beside: Compared | None, *, threshold: float | None
    ) -> Begun:
        """threshold: another than the model's own."""
        defects = self.defects
        if view is None or defects is None:
            return begun
        known = None if beside is None else beside.reference
        reference = None if known is None else padded(known)
        start = partial(defects.begin, view.image, view.scene, view.levels, reference=reference, threshold=threshold)
        return replace(begun, defects=self._ask(defects.name, start))

    def _focus(self, begun: Begun) -> FocusReading | None:
        if self.autofocus is None or begun.focus is None:
            return None
        reading = self._ask(self.autofocus.name, begun.focus)
        self._check(self.autofocus.name, reading is None or _finite(reading), reading)
        return reading

    def _relief(self, begun: Begun, view: View, scale: float | None) -> Relief | None:
        """The picture's part of it; that its numbers are finite was seen when they came from the engine."""
        read = None if self.depth is None or begun.depth is None else self._ask(self.depth.name, begun.depth)
        if self.depth is None or read is None:
            return None
        self._failures[self.depth.name] = 0
        return read.within(view.picture.shape, 1.0 if scale is None else scale)

    def _found(self, begun: Begun, view: View) -> Defects | None:
        if self.defects is None or begun.defects is None:
            return None
        read = self._ask(self.defects.name, begun.defects)
        finite = all(math.isfinite(number) for found in read for number in (found.confidence, *found.box_px))
        self._check(self.defects.name, finite, read)
        return within(read, view.picture.shape)

    def _said(
        self, cascade: CascadeModel, found: Defects, view: View, *, beside: Beside, wanted: Wanted
    ) -> tuple[Judged, ...]:
        """Of each, on its own crop of the picture itself."""
        sizes = None if wanted.sizes_m is None else Sizes(*wanted.sizes_m)
        said = self._ask(cascade.name, lambda: cascade.judge(view.picture, found, beside=beside, sizes=sizes))
        self._failures[cascade.name] = 0
        return said

    def _ask(self, name: str, read: Callable[[], T]) -> T:
        """One answer of one model. Raises EngineError."""
        try:
            answer = read()
        except (InferenceError, ArithmeticError) as error:
            # A GPU that is gone comes back in a new process only.
            self._failures[name] += LOST if isinstance(error, DeviceLostError) else 1
            raise EngineError(f"{name}: {error}") from error
        return answer

    def _check(self, name: str, finite: bool, answer: object) -> None:
        if not finite:
            self._failures[name] += 1
            raise EngineError(f"{name}: answered with a number that is not finite: {answer}")
        self._failures[name] = 0

    def _refused(self, frame: Frame, pixels: NDArray[Any], some: NDArray[Any], spread: float) -> str | None:
        """Why these pixels are no evidence, or None."""
        if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
            return "inconsistent"
        if spread < BLANK_LEVELS:
            return "blank"
        if saturated_share(some, frame.optics) > SATURATED:
            return "saturated"
        return "frozen" if self._seen_before(frame, pixels) else None

    def _seen_before(self, frame: Frame, pixels: NDArray[Any]) -> bool:
        """Are these the very pixels of this source's last frame, under another number?"""
        before = self._last.pop(frame.source, None)
        # Pixels are a view of the message that brought them: kept alive, not copied.
        self._last[frame.source] = (frame.number, pixels)
        if len(self._last) > SOURCES:
            self._last.popitem(last=False)
        return before is not None and before[0] != frame.number and same(before[1], pixels)


def _finite(reading: FocusReading) -> bool:
    values = (reading.score, reading.blur_px, reading.blur_uncertainty_px, reading.content)
    return all(map(math.isfinite, values))


def _near(found: Defects, view: View, *, relief: Relief | None, compared: Compared, wanted: Wanted) -> Beside:
    """What a cascade is told beside the pixels."""
    shares = of_boxes(wanted.places, [each.box_px for each in found]) if wanted.places else None
    return Beside(compared.reference, relief, view.scene, compared.pitch_px, shares)


def _told(found: FoundDefect, relief: Relief | None, frame: Frame) -> Defect:
    """Where it lies and how high it is; of the map only what lies around it is made metres of."""
    told = placed(found, None, frame)
    if relief is None:
        return told
    height_px = height_above_surroundings(found.box_px, relief.height_px, found.name)
    return msgspec.structs.replace(told, height_m=None if height_px is None else height_px * relief.unit_m)
