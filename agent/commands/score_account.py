"""One table of score readers as it is told: a bench and its cells in; rows, totals, targets, machine out."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.evaluate.score_cells import Measured
    from calibration.evaluate.score_figures import Row, Total

OWN = "beamside"
RMSE, RMSE_HIGHEST, SPEARMAN = 0.30, 0.40, 0.97  # asked of our network on specimens it has not seen
HIGHEST = "50 000 x"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command was told. pictures: rounded up to whole scenes of each kind."""

    pictures: int
    seed: int
    minutes: float | None


@dataclass(frozen=True, kw_only=True)
class Target:
    """met None: not measured, or not on every fold."""

    name: str
    asked: str
    measured: float | None
    n: int
    met: bool | None


@dataclass(frozen=True, kw_only=True)
class Account:
    """All of it."""

    asked: Asked
    date: str
    took_s: float
    load: float  # average of a minute at the end
    drawn: int  # pictures
    model: str  # name@sha of the package that is `as shipped`
    work: str
    cells: int
    unfinished: tuple[str, ...]  # "reader, fold" of each cell that no time was left for
    totals: "tuple[Total, ...]"
    rows: "tuple[Row, ...]"
    by_magnification: "tuple[Row, ...]"  # of the specimens left out
    label_spearman: float | None  # the label's own with -|z|/h where |z| > h
    targets: tuple[Target, ...]


def account(asked: Asked, measured: "Measured", *, model: str, work: str, began_s: float) -> Account:
    """began_s: of time.monotonic()."""
    from calibration.evaluate.score_figures import label_alone, rows, strata, totals

    told, sums, by_magnification = rows(measured), totals(measured), strata(measured)
    return Account(
        asked=asked, date=datetime.now(UTC).date().isoformat(), took_s=time.monotonic() - began_s,
        load=os.getloadavg()[0], drawn=measured.drawn, model=model, work=work, cells=len(told),
        unfinished=tuple(f"{row.reader}, {row.fold}" for row in told if row.figures is None),
        totals=tuple(sums), rows=tuple(told), by_magnification=tuple(by_magnification),
        label_spearman=None if measured.samples is None else label_alone(measured.samples),
        targets=targets(sums, by_magnification),
    )  # fmt: skip


def targets(totals: "Sequence[Total]", by_magnification: "Sequence[Row]") -> tuple[Target, ...]:
    """Ours on specimens left out, over the folds that are finished; met or missed only where all are."""
    own = next((each for each in totals if each.by == "specimen" and each.reader == OWN), None)
    told = None if own is None else own.finished
    high = next((each.figures for each in by_magnification if (each.reader, each.fold) == (OWN, HIGHEST)), None)
    whole = own is not None and own.folds == own.of
    rmse, there = (None if each is None else each.rmse for each in (told, high))
    rank = None if told is None else told.spearman
    return (
        Target(
            name="RMSE, specimens left out", asked=f"<= {RMSE:.2f}", measured=rmse, n=0 if told is None else told.n,
            met=rmse <= RMSE if whole and rmse is not None else None,
        ),
        Target(
            name=f"RMSE there, {HIGHEST}", asked=f"<= {RMSE_HIGHEST:.2f}", measured=there,
            n=0 if high is None else high.n, met=there <= RMSE_HIGHEST if whole and there is not None else None,
        ),
        Target(
            name="Spearman with -|z|/h where |z| > h", asked=f">= {SPEARMAN:.2f}", measured=rank,
            n=0 if told is None else told.n_beyond, met=rank >= SPEARMAN if whole and rank is not None else None,
        ),
    )  # fmt: skip


def verdict(target: Target) -> str:
    if target.measured is None:
        return "not measured"
    return {True: "met", False: "missed", None: "not all folds"}[target.met]
