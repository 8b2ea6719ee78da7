"""Every method on every picture of a set, one picture in memory at a time; then the figures, split by split."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.defects_account import Curve, CurveSpot, KindRow, MethodRow, SetRow, SplitRow, Strict
from calibration.evaluate.defects_leaves import naming
from calibration.evaluate.defects_methods import NO_CLASSES, Method, views
from calibration.evaluate.defects_outcome import Fate, Outcome, Said, outcome
from calibration.evaluate.defects_points import (
    EVERY,
    OWN,
    RATES,
    Halves,
    Point,
    capture,
    false_alarms,
    halved,
    own_points,
    package_points,
)
from calibration.evaluate.defects_precision import mean_precision
from calibration.evaluate.defects_truth import Case, PictureSet, SetError, Split
from calibration.train.defects_figures import LEAST

MOST_SPOTS = 200  # of a curve


@dataclass(frozen=True)
class Ran:
    """A set with what each method said of it. by_method: only those that had a word on some picture."""

    of: PictureSet
    cases: tuple[Case, ...]
    by_method: dict[str, tuple[Outcome, ...]]
    notes: dict[str, str]
    thresholds: dict[str, dict[float, float]]

    def halves(self, method: str) -> Halves:
        return halved(self.by_method[method], self.of.splits)


def run(of: PictureSet, methods: Sequence[Method], done: Callable[[], None] = lambda: None) -> Ran:
    """Raises SetError where a picture or its labels cannot be used, or no picture is there."""
    cases: list[Case] = []
    told: dict[str, list[Outcome]] = {each.name: [] for each in methods}
    keys: set[str] = set()
    for picture in of.read():
        if picture.case.key in keys:
            raise SetError(f"{of.folder}: {picture.case.key} is there twice")
        keys.add(picture.case.key)
        cases.append(picture.case)
        seen = views(picture)
        for each in methods:
            found = each.find(seen)
            if found is not None:
                told[each.name].append(outcome(picture.case, found))
        done()
    if not cases:
        raise SetError(f"{of.folder}: no picture in it")
    heard = {name: tuple(rows) for name, rows in told.items() if rows}
    return Ran(
        of=of,
        cases=tuple(cases),
        by_method=heard,
        notes={each.name: each.note for each in methods},
        thresholds={each.name: each.thresholds for each in methods},
    )


def set_row(ran: Ran, notes: tuple[str, ...] = ()) -> SetRow:
    """All figures of one set. notes: what else people should know of it."""
    first = next(iter(ran.by_method))
    tuning = ran.halves(first).tuning
    splits = [_split_row(ran, split) for split in ran.of.splits if not split.tunes]
    return SetRow(
        folder=str(ran.of.folder),
        kind=ran.of.kind,
        tuning_pictures=len(tuning),
        tuning_frames=sum(each.case.frames for each in tuning),
        splits=tuple(splits),
        curves=tuple(
            _curve(ran, split.name, method) for split in ran.of.splits if not split.tunes for method in ran.by_method
        ),
        notes=(*ran.of.notes, *notes),
    )


def _split_row(ran: Ran, split: Split) -> SplitRow:
    cases = [each for each in ran.cases if each.split == split.name]
    defects = [defect for each in cases for defect in each.truth]
    clean = [each for each in cases if each.clean]
    return SplitRow(
        name=split.name,
        purpose=split.purpose,
        pictures=len(cases),
        frames=sum(each.frames for each in cases),
        clean_pictures=len(clean),
        clean_frames=sum(each.frames for each in clean),
        specimens=len({each.specimen for each in cases}),
        defects=len(defects),
        visible=sum(each.visible for each in defects),
        must_be_found=sum(each.must_be_found for each in defects),
        methods=tuple(_method_row(ran, split.name, method) for method in ran.by_method),
    )


def _method_row(ran: Ran, split: str, method: str) -> MethodRow:
    halves, thresholds = ran.halves(method), ran.thresholds[method]
    here = halves.of(split)
    points = (*own_points(halves, split), *package_points(halves, split, thresholds))
    at = working_point(points)
    named = method not in NO_CLASSES
    return MethodRow(
        name=method,
        note=ran.notes[method],
        pictures=len(here),
        points=points,
        at=at,
        precision=mean_precision(here) if named and here else None,
        naming=None if at is None or at.threshold is None else naming(here, at.threshold, named=named),
        strict=_strict(halves, points),
        kinds=() if at is None or at.threshold is None else _kinds(here, at.threshold),
    )


def _kinds(here: Sequence[Outcome], least: float) -> tuple[KindRow, ...]:
    """By family of layout, where families are told."""
    rows = []
    for kind in sorted({each.case.kind for each in here if each.case.kind}):
        some = [each for each in here if each.case.kind == kind]
        clean = [each for each in some if each.case.clean]
        captured = capture(some, least, must=True)
        rows.append(KindRow(kind, some[0].case.layout, captured, false_alarms(clean, least)))
    return tuple(rows)


def working_point(points: Sequence[Point]) -> Point | None:
    """0.1 false alarms a frame by the set's own clean layouts, else by the package's word, else none at all."""
    fixed = [each for each in points if each.threshold is not None and each.by != EVERY]
    ranked = sorted(fixed, key=lambda each: (each.rate != RATES[0], each.rate, each.by != OWN))
    return ranked[0] if ranked else None


def _strict(halves: Halves, points: Sequence[Point]) -> Strict | None:
    """At the threshold for the rarest false alarms, on the clean frames of all splits."""
    known = [each for each in points if each.rate > 0.0 and each.by != EVERY]
    fixed = [(each, each.threshold) for each in known if each.threshold is not None]
    clean = [each for each in halves.rest if each.case.clean and each.case.layout]
    if not fixed or not clean:
        return None
    point, least = min(fixed, key=lambda each: (each[0].rate, -each[1]))
    return Strict(point.rate, point.by, least, false_alarms(clean, least))


def _curve(ran: Ran, split: str, method: str) -> Curve:
    """All thresholds at which something changes, thinned for the eye."""
    here = ran.halves(method).of(split)
    clean = [each for each in here if each.case.clean and each.case.layout]
    counted = clean or list(here)
    there = sum(each.case.visible for each in here)
    frames = sum(each.case.frames for each in counted)
    false = _sorted(said for each in counted for said in each.said if said.fate is Fate.FALSE)
    hit = _sorted(said for each in here for said in each.said if said.fate is Fate.CAPTURED)
    steps = np.unique(np.concatenate([false, hit, [LEAST]]))[::-1]
    spots = [
        CurveSpot(float(least), _passing(false, least) / frames, _passing(hit, least) / max(there, 1))
        for least in steps[:: max(1, len(steps) // MOST_SPOTS)]
        if frames
    ]
    return Curve(split, method, bool(clean), tuple(spots))


def _sorted(said: Iterable[Said]) -> NDArray[np.float64]:
    return np.sort(np.array([each.confidence for each in said], np.float64))


def _passing(confidences: NDArray[np.float64], least: float) -> int:
    return len(confidences) - int(np.searchsorted(confidences, least))
