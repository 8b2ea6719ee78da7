"""Every patterned sketch by name: lines, contacts, pillars, tips, jogs, Manhattan routes, logic metal, blank film.

A shape, a pixel size and a generator in; a `Sketch` out. What all have in common is `inside`, `height`, `run`,
`rounding`, `pitch` and `width`; only lines, contacts and pillars have a `lattice`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin import design
from calibration.twin.design import Rect, covered
from calibration.twin.distance import disc
from calibration.twin.process import FWHM, Process, draw_process, printed
from calibration.twin.roughness import roughened_outline
from calibration.twin.sketch import PITCH_PX, Feature, Sketch, array, contacts, lines, standing

Field = NDArray[np.float32]
Generator = np.random.Generator
Draw = Callable[..., list[Rect]]

TURNED_SHARE = 0.15  # of the layouts drawn from rectangles: an angle of the scan's own


@dataclass(frozen=True)
class Grid:
    """The measures of a layout, px."""

    pitch: float
    width: float


def pillars(
    shape: tuple[int, int], *, pixel_size_m: float, rng: Generator, pitch_px: tuple[float, float] = PITCH_PX
) -> Sketch:
    """An array of posts: contacts turned inside out."""
    drawn, radius, how = array(shape, pixel_size_m=pixel_size_m, rng=rng, pitch_px=pitch_px)
    rough = roughened_outline(drawn.inside, how.roughness(pixel_size_m), rng=rng)
    return replace(drawn, kind="pillars", inside=rough, width=2 * radius)


def drawn_from(
    draw: Draw,
    kind: str,
    shape: tuple[int, int],
    *,
    pixel_size_m: float,
    rng: Generator,
    pitch_px: tuple[float, float] = PITCH_PX,
) -> Sketch:
    """A layout of rectangles, printed with round corners and rough edges; half of them run down, half across."""
    grid = _grid(rng, pitch_px)
    how = draw_process(gap_px=grid.pitch - grid.width, pitch_px=grid.pitch, pixel_size_m=pixel_size_m, rng=rng)
    angle = float(rng.uniform(0.0, np.pi)) if rng.random() < TURNED_SHARE else 0.5 * np.pi * int(rng.integers(2))
    canvas = _canvas(shape, angle)
    rects = draw(canvas, grid.pitch, width=grid.width, rng=rng)
    inside = _printed(_cut(covered(canvas, rects), shape, angle), grid, how, pixel_size_m, rng)
    sketch = standing(inside, how, kind=kind, pitch=grid.pitch, pixel_size_m=pixel_size_m)
    return replace(sketch, width=grid.width)


def logic(
    shape: tuple[int, int], *, pixel_size_m: float, rng: Generator, pitch_px: tuple[float, float] = PITCH_PX
) -> Sketch:
    """Wires of several widths with via holes landed on them; `features` are the vias."""
    grid = _grid(rng, pitch_px)
    how = draw_process(gap_px=grid.pitch - grid.width, pitch_px=grid.pitch, pixel_size_m=pixel_size_m, rng=rng)
    upright = rng.random() < 0.5
    canvas = shape[::-1] if upright else shape
    made = design.logic(canvas, grid.pitch, width=grid.width, rng=rng)
    cover = covered(canvas, made.wires)
    holes = [(y, x, r) if upright else (x, y, r) for x, y, r in made.vias]
    inside = _printed(cover.T.copy() if upright else cover, grid, how, pixel_size_m, rng)
    for x, y, radius in holes:
        _pierce(inside, x, y, radius)
    sketch = standing(inside, how, kind="logic", pitch=grid.pitch, pixel_size_m=pixel_size_m)
    seen = tuple(Feature(x, y, r) for x, y, r in holes if 0 <= x < shape[1] and 0 <= y < shape[0])
    return replace(sketch, width=grid.width, features=seen)


def plain(
    shape: tuple[int, int], *, pixel_size_m: float, rng: Generator, pitch_px: tuple[float, float] = (18.0, 50.0)
) -> Sketch:
    """A film without a pattern; its pitch is only the scale that defects are drawn to."""
    pitch = float(rng.uniform(*pitch_px))
    how = draw_process(gap_px=0.5 * pitch, pitch_px=pitch, pixel_size_m=pixel_size_m, rng=rng)
    inside = np.full(shape, 1e3, np.float32)
    sketch = standing(inside, how, kind="plain", pitch=pitch, pixel_size_m=pixel_size_m)
    return replace(sketch, width=0.5 * pitch)


PATTERNS: dict[str, Callable[..., Sketch]] = {
    "lines": lines,
    "contacts": contacts,
    "pillars": pillars,
    "tip_to_tip": partial(drawn_from, design.tip_to_tip, "tip_to_tip"),
    "jogs": partial(drawn_from, design.jogs, "jogs"),
    "manhattan": partial(drawn_from, design.manhattan, "manhattan"),
    "logic": logic,
    "plain": plain,
}


def _grid(rng: Generator, pitch_px: tuple[float, float]) -> Grid:
    pitch = float(np.exp(rng.uniform(*np.log(pitch_px))))
    return Grid(pitch, pitch * float(rng.uniform(0.4, 0.6)))


def _printed(cover: Field, grid: Grid, how: Process, pixel_size_m: float, rng: Generator) -> Field:
    smooth = printed(cover, sigma_px=how.blur * grid.pitch / FWHM, threshold=how.threshold)
    return roughened_outline(smooth, how.roughness(pixel_size_m), rng=rng)


def _canvas(shape: tuple[int, int], angle: float) -> tuple[int, int]:
    """Large enough that the picture can be cut from it at the angle."""
    h, w = shape
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    return int(np.ceil(h * c + w * s)) + 2, int(np.ceil(h * s + w * c)) + 2


def _cut(cover: Field, shape: tuple[int, int], angle: float) -> Field:
    """The picture at its angle, from the middle of the canvas."""
    c, s = np.cos(angle), np.sin(angle)
    middle = np.array([(cover.shape[1] - 1) / 2, (cover.shape[0] - 1) / 2])
    turn = np.array([[c, -s], [s, c]])
    start = middle - turn @ np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    matrix = np.hstack([turn, start[:, None]]).astype(np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (shape[1], shape[0])
    return np.asarray(cv2.warpAffine(cover, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32)


def _pierce(inside: Field, x: float, y: float, radius: float) -> None:
    """A round hole cut out in place; beyond a few radii the wire's own edge counts."""
    reach = 3.0 * radius + 3.0
    y0, y1 = max(int(y - reach), 0), min(int(y + reach) + 1, inside.shape[0])
    x0, x1 = max(int(x - reach), 0), min(int(x + reach) + 1, inside.shape[1])
    if y0 < y1 and x0 < x1:
        patch = inside[y0:y1, x0:x1]
        np.minimum(patch, -disc((y1 - y0, x1 - x0), x - x0, y - y0, radius), out=patch)
