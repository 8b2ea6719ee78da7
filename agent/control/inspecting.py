"""One frame's finds and its recipe in, what is told of them out: the defects, what was left out, crops. Pure.

A frame that names no recipe, or one that is not known here, is told as the model read it.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control import fractions, nuisances
from agent.control.recipe import Recipe
from agent.control.recipe_rules import Pixel, outside, sift, sized
from agent.messages import Box, Defect, Findings, Frame, Inspected, Lane, Shown, Wanted

CROPS = 16  # a frame at most: of hundreds of defects the surest show what they are
CROP_PX = (48, 256)  # sides at least and at most
LOOKED = 32  # finds of a frame that are looked at again, the surest first: 50 ms, and more than any scan's own
CONTEXT = 1.0  # of a box's longer side, on every side of it: what a defect is shows in what is around it
NO_RECIPE = Recipe(name="")

Crop = NDArray[np.uint8]


@dataclass(frozen=True)
class Told:
    """What a frame's `defects` message and row say."""

    defects: tuple[Defect, ...] | None  # None: not looked for
    inspected: Inspected | None


def asked(wanted: Wanted, frame: Frame, recipe: Recipe, *, own_threshold: float) -> Wanted:
    """What a recipe wants of perception beside what is wanted anyway. own_threshold: of the defect model."""
    return msgspec.structs.replace(
        wanted,
        reference=recipe.reference,
        threshold=recipe.asked(own_threshold),
        sizes_m=recipe.rules.sizes.bounds_m,
        nuisances=recipe.rules.nuisance.any,
        places=fractions.of_frame(recipe.fractions, frame.number, frame.optics.session),
    )


def told(frame: Frame, findings: Findings, recipe: Recipe | None, *, own_threshold: float) -> Told:
    """own_threshold: of the defect model, for a recipe that names none."""
    if findings.defects is None:
        return Told(None, None)
    optics, shown = frame.optics, findings.shown
    pixel = Pixel(optics.pixel_size_m, optics.pixel_size_y_m)
    kept, dropped = tuple(sized(each, NO_RECIPE, pixel) for each in findings.defects), dict[str, int]()
    if recipe is not None:
        look = Look(shown, recipe)
        sifted = sift(findings.defects, recipe, pixel=pixel, own_threshold=own_threshold, nuisance=look.reason)
        kept, dropped = sifted.kept, sifted.dropped
    cut = shown is not None and frame.lane is Lane.INSPECT
    return Told(
        kept,
        Inspected(
            recipe=None if recipe is None else recipe.name,
            dropped=dropped,
            shape_px=None if shown is None else (shown.image.shape[0], shown.image.shape[1]),
            pixel_size_m=optics.pixel_size_m,
            lot=optics.lot,
            wafer=optics.wafer,
            die_x=optics.die_x,
            die_y=optics.die_y,
            crops=tuple(crop(shown.image, each.box_px) for each in kept[:CROPS]) if cut and shown is not None else (),
        ),
    )


class Look:
    """Looks at the pixels of a frame when the first find asks for it: most frames have none."""

    def __init__(self, shown: Shown | None, recipe: Recipe) -> None:
        self._shown, self._rules = shown, recipe.rules.nuisance
        self._looked: nuisances.Looked | None = None
        self._left = LOOKED

    def reason(self, find: Defect) -> str | None:
        if self._shown is None or not self._rules.any or not self._left:
            return None
        self._left -= 1
        if self._looked is None:
            self._looked = nuisances.looked(self._shown.image, self._shown.reference)
        return nuisances.reason(self._looked, find.box_px, self._rules)


def crop(image: Crop, box: Box) -> Crop:
    """A copy of a square around the box, within the picture: a view would keep the whole frame alive."""
    side = max(box[2] - box[0], box[3] - box[1])
    half = 0.5 * min(max((1.0 + 2.0 * CONTEXT) * side, CROP_PX[0]), CROP_PX[1])
    rows = _within(0.5 * (box[1] + box[3]), half, image.shape[0])
    columns = _within(0.5 * (box[0] + box[2]), half, image.shape[1])
    return image[rows, columns].copy()


def _within(middle: float, half: float, size: int) -> slice:
    """As long as was asked for where the picture is, moved in from its edge."""
    length = min(round(2.0 * half), size)
    start = min(max(round(middle - half), 0), size - length)
    return slice(start, start + length)


def misfit(recipe: Recipe, frame: Frame, findings: Findings) -> str:
    """Why the recipe cannot be followed on this very frame as it is written, or an empty text."""
    if findings.shown is not None:
        shape = findings.shown.image.shape
        for region in outside(recipe.rules.regions, shape):
            where = f"its region {list(region.box_px)} reaches out of the frame of {shape[1]}x{shape[0]} pixels"
            return f"recipe {recipe.name}: {where}: mend regions"
        lost = fractions.lost(fractions.of_frame(recipe.fractions, frame.number, frame.optics.session), shape)
        if lost:
            return f"recipe {recipe.name}: fractions: {lost}"
    return f"recipe {recipe.name}: {recipe.doubt}" if recipe.doubt else ""
