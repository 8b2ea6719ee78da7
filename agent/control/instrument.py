"""What is known of the column before a frame is looked at. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """The optics, as a certificate or a header has them."""

    alpha_rad: float | None = None  # None: to be estimated with z
    alpha_sigma_rad: float = 0.0
    fw50_m: float = 0.0
    stigmator_matrix_m: tuple[tuple[float, float], tuple[float, float]] | None = None
    scale_per_m: float | None = None  # None: 1/WD may or may not be compensated, both are tried
    gain_sigma: float = 0.0  # of the frames' contrast, with far tails; 0 in a stream: its scene epochs vouch for it
    hysteresis_m: float = 0.0  # play of the working distance


def distinct(values_m: Sequence[float], tolerance_m: float = 20e-9) -> list[float]:
    """Working distances that differ by more than a read-back's rounding."""
    found: list[float] = []
    for value in sorted(values_m):
        if not found or value - found[-1] > tolerance_m:
            found.append(value)
    return found
