"""What every defect is drawn with: material laid on or taken off, stains, ragged blobs, sizes. Lengths in pixels."""

import numpy as np
from numpy.typing import NDArray

from calibration.twin.layout import outlines
from calibration.twin.places import Spot
from calibration.twin.sketch import Sketch, rounded, surface_px

Field = NDArray[np.float32]
NONE = -1e6  # a height that raises nothing


def raised(sketch: Sketch, top: Field) -> Sketch:
    """Nothing lower than `top`, where that is above the floor."""
    more = np.where(top > 0.0, np.maximum(top - surface_px(sketch), 0.0), 0.0)
    return sketch.with_added(rounded(np.asarray(more, np.float32), 0.5 * sketch.rounding))


def lowered(sketch: Sketch, bottom: Field) -> Sketch:
    """Nothing higher than `bottom`, where that is lower than the pattern's top."""
    less = np.where(bottom < sketch.height, np.minimum(bottom - surface_px(sketch), 0.0), 0.0)
    return sketch.with_added(rounded(np.asarray(less, np.float32), 0.5 * sketch.rounding))


def stained(sketch: Sketch, inside: NDArray[np.floating], factor: float) -> Sketch:
    """Another yield where inside is positive."""
    return sketch.with_material(np.asarray(1.0 + (factor - 1.0) * np.clip(inside + 0.5, 0.0, 1.0), np.float32))


def blob(sketch: Sketch, spot: Spot, radius: float, rng: np.random.Generator) -> Field:
    """Distance from the middle in units of the outline: 1 on an irregular oval, below 1 inside."""
    yy, xx = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    dx, dy = xx - np.float32(spot.x), yy - np.float32(spot.y)
    angle, oval = float(rng.uniform(0.0, np.pi)), float(np.exp(rng.uniform(0.0, 0.4)))
    turn = np.arctan2(dy, dx) - angle
    outline = outlines(1, rng=rng, roughness=float(rng.uniform(0.0, 0.08)))[0]
    uneven = np.interp(turn % (2.0 * np.pi), np.linspace(0.0, 2.0 * np.pi, outline.size), outline)
    stretch = np.hypot(np.cos(turn) / oval, np.sin(turn) * oval)
    return np.asarray(np.hypot(dx, dy) * stretch / (radius * uneven), np.float32)


def size(rng: np.random.Generator, least: float, most: float) -> float:
    """Log-uniform: small ones are as frequent as large ones."""
    return float(np.exp(rng.uniform(np.log(least), np.log(max(most, 1.2 * least)))))
