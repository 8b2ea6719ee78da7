"""Randomness with a spectrum: rough edges and outlines (Palasantzas), correlated fields. Lengths in pixels, float32.

The spectrum of an edge is PSD(f) = sqrt(pi) G(H + 1/2) / G(H) * 2 s^2 xi / (1 + (2 pi f xi)^2)^(H + 1/2), two-sided,
and integrates to s^2. A plane field whose spectrum falls with the power H + 1 has just this spectrum along every
straight cut: that is what outlines of any shape are displaced by.
"""

from dataclasses import dataclass
from math import gamma, pi, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.surface import SpecimenError

Field = NDArray[np.float32]
Frequencies = NDArray[np.floating]


@dataclass(frozen=True)
class Roughness:
    """sigma: one standard deviation; xi: correlation length; correlation: of two facing edges' positions, -1..1."""

    sigma_px: float
    xi_px: float
    hurst: float = 0.7
    correlation: float = 0.0

    def __post_init__(self) -> None:
        good = self.sigma_px >= 0 and self.xi_px > 0 and 0 < self.hurst <= 1 and abs(self.correlation) <= 1
        if not good:  # NaN is not good either
            raise SpecimenError(
                f"{self}: impossible roughness; needs sigma >= 0, xi > 0, 0 < hurst <= 1, correlation in -1..1"
            )


def psd(f: Frequencies, rough: Roughness) -> Frequencies:
    """Two-sided power spectral density (px^3) at f cycles a pixel."""
    fall = (1.0 + (2.0 * pi * f * rough.xi_px) ** 2) ** (rough.hurst + 0.5)
    return sqrt(pi) * gamma(rough.hurst + 0.5) / gamma(rough.hurst) * 2.0 * rough.sigma_px**2 * rough.xi_px / fall


def edges(count: int, length: int, *, sigma_px: float, xi_px: float, hurst: float, rng: np.random.Generator) -> Field:
    """(count, length) edge displacements of rms sigma, correlation length xi; cut from longer records, not periodic."""
    record = 4 * length
    power = psd(np.fft.rfftfreq(record), Roughness(sigma_px, xi_px, hurst)) * record / 2.0
    power[0] *= 2.0  # the mean and the fastest wave have one number each, not two
    power[-1] *= 2.0
    white = rng.standard_normal((count, power.size)) + 1j * rng.standard_normal((count, power.size))
    rows = np.fft.irfft(white * np.sqrt(power), n=record, axis=1)
    return rows[:, :length].astype(np.float32)


def line_edges(count: int, length: int, rough: Roughness, *, rng: np.random.Generator) -> Field:
    """(2 count, length) positions of the left (even) and right (odd) edges of `count` lines.

    Both have rms sigma and the correlation asked for, so that LWR^2 = 2 sigma^2 (1 - correlation).
    """
    own = {"sigma_px": rough.sigma_px, "xi_px": rough.xi_px, "hurst": rough.hurst}
    record = edges(2 * count, length, **own, rng=rng)
    c = rough.correlation
    record[1::2] = c * record[::2] + sqrt(1.0 - c * c) * record[1::2]
    return record


def roughened_outline(inside: Field, rough: Roughness, *, rng: np.random.Generator) -> Field:
    """The signed distance with its zero moved along the outline by a rough record; same along each normal.

    Edges that face each other closer than xi wander together as `correlation` says (0: independent), those further
    apart do not know of each other.
    """
    if rough.sigma_px < 1e-3:
        return inside
    ny, nx = (np.asarray(slope, np.float32) for slope in np.gradient(cv2.GaussianBlur(inside, (0, 0), 0.7)))
    steep = np.maximum(np.hypot(nx, ny), np.float32(1e-3))
    nx /= steep
    ny /= steep
    near = np.clip(inside, -12.0 * rough.sigma_px - 8.0, 12.0 * rough.sigma_px + 8.0)
    y, x = np.mgrid[: inside.shape[0], : inside.shape[1]].astype(np.float32)
    foot_x, foot_y = x - near * nx, y - near * ny
    fields = [*matern_pair(inside.shape, rough, rng=rng), matern_pair(inside.shape, rough, rng=rng)[0]]
    swell, *sway = (_at(plane, foot_x, foot_y) for plane in fields)
    c = rough.correlation
    moved = sqrt((1.0 - c) / 2.0) * swell + sqrt((1.0 + c) / 2.0) * (sway[0] * nx + sway[1] * ny)
    return np.asarray(inside + moved, np.float32)


def matern_pair(shape: tuple[int, ...], rough: Roughness, *, rng: np.random.Generator) -> tuple[Field, Field]:
    """Two independent plane fields (h, w) of rms sigma; every straight cut of one has the spectrum of an edge.

    Both come from one complex transform, cut from a larger period so that no side knows the other.
    """
    pad = int(5.0 * rough.xi_px) + 4
    h, w = cv2.getOptimalDFTSize(shape[0] + pad), cv2.getOptimalDFTSize(shape[1] + pad)
    ky, kx = np.fft.fftfreq(h).astype(np.float32), np.fft.fftfreq(w).astype(np.float32)
    k2 = np.float32((2.0 * pi * rough.xi_px) ** 2) * (ky[:, None] ** 2 + kx[None, :] ** 2)
    # 4 pi H xi^2 s^2 / (1 + ...)^(H + 1) integrates to s^2 over the plane.
    rms = sqrt(4.0 * pi * rough.hurst * h * w) * rough.sigma_px * rough.xi_px
    waves = rng.standard_normal((h, 2 * w), np.float32).view(np.complex64)
    waves *= np.float32(rms) * np.exp(np.float32(-0.5 * (rough.hurst + 1.0)) * np.log1p(k2))
    planes = cv2.dft(waves.view(np.float32).reshape(h, w, 2), flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
    cut = planes[: shape[0], : shape[1]]
    return np.ascontiguousarray(cut[..., 0]), np.ascontiguousarray(cut[..., 1])


def field(shape: tuple[int, int], *, size_px: float, rng: np.random.Generator) -> Field:
    """Gaussian random field, mean 0, rms 1, grains of about `size_px` (sigma of the smoothing)."""
    step = max(1, int(size_px / 4.0))  # smooth fields are drawn coarse and enlarged
    h, w = -(-shape[0] // step) + 8, -(-shape[1] // step) + 8
    white = rng.standard_normal((h, w)).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), size_px / step)
    if step > 1:
        smooth = cv2.resize(smooth, (w * step, h * step), interpolation=cv2.INTER_CUBIC)
        smooth = cv2.GaussianBlur(smooth, (0, 0), 0.6 * step)  # else the slopes show the coarse grid
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


def _at(plane: Field, x: Field, y: Field) -> Field:
    return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)
