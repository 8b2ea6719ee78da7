"""Where frames come from: a task, a split and an index in, the frames of one geometry with their exact truth out.

The training's generators draw; nothing is drawn twice or otherwise here. Importing this imports all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.dataset import rows_autofocus, rows_defects, rows_depth, rows_given, splits
from calibration.dataset.errors import OrderError
from calibration.dataset.rows_given import Given
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import DRAWN, FAMILY, Shift
from calibration.dataset.version import version
from calibration.train import defects_data, depth_data, scenes

EMPTY = "empty"  # pictures of nothing at all

Make = Callable[[int, int, Shift], Arrays]  # index, generator seed


@dataclass(frozen=True)
class Task:
    make: Make
    kinds: tuple[str, ...]  # layout families, by the column `kind`
    modules: tuple[str, ...]  # what draws


@dataclass(frozen=True)
class Source:
    """The geometries of one split; can be pickled, and gives the same bytes for the same index anywhere."""

    task: str
    split: str
    seed: int  # of the dataset
    held_out: tuple[str, ...] = ()
    given: Given | None = None  # layouts and a profile; for depth

    @property
    def kinds(self) -> tuple[str, ...]:
        return kinds_of(self.task, self.given)

    @property
    def generator_seed(self) -> int:
        return splits.generator_seed(self.seed, self.split)

    def rows(self, index: int) -> Arrays | None:
        """The frames of one geometry; None: its family is not for this split."""
        shift = DRAWN[self.split].shift
        if self.given is None:
            made = TASKS[self.task].make(index, self.generator_seed, shift)
        else:
            made = rows_given.rows(self.given, index, self.generator_seed, shift)
        if (_family(made, self.kinds) in self.held_out) != (self.split == FAMILY) and self.held_out:
            return None
        geometry = np.full((len(made["image"]), 2), (self.generator_seed, index), np.int64)
        return made | {"geometry": geometry}


def kinds_of(task: str, given: Given | None) -> tuple[str, ...]:
    """Layout families: the task's own, or a user's layouts."""
    return TASKS[task].kinds if given is None else given.kinds


def generator(task: str, given: Given | None = None) -> str:
    """Hash of what draws a task's frames."""
    also = () if given is None else ("calibration.dataset.rows_given",)
    return version((*TASKS[task].modules, *also, "calibration.dataset.splits", "calibration.dataset.shifted"))


def check_held_out(task: str, families: tuple[str, ...], given: Given | None = None) -> None:
    """Raises OrderError for a family that the task does not have, or where none would be left."""
    known = [name for name in kinds_of(task, given) if name != EMPTY]
    for name in families:
        if name not in known:
            raise OrderError(f"{task} has no layout family {name!r} to hold out; it has {', '.join(known)}")
    if set(known) <= set(families):
        raise OrderError("every layout family is held out: nothing is left to train on")


def _family(rows: Arrays, kinds: tuple[str, ...]) -> str:
    """Crops of a scene may be empty; the scene's family is that of the others."""
    names = [kinds[int(number)] for number in rows["kind"]]
    return next((name for name in names if name != EMPTY), EMPTY)


TASKS: dict[str, Task] = {
    "autofocus": Task(rows_autofocus.rows, (*scenes.KINDS, EMPTY), ("calibration.dataset.rows_autofocus",)),
    "depth": Task(rows_depth.rows, depth_data.KINDS, ("calibration.dataset.rows_depth",)),
    "defects": Task(rows_defects.rows, defects_data.KINDS, ("calibration.dataset.rows_defects",)),
}
