"""What was asked of the focus loop, beside what was measured: one line a target, met or by how much not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.evaluate.focus_figures import Coverage, Share, Spread, at_line_focus, falsely, figures, share, spread
from calibration.evaluate.focus_grid import STIGMATED_H
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_rows import Row

ENOUGH_SNR = 1.3
RESIDUAL_H = {True: (0.10, 0.5), False: (0.25, 1.0)}  # median and p95, from ENOUGH_SNR on and below
FRAMES = (3, 5, 7, 7)  # to focus, verify included, by stratum of start defocus: within 12, 30 and 100 h
WITHIN_FRAMES = ((3, (0, 1), "12 h"), (5, (0, 1, 2), "30 h"), (7, (0, 1, 2, 3), "100 h or 2 % of the working distance"))
IN_FRAMES = 0.95
WORSE, FALSE, LOCKED = 0.005, 0.01, 0.01
COVER_68, COVER_95 = (0.65, 0.71), (0.93, 0.97)
ROUND_H, ROUND_FRAMES = 0.3, 6
OVER_FLOOR = 1.5
STEP_MS = 300.0


@dataclass(frozen=True)
class Target:
    """`by`: how much it misses, or how much room it leaves. met: None where nothing was measured."""

    name: str
    asked: str
    measured: str
    met: bool | None
    by: str
    n: int
    note: str = ""


def targets(rows: Sequence[Row]) -> tuple[Target, ...]:
    """Of one method's episodes. Residuals of all textured ones count, also of those it gave up."""
    textured = [row for row in rows if row.textured]
    bare = [row for row in rows if not row.textured]
    bright = [row for row in textured if row.snr >= ENOUGH_SNR]
    dim = [row for row in textured if row.snr < ENOUGH_SNR]
    claimed = [row for row in rows if row.end is End.CONVERGED]
    return (
        *_residuals(f"SNR {ENOUGH_SNR:g} and above", bright, enough=True),
        *_residuals("SNR 0.64", dim, enough=False),
        *_frames(bright),
        _most("ends worse, textured", share(textured, lambda row: row.worse_h > 0.25), WORSE, "by more than 0.25 h"),
        _most("ends worse, flat and sparse", share(bare, lambda row: row.worse_h > 0.25), 0.0, "by more than 0.25 h"),
        _most("false converged", share(claimed, falsely), FALSE, "of those that say converged: |z| or |a| above h"),
        *_coverage("defocus", figures(rows).defocus),
        *_coverage("astigmatism", figures(rows).astigmatism),
        *_astigmatism(bright),
        _floor(rows),
        _time(rows),
    )


# --- each kind ---


def _residuals(which: str, rows: Sequence[Row], *, enough: bool) -> list[Target]:
    median_h, p95_h = RESIDUAL_H[enough]
    # What the lens has left of its play is no estimator's fault.
    play_h = float(np.median([row.hysteresis_h / 2.0 for row in rows])) if rows and enough else 0.0
    told = [("all textured", rows), ("of the converged", [row for row in rows if row.end is End.CONVERGED])]
    made = []
    for name, some in told:
        known = spread(abs(row.residual_h) for row in some)
        made.append(_below(f"residual, median, {which}, {name}", _median(known), max(median_h, play_h), len(some)))
        made.append(_below(f"residual, p95, {which}, {name}", None if known is None else known.p95, p95_h, len(some)))
    return made


def _median(known: Spread | None) -> float | None:
    return None if known is None else known.median


def _below(name: str, value: float | None, limit: float, n: int) -> Target:
    asked = f"<= {limit:.2f} h"
    if value is None:
        return Target(name, asked, "", None, "", n)
    return Target(name, asked, f"{value:.2f} h", value <= limit, f"{abs(value - limit):.2f} h", n)


def _frames(rows: Sequence[Row]) -> list[Target]:
    made = []
    for most, within, name in WITHIN_FRAMES:
        far = [row for row in rows if row.stratum in within]
        stigmated = [row for row in far if row.start_astigmatism_h <= STIGMATED_H]
        for some, which in ((far, ""), (stigmated, f", astigmatism up to {STIGMATED_H:g} h")):
            kept = share(some, lambda row, most=most: in_focus(row) and row.frames <= most)  # type: ignore[misc]
            made.append(_least(f"in focus in {most} frames from {name}{which}", kept, IN_FRAMES))
    return made


def in_focus(row: Row) -> bool:
    return row.end is End.CONVERGED and not falsely(row)


def _astigmatism(rows: Sequence[Row]) -> list[Target]:
    """Of columns that are not stigmated to begin with."""
    skew = [row for row in rows if row.start_astigmatism_h > STIGMATED_H]
    kept = share(skew, lambda row: row.astigmatism_h <= ROUND_H and row.frames <= ROUND_FRAMES)
    known = spread(row.astigmatism_h for row in skew)
    ended = [row for row in skew if row.end is End.CONVERGED]
    return [
        _below("astigmatism left, median, from 0.5-3 h", _median(known), ROUND_H, len(skew)),
        _least(f"astigmatism within {ROUND_H:g} h in {ROUND_FRAMES} frames", kept, IN_FRAMES),
        _most("at a line focus", share(ended, at_line_focus), LOCKED, "of those that say converged"),
    ]


def _coverage(what: str, known: Coverage) -> list[Target]:
    return [
        _between(f"68 % intervals of {what}", known.within_68, COVER_68),
        _between(f"95 % intervals of {what}", known.within_95, COVER_95),
    ]


def _floor(rows: Sequence[Row]) -> Target:
    """Of all that was told; a lens with play stands where nobody knows, and that is in the error."""
    value, n = figures(rows).over_floor, sum(each.floor_h is not None for row in rows for each in row.said)
    name, asked = "usual error of defocus over its Cramer-Rao bound", f"<= {OVER_FLOOR:g}"
    if value is None:
        return Target(name, asked, "", None, "", n)
    return Target(name, asked, f"{value:.2f}", value <= OVER_FLOOR, f"{abs(value - OVER_FLOOR):.2f}", n)


def _time(rows: Sequence[Row]) -> Target:
    known = figures(rows).took_ms
    name, asked = "frame to suggestion, p99", f"<= {STEP_MS:g} ms"
    if known is None:
        return Target(name, asked, "", None, "", 0)
    note = f"processor time; p50 {known.p50:.0f} ms, longest {known.most:.0f} ms"
    return Target(
        name, asked, f"{known.p99:.0f} ms", known.p99 <= STEP_MS, f"{abs(known.p99 - STEP_MS):.0f} ms", known.n, note
    )


# --- shares ---


def _most(name: str, known: Share, limit: float, note: str = "") -> Target:
    return _judged(name, known, f"<= {_percent(limit)}" if limit else "none", lambda value: value - limit, note)


def _least(name: str, known: Share, limit: float) -> Target:
    return _judged(name, known, f">= {_percent(limit)}", lambda value: limit - value)


def _between(name: str, known: Share, limits: tuple[float, float]) -> Target:
    low, high = limits
    asked = f"{100 * low:g}-{100 * high:g} %"
    return _judged(name, known, asked, lambda value: max(low - value, value - high))


def _judged(name: str, known: Share, asked: str, beyond: Callable[[float], float], note: str = "") -> Target:
    """beyond: by how much a share misses, negative where it keeps."""
    if known.value is None or known.low is None or known.high is None:
        return Target(name, asked, "", None, "", 0, note)
    off = beyond(known.value)
    told = f"{_percent(known.value)} ({100 * known.low:.1f}-{100 * known.high:.1f})"
    return Target(name, asked, told, off <= 1e-12, f"{100 * abs(off):.1f} points", known.n, note)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
