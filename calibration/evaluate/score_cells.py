"""The cells of the score's table: one reader on one fold each, kept on disk, so that a stopped bench goes on.

Readers come in the order of what they cost: a bench that is stopped has whole columns, not a few whole lines.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import shards
from calibration.evaluate import score_learn, score_sharpness
from calibration.evaluate.score_clock import Deadline, OutOfTimeError
from calibration.evaluate.score_folds import Fold, folds
from calibration.evaluate.score_learn import NETWORKS, Lesson, Taught
from calibration.evaluate.score_pictures import pictures
from calibration.train import learn
from calibration.train.data import Samples
from calibration.train.describe import DATA, LABELS

SHIPPED = "as shipped"  # the package beside the code: it has seen every specimen and magnification
READERS = (*score_sharpness.MEASURES, SHIPPED, *(each.name for each in NETWORKS))
HELD_OUT = tuple(each for each in READERS if each != SHIPPED)
FORMAT = 1  # of what is kept: raised when a cell would be another by code that no text below tells of

Progress = Callable[[str, int, int], None]  # stage, done, of
Reader = Callable[[NDArray[np.uint8], NDArray[np.float32]], float]  # image (h, w) and condition (2,) -> score


@dataclass(frozen=True)
class Bench:
    """What is measured. The same bench gives the same table."""

    pictures: int  # a multiple of what score_pictures.rounded gives
    seed: int
    model: str  # name@sha256 of the shipped package

    def folder(self, work: Path) -> Path:
        """A folder of its own for each: neither labels nor recipes of two benches mix."""
        recipe = [FORMAT, LABELS, DATA, score_learn.EPOCHS, score_learn.COARSE_EPOCHS, learn.LEARNING_RATE, learn.BATCH]
        known = hashlib.sha256(json.dumps([asdict(self), recipe]).encode()).hexdigest()
        return work / f"score-{self.pictures}-{self.seed}-{known[:8]}"


@dataclass(frozen=True)
class Cell:
    """What a reader said of the pictures left out. said: (len(fold.asked),), None where no time was left for it."""

    reader: str
    fold: Fold
    said: NDArray[np.float32] | None
    took_s: float | None  # of the processor, a stopped beginning not counted


@dataclass(frozen=True)
class Measured:
    """A bench as far as the time went. samples None: not all pictures were drawn."""

    samples: Samples | None
    drawn: int
    cells: tuple[Cell, ...]


def measure(bench: Bench, shipped: Reader, *, work: Path, deadline: Deadline, progress: Progress) -> Measured:
    """Draw, then fill the cells one by one until all are done or the time is over."""
    folder, count = bench.folder(work), 0
    folder.mkdir(parents=True, exist_ok=True)

    def tell(done: int) -> None:
        nonlocal count
        count = min(done, bench.pictures)
        progress("pictures", count, bench.pictures)
        if count < bench.pictures:
            deadline.check()

    try:
        samples = pictures(bench.pictures, seed=bench.seed, folder=folder, progress=tell)
    except OutOfTimeError:
        return Measured(None, count, ())
    asked = _Asked(bench, samples, folder, shipped, deadline)
    return Measured(samples, count, tuple(asked.cells(progress)))


class _Asked:
    """The cells of one bench over its pictures; a sharpness measure is taken of each picture once."""

    def __init__(self, bench: Bench, samples: Samples, folder: Path, shipped: Reader, deadline: Deadline) -> None:
        self._bench, self._samples, self._folder = bench, samples, folder
        self._shipped, self._deadline = shipped, deadline
        self._networks: dict[str, Taught] = {each.name: each for each in NETWORKS}
        self._columns: dict[str, NDArray[np.float32]] = {}

    def cells(self, progress: Progress) -> Iterator[Cell]:
        kept = [each for each in folds(self._samples) if len(each.asked)]
        for reader in READERS:
            done = 0
            for fold in kept:
                cell = self._cell(reader, fold)
                yield cell
                done += cell.said is not None
                progress(reader, done, len(kept))

    def _cell(self, reader: str, fold: Fold) -> Cell:
        path = self._folder / f"{_plain(reader)}-{fold.by}-{_plain(fold.name)}.npz"
        if shards.intact(path) is None:
            try:
                self._deadline.check()
                began = time.process_time()
                said = self._answers(reader, fold, path.with_suffix(".pt"))
            except OutOfTimeError:
                return Cell(reader, fold, None, None)
            took_s = np.full(len(said), time.process_time() - began, np.float32)
            shards.write(path, {"said": said, "took_s": took_s})
        stored = shards.load(path)
        return Cell(reader, fold, stored["said"], float(stored["took_s"][0]))

    def _answers(self, reader: str, fold: Fold, checkpoint: Path) -> NDArray[np.float32]:
        if reader in self._networks:
            lesson = Lesson(self._samples, fold.learnt, self._bench.seed, checkpoint, self._deadline)
            return score_learn.answers(self._networks[reader], lesson, fold.asked)
        column = self._column(reader)
        if reader == SHIPPED:
            return column[fold.asked]
        return score_sharpness.answers(column, self._samples, fold)

    def _column(self, reader: str) -> NDArray[np.float32]:
        """(n,): what needs no teaching, of each picture."""
        if reader not in self._columns:
            if reader == SHIPPED:
                pairs = zip(self._samples.image, self._samples.condition, strict=True)
                self._columns[reader] = np.array([self._shipped(*each) for each in pairs], np.float32)
            else:
                self._columns[reader] = score_sharpness.measured(reader, self._samples)
        return self._columns[reader]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
