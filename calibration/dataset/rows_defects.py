"""Defects' frames for a dataset: the training's own, or its specimens under a shift; the exact pixel size with each."""

from dataclasses import replace

import numpy as np

from calibration.dataset import shifted
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import Shift
from calibration.train import defects_data
from calibration.train.defects_data import Recipe
from calibration.train.defects_specimens import Specimen
from calibration.train.develop import times
from calibration.twin.surface import Surface

STRETCH = 1.5  # of a layout: beyond the widest pitch that is drawn
UNPATTERNED = ("plain", "relief", "natural", "empty")  # kinds that have no pitch to shift


def rows(index: int, seed: int, shift: Shift) -> Arrays:
    """The frames of one specimen, with masks and heights of every pixel; where nothing is shifted, the training's."""
    return defects_data.fields_of(
        index,
        recipe=recipe_of(seed, shift),
        coat=_strange if shift.material else None,
        tail=shifted.tail if shift.charging else None,
    )


def recipe_of(seed: int, shift: Shift) -> Recipe:
    patterned = tuple(name for name in defects_data.KINDS if name not in UNPATTERNED)
    return Recipe(
        seed,
        kinds=patterned if shift.stretch else defects_data.KINDS,
        dose=0.5 if shift.half_dose else 1.0,
        stretch=STRETCH if shift.stretch else 1.0,
        maps=True,
    )


def _strange(seen: Specimen, rng: np.random.Generator) -> tuple[Surface, Surface]:
    """The field with its defects and without, under one coat that training has not."""
    coat = shifted.strange(seen.clean.height_m, rng)
    return _times(seen.field, coat.over(seen.field.height_m)), _times(seen.clean, coat.over(seen.clean.height_m))


def _times(surface: Surface, factor: shifted.Field | None) -> Surface:
    return replace(surface, material=times(surface.material, factor))
