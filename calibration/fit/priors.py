"""What each constant may be before any frame was looked at: the value it keeps when nothing else is told, and bounds.

The fit works with shares of the way between the bounds, 0 to 1; lengths by their logarithm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from calibration.twin.emission import SILICON_1KEV, Emission, range_m
from calibration.twin.profile import EMISSION, FACTOR, KEEP, LENGTH, SIGMA, STRENGTH, STRETCH_X, STRETCH_XY
from calibration.twin.scan import VARIANCE_FACTOR

REFERENCE_V = 1000.0  # of the constants in `Emission`
RANGE_DOUBT = 4.0  # factor either way on Kanaya and Okayama's range
SPOT_PX = (0.15, 0.6, 8.0)  # sigma: below the first a pixel does not show it
NO_MORE_THAN_CHANCE = 1.0 / math.sqrt(12.0)  # standard deviation of what is anywhere between the bounds: 0.29


@dataclass(frozen=True)
class Prior:
    """One free constant."""

    name: str
    value: float
    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, share: float) -> float:
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def sigma(self, share: float, share_sigma: float) -> float:
        """Of the value, by the slope at that share."""
        slope = self.at(share) * math.log(self.high / self.low) if self.log else self.high - self.low
        return share_sigma * slope


# Low and high, wider than any material met so far; lengths at 1 keV. A constant of `Emission` that is not here stays.
RANGES = {
    "exponent": (0.0, 2.0),
    "steepest": (1.1, 8.0),
    "side": (0.0, 4.0),
    "side_length_m": (1e-9, 60e-9),
    "side_height_m": (1e-9, 60e-9),
    "swallow": (0.0, 1.0),
    "swallow_height_m": (3e-9, 200e-9),
    "shadow": (0.0, 1.5),
    "floor": (0.0, 0.5),
    "indirect": (0.0, 0.6),
    "asymmetry": (-0.8, 0.8),
}
BY_LOGARITHM = ("steepest", "side_length_m", "side_height_m", "swallow_height_m")
RANGE = "range_m"


def priors(pixel_size_m: float, voltage_v: float | None = None) -> tuple[Prior, ...]:
    """All constants but the noise. pixel_size_m: the finest of the frames; voltage_v: None counts as 1 keV."""
    grown = max(range_m(voltage_v or REFERENCE_V) / range_m(REFERENCE_V), 1.0)
    free = tuple(_emitted(each.name, grown) for each in fields(Emission) if each.name in RANGES or each.name == RANGE)
    low, usual, high = (pixel_size_m * px for px in SPOT_PX)
    return (
        *free,
        Prior(SIGMA, usual, low, high, log=True),
        Prior(STRETCH_X, 0.0, -1.2, 1.2),
        Prior(STRETCH_XY, 0.0, -1.2, 1.2),
        Prior(STRENGTH, 0.0, -0.6, 0.6),
        Prior(LENGTH, 45.0, 5.0, 250.0, log=True),
        Prior(KEEP, 0.0, 0.0, 0.6),
    )


def _emitted(name: str, grown: float) -> Prior:
    """grown: how many times 1 keV's range electrons go; edges shine up to so much further."""
    usual = float(getattr(SILICON_1KEV, name))
    if name == RANGE:
        reach = range_m(REFERENCE_V) * grown
        return Prior(EMISSION + name, reach, reach / RANGE_DOUBT, reach * RANGE_DOUBT, log=True)
    low, high = RANGES[name]
    stretched = high * grown if name.endswith("_m") else high
    return Prior(EMISSION + name, usual, low, stretched, log=name in BY_LOGARITHM)


NOISE = Prior(FACTOR, VARIANCE_FACTOR, 0.5, 5.0)


# Where the search begins for constants that do nothing at their prior, or stand on a bound there.
BEGIN = {EMISSION + "indirect": 0.1, EMISSION + "floor": 0.02, STRENGTH: 0.02, KEEP: 0.02}
BORDER = 0.02  # share: no search begins on a bound


def start(free: Sequence[Prior]) -> NDArray[np.float64]:
    """(n,) shares where the search begins."""
    begun = np.array([prior.share(BEGIN.get(prior.name, prior.value)) for prior in free])
    return np.asarray(np.clip(begun, BORDER, 1.0 - BORDER), np.float64)


def usual(free: Sequence[Prior]) -> NDArray[np.float64]:
    """(n,) shares of the priors' own values."""
    return np.array([prior.share(prior.value) for prior in free])
