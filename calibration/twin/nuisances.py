"""What a field shows and no defect is: drawn on purpose and told by name, so that false alarms have a cause.

Streaks, drift tears, clumps of noise, edges rougher in one place, boxes of contamination, slow patches of brightness,
the charge that trails behind a particle. Beside these, unnamed, what every field has: grain, a patchy yield.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.twin.roughness import field
from calibration.twin.sketch import Sketch

Field = NDArray[np.float32]
Generator = np.random.Generator
Box = tuple[int, int, int, int]  # x0, y0, x1, y1; x1 and y1 exclusive
Shape = tuple[int, int]

NUISANCES = ("streak", "tear", "clump", "roughness", "contamination", "patch", "charging")
CHANCE = {"streak": 0.25, "clump": 0.15, "contamination": 0.12, "patch": 0.2}  # of a field, each
ROUGHNESS_CHANCE = 0.15
TEAR_CHANCE = 0.1
LARGEST_TEAR_PX = 4
FAINT = 0.3  # of an envelope's summit: what lies below is outside the box
TAIL_PX = (20.0, 120.0)  # of a charging tail, towards +x: the way the beam goes


@dataclass(frozen=True)
class Nuisance:
    name: str  # one of NUISANCES
    box_px: Box


@dataclass(frozen=True)
class Tear:
    """The rows from `row` on have drifted by `by` pixels towards +x; 0: they have not."""

    row: int
    by: int

    def torn(self, plane: Field) -> Field:
        """(h, w) moved; what comes in at the side is the edge again."""
        if self.by == 0:
            return plane
        moved = plane.copy()
        columns = np.clip(np.arange(plane.shape[1]) - self.by, 0, plane.shape[1] - 1)
        moved[self.row :] = plane[self.row :][:, columns]
        return moved

    def torn_box(self, box: Box) -> Box:
        x0, y0, x1, y1 = box
        if self.by == 0 or y1 <= self.row:
            return box
        if y0 >= self.row:
            return x0 + self.by, y0, x1 + self.by, y1
        return x0 + min(self.by, 0), y0, x1 + max(self.by, 0), y1

    def moved(self, one: Nuisance) -> Nuisance:
        return replace(one, box_px=self.torn_box(one.box_px))

    def named(self, shape: Shape) -> tuple[Nuisance, ...]:
        """The two rows on either side of the jump."""
        if self.by == 0:
            return ()
        return (Nuisance("tear", (0, max(self.row - 1, 0), shape[1], min(self.row + 1, shape[0]))),)


WHOLE = Tear(0, 0)


def cause(box_px: tuple[float, float, float, float], nuisances: Sequence[Nuisance]) -> str | None:
    """The name of the smallest nuisance that a false alarm touches; None: nothing was drawn there."""
    x0, y0, x1, y1 = box_px
    touched = [n for n in nuisances if n.box_px[0] < x1 and x0 < n.box_px[2] and n.box_px[1] < y1 and y0 < n.box_px[3]]
    least = min(touched, key=lambda n: (n.box_px[2] - n.box_px[0]) * (n.box_px[3] - n.box_px[1]), default=None)
    return None if least is None else least.name


def draw_tear(shape: Shape, rng: Generator) -> Tear:
    """One field in ten."""
    if rng.random() > TEAR_CHANCE:
        return WHOLE
    return Tear(
        int(rng.integers(shape[0] // 8, shape[0])), int(rng.choice([-1, 1]) * rng.integers(1, LARGEST_TEAR_PX + 1))
    )


def roughened(sketch: Sketch, rng: Generator) -> Sketch:
    """What every field has of its own: more edge roughness, grain of the film, a patchy yield."""
    if rng.random() < 0.35:
        wander = field(sketch.shape, size_px=float(rng.uniform(2.0, 10.0)), rng=rng)
        sketch = replace(sketch, inside=sketch.inside + np.float32(rng.uniform(0.0, 0.02) * sketch.pitch) * wander)
    grain = float(rng.uniform(0.0, 0.8e-9)) / sketch.pixel_size_m
    sketch = sketch.with_added(np.float32(min(grain, 0.3)) * field(sketch.shape, size_px=1.2, rng=rng))
    if rng.random() < 0.4:
        clumps = field(sketch.shape, size_px=float(np.exp(rng.uniform(np.log(1.5), np.log(60.0)))), rng=rng)
        sketch = sketch.with_material(np.asarray(1.0 + float(rng.uniform(0.0, 0.05)) * clumps, np.float32))
    return sketch


def troubled(sketch: Sketch, rng: Generator) -> tuple[Sketch, tuple[Nuisance, ...]]:
    """The sketch with nuisances, and which; none for about half of the fields."""
    named: tuple[Nuisance, ...] = ()
    if rng.random() < ROUGHNESS_CHANCE and sketch.kind != "plain":
        sketch, box = rougher(sketch, rng)
        named = (Nuisance("roughness", box),)
    factor, more = stains(sketch.shape, rng)
    return (sketch if factor is None else sketch.with_material(factor)), named + more


def stains(shape: Shape, rng: Generator) -> tuple[Field | None, tuple[Nuisance, ...]]:
    """(h, w) factor on the yield of any field, None: 1 everywhere; and what it is made of."""
    factor, named = None, []
    for name, chance in CHANCE.items():
        for _ in range(_count(name, rng) if rng.random() < chance else 0):
            drawn, box = STAIN[name](shape, rng)
            factor = drawn if factor is None else factor * drawn
            named.append(Nuisance(name, box))
    return factor, tuple(named)


def streak(shape: Shape, rng: Generator) -> tuple[Field, Box]:
    """A few scan lines brighter or darker than their neighbours, whole or from somewhere on."""
    factor = np.ones(shape, np.float32)
    row, start = int(rng.integers(shape[0])), int(rng.integers(shape[1])) if rng.random() < 0.4 else 0
    end = min(row + int(rng.integers(1, 4)), shape[0])
    factor[row:end, start:] = np.float32(np.exp(rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.25)))
    return factor, (start, row, shape[1], end)


def clump(shape: Shape, rng: Generator) -> tuple[Field, Box]:
    """A place where the noise is coarser and stronger than around."""
    size = float(np.exp(rng.uniform(np.log(3.0), np.log(14.0))))
    here = _envelope(shape, size, rng)
    speckle = np.clip(field(shape, size_px=float(rng.uniform(0.6, 1.6)), rng=rng), -2.5, 2.5)
    return np.asarray(1.0 + float(rng.uniform(0.06, 0.22)) * here * speckle, np.float32), _bounds(here)


def contamination(shape: Shape, rng: Generator) -> tuple[Field, Box]:
    """The rectangle of a former, smaller scan: carbon makes it darker, seldom brighter; its rim often more so."""
    height, width = (int(side * rng.uniform(0.2, 0.8)) for side in shape)
    x0, y0 = (
        int(rng.integers(-width // 2, shape[1] - width // 2)),
        int(rng.integers(-height // 2, shape[0] - height // 2)),
    )
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    inside = np.minimum(np.minimum(x - x0, x0 + width - x), np.minimum(y - y0, y0 + height - y))
    soft = float(rng.uniform(0.5, 4.0))
    level = float(rng.uniform(0.03, 0.18)) * (-1.0 if rng.random() < 0.85 else 1.0)
    depth = level * np.clip(inside / soft + 0.5, 0.0, 1.0)
    rim = float(rng.uniform(0.0, 0.5)) * level * np.exp(-((inside / (2.0 * soft)) ** 2))
    m = int(2.0 * soft) + 1
    box = (max(x0 - m, 0), max(y0 - m, 0), min(x0 + width + m, shape[1]), min(y0 + height + m, shape[0]))
    return np.asarray(1.0 + depth + rim, np.float32), box


def patch(shape: Shape, rng: Generator) -> tuple[Field, Box]:
    """A slow rise or fall of brightness."""
    here = _envelope(shape, float(rng.uniform(0.08, 0.35)) * min(shape), rng)
    level = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.18))
    return np.asarray(1.0 + level * here, np.float32), _bounds(here)


STAIN: dict[str, Callable[[Shape, Generator], tuple[Field, Box]]] = {
    "streak": streak,
    "clump": clump,
    "contamination": contamination,
    "patch": patch,
}


def rougher(sketch: Sketch, rng: Generator) -> tuple[Sketch, Box]:
    """Edges that wander more in one place, never by enough to be a necking or to touch."""
    here = _envelope(sketch.shape, max(sketch.pitch * float(rng.uniform(0.5, 2.0)), 6.0), rng)
    narrow = min(sketch.width, sketch.pitch - sketch.width) if sketch.width > 0.0 else 0.5 * sketch.pitch
    strength = max(narrow * float(rng.uniform(0.015, 0.04)), 0.15)
    wander = np.clip(field(sketch.shape, size_px=float(rng.uniform(1.5, 6.0)), rng=rng), -2.5, 2.5)
    return replace(sketch, inside=np.asarray(sketch.inside + strength * here * wander, np.float32)), _bounds(here)


def charged(mask: NDArray[np.bool_], rng: Generator) -> tuple[Field, Box]:
    """(h, w) factor on the yield behind a charged particle, bright or dark along the scan, and where it tells."""
    length = float(np.exp(rng.uniform(*np.log(TAIL_PX))))
    taps = np.exp(-np.arange(mask.shape[1], dtype=np.float32) / np.float32(length))
    hit: NDArray[np.bool_] = np.asarray(mask.any(axis=1), np.bool_)
    last = np.where(hit, mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1), -1)
    behind = np.arange(mask.shape[1])[None, :] - last[:, None] - 1
    tail = np.where(hit[:, None] & (behind >= 0), taps[np.clip(behind, 0, mask.shape[1] - 1)], 0.0)
    level = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.35))
    rows = np.nonzero(hit)[0]
    end = min(int(last.max() + length * np.log(1.0 / FAINT)) + 2, mask.shape[1])
    box = (int(min(last[hit].min() + 1, end - 1)), int(rows[0]), end, int(rows[-1]) + 1)
    return np.asarray(1.0 + level * tail, np.float32), box


def _count(name: str, rng: Generator) -> int:
    return int(rng.integers(1, 5)) if name in ("streak", "clump") else 1


def _envelope(shape: Shape, sigma_px: float, rng: Generator) -> Field:
    """A bell, 1 at its summit."""
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(rng.uniform(0, shape[0]))
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(rng.uniform(0, shape[1]))
    return np.asarray(np.exp((y**2 + x**2) * np.float32(-0.5 / sigma_px**2)), np.float32)


def _bounds(envelope: Field) -> Box:
    there = envelope > FAINT * float(envelope.max())
    rows, columns = np.nonzero(there.any(axis=1))[0], np.nonzero(there.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
