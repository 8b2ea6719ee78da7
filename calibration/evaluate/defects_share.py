"""Shares and rates with what is known of them: Wilson's interval, and a bootstrap that draws whole specimens."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.interval import wilson

DRAWS = 1000
MEDIAN_DRAWS = 200  # where each draw costs a sort
SEED = 0
INTERVAL = (2.5, 97.5)  # percentiles
TAIL = 0.025
HALVINGS = 60  # of an interval: to the last digit


@dataclass(frozen=True)
class Share:
    """k of n. Two intervals of 95 %: as if all were independent, and as specimens are."""

    k: int
    n: int
    value: float | None  # None of nothing
    low: float | None
    high: float | None
    specimen_low: float | None
    specimen_high: float | None


@dataclass(frozen=True)
class AFrame:
    """A number of events in so many frames of 512 x 512, with the exact Poisson interval of 95 %."""

    n: int
    frames: float
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Mean:
    """95 % by specimen."""

    n: int
    value: float
    low: float
    high: float


def share(rows: Sequence[tuple[str, bool]]) -> Share:
    """rows: specimen, and whether it is so."""
    n, k = len(rows), sum(yes for _, yes in rows)
    if not n:
        return Share(0, 0, None, None, None, None, None)
    low, high = wilson(k, n)
    names, place = np.unique([name for name, _ in rows], return_inverse=True)
    there = np.bincount(place, minlength=len(names)).astype(np.float64)
    hit = np.bincount(place, weights=[yes for _, yes in rows], minlength=len(names))
    weights = draws(len(names), DRAWS)
    drawn = (weights @ hit) / np.maximum(weights @ there, 1.0)
    least, most = np.percentile(drawn, INTERVAL)
    return Share(k, n, k / n, low, high, float(least), float(most))


def draws(specimens: int, times: int) -> NDArray[np.float64]:
    """(times, specimens) how often each is drawn; the same on every call."""
    even = np.full(specimens, 1.0 / specimens)
    return np.random.default_rng(SEED).multinomial(specimens, even, size=times).astype(np.float64)


def mean(rows: Sequence[tuple[str, float]]) -> Mean | None:
    """rows: specimen and value; None of nothing."""
    if not rows:
        return None
    names, place = np.unique([name for name, _ in rows], return_inverse=True)
    there = np.bincount(place, minlength=len(names)).astype(np.float64)
    total = np.bincount(place, weights=[value for _, value in rows], minlength=len(names))
    weights = draws(len(names), DRAWS)
    low, high = np.percentile((weights @ total) / (weights @ there), INTERVAL)
    return Mean(len(rows), float(total.sum() / there.sum()), float(low), float(high))


def a_frame(n: int, frames: float) -> AFrame:
    if frames <= 0.0:
        return AFrame(n, 0.0, None, None, None)
    low = 0.0 if n == 0 else _expected(n - 1, 1.0 - TAIL)
    high = _expected(n, TAIL)
    return AFrame(n, frames, n / frames, low / frames, high / frames)


def _expected(n: int, chance: float) -> float:
    """The mean of a Poisson distribution that gives n or fewer with this chance, by halving."""
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(k[1:]))])
    low, high = 0.0, 20.0 + 2.0 * n + 10.0 * math.sqrt(n + 1.0)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        at_most = float(np.exp(k * math.log(middle) - middle - log_factorial).sum())
        low, high = (middle, high) if at_most > chance else (low, middle)
    return 0.5 * (low + high)


def interval(drawn: Callable[[NDArray[np.float64]], float], specimens: int) -> tuple[float, float]:
    """95 % of what `drawn` makes of the weights of the specimens."""
    low, high = np.percentile([drawn(each) for each in draws(specimens, MEDIAN_DRAWS)], INTERVAL)
    return float(low), float(high)
