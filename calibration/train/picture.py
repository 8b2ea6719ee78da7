"""From a blurred signal to the 8-bit picture an instrument would show, with every nuisance but blur. numpy only.

Contrast, dose, amplifier lag, recursive averaging, charging and its halo, line jitter, mains hum, line noise, gamma,
gain and offset, clip, percentile stretch.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.scenes import Field
from calibration.twin import charge, scan

EMPTY_SHARE = 0.08  # pictures of nothing at all: black, white, noise
ROUNDING = 1.0 / 12.0  # variance of a grey level's rounding
SNR_RANGE = (0.25, 12.0)
STRONGEST_TAIL = 0.4  # share of the signal that a charging tail carries, bright or dark
STRETCH_PERCENTILES = (0.1, 99.9)  # as agent/perceive maps 16 bits and floats


@dataclass(frozen=True)
class Picture:
    """A picture, and the truth the labels need."""

    pixels: NDArray[np.uint8]  # (h, w)
    clean: Field  # the same without noise, grey levels, clipped as the picture is
    noise_variance: float  # grey levels squared
    snr: float


def develop(signal: Field, *, in_focus: Field, tail: float | None = None, rng: np.random.Generator) -> Picture:
    """One exposure of the blurred signal at a dose that gives the drawn SNR in focus. tail: as `disturb` takes it."""
    snr = float(np.exp(rng.uniform(*np.log(SNR_RANGE))))
    electrons = scan.electrons_for_snr(in_focus, snr)
    steady = np.asarray(np.maximum(disturb(signal, rng, tail=tail), 0.0), np.float32)
    counts = scan.expose(steady, electrons_per_pixel=electrons, rng=rng)
    noise = counts - electrons * steady
    counts, noise = lag(steady * electrons, noise, rng)
    lines = line_noise(counts.shape, float(noise.std()), rng)
    return _digitise(counts + lines, electrons * steady, noise_variance=float(noise.var()), snr=snr, rng=rng)


def empty(shape: tuple[int, int], rng: np.random.Generator) -> Picture:
    """Black, white, grey, or noise of several sorts with or without shading: nothing to focus on."""
    level = float(rng.choice([0.0, 255.0, rng.uniform(5.0, 250.0)], p=[0.15, 0.15, 0.7]))
    spread = float(np.exp(rng.uniform(np.log(0.05), np.log(70.0)))) if 0.0 < level < 255.0 else 0.0
    noise = rng.standard_normal(shape).astype(np.float32)
    if rng.random() < 0.2:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.3, 0.5))), np.float32)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j].astype(np.float32)
    tilt = float(rng.uniform(0.0, 2.0)) * spread if rng.random() < 0.4 else 0.0
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    shading = np.asarray(level + tilt * (np.cos(angle) * x + np.sin(angle) * y), np.float32)
    drawn = shading + spread * noise / max(float(noise.std()), 1e-6) + line_noise(shape, spread, rng)
    pixels = np.asarray(np.clip(drawn + 0.5, 0, 255), np.uint8)
    return Picture(pixels, shading, spread**2 + ROUNDING, 0.0)


def disturb(signal: Field, rng: np.random.Generator, *, tail: float | None = None) -> Field:
    """What the scan, the charge and a bent tone curve do to the signal before any electron is counted.

    tail: strength of a charging tail that this picture must have; None: as chance has it.
    """
    if rng.random() < 0.2 or tail is not None:
        strength = float(rng.uniform(-STRONGEST_TAIL, STRONGEST_TAIL))
        length = float(rng.uniform(20.0, 120.0))
        signal = scan.charging_tail(signal, strength=strength if tail is None else tail, length_px=length)
    if rng.random() < 0.15:
        signal = charge.halo(signal, strength=float(rng.uniform(-0.5, 0.5)), length_px=float(rng.uniform(20.0, 160.0)))
    shift = np.zeros(signal.shape[0], np.float32)
    if rng.random() < 0.25:
        shift += scan.jitter(signal.shape[0], sigma_px=float(rng.uniform(0.05, 0.5)), rng=rng)
    if rng.random() < 0.12:
        shift += mains(signal.shape[0], rng)
    if shift.any():
        signal = scan.displace_rows(signal, shift)
    return bent(signal, float(np.exp(rng.uniform(-0.35, 0.35)))) if rng.random() < 0.15 else signal


def mains(rows: int, rng: np.random.Generator) -> Field:
    """(rows,) hum of 0.1 to 0.6 px: lines from 50 us to 2 ms, started anywhere in the mains' period."""
    line_s = float(np.exp(rng.uniform(np.log(5e-5), np.log(2e-3))))
    times_s = np.asarray(float(rng.uniform(0.0, 0.1)) + line_s * np.arange(rows), np.float64)
    frequency_hz = 50.0 if rng.random() < 0.5 else 60.0
    return scan.hum(times_s, amplitude_px=float(rng.uniform(0.1, 0.6)), frequency_hz=frequency_hz)


def bent(signal: Field, gamma: float) -> Field:
    """A display's gamma left switched on; of the signal, so that noise and its labels stay those of the counts."""
    top = max(float(signal.max()), 1e-6)
    return np.asarray(top * np.clip(signal / np.float32(top), 0.0, 1.0) ** np.float32(1.0 / gamma), np.float32)


def lag(steady: Field, noise: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A one-pole amplifier of up to half a pixel, now and then, smears signal and noise alike along the line; a
    recursive average of a field that is held in place hands noise on along the frame, and leaves the signal."""
    if rng.random() < 0.2:
        lag_px = float(rng.uniform(0.1, 0.5))
        steady, noise = scan.amplifier(steady, lag_px), scan.amplifier(noise, lag_px)
    if rng.random() < 0.1:
        taps = scan.one_pole(float(rng.uniform(0.3, 1.2)))
        noise = np.asarray(cv2.filter2D(noise, -1, np.ascontiguousarray(taps.T)), np.float32)
    return steady + noise, noise


def line_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> Field:
    strength = float(rng.uniform(0.0, 0.3)) * sigma if rng.random() < 0.3 else 0.0
    return np.asarray(strength * rng.standard_normal((shape[0], 1)), np.float32)


def _digitise(counts: Field, clean: Field, *, noise_variance: float, snr: float, rng: np.random.Generator) -> Picture:
    gain, offset = _stretch(counts) if rng.random() < 0.3 else _operator(counts, rng)
    pixels = np.asarray(np.clip(counts * gain + offset + 0.5, 0, 255), np.uint8)
    shown = np.asarray(np.clip(clean * gain + offset, 0, 255), np.float32)
    return Picture(pixels, shown, noise_variance * gain**2 + ROUNDING, snr)


def _stretch(counts: Field) -> tuple[float, float]:
    low, high = np.percentile(counts, STRETCH_PERCENTILES)
    gain = 255.0 / max(float(high - low), 1e-6)
    return gain, -float(low) * gain


def _operator(counts: Field, rng: np.random.Generator) -> tuple[float, float]:
    """Brightness and contrast as a hand would leave them, clipped or flat at times."""
    spread = float(np.exp(rng.uniform(np.log(3.0), np.log(60.0))))
    gain = spread / max(float(counts.std()), 1e-6)
    return gain, float(rng.uniform(40.0, 200.0)) - float(counts.mean()) * gain
