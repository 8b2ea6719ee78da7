"""From relative yield to what the detector chain makes of it, without noise: probe, shift, amplifier, charging."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from calibration.twin.probe import frequencies, mirror_pad
from calibration.twin.profile import KEEP, LENGTH, STRENGTH, Charging, Spot, spot_of
from calibration.twin.scan import charging_tail

Field = NDArray[np.float32]
Plane = NDArray[np.float64]

REACH = 4.0  # sigma: beyond lie 6e-5 of a Gaussian
SPARE_PX = 8  # for the amplifier's tail and the shift
STEP_PX = 16  # margins are multiples of it, so that few sizes are transformed


@dataclass(frozen=True)
class Chain:
    """Everything between the surface and the stored level but dose, gain and noise."""

    spot: Spot
    charging: Charging
    keep: float = 0.0  # of the amplifier: share of the pixel before


def chain_of(values: dict[str, float], spot: Spot | None) -> Chain:
    """spot: known for this frame; None: that of the values."""
    return Chain(spot or spot_of(values), Charging(values[STRENGTH], values[LENGTH]), values[KEEP])


def imaged(emitted: Field, chain: Chain, *, pixel_size_m: float, shift_px: tuple[float, float] = (0.0, 0.0)) -> Field:
    """(h, w) relative yield as it is recorded, moved by `shift_px` (x, y); the picture goes on as its own mirror."""
    reach = REACH * chain.spot.major_m / pixel_size_m + max(map(abs, shift_px)) + SPARE_PX
    margin = STEP_PX * math.ceil(reach / STEP_PX)
    h, w = emitted.shape
    padded = mirror_pad(emitted, margin)
    transfer = _transfer((padded.shape[0], padded.shape[1]), chain, pixel_size_m, shift_px)
    shown = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)
    seen = np.asarray(shown[margin : margin + h, margin : margin + w], np.float32)
    if chain.charging.strength == 0.0:
        return seen
    return charging_tail(seen, strength=chain.charging.strength, length_px=chain.charging.length_px)


@lru_cache(maxsize=64)  # most renders of a fit change the emission alone
def _transfer(
    shape: tuple[int, int], chain: Chain, pixel_size_m: float, shift_px: tuple[float, float]
) -> NDArray[np.complex64]:
    """Of the half plane: a Gaussian, a displacement, and one pole along the line."""
    kx, ky = frequencies(shape, 1.0)
    major, minor = chain.spot.major_m / pixel_size_m, chain.spot.minor_m / pixel_size_m
    cos, sin = math.cos(chain.spot.angle_rad), math.sin(chain.spot.angle_rad)
    spot = np.exp(-0.5 * ((major * (cos * kx + sin * ky)) ** 2 + (minor * (cos * ky - sin * kx)) ** 2))
    moved = np.exp(-1j * kx * shift_px[0]) * np.exp(-1j * ky * shift_px[1])
    return np.asarray(spot * moved * _one_pole(kx, chain.keep), np.complex64)


def _one_pole(kx: Plane, keep: float) -> NDArray[np.complex128]:
    """Of `scan.amplifier`."""
    return np.asarray((1.0 - keep) / (1.0 - keep * np.exp(-1j * kx)), np.complex128)
