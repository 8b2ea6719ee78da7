"""Capture at a rate of false alarms: the threshold from clean frames for tuning, the rate counted on other frames."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from calibration.evaluate.defects_outcome import Fate, Outcome
from calibration.evaluate.defects_share import AFrame, Share, a_frame, share
from calibration.evaluate.defects_truth import Split
from calibration.train.defects_figures import LEAST

RATES = (0.1, 0.01, 0.001)  # false alarms a frame of 512 x 512
VOUCHED = 3.0  # so many times 1 / rate frames without one tell with 95 % that the rate is held
OWN = "clean layouts of the set"
EVERY = "clean pictures of the set, with and without a layout"
PACKAGE = "the package"


@dataclass(frozen=True)
class Point:
    """One threshold and what it gives."""

    rate: float  # false alarms a frame that were asked for
    by: str  # where the threshold comes from
    threshold: float | None  # None: too few clean frames to fix one
    tuned_frames: float  # clean, of 512 x 512, that it was fixed on
    needed_frames: float  # so many would fix it
    captured: Share | None  # of all defects that can be seen
    must: Share | None  # of those that are large and clear enough to be asked for
    false_alarms: AFrame | None  # in clean frames of the same sort that fixed nothing
    false_alarms_elsewhere: AFrame | None  # in frames with defects, away from them


@dataclass(frozen=True)
class Halves:
    """A method's outcomes on one set, for tuning and for counting."""

    tuning: tuple[Outcome, ...]  # clean frames, and nothing else is done with them
    rest: tuple[Outcome, ...]

    def of(self, split: str) -> tuple[Outcome, ...]:
        return tuple(each for each in self.rest if each.case.split == split)


def halved(outcomes: Sequence[Outcome], splits: Sequence[Split]) -> Halves:
    """Clean frames of the splits for tuning; where there is no such split every second clean specimen of the first."""
    tuning = {split.name for split in splits if split.tunes}
    if tuning:
        chosen = {id(each) for each in outcomes if each.case.split in tuning and each.case.clean}
    else:
        chosen = _every_second(outcomes, splits[0].name)
    return Halves(
        tuple(each for each in outcomes if id(each) in chosen),
        tuple(each for each in outcomes if id(each) not in chosen),
    )


def _every_second(outcomes: Sequence[Outcome], split: str) -> set[int]:
    first = [each for each in outcomes if each.case.split == split and each.case.clean]
    specimens = list(dict.fromkeys(each.case.specimen for each in first))
    chosen = set(specimens[::2])
    return {id(each) for each in first if each.case.specimen in chosen}


def threshold(clean: Sequence[Outcome], rate: float) -> float | None:
    """The least confidence that clean frames exceed `rate` times a frame; None where they are too few to tell."""
    allowed = int(rate * sum(each.case.frames for each in clean) + 1e-9)
    return cut(clean, allowed) if allowed or rate == 0.0 else None


def cut(clean: Sequence[Outcome], allowed: int) -> float:
    said = sorted((find.confidence for each in clean for find in each.said if find.fate is Fate.FALSE), reverse=True)
    return max(math.nextafter(said[allowed], math.inf), LEAST) if len(said) > allowed else LEAST


def needed(rate: float) -> float:
    return 1.0 / rate


def own_points(halves: Halves, split: str) -> tuple[Point, ...]:
    """By the set's own clean layouts; and by all of its clean pictures, where some show no layout."""
    layouts = tuple(each for each in halves.tuning if each.case.layout)
    rows = _points(layouts, halves.of(split), OWN)
    if len(layouts) < len(halves.tuning):
        rows += _points(halves.tuning, halves.of(split), EVERY)
    return tuple(rows)


def _points(clean: Sequence[Outcome], counted: Sequence[Outcome], by: str) -> list[Point]:
    """At each rate; and at none at all (rate 0), which any number of frames can fix."""
    frames = sum(each.case.frames for each in clean)
    rows = [_point(counted, threshold(clean, rate), rate=rate, by=by, frames=frames) for rate in RATES]
    if clean:
        rows.append(_point(counted, cut(clean, 0), rate=0.0, by=by, frames=frames))
    return rows


def package_points(halves: Halves, split: str, thresholds: dict[float, float]) -> tuple[Point, ...]:
    """thresholds: by rate, as the package's manifest has them."""
    return tuple(
        _point(halves.of(split), least, rate=rate, by=PACKAGE, frames=0.0) for rate, least in thresholds.items()
    )


def _point(outcomes: Sequence[Outcome], least: float | None, *, rate: float, by: str, frames: float) -> Point:
    wanted = needed(rate) if rate else 0.0
    if least is None:
        return Point(rate, by, None, frames, wanted, None, None, None, None)
    return Point(
        rate=rate,
        by=by,
        threshold=least,
        tuned_frames=frames,
        needed_frames=wanted,
        captured=capture(outcomes, least),
        must=capture(outcomes, least, must=True),
        false_alarms=false_alarms([each for each in outcomes if _counts(each, by)], least),
        false_alarms_elsewhere=false_alarms([each for each in outcomes if not each.case.clean], least),
    )


def _counts(each: Outcome, by: str) -> bool:
    """Is it a clean frame as those that fixed the threshold?"""
    return each.case.clean and (each.case.layout or by == EVERY)


def capture(outcomes: Sequence[Outcome], least: float, *, must: bool = False) -> Share:
    """must: of the defects that have to be found; else of all that can be seen."""
    rows = []
    for each in outcomes:
        hit = each.captured(least)
        asked = [row for row, d in enumerate(each.case.truth) if (d.must_be_found if must else d.visible)]
        rows += [(each.case.specimen, row in hit) for row in asked]
    return share(rows)


def false_alarms(outcomes: Sequence[Outcome], least: float) -> AFrame:
    return a_frame(sum(each.false(least) for each in outcomes), sum(each.case.frames for each in outcomes))
