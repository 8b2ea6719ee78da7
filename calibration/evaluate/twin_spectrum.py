"""Power by spatial frequency: the render's against the simulated picture's without its white noise, in decibels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Plane = NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """Radial means; power is counts^2 for a pixel, so that white noise stands at its variance."""

    frequency: Plane  # (n,) cycles a pixel, above 0 to 0.5
    twin: Plane  # (n,)
    monte_carlo: Plane  # (n,) noise taken off; may fall below zero where there is nothing else
    noise: float
    db: float | None  # mean |twin - Monte Carlo| where the latter stands above its noise; None where it never does

    @property
    def band(self) -> NDArray[np.bool_]:
        """(n,) where the simulated picture's signal stands above its noise."""
        return above_noise(self.monte_carlo, self.noise)


def spectrum(twin: Field, counts: Field, fano: float) -> Spectrum:
    """twin, counts: (h, w), both in counts."""
    frequency, ours = _radial(twin)
    noise = fano * float(counts.mean(dtype=np.float64))
    theirs = _radial(counts)[1] - noise
    used = above_noise(theirs, noise)
    if not used.any():
        return Spectrum(frequency, ours, theirs, noise, None)
    off = np.abs(10.0 * np.log10(np.maximum(ours[used], 1e-12) / theirs[used]))
    return Spectrum(frequency, ours, theirs, noise, float(off.mean()))


def above_noise(signal: Plane, noise: float) -> NDArray[np.bool_]:
    return np.asarray((signal > noise) & (signal > 0.0))


def _radial(field: Field) -> tuple[Plane, Plane]:
    """(frequency, power) by rings of one step of the shorter side; a Hann window keeps the borders out."""
    h, w = field.shape
    window = np.outer(np.hanning(h), np.hanning(w))
    plain = field.astype(np.float64)
    plain -= np.average(plain, weights=window)
    power = np.abs(np.fft.fft2(plain * window)) ** 2 / float((window**2).sum())
    radius = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :]) * min(h, w)
    ring = np.round(radius).astype(np.int64).ravel()
    sums, often = np.bincount(ring, weights=power.ravel()), np.bincount(ring)
    last = min(h, w) // 2
    steps = np.arange(1, last + 1)
    return steps / min(h, w), sums[steps] / often[steps]
