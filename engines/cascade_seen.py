"""All that the cascade measures of candidates before its graph is asked; serving and training call it alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.cascade_contrast import contrasts
from engines.cascade_crops import Box, windows
from engines.cascade_features import Fact, Surroundings, features, height_at
from engines.readings import FoundDefect, Relief
from engines.scene import Levels, Scene, condition, levels_of
from engines.texture import texture


@dataclass(frozen=True)
class Beside:
    """What is known of a picture beside its pixels; None where nothing is."""

    reference: NDArray[np.uint8] | None = None  # (h, w) what it would be without defects, in its own grey levels
    relief: Relief | None = None
    scene: Scene = Scene()  # noqa: RUF009 - frozen
    pitch_px: float | None = None
    fractions: NDArray[np.float32] | None = None  # (n, elements) 0..1 of each candidate; a row of NaN: not known
    levels: Levels | None = None  # of the whole picture, where what is judged is a tile of it


@dataclass(frozen=True)
class Seen:
    """n candidates of one picture."""

    planes: NDArray[np.uint8]  # (n, PLANES, SIDE_PX, SIDE_PX)
    features: NDArray[np.float32]  # (n, FEATURES)
    facts: tuple[Fact, ...]


def seen(
    image: NDArray[np.uint8], boxes: Sequence[Box], beside: Beside, *, words: Sequence[FoundDefect | None] = ()
) -> Seen:
    """image (h, w). words: of the detector, one for each box, or none at all.

    A reference that is the picture itself is none. Raises ValueError for one of another shape.
    """
    reference = beside.reference
    if reference is not None and reference.shape == image.shape and np.array_equal(reference, image):
        reference = None
    cut, levels = windows(image, boxes, reference), beside.levels or levels_of(image)
    facts = tuple(
        Fact(
            box_px=box,
            contrast=contrast,
            height=None if beside.relief is None else height_at(box, beside.relief),
            fractions=_fractions(beside.fractions, number),
            word=words[number] if words else None,
        )
        for number, (box, contrast) in enumerate(zip(boxes, contrasts(cut), strict=True))
    )
    around = Surroundings(condition(levels, beside.scene), beside.pitch_px, cut.compared)
    return Seen(cut.planes(), features(facts, texture(cut.crops, levels), around), facts)


def _fractions(told: NDArray[np.float32] | None, number: int) -> NDArray[np.float32] | None:
    return None if told is None or not np.isfinite(told[number]).all() else told[number]
