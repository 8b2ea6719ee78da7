"""One frame's original pixels in, how it uses its grey levels out: shares at the ends, percentiles, noise."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.messages import Histogram, Optics

TAIL = 0.005  # share of the pixels beyond `low` and `high`
BINS = 4096  # of pictures deeper than 8 bits: each as fine as a quarter of the noise that anybody works with
ROWS = 256  # tell the ends to a twentieth of a per cent, in 2 ms
GOLDEN = 0.6180339887498949  # multiples of it fall between one another: no line pattern keeps step with them
SECOND_DIFFERENCE = 6.0**0.5  # standard deviation of a - 2 b + c, where each has one of 1
EDGE = 5.0  # medians: 3.4 standard deviations of a Gaussian


def full_scale(pixels: NDArray[Any], optics: Optics) -> float | None:
    """The level at which the picture clips; None where nobody tells it."""
    if optics.full_scale is not None or pixels.dtype == np.float32:
        return optics.full_scale
    return float(2 ** (optics.bits_significant or pixels.dtype.itemsize * 8) - 1)


def histogram_of(pixels: NDArray[Any], optics: Optics) -> Histogram | None:
    """Inverted pictures are turned back: brighter is larger. None where full scale or a pixel is unknown."""
    top = full_scale(pixels, optics)
    if top is None or top <= 0.0:
        return None
    rows = _some_rows(pixels)
    if rows.dtype == np.float32 and not np.isfinite(rows).all():
        return None
    counts = _counts(rows, top)
    shares = (counts[::-1] if optics.inverted else counts) / counts.sum()
    levels = np.linspace(0.0, 1.0, shares.size)
    mean = float(shares @ levels)
    low, middle, high = levels[np.searchsorted(np.cumsum(shares), (TAIL, 0.5, 1.0 - TAIL))]
    return Histogram(
        at_black=float(shares[0]),
        at_white=float(shares[-1]),
        low=float(low),
        middle=float(middle),
        high=float(high),
        spread=float(np.sqrt(shares @ (levels - mean) ** 2)),
        noise=_noise(rows) / top,
    )


def _counts(pixels: NDArray[Any], top: float) -> NDArray[np.float64]:
    """Pixels by level: the first bin holds those at black, the last those at white or beyond."""
    bins = min(BINS, round(top) + 1) if pixels.dtype != np.float32 else BINS
    if pixels.dtype == np.uint8 and bins == 256:
        return cv2.calcHist([pixels], [0], None, [256], [0.0, 256.0]).ravel().astype(np.float64)
    inner = np.clip(pixels, 0.0, top).astype(np.float32)
    black, white = np.count_nonzero(inner <= 0.0), np.count_nonzero(inner >= top)
    # Between the ends: both are taken out of the bins that they share with their neighbours.
    counts = cv2.calcHist([inner], [0], None, [bins - 2], [0.0, float(np.nextafter(np.float32(top), np.inf))]).ravel()
    counts = counts.astype(np.float64)
    counts[0] -= black
    counts[-1] -= white
    return np.concatenate([[black], counts, [white]])


def _some_rows(pixels: NDArray[Any]) -> NDArray[Any]:
    height = len(pixels)
    if height <= ROWS:
        return pixels
    return np.ascontiguousarray(pixels[np.unique((np.arange(ROWS) * GOLDEN % 1.0 * height).astype(np.intp))])


def _noise(rows: NDArray[Any]) -> float:
    """What a smooth picture would not have, along the lines; edges, far beyond the median, are left out."""
    levels = rows[::4].astype(np.float32)
    bent = np.abs(levels[:, :-2] - 2.0 * levels[:, 1:-1] + levels[:, 2:])
    if bent.size == 0:
        return 0.0
    usual = float(np.median(bent))
    kept = bent[bent <= EDGE * usual] if usual > 0.0 else bent
    return float(np.sqrt(np.mean(np.square(kept)))) / SECOND_DIFFERENCE
