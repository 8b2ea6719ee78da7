"""What the cascade is told of each candidate beside its crops, as one row of numbers: (n, FEATURES) float32.

Groups of columns, in this order; a group of which nothing is known is zeros, and says so in its last column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.cascade_contrast import FAR, Contrast
from engines.cascade_crops import Box, median
from engines.defects import CLASSES, SEEN
from engines.readings import FoundDefect, Relief
from engines.scene import CONDITION, LEAST_SPREAD
from engines.texture import TEXTURE

ELEMENTS = ("C", "N", "O", "Al", "Si", "Ti", "Cu", "W")  # whose fractions a sidecar may tell
GROUPS = {  # name -> columns
    "condition": CONDITION,  # engines.scene
    "shape": 9,
    "contrast": 8,
    "texture": TEXTURE,
    "height": 6,
    "fractions": len(ELEMENTS) + 1,
    "word": len(CLASSES) + 2,  # the detector's: class, confidence
    "seen": SEEN + 1,  # ... and what it saw there, where its package tells
}
FEATURES = sum(GROUPS.values())
RING, RING_PX = 0.5, (4.0, 32.0)  # of a box's larger side: how wide the surroundings are that a height is told from
FLOOR, TOP = 0.05, 0.95  # quantiles of the surroundings
LEAST_RING = 0.25  # of the ring inside the picture; with less of it the height is not known
LAPLACE = math.sqrt(2.0)  # standard deviation over the scale of a Laplace distribution


@dataclass(frozen=True)
class Height:
    """The middle of a box above its surroundings, in the depth model's pixels."""

    above_px: float  # their median
    above_floor_px: float
    above_top_px: float
    sigma_px: float  # of the middle


@dataclass(frozen=True)
class Fact:
    """What is known of one candidate beside its pixels."""

    box_px: Box
    contrast: Contrast
    height: Height | None
    fractions: NDArray[np.float32] | None  # (ELEMENTS,) 0..1
    word: FoundDefect | None = None  # of the detector that found it


@dataclass(frozen=True)
class Surroundings:
    """... and of the whole picture."""

    condition: NDArray[np.float32]  # (8,)
    pitch_px: float | None
    compared: bool  # with a reference


def columns_of(name: str) -> slice:
    """Where a group stands."""
    names = list(GROUPS)
    start = sum(GROUPS[each] for each in names[: names.index(name)])
    return slice(start, start + GROUPS[name])


def features(facts: Sequence[Fact], texture: NDArray[np.float32], around: Surroundings) -> NDArray[np.float32]:
    """texture (n, TEXTURE) -> (n, FEATURES)."""
    table = np.zeros((len(facts), FEATURES), np.float32)
    table[:, columns_of("condition")] = around.condition
    table[:, columns_of("texture")] = texture
    spread = max(float(around.condition[1]) * 255.0, LEAST_SPREAD)
    for row, fact in zip(table, facts, strict=True):
        row[columns_of("shape")] = _shape(fact, around.pitch_px)
        row[columns_of("contrast")] = _contrast(fact.contrast, spread, around.compared)
        if fact.height is not None:
            row[columns_of("height")] = _height(fact.height)
        if fact.fractions is not None:
            row[columns_of("fractions")] = (*fact.fractions, 1.0)
        if fact.word is not None:
            row[columns_of("word")] = word_told(fact.word)
            if fact.word.seen:
                row[columns_of("seen")] = (*fact.word.seen, 1.0)
    return table


def height_at(box_px: Box, relief: Relief) -> Height | None:
    """None where the picture cuts the surroundings."""
    x0, y0, x1, y1 = box_px
    reach = min(max(RING * max(x1 - x0, y1 - y0), RING_PX[0]), RING_PX[1])
    outer = _cut((x0 - reach, y0 - reach, x1 + reach, y1 + reach), relief.height_px.shape)
    inner = _cut(box_px, relief.height_px.shape)
    near = relief.height_px[outer]
    around = np.ones(near.shape, np.bool_)
    around[tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))] = False
    ring = near[around]
    whole = (x1 - x0 + 2.0 * reach) * (y1 - y0 + 2.0 * reach) - (x1 - x0) * (y1 - y0)
    if ring.size < LEAST_RING * whole:
        return None
    x, y = (x1 - x0) / 4.0, (y1 - y0) / 4.0
    core = _cut((x0 + x, y0 + y, x1 - x, y1 - y), relief.height_px.shape)
    middle = median(relief.height_px[core])
    ranks = [int(share * (ring.size - 1)) for share in (FLOOR, 0.5, TOP)]
    low, centre, high = (float(value) for value in np.partition(ring, ranks)[ranks])
    return Height(middle - centre, middle - low, middle - high, LAPLACE * median(relief.scale_px[core]))


def word_told(word: FoundDefect) -> tuple[float, ...]:
    """Its class, one of all, and the logit of its confidence."""
    sure = min(max(word.confidence, 1e-3), 1.0 - 1e-3)
    named = [float(name == word.name) for name in CLASSES]
    return (*named, math.log(sure / (1.0 - sure)), 1.0)


def _shape(fact: Fact, pitch_px: float | None) -> tuple[float, ...]:
    x0, y0, x1, y1 = fact.box_px
    width, height, seen = max(x1 - x0, 1.0), max(y1 - y0, 1.0), fact.contrast
    pitches = (0.0, 0.0, 0.0) if pitch_px is None else (math.log(width / pitch_px), math.log(height / pitch_px), 1.0)
    turned = seen.elongation * math.cos(2.0 * seen.along_rad), seen.elongation * math.sin(2.0 * seen.along_rad)
    return (math.log(width), math.log(height), math.log1p(seen.area_px), seen.elongation, *turned, *pitches)


def _contrast(seen: Contrast, spread: float, compared: bool) -> tuple[float, ...]:
    doubt = math.log10(max(seen.chance, 1e-12)) / 12.0
    best = math.asinh(min(seen.best, FAR))
    matched = [_far(each) for each in seen.matched]
    return (*matched, best, doubt, _far(seen.shading), math.log(seen.noise / spread), float(compared))


def _far(sigmas: float) -> float:
    """Signed; large ones are all alike."""
    return math.asinh(min(max(sigmas, -FAR), FAR))


def _height(told: Height) -> tuple[float, ...]:
    sure = told.above_px / max(told.sigma_px, 1e-3)
    lengths = (told.above_px, told.above_floor_px, told.above_top_px, told.sigma_px)
    return (*(math.asinh(each) for each in lengths), _far(sure), 1.0)


def _cut(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the whole pixels in a box, at least one of each."""
    left, top = min(max(math.floor(box[0]), 0), shape[1] - 1), min(max(math.floor(box[1]), 0), shape[0] - 1)
    right, bottom = min(math.ceil(box[2]), shape[1]), min(math.ceil(box[3]), shape[0])
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
