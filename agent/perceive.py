"""A frame in, findings out: crop the databar, convert to 8 bits, pad, run the models that are due, take the evidence.

Autofocus reads each frame, depth and defects those that `Wanted` names; all that are due are begun before the first
answer is waited for, so that on a GPU they run side by side. A defect model that compares is given a reference,
which is made while the others are at work. The focus evidence is taken from the original pixels; models see 8 bits, and
one conversion and one padding serve all three.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, Protocol, TypeVar

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.comparing import Compared, compared
from agent.control.dose import electrons_per_pixel
from agent.control.histogram import histogram_of
from agent.errors import EngineError
from agent.evidence import take_evidence
from agent.judging import CascadeModel, judged
from agent.messages import NOT_BUILT, SOURCES, Defect, Findings, Frame, Optics, Shown, Wanted
from agent.placing import height_above_surroundings, placed, within
from engines.cascade import Beside, Sizes
from engines.errors import DeviceLostError, InferenceError
from engines.readings import Defects, FocusReading, FoundDefect, Relief
from engines.scene import STRIDE_PX, Levels, Scene, levels_of, padded

T = TypeVar("T")

SATURATED = 0.2  # share of pixels at an end of the scale from which levels no longer tell contrast
BLANK_LEVELS = 1.5  # standard deviation, grey levels of 255, below which there is no picture
SAMPLED_ROWS = 32  # tell the levels of a picture: of 1,000 pixels a row, to a quarter of a grey level
GOLDEN = 0.6180339887498949  # multiples of it fall between one another: no line pattern keeps step with them
TAIL_SAMPLES = 60_000  # places the 0.1 % percentile to an eighth of its share
LOST = 1000  # failures that a lost GPU counts as: more than any number that is waited for
CENTRAL_PX = 2048
INSPECTED_PX = 2048 * 3072  # 2 s and 2 GB on two idle cores: a larger picture would hold up whatever comes after it


class FocusModel(Protocol):
    """engines.autofocus.Autofocus, or a stand-in of the same signature."""

    name: str

    def begin(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> Callable[[], FocusReading | None]: ...


class DepthModel(Protocol):
    """engines.depth.Depth, or a stand-in of the same signature."""

    name: str

    def begin(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None
    ) -> Callable[[], Relief | None]: ...


class DefectModel(Protocol):
    """engines.defects.DefectFinder, or a stand-in of the same signature."""

    name: str
    wants_reference: bool  # else it is not given one

    def begin(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
        threshold: float | None = None,
    ) -> Callable[[], Defects]: ...


class Laps:
    """How long each stage took."""

    def __init__(self) -> None:
        self.took_s: dict[str, float] = {}
        self._at = perf_counter()

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.took_s[stage], self._at = now - self._at, now


@dataclass(frozen=True)
class View:
    """A picture as depth and defects are shown it."""

    image: NDArray[np.uint8]  # padded
    shape: tuple[int, ...]  # of the picture itself
    scene: Scene
    levels: Levels  # of the picture itself


@dataclass(frozen=True)
class Begun:
    """What the models were given; each is called for its answer. None: not due, or there is no such model."""

    focus: Callable[[], FocusReading | None] | None = None
    depth: Callable[[], Relief | None] | None = None
    defects: Callable[[], Defects] | None = None


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
        laps = Laps()
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
        inspecting = wanted.inspection and (self.depth is not None or self.defects is not None)
        unseen = unreadable(frame, pixels, spread) if inspecting else None
        view = None
        if inspecting and unseen is None:
            view = View(image, levels.shape, scene_of(frame.optics), levels_of(levels))
        laps.lap("convert")
        begun = self._begin(image, frame.optics, view) if refused != "blank" else Begun()
        beside = Compared()
        if view is not None and self.defects is not None and self.defects.wants_reference:
            beside = compared(levels, wanted.reference)
            laps.lap("reference")
        begun = self._begin_defects(begun, view, beside.reference, threshold=wanted.threshold)
        reading = self._focus(begun)
        laps.lap("autofocus")
        relief, found = None, None
        if view is not None:
            progress()
            relief = self._relief(begun, view, wanted.height_scale)
            laps.lap("depth")
            progress()
            found = self._found(begun, view, frame=frame, relief=relief)
            laps.lap("defects")
            if self.cascade is not None and found:
                near = Beside(beside.reference, relief, view.scene, beside.pitch_px)
                found = self._judged(self.cascade, found, levels, beside=near, sizes=sizes_of(wanted))
                laps.lap("cascade")
        evidence = take_evidence(frame, pixels, wanted) if wanted.evidence and refused is None else None
        laps.lap("evidence")
        return Findings(
            score=reading.score if reading else (0.0 if refused == "blank" else None),
            blur_px=reading.blur_px if reading else None,
            blur_uncertainty_px=reading.blur_uncertainty_px if reading else None,
            content=reading.content if reading else None,
            evidence=evidence,
            refused=refused,
            flags=(NOT_BUILT,) if self._lacks(image.shape) else (),
            mean_level=mean / 255.0,
            histogram=histogram_of(pixels, frame.optics) if wanted.histogram else None,
            depth=relief.metres() if relief is not None and self._maps else None,
            defects=found,
            unseen=unseen,
            unreferenced=beside.missing,
            shown=Shown(image=levels, reference=beside.reference) if found is not None else None,
            models=self._read(reading, relief, found),
            took_s=laps.took_s,
        )

    def _read(self, reading: object, depth: object, found: object) -> tuple[str, ...]:
        """The models that answered on this frame."""
        answers = ((self.autofocus, reading), (self.depth, depth), (self.defects, found))
        return tuple(model.name for model, answer in answers if model is not None and answer is not None)

    def _begin(self, image: NDArray[np.uint8], optics: Optics, view: View | None) -> Begun:
        """Give each model that is due its work: autofocus first, for it answers first. view: for depth.

        Defects come last: they wait for their reference, and the others are at work meanwhile.
        """
        focus, depth = self.autofocus, self.depth
        begun = Begun()
        if focus is not None:
            begun = replace(begun, focus=self._ask(focus.name, lambda: focus.begin(image, optics.pixel_size_m)))
        if view is not None and depth is not None:
            begun = replace(
                begun, depth=self._ask(depth.name, lambda: depth.begin(view.image, view.scene, view.levels))
            )
        return begun

    def _begin_defects(
        self, begun: Begun, view: View | None, reference: NDArray[np.uint8] | None, *, threshold: float | None
    ) -> Begun:
        """reference (h, w): of the picture before it was padded. threshold: another than the model's own."""
        defects = self.defects
        if view is None or defects is None:
            return begun
        beside = None if reference is None else padded(reference)
        start = partial(defects.begin, view.image, view.scene, view.levels, reference=beside, threshold=threshold)
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
        return read.within(view.shape, 1.0 if scale is None else scale)

    def _found(self, begun: Begun, view: View, *, frame: Frame, relief: Relief | None) -> tuple[Defect, ...] | None:
        if self.defects is None or begun.defects is None:
            return None
        read = self._ask(self.defects.name, begun.defects)
        finite = all(math.isfinite(number) for found in read for number in (found.confidence, *found.box_px))
        self._check(self.defects.name, finite, read)
        return tuple(_told(found, relief, frame) for found in within(read, view.shape))

    def _judged(
        self,
        cascade: CascadeModel,
        found: tuple[Defect, ...],
        levels: NDArray[np.uint8],
        *,
        beside: Beside,
        sizes: Sizes | None,
    ) -> tuple[Defect, ...]:
        """Down the tree, each on its own crop of the picture itself."""
        said = self._ask(cascade.name, lambda: judged(cascade, found, levels, beside=beside, sizes=sizes))
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


def _told(found: FoundDefect, relief: Relief | None, frame: Frame) -> Defect:
    """Where it lies and how high it is; of the map only what lies around it is made metres of."""
    told = placed(found, None, frame)
    if relief is None:
        return told
    height_px = height_above_surroundings(found.box_px, relief.height_px, found.name)
    return msgspec.structs.replace(told, height_m=None if height_px is None else height_px * relief.unit_m)


def sizes_of(wanted: Wanted) -> Sizes | None:
    """The recipe's."""
    return None if wanted.sizes_m is None else Sizes(*wanted.sizes_m)


def scene_of(optics: Optics) -> Scene:
    """What depth and defects are told beside the picture."""
    return Scene(
        pixel_size_m=optics.pixel_size_m,
        electrons_per_pixel=electrons_per_pixel(optics),
        accelerating_voltage_v=optics.landing_energy_ev or optics.accelerating_voltage_v,
    )


def unreadable(frame: Frame, pixels: NDArray[Any], spread: float) -> str | None:
    """Why nothing can be said of the specimen: an empty picture is not a clean one."""
    if frame.optics.blanked:
        return "the beam was blanked: there is no picture to inspect"
    if spread < BLANK_LEVELS:
        return "the picture is blank: there is nothing to inspect"
    rows, asked = frame.pixels.shape[0], frame.optics
    if (asked.databar_rows or 0) >= rows:
        return f"databar_rows is {asked.databar_rows} of {rows} rows: there is no picture"
    if asked.complete is False or (asked.rows_valid is not None and asked.rows_valid < rows):
        return "the frame is partial: what was not scanned cannot be inspected; send the whole one"
    if min(pixels.shape) < STRIDE_PX:
        return f"{pixels.shape[1]}x{pixels.shape[0]} pixels are too few to inspect: {STRIDE_PX} a side at least"
    if pixels.size > INSPECTED_PX:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        return f"{size} pixels are more than can be inspected in time ({INSPECTED_PX / 1e6:.0f} million): send tiles"
    return None


def shape_shown(shape: tuple[int, ...]) -> tuple[int, int]:
    """What models are shown of a picture (h, w): its middle where it is too large, padded to their stride."""
    most = CENTRAL_PX if shape[0] * shape[1] > INSPECTED_PX else max(shape)
    height, width = (-(-min(size, most) // STRIDE_PX) * STRIDE_PX for size in shape)
    return height, width


def central(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a picture that is too large to be read in time, 2048x2048 at most."""
    top, left = (max(size - CENTRAL_PX, 0) // 2 for size in levels.shape)
    return np.ascontiguousarray(levels[top : top + CENTRAL_PX, left : left + CENTRAL_PX])


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Exact; noise makes one row enough to tell two pictures apart."""
    row = min(len(a), len(b)) // 2
    return a[row].tobytes() == b[row].tobytes() and np.array_equal(a, b)


def picture(frame: Frame) -> NDArray[Any]:
    """The rows that show the specimen: without the databar, and without rows a partial scan did not reach."""
    rows = frame.pixels.shape[0] - (frame.optics.databar_rows or 0)
    if frame.optics.rows_valid is not None:
        rows = min(rows, frame.optics.rows_valid)
    return frame.pixels[: max(rows, 1)]


def eight_bits(pixels: NDArray[Any], optics: Optics) -> NDArray[np.uint8]:
    """16 bits and floats by their 0.1 and 99.9 percentiles; 8 bits as they are; inverted pictures turned back."""
    levels = pixels if pixels.dtype == np.uint8 else _stretched(pixels)
    return np.asarray(cv2.bitwise_not(levels), np.uint8) if optics.inverted else levels


def _stretched(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = _tails(pixels)
    gain = 255.0 / (high - low)
    # What would overflow the integers on its way to 255 is cut first; one pass then scales, rounds and clips.
    cut = np.minimum(pixels, pixels.dtype.type(np.ceil(high)) if pixels.dtype.kind == "u" else np.float32(high))
    return np.asarray(cv2.addWeighted(cut, gain, cut, 0.0, -low * gain, dtype=cv2.CV_8U), np.uint8)


def _tails(pixels: NDArray[Any]) -> tuple[float, float]:
    """The 0.1 and 99.9 percentiles, never equal."""
    step = max(1, int(np.sqrt(pixels.size / TAIL_SAMPLES)))
    sample = pixels[::step, ::step]
    known = sample[np.isfinite(sample)]
    low, high = (float(x) for x in np.percentile(known, (0.1, 99.9))) if known.size else (0.0, 1.0)
    least = 1.0 if pixels.dtype.kind == "u" else max(1e-12, 1e-6 * abs(low))  # a level, or what single precision tells
    return low, max(high, low + least)


def mean_and_spread(levels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean and standard deviation, grey levels."""
    mean, spread = cv2.meanStdDev(levels)
    return float(mean[0, 0]), float(spread[0, 0])


def some_rows(pixels: NDArray[Any]) -> NDArray[Any]:
    """At most SAMPLED_ROWS of them, evenly spread and out of step."""
    return pixels if len(pixels) <= SAMPLED_ROWS else pixels[_rows(len(pixels))]


@lru_cache(maxsize=8)
def _rows(height: int) -> NDArray[np.intp]:
    return np.unique((np.arange(SAMPLED_ROWS) * GOLDEN % 1.0 * height).astype(np.intp))


def saturated_share(pixels: NDArray[Any], optics: Optics) -> float:
    """Share of pixels at either end of the scale; float pictures have none unless the header tells it."""
    top = optics.full_scale
    if top is None and pixels.dtype != np.float32:
        bits = optics.bits_significant or pixels.dtype.itemsize * 8
        top = float(2**bits - 1)
    if top is None:
        return 0.0
    if pixels.dtype == np.float32:
        return float(np.mean((pixels >= top) | (pixels <= 0)))
    return 1.0 - cv2.countNonZero(cv2.inRange(pixels, 1.0, np.ceil(top) - 1.0)) / pixels.size
