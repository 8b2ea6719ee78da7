"""Defects put into a sketch, with their exact truth: class, box, mask, height, size against the pitch.

A sketch and a seed in; the sketch with its defects and one `Placed` a defect out. Masks hold every pixel whose height
or material differs from the same sketch without the defect by more than `TELLS_M` or `TELLS_YIELD`; boxes hold masks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.flaws import DRAW, Spot
from calibration.twin.nuisances import Box, Nuisance, charged
from calibration.twin.sketch import Sketch, surface_m

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

TELLS_M = 1e-9
TELLS_SHARE = 0.1  # of the pattern's height, where that is only a few nanometres
TELLS_YIELD = 0.03
APART_PX = 8  # between two boxes: each is a defect of its own
OWN_ROUGHNESS = 3.0  # standard deviations of a line's own width that a change of width must pass
CHARGING_SHARE = 0.2  # of the particles
COMPACT = ("bridge", "microbridge", "break", "necking", "other")  # one wire or space, over a pitch or so
LONGEST_PITCHES = 4.0

# What happens to each kind of sketch, in shares. Scratch, collapse, pit and necking more often than on a wafer: they
# were learnt last of all.
KINDS: dict[str, dict[str, float]] = {
    "lines": {
        "bridge": 0.1,
        "microbridge": 0.12,
        "break": 0.1,
        "necking": 0.15,
        "particle": 0.1,
        "pit": 0.14,
        "collapse": 0.09,
        "residue": 0.05,
        "scratch": 0.08,
        "void": 0.04,
        "other": 0.03,
    },
    "contacts": {
        "missing_contact": 0.16,
        "closed_contact": 0.17,
        "merged_contact": 0.16,
        "particle": 0.12,
        "pit": 0.14,
        "residue": 0.06,
        "scratch": 0.09,
        "void": 0.05,
        "other": 0.05,
    },
    "pillars": {
        "bridge": 0.14,
        "microbridge": 0.12,
        "collapse": 0.12,
        "particle": 0.12,
        "pit": 0.12,
        "residue": 0.08,
        "scratch": 0.1,
        "void": 0.05,
        "other": 0.15,
    },
    "plain": {"particle": 0.25, "pit": 0.3, "residue": 0.15, "scratch": 0.2, "void": 0.1},
}
ROUTED: dict[str, float] = {  # wires of any sort, with holes in them or without: what has no place is not drawn
    "bridge": 0.11,
    "microbridge": 0.11,
    "break": 0.1,
    "necking": 0.13,
    "collapse": 0.06,
    "missing_contact": 0.05,
    "closed_contact": 0.05,
    "particle": 0.09,
    "pit": 0.12,
    "residue": 0.05,
    "scratch": 0.06,
    "void": 0.03,
    "other": 0.04,
}


@dataclass(frozen=True)
class Placed:
    """The truth of one defect."""

    name: str  # one of engines.defects.CLASSES
    box_px: Box
    height_m: float  # the largest change of height, signed; 0 where only the material differs
    area_px: int
    drowned: bool  # no larger than the line's own roughness
    mask: Mask = field(repr=False, compare=False)  # (y1 - y0, x1 - x0) of the box
    pitch_share: float  # side of a square of the same area, in pitches
    tail_px: Box | None = None  # where its charge brightens or darkens the lines behind it: no part of the defect


Accept = Callable[[Sketch, Placed], bool]


@dataclass(frozen=True)
class Seen:
    """What a defect may change, (h, w) both."""

    height_m: Field
    relative_yield: Field


def scatter(
    sketch: Sketch, count: int, *, rng: np.random.Generator, accept: Accept | None = None
) -> tuple[Sketch, tuple[Placed, ...]]:
    """`count` defects at random, or fewer where they have no room; none within APART_PX of another.

    accept: asked about each, with the sketch that has it; one that is refused is not drawn.
    """
    shares = KINDS.get(sketch.kind, ROUTED)
    weights = np.array(list(shares.values())) / sum(shares.values())
    placed: list[Placed] = []
    before = seen(sketch)
    for _ in range(4 * count):
        if len(placed) == count:
            break
        name = list(shares)[int(rng.choice(len(shares), p=weights))]
        spot = Spot(float(rng.uniform(2, sketch.shape[1] - 3)), float(rng.uniform(2, sketch.shape[0] - 3)))
        changed, defect = inject(sketch, name, spot, rng=rng, before=before)
        if defect is None or not all(_apart(defect.box_px, other.box_px) for other in placed):
            continue
        if accept is None or accept(changed, defect):
            sketch, before = changed, seen(changed)
            placed.append(defect)
    return sketch, tuple(placed)


def inject(
    sketch: Sketch, name: str, spot: Spot, *, rng: np.random.Generator, before: Seen | None = None
) -> tuple[Sketch, Placed | None]:
    """One defect near the spot. None where the sketch has no place for it or nothing of it shows.

    before: `seen(sketch)`, where it is known already.
    """
    changed = DRAW[name](sketch, spot, rng)
    if changed is sketch:
        return sketch, None
    old, new = before or seen(sketch), seen(changed)
    step = new.height_m - old.height_m
    differs = (np.abs(step) > tells_m(sketch)) | (np.abs(new.relative_yield - old.relative_yield) > TELLS_YIELD)
    area = int(np.count_nonzero(differs))
    if area < 2:
        return sketch, None
    x0, y0, x1, y1 = box = _box(differs)
    if name in COMPACT and max(x1 - x0, y1 - y0) > LONGEST_PITCHES * sketch.pitch + APART_PX:
        return sketch, None  # wires at random: it took in what lies far along the same way
    largest = float(step.ravel()[int(np.argmax(np.abs(step)))])
    tail = None
    if name == "particle" and rng.random() < CHARGING_SHARE:
        factor, tail = charged(differs, rng)
        changed = changed.with_material(factor)
    return changed, Placed(
        name=name,
        box_px=box,
        height_m=largest if abs(largest) > tells_m(sketch) else 0.0,
        area_px=area,
        drowned=name in ("necking", "other") and _drowned(sketch, changed, box),
        mask=differs[y0:y1, x0:x1].copy(),
        pitch_share=float(np.sqrt(area)) / sketch.pitch,
        tail_px=tail,
    )


def tails(placed: Iterable[Placed]) -> list[Nuisance]:
    """What the charge of these particles does beside them."""
    return [Nuisance("charging", each.tail_px) for each in placed if each.tail_px is not None]


def seen(sketch: Sketch) -> Seen:
    material = sketch.material
    return Seen(surface_m(sketch), np.ones(sketch.shape, np.float32) if material is None else material)


def tells_m(sketch: Sketch) -> float:
    """The change of height that counts as a difference."""
    return min(TELLS_M, TELLS_SHARE * sketch.height * sketch.pixel_size_m)


def _box(differs: Mask) -> Box:
    rows, columns = np.nonzero(differs.any(axis=1))[0], np.nonzero(differs.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _drowned(sketch: Sketch, changed: Sketch, box: Box) -> bool:
    """Is the change of width within what the same pattern does by itself?"""
    x0, y0, x1, y1 = box
    cut = np.s_[y0:y1, x0:x1]
    change = float(np.abs(changed.inside[cut] - sketch.inside[cut]).max())
    return bool(change < OWN_ROUGHNESS * edge_spread(sketch))


def edge_spread(sketch: Sketch) -> float:
    """Standard deviation of the edges, px: line by line where lines are, else the outline against a smooth one."""
    if sketch.kind == "lines" and sketch.lattice is not None:
        return _line_spread(sketch)
    smooth = cv2.GaussianBlur(sketch.inside, (0, 0), 0.25 * sketch.pitch)
    off = (sketch.inside - smooth)[np.abs(sketch.inside) < 1.0]
    # The median forgives corners, where a smooth outline goes its own way.
    return 1.48 * float(np.median(np.abs(off - np.median(off)))) if off.size else 0.0


def _line_spread(sketch: Sketch) -> float:
    """Area of material over length, line by line and stretch by stretch."""
    line = np.floor(sketch.across / sketch.pitch).astype(np.int64)
    step = np.floor(sketch.along / 3.0).astype(np.int64)
    group = (line - line.min()) * (int(np.ptp(step)) + 1) + step - step.min()
    solid = np.clip(sketch.inside + 0.5, 0.0, 1.0)
    pixels = np.bincount(group.ravel())
    width = np.bincount(group.ravel(), weights=solid.ravel())[pixels > 2.5 * sketch.pitch] / 3.0
    return float(width.std()) / np.sqrt(2.0) if width.size > 2 else 0.0


def _apart(a: Box, b: Box) -> bool:
    return a[0] - APART_PX >= b[2] or b[0] - APART_PX >= a[2] or a[1] - APART_PX >= b[3] or b[1] - APART_PX >= a[3]
