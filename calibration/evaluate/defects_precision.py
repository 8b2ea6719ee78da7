"""Mean average precision at an intersection over union of one half, all-point interpolation, by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.defects_outcome import Outcome, Said
from calibration.evaluate.defects_share import interval
from engines.defects import overlap

LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class ClassPrecision:
    name: str
    n: int
    value: float


@dataclass(frozen=True)
class Precision:
    """Mean over the classes that are there; 95 % by specimen."""

    value: float
    low: float
    high: float
    any_class: float  # where names do not count
    classes: tuple[ClassPrecision, ...]


@dataclass(frozen=True)
class Ranked:
    """The finds of one class, the most confident first, and where the truth lies."""

    right: NDArray[np.bool_]  # (k,)
    specimen: NDArray[np.int64]  # (k,)
    there: NDArray[np.float64]  # (specimens,) defects of the class in each


def average_precision(right: NDArray[np.bool_], weights: NDArray[np.float64], there: float) -> float:
    """Area below precision over recall, each precision raised to the best that follows it.

    right (k,): in order of falling confidence; weights (k,): how often each counts; there: defects to be found.
    """
    true, all_said = np.cumsum(right * weights), np.cumsum(weights)
    precision = true / np.maximum(all_said, 1e-12)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(envelope * right * weights) / there) if there > 0.0 else 0.0


def mean_precision(outcomes: Sequence[Outcome]) -> Precision | None:
    """None where nothing is there to be found."""
    names = sorted({d.name for each in outcomes for d in each.case.truth if d.visible})
    if not names:
        return None
    specimens = {name: i for i, name in enumerate(sorted({each.case.specimen for each in outcomes}))}
    ranked = {name: _ranked(outcomes, name, specimens) for name in names}
    even = np.ones(len(specimens))
    low, high = interval(lambda weights: _mean(list(ranked.values()), weights), len(specimens))
    classes = tuple(ClassPrecision(name, int(each.there.sum()), _of(each, even)) for name, each in ranked.items())
    whole = _of(_ranked(outcomes, None, specimens), even)
    return Precision(_mean(list(ranked.values()), even), low, high, whole, classes)


def _mean(ranked: Sequence[Ranked], weights: NDArray[np.float64]) -> float:
    """Of the classes that a draw has."""
    drawn = [each for each in ranked if float(weights @ each.there) > 0.0]
    return float(np.mean([_of(each, weights) for each in drawn])) if drawn else 0.0


def _of(each: Ranked, weights: NDArray[np.float64]) -> float:
    return average_precision(each.right, weights[each.specimen], float(weights @ each.there))


def _ranked(outcomes: Sequence[Outcome], name: str | None, specimens: dict[str, int]) -> Ranked:
    """name: None for all classes as one."""
    rows: list[tuple[float, bool, int]] = []
    there = np.zeros(len(specimens))
    for each in outcomes:
        place = specimens[each.case.specimen]
        asked = [row for row, d in enumerate(each.case.truth) if d.visible and name in (None, d.name)]
        there[place] += len(asked)
        rows += [(find.confidence, right, place) for find, right in _judged(each, name, asked)]
    rows.sort(key=lambda row: -row[0])
    right = np.array([row[1] for row in rows], np.bool_)
    return Ranked(right, np.array([row[2] for row in rows], np.int64), there)


def _judged(each: Outcome, name: str | None, asked: Sequence[int]) -> list[tuple[Said, bool]]:
    """The finds of a class: right where one overlaps a defect of it that is free; on what nobody can see, no find."""
    free, judged = set(asked), []
    unseen = [d.box_px for d in each.case.truth if not d.visible]
    for find in each.said:
        if name is not None and find.name != name:
            continue
        best = max(free, key=lambda row: overlap(find.box_px, each.case.truth[row].box_px), default=None)
        if best is not None and overlap(find.box_px, each.case.truth[best].box_px) >= LEAST_OVERLAP:
            free.discard(best)
            judged.append((find, True))
        elif not any(overlap(find.box_px, box) >= LEAST_OVERLAP for box in unseen):
            judged.append((find, False))
    return judged
