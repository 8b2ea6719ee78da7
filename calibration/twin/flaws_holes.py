"""Defects of holes, and of pillars as of holes upside down: missing, closed, merged, of the wrong size. In pixels."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibration.twin.places import BODY, SPACE, Side, Spot, Spotted, around, compact, nearest
from calibration.twin.sketch import Sketch, wall
from calibration.twin.strokes import NONE, lowered, raised, stained

Field = NDArray[np.float32]
Generator = np.random.Generator


def missing_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """No hole where one belongs."""
    hole = nearest(sketch, spot, SPACE)
    return sketch if hole is None else _without(sketch, hole, SPACE)


def closed_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A hole filled in part, or shrunk to a dimple, or both."""
    hole = nearest(sketch, spot, SPACE)
    if hole is None:
        return sketch
    within = around(sketch, hole, SPACE)
    if rng.random() < 0.5:
        sketch = _resized(sketch, hole, SPACE, float(rng.uniform(0.3, 0.75)))
        if rng.random() < 0.5:
            return sketch
    level = sketch.height * float(rng.uniform(0.4, 0.97))
    filled = raised(sketch, np.where(within > 0.0, level, NONE).astype(np.float32))
    if rng.random() > 0.3:
        return filled
    return stained(filled, np.where(hole.pixels, 1.0, -1.0), float(rng.uniform(0.8, 1.25)))


def merged_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Two neighbouring holes joined by a corridor."""
    first = nearest(sketch, spot, SPACE)
    second = None if first is None else _neighbour(sketch, first, rng)
    if first is None or second is None:
        return sketch
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    dx, dy = second.x - first.x, second.y - first.y
    length = float(np.hypot(dx, dy))
    along = ((x - first.x) * dx + (y - first.y) * dy) / length
    aside = np.abs((x - first.x) * dy - (y - first.y) * dx) / length
    half = max(min(first.radius, second.radius) * float(rng.uniform(0.3, 0.9)), 1.5)
    corridor = np.asarray(np.minimum(half - aside, np.minimum(along, length - along)), np.float32)
    depth = 1.0 if rng.random() < 0.7 else float(rng.uniform(0.5, 1.0))
    # Walls that lean would close a narrow corridor.
    return lowered(sketch, sketch.height - wall(corridor, depth * sketch.height, min(sketch.run, 0.8 * half)))


def misshapen(sketch: Sketch, spot: Spot, side: Side, rng: Generator) -> Sketch:
    """A hole too wide; a pillar too wide, too small, or missing. side: which of the two."""
    one = nearest(sketch, spot, side)
    if one is None:
        return sketch
    kind = rng.random()
    if side == BODY and kind < 0.35:
        return _without(sketch, one, side)
    if side == BODY and kind < 0.65:
        return _resized(sketch, one, side, float(rng.uniform(0.4, 0.75)))
    return _resized(sketch, one, side, float(rng.uniform(1.25, 1.55)))


def _without(sketch: Sketch, one: Spotted, side: Side) -> Sketch:
    filled = np.maximum(-side * sketch.inside, around(sketch, one, side) + 0.5 * sketch.run + sketch.top + 1.0)
    clear = around(sketch, one, side) > 0.0
    return replace(sketch, inside=np.where(clear, -side * filled, sketch.inside).astype(np.float32))


def _resized(sketch: Sketch, one: Spotted, side: Side, factor: float) -> Sketch:
    """The same with another radius; its neighbours stay."""
    within = around(sketch, one, side)
    fades = np.clip(within / max(0.25 * float(within.max()), 1.0), 0.0, 1.0)
    moved = side * np.float32((factor - 1.0) * one.radius) * fades
    return replace(sketch, inside=np.asarray(sketch.inside + moved, np.float32))


def _neighbour(sketch: Sketch, hole: Spotted, rng: Generator) -> Spotted | None:
    """One of the holes about a pitch away."""
    near = [
        other
        for other in compact(sketch, SPACE)
        if 0.5 < np.hypot(other.x - hole.x, other.y - hole.y) / sketch.pitch < 1.3
    ]
    return near[int(rng.integers(len(near)))] if near else None
