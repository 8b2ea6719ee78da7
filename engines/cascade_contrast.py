"""Does a candidate stand out of the noise, and how? Windows in; matched contrast, chance, shading and shape out.

Measured on the frame as it is. With a reference the difference to it is judged, against how much it differs around;
without one the frame against its own surroundings and the noise of a pixel, which tells noise from a picture, no more.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.cascade_crops import ONE_SIGMA, WIDE_PX, Windows, median, pixel_noise

Field = NDArray[np.float32]

WIDTHS_PX = (3, 7, 13)  # of the square filters: from a thread to a blob
PLACES = 8.0  # independent ones in a filter's window: with it, white noise passes a chance of 10 % in 9 to 16 %
BACKGROUND_PX = 31  # without a reference: what is wider than that is brightness
ROUNDED = 0.29  # grey levels, of the rounding to whole ones: no noise is below it
LEAST_OUTSIDE = 200  # sampled pixels around a box that tell how much differs there
CORE = 0.5  # of a box's sides: inside it is the middle of a dome or a bowl, outside its rim
DIFFERENT = 3.0  # sigmas from which a pixel of the least smoothed difference belongs to the defect
FAR = 60.0  # sigmas: beyond it nothing more is learnt


@dataclass(frozen=True)
class Contrast:
    """One candidate."""

    matched: tuple[float, ...]  # sigmas, signed: what stands out most in the box, a number for each of WIDTHS_PX
    chance: float  # that noise alone does as much somewhere in such a box
    shading: float  # sigmas, signed: middle of the box against its rim
    noise: float  # grey levels of a pixel of the difference, one standard deviation
    area_px: float  # in the box, of what differs
    elongation: float  # 0 round, 1 a thread
    along_rad: float  # of its long axis, from +x towards +y

    @property
    def best(self) -> float:
        return max(abs(each) for each in self.matched)


def contrasts(seen: Windows) -> tuple[Contrast, ...]:
    """In the order of the windows."""
    return tuple(
        _contrast(_difference(frame, reference, seen.compared), box, seen.compared)
        for frame, reference, box in zip(seen.frame, seen.reference, seen.box_px, strict=True)
    )


def _difference(frame: NDArray[np.uint8], reference: NDArray[np.uint8], compared: bool) -> Field:
    picture = frame.astype(np.float32)
    if compared:
        return picture - reference
    wide = cv2.blur(picture, (BACKGROUND_PX, BACKGROUND_PX), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(picture - wide, np.float32)


def _contrast(difference: Field, box: NDArray[np.float32], compared: bool) -> Contrast:
    noise = max(pixel_noise(difference), ROUNDED)
    rows, columns = _inside(box)
    area = float((rows.stop - rows.start) * (columns.stop - columns.start))
    outside = _outside(rows, columns) if compared else None
    matched, chance, shape = [], 1.0, (0.0, 0.0, 0.0)
    for width in WIDTHS_PX:
        smooth = np.asarray(cv2.blur(difference, (width, width), borderType=cv2.BORDER_REFLECT_101), np.float32)
        middle, sigma = _around(smooth, outside, white=noise / width)
        sigmas = (smooth[rows, columns] - np.float32(middle)) / np.float32(sigma)
        peak = max(float(sigmas.max()), float(sigmas.min()), key=abs)
        matched.append(peak)
        chance = min(chance, len(WIDTHS_PX) * _by_chance(peak, max(PLACES * area / width**2, 1.0)))
        if width == WIDTHS_PX[0]:
            shape = _shape(np.abs(sigmas))
    shading = _shading(difference[rows, columns], noise)
    return Contrast(tuple(matched), min(chance, 1.0), shading, noise, *shape)


def _outside(rows: slice, columns: slice) -> NDArray[np.bool_] | None:
    """(WIDE_PX / 2, WIDE_PX / 2) every second pixel that is not in the box; None where they are too few."""
    there = np.ones((WIDE_PX, WIDE_PX), np.bool_)
    there[rows, columns] = False
    sampled = there[::2, ::2]
    return sampled if np.count_nonzero(sampled) >= LEAST_OUTSIDE else None


def _around(smooth: Field, outside: NDArray[np.bool_] | None, *, white: float) -> tuple[float, float]:
    """Middle and standard deviation of what lies outside of the box; at least what white noise leaves."""
    if outside is None:
        return 0.0, white
    there = smooth[::2, ::2][outside]
    middle = median(there)
    return middle, max(ONE_SIGMA * median(np.abs(there - np.float32(middle))), white)


def _by_chance(sigmas: float, places: float) -> float:
    """That the largest of so many independent normal numbers, of either sign, is as large."""
    one = math.erfc(abs(sigmas) / math.sqrt(2.0))
    return -math.expm1(places * math.log1p(-one)) if one < 1.0 else 1.0


def _shading(box: Field, noise: float) -> float:
    y, x = (max(round(size * (1.0 - CORE) / 2.0), 1) for size in box.shape)
    core = box[y : max(box.shape[0] - y, y + 1), x : max(box.shape[1] - x, x + 1)]
    inner, whole = float(core.sum()), float(box.sum())
    around = box.size - core.size
    error = noise * math.sqrt(1.0 / core.size + 1.0 / around)
    return (inner / core.size - (whole - inner) / around) / error


def _shape(sigmas: Field) -> tuple[float, float, float]:
    """Area, elongation and direction of what differs."""
    rows, columns = np.nonzero(sigmas > DIFFERENT)
    if len(rows) < 3:
        return float(len(rows)), 0.0, 0.0
    xx, yy = float(np.var(columns)), float(np.var(rows))
    xy = float(np.mean((columns - columns.mean()) * (rows - rows.mean())))
    stretch = math.hypot(xx - yy, 2.0 * xy)
    return float(len(rows)), stretch / max(xx + yy, 1e-6), 0.5 * math.atan2(2.0 * xy, xx - yy)


def _inside(box: NDArray[np.float32]) -> tuple[slice, slice]:
    """Rows and columns of a box that lie in the window, three pixels each way at least."""
    x0, y0, x1, y1 = (float(side) for side in box)
    return _span(y0, y1), _span(x0, x1)


def _span(first: float, last: float) -> slice:
    middle, half = (first + last) / 2.0, max((last - first) / 2.0, 1.5)
    start, stop = max(math.floor(middle - half), 0), min(math.ceil(middle + half), WIDE_PX)
    return slice(min(start, WIDE_PX - 3), max(stop, 3))
