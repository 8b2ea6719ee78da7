"""A frame's pixels as the models are shown them, and what they are told beside: a frame in, 8 bits and numbers out.

Pure. The focus evidence is taken from the pixels as they came; everything here that samples says how well.
"""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.dose import electrons_per_pixel
from agent.messages import Frame, Optics
from engines.scene import STRIDE_PX, Scene

SATURATED = 0.2  # share of pixels at an end of the scale from which levels no longer tell contrast
BLANK_LEVELS = 1.5  # standard deviation, grey levels of 255, below which there is no picture
SAMPLED_ROWS = 32  # tell the levels of a picture: of 1,000 pixels a row, to a quarter of a grey level
GOLDEN = 0.6180339887498949  # multiples of it fall between one another: no line pattern keeps step with them
TAIL_SAMPLES = 60_000  # places the 0.1 % percentile to an eighth of its share
CENTRAL_PX = 2048
INSPECTED_PX = 2048 * 3072  # 2 s and 2 GB on two idle cores: a larger picture would hold up whatever comes after it


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
