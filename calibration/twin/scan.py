"""From signal to picture: dose noise, amplifier, clip, jitter, hum, drift, scale, databar. Electrons in, levels out."""

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


def digitise(counts: Field, *, gain: float, offset: float, bits: int, gamma: float = 1.0) -> NDArray[Any]:
    """Level = gain * counts + offset (of full scale), then the clip, level^(1/gamma), and 8 or 16 bits."""
    full = 2**bits - 1
    level = (counts * np.float32(gain) + np.float32(offset)) * full
    if gamma != 1.0:
        level = np.clip(level / full, 0.0, 1.0) ** np.float32(1.0 / gamma) * full
    return np.asarray(np.clip(level + 0.5, 0, full), np.uint8 if bits <= 8 else np.uint16)


def amplifier(counts: Field, lag_px: float) -> Field:
    """A one-pole amplifier, counts(x) -> sum of exp(-n / lag) counts(x - n): it smears signal and noise alike."""
    if lag_px <= 0.0:
        return counts
    taps = one_pole(lag_px)
    # filter2D correlates: the pixel itself is the last tap, and the border's first pixel goes on outwards.
    anchor = (taps.shape[1] - 1, 0)
    smeared = cv2.filter2D(counts, -1, taps[:, ::-1], anchor=anchor, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smeared, np.float32)


def one_pole(lag_px: float) -> Field:
    """(1, n) response of unit area, the present first; cut where 1e-4 of it is left."""
    count = max(int(np.ceil(-np.log(1e-4) * lag_px)), 2)
    taps = np.exp(-np.arange(count, dtype=np.float64) / lag_px)
    return np.asarray((taps / taps.sum())[None, :], np.float32)


def jitter(rows: int, *, sigma_px: float, rng: np.random.Generator, memory: float = 0.8) -> Field:
    """(rows,) displacement of each line: a first-order random walk that forgets."""
    kicks = rng.standard_normal(rows) * sigma_px * np.sqrt(1.0 - memory**2)
    shift = np.empty(rows, np.float32)
    last = rng.standard_normal() * sigma_px
    for i, kick in enumerate(kicks):
        last = memory * last + kick
        shift[i] = last
    return shift


def hum(times_s: NDArray[np.float64], *, amplitude_px: float, frequency_hz: float) -> Field:
    """Displacement at each time by a stray field of the mains: its phase follows the clock, from line to line."""
    return np.asarray(amplitude_px * np.sin(2.0 * np.pi * frequency_hz * times_s), np.float32)


def displace_rows(image: Field, shift_px: Field) -> Field:
    """Each row moved by its own amount towards +x, by Fourier shift on a mirrored row.

    shift_px: (rows,), or (rows, n) where n passes over each row are averaged.
    """
    pad = 16
    wide = np.pad(image, ((0, 0), (pad, pad)), mode="reflect")
    turn = -2j * np.pi * np.fft.rfftfreq(wide.shape[1])[None, :]
    if shift_px.ndim == 1:
        phase = np.exp(turn * shift_px[:, None])
    else:
        phase = np.mean([np.exp(turn * one[:, None]) for one in shift_px.T], axis=0)
    moved = np.fft.irfft(np.fft.rfft(wide, axis=1) * phase, n=wide.shape[1], axis=1)
    return np.asarray(moved[:, pad:-pad], np.float32)


def displace_pixels(image: Field, shift_px: Field) -> Field:
    """Each pixel moved by its own amount (h, w) towards +x; to 1/32 px, where a line is bent within itself."""
    h, w = image.shape
    x = np.arange(w, dtype=np.float32)[None, :] - shift_px
    y = np.broadcast_to(np.arange(h, dtype=np.float32)[:, None], (h, w))
    moved = cv2.remap(image, x, np.ascontiguousarray(y), cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


def scale(image: Field, factor: float) -> Field:
    """Magnified about the centre by `factor`, close to 1. Lanczos: its own blur is the same from frame to frame."""
    return warp(image, factor)


def warp(image: Field, factor: float, *, drift_px: tuple[float, float] = (0.0, 0.0), rows: int = 1) -> Field:
    """Magnified about the centre, and torn by a steady drift of `drift_px` (x, y) while `rows` rows are scanned."""
    h, w = image.shape
    still = max(abs(drift_px[0]), abs(drift_px[1])) < 0.02
    if still and abs(factor - 1.0) * max(h, w) / 2 < 0.02:
        return image
    cx, cy = (w - 1) / 2, (h - 1) / 2
    if still:
        matrix, inverse = np.array([[factor, 0.0, cx * (1 - factor)], [0.0, factor, cy * (1 - factor)]]), 0
    else:
        # d rows below the centre the beam is d / rows of a frame later: there it finds what has drifted by so much.
        across, down = -drift_px[0] / rows / factor, (1.0 - drift_px[1] / rows) / factor
        matrix = np.array([[1.0 / factor, across, cx - cx / factor - across * cy], [0.0, down, cy - down * cy]])
        inverse = cv2.WARP_INVERSE_MAP
    flags = cv2.INTER_LANCZOS4 | inverse
    return np.asarray(cv2.warpAffine(image, matrix, (w, h), flags=flags, borderMode=cv2.BORDER_REFLECT_101), np.float32)


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
