"""From signal to picture: dose noise, amplifier, clip, jitter, shift, scale, databar. Electrons in, grey levels out."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

VARIANCE_FACTOR = 1.6  # variance / mean of detected electrons: 1 + delta + b (backscattered bursts)
GAUSSIAN_FROM = 20.0  # electrons: above it a Gaussian is as good as counting
NOMINAL_CONTRAST = 0.10  # rms / mean that a featureless field is exposed for, having none of its own


def expose(
    signal: Field,
    *,
    electrons_per_pixel: float,
    rng: np.random.Generator,
    variance_factor: float = VARIANCE_FACTOR,
    averages: int = 1,
) -> Field:
    """Counts of mean m = electrons_per_pixel * signal and variance m * variance_factor / averages."""
    mean = np.maximum(signal, 0.0) * np.float32(electrons_per_pixel)
    if averages * float(mean.mean()) > GAUSSIAN_FROM:
        sigma = np.sqrt(mean * np.float32(variance_factor / averages))
        return np.asarray(mean + sigma * rng.standard_normal(mean.shape, dtype=np.float32), np.float32)
    # Electrons in bursts: whole bursts are Poisson, each as large as the variance factor says.
    bursts = rng.poisson(mean * (averages / variance_factor))
    return np.asarray(bursts * np.float32(variance_factor / averages), np.float32)


def electrons_for_snr(in_focus_signal: Field, snr: float, variance_factor: float = VARIANCE_FACTOR) -> float:
    """Electrons a pixel at signal 1, so that rms of the in-focus object signal / rms noise = snr, per pixel.

    A field with less contrast than NOMINAL_CONTRAST is exposed as if it had that: no dose brings a flat field out.
    """
    mean = max(float(in_focus_signal.mean()), 1e-6)
    rms = max(float(in_focus_signal.std()), NOMINAL_CONTRAST * mean)
    return snr**2 * variance_factor * mean / rms**2


def digitise(counts: Field, *, gain: float, offset: float, bits: int) -> NDArray[Any]:
    """Level = gain * counts + offset (of full scale), then the clip and 8 or 16 bits."""
    full = 2**bits - 1
    level = (counts * np.float32(gain) + np.float32(offset)) * full
    return np.asarray(np.clip(level + 0.5, 0, full), np.uint8 if bits <= 8 else np.uint16)


def jitter(rows: int, *, sigma_px: float, rng: np.random.Generator, memory: float = 0.8) -> Field:
    """(rows,) displacement of each line: a first-order random walk that forgets."""
    kicks = rng.standard_normal(rows) * sigma_px * np.sqrt(1.0 - memory**2)
    shift = np.empty(rows, np.float32)
    last = rng.standard_normal() * sigma_px
    for i, kick in enumerate(kicks):
        last = memory * last + kick
        shift[i] = last
    return shift


def displace_rows(image: Field, shift_px: Field) -> Field:
    """Each row moved by its own amount towards +x, by Fourier shift on a mirrored row."""
    pad = 16
    wide = np.pad(image, ((0, 0), (pad, pad)), mode="reflect")
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(wide.shape[1])[None, :] * shift_px[:, None])
    moved = np.fft.irfft(np.fft.rfft(wide, axis=1) * phase, n=wide.shape[1], axis=1)
    return np.asarray(moved[:, pad:-pad], np.float32)


def scale(image: Field, factor: float) -> Field:
    """Magnified about the centre by `factor`, close to 1. Lanczos: its own blur is the same from frame to frame."""
    h, w = image.shape
    if abs(factor - 1.0) * max(h, w) / 2 < 0.02:
        return image
    cx, cy = (w - 1) / 2, (h - 1) / 2
    matrix = np.array([[factor, 0.0, cx * (1 - factor)], [0.0, factor, cy * (1 - factor)]])
    return np.asarray(
        cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101), np.float32
    )


def ramp(shape: tuple[int, int], dx_px: float, dy_px: float) -> NDArray[np.complex64]:
    """Half-plane phase that moves a picture's content by (dx, dy) pixels; exact for any fraction of a pixel."""
    fx, fy = np.fft.rfftfreq(shape[1]), np.fft.fftfreq(shape[0])
    along, down = np.exp(-2j * np.pi * fx * dx_px), np.exp(-2j * np.pi * fy * dy_px)
    return np.asarray(down.astype(np.complex64)[:, None] * along.astype(np.complex64)[None, :], np.complex64)


def charging_tail(image: Field, *, strength: float, length_px: float) -> Field:
    """What the beam just lit drags behind it along the line: an exponential tail; negative strength darkens."""
    w = image.shape[1]
    f = 2.0 * np.pi * np.fft.rfftfreq(2 * w)
    tail = 1.0 / (1.0 + 1j * f * length_px)  # transfer of a one-sided exponential of unit area
    wide = np.concatenate([np.repeat(image[:, :1], w, axis=1), image], axis=1)
    dragged = np.fft.irfft(np.fft.rfft(wide, axis=1) * tail, n=2 * w, axis=1)[:, w:]
    return np.asarray(image + strength * (dragged - image.mean()), np.float32)


def databar(pixels: NDArray[Any], rows: int, text: str = "") -> NDArray[Any]:
    """The same picture with its last `rows` lines covered by a black bar with white text, as vendors do."""
    if rows <= 0:
        return pixels
    out = pixels.copy()
    full = int(np.iinfo(pixels.dtype).max)
    bar = np.zeros((rows, pixels.shape[1]), np.uint8)
    size = max(rows / 50.0, 0.3)
    cv2.putText(bar, text, (6, int(rows * 0.7)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1, cv2.LINE_AA)
    out[-rows:] = (bar.astype(np.uint32) * full // 255).astype(pixels.dtype)
    out[-rows] = full
    return out
