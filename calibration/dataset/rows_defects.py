"""Defects' frames for a dataset: the training's own, or its specimens under a shift; the exact pixel size beside each.

The draws follow `calibration.train.defects_data.fields_of` call by call: unshifted, they are the training's bytes.
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from calibration.dataset import shifted
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import Shift
from calibration.train import defects_data
from calibration.train.defects_data import LOOKS, SHARES, Recipe
from calibration.train.defects_specimens import Specimen, specimen
from calibration.train.develop import develop, draw_look, draw_material, times
from calibration.twin.contrast import contrast
from calibration.twin.nuisances import draw_tear
from calibration.twin.surface import Surface
from engines.scene import condition, levels_of

Row = dict[str, Any]

STRETCH = 1.5  # of a layout: beyond the widest pitch that is drawn
UNPATTERNED = ("plain", "relief", "natural", "empty")  # kinds that have no pitch to shift


def rows(index: int, seed: int, shift: Shift) -> Arrays:
    """The frames of one specimen, with masks and heights of every pixel."""
    recipe = recipe_of(seed, shift)
    rng = np.random.default_rng([seed, index])
    shares = np.array([SHARES[name] for name in recipe.kinds])
    kind = recipe.kinds[int(rng.choice(len(shares), p=shares / shares.sum()))]
    if kind == "empty":  # nothing was under the beam: a pixel has no size there
        made = [defects_data._empty_row(recipe, rng) | {"pixel_size_m": np.float32(np.nan)} for _ in range(LOOKS)]
    else:
        seen = specimen(kind, recipe, rng)
        made = [_row(seen, recipe, shift, rng) for _ in range(LOOKS)]
    return {name: np.stack([row[name] for row in made]) for name in made[0]}


def recipe_of(seed: int, shift: Shift) -> Recipe:
    patterned = tuple(name for name in defects_data.KINDS if name not in UNPATTERNED)
    return Recipe(
        seed,
        kinds=patterned if shift.stretch else defects_data.KINDS,
        dose=0.5 if shift.half_dose else 1.0,
        stretch=STRETCH if shift.stretch else 1.0,
        maps=True,
    )


def _row(seen: Specimen, recipe: Recipe, shift: Shift, rng: np.random.Generator) -> Row:
    look = defects_data._dosed(draw_look(rng, pixel_size_m=seen.field.pixel_size_m), recipe.dose)
    shown, bare = _coated(seen, shift, rng)
    how = [contrast(each, look, field=shown, clean=bare) for each in seen.windows]
    tear = draw_tear(shown.shape, rng)
    taken = develop(
        shown.height_m,
        look,
        pixel_size_m=shown.pixel_size_m,
        sky=seen.sky,
        material=shown.material,
        drift=tear.torn,
        tail=shifted.tail(rng) if shift.charging else None,
        rng=rng,
    )
    placed = [each.defect for each in seen.windows]
    row: Row = {"image": taken.pixels, "condition": condition(levels_of(taken.pixels), taken.scene)}
    row |= defects_data._truth(placed, how, tear)
    row |= defects_data._nuisances((*map(tear.moved, seen.nuisances), *tear.named(shown.shape)))
    row |= {"period_px": np.array(seen.period_px, np.float32), "kind": np.uint8(defects_data.KINDS.index(seen.kind))}
    row |= defects_data._maps(placed, tear, tear.torn(shown.height_m))
    return row | {"pixel_size_m": np.float32(seen.field.pixel_size_m)}


def _coated(seen: Specimen, shift: Shift, rng: np.random.Generator) -> tuple[Surface, Surface]:
    """The field with its defects and without, both of the same material."""
    if shift.material:
        coat = shifted.strange(seen.clean.height_m, rng)
        return _times(seen.field, coat.over(seen.field.height_m)), _times(seen.clean, coat.over(seen.clean.height_m))
    again = copy.deepcopy(rng)
    return (
        _times(seen.field, draw_material(seen.field.height_m, rng)),
        _times(seen.clean, draw_material(seen.clean.height_m, again)),
    )


def _times(surface: Surface, factor: shifted.Field | None) -> Surface:
    return replace(surface, material=times(surface.material, factor))
