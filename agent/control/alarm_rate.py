"""Confidences found in frames without a defect in, the threshold for a rate of false alarms out. Pure.

Alarms in n frames are Poisson: k of them allow a rate of up to m/n, with P(at most k | m) = 5 %. None in n frames still
allows 3.0/n: for 0.001 a frame 2,996 frames are needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SURE = 0.95


@dataclass(frozen=True)
class Found:
    """The lowest threshold whose rate is, by its upper bound, no more than was asked for."""

    threshold: float
    alarms: int
    frames: int
    upper_per_frame: float


def upper(alarms: int, frames: int, *, sure: float = SURE) -> float:
    """The rate a frame that so many alarms leave possible (Poisson, one-sided; the exact bound of Garwood 1936)."""
    low, high = float(alarms), alarms + 10.0 + 10.0 * math.sqrt(alarms + 1.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if at_most(alarms, middle) > 1.0 - sure else (low, middle)
    return high / frames


def at_most(alarms: int, mean: float) -> float:
    """Probability of so many or fewer, of a Poisson number."""
    if mean <= 0.0:
        return 1.0
    logs = [k * math.log(mean) - mean - math.lgamma(k + 1.0) for k in range(alarms + 1)]
    return min(1.0, math.fsum(map(math.exp, logs)))


def needed(rate: float, *, sure: float = SURE) -> int:
    """Frames without any alarm that show a rate."""
    return math.ceil(-math.log(1.0 - sure) / rate)


def most_alarms(frames: int, rate: float, *, sure: float = SURE) -> int | None:
    """How many alarms so many frames may hold; None: they are too few for this rate."""
    if upper(0, frames, sure=sure) > rate:
        return None
    alarms = 0
    while upper(alarms + 1, frames, sure=sure) <= rate:
        alarms += 1
    return alarms


def threshold_for(rate: float, confidences: Sequence[float], *, frames: int, floor: float) -> Found | None:
    """confidences: of all false alarms at or above `floor`, from `frames` frames. None: too few frames."""
    allowed = most_alarms(frames, rate)
    if allowed is None:
        return None
    falling = sorted(confidences, reverse=True)
    # Just above the first alarm that is one too many.
    threshold = floor if len(falling) <= allowed else math.nextafter(falling[allowed], math.inf)
    alarms = sum(each >= threshold for each in falling)
    return Found(threshold, alarms, frames, upper(alarms, frames))
