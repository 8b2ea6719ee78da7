"""Figures of the score's table: what readers said of pictures left out beside the label, with bootstrap intervals.

Scenes are drawn again, not pictures: eight crops share a specimen and two probes, and are no eight witnesses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.score_cells import HELD_OUT, READERS, Cell, Measured
from calibration.evaluate.score_folds import MAGNIFICATIONS, bin_of, named
from calibration.evaluate.score_pictures import scene_of
from calibration.train.data import Samples
from calibration.train.figures import JUDGEABLE, spearman

RESAMPLES = 1000
FEWEST_RANKED = 10  # pictures that a rank correlation is told of

Column = NDArray[np.float32]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Figures:
    """One reader on some pictures. The interval is that of 95 %."""

    n: int
    scenes: int
    rmse: float
    rmse_low: float
    rmse_high: float
    bias: float  # said minus label
    n_beyond: int  # pictures with |z| > h_eff and something to see (content from 1/2)
    spearman: float | None  # of the score with -|z|/h_eff on those; None: too few
    spearman_low: float | None
    spearman_high: float | None


@dataclass(frozen=True)
class Row:
    """One reader on one fold, or on several together. figures None: not finished."""

    by: str
    fold: str
    reader: str
    figures: Figures | None
    took_s: float | None


@dataclass(frozen=True)
class Total:
    """One reader over the folds it has finished, and over those that every reader that was taught has finished."""

    by: str
    reader: str
    folds: int
    of: int
    finished: Figures | None
    shared_folds: int
    shared: Figures | None


def rows(measured: Measured) -> list[Row]:
    """In the order of the cells."""
    if measured.samples is None:
        return []
    return [_row(cell, measured.samples) for cell in measured.cells]


def totals(measured: Measured) -> list[Total]:
    """For each way of leaving out, each reader."""
    if measured.samples is None:
        return []
    kinds = dict.fromkeys(cell.fold.by for cell in measured.cells)
    return [_total(by, reader, measured.cells, measured.samples) for by in kinds for reader in READERS]


def strata(measured: Measured) -> list[Row]:
    """Answers to the specimens left out, by the magnification of the picture; every specimen is in each."""
    if measured.samples is None:
        return []
    known = [cell for cell in measured.cells if cell.fold.by == "specimen" and cell.said is not None]
    return [row for reader in READERS for row in _strata(reader, known, measured.samples)]


def _strata(reader: str, cells: Sequence[Cell], samples: Samples) -> Iterator[Row]:
    known = [(cell.fold.asked, cell.said) for cell in cells if cell.reader == reader and cell.said is not None]
    if not known:
        return
    asked, said = np.concatenate([each[0] for each in known]), np.concatenate([each[1] for each in known])
    bins = bin_of(samples)[asked]
    for number, magnification in enumerate(MAGNIFICATIONS):
        here = bins == number
        if here.any():
            yield Row("specimen", named(magnification), reader, figures(samples, asked[here], said[here]), None)


def label_alone(samples: Samples) -> float | None:
    """The rank correlation that the label itself reaches with -|z|/h_eff: what no reader of it can beat by much."""
    beyond = _beyond(samples, np.nonzero(samples.snr > 0.0)[0])
    return spearman(samples.score[beyond], -samples.defocus_h[beyond]) if len(beyond) >= FEWEST_RANKED else None


def _row(cell: Cell, samples: Samples) -> Row:
    told = None if cell.said is None else figures(samples, cell.fold.asked, cell.said)
    return Row(cell.fold.by, cell.fold.name, cell.reader, told, cell.took_s)


def _total(by: str, reader: str, cells: Sequence[Cell], samples: Samples) -> Total:
    of_kind = [cell for cell in cells if cell.fold.by == by]
    own = [cell for cell in of_kind if cell.reader == reader]
    shared = [cell for cell in own if _by_all(cell.fold.name, of_kind)]
    finished = [cell for cell in own if cell.said is not None]
    return Total(
        by=by, reader=reader, folds=len(finished), of=len(own), finished=_together(finished, samples),
        shared_folds=len(shared), shared=_together(shared, samples),
    )  # fmt: skip


def _by_all(fold: str, cells: Sequence[Cell]) -> bool:
    return all(cell.said is not None for cell in cells if cell.fold.name == fold and cell.reader in HELD_OUT)


def _together(cells: Sequence[Cell], samples: Samples) -> Figures | None:
    known = [(cell.fold.asked, cell.said) for cell in cells if cell.said is not None]
    if not known:
        return None
    return figures(samples, np.concatenate([each[0] for each in known]), np.concatenate([each[1] for each in known]))


def figures(samples: Samples, asked: Rows, said: Column) -> Figures:
    """said: (len(asked),), scores of those rows."""
    scene = scene_of(len(samples))[asked]
    error = said - samples.score[asked]
    at = np.isin(asked, _beyond(samples, asked))
    low, high = _rmse_interval(error, scene)
    rank, rank_low, rank_high = _ranked(said[at], -samples.defocus_h[asked[at]], scene[at])
    return Figures(
        n=len(asked), scenes=len(np.unique(scene)), rmse=float(np.sqrt(np.mean(error**2))), rmse_low=low,
        rmse_high=high, bias=float(error.mean()), n_beyond=int(at.sum()), spearman=rank, spearman_low=rank_low,
        spearman_high=rank_high,
    )  # fmt: skip


def _beyond(samples: Samples, rows: Rows) -> Rows:
    return rows[(samples.defocus_h[rows] > 1.0) & (samples.content[rows] >= JUDGEABLE)]


def _rmse_interval(error: Column, scene: Rows) -> tuple[float, float]:
    """Of the root mean square error, by drawing scenes again."""
    _, place = np.unique(scene, return_inverse=True)
    squares, counts = np.bincount(place, error.astype(np.float64) ** 2), np.bincount(place)
    drawn = _drawn_again(len(counts))
    low, high = np.quantile(np.sqrt(squares[drawn].sum(axis=1) / counts[drawn].sum(axis=1)), (0.025, 0.975))
    return float(low), float(high)


def _ranked(said: Column, nearness: Column, scene: Rows) -> tuple[float | None, float | None, float | None]:
    if len(said) < FEWEST_RANKED:
        return None, None, None
    names, place = np.unique(scene, return_inverse=True)
    members = [np.nonzero(place == each)[0] for each in range(len(names))]
    # A tenth of the draws: ranks cost a sort each, and the interval is told to two digits.
    again = [np.concatenate([members[each] for each in draw]) for draw in _drawn_again(len(names))[: RESAMPLES // 10]]
    low, high = np.quantile([spearman(said[each], nearness[each]) for each in again], (0.025, 0.975))
    return spearman(said, nearness), float(low), float(high)


def _drawn_again(count: int) -> Rows:
    """(RESAMPLES, count): the same draws each time, so that the same answers give the same interval."""
    return np.asarray(np.random.default_rng(count).integers(0, count, (RESAMPLES, count)), np.intp)
