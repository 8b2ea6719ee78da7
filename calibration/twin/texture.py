"""Natural specimens: tin balls, polycrystalline grains, cells, sparse particles. Out: (h, w) float32 emission."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.roughness import field, fractal, warp

Field = NDArray[np.float32]
Labels = NDArray[np.int32]


def tin_balls(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Tin on carbon: balls of every size that do not touch, bright at the rim, on a dark grainy ground."""
    ground = 0.13 + 0.018 * fractal(shape, coarse_px=8.0, octaves=4, rng=rng)
    biggest = rng.uniform(22.0, 60.0)
    radii = np.sort(1.6 * (biggest / 1.6) ** (rng.beta(1.0, 2.2, int(shape[0] * shape[1] / 260))))[::-1]
    return np.asarray(np.clip(_scatter(ground, radii, rng), 0.0, 1.0), np.float32)


def sparse(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """A few small particles on a plain ground: hardly anything to focus on."""
    ground = np.full(shape, 0.35, np.float32)
    return _scatter(ground, rng.uniform(1.8, 6.0, int(rng.integers(4, 10))), rng)


def grains(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """A polished metal: grains in steps of contrast, twins, grooved boundaries, a little etching."""
    fine = (2 * shape[0], 2 * shape[1])  # drawn at twice the size so that boundaries come out smooth
    size = 2.0 * float(np.exp(rng.uniform(np.log(16.0), np.log(48.0))))
    label = _cells(fine, size_px=size, wave=0.10, rng=rng)
    count = int(label.max()) + 1
    image = rng.uniform(0.22, 0.72, count).astype(np.float32)[label]
    image += _twins(label, size, rng)
    groove = _boundary(label)
    image -= 0.22 * cv2.GaussianBlur(groove, (0, 0), 1.6) - 0.16 * np.roll(cv2.GaussianBlur(groove, (0, 0), 1.2), 3, 1)
    image = _half(image)
    etched = field(shape, size_px=1.1, rng=rng)
    image += 0.02 * etched - 0.10 * np.maximum(etched - 2.6, 0.0)
    return np.asarray(np.clip(image, 0.0, 1.0), np.float32)


def cells(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Stained tissue: dark membranes, grainy cytoplasm, vesicles, mitochondria with cristae."""
    fine = (2 * shape[0], 2 * shape[1])
    size = 2.0 * rng.uniform(40.0, 90.0)
    label = _cells(fine, size_px=size, wave=0.22, rng=rng)
    tone = rng.uniform(0.55, 0.72, int(label.max()) + 1).astype(np.float32)[label]
    image = np.asarray(tone, np.float32)
    _organelles(image, size, rng)
    membrane = _boundary(label)
    image -= 1.1 * cv2.GaussianBlur(membrane, (0, 0), 1.8)
    image = _half(image)
    granules = field(shape, size_px=1.3, rng=rng)
    image -= 0.05 * np.maximum(granules, -0.5) + 0.02 * fractal(shape, coarse_px=12.0, octaves=3, rng=rng)
    return np.asarray(np.clip(image, 0.02, 1.0), np.float32)


def _half(image: Field) -> Field:
    """Every two by two pixels become one: what was drawn double size comes out smooth."""
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _scatter(ground: Field, radii: NDArray[np.float64], rng: np.random.Generator) -> Field:
    """Balls from the largest to the smallest, each where there is room; one that finds none is left out."""
    image = np.asarray(ground, np.float32).copy()
    h, w = image.shape
    taken = np.zeros((h, w), np.uint8)
    for radius in radii:
        for _ in range(6):
            x, y = rng.uniform(-radius / 2, w + radius / 2), rng.uniform(-radius / 2, h + radius / 2)
            if not taken[int(np.clip(y, 0, h - 1)), int(np.clip(x, 0, w - 1))]:
                _ball(image, taken, x, y, radius=float(radius), rng=rng)
                break
    return image


def _ball(
    image: Field, taken: NDArray[np.uint8], x: float, y: float, *, radius: float, rng: np.random.Generator
) -> None:
    reach = int(np.ceil(radius * 1.5)) + 3
    y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, image.shape[0])
    x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, image.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    yy, xx = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    squash, angle = rng.uniform(0.0, 0.06), rng.uniform(0, np.pi)
    dx, dy = xx - x, yy - y
    turn = np.arctan2(dy, dx) - angle
    distance = radius - np.hypot(dx, dy) * (1.0 + squash * np.cos(2 * turn))  # inside positive
    if (distance[taken[y0:y1, x0:x1] > 0] > -1.0).any():
        return  # it would touch a neighbour
    rho = np.clip(1.0 - distance / radius, 0.0, 0.995)
    tilt = 1.0 / np.sqrt(1.0 - rho**2)  # secondary yield grows as 1/cos of the slope
    lit = rng.uniform(0.36, 0.46) * np.minimum(tilt, 2.3) ** 0.85 * (1.0 - 0.12 * dx / radius)
    cover = 0.5 + 0.5 * np.tanh(distance / 0.7)
    halo = 1.0 - 0.35 * np.exp(np.minimum(distance, 0.0) / (0.35 * radius + 1.0))  # the ball shadows the ground
    patch = image[y0:y1, x0:x1]
    patch[:] = patch * halo * (1.0 - cover) + lit * cover
    taken[y0:y1, x0:x1] |= (distance > -1.0).astype(np.uint8)


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
