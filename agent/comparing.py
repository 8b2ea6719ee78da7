"""What a picture is compared with: the picture and where its reference comes from in, the reference or its absence out.

Of the whole picture, before it is padded for the models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.messages import ReferenceKind, ReferenceSource
from engines import reference
from engines.scene import STRIDE_PX


@dataclass(frozen=True)
class Compared:
    """Both None: nobody counts on a reference, and there is none."""

    reference: NDArray[np.uint8] | None = None  # (h, w) as the picture, in its grey levels
    missing: str | None = None  # why one that was counted on is not there
    pitch_px: float | None = None  # by which the picture repeats


def compared(levels: NDArray[np.uint8], source: ReferenceSource) -> Compared:
    """levels (h, w): all of the picture that shows the specimen."""
    if source.kind is ReferenceKind.NONE:
        return Compared()
    if min(levels.shape) < STRIDE_PX:
        return Compared(missing=_too_small(levels.shape) if source.expected else None)
    if source.kind is ReferenceKind.SELF:
        return _with_itself(levels, expected=source.expected)
    if source.pixels is None:
        return Compared(missing=f"the {source.kind} reference was not loaded: mend the recipe")
    try:
        return Compared(reference.golden_reference(levels, source.pixels))
    except reference.GoldenError as error:
        return Compared(missing=str(error))


def _too_small(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels are too few to compare: {STRIDE_PX} a side at least"


def _with_itself(levels: NDArray[np.uint8], *, expected: bool) -> Compared:
    found = reference.repetition(levels)
    if found is None:
        return Compared(missing=NOTHING_REPEATS if expected else None)
    return Compared(reference.median_of_copies(levels, found), pitch_px=found.period_px)


NOTHING_REPEATS = "nothing in the picture repeats clearly: give a golden frame, or compare with none"
