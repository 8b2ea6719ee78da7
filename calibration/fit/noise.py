"""How much a frame's levels waver: variance as a straight line of signal, from what the fit leaves.

Levels of one row are compared with those of the next, so that what is smooth in the misfit does not count as noise.
For electrons the slope is 1 + delta + b; for grey levels it is that times the gain, and only the product is told.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Plane = NDArray[np.float64]

BINS = 24
FEWEST = 60  # pairs a bin
SHARED = 1.5  # each level is in two differences: their squares tell less than as many of their own
LEAST_SHARE = 0.02  # of the mean variance: no pixel counts more than 50 times another
# A pair further apart than this many sigma is no noise (a defect, a wall that is not where it was thought). Squares
# of what remains of a Gaussian are smaller by 3 %: 1 - 2 c phi(c) / (2 Phi(c) - 1) at c = 3.
CUT, KEPT = 3.0, 0.9733
MEDIAN_SQUARE = 0.4549  # of a Gaussian, as a share of its variance
MOST_WILD = 0.2  # share: where more are wild, the noise itself is not what was thought, and all count
SAME = 1e-6  # relative spread of the signal below which it is one level
WEIGHINGS = 4


@dataclass(frozen=True)
class Noise:
    """variance = dark + slope * signal, levels squared."""

    slope: float
    slope_sigma: float
    dark: float

    def variance(self, signal: Field) -> Plane:
        told = np.maximum(self.dark + self.slope * np.asarray(signal, np.float64), 0.0)
        return np.asarray(np.maximum(told, LEAST_SHARE * float(told.mean()) + 1e-12), np.float64)


def measured(levels: Field, signal: Field, valid: NDArray[np.bool_], *, counts: bool) -> Noise:
    """signal: what the levels are without noise. counts: nothing is dark but for no electron at all."""
    apart = np.diff(np.asarray(levels, np.float64) - signal, axis=0)
    middle = 0.5 * (signal[1:] + signal[:-1])
    both = valid[1:] & valid[:-1]
    if not both.any():
        return Noise(0.0, np.inf, 1.0)
    where, variance, share = _binned(np.asarray(middle[both], np.float64), 0.5 * apart[both] ** 2)
    if counts and float(where.min()) > 0.0:
        return _through_origin(where, variance, share)
    return _line(where, variance, share)


def smoothed(levels: Field) -> Field:
    """A first idea of the signal, before there is a fit: the mean of a pixel and those beside it in its row."""
    padded = np.pad(np.asarray(levels, np.float32), ((0, 0), (2, 2)), mode="reflect")
    width = levels.shape[1]
    return np.asarray(np.mean([padded[:, i : i + width] for i in range(5)], axis=0), np.float32)


def _binned(signal: Plane, square: Plane) -> tuple[Plane, Plane, float]:
    """Mean signal and variance in bins of as many pairs each, and one sigma of a variance as a share of it.

    One share for all bins: a bin that happens to waver little must not count more for it.
    """
    order = np.argsort(signal, kind="stable")
    parts = np.array_split(order, int(np.clip(signal.size // FEWEST, 1, BINS)))
    rows = [(float(signal[part].mean()), *_variance(square[part])) for part in parts]
    where, variance, shares = np.array(rows, np.float64).T
    return where, variance, float(np.median(shares))


def _variance(square: Plane) -> tuple[float, float]:
    """Mean of the squares without the wild ones, and its one sigma as a share of it."""
    kept = square
    limit = CUT**2 * float(np.median(square)) / MEDIAN_SQUARE
    if limit > 0.0 and float((square > limit).mean()) < MOST_WILD:
        kept = square[square <= limit]
    mean = max(float(kept.mean()), 1e-300)
    return mean / (KEPT if kept is not square else 1.0), float(np.std(kept)) / mean * float(np.sqrt(SHARED / kept.size))


def _through_origin(where: Plane, variance: Plane, share: float) -> Noise:
    """Each bin's own ratio, all with the same doubt."""
    slope = float(np.mean(variance / where))
    return Noise(slope, slope * share / float(np.sqrt(where.size)), 0.0)


def _line(where: Plane, variance: Plane, share: float) -> Noise:
    """Weighted by what the line itself says of each bin. With no more than one level of signal there is no slope."""
    told = np.full(where.shape, float(variance.mean()))
    if where.size < 3 or float(np.ptp(where)) <= SAME * float(np.abs(where).max()):
        return Noise(0.0, float("inf"), float(variance.mean()))
    for _ in range(WEIGHINGS):
        weight = 1.0 / (share * told) ** 2
        mean, level = (float((weight * each).sum() / weight.sum()) for each in (where, variance))
        power = float((weight * (where - mean) ** 2).sum())
        slope = float((weight * (where - mean) * (variance - level)).sum()) / power
        told = np.maximum(level + slope * (where - mean), LEAST_SHARE * level)
    return Noise(slope, float(1.0 / np.sqrt(power)), level - slope * mean)
