"""Randomness with a spectrum: rough edges (Palasantzas) and correlated fields. In: lengths in pixels. Out: float32."""

from math import gamma, pi, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def edges(count: int, length: int, *, sigma_px: float, xi_px: float, hurst: float, rng: np.random.Generator) -> Field:
    """(count, length) edge displacements of rms sigma, correlation length xi; cut from longer records, not periodic."""
    record = 4 * length
    f = np.fft.rfftfreq(record)
    shape = (1.0 + (2.0 * pi * f * xi_px) ** 2) ** (hurst + 0.5)
    psd = sqrt(pi) * gamma(hurst + 0.5) / gamma(hurst) * 2.0 * sigma_px**2 * xi_px / shape
    white = rng.standard_normal((count, f.size)) + 1j * rng.standard_normal((count, f.size))
    rows = np.fft.irfft(white * np.sqrt(psd * record / 2.0), n=record, axis=1)
    return rows[:, :length].astype(np.float32)


def field(shape: tuple[int, int], *, size_px: float, rng: np.random.Generator) -> Field:
    """Gaussian random field, mean 0, rms 1, grains of about `size_px` (sigma of the smoothing)."""
    step = max(1, int(size_px / 2.0))  # smooth fields are drawn coarse and enlarged
    h, w = -(-shape[0] // step) + 8, -(-shape[1] // step) + 8
    white = rng.standard_normal((h, w)).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), size_px / step)
    if step > 1:
        smooth = cv2.resize(smooth, (w * step, h * step), interpolation=cv2.INTER_CUBIC)
    cut = smooth[4 * step : 4 * step + shape[0], 4 * step : 4 * step + shape[1]]
    return np.asarray((cut - cut.mean()) / max(float(cut.std()), 1e-9), np.float32)


def fractal(
    shape: tuple[int, int], *, coarse_px: float, octaves: int, rng: np.random.Generator, persistence: float = 0.6
) -> Field:
    """Sum of fields, each half the size and `persistence` the strength of the one before; rms about 1."""
    total = np.zeros(shape, np.float32)
    power = 0.0
    for octave in range(octaves):
        size, weight = max(coarse_px / 2.0**octave, 0.7), persistence**octave
        total += weight * field(shape, size_px=size, rng=rng)
        power += weight**2
    return np.asarray(total / sqrt(power), np.float32)


def warp(image: Field, *, strength_px: float, size_px: float, rng: np.random.Generator) -> Field:
    """The image as seen through a wavy pane: displaced by a smooth random field."""
    h, w = image.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    x += strength_px * field((h, w), size_px=size_px, rng=rng)
    y += strength_px * field((h, w), size_px=size_px, rng=rng)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101), np.float32)
