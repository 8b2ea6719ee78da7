"""What a method said of one picture, find by find beside the truth. Matched once: a threshold only cuts the list.

A find takes the defect whose box, grown by a cell of the network, holds the find's centre: of several the one that it
overlaps most. What nobody can see is neither a capture nor a false alarm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from calibration.evaluate.defects_truth import Box, Case, TrueDefect
from calibration.train.defects_figures import hits
from engines.defects import overlap
from engines.readings import FoundDefect


class Fate(Enum):
    CAPTURED = "captured"
    AGAIN = "again"  # a second word on a defect that was found already
    ALLOWED = "allowed"  # on a defect that nobody can be asked to see
    FALSE = "false"


@dataclass(frozen=True)
class Said:
    """One find of a method, and what became of it."""

    name: str
    confidence: float  # that a defect is here
    sure: float  # that its name is right, as far as the method tells
    box_px: Box
    fate: Fate
    row: int | None = None  # of the case's truth, where captured
    undecided: bool = False  # a pit or a particle, and nothing in the picture tells which


@dataclass(frozen=True)
class Outcome:
    """One method on one picture, the most confident first."""

    case: Case
    said: tuple[Said, ...]

    def above(self, threshold: float) -> tuple[Said, ...]:
        return tuple(each for each in self.said if each.confidence >= threshold)

    def captured(self, threshold: float) -> dict[int, Said]:
        """By row of the truth."""
        return {each.row: each for each in self.above(threshold) if each.row is not None}

    def false(self, threshold: float) -> int:
        return sum(each.fate is Fate.FALSE for each in self.above(threshold))


@dataclass(frozen=True)
class Found(FoundDefect):
    """A find as a method gives it."""

    sure: float = 1.0  # that its name is right
    undecided: bool = False


def outcome(case: Case, found: Sequence[Found]) -> Outcome:
    """found: in any order."""
    taken: set[int] = set()
    told = []
    for find in sorted(_inside(case, found), key=lambda each: -each.confidence):
        fate, row = _fate(case.truth, find, taken)
        if row is not None:
            taken.add(row)
        told.append(Said(find.name, find.confidence, find.sure, find.box_px, fate, row, find.undecided))
    return Outcome(case, tuple(told))


def _fate(truth: Sequence[TrueDefect], find: Found, taken: set[int]) -> tuple[Fate, int | None]:
    hit = [row for row, each in enumerate(truth) if hits(find, each.box_px)]
    free = [row for row in hit if truth[row].visible and row not in taken]
    if free:
        return Fate.CAPTURED, max(free, key=lambda row: overlap(find.box_px, truth[row].box_px))
    if any(row in taken for row in hit):
        return Fate.AGAIN, None
    return (Fate.ALLOWED if hit else Fate.FALSE), None


def _inside(case: Case, found: Sequence[Found]) -> list[Found]:
    """Centred in the picture, and not on its border where nothing is looked at."""
    height, width = case.shape
    edge = case.border_px
    kept = []
    for each in found:
        x, y = (each.box_px[0] + each.box_px[2]) / 2, (each.box_px[1] + each.box_px[3]) / 2
        if edge <= x < width - edge and edge <= y < height - edge:
            kept.append(each)
    return kept
