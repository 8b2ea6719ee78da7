"""The cascade's word on what the detector found: defects as perception tells them in, the same with paths and levels
out; what is no defect is left out. Pure but for the graph that is asked.
"""

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.messages import Defect, Level
from engines.cascade import Beside, Judged, Sizes
from engines.readings import FoundDefect

NOT_DEFECT, UNKNOWN, OTHER = "not_defect", "unknown", "other"


class CascadeModel(Protocol):
    """engines.cascade.Cascade, or a stand-in of the same signature."""

    name: str

    def judge(
        self, image: NDArray[np.uint8], found: tuple[FoundDefect, ...], *, beside: Beside, sizes: Sizes | None
    ) -> tuple[Judged, ...]: ...


def judged(
    cascade: CascadeModel,
    defects: tuple[Defect, ...],
    image: NDArray[np.uint8],
    *,
    beside: Beside,
    sizes: Sizes | None = None,
) -> tuple[Defect, ...]:
    """image (h, w) uint8: the picture that was inspected, unpadded; boxes are in its pixels. Raises InferenceError."""
    found = tuple(FoundDefect(each.name, each.confidence, each.box_px) for each in defects)
    said = cascade.judge(image, found, beside=beside, sizes=sizes)
    return tuple(told(d, j) for d, j in zip(defects, said, strict=True) if j.name != NOT_DEFECT)


def told(defect: Defect, said: Judged) -> Defect:
    """On the wire an unknown is of class `other`: the list of classes is closed, the path says more."""
    levels = tuple(Level(level=e.level, said=e.said, probability=e.probability) for e in said.levels)
    name = OTHER if said.name == UNKNOWN else said.name
    return msgspec.structs.replace(defect, name=name, path=said.path, levels=levels, size_m=said.size_m)
