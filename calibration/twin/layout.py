"""Coordinates of patterns at any angle, records sampled along them, outlines of single features. Lengths in pixels."""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

ALONG_SCAN_SHARE = 0.75  # layouts are drawn along the scan, but for a share that is turned


def draw_angle(rng: np.random.Generator) -> float:
    along_scan = 0.5 * np.pi * int(rng.integers(2)) + float(rng.normal(0.0, 0.01))
    return along_scan if rng.random() < ALONG_SCAN_SHARE else float(rng.uniform(0.0, np.pi))


def axes(shape: tuple[int, int], angle: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates across and along a pattern turned by the angle, its phase from the seed."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    u = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(0.0, 200.0)
    v = -np.sin(angle) * x + np.cos(angle) * y + rng.uniform(0.0, 200.0)
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def outlines(count: int, *, rng: np.random.Generator, roughness: float, samples: int = 65) -> Field:
    """(count, samples) radius against angle over one turn, mean near 1, closed; harmonics fall as 1/m."""
    angle = np.linspace(0.0, 2.0 * np.pi, samples)
    radii = 1.0 + roughness * rng.standard_normal((count, 1)) + np.zeros((count, samples))
    for m in range(2, 9):
        c, s = rng.standard_normal((2, count, 1)) * roughness * 1.5 / m
        radii += c * np.cos(m * angle) + s * np.sin(m * angle)
    return np.asarray(radii, np.float32)


def sample(record: Field, row: NDArray[np.int32], position: Field) -> Field:
    """record[row, position], linear between samples."""
    low = position.astype(np.int32)
    low = np.clip(low, 0, record.shape[1] - 2)
    part = position - low
    return np.asarray(record[row, low] * (1.0 - part) + record[row, low + 1] * part, np.float32)
