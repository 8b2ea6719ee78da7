"""Every surface by name: a kind, a pixel size and a generator in; heights and material out.

Patterned ones are `patterns` with something on them now and then; natural ones are `natural`; pillars, pits, terraces,
balls and rough ground are drawn here, of one material. `RELIEFS` are the same, heights alone.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from calibration.twin import natural, sketch
from calibration.twin.layout import sample
from calibration.twin.patterns import PATTERNS
from calibration.twin.roughness import edges, field
from calibration.twin.sketch import rounded, wall
from calibration.twin.surface import SpecimenError, Surface, metres

Field = NDArray[np.float32]
Shape = tuple[int, int]


def pillars(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Round and square pillars on a loose grid, each with a height of its own."""
    return _islands(shape, pixel_size_m=pixel_size_m, rng=rng)


def pits(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """The same upside down: a plain with holes of every depth."""
    return np.asarray(-_islands(shape, pixel_size_m=pixel_size_m, rng=rng), np.float32)


def terraces(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Steps up and down along rough straight edges, or a mesa of nested squares or rounds."""
    run, rounding = float(rng.uniform(0.2, 2.0)), _rounding(pixel_size_m, rng)
    z = np.zeros(shape, np.float32)
    for inside in _nested(shape, rng) if rng.random() < 0.5 else _parallel(shape, rng):
        step = float(np.exp(rng.uniform(np.log(2.0), np.log(18.0))))
        z += wall(inside, step if rng.random() < 0.65 else -step, run)
    return metres(rounded(z, rounding), pixel_size_m)


def balls(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Spheres of many sizes, sunk in a little or standing on the ground; they may touch, none covers another's top."""
    z = np.zeros(shape, np.float32)
    largest = float(rng.uniform(8.0, 40.0))
    for _ in range(int(rng.integers(6, 60))):
        radius = 3.0 * (largest / 3.0) ** float(rng.beta(1.0, 1.8))
        x, y = float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0]))
        if z[int(y), int(x)] > 0.0:
            continue
        cap = np.maximum(sketch.disc(shape, x, y, radius), 0.0)
        across2 = np.square(radius - cap)
        dome = np.sqrt(np.maximum(radius**2 - across2, 0.0)) + radius * float(rng.uniform(-0.3, 0.9))
        z = np.where(cap > 0.0, np.maximum(z, dome), z).astype(np.float32)
    return metres(rounded(z, 0.4), pixel_size_m)


def rough(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    """Random ground: one grain size, or two."""
    size = float(np.exp(rng.uniform(np.log(2.5), np.log(16.0))))
    z = field(shape, size_px=size, rng=rng)
    if rng.random() < 0.4:
        z = z + float(rng.uniform(0.2, 0.6)) * field(shape, size_px=size * float(rng.uniform(0.3, 0.6)), rng=rng)
    rms = size * float(rng.uniform(0.15, 0.9))  # steepness of the mean slope
    return metres(z * np.float32(rms), pixel_size_m)


def patterned(name: str, shape: Shape, *, pixel_size_m: float, rng: np.random.Generator) -> Surface:
    """A pattern; lines may be bridged at any height, holes filled, all may carry particles and pits."""
    drawn: sketch.Sketch = PATTERNS[name](shape, pixel_size_m=pixel_size_m, rng=rng)
    if rng.random() < 0.4:
        drawn = CHANGED.get(name, _same)(drawn, rng)
    return sketch.surface_of(drawn.with_added(_bumps(drawn.shape, drawn.width, rng)))


def _same(drawn: sketch.Sketch, rng: np.random.Generator) -> sketch.Sketch:
    return drawn


def _filled(drawn: sketch.Sketch, rng: np.random.Generator) -> sketch.Sketch:
    """Some holes filled a little or quite."""
    z = sketch.surface_px(drawn)
    level = np.zeros_like(z)
    for hole in rng.permutation(np.array(drawn.features, dtype=object))[: int(rng.integers(1, 6))]:
        cover = sketch.disc(drawn.shape, hole.x, hole.y, 1.3 * hole.radius) > 0.0
        level[cover] = drawn.height * float(rng.uniform(0.1, 1.0))
    return drawn.with_added(np.maximum(level - z, 0.0))


def _bridged(drawn: sketch.Sketch, rng: np.random.Generator) -> sketch.Sketch:
    z = sketch.surface_px(drawn)
    level = np.zeros_like(z)
    for _ in range(int(rng.integers(1, 6))):
        y, x = int(rng.integers(z.shape[0])), int(rng.integers(z.shape[1]))
        half = float(rng.uniform(1.0, 0.5 * drawn.pitch))
        near = half - np.abs(drawn.along - drawn.along[y, x])
        near = np.minimum(near, 0.5 * drawn.pitch - np.abs(drawn.across - drawn.across[y, x]))
        bar = wall(np.asarray(near, np.float32), drawn.height * float(rng.uniform(0.15, 1.0)), 1.0)
        level = np.maximum(level, bar)
    return drawn.with_added(np.maximum(level - z, 0.0))


def _bumps(shape: Shape, size_px: float, rng: np.random.Generator) -> Field:
    """Domes and bowls of about the pattern's size, on a third of the fields; (h, w) px."""
    z = np.zeros(shape, np.float32)
    if rng.random() > 0.35:
        return z
    for _ in range(int(rng.integers(1, 7))):
        radius = max(min(size_px, 40.0) * float(rng.uniform(0.15, 0.8)), 2.0)
        x, y = float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0]))
        inside = np.maximum(sketch.disc(shape, x, y, radius), 0.0) / radius
        cap = np.sqrt(1.0 - np.square(1.0 - inside)) * np.float32(radius * rng.uniform(0.3, 1.2))
        z = z + cap if rng.random() < 0.6 else z - cap
    return np.asarray(z, np.float32)


def of_one_material(
    name: str, draw: Callable[..., Field], shape: Shape, *, pixel_size_m: float, rng: np.random.Generator
) -> Surface:
    """A relief that is the same stuff everywhere."""
    return Surface(draw(shape, pixel_size_m=pixel_size_m, rng=rng), None, pixel_size_m, name)


def surface(kind: str, shape: Shape, *, pixel_size_m: float, rng: np.random.Generator) -> Surface:
    """By name; raises SpecimenError for an unknown one."""
    if kind not in SURFACES:
        raise SpecimenError(f"unknown kind of surface {kind!r}; known are {', '.join(SURFACES)}")
    return SURFACES[kind](shape, pixel_size_m=pixel_size_m, rng=rng)


def _heights(kind: str, shape: Shape, *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    return SURFACES[kind](shape, pixel_size_m=pixel_size_m, rng=rng).height_m


CHANGED: dict[str, Callable[[sketch.Sketch, np.random.Generator], sketch.Sketch]] = {
    "lines": _bridged,
    "contacts": _filled,
}
DRAWN_HERE: dict[str, Callable[..., Field]] = {
    "pillars": pillars,
    "pits": pits,
    "terraces": terraces,
    "balls": balls,
    "rough": rough,
}
SURFACES: dict[str, Callable[..., Surface]] = {
    "lines": partial(patterned, "lines"),
    "contacts": partial(patterned, "contacts"),
    **{name: partial(of_one_material, name, draw) for name, draw in DRAWN_HERE.items()},
    "posts": partial(patterned, "pillars"),  # on a lattice, all of one height
    "tip_to_tip": partial(patterned, "tip_to_tip"),
    "jogs": partial(patterned, "jogs"),
    "manhattan": partial(patterned, "manhattan"),
    "logic": partial(patterned, "logic"),
    "tin_balls": natural.tin_balls,
    "particles": natural.particles,
    "fibres": natural.fibres,
    "grains": natural.grains,
    "cells": natural.cells,
}
RELIEFS: dict[str, Callable[..., Field]] = {kind: partial(_heights, kind) for kind in SURFACES}


def _islands(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Field:
    pitch = float(rng.uniform(20.0, 60.0))
    highest = float(np.exp(rng.uniform(np.log(5.0), np.log(40.0))))
    run, z = float(rng.uniform(0.2, 2.5)), np.zeros(shape, np.float32)
    for y in np.arange(rng.uniform(0, pitch), shape[0] + pitch / 2, pitch):
        for x in np.arange(rng.uniform(0, pitch), shape[1] + pitch / 2, pitch):
            half = pitch * float(rng.uniform(0.15, 0.36))
            cx, cy = x + float(rng.uniform(-0.08, 0.08)) * pitch, y + float(rng.uniform(-0.08, 0.08)) * pitch
            _island(z, cx, cy, half=half, height=highest * float(rng.uniform(0.1, 1.0)), run=run, rng=rng)
    return metres(rounded(z, _rounding(pixel_size_m, rng)), pixel_size_m)


def _island(z: Field, x: float, y: float, *, half: float, height: float, run: float, rng: np.random.Generator) -> None:
    reach = int(half * 1.5 + run) + 3
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    patch = z[top : int(y) + reach, left : int(x) + reach]
    if patch.size == 0:
        return
    yy, xx = np.mgrid[top : top + patch.shape[0], left : left + patch.shape[1]].astype(np.float32)
    if rng.random() < 0.5:
        inside = half - np.hypot(xx - x, yy - y)
    else:
        inside = half - np.maximum(np.abs(xx - x), np.abs(yy - y))
    np.maximum(patch, wall(np.asarray(inside, np.float32), height, run), out=patch)


def _nested(shape: tuple[int, int], rng: np.random.Generator) -> list[Field]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    cx, cy = rng.uniform(0.3, 0.7) * shape[1], rng.uniform(0.3, 0.7) * shape[0]
    square = rng.random() < 0.5
    away = np.maximum(np.abs(x - cx), np.abs(y - cy)) if square else np.hypot(x - cx, y - cy)
    sizes = np.sort(rng.uniform(0.08, 0.6, int(rng.integers(2, 6)))) * min(shape)
    return [np.asarray(size - away, np.float32) for size in sizes]


def _parallel(shape: tuple[int, int], rng: np.random.Generator) -> list[Field]:
    angle = float(rng.uniform(0.0, 2 * np.pi))
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    across = np.asarray(np.cos(angle) * x + np.sin(angle) * y, np.float32)
    along = np.asarray(-np.sin(angle) * x + np.cos(angle) * y, np.float32)
    reach = along - along.min()
    count = int(rng.integers(2, 8))
    record = edges(count, int(reach.max()) + 3, sigma_px=float(rng.uniform(0.2, 1.5)), xi_px=8.0, hurst=0.7, rng=rng)
    places = rng.uniform(float(across.min()), float(across.max()), count)
    rows = [np.full(shape, i, np.int32) for i in range(count)]
    return [np.asarray(across - place + sample(record, row, reach)) for place, row in zip(places, rows, strict=True)]


def _rounding(pixel_size_m: float, rng: np.random.Generator) -> float:
    return float(rng.uniform(1e-9, 3e-9)) / pixel_size_m
