"""What nobody patterned, as surfaces: tin balls, particles, fibres, polished grains, cells. Features in pixels.

Relative yields are the material's own and, for grains and cells, what orientation or stain makes of it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin import texture
from calibration.twin.matter import brightness
from calibration.twin.roughness import field, fractal
from calibration.twin.surface import Surface, metres

Field = NDArray[np.float32]
Generator = np.random.Generator
Shape = tuple[int, int]
Cut = tuple[slice, slice]

APART_PX = 1.0  # between two tin balls
TRIES = 6  # to find room for one
NOTHING = -1e6  # a height below everything


def tin_balls(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """Tin on carbon: balls of every size that do not touch, on a grainy ground."""
    z, material = _carbon(shape, coarse_px=8.0, rng=rng)
    biggest = float(rng.uniform(22.0, 60.0))
    radii = np.sort(1.6 * (biggest / 1.6) ** (rng.beta(1.0, 2.2, int(shape[0] * shape[1] / 260))))[::-1]
    taken = np.zeros(shape, np.bool_)
    for radius in radii:
        for _ in range(TRIES):
            x, y = rng.uniform(-radius / 2, shape[1] + radius / 2), rng.uniform(-radius / 2, shape[0] + radius / 2)
            if not taken[int(np.clip(y, 0, shape[0] - 1)), int(np.clip(x, 0, shape[1] - 1))]:
                _ball(z, material, taken, (float(x), float(y), float(radius)), rng)
                break
    return _made(z, material, pixel_size_m, "tin_balls")


def _ball(z: Field, material: Field, taken: NDArray[np.bool_], at: tuple[float, float, float], rng: Generator) -> None:
    """A drop that stands on the ground; left out where it would touch another."""
    x, y, radius = at
    cut, dx, dy = _window(z, x, y, 1.1 * radius + 3.0)
    squash, angle = float(rng.uniform(0.0, 0.06)), float(rng.uniform(0, np.pi))
    away = np.hypot(dx, dy) * (1.0 + squash * np.cos(2 * (np.arctan2(dy, dx) - angle))) / radius
    its = away < 1.0 + APART_PX / radius
    if (taken[cut] & its).any():
        return
    dome = radius * (np.sqrt(np.maximum(1.0 - away**2, 0.0)) + float(rng.uniform(0.0, 0.5)))
    _lay(z, material, cut, np.where(away < 1.0, dome, NOTHING), bright=brightness("Sn"))
    taken[cut] |= its


def sparse(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """A few small particles on a plain ground: hardly anything to focus on."""
    z, material = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    for _ in range(int(rng.integers(4, 10))):
        radius, x, y = rng.uniform(1.8, 6.0), rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        cut, dx, dy = _window(z, float(x), float(y), float(radius) + 3.0)
        away = np.hypot(dx, dy) / radius
        _lay(z, material, cut, np.where(away < 1.0, radius * np.sqrt(np.maximum(1 - away**2, 0)), NOTHING), bright=1.2)
    return _made(z, material, pixel_size_m, "sparse")


def particles(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """Faceted crystals of a heavy metal on carbon, alone and in heaps."""
    z, material = _carbon(shape, coarse_px=10.0, rng=rng)
    size, bright = float(rng.uniform(5.0, 16.0)), brightness(str(rng.choice(["Au", "W", "Cu"])))
    heaps = rng.uniform(0.0, 1.0, (int(rng.integers(3, 9)), 2)) * [shape[1], shape[0]]
    for _ in range(int(shape[0] * shape[1] / (2.6 * size) ** 2)):
        x, y = rng.uniform(0.0, 1.0, 2) * [shape[1], shape[0]]
        if rng.random() < 0.6:
            x, y = heaps[int(rng.integers(len(heaps)))] + rng.normal(0.0, 4.0 * size, 2)
        own = size * float(np.exp(rng.normal(0.0, 0.4)))
        cut, dx, dy = _window(z, float(x), float(y), 1.6 * own + 2.0)
        if dx.size:
            top = _crystal(dx, dy, own, rng)
            under = float(np.median(z[cut]))  # it rests on what lies there
            lying = np.where(top > 0.0, top + max(under, 0.0), NOTHING)
            _lay(z, material, cut, lying, bright=bright * float(rng.uniform(0.85, 1.15)))
    return _made(z, material, pixel_size_m, "particles")


def _crystal(dx: Field, dy: Field, size: float, rng: Generator) -> Field:
    """The upper half of a polyhedron: the lowest of a flat top and slanting faces."""
    top = np.full(dx.shape, size * float(rng.uniform(0.6, 1.1)), np.float32)
    count, turn = int(rng.integers(5, 9)), float(rng.uniform(0.0, 2 * np.pi))
    for number in range(count):
        angle = turn + 2 * np.pi * (number + float(rng.uniform(-0.3, 0.3))) / count
        steep, away = float(rng.uniform(0.6, 3.0)), size * float(rng.uniform(0.7, 1.1))
        top = np.minimum(top, steep * (away - dx * np.cos(angle) - dy * np.sin(angle)))
    return np.asarray(top, np.float32)


def fibres(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """Polymer threads across one another over a dark support: each a round, gently bent wire."""
    z, material = _carbon(shape, coarse_px=12.0, rng=rng)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    thick, reach = float(rng.uniform(3.0, 9.0)), float(np.hypot(*shape))
    for number in range(int(rng.integers(18, 30))):
        radius = thick * float(np.exp(rng.normal(0.0, 0.25)))
        angle, bend = float(rng.uniform(0.0, np.pi)), float(rng.normal(0.0, 0.35)) / reach
        cx, cy = rng.uniform(0.0, shape[1]), rng.uniform(0.0, shape[0])
        along = np.float32(np.cos(angle)) * (x - np.float32(cx)) + np.float32(np.sin(angle)) * (y - np.float32(cy))
        across = np.float32(np.cos(angle)) * (y - np.float32(cy)) - np.float32(np.sin(angle)) * (x - np.float32(cx))
        away = np.square(across - np.float32(bend) * along**2) / (1.0 + np.square(np.float32(2 * bend) * along))
        round_ = np.sqrt(np.maximum(np.float32(radius**2) - away, 0.0))
        level = np.where(round_ > 0.0, round_ + np.float32(0.3 * thick * number**0.5), NOTHING)
        _lay(z, material, np.s_[:, :], level, bright=brightness("polymer"))
    return _made(z, material, pixel_size_m, "fibres")


def grains(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """A polished and lightly etched metal: yield by orientation, grooved boundaries, steps of a pixel or so."""
    polish = texture.grains(shape, rng)
    etched = field(shape, size_px=1.1, rng=rng)
    z = float(rng.uniform(0.2, 0.8)) * polish.step - float(rng.uniform(1.5, 3.0)) * polish.groove
    z = z + 0.08 * etched - 0.5 * np.maximum(etched - 2.6, 0.0)
    material = brightness("Cu") * (1.0 + 0.9 * (polish.tone - 0.5)) * (1.0 + 0.05 * etched)
    return _made(z, np.maximum(material, 0.15), pixel_size_m, "grains")


def cells(shape: Shape, *, pixel_size_m: float, rng: Generator) -> Surface:
    """A section of stained tissue: nearly flat, stain decides the yield; what is hard stands out a little."""
    stain = texture.tissue(shape, rng)
    z = 1.5 * cv2.GaussianBlur(1.0 - stain, (0, 0), 1.0)
    return _made(z, 2.0 * stain, pixel_size_m, "cells")


def _carbon(shape: Shape, *, coarse_px: float, rng: Generator) -> tuple[Field, Field]:
    """Heights (px) and relative yield of a sputtered film: grainy, never quite even."""
    z = 0.25 * fractal(shape, coarse_px=coarse_px, octaves=4, rng=rng)
    patchy = 1.0 + 0.08 * fractal(shape, coarse_px=coarse_px, octaves=3, rng=rng)
    return np.asarray(z, np.float32), np.asarray(brightness("C") * patchy, np.float32)


def _window(z: Field, x: float, y: float, reach: float) -> tuple[Cut, Field, Field]:
    """The pixels around a place, and their distances from it along x and y; empty beyond the picture."""
    y0, y1 = max(int(y - reach), 0), max(min(int(y + reach) + 2, z.shape[0]), 0)
    x0, x1 = max(int(x - reach), 0), max(min(int(x + reach) + 2, z.shape[1]), 0)
    yy, xx = np.mgrid[y0 : max(y1, y0), x0 : max(x1, x0)].astype(np.float32)
    return np.s_[y0 : max(y1, y0), x0 : max(x1, x0)], xx - np.float32(x), yy - np.float32(y)


def _lay(z: Field, material: Field, cut: Cut, top: NDArray[np.floating], *, bright: float) -> None:
    """Something whose upper side is `top` on what is there, in place."""
    higher = top > z[cut]
    z[cut][higher] = top[higher]
    material[cut][higher] = bright


def _made(z: NDArray[np.floating], material: NDArray[np.floating], pixel_size_m: float, kind: str) -> Surface:
    """Edges as soft as a pixel is wide."""
    soft = [cv2.GaussianBlur(np.asarray(each, np.float32), (0, 0), 0.5) for each in (z, material)]
    return Surface(metres(np.asarray(soft[0], np.float32), pixel_size_m), np.asarray(soft[1]), pixel_size_m, kind)
