"""Many rows in a few figures, each share with its n and its Wilson 95 % interval. Lengths in h_eff."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.evaluate.focus_grid import NEAR, STIGMATED_H
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_rows import Row, Said
from calibration.interval import wilson

WORSE_H = 0.25  # further from focus than that than if nobody had done anything
ONE_SIGMA, TWO_SIGMA = 1.0, 1.96  # of a Gaussian 68.3 and 95 %
MEDIAN_OF_SIGMA = 0.6745  # the median of the absolute value of a Gaussian
LINE_FOCUS = 0.35  # relative: |z| so near |a| is at a line focus


@dataclass(frozen=True)
class Share:
    """k of n, and where the true share lies in 95 of 100 such benches."""

    k: int
    n: int
    value: float | None  # None of nothing
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Spread:
    n: int
    median: float
    p90: float
    p95: float


@dataclass(frozen=True)
class Coverage:
    """How often the truth lay within the interval that came with an estimate. Estimates of one episode share frames,
    so the true uncertainty is somewhat wider than the intervals here."""

    within_68: Share
    within_95: Share


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a method did on a set of episodes. None: there was nothing to measure it on."""

    n: int
    converged: Share
    held: Share
    failed: Share
    within_h: Share  # of all, wherever they ended
    within_half_h: Share
    residual_h: Spread | None  # of all
    residual_converged_h: Spread | None
    astigmatism_h: Spread | None
    astigmatism_converged_h: Spread | None
    frames: Spread | None  # used as evidence by those that converged
    frame_times: Spread | None  # the specimen was scanned for, all ends
    electrons: Spread | None
    moves: int
    wrong_moves: Share  # of the episodes: those with a correction that went the wrong way
    worse: Share  # ended further away, by more than WORSE_H
    false_converged: Share  # of those that said they were in focus: |z| or |a| beyond h
    line_focus: Share  # of those: at a line focus
    defocus: Coverage
    astigmatism: Coverage
    last: Coverage  # of the last defocus of each episode
    over_floor: float | None  # the usual error of defocus over its Cramer-Rao bound; None: no method told its frames
    took_ms: "Times | None"
    reasons: dict[str, int]  # of those that did not converge


@dataclass(frozen=True)
class Times:
    """Processor time of one frame with evidence."""

    n: int
    p50: float
    p99: float
    most: float


@dataclass(frozen=True)
class Abstention:
    """Does it know when it does not know?

    Score: infinite where the method held or failed, else the sigma of its last estimate over h. Label: 1 where no
    answer could be right (a flat specimen), where the last answer was off by more than h, or where a sparse specimen
    did not end within h; 0 elsewhere, a textured specimen given up included, which counts against the method.
    """

    textured: Share  # held
    featureless: Share
    auroc: float | None  # chance that an episode of label 1 scores higher than one of label 0


def share(rows: Sequence[Row], test: Callable[[Row], bool]) -> Share:
    return counted(sum(map(test, rows)), len(rows))


def counted(k: int, n: int) -> Share:
    """With Wilson's interval."""
    if n == 0:
        return Share(0, 0, None, None, None)
    return Share(k, n, k / n, *wilson(k, n))


def spread(values: Iterable[float]) -> Spread | None:
    known = list(values)
    if not known:
        return None
    median, p90, p95 = (float(q) for q in np.percentile(known, (50.0, 90.0, 95.0)))
    return Spread(len(known), median, p90, p95)


def figures(rows: Sequence[Row]) -> Figures:
    """Of one method's episodes, all or some."""
    claimed = [row for row in rows if row.end is End.CONVERGED]
    said = [each for row in rows for each in row.said]
    return Figures(
        n=len(rows),
        converged=share(rows, lambda row: row.end is End.CONVERGED),
        held=share(rows, lambda row: row.end is End.HELD),
        failed=share(rows, lambda row: row.end is End.FAILED),
        within_h=share(rows, lambda row: abs(row.residual_h) <= 1.0),
        within_half_h=share(rows, lambda row: abs(row.residual_h) <= 0.5),
        residual_h=spread(abs(row.residual_h) for row in rows),
        residual_converged_h=spread(abs(row.residual_h) for row in claimed),
        astigmatism_h=spread(row.astigmatism_h for row in rows),
        astigmatism_converged_h=spread(row.astigmatism_h for row in claimed),
        frames=spread(row.frames for row in claimed),
        frame_times=spread(row.scans for row in rows),
        electrons=spread(row.electrons for row in rows),
        moves=sum(row.moves for row in rows),
        wrong_moves=share(rows, lambda row: row.wrong_moves > 0),
        worse=share(rows, lambda row: row.worse_h > WORSE_H),
        false_converged=share(claimed, falsely),
        line_focus=share(claimed, at_line_focus),
        defocus=_covered([each.off for each in said]),
        astigmatism=_covered([off for each in said for off in astigmatism_off(each)]),
        last=_covered([row.said[-1].off for row in rows if row.said]),
        over_floor=_over_floor(said),
        took_ms=_times([ms for row in rows for ms in row.took_ms]),
        reasons=_reasons(rows),
    )


def falsely(row: Row) -> bool:
    """It said that it was in focus, and was not."""
    return row.end is End.CONVERGED and (abs(row.residual_h) > 1.0 or row.astigmatism_h > 1.0)


def at_line_focus(row: Row) -> bool:
    """Where one axis is sharp and the other is not, though it might have been round."""
    return row.astigmatism_h > 0.5 and abs(abs(row.residual_h) - row.astigmatism_h) < LINE_FOCUS * row.astigmatism_h


def astigmatism_off(said: Said) -> tuple[float, ...]:
    """Both components, of their sigma."""
    told, true, sigma = said.astigmatism_h, said.true_astigmatism_h, said.sigma_astigmatism_h
    if told is None or true is None or not sigma:
        return ()
    return tuple((a - b) / sigma for a, b in zip(told, true, strict=True))


def _covered(off: Sequence[float]) -> Coverage:
    one, two = (sum(abs(each) <= limit for each in off) for limit in (ONE_SIGMA, TWO_SIGMA))
    return Coverage(counted(one, len(off)), counted(two, len(off)))


def _over_floor(said: Sequence[Said]) -> float | None:
    """The usual error over the least that Cramer and Rao allow; 1 for an estimator that has reached it."""
    ratios = [abs(each.defocus_h - each.true_h) / each.floor_h for each in said if each.floor_h]
    return float(np.median(ratios)) / MEDIAN_OF_SIGMA if ratios else None


def _times(ms: Sequence[float]) -> Times | None:
    if not ms:
        return None
    p50, p99 = (float(q) for q in np.percentile(ms, (50.0, 99.0)))
    return Times(len(ms), p50, p99, max(ms))


def _reasons(rows: Sequence[Row]) -> dict[str, int]:
    told = [row.reason for row in rows if row.end is not End.CONVERGED]
    return {
        reason: told.count(reason) for reason in sorted(set(told), key=lambda reason: (-told.count(reason), reason))
    }


# --- abstention ---


def abstention(rows: Sequence[Row]) -> Abstention:
    def held(row: Row) -> bool:
        return row.end is End.HELD

    bad = [score(row) for row in rows if unanswerable(row)]
    good = [score(row) for row in rows if not unanswerable(row)]
    return Abstention(
        textured=share([row for row in rows if row.textured], held),
        featureless=share([row for row in rows if not row.textured], held),
        auroc=auroc(bad, good),
    )


def score(row: Row) -> float:
    """How little the method trusts itself: see Abstention."""
    if row.end is not End.CONVERGED or not row.said:
        return math.inf
    return row.said[-1].sigma_h


def unanswerable(row: Row) -> bool:
    """Label 1: see Abstention."""
    if row.specimen == "flat":
        return True
    wrong = bool(row.said) and abs(row.said[-1].defocus_h - row.said[-1].true_h) > 1.0
    return wrong or (not row.textured and abs(row.residual_h) > 1.0)


def auroc(bad: Sequence[float], good: Sequence[float]) -> float | None:
    """Chance that one of `bad` is above one of `good`; ties count half. None where either is empty."""
    if not bad or not good:
        return None
    above = np.asarray(bad)[:, None]
    below = np.asarray(good)[None, :]
    return float(np.mean((above > below) + 0.5 * (above == below)))


# --- strata ---


def strata(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """By what, then by which: the textured episodes, each in one group of every kind."""
    textured = [row for row in rows if row.textured]
    return {
        "start": _grouped(sorted(textured, key=lambda row: row.stratum), lambda row: start_name(row.stratum)),
        "snr": _grouped(sorted(textured, key=lambda row: row.snr), lambda row: f"SNR {row.snr:g}"),
        "astigmatism": _grouped(
            sorted(textured, key=lambda row: row.start_astigmatism_h),
            lambda row: astigmatism_name(row.start_astigmatism_h),
        ),
        "pixel": _grouped(
            sorted(textured, key=lambda row: row.pixel_size_m),
            lambda row: "below 10 nm" if row.pixel_size_m < 10e-9 else "10 nm and more",
        ),
        "specimen": _grouped(sorted(rows, key=lambda row: (not row.textured, row.specimen)), lambda row: row.specimen),
    }


def start_name(stratum: int) -> str:
    return f"{NEAR[stratum]:g}-{NEAR[stratum + 1]:g} h"


def astigmatism_name(start_h: float) -> str:
    return f"up to {STIGMATED_H:g} h" if start_h <= STIGMATED_H else f"above {STIGMATED_H:g} h"


def _grouped(rows: Sequence[Row], name: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return groups
