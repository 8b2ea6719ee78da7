"""The tree itself: what the graph answered and what was measured of one candidate in, its path out. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.cascade_features import Fact
from engines.defects import CLASSES

NOT_DEFECT, UNKNOWN, NOISE, OTHER = "not_defect", "unknown", "noise", "other"
LARGE, SMALL, UNSIZED = "large", "small", "unsized"
HOLLOW_OR_RAISED = ("pit", "particle")  # the same ring of light from above: height or shading parts them
EITHER = "pit_or_particle"
SHADED = 3.0  # sigmas of shading from which it parts them
RAISED = 1.0  # sigmas of height


@dataclass(frozen=True)
class Sizes:
    """Of a recipe. Up to small_m a defect is small, from large_m on large, between them what it is nearer to."""

    small_m: float
    large_m: float


@dataclass(frozen=True)
class Limits:
    """Of the package: its working point."""

    defect: float  # probability from which a candidate is a defect
    known: float  # share of known defects at least as strange, below which one is unknown
    chance: float  # that noise alone does as much, above which it is noise


@dataclass(frozen=True)
class Answer:
    """What the graph says of one candidate."""

    defect: float
    leaf: NDArray[np.float32]  # (classes,) adds up to 1
    known: float


@dataclass(frozen=True)
class Level:
    """What one level said, and the probability that it is right.

    Of `kind`: the share of known defects that look at least as strange, or less strange where it says `unknown`; large
    or small is a rule and certain. Of `noise`: one minus the chance that noise does as much, or that chance.
    """

    level: str  # defect, kind, noise, leaf
    said: str
    probability: float


@dataclass(frozen=True)
class Judged:
    """One candidate."""

    name: str  # one of CLASSES, or not_defect, or unknown
    path: tuple[str, ...]  # from the root: ("defect", "large", "bridge")
    levels: tuple[Level, ...]  # in the order they were asked; the last one decided
    size_m: float | None  # longer side of its box; None without a pixel size


def judged(answer: Answer, fact: Fact, limits: Limits, *, sizes: Sizes | None, pixel_size_m: float | None) -> Judged:
    """Down the tree until a level ends it."""
    x0, y0, x1, y1 = fact.box_px
    size_m = None if pixel_size_m is None else max(x1 - x0, y1 - y0) * pixel_size_m
    if answer.defect < limits.defect:
        return Judged(NOT_DEFECT, (NOT_DEFECT,), (Level("defect", NOT_DEFECT, 1.0 - answer.defect),), size_m)
    levels = [Level("defect", "defect", answer.defect)]
    if answer.known < limits.known:
        levels.append(Level("kind", UNKNOWN, 1.0 - answer.known))
        return Judged(UNKNOWN, ("defect", UNKNOWN), tuple(levels), size_m)
    size = size_of(size_m, sizes)
    levels.append(Level("kind", size, answer.known))
    chance = fact.contrast.chance
    if chance > limits.chance:
        levels.append(Level("noise", NOISE, chance))
        return Judged(NOT_DEFECT, (NOT_DEFECT, NOISE), tuple(levels), size_m)
    levels.append(Level("noise", "signal", 1.0 - chance))
    name, last = leaf_of(answer.leaf, fact)
    path = ("defect", name) if size == UNSIZED else ("defect", size, name)
    return Judged(name, path, (*levels, last), size_m)


def size_of(size_m: float | None, sizes: Sizes | None) -> str:
    if size_m is None or sizes is None:
        return UNSIZED
    if sizes.small_m < size_m < sizes.large_m:
        return LARGE if size_m >= 0.5 * (sizes.small_m + sizes.large_m) else SMALL
    return LARGE if size_m >= sizes.large_m else SMALL


def leaf_of(leaf: NDArray[np.float32], fact: Fact) -> tuple[str, Level]:
    """The likeliest class. A pit that may as well be a particle is neither, and that is said."""
    best = int(np.argmax(leaf))
    name = CLASSES[best]
    if name not in HOLLOW_OR_RAISED or decidable(fact):
        return name, Level("leaf", name, float(leaf[best]))
    either = sum(float(leaf[CLASSES.index(each)]) for each in HOLLOW_OR_RAISED)
    return OTHER, Level("leaf", EITHER, either)


def decidable(fact: Fact) -> bool:
    """Does height or shading tell a pit from a particle?"""
    height = fact.height
    raised = height is not None and abs(height.above_px) >= RAISED * height.sigma_px
    return raised or abs(fact.contrast.shading) >= SHADED
