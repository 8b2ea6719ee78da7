"""A frame in, findings out: crop the databar, convert to 8 bits, pad, run the models that are due, take the evidence.

The focus evidence is taken from the original pixels; models see 8 bits. One conversion serves all models.
"""

import math
from collections import OrderedDict
from functools import lru_cache
from time import perf_counter
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.spectra import PATCH_PX, patch_spectra
from agent.errors import EngineError
from agent.messages import Evidence, Findings, Frame, Optics, Wanted
from engines.errors import InferenceError
from engines.readings import FocusReading

STRIDE_PX = 32  # heights and widths of what a model sees are multiples of it
SATURATED = 0.2  # share of pixels at an end of the scale from which levels no longer tell contrast
BLANK_LEVELS = 1.5  # standard deviation, grey levels of 255, below which there is no picture
SAMPLED_ROWS = 32  # tell the levels of a picture: of 1,000 pixels a row, to a quarter of a grey level
GOLDEN = 0.6180339887498949  # multiples of it fall between one another: no line pattern keeps step with them
TAIL_SAMPLES = 60_000  # places the 0.1 % percentile to an eighth of its share
SOURCES = 16  # whose last picture is remembered: as many as have a place in the live lane
SCALE_PX = 0.5  # displacement within a patch from which a magnification change must be undone before the transform


class FocusModel(Protocol):
    """engines.autofocus.Autofocus, or a stand-in of the same signature."""

    name: str

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None: ...


class Perceiver:
    """Owns the models. `look` raises EngineError when one of them fails."""

    def __init__(self, autofocus: FocusModel | None) -> None:
        self.autofocus = autofocus
        self._last: OrderedDict[str, tuple[int, NDArray[Any]]] = OrderedDict()  # source -> frame number, pixels

    @property
    def models(self) -> tuple[str, ...]:
        return (self.autofocus.name,) if self.autofocus else ()

    def look(self, frame: Frame, wanted: Wanted) -> Findings:
        """Everything that is due on this frame."""
        began = perf_counter()
        pixels = picture(frame)
        levels = eight_bits(pixels, frame.optics)
        some = some_rows(levels)
        mean, spread = mean_and_spread(some)
        refused = self._refused(frame, pixels, some if levels is pixels else some_rows(pixels), spread)
        converted = perf_counter()
        reading = self._read(levels, frame.optics) if refused != "blank" else None
        read = perf_counter()
        evidence = take_evidence(frame, pixels, wanted) if wanted.evidence and refused is None else None
        took = {"convert": converted - began, "autofocus": read - converted, "evidence": perf_counter() - read}
        return Findings(
            score=reading.score if reading else (0.0 if refused == "blank" else None),
            blur_px=reading.blur_px if reading else None,
            blur_uncertainty_px=reading.blur_uncertainty_px if reading else None,
            content=reading.content if reading else None,
            evidence=evidence,
            refused=refused,
            mean_level=mean / 255.0,
            models=self.models if reading else (),
            took_s=took,
        )

    def _read(self, levels: NDArray[np.uint8], optics: Optics) -> FocusReading | None:
        if self.autofocus is None:
            return None
        try:
            reading = self.autofocus.read(padded(levels), optics.pixel_size_m)
        except (InferenceError, ArithmeticError) as error:
            raise EngineError(f"{self.autofocus.name}: {error}") from error
        if reading is not None and not _finite(reading):
            raise EngineError(f"{self.autofocus.name}: answered with a number that is not finite: {reading}")
        return reading

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


def padded(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reflected at the lower and right border to multiples of the models' stride."""
    down, right = -levels.shape[0] % STRIDE_PX, -levels.shape[1] % STRIDE_PX
    if not down and not right:
        return np.ascontiguousarray(levels)
    mode = cv2.BORDER_REFLECT_101 if min(levels.shape) > STRIDE_PX else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(levels, 0, down, 0, right, mode), np.uint8)


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


def take_evidence(frame: Frame, pixels: NDArray[Any], wanted: Wanted) -> Evidence | None:
    """Patch spectra of one admitted frame; None where its header lacks what evidence needs."""
    o = frame.optics
    if o.pixel_size_m is None or o.working_distance_m is None or o.t_start_ns is None or min(pixels.shape) < 64:
        return None
    grown = _grown(o.working_distance_m, wanted)
    patches = patch_spectra(pixels)
    noise = patches.noise  # of the picture as it came: resampling takes from the noise's highest frequencies
    if float(noise.min()) <= 0.0:
        return None
    if abs(grown) * PATCH_PX / 2.0 > SCALE_PX:
        patches, grown = patch_spectra(_resampled(pixels, 1.0 + grown)), 0.0
    return Evidence(
        frame=frame.number,
        session=o.session,
        source=frame.source,
        optics_epoch=o.optics_epoch,
        scene_epoch=o.scene_epoch,
        t_start_ns=o.t_start_ns,
        working_distance_m=o.working_distance_m,
        stigmator_x=o.stigmator_x or 0.0,
        stigmator_y=o.stigmator_y or 0.0,
        pixel_size_m=o.pixel_size_m,
        pixel_size_y_m=o.pixel_size_y_m or o.pixel_size_m,
        semi_convergence_angle_rad=o.semi_convergence_angle_rad,
        landing_energy_ev=o.landing_energy_ev or o.accelerating_voltage_v,
        frame_time_s=o.frame_time_s,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=noise,
        independent=patches.independent,
        averages=1,
        grown=grown,
    )


def _grown(working_distance_m: float, wanted: Wanted) -> float:
    """By how much the picture is larger than at the reference working distance, as the certificate has it."""
    if wanted.reference_working_distance_m is None:
        return 0.0
    return wanted.scale_per_m * (working_distance_m - wanted.reference_working_distance_m)


def _resampled(pixels: NDArray[Any], magnified: float) -> NDArray[np.float32]:
    """The picture `magnified` times smaller about its centre, at the same size."""
    height, width = pixels.shape
    centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    matrix = np.hstack([np.eye(2) * magnified, (centre * (1.0 - magnified))[:, None]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    image = pixels.astype(np.float32)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)
