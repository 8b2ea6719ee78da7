"""Finds the data bar burnt into the bottom of a picture whose metadata does not give its height.

A data bar is a flat strip with printed text below a straight edge, under a picture that is not flat itself. Where
any of this is doubtful there is no answer: cropping a specimen's own dark band would be worse.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

TALLEST = 0.25  # of the picture; the highest seen on real instruments is 0.12
SHORTEST = 10  # rows: below it no text can be read
MARGIN = 2  # rows of picture that SmartSEM leaves below its data bar
ALIKE = 6  # levels of 255: JPEG noise around a flat background stays within
TEXT = 80  # levels between text and background
FLAT_ROW = 0.55  # share of one level in a row full of text; dividers and dense labels on real ones fall to 0.5
MOSTLY = 0.9  # of the bar's rows are flat
EDGE_ROW = 0.85  # share in the first row, a border line or padding
PICTURE_ROW = 0.5  # share of one level in a row of a picture, at most, for its lower edge to count
JUMP = 24  # levels between a border line and the picture above it, nearly everywhere along the row
STROKES = 40  # changes from background to text in all rows: a label of a few letters has more


def databar_rows(pixels: NDArray[Any]) -> int | None:  # pixels (h, w)
    """Rows at the bottom that are a data bar, or None where none stands out."""
    height, width = pixels.shape
    if height < 4 * SHORTEST or width < 64:
        return None
    levels = _eight_bits(pixels[height - int(height * TALLEST) :])
    start = _edge(levels, np.array([_flatness(row) for row in levels]))
    if start is None or len(levels) - start < SHORTEST or not _has_text(levels[start:]):
        return None
    return len(levels) - start


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    scaled = cv2.normalize(pixels.astype(np.float32), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return np.asarray(scaled, np.uint8)


def _flatness(row: NDArray[np.uint8]) -> float:
    """Share of the pixels within a few levels of the most frequent one."""
    counts = np.bincount(row, minlength=256)
    middle = int(counts.argmax())
    return float(counts[max(0, middle - ALIKE) : middle + ALIKE + 1].sum() / row.size)


def _edge(levels: NDArray[np.uint8], share: NDArray[np.float64]) -> int | None:
    """The topmost straight edge with nothing but a flat strip below it; a border line before a mere change."""
    rows = range(4, len(share) - SHORTEST)
    fits = [y for y in rows if share[y] >= EDGE_ROW and np.mean(share[y:-MARGIN] >= FLAT_ROW) >= MOSTLY]
    jumps = (y for y in fits if np.mean(cv2.absdiff(levels[y], levels[y - 1]) > JUMP) >= EDGE_ROW)
    changes = (y for y in fits if share[y - 4 : y].mean() <= PICTURE_ROW)
    return next(jumps, None) or next(changes, None)


def _has_text(strip: NDArray[np.uint8]) -> bool:
    background = int(np.bincount(strip.ravel(), minlength=256).argmax())
    text = np.abs(strip.astype(np.int16) - background) >= TEXT
    inked = text.any(axis=1) & ~text.all(axis=1)
    strokes = int(np.count_nonzero(np.diff(text[inked], axis=1)))
    return strokes >= STROKES and 0.003 < float(text.mean()) < 0.45
