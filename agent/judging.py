"""The cascade's word on what the detector found: defects as perception tells them and the judgements of their finds in,
the same defects with paths and levels out; what is no defect is left out. Pure.
"""

from collections.abc import Sequence

import msgspec

from agent.messages import Defect, Level
from engines.cascade import Judged

NOT_DEFECT, UNKNOWN, OTHER = "not_defect", "unknown", "other"


def judged(defects: Sequence[Defect], said: Sequence[Judged]) -> tuple[Defect, ...]:
    """One judgement for each, in their order."""
    return tuple(told(d, j) for d, j in zip(defects, said, strict=True) if j.name != NOT_DEFECT)


def told(defect: Defect, said: Judged) -> Defect:
    """On the wire an unknown is of class `other`: the list of classes is closed, the path says more."""
    levels = tuple(Level(level=e.level, said=e.said, probability=e.probability) for e in said.levels)
    name = OTHER if said.name == UNKNOWN else said.name
    return msgspec.structs.replace(defect, name=name, path=said.path, levels=levels, size_m=said.size_m)
