"""Finds in, the defects that a recipe tells of out, and what was left out and why. Pure.

In this order: confidence, class, region, size, nuisance. The first rule that speaks against a find names it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from agent.control.recipe import NOTHING, Recipe, Region
from agent.messages import Box, Defect
from engines.cascade_levels import LARGE, SMALL, UNKNOWN, UNSIZED, Sizes, size_of

Nuisance = Callable[[Defect], str | None]  # what a find is in truth, or None


@dataclass(frozen=True)
class Sifted:
    """What is told, and how many finds each rule left out."""

    kept: tuple[Defect, ...]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Pixel:
    """Sides of one, metres; None where the header does not tell: then no size rule is applied."""

    x_m: float | None = None
    y_m: float | None = None

    def size_m(self, box: Box) -> float | None:
        """The longer side."""
        if self.x_m is None:
            return None
        return max((box[2] - box[0]) * self.x_m, (box[3] - box[1]) * (self.y_m or self.x_m))


def sift(
    found: Iterable[Defect], recipe: Recipe, *, pixel: Pixel, own_threshold: float = 0.0, nuisance: Nuisance
) -> Sifted:
    """own_threshold: the model's own, for a recipe that names none. nuisance: asked last, for it looks at pixels."""
    kept, dropped = [], Counter[str]()
    for each in found:
        if each.confidence < recipe.least(each.name, own_threshold):
            continue  # not sure enough to be a find
        reason = _against(each, recipe, pixel) or nuisance(each)
        if reason is None:
            kept.append(sized(each, recipe, pixel))
        else:
            dropped[reason] += 1
    return Sifted(tuple(kept), dict(dropped))


def sized(defect: Defect, recipe: Recipe, pixel: Pixel) -> Defect:
    """With its size, and small or large in its path where the recipe says which it is."""
    size_m = pixel.size_m(defect.box_px)
    word = size_word(size_m, recipe)
    path = defect.path
    if word is not None and not {SMALL, LARGE, UNKNOWN} & set(path):
        path = (*path[:1], word, *path[1:])
    return msgspec.structs.replace(defect, size_m=size_m, path=path)


def size_word(size_m: float | None, recipe: Recipe) -> str | None:
    """Up to small_m small, from large_m on large, between them what it is nearer to; None: nobody says."""
    bounds_m = recipe.rules.sizes.bounds_m
    said = UNSIZED if bounds_m is None else size_of(size_m, Sizes(*bounds_m))
    return None if said == UNSIZED else said


def outside(regions: Iterable[Region], shape: tuple[int, ...]) -> tuple[Region, ...]:
    """Regions that do not lie in a picture (h, w)."""
    return tuple(each for each in regions if each.box_px[2] > shape[1] or each.box_px[3] > shape[0])


def _against(defect: Defect, recipe: Recipe, pixel: Pixel) -> str | None:
    rules = recipe.rules
    own = rules.classes.get(defect.name, NOTHING)
    if not own.report:
        return "class"
    if not inspected(defect.box_px, rules.regions):
        return "region"
    size_m = pixel.size_m(defect.box_px)
    least_m = own.least_size_m if own.least_size_m is not None else rules.sizes.least_m
    return "size" if size_m is not None and least_m is not None and size_m < least_m else None


def inspected(box: Box, regions: Iterable[Region]) -> bool:
    """By the middle of the box; what is ignored is ignored, wherever it lies."""
    x, y = (box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0
    asked = [each for each in regions if each.do == "inspect"]
    if any(_holds(each.box_px, x, y) for each in regions if each.do == "ignore"):
        return False
    return not asked or any(_holds(each.box_px, x, y) for each in asked)


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] <= x < box[2] and box[1] <= y < box[3]
