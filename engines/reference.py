"""What a frame would show without its defects: from its own repetition, or from another frame of the same design.

A frame in, its reference out: (h, w) uint8 in the frame's own grey levels, where a defect is what differs. No model is
asked; a reference that cannot be trusted is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Strip = tuple[slice, slice]
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
class _Peak:
    """A local maximum of the correlation, to a fraction of a pixel."""

    x: float
    y: float
    height: float
    score: float

    def apart_px(self, other: "_Peak") -> float:
        """A move and its opposite are one."""
        same, opposite = np.hypot(self.x - other.x, self.y - other.y), np.hypot(self.x + other.x, self.y + other.y)
        return float(min(same, opposite))

    def parallel(self, other: "_Peak") -> bool:
        lengths = np.hypot(self.x, self.y) * np.hypot(other.x, other.y)
        return bool(abs(self.x * other.x + self.y * other.y) >= PARALLEL * lengths)


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
    peaks = _peaks(covariance / np.float32(signal), np.maximum(chance, np.float32(REPEATS)), least_px=LEAST_PX * factor)
    if not peaks:
        return None
    moves = tuple((peak.x / factor, peak.y / factor) for peak in peaks)
    return Repetition(moves, tuple(min(peak.height, 1.0) for peak in peaks))


def median_of_copies(image: NDArray[np.uint8], found: Repetition) -> NDArray[np.uint8]:
    """Each copy from both sides; where one side lies outside of the picture the other one twice, where both do another
    move's, and where no move stays inside the picture itself."""
    pairs = [_both_ways(image, move) for move in found.moves_px]
    for number, pair in enumerate(pairs):
        rest = [*pairs[number + 1 :], *pairs[:number]]
        for strip in pair.nowhere:
            _lend(pair, rest, image, strip)
    return _middle([copy for pair in pairs for copy in (pair.one, pair.other)])


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
    moved = _moved(golden, x, y, cv2.BORDER_REFLECT_101)
    alike = float(np.corrcoef(seen.ravel(), _moved(known, x, y, cv2.BORDER_REFLECT_101).ravel())[0, 1])
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
    size = (cv2.getOptimalDFTSize(rows + ry), cv2.getOptimalDFTSize(columns + rx))
    spectrum = np.fft.rfft2(flat, size)
    power = np.fft.irfft2(spectrum.real**2 + spectrum.imag**2, size)
    whole = np.roll(power, (ry, rx), axis=(0, 1))[: 2 * ry + 1, : 2 * rx + 1]
    common = np.outer(rows - np.abs(np.arange(-ry, ry + 1)), columns - np.abs(np.arange(-rx, rx + 1)))
    return np.asarray(whole / common, np.float32), np.asarray(common, np.float32)


def _signal(beside: list[tuple[float, float]]) -> float:
    """The signal's own variance, which noise that differs from pixel to pixel is no part of: by a parabola back from
    moves of 3 and 4 px, where the noise's correlation has ended, along the axis on which the picture changes less."""
    return max(near + max(near - far, 0.0) * 9.0 / 7.0 for near, far in beside)


def _peaks(correlation: Field, least: Field, *, least_px: float) -> list[_Peak]:
    """The best local maxima of one half plane."""
    rows, columns = correlation.shape
    ry, rx = rows // 2, columns // 2
    y, x = np.mgrid[-ry : ry + 1, -rx : rx + 1]
    distance = np.hypot(x, y)
    summit = (cv2.dilate(correlation, np.ones((5, 5), np.uint8)) <= correlation) & (distance >= least_px)
    summit &= (y > 0) | ((y == 0) & (x > 0))
    summit &= (np.abs(y) < ry - 1) & (np.abs(x) < rx - 1)
    places = np.argwhere(summit & (correlation >= least))
    near = NEARER * distance / max(ry, rx)
    found = [_summit(correlation, row, column, near) for row, column in places]
    chosen: list[_Peak] = []
    while found and len(chosen) < COPIES:
        best = max(found, key=lambda peak: peak.score - ALONG * any(map(peak.parallel, chosen)))
        chosen.append(best)
        found = [peak for peak in found if peak.apart_px(best) >= APART_PX]
    return chosen


def _summit(correlation: Field, row: int, column: int, penalty: NDArray[np.float64]) -> _Peak:
    dx, dy = _vertex(correlation, row, column)
    height = float(correlation[row, column])
    x, y = column - correlation.shape[1] // 2 + dx, row - correlation.shape[0] // 2 + dy
    return _Peak(float(x), float(y), height, height - float(penalty[row, column]))


def _vertex(surface: Field, row: int, column: int) -> tuple[float, float]:
    """Where a parabola through three values each way has its summit, from the middle one; at most half a pixel."""
    middle = float(surface[row, column])
    offsets = []
    for before, after in (
        (surface[row, column - 1], surface[row, column + 1]),
        (surface[row - 1, column], surface[row + 1, column]),
    ):
        bend = float(before) - 2.0 * middle + float(after)
        offsets.append(0.0 if bend >= 0.0 else float(np.clip(0.5 * (float(before) - float(after)) / bend, -0.5, 0.5)))
    return offsets[0], offsets[1]


# --- copies ---


@dataclass(frozen=True)
class _Pair:
    """One move both ways; where one lies outside it holds the other. nowhere: corners where both do."""

    one: NDArray[np.uint8]
    other: NDArray[np.uint8]
    nowhere: tuple[Strip, ...]


def _both_ways(image: NDArray[np.uint8], move: tuple[float, float]) -> _Pair:
    x, y = move
    one, other = _moved(image, x, y), _moved(image, -x, -y)
    first = one.copy()
    ahead, behind = _outside(image.shape, x, y), _outside(image.shape, -x, -y)
    for strip in ahead:
        one[strip] = other[strip]
    for strip in behind:
        other[strip] = first[strip]
    # Strips of one way meet those of the other where the rows of one cross the columns of the other.
    corners = [(a[0], b[1]) for a in ahead for b in behind if a[1] == b[0] == slice(None)]
    corners += [(b[0], a[1]) for a in ahead for b in behind if a[0] == b[1] == slice(None)]
    return _Pair(one, other, tuple(corners))


def _lend(pair: _Pair, others: Sequence[_Pair], image: NDArray[np.uint8], strip: Strip) -> None:
    """What another pair, which reaches there, has in the strip; else the picture itself: nothing differs there."""
    for each in others:
        if not any(_meet(strip, nowhere) for nowhere in each.nowhere):
            pair.one[strip], pair.other[strip] = each.one[strip], each.other[strip]
            return
    pair.one[strip] = pair.other[strip] = image[strip]


def _meet(a: Strip, b: Strip) -> bool:
    return all(_reach(p) == _reach(q) for p, q in zip(a, b, strict=True))


def _reach(part: slice) -> bool:
    """At which end of the picture a strip lies."""
    return part.start is None or part.start == 0


def _moved(picture: NDArray[P], x: float, y: float, border: int = cv2.BORDER_REPLICATE) -> NDArray[P]:
    """picture(column + x, row + y), linear between pixels."""
    move = np.array([[1.0, 0.0, x], [0.0, 1.0, y]], np.float32)
    size = (picture.shape[1], picture.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, move, size, flags=flags, borderMode=border), picture.dtype)


def _outside(shape: tuple[int, ...], x: float, y: float) -> list[Strip]:
    """Strips of a moved copy that no pixel of the picture fell on."""
    rows, columns = shape
    dx, dy = int(np.ceil(abs(x))), int(np.ceil(abs(y)))
    strips = []
    if dx:
        strips.append((slice(None), slice(columns - dx, None) if x > 0 else slice(0, dx)))
    if dy:
        strips.append((slice(rows - dy, None) if y > 0 else slice(0, dy), slice(None)))
    return strips


def _middle(copies: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The median, of an even number the mean of the middle two; sorted by pairs, for it takes a tenth of the time."""
    ordered = list(copies)
    for end in range(len(ordered) - 1, 0, -1):
        for i, j in pairwise(range(end + 1)):
            ordered[i], ordered[j] = (
                np.asarray(cv2.min(ordered[i], ordered[j]), np.uint8),
                np.asarray(cv2.max(ordered[i], ordered[j]), np.uint8),
            )
        if end <= len(ordered) // 2 - 1:
            break
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return np.asarray(cv2.addWeighted(ordered[half - 1], 0.5, ordered[half], 0.5, 0.0), np.uint8)


# --- golden ---


def _displacement(seen: Field, known: Field) -> tuple[float, float]:
    """x and y to be added to the picture's place to find the same in the golden frame."""
    size = (cv2.getOptimalDFTSize(seen.shape[0]), cv2.getOptimalDFTSize(seen.shape[1]))
    window = np.asarray(cv2.createHanningWindow((seen.shape[1], seen.shape[0]), cv2.CV_32F), np.float32)
    cross = np.fft.rfft2(known * window, size) * np.conj(np.fft.rfft2(seen * window, size))
    surface = np.asarray(np.fft.fftshift(np.fft.irfft2(cross, size)), np.float32)
    middle = surface.shape[0] // 2, surface.shape[1] // 2
    # A pattern falls on itself period by period: of equal peaks the nearest, for a stage is not a period off by itself.
    y, x = np.mgrid[: surface.shape[0], : surface.shape[1]]
    off = np.hypot((y - middle[0]) / surface.shape[0], (x - middle[1]) / surface.shape[1])
    row, column = divmod(int(np.argmax(surface * (1.0 - off))), surface.shape[1])
    inside = 0 < row < surface.shape[0] - 1 and 0 < column < surface.shape[1] - 1
    dx, dy = _vertex(surface, row, column) if inside else (0.0, 0.0)
    return column - middle[1] + dx, row - middle[0] + dy


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
    low, middle, high = np.percentile(image, (10, 50, 90))
    g_low, g_middle, g_high = np.percentile(golden, (10, 50, 90))
    gain = (high - low) / max(g_high - g_low, 1.0)
    levels = np.clip((np.arange(256) - g_middle) * gain + middle + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(golden, levels), np.uint8)
