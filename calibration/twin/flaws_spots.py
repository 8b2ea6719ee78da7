"""Defects that may lie anywhere: pits, particles, residue, scratches, voids. Lengths in pixels."""

import numpy as np
from numpy.typing import NDArray

from calibration.twin.places import BODY, SPACE, Spot, middle
from calibration.twin.roughness import field
from calibration.twin.sketch import Sketch, rounded, surface_px, wall
from calibration.twin.strokes import NONE, blob, raised, size, stained

Field = NDArray[np.float32]
Generator = np.random.Generator

LARGEST_PX = 24.0  # radius, about: what is larger and soft is a patch of brightness, and no defect
LONGEST_PX = 110.0  # a scratch: of what is longer no crop shows both ends, and its middle could be anywhere


def pit(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A bowl in the top of a line, in the film or in the floor: round, or flat with steep sides."""
    radius = size(rng, 1.8, min(0.3 * sketch.pitch, LARGEST_PX))
    place = middle(sketch, spot, BODY if rng.random() < 0.8 else SPACE)
    if place is not None and rng.random() < 0.8:
        spot = Spot(place.x, place.y)
        radius = max(min(radius, 1.1 * place.half), 1.5)
    depth = min(radius * float(rng.uniform(0.6, 2.5)), sketch.height * float(rng.uniform(0.3, 1.0)))
    bowl = 1.0 - blob(sketch, spot, radius, rng) ** float(rng.uniform(2.0, 6.0))
    return sketch.with_added(np.asarray(-depth * np.clip(bowl, 0.0, 1.0), np.float32))


def particle(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A grain that lies anywhere, from two pixels across: a dome, often of another material."""
    radius = size(rng, 1.2, min(0.5 * sketch.pitch, LARGEST_PX))
    tall = radius * float(rng.uniform(0.5, 1.8))
    row = int(np.clip(round(spot.y), 0, sketch.shape[0] - 1))
    base = float(surface_px(sketch)[row, int(np.clip(round(spot.x), 0, sketch.shape[1] - 1))])
    away = blob(sketch, spot, radius, rng)
    dome = np.where(away < 1.0, base + tall * np.sqrt(np.maximum(1.0 - away**2, 0.0)), NONE)
    lying = raised(sketch, np.asarray(dome, np.float32))
    if rng.random() < 0.5:
        return lying
    return stained(lying, (1.0 - away) * radius, float(np.exp(rng.uniform(-0.35, 0.6))))


def residue(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A ragged film of a few nanometres, or a stain that has contrast alone."""
    radius = size(rng, 3.0, min(0.9 * sketch.pitch, 1.5 * LARGEST_PX))
    ragged = 1.0 - blob(sketch, spot, radius, rng) + 0.25 * field(sketch.shape, size_px=max(radius / 4, 1.0), rng=rng)
    edge = np.asarray(ragged * radius, np.float32)
    place = middle(sketch, spot, SPACE) if rng.random() < 0.5 else None
    if place is not None and sketch.kind != "contacts":  # what was not cleared out of a space
        edge = np.minimum(edge, place.half + 1.0 - np.abs(place.du)).astype(np.float32)
    thick = 0.0 if rng.random() < 0.4 else float(rng.uniform(1.5e-9, 7e-9)) / sketch.pixel_size_m
    film = sketch.with_added(rounded(wall(edge, min(thick, 0.5 * sketch.height), 1.5), 0.5))
    factor = float(np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.45)))
    return stained(film, edge, factor)


def scratch(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A long thin groove, a little bent, whose ends taper off; some have thrown up a rim."""
    width = size(rng, 1.8, 7.0)
    length = size(rng, 6.0 * width, min(6.0 * sketch.pitch, LONGEST_PX))
    angle = float(rng.uniform(0.0, np.pi))
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    along = (x - spot.x) * np.cos(angle) + (y - spot.y) * np.sin(angle)
    aside = (y - spot.y) * np.cos(angle) - (x - spot.x) * np.sin(angle)
    aside = np.abs(aside - float(rng.normal(0.0, 0.1)) * along**2 / length) * (2.0 / width)
    fades = np.clip((0.5 * length - np.abs(along)) / width, 0.0, 1.0)
    depth = min(width * float(rng.uniform(0.5, 1.6)), sketch.height * float(rng.uniform(0.4, 1.0)))
    groove = -np.clip(1.0 - aside, 0.0, 1.0)
    if rng.random() < 0.4:
        groove = groove + float(rng.uniform(0.1, 0.35)) * np.clip(1.0 - 2.0 * np.abs(aside - 1.3), 0.0, 1.0)
    return sketch.with_added(np.asarray(depth * fades * groove, np.float32))


def void(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A hollow under the surface: a soft dark patch, no step."""
    place = middle(sketch, spot, BODY) if sketch.kind != "contacts" else None
    spot = spot if place is None else Spot(place.x, place.y)
    radius = size(rng, 2.5, min(0.45 * sketch.pitch, 0.8 * LARGEST_PX))
    away = blob(sketch, spot, radius, rng)
    dark = float(rng.uniform(0.2, 0.6)) * np.exp(-(away**2)) * (away < 2.0)
    solid = np.clip(sketch.inside + 0.5, 0.0, 1.0)
    return sketch.with_material(np.asarray(1.0 - dark * solid, np.float32))
