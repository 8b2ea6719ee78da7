"""Texture by grey-level co-occurrence (Haralick): crops in, five statistics at two distances, four directions out."""

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.scene import LEAST_SPREAD, Levels

GREYS = 16  # more would leave most pairs of a 64 px crop unseen
REACH = 2.0  # standard deviations of the whole picture on either side of its mean; beyond lie the first and last grey
OFFSETS_PX = (  # rows, columns: distances 1 and 3, each at 0, 45, 90 and 135 degrees; 3 px aslant is 2 and 2
    (0, 1),
    (1, 1),
    (1, 0),
    (1, -1),
    (0, 3),
    (2, 2),
    (3, 0),
    (2, -2),
)
STATISTICS = ("contrast", "homogeneity", "energy", "correlation", "entropy")
TEXTURE = len(STATISTICS) * len(OFFSETS_PX)
FLAT = 1e-15  # variance of greys below which all are one, and correlate

_I, _J = np.mgrid[:GREYS, :GREYS]
_APART = ((_I - _J) ** 2).ravel().astype(np.float64)
_NEAR = 1.0 / (1.0 + _APART)
_ROW = _I.ravel().astype(np.float64)


def texture(crops: NDArray[np.uint8], levels: Levels) -> NDArray[np.float32]:
    """crops (n, h, w) of a picture of these levels -> (n, 40): by offset, then by statistic."""
    if not len(crops):
        return np.zeros((0, TEXTURE), np.float32)
    greys = quantised(crops, levels)
    each = [statistics(cooccurrence(greys, offset)) for offset in OFFSETS_PX]
    return np.concatenate(each, axis=1).astype(np.float32)


def quantised(crops: NDArray[np.uint8], levels: Levels) -> NDArray[np.uint8]:
    """To GREYS steps around the picture's mean: brightness and contrast of the detector leave them as they are."""
    spread = max(levels.spread, LEAST_SPREAD)
    told = (np.arange(256) - levels.mean) / (2.0 * REACH * spread) + 0.5
    table = np.clip(np.floor(told * GREYS), 0, GREYS - 1).astype(np.uint8)
    return np.asarray(table[crops], np.uint8)


def cooccurrence(greys: NDArray[np.uint8], offset_px: tuple[int, int]) -> NDArray[np.float64]:
    """(n, h, w) -> (n, GREYS, GREYS): how often two greys stand that far apart, either way round; adds up to 1."""
    rows, columns = offset_px
    height, width = greys.shape[1:]
    left, right = max(-columns, 0), width - max(columns, 0)
    first, second = greys[:, : height - rows, left:right], greys[:, rows:, left + columns : right + columns]
    pairs = first * np.uint8(GREYS) + second  # sixteen times sixteen: a pair is one byte, and its histogram the table
    count = [cv2.calcHist([each], [0], None, [GREYS * GREYS], [0, GREYS * GREYS]) for each in pairs]
    table = np.asarray(count, np.float64).reshape(len(greys), GREYS, GREYS)
    table = table + table.swapaxes(1, 2)
    return np.asarray(table / table.sum(axis=(1, 2), keepdims=True), np.float64)


def statistics(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, GREYS, GREYS) symmetric, each adding up to 1 -> (n, 5) as STATISTICS; entropy in nats."""
    p = tables.reshape(len(tables), -1)
    mean = p @ _ROW
    variance = p @ _ROW**2 - mean**2
    product = p @ (_ROW * _J.ravel()) - mean**2
    correlation = np.where(variance < FLAT, 1.0, product / np.maximum(variance, FLAT))
    entropy = -np.sum(p * np.log(np.where(p > 0.0, p, 1.0)), axis=1)
    return np.stack([p @ _APART, p @ _NEAR, np.sqrt((p**2).sum(axis=1)), correlation, entropy], axis=1)
