"""What each constant may be before any frame was looked at: the value it keeps when nothing else is told, and bounds.

The fit works with shares of the way between the bounds, 0 to 1; lengths by their logarithm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from calibration.twin.emission import SILICON_1KEV, Emission, range_m
from calibration.twin.matter import MATERIALS
from calibration.twin.profile import EMISSION, FACTOR, KEEP, LENGTH, SIGMA, STRENGTH, STRETCH_X, STRETCH_XY
from calibration.twin.scan import VARIANCE_FACTOR

REFERENCE_V = 1000.0  # of the constants in `Emission`
RANGE_DOUBT = 4.0  # factor either way on Kanaya and Okayama's range
ATOMIC_WEIGHT = {
    1: 1.008, 6: 12.01, 7: 14.01, 8: 16.0, 14: 28.1, 22: 47.87, 29: 63.55, 50: 118.7, 74: 183.8, 79: 197.0,
}  # fmt: skip
DENSITY = {
    "Si": 2.33, "SiO2": 2.2, "resist": 1.18, "W": 19.3, "Cu": 8.96, "TiN": 5.4, "C": 2.0, "Sn": 7.29, "Au": 19.3,
    "polymer": 0.94,
}  # fmt: skip  # g/cm^3
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


def reach_m(voltage_v: float | None = None, material: str | None = None) -> float:
    """Kanaya and Okayama's range in a material; elements slow electrons by their share of the mass. None: 1 keV, Si."""
    solid, voltage = MATERIALS[material or "Si"], voltage_v or REFERENCE_V
    density = DENSITY[solid.name]
    slowed = (
        share / range_m(voltage, atomic_weight=ATOMIC_WEIGHT[number], number=number, density=density)
        for number, share in solid.elements
    )
    return 1.0 / sum(slowed)


def priors(pixel_size_m: float, voltage_v: float | None = None, material: str | None = None) -> tuple[Prior, ...]:
    """All constants but the noise. pixel_size_m: the finest of the frames; None: 1 keV, silicon."""
    reach = reach_m(voltage_v, material)
    free = tuple(_emitted(each.name, reach) for each in fields(Emission) if each.name in RANGES or each.name == RANGE)
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


def _emitted(name: str, reach: float) -> Prior:
    """reach: how far electrons go; where that is further than in silicon at 1 keV, edges may shine further too."""
    usual = float(getattr(SILICON_1KEV, name))
    grown = max(reach / range_m(REFERENCE_V), 1.0)
    if name == RANGE:
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
