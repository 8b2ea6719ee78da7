"""The median of a picture's moved copies: a picture and the moves by which it falls on itself in, what repeats out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Strip = tuple[slice, slice]


def median_of(image: NDArray[np.uint8], moves_px: Sequence[tuple[float, float]]) -> NDArray[np.uint8]:
    """Each copy from both sides; where one side lies outside of the picture the other one twice, where both do another
    move's, and where no move stays inside the picture itself."""
    pairs = [_both_ways(image, move) for move in moves_px]
    for number, pair in enumerate(pairs):
        rest = [*pairs[number + 1 :], *pairs[:number]]
        for strip in pair.nowhere:
            _lend(pair, rest, image, strip)
    return _middle([copy for pair in pairs for copy in (pair.one, pair.other)])


@dataclass(frozen=True)
class _Pair:
    """One move both ways; where one lies outside it holds the other. nowhere: corners where both do."""

    one: NDArray[np.uint8]
    other: NDArray[np.uint8]
    nowhere: tuple[Strip, ...]


def _both_ways(image: NDArray[np.uint8], move: tuple[float, float]) -> _Pair:
    x, y = move
    one, other = _copy(image, x, y), _copy(image, -x, -y)
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


def _copy(image: NDArray[np.uint8], x: float, y: float) -> NDArray[np.uint8]:
    """picture(column + x, row + y), linear between pixels; its own pixels where no other falls."""
    out = image.copy()
    # Once along each axis is a fraction of the time of a warp, and a frame to inspect waits for six of these.
    (across, columns), (down, rows) = _steps(image.shape[1], x), _steps(image.shape[0], y)
    flat = _mixed([image[:, part] for part in across], x)
    out[rows, columns] = _mixed([flat[part] for part in down], y)
    return out


def _steps(size: int, by: float) -> tuple[tuple[slice, slice], slice]:
    """Along one axis: the pixels before and behind, and the places between them."""
    within, whole = _inside(size, by), math.floor(by)
    first = slice(within.start + whole, within.stop + whole)
    return (first, slice(first.start + 1, first.stop + 1)), within


def _mixed(parts: Sequence[NDArray[np.uint8]], by: float) -> NDArray[np.uint8]:
    before, behind = parts
    share = by - math.floor(by)
    return np.asarray(cv2.addWeighted(before, 1.0 - share, behind, share, 0.0), np.uint8) if share else before


def _inside(size: int, by: float) -> slice:
    """The places of an axis on which a moved copy still has pixels."""
    return slice(math.ceil(max(-by, 0.0)), size - math.ceil(max(by, 0.0)))


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
