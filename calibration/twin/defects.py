"""Defects put into a sketch, with their exact truth: class, box, height.

A sketch and a seed in; the sketch with its defects and one `Placed` a defect out. Boxes hold every pixel whose height
or material differs from the same sketch without the defect by more than `TELLS_M` or `TELLS_YIELD`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.twin.flaws import DRAW, Spot
from calibration.twin.roughness import field
from calibration.twin.sketch import Sketch, surface_m

Field = NDArray[np.float32]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 exclusive

TELLS_M = 1e-9
TELLS_SHARE = 0.1  # of the pattern's height, where that is only a few nanometres
TELLS_YIELD = 0.03
APART_PX = 8  # between two boxes: each is a defect of its own
OWN_ROUGHNESS = 3.0  # standard deviations of a line's own width that a change of width must pass

KINDS: dict[str, dict[str, float]] = {  # what happens to each kind of sketch, in shares
    "lines": {
        "bridge": 0.13,
        "microbridge": 0.14,
        "break": 0.13,
        "necking": 0.12,
        "particle": 0.14,
        "pit": 0.11,
        "collapse": 0.05,
        "residue": 0.06,
        "scratch": 0.04,
        "void": 0.04,
        "other": 0.04,
    },
    "contacts": {
        "missing_contact": 0.17,
        "closed_contact": 0.19,
        "merged_contact": 0.17,
        "particle": 0.15,
        "pit": 0.09,
        "residue": 0.07,
        "scratch": 0.05,
        "void": 0.05,
        "other": 0.06,
    },
    "plain": {"particle": 0.3, "pit": 0.25, "residue": 0.15, "scratch": 0.15, "void": 0.15},
}


@dataclass(frozen=True)
class Placed:
    """The truth of one defect."""

    name: str  # one of engines.defects.CLASSES
    box_px: Box
    height_m: float  # the largest change of height, signed; 0 where only the material differs
    area_px: int
    drowned: bool  # no larger than the line's own roughness


Accept = Callable[[Sketch, Placed], bool]


def plain(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """A film without a pattern; its pitch is only the scale that defects are drawn to."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    pitch = float(rng.uniform(18.0, 50.0))
    return Sketch(
        kind="plain",
        inside=np.full(shape, 1e3, np.float32),
        height=pitch * float(rng.uniform(0.2, 0.8)),
        run=1.0,
        rounding=0.5,
        pitch=pitch,
        pixel_size_m=pixel_size_m,
        across=x,
        along=y,
        width=0.5 * pitch,
    )


def scatter(
    sketch: Sketch, count: int, *, rng: np.random.Generator, accept: Accept | None = None
) -> tuple[Sketch, tuple[Placed, ...]]:
    """`count` defects at random, or fewer where they have no room; none within APART_PX of another.

    accept: asked about each, with the sketch that has it; one that is refused is not drawn.
    """
    shares = KINDS[sketch.kind]
    weights = np.array(list(shares.values())) / sum(shares.values())
    placed: list[Placed] = []
    for _ in range(4 * count):
        if len(placed) == count:
            break
        name = list(shares)[int(rng.choice(len(shares), p=weights))]
        spot = Spot(float(rng.uniform(2, sketch.shape[1] - 3)), float(rng.uniform(2, sketch.shape[0] - 3)))
        changed, defect = inject(sketch, name, spot, rng=rng)
        if defect is None or not all(_apart(defect.box_px, other.box_px) for other in placed):
            continue
        if accept is None or accept(changed, defect):
            sketch = changed
            placed.append(defect)
    return sketch, tuple(placed)


def inject(sketch: Sketch, name: str, spot: Spot, *, rng: np.random.Generator) -> tuple[Sketch, Placed | None]:
    """One defect near the spot. None where the sketch has no place for it or nothing of it shows."""
    changed = DRAW[name](sketch, spot, rng)
    if changed is sketch:
        return sketch, None
    step = surface_m(changed) - surface_m(sketch)
    differs = (np.abs(step) > tells_m(sketch)) | (np.abs(_yield(changed) - _yield(sketch)) > TELLS_YIELD)
    area = int(np.count_nonzero(differs))
    if area < 2:
        return sketch, None
    rows, columns = np.nonzero(differs.any(axis=1))[0], np.nonzero(differs.any(axis=0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    largest = float(step.ravel()[int(np.argmax(np.abs(step)))])
    height_m = largest if abs(largest) > tells_m(sketch) else 0.0
    drowned = name in ("necking", "other") and sketch.kind == "lines" and _drowned(sketch, changed, box)
    return changed, Placed(name, box, height_m, area, drowned)


def tells_m(sketch: Sketch) -> float:
    """The change of height that counts as a difference."""
    return min(TELLS_M, TELLS_SHARE * sketch.height * sketch.pixel_size_m)


def roughened(sketch: Sketch, rng: np.random.Generator) -> Sketch:
    """What a real field has and no defect is: more edge roughness, grain of the film, a patchy yield, streaks."""
    if rng.random() < 0.35:
        wander = field(sketch.shape, size_px=float(rng.uniform(2.0, 10.0)), rng=rng)
        sketch = replace(sketch, inside=sketch.inside + np.float32(rng.uniform(0.0, 0.02) * sketch.pitch) * wander)
    grain = float(rng.uniform(0.0, 0.8e-9)) / sketch.pixel_size_m
    sketch = sketch.with_added(np.float32(min(grain, 0.3)) * field(sketch.shape, size_px=1.2, rng=rng))
    if rng.random() < 0.4:
        clumps = field(sketch.shape, size_px=float(np.exp(rng.uniform(np.log(1.5), np.log(60.0)))), rng=rng)
        sketch = sketch.with_material(np.asarray(1.0 + float(rng.uniform(0.0, 0.05)) * clumps, np.float32))
    return sketch.with_material(_streaks(sketch.shape, rng)) if rng.random() < 0.25 else sketch


def _streaks(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """A few scan lines brighter or darker than their neighbours, whole or from somewhere on."""
    factor = np.ones(shape, np.float32)
    for _ in range(int(rng.integers(1, 6))):
        row, start = int(rng.integers(shape[0])), int(rng.integers(shape[1])) if rng.random() < 0.4 else 0
        factor[row : row + int(rng.integers(1, 4)), start:] *= np.float32(np.exp(rng.normal(0.0, 0.12)))
    return factor


def _drowned(sketch: Sketch, changed: Sketch, box: Box) -> bool:
    """Is the change of width within what the same pattern does by itself?"""
    x0, y0, x1, y1 = box
    cut = np.s_[y0:y1, x0:x1]
    change = float(np.abs(changed.inside[cut] - sketch.inside[cut]).max())
    return bool(change < OWN_ROUGHNESS * _edge_spread(sketch))


def _edge_spread(sketch: Sketch) -> float:
    """Standard deviation of the lines' edges, px: area of material over length, line by line and stretch by stretch."""
    line = np.floor(sketch.across / sketch.pitch).astype(np.int64)
    step = np.floor(sketch.along / 3.0).astype(np.int64)
    group = (line - line.min()) * (int(np.ptp(step)) + 1) + step - step.min()
    solid = np.clip(sketch.inside + 0.5, 0.0, 1.0)
    pixels = np.bincount(group.ravel())
    width = np.bincount(group.ravel(), weights=solid.ravel())[pixels > 2.5 * sketch.pitch] / 3.0
    return float(width.std()) / np.sqrt(2.0) if width.size > 2 else 0.0


def _yield(sketch: Sketch) -> Field:
    return np.ones(sketch.shape, np.float32) if sketch.material is None else sketch.material


def _apart(a: Box, b: Box) -> bool:
    return a[0] - APART_PX >= b[2] or b[0] - APART_PX >= a[2] or a[1] - APART_PX >= b[3] or b[1] - APART_PX >= a[3]
