"""How each class of defect is drawn: a sketch and a spot in, the sketch with the defect out. Lengths in pixels.

Every drawing returns the sketch as it was where there is no place for it (a break on a plain film).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.layout import outlines
from calibration.twin.roughness import field
from calibration.twin.sketch import Feature, Sketch, rounded, surface_px, wall

Field = NDArray[np.float32]
Generator = np.random.Generator


@dataclass(frozen=True)
class Spot:
    """Where a defect is wanted; a drawing moves it to the nearest line, space or hole that it needs."""

    x: float
    y: float


def bridge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Material of about full height from line to line, with a meniscus at both."""
    length = max(sketch.pitch * float(rng.uniform(0.2, 0.8)), 3.0)
    return _across_space(sketch, spot, length, float(rng.uniform(0.82, 1.0)), rng)


def microbridge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A thin low thread from line to line."""
    length = max(sketch.pitch * float(rng.uniform(0.07, 0.25)), 2.0)
    return _across_space(sketch, spot, length, float(rng.uniform(0.2, 0.8)), rng)


def _across_space(sketch: Sketch, spot: Spot, length: float, level: float, rng: Generator) -> Sketch:
    du, dv = _from_space(sketch, spot)
    gap = sketch.pitch - sketch.width
    meniscus = length * float(rng.uniform(0.1, 0.6)) * np.minimum(np.abs(du) * (2.0 / gap), 1.4) ** 2
    strip = 0.5 * length + meniscus - np.abs(dv + float(rng.normal(0.0, 0.12)) * du)
    return _raised(sketch, wall(np.minimum(strip, 0.5 * sketch.pitch - np.abs(du)), level * sketch.height, sketch.run))


def gap(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A break: the line is missing over a length, with round or straight ends, mostly down to the floor."""
    du, dv = _from_line(sketch, spot)
    length = max(sketch.pitch * float(rng.uniform(0.15, 0.9)), 3.0)
    rounding = length * float(rng.uniform(0.0, 0.5)) * np.minimum(2.0 * np.abs(du) / sketch.width, 1.0) ** 2
    strip = 0.5 * length + rounding - np.abs(dv + float(rng.normal(0.0, 0.12)) * du)
    depth = 1.0 if rng.random() < 0.8 else float(rng.uniform(0.6, 1.0))
    missing = wall(np.minimum(strip, 0.5 * sketch.pitch - np.abs(du)), depth * sketch.height, sketch.run)
    return _lowered(sketch, sketch.height - missing)


def necking(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A line thinner by 20 to 65 % over a length, from both sides or from one."""
    return _thickened(sketch, spot, -sketch.width * float(rng.uniform(0.2, 0.65)), rng)


def bulge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A line wider than it should be that touches nothing, or a hole much too wide."""
    if sketch.kind == "contacts":
        return _resized(sketch, spot, float(rng.uniform(1.25, 1.55)))
    return _thickened(sketch, spot, (sketch.pitch - sketch.width) * float(rng.uniform(0.3, 0.65)), rng)


def _thickened(sketch: Sketch, spot: Spot, change: float, rng: Generator) -> Sketch:
    du, dv = _from_line(sketch, spot)
    half = max(sketch.pitch * float(rng.uniform(0.3, 0.9)), 4.0)
    here = np.where(np.abs(dv) < half, np.cos(dv * (0.5 * np.pi / half)) ** 2, 0.0) * (np.abs(du) < 0.5 * sketch.pitch)
    side = int(rng.integers(-1, 2)) if rng.random() < 0.5 else 0  # one side only, or both by half
    share = np.where(du * side > 0.0, 1.0, 0.0) if side else 0.5
    return replace(sketch, inside=np.asarray(sketch.inside + change * share * here, np.float32))


def collapse(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Two neighbouring lines lean together over a length, most of them until they touch."""
    du, dv = _from_space(sketch, spot)
    gap_px = sketch.pitch - sketch.width
    length = sketch.pitch * float(rng.uniform(1.0, 4.0))
    lean = 0.5 * gap_px * float(rng.uniform(0.65, 1.15)) * np.clip(1.5 * np.cos(dv * (0.5 * np.pi / length)), 0.0, 1.0)
    lean = np.where(np.abs(dv) < length, lean, 0.0)
    reach = 0.5 * (sketch.pitch + sketch.width)
    carried = np.clip((sketch.pitch - np.abs(du)) / (sketch.pitch - reach), 0.0, 1.0)
    away = np.asarray(np.sign(du) * lean * carried, np.float32)  # where the line now here stood before
    ux, uy = _direction(sketch)
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    moved = cv2.remap(sketch.inside, x + ux * away, y + uy * away, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return replace(sketch, inside=np.asarray(np.where(away != 0.0, moved, sketch.inside), np.float32))


def missing_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """No hole where one belongs."""
    hole = _nearest_hole(sketch, spot)
    if hole is None:
        return sketch
    within = _disc(sketch, hole.x, hole.y, 0.6 * sketch.pitch)
    return replace(sketch, inside=np.asarray(np.maximum(sketch.inside, within), np.float32))


def closed_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A hole filled in part, or shrunk to a dimple, or both."""
    hole = _nearest_hole(sketch, spot)
    if hole is None:
        return sketch
    if rng.random() < 0.5:
        sketch = _resized(sketch, spot, float(rng.uniform(0.3, 0.75)))
        if rng.random() < 0.5:
            return sketch
    level = sketch.height * float(rng.uniform(0.4, 0.97))
    within = _disc(sketch, hole.x, hole.y, 0.55 * sketch.pitch)
    filled = _raised(sketch, np.where(within > 0.0, level, -1e6).astype(np.float32))
    return (
        _stained(filled, within - 0.2 * sketch.pitch, float(rng.uniform(0.8, 1.25))) if rng.random() < 0.3 else filled
    )


def merged_contact(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Two neighbouring holes joined by a corridor."""
    first = _nearest_hole(sketch, spot)
    second = None if first is None else _neighbour(sketch, first, rng)
    if first is None or second is None:
        return sketch
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    dx, dy = second.x - first.x, second.y - first.y
    length = float(np.hypot(dx, dy))
    along = ((x - first.x) * dx + (y - first.y) * dy) / length
    aside = np.abs((x - first.x) * dy - (y - first.y) * dx) / length
    half = max(first.radius * float(rng.uniform(0.3, 0.9)), 1.5)
    corridor = np.minimum(half - aside, np.minimum(along, length - along))
    depth = 1.0 if rng.random() < 0.7 else float(rng.uniform(0.5, 1.0))
    return _lowered(sketch, sketch.height - wall(corridor, depth * sketch.height, sketch.run))


def pit(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A bowl in the top of a line, in the film or in the floor."""
    radius = _size(rng, 1.5, 0.3 * sketch.pitch)
    if sketch.kind == "lines" and rng.random() < 0.8:
        spot = _on_line(sketch, spot) if rng.random() < 0.75 else _in_space(sketch, spot)
        radius = min(radius, 0.6 * sketch.width)
    depth = min(radius * float(rng.uniform(0.6, 2.5)), sketch.height * float(rng.uniform(0.3, 1.0)))
    bowl = 1.0 - _blob(sketch, spot, radius, rng) ** 2
    return sketch.with_added(np.asarray(-depth * np.clip(bowl, 0.0, 1.0), np.float32))


def particle(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A grain that lies anywhere, from two pixels across."""
    radius = _size(rng, 1.2, 0.5 * sketch.pitch)
    tall = radius * float(rng.uniform(0.5, 1.8))
    base = float(surface_px(sketch)[round(spot.y), round(spot.x)])
    away = _blob(sketch, spot, radius, rng)
    dome = np.where(away < 1.0, base + tall * np.sqrt(np.maximum(1.0 - away**2, 0.0)), -1e6)
    lying = _raised(sketch, np.asarray(dome, np.float32))
    if rng.random() < 0.5:
        return lying
    return _stained(lying, np.asarray((1.0 - away) * radius, np.float32), float(np.exp(rng.uniform(-0.35, 0.6))))


def residue(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A ragged film of a few nanometres, or a stain that has contrast alone."""
    radius = _size(rng, 3.0, 0.9 * sketch.pitch)
    ragged = 1.0 - _blob(sketch, spot, radius, rng) + 0.25 * field(sketch.shape, size_px=max(radius / 4, 1.0), rng=rng)
    edge = np.asarray(ragged * radius, np.float32)
    if sketch.kind == "lines" and rng.random() < 0.5:  # what was not cleared out of a space
        du, _ = _from_space(sketch, spot)
        edge = np.minimum(edge, 0.5 * sketch.pitch - np.abs(du)).astype(np.float32)
    thick = 0.0 if rng.random() < 0.4 else float(rng.uniform(1.5e-9, 7e-9)) / sketch.pixel_size_m
    film = sketch.with_added(rounded(wall(edge, min(thick, 0.5 * sketch.height), 1.5), 0.5))
    factor = float(np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.45)))
    return _stained(film, edge, factor)


def scratch(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A long thin groove, a little bent."""
    length, width = float(rng.uniform(1.5, 6.0)) * sketch.pitch, _size(rng, 1.5, 6.0)
    angle = float(rng.uniform(0.0, np.pi))
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    along = (x - spot.x) * np.cos(angle) + (y - spot.y) * np.sin(angle)
    aside = (y - spot.y) * np.cos(angle) - (x - spot.x) * np.sin(angle)
    aside = aside - float(rng.normal(0.0, 0.1)) * along**2 / length
    within = np.minimum(1.0 - np.abs(aside) * (2.0 / width), (0.5 * length - np.abs(along)) / width)
    depth = min(width * float(rng.uniform(0.4, 1.5)), sketch.height * float(rng.uniform(0.3, 1.0)))
    return sketch.with_added(np.asarray(-depth * np.clip(within, 0.0, 1.0), np.float32))


def void(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A hollow under the surface: a soft dark patch, no step."""
    spot = _on_line(sketch, spot) if sketch.kind == "lines" else spot
    radius = _size(rng, 2.5, 0.45 * sketch.pitch)
    away = _blob(sketch, spot, radius, rng)
    dark = float(rng.uniform(0.2, 0.6)) * np.exp(-(away**2)) * (away < 2.0)
    solid = np.clip(sketch.inside + 0.5, 0.0, 1.0)
    return sketch.with_material(np.asarray(1.0 - dark * solid, np.float32))


DRAW: dict[str, Callable[[Sketch, Spot, Generator], Sketch]] = {
    "pit": pit,
    "particle": particle,
    "bridge": bridge,
    "microbridge": microbridge,
    "break": gap,
    "necking": necking,
    "missing_contact": missing_contact,
    "closed_contact": closed_contact,
    "merged_contact": merged_contact,
    "residue": residue,
    "collapse": collapse,
    "scratch": scratch,
    "void": void,
    "other": bulge,
}


def _raised(sketch: Sketch, top: Field) -> Sketch:
    """Nothing lower than `top`, where that is above the floor."""
    more = np.where(top > 0.0, np.maximum(top - surface_px(sketch), 0.0), 0.0)
    return sketch.with_added(rounded(np.asarray(more, np.float32), 0.5 * sketch.rounding))


def _lowered(sketch: Sketch, bottom: Field) -> Sketch:
    """Nothing higher than `bottom`, where that is lower than the pattern's top."""
    less = np.where(bottom < sketch.height, np.minimum(bottom - surface_px(sketch), 0.0), 0.0)
    return sketch.with_added(rounded(np.asarray(less, np.float32), 0.5 * sketch.rounding))


def _stained(sketch: Sketch, inside: NDArray[np.floating], factor: float) -> Sketch:
    """Another yield where inside is positive."""
    return sketch.with_material(np.asarray(1.0 + (factor - 1.0) * np.clip(inside + 0.5, 0.0, 1.0), np.float32))


def _resized(sketch: Sketch, spot: Spot, factor: float) -> Sketch:
    """The nearest hole with another radius."""
    hole = _nearest_hole(sketch, spot)
    if hole is None:
        return sketch
    within = _disc(sketch, hole.x, hole.y, 0.6 * sketch.pitch) > 0.0
    return replace(sketch, inside=np.where(within, sketch.inside + (1.0 - factor) * hole.radius, sketch.inside))


def _from_line(sketch: Sketch, spot: Spot) -> tuple[Field, Field]:
    """Distances of each pixel across and along, from the middle of the line nearest to the spot."""
    u, v = _coordinates(sketch, spot)
    return sketch.across - np.float32((np.floor(u / sketch.pitch) + 0.5) * sketch.pitch), sketch.along - np.float32(v)


def _from_space(sketch: Sketch, spot: Spot) -> tuple[Field, Field]:
    """The same from the middle of the nearest space."""
    u, v = _coordinates(sketch, spot)
    return sketch.across - np.float32(np.round(u / sketch.pitch) * sketch.pitch), sketch.along - np.float32(v)


def _on_line(sketch: Sketch, spot: Spot) -> Spot:
    u, _ = _coordinates(sketch, spot)
    return _shifted(sketch, spot, float((np.floor(u / sketch.pitch) + 0.5) * sketch.pitch - u))


def _in_space(sketch: Sketch, spot: Spot) -> Spot:
    u, _ = _coordinates(sketch, spot)
    return _shifted(sketch, spot, float(np.round(u / sketch.pitch) * sketch.pitch - u))


def _shifted(sketch: Sketch, spot: Spot, by: float) -> Spot:
    ux, uy = _direction(sketch)
    return Spot(spot.x + by * ux, spot.y + by * uy)


def _coordinates(sketch: Sketch, spot: Spot) -> tuple[float, float]:
    row, column = round(spot.y), round(spot.x)
    return float(sketch.across[row, column]), float(sketch.along[row, column])


def _direction(sketch: Sketch) -> tuple[float, float]:
    """Unit vector across the lines, (x, y)."""
    return float(sketch.across[0, 1] - sketch.across[0, 0]), float(sketch.across[1, 0] - sketch.across[0, 0])


def _nearest_hole(sketch: Sketch, spot: Spot) -> Feature | None:
    return min(sketch.features, key=lambda hole: (hole.x - spot.x) ** 2 + (hole.y - spot.y) ** 2, default=None)


def _neighbour(sketch: Sketch, hole: Feature, rng: Generator) -> Feature | None:
    """One of the holes a pitch away."""
    near = [
        other for other in sketch.features if 0.5 < np.hypot(other.x - hole.x, other.y - hole.y) / sketch.pitch < 1.2
    ]
    return near[int(rng.integers(len(near)))] if near else None


def _disc(sketch: Sketch, x: float, y: float, radius: float) -> Field:
    yy, xx = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    return np.asarray(radius - np.hypot(xx - np.float32(x), yy - np.float32(y)), np.float32)


def _blob(sketch: Sketch, spot: Spot, radius: float, rng: Generator) -> Field:
    """Distance from the middle in units of the outline: 1 on an irregular oval, below 1 inside."""
    yy, xx = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    dx, dy = xx - np.float32(spot.x), yy - np.float32(spot.y)
    angle, oval = float(rng.uniform(0.0, np.pi)), float(np.exp(rng.uniform(0.0, 0.4)))
    turn = np.arctan2(dy, dx) - angle
    outline = outlines(1, rng=rng, roughness=float(rng.uniform(0.0, 0.08)))[0]
    uneven = np.interp(turn % (2.0 * np.pi), np.linspace(0.0, 2.0 * np.pi, outline.size), outline)
    stretch = np.hypot(np.cos(turn) / oval, np.sin(turn) * oval)
    return np.asarray(np.hypot(dx, dy) * stretch / (radius * uneven), np.float32)


def _size(rng: Generator, least: float, most: float) -> float:
    """Log-uniform: small ones are as frequent as large ones."""
    return float(np.exp(rng.uniform(np.log(least), np.log(max(most, 1.2 * least)))))
