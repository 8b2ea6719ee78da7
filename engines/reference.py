"""What a frame would show without its defects: from its own repetition, or from another frame of the same design.

A frame in, its reference out: (h, w) uint8 in the frame's own grey levels, where a defect is what differs. No model is
asked; a reference that cannot be trusted is none.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.reference_copies import median_of

Field = NDArray[np.float32]
P = TypeVar("P", np.uint8, np.float32)

SMOOTHED_PX = 1.0  # before anything is compared: single pixels are noise
WORKED_PX = 320  # of the shorter side: above twice that, repetition is looked for at half the resolution
SHADING = 0.2  # of the shorter side: what is wider than that does not repeat, it drifts
LEAST_PX, MOST_SHARE = 10.0, 0.45  # how far copies are moved: beyond a defect, and with half of the frame in common
REPEATS = 0.7  # correlation of two places from which they show the same design
SURE = 6.0  # sigmas of chance that a peak is above nothing
GRAIN_PX = 12.6  # pixels that are one, once noise was smoothed: 4 pi sigma^2
COPIES = 3  # vectors, each used both ways
APART_PX = 6.0  # of two vectors
ALONG = 0.1  # ... a copy moved the way of another: along a line all copies show the same long defect
PARALLEL = 0.95  # cosine
NEARER = 0.1  # of correlation that a copy from the far end must have more than one from beside
LARGEST_MOVE = 0.125  # of a side, between a frame and its golden one
SPREAD = (0.1, 0.9)  # of the pixels, from the darkest on: what lies between tells the levels of a frame
SAME_PLACE = 0.35  # correlation of a frame with its golden one, both smoothed


class GoldenError(ValueError):
    """A golden frame that cannot be one of this picture."""


@dataclass(frozen=True)
class Repetition:
    """Vectors by which a picture can be moved to fall on itself, the surest first."""

    moves_px: tuple[tuple[float, float], ...]  # x, y
    correlation: tuple[float, ...]  # of the signal, noise taken off: 1 is an exact copy

    @property
    def period_px(self) -> float:
        """Length of the shortest."""
        return min(float(np.hypot(*move)) for move in self.moves_px)


@dataclass(frozen=True)
class _Peaks:
    """Local maxima of the correlation, to a fraction of a pixel; all (n,)."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    height: NDArray[np.float32]
    score: NDArray[np.float64]

    def apart_px(self, one: int) -> NDArray[np.float64]:
        """Each from one of them. A move and its opposite are one."""
        x, y = self.x[one], self.y[one]
        same, opposite = np.hypot(self.x - x, self.y - y), np.hypot(self.x + x, self.y + y)
        return np.asarray(np.minimum(same, opposite))

    def parallel(self, one: int) -> NDArray[np.bool_]:
        x, y = self.x[one], self.y[one]
        lengths = np.hypot(self.x, self.y) * np.hypot(x, y)
        return np.asarray(np.abs(self.x * x + self.y * y) >= PARALLEL * lengths)


def self_reference(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The median of the picture's own moved copies; None where nothing repeats. image (h, w)."""
    found = repetition(image)
    return None if found is None else median_of_copies(image, found)


def repetition(image: NDArray[np.uint8]) -> Repetition | None:
    """Where the autocorrelation has peaks; None where it has none that stands out."""
    factor = 0.5 if min(image.shape) > 2 * WORKED_PX else 1.0
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor != 1.0 else image
    flat = _flat(np.asarray(small, np.float32))
    covariance, common = _autocovariance(flat)
    signal = _signal(_beside(flat))
    if signal <= 0.0:
        return None
    middle = covariance.shape[0] // 2, covariance.shape[1] // 2
    chance = SURE * float(covariance[middle]) * np.sqrt(GRAIN_PX / common) / np.float32(signal)
    least = np.maximum(chance, np.float32(REPEATS))
    found = _peaks(covariance / np.float32(signal), least, least_px=LEAST_PX * factor)
    if found is None:
        return None
    return Repetition(tuple((x / factor, y / factor) for x, y in found.moves_px), found.correlation)


def median_of_copies(image: NDArray[np.uint8], found: Repetition) -> NDArray[np.uint8]:
    """Each move both ways: see engines/reference_copies.py."""
    return median_of(image, found.moves_px)


def golden_reference(image: NDArray[np.uint8], golden: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The golden frame moved onto the picture, in its grey levels. Both (h, w) uint8.

    Raises GoldenError for a golden frame of another size, or one that shows another place.
    """
    if golden.shape != image.shape:
        sizes = f"{golden.shape[1]}x{golden.shape[0]}, the frame {image.shape[1]}x{image.shape[0]}"
        raise GoldenError(f"the golden frame is {sizes} pixels: take it at the frame's own size")
    seen, known = _flat(image.astype(np.float32)), _flat(golden.astype(np.float32))
    x, y = _displacement(seen, known)
    height, width = image.shape
    if abs(x) > LARGEST_MOVE * width or abs(y) > LARGEST_MOVE * height:
        raise GoldenError(f"the golden frame lies {x:.0f}, {y:.0f} px off: it shows another place")
    moved = _moved(golden, x, y)
    alike = _correlation(seen, _moved(known, x, y))
    if not alike >= SAME_PLACE * _most_alike(seen, known):
        raise GoldenError(f"the golden frame correlates by {alike:.2f} with this one: it shows another place")
    return _levelled(moved, image)


# --- repetition ---


def _flat(picture: Field) -> Field:
    """Smoothed, without what is wider than any pattern, mean 0."""
    wide = SHADING * min(picture.shape)
    smooth = cv2.GaussianBlur(picture, (0, 0), SMOOTHED_PX)
    box = (int(2 * wide) | 1, int(2 * wide) | 1)
    flat = np.asarray(smooth - cv2.blur(smooth, box, borderType=cv2.BORDER_REFLECT), np.float32)
    return flat - np.float32(flat.mean())


def _autocovariance(flat: Field) -> tuple[Field, Field]:
    """(2 ry + 1, 2 rx + 1) covariance of the picture with itself moved; and the pixels in common."""
    rows, columns = flat.shape
    ry, rx = int(MOST_SHARE * rows), int(MOST_SHARE * columns)
    wide = np.zeros((cv2.getOptimalDFTSize(rows + ry), cv2.getOptimalDFTSize(columns + rx)), np.float32)
    wide[:rows, :columns] = flat
    spectrum = cv2.dft(wide, nonzeroRows=rows)
    power = cv2.idft(cv2.mulSpectrums(spectrum, spectrum, 0, conjB=True), flags=cv2.DFT_SCALE)
    whole = np.vstack([power[-ry:], power[: ry + 1]]) if ry else power[:1]
    whole = np.hstack([whole[:, -rx:], whole[:, : rx + 1]]) if rx else whole[:, :1]
    common = _in_common(rows, columns)
    return np.asarray(whole / common, np.float32), common


@lru_cache(maxsize=2)
def _in_common(rows: int, columns: int) -> Field:
    """Pixels of a picture that fall on others of it, for each move."""
    ry, rx = int(MOST_SHARE * rows), int(MOST_SHARE * columns)
    common = np.outer(rows - np.abs(np.arange(-ry, ry + 1)), columns - np.abs(np.arange(-rx, rx + 1)))
    return np.asarray(common, np.float32)


def _signal(beside: list[tuple[float, float]]) -> float:
    """The signal's own variance, which noise that differs from pixel to pixel is no part of: by a parabola back from
    moves of 3 and 4 px, where the noise's correlation has ended, along the axis on which the picture changes less."""
    return max(near + max(near - far, 0.0) * 9.0 / 7.0 for near, far in beside)


def _peaks(correlation: Field, least: Field, *, least_px: float) -> Repetition | None:
    """The best local maxima of one half plane."""
    rows, columns = correlation.shape
    distance = _distance(rows, columns)
    summit = (cv2.dilate(correlation, np.ones((5, 5), np.uint8)) <= correlation) & (correlation >= least)
    summit[: rows // 2] = False
    summit[rows // 2, : columns // 2 + 1] = False
    summit[-2:], summit[:, :2], summit[:, -2:] = False, False, False  # of a summit there all sides must be known
    y, x = np.nonzero(summit)
    far = distance[y, x] >= least_px
    found = _summits(correlation, y[far], x[far], distance)
    if not len(found.x):
        return None
    free, along = np.ones(len(found.x), np.bool_), np.zeros(len(found.x), np.bool_)
    chosen: list[int] = []
    while len(chosen) < COPIES and free.any():
        best = int(np.argmax(np.where(free, found.score - ALONG * along, -np.inf)))
        chosen.append(best)
        free &= found.apart_px(best) >= APART_PX
        along |= found.parallel(best)
    return Repetition(
        tuple((float(found.x[each]), float(found.y[each])) for each in chosen),
        tuple(min(float(found.height[each]), 1.0) for each in chosen),
    )


@lru_cache(maxsize=2)
def _distance(rows: int, columns: int) -> NDArray[np.float64]:
    """From the middle, of each place."""
    return np.hypot(*np.ogrid[-(rows // 2) : rows // 2 + 1, -(columns // 2) : columns // 2 + 1])


def _summits(
    correlation: Field, row: NDArray[np.intp], column: NDArray[np.intp], distance: NDArray[np.float64]
) -> _Peaks:
    height = correlation[row, column]
    dx = _vertex(correlation[row, column - 1], height, correlation[row, column + 1])
    dy = _vertex(correlation[row - 1, column], height, correlation[row + 1, column])
    middle = correlation.shape[0] // 2, correlation.shape[1] // 2
    nearer = NEARER * distance[row, column] / max(middle)
    return _Peaks(column - middle[1] + dx, row - middle[0] + dy, height, height - nearer)


def _vertex(before: Field, middle: Field, after: Field) -> NDArray[np.float64]:
    """Where a parabola through three neighbours has its summit, from the middle one; at most half a pixel."""
    first, second, third = (np.asarray(each, np.float64) for each in (before, middle, after))
    bend = np.minimum(first - 2.0 * second + third, 0.0)
    slope = np.where(bend < 0.0, 0.5 * (first - third), 0.0)
    return np.asarray(np.clip(slope / np.where(bend < 0.0, bend, -1.0), -0.5, 0.5))


# --- golden ---


def _displacement(seen: Field, known: Field) -> tuple[float, float]:
    """x and y to be added to the picture's place to find the same in the golden frame."""
    rows, columns = seen.shape
    size = (cv2.getOptimalDFTSize(rows), cv2.getOptimalDFTSize(columns))
    one, other = _spectrum(known, size), _spectrum(seen, size)
    cross = cv2.mulSpectrums(one, other, 0, conjB=True)
    surface = np.asarray(np.fft.fftshift(cv2.idft(cross, flags=cv2.DFT_SCALE)), np.float32)
    middle = size[0] // 2, size[1] // 2
    row, column = divmod(int(np.argmax(surface * _nearness(*size))), size[1])
    inside = 0 < row < size[0] - 1 and 0 < column < size[1] - 1
    dx, dy = _top(surface, row, column) if inside else (0.0, 0.0)
    return column - middle[1] + dx, row - middle[0] + dy


def _spectrum(flat: Field, size: tuple[int, int]) -> Field:
    """Of the middle of a picture, which fades out towards its edges; packed as cv2.mulSpectrums takes it."""
    wide = np.zeros(size, np.float32)
    wide[: flat.shape[0], : flat.shape[1]] = flat * _window(*flat.shape)
    return np.asarray(cv2.dft(wide, nonzeroRows=len(flat)), np.float32)


@lru_cache(maxsize=2)
def _window(rows: int, columns: int) -> Field:
    return np.asarray(cv2.createHanningWindow((columns, rows), cv2.CV_32F), np.float32)


@lru_cache(maxsize=2)
def _nearness(rows: int, columns: int) -> Field:
    """A pattern falls on itself period by period: of equal peaks the nearest, for a stage is not a period off by
    itself."""
    y, x = np.ogrid[-(rows // 2) : rows - rows // 2, -(columns // 2) : columns - columns // 2]
    return np.asarray(1.0 - np.hypot(y / rows, x / columns), np.float32)


def _moved(picture: NDArray[P], x: float, y: float) -> NDArray[P]:
    """picture(column + x, row + y), linear between pixels and mirrored at the border."""
    move = np.array([[1.0, 0.0, x], [0.0, 1.0, y]], np.float32)
    size = (picture.shape[1], picture.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(picture, move, size, flags=flags, borderMode=cv2.BORDER_REFLECT_101), picture.dtype
    )


def _top(surface: Field, row: int, column: int) -> tuple[float, float]:
    across, down = surface[row, column - 1 : column + 2], surface[row - 1 : row + 2, column]
    return float(_vertex(*across)), float(_vertex(*down))


def _correlation(seen: Field, known: Field) -> float:
    one, other = (each - np.float32(each.mean()) for each in (seen, known))
    return float(np.vdot(one, other) / max(float(np.sqrt(np.vdot(one, one) * np.vdot(other, other))), 1e-9))


def _most_alike(seen: Field, known: Field) -> float:
    """Correlation that two frames of one place have at most, by the noise in both; at least 0.2."""
    shares = [
        min(max(_signal(_beside(each)) / max(float((each * each).mean()), 1e-6), 0.04), 1.0) for each in (seen, known)
    ]
    return max(float(np.sqrt(shares[0] * shares[1])), 0.2)


def _beside(flat: Field) -> list[tuple[float, float]]:
    """Covariance 3 and 4 px to the right, and below."""
    right = [float((flat[:, by:] * flat[:, :-by]).mean()) for by in (3, 4)]
    below = [float((flat[by:] * flat[:-by]).mean()) for by in (3, 4)]
    return [(right[0], right[1]), (below[0], below[1])]


def _levelled(golden: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The golden frame with the middle and the spread of the picture's grey levels."""
    low, middle, high = _levels(image)
    g_low, g_middle, g_high = _levels(golden)
    gain = (high - low) / max(g_high - g_low, 1.0)
    levels = np.clip((np.arange(256) - g_middle) * gain + middle + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(golden, levels), np.uint8)


def _levels(image: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The ends of SPREAD and the mean of what lies between. Not the median: where half of a pattern is bright and half
    dark, one pixel in a hundred moves it from the one to the other."""
    counts = np.bincount(image.ravel(), minlength=256)
    reached = np.cumsum(counts)
    low, high = (share * image.size for share in SPREAD)
    within = np.asarray(np.diff(np.clip(reached, low, high), prepend=low), np.float64)
    ends = np.searchsorted(reached, (low, high), side="right")
    return float(ends[0]), float(within @ np.arange(256)) / float(within.sum()), float(ends[1])
