"""What the beam leaves behind: charge that grows with the dose and runs off with time, halos, a dark box of carbon.

Signals (h, w) float32 in and out; strengths are signed, of the signal, and 0 changes nothing.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

COARSE = 8.0  # steps a halo length is sampled with: it is smooth, so it is computed on a coarse grid
SOFT_EDGE_PX = 1.5  # of a contamination box: the beam's own width, some scans' drift


def halo(image: Field, *, strength: float, length_px: float) -> Field:
    """Each lit point brightens (or darkens) its surroundings by exp(-r / length), in two dimensions."""
    h, w = image.shape
    factor = max(1.0, length_px / COARSE)
    size = (max(round(w / factor), 1), max(round(h / factor), 1))
    coarse = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    wide = _exponential(coarse, length_px / factor)
    wide = np.asarray(cv2.resize(wide, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray(image + np.float32(strength) * (wide - image.mean()), np.float32)


def _exponential(image: Field, length_px: float) -> Field:
    """Convolved with exp(-r / length) of unit volume: transfer (1 + (k length)^2)^(-3/2), exact in two dimensions."""
    h, w = image.shape
    mirrored = np.concatenate([image, image[::-1]], axis=0)
    mirrored = np.concatenate([mirrored, mirrored[:, ::-1]], axis=1)
    ky, kx = 2.0 * np.pi * np.fft.fftfreq(2 * h)[:, None], 2.0 * np.pi * np.fft.rfftfreq(2 * w)[None, :]
    transfer = (1.0 + length_px**2 * (kx**2 + ky**2)) ** -1.5
    return np.asarray(np.fft.irfft2(np.fft.rfft2(mirrored) * transfer, s=mirrored.shape)[:h, :w], np.float32)


def charge_after(
    level: float, seconds: float, *, electrons_per_pixel: float, full_electrons: float, relaxes_s: float
) -> float:
    """Charge (0 none, 1 full) after `seconds` in which so many electrons a pixel came: d level / d electrons =
    (1 - level) / full_electrons, d level / dt = -level / relaxes_s. full_electrons 0: charged at once."""
    if full_electrons == 0.0:
        return 1.0
    grows, runs_off = electrons_per_pixel / full_electrons, seconds / relaxes_s
    rate = grows + runs_off
    end = grows / rate if rate > 0.0 else level
    return end + (level - end) * float(np.exp(-rate))


def contaminate(plane: Field, box: tuple[float, float, float, float], *, darker: float) -> Field:
    """The plane, darker by that share where it was scanned before: box x0, y0, x1, y1 in pixels of the plane."""
    h, w = plane.shape
    x0, y0, x1, y1 = box
    across, down = _soft_step(np.arange(w), x0, x1), _soft_step(np.arange(h), y0, y1)
    return np.asarray(plane * (1.0 - np.float32(darker) * down[:, None] * across[None, :]), np.float32)


def _soft_step(x: NDArray[np.intp], start: float, end: float) -> Field:
    rise = np.tanh((x - start) / SOFT_EDGE_PX) - np.tanh((x - end) / SOFT_EDGE_PX)
    return np.asarray(0.5 * rise, np.float32)
