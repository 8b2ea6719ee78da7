"""Line-space and contact holes drawn as emission maps, without heights: what the shipped autofocus model knows.

The same names as surfaces are `patterns`. An autofocus model trained on those rendered (16,000 crops) read their blur
wrong by more than a factor of 1.6 where this one does not: it is not shipped, and the virtual microscope shows these.
"""

import numpy as np
from numpy.typing import NDArray

from calibration.twin.layout import outlines, sample
from calibration.twin.roughness import edges, field

Field = NDArray[np.float32]

BLOOM = 0.85  # brightness that an edge adds: secondaries escape from both faces
LER_M = (0.5e-9, 2.5e-9)  # one sigma, where pixels are small enough to see it
XI_M = (8e-9, 40e-9)


def line_space(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Resist lines: flat tops, darker spaces, bright rough edges; the pitch is 14 to 60 pixels."""
    u, v = turned(shape, rng)
    pitch = float(np.exp(rng.uniform(np.log(14.0), np.log(60.0))))
    width = pitch * rng.uniform(0.4, 0.6)
    rough = roughness_px(pixel_size_m, pitch, rng)
    line = np.floor(u / pitch).astype(np.int32)
    first, along = int(line.min()), (v - v.min()).astype(np.float32)
    record = edges(2 * (int(line.max()) - first + 1), int(along.max()) + 3, **rough, rng=rng)
    offset = u - (line + 0.5) * pitch
    left = offset + width / 2 + sample(record, 2 * (line - first), along)
    right = width / 2 - offset + sample(record, 2 * (line - first) + 1, along)
    inside = np.minimum(left, right)  # signed distance to the edge, positive on the line
    face = rng.uniform(0.8, 1.8)
    image = 0.22 + 0.22 * step(inside, 0.7) + BLOOM * 0.6 * edge_light(inside, face, min(0.12 * pitch, 5.0))
    return surface(image, strength=0.035, rng=rng)


def contact_holes(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """An array of holes: dark floors, bright rims, each with its own size and outline; square or hexagonal."""
    u, v = turned(shape, rng)
    pitch = float(np.exp(rng.uniform(np.log(18.0), np.log(64.0))))
    radius = pitch * rng.uniform(0.22, 0.36)
    row_pitch, stagger = (pitch * np.sqrt(0.75), 0.5) if rng.random() < 0.5 else (pitch, 0.0)
    row = np.round(v / row_pitch).astype(np.int32)
    shift = stagger * (row % 2)
    column = np.round(u / pitch - shift).astype(np.int32)
    du, dv = u - (column + shift) * pitch, v - row * row_pitch
    hole = (row - row.min()) * (int(column.max() - column.min()) + 1) + column - column.min()
    outline = radius * outlines(int(hole.max()) + 1, rng=rng, roughness=rng.uniform(0.02, 0.06))
    turn = (np.arctan2(dv, du) / (2 * np.pi) % 1.0).astype(np.float32) * (outline.shape[1] - 1)
    inside = np.hypot(du, dv) - sample(outline, hole, turn)  # positive on the film
    face = rng.uniform(0.8, 1.6)
    floor = 0.10 * np.exp(-((np.minimum(inside, 0.0) / radius) ** 2))  # the floor darkens towards the middle
    image = 0.05 + floor + 0.30 * step(inside, 0.7) + BLOOM * 0.65 * edge_light(inside, face, min(0.1 * pitch, 4.0))
    return surface(image, strength=0.04, rng=rng)


def roughness_px(pixel_size_m: float, pitch_px: float, rng: np.random.Generator) -> dict[str, float]:
    """Edge roughness in pixels: the resist's own where it can be seen, else a share of the coarser pattern's pitch."""
    sigma = max(rng.uniform(*LER_M) / pixel_size_m, pitch_px * rng.uniform(0.012, 0.03))
    xi = max(rng.uniform(*XI_M) / pixel_size_m, pitch_px * rng.uniform(0.15, 0.5), 2.0)
    return {"sigma_px": min(sigma, 0.08 * pitch_px), "xi_px": min(xi, 3 * pitch_px), "hurst": rng.uniform(0.4, 0.9)}


def turned(shape: tuple[int, int], rng: np.random.Generator) -> tuple[Field, Field]:
    """Coordinates across and along the pattern, turned and offset by the seed."""
    theta = rng.uniform(0.0, np.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    u = np.cos(theta) * x + np.sin(theta) * y + rng.uniform(0.0, 100.0)
    v = -np.sin(theta) * x + np.cos(theta) * y + rng.uniform(0.0, 100.0)
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def step(distance_px: Field, softness_px: float) -> Field:
    """0 outside, 1 inside, without a jagged border."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance_px / softness_px), np.float32)


def edge_light(distance_px: Field, face_px: float, reach_px: float) -> Field:
    """Bright side wall with a fast fall outwards and a slower one over the top (the escape depth)."""
    fall = np.where(distance_px > 0, distance_px / max(reach_px, face_px), -distance_px / face_px)
    return np.asarray(np.exp(-(fall**1.3)), np.float32)


def surface(image: Field, *, strength: float, rng: np.random.Generator) -> Field:
    """Grain of the material itself: without it a perfect pattern says nothing along its own direction."""
    texture = field(image.shape, size_px=1.0, rng=rng) + 0.7 * field(image.shape, size_px=2.5, rng=rng)
    return np.asarray(np.clip(image + strength * texture, 0.0, 1.0), np.float32)
