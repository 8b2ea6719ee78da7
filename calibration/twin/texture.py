"""Drawings of natural matter, all of it contrast: polished grains and stained tissue. Lengths in pixels.

Drawn at twice the size and halved, so that what is fine comes out smooth.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.roughness import field, fractal, warp

Field = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Polish:
    """A polished metal: (h, w) tone of the grains' orientations, 0..1; grooves at their boundaries, 0..1; etch."""

    tone: Field
    groove: Field
    step: Field  # -1..1: grains wear differently


def grains(shape: tuple[int, int], rng: np.random.Generator) -> Polish:
    """Grains in steps of contrast, a third of them with twin bands."""
    fine = (2 * shape[0], 2 * shape[1])
    size = 2.0 * float(np.exp(rng.uniform(np.log(16.0), np.log(48.0))))
    label = _cells(fine, size_px=size, wave=0.10, rng=rng)
    count = int(label.max()) + 1
    tone = rng.uniform(0.0, 1.0, count).astype(np.float32)[label] + 2.0 * _twins(label, size, rng)
    step = rng.uniform(-1.0, 1.0, count).astype(np.float32)[label]
    groove = cv2.GaussianBlur(_boundary(label), (0, 0), 1.6)
    return Polish(_half(np.asarray(tone, np.float32)), _half(np.asarray(groove, np.float32)), _half(step))


def tissue(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Stained cells, 0..1: dark membranes, grainy cytoplasm, vesicles, mitochondria with cristae."""
    fine = (2 * shape[0], 2 * shape[1])
    size = 2.0 * float(rng.uniform(40.0, 90.0))
    label = _cells(fine, size_px=size, wave=0.22, rng=rng)
    tone = rng.uniform(0.55, 0.72, int(label.max()) + 1).astype(np.float32)[label]
    image = np.asarray(tone, np.float32)
    _organelles(image, size, rng)
    image -= 1.1 * cv2.GaussianBlur(_boundary(label), (0, 0), 1.8)
    image = _half(image)
    granules = field(shape, size_px=1.3, rng=rng)
    image -= 0.05 * np.maximum(granules, -0.5) + 0.02 * fractal(shape, coarse_px=12.0, octaves=3, rng=rng)
    return np.asarray(np.clip(image, 0.02, 1.0), np.float32)


def _half(image: Field) -> Field:
    """Every two by two pixels become one: what was drawn double size comes out smooth."""
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _cells(shape: tuple[int, int], *, size_px: float, wave: float, rng: np.random.Generator) -> Labels:
    """Nearest-seed regions of about `size_px`, with wavy walls; labels from 0."""
    pad = int(size_px)
    big = (shape[0] + 2 * pad, shape[1] + 2 * pad)
    seeds = np.full(big, 255, np.uint8)
    count = max(4, int(big[0] * big[1] / size_px**2))
    seeds[rng.integers(0, big[0], count), rng.integers(0, big[1], count)] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    waved = warp(label.astype(np.float32), strength_px=wave * size_px / 2, size_px=size_px / 4, rng=rng)
    return np.asarray(waved[pad:-pad, pad:-pad], np.int32)


def _boundary(label: Labels) -> Field:
    """1 on pixels whose right or lower neighbour has another label."""
    edge = np.zeros(label.shape, np.float32)
    edge[:, :-1] += label[:, 1:] != label[:, :-1]
    edge[:-1] += label[1:] != label[:-1]
    return np.asarray(cv2.dilate(np.minimum(edge, 1.0), np.ones((2, 2), np.uint8)), np.float32)


def _twins(label: Labels, size_px: float, rng: np.random.Generator) -> Field:
    """In a third of the grains, straight bands of another brightness."""
    count = int(label.max()) + 1
    angle, period = rng.uniform(0, np.pi, count), rng.uniform(0.2, 0.7, count) * size_px
    step = np.where(rng.random(count) < 0.35, rng.uniform(-0.16, 0.16, count), 0.0)
    y, x = np.mgrid[: label.shape[0], : label.shape[1]].astype(np.float32)
    along = np.cos(angle).astype(np.float32)[label] * x + np.sin(angle).astype(np.float32)[label] * y
    band = np.mod(along / period.astype(np.float32)[label], 1.0) < 0.35
    return np.asarray(band * step.astype(np.float32)[label], np.float32)


def _organelles(image: Field, size_px: float, rng: np.random.Generator) -> None:
    """Vesicles and mitochondria, drawn in place on the double-size picture; OpenCV draws with 1/16 px precision."""
    h, w = image.shape
    for _ in range(int(h * w / (0.9 * size_px) ** 2)):
        _mitochondrion(image, rng.uniform(0, w), rng.uniform(0, h), size_px=size_px, rng=rng)
    for _ in range(int(h * w / (0.25 * size_px) ** 2)):
        centre = (int(rng.uniform(0, w) * 16), int(rng.uniform(0, h) * 16))
        radius = rng.uniform(3.0, 9.0)
        if rng.random() < 0.5:
            cv2.circle(image, centre, int(radius * 16), rng.uniform(0.6, 0.8), -1, cv2.LINE_AA, 4)
        cv2.circle(image, centre, int(radius * 16), rng.uniform(0.15, 0.3), int(rng.integers(2, 4)), cv2.LINE_AA, 4)


def _mitochondrion(image: Field, x: float, y: float, *, size_px: float, rng: np.random.Generator) -> None:
    long, short = size_px * rng.uniform(0.15, 0.35), size_px * rng.uniform(0.08, 0.14)
    angle = rng.uniform(0.0, np.pi)
    reach = int(long) + 3
    y0, y1, x0, x1 = max(int(y) - reach, 0), int(y) + reach, max(int(x) - reach, 0), int(x) + reach
    patch = image[y0:y1, x0:x1]
    yy, xx = np.mgrid[y0 : y0 + patch.shape[0], x0 : x0 + patch.shape[1]].astype(np.float32)
    u = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
    v = (yy - y) * np.cos(angle) - (xx - x) * np.sin(angle)
    depth = (1.0 - np.hypot(u / long, v / short)) * short  # px inside the wall
    cristae = 0.10 * np.cos(2 * np.pi * (u + 2.0 * np.sin(v / 5.0)) / rng.uniform(9.0, 14.0))
    body = 0.42 + cristae * (depth > 4.0) - 0.25 * np.exp(-((depth / 2.0) ** 2))
    cover = 0.5 + 0.5 * np.tanh(depth)
    patch[:] = patch * (1.0 - cover) + body * cover
