"""Pixels in, windowed patch spectra with their noise out: what the focus estimator is given of a frame.

Affine brightness and contrast drop out: the mean is left alone and the noise is measured in the same grey levels.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEVELS_PX = (2.0, 8.0)  # Gaussian widths whose blurs are taken off: levels spectra that fall like k^-2 to k^-4
PATCH_PX = 256  # wide enough for the spectrum of a disc 40 px across, small enough to follow scale and outliers
MAX_PATCHES = 16  # beyond it a frame costs more time than its information gain is worth
# A sine window has 1/1.23 independent samples a sample and axis; neighbours at half overlap take some of that again.
INDEPENDENT = 0.4
NOISE_BAND = 0.32  # cycles/px along both axes: the corner where a picture has least, 13 % of the samples
NOISE_COLUMNS = 9  # over so many columns it is averaged, to 3 %
NOISE_COLOURED = 0.8  # corner over middle: content falls less than a filter does where the lines end
OUTERMOST, LEAST_NOISE = 0.4, 0.06  # cycles/px across and along the lines: content is least there, and shading ends
LEAST_LAG, MOST_LAG = 0.03, 0.6  # of the cosine in one over the noise: three times chance, and a lag of 0.9 px


@dataclass(frozen=True)
class Patches:
    """Half-plane spectra of the patches of one frame."""

    spectra: NDArray[np.complex64]  # (patch, 256, 129), window of unit energy
    centres_px: NDArray[np.float32]  # (patch, 2) x, y from the frame's centre
    noise: NDArray[
        np.float32
    ]  # (129,) variance in one spectral sample by frequency along the scan line, levels squared
    independent: float  # share of the samples that are independent of one another


def patch_spectra(pixels: NDArray[Any]) -> Patches:
    """Cut (h, w) pixels of any depth into overlapping patches under a sine window and transform them.

    Frames smaller than a patch are windowed at their own size and padded with zeros.
    """
    height, width = pixels.shape
    size_y, size_x = min(height, PATCH_PX), min(width, PATCH_PX)
    window = _window(size_y, size_x)
    flat = _flatten(pixels)
    tops, lefts = _starts(height, size_y, width, size_x)
    padded = np.zeros((len(tops) * len(lefts), PATCH_PX, PATCH_PX), np.float32)
    centres = []
    for index, (top, left) in enumerate((t, s) for t in tops for s in lefts):
        padded[index, :size_y, :size_x] = flat[top : top + size_y, left : left + size_x] * window
        centres.append((left + (size_x - width) / 2.0, top + (size_y - height) / 2.0))
    spectra = (np.fft.rfft2(padded) * _restore()).astype(np.complex64)
    independent = INDEPENDENT * _share(height, size_y, len(tops)) * _share(width, size_x, len(lefts))
    return Patches(spectra, np.asarray(centres, np.float32), _noise(spectra), independent)


def resampled(pixels: NDArray[Any], magnified: float) -> NDArray[np.float32]:
    """The picture `magnified` times smaller about its centre, at the same size."""
    height, width = pixels.shape
    centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    matrix = np.hstack([np.eye(2) * magnified, (centre * (1.0 - magnified))[:, None]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    image = pixels.astype(np.float32)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


def _flatten(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """The frame with its falling spectrum levelled.

    A window mixes neighbouring samples; where the spectrum is steep the mixture leans to lower frequencies, and so
    the blur reads too small by per cents. What is levelled here is put back after the transform.
    """
    image = pixels.astype(np.float32)
    blurred = [cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) for sigma in LEVELS_PX]
    return np.asarray(image - np.mean(blurred, axis=0, dtype=np.float32), np.float32)


@lru_cache(maxsize=1)
def _restore() -> NDArray[np.float32]:
    """Inverse of what `_flatten` did to each sample, bounded where it removed nearly all."""
    fy = np.fft.fftfreq(PATCH_PX)[:, None]
    fx = np.fft.rfftfreq(PATCH_PX)[None, :]
    square = (2 * np.pi) ** 2 * (fx**2 + fy**2)
    passed = 1.0 - np.mean([np.exp(-0.5 * sigma**2 * square) for sigma in LEVELS_PX], axis=0)
    return np.asarray(1.0 / np.maximum(passed, 1e-3), np.float32)


def _starts(height: int, size_y: int, width: int, size_x: int) -> tuple[list[int], list[int]]:
    rows = 1 + int(np.ceil((height - size_y) / (size_y / 2))) if height > size_y else 1
    columns = 1 + int(np.ceil((width - size_x) / (size_x / 2))) if width > size_x else 1
    while rows * columns > MAX_PATCHES:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    return (
        [round(y) for y in np.linspace(0, height - size_y, rows)],
        [round(x) for x in np.linspace(0, width - size_x, columns)],
    )


def _share(length: int, size: int, patches: int) -> float:
    """Of the samples along one axis: less where patches overlap by more than half, or are padded."""
    apart = 1.0 + (length - size) / (size / 2.0)
    return min(1.0, apart / patches) * size / PATCH_PX


@lru_cache(maxsize=8)
def _window(size_y: int, size_x: int) -> NDArray[np.float32]:
    """Half a sine each way: of all windows the one that mixes neighbouring samples least for its width."""
    sine_y, sine_x = (np.sin(np.pi * (np.arange(size) + 0.5) / size) for size in (size_y, size_x))
    window = np.outer(sine_y, sine_x)
    return np.asarray(window / np.sqrt((window**2).sum()), np.float32)


def _noise(spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
    """By column: an amplifier's lag or a line filter colours the noise along the scan line, and along it only.

    Measured where a picture has least, at high frequencies across the lines.
    """
    fy, fx = np.abs(np.fft.fftfreq(PATCH_PX)), np.fft.rfftfreq(PATCH_PX)
    columns = _by_column(spectra[:, fy > NOISE_BAND])
    smooth = cv2.blur(columns[None, :], (NOISE_COLUMNS, 1), borderType=cv2.BORDER_REFLECT_101)[0]
    corner = columns[fx > NOISE_BAND].mean()
    if corner < NOISE_COLOURED * smooth[(fx > 0.2) & (fx < 0.3)].mean():
        return np.asarray(smooth, np.float32)
    lagged = _one_pole(_by_column(spectra[:, fy > OUTERMOST]), fx)
    return np.asarray(lagged * (corner / lagged[fx > NOISE_BAND].mean()), np.float32)


def _by_column(rows: NDArray[np.complex64]) -> NDArray[np.float64]:
    return np.asarray(np.mean(rows.real**2 + rows.imag**2, axis=(0, 1)), np.float64)


def _one_pole(columns: NDArray[np.float64], fx: NDArray[np.floating]) -> NDArray[np.float64]:
    """What an amplifier that lags makes of white noise: its inverse is linear in the cosine. White where none shows."""
    cosine, used = np.cos(2.0 * np.pi * fx), fx > LEAST_NOISE
    weights = columns[used].mean() / columns[used]
    slope, level = np.polyfit(cosine[used], weights, 1)
    falls = min(-float(slope) / float(level), MOST_LAG)
    if falls < LEAST_LAG:
        return np.ones_like(columns)
    return np.asarray(1.0 / (1.0 - falls * cosine), np.float64)
