"""Where frames come from: a task, a split and an index in, the frames of one geometry with their exact truth out.

The training's generators draw; nothing is drawn twice or otherwise here. Importing this imports all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from calibration.dataset import shifted, splits
from calibration.dataset.errors import OrderError
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import DRAWN, FAMILY, Shift
from calibration.dataset.version import version
from calibration.train import data, defects_data, depth_data, scenes
from engines.autofocus import NEUTRAL_PIXEL_M
from engines.scene import NEUTRAL_PIXEL_M as NEUTRAL_SCENE_M

EMPTY = "empty"  # pictures of nothing at all
STRETCH = 1.5  # of a layout for defects: beyond the widest pitch that is drawn
UNPATTERNED = ("plain", "relief", "natural", EMPTY)  # kinds of the defects' generator that have no pitch to shift

Make = Callable[[int, int, Shift], Arrays]  # index, generator seed


@dataclass(frozen=True)
class Task:
    make: Make
    kinds: tuple[str, ...]  # layout families, by the column `kind`
    modules: tuple[str, ...]  # what draws
    lacks: tuple[str, ...] = ()  # splits that the generator cannot draw


@dataclass(frozen=True)
class Source:
    """The geometries of one split; can be pickled, and gives the same bytes for the same index anywhere."""

    task: str
    split: str
    seed: int  # of the dataset
    held_out: tuple[str, ...] = ()

    @property
    def generator_seed(self) -> int:
        return splits.generator_seed(self.seed, self.split)

    def rows(self, index: int) -> Arrays | None:
        """The frames of one geometry; None: its family is not for this split."""
        task = TASKS[self.task]
        made = task.make(index, self.generator_seed, DRAWN[self.split].shift)
        if (_family(made, task.kinds) in self.held_out) != (self.split == FAMILY) and self.held_out:
            return None
        geometry = np.full((len(made["image"]), 2), (self.generator_seed, index), np.int64)
        return made | {"geometry": geometry}


def generator(task: str) -> str:
    """Hash of what draws a task's frames."""
    return version((*TASKS[task].modules, "calibration.dataset.sources", "calibration.dataset.shifted"))


def check_held_out(task: str, families: tuple[str, ...]) -> None:
    """Raises OrderError for a family that the task does not have, or where none would be left."""
    known = [name for name in TASKS[task].kinds if name != EMPTY]
    for name in families:
        if name not in known:
            raise OrderError(f"{task} has no layout family {name!r} to hold out; it has {', '.join(known)}")
    if set(known) <= set(families):
        raise OrderError("every layout family is held out: nothing is left to train on")


def _family(rows: Arrays, kinds: tuple[str, ...]) -> str:
    """Crops of a scene may be empty; the scene's family is that of the others."""
    names = [kinds[int(number)] for number in rows["kind"]]
    return next((name for name in names if name != EMPTY), EMPTY)


def _autofocus(index: int, seed: int, shift: Shift) -> Arrays:
    if shift in (splits.NONE, Shift(charging=True)):
        rows = data.samples_of(index, seed=seed)
    else:
        rows = shifted.autofocus_rows(index, seed=seed, shift=shift)
    rows = {"blur_px": np.exp(rows["log_blur"])} | rows
    # The autofocus model is always told the pixel size here: log10 of it over the neutral one.
    size_m = NEUTRAL_PIXEL_M * 10.0 ** rows["condition"][:, 0].astype(np.float64)
    return _charged({"pixel_size_m": size_m.astype(np.float32)} | rows, index, seed, shift)


def _depth(index: int, seed: int, shift: Shift) -> Arrays:
    if shift in (splits.NONE, Shift(charging=True)):
        rows = depth_data.fields_of(index, seed=seed)
    else:
        rows = shifted.depth_rows(index, seed=seed, shift=shift)
    return _charged(rows, index, seed, shift)


def _defects(index: int, seed: int, shift: Shift) -> Arrays:
    kinds = (
        tuple(name for name in defects_data.KINDS if name not in UNPATTERNED) if shift.stretch else defects_data.KINDS
    )
    recipe = defects_data.Recipe(
        seed, kinds=kinds, dose=0.5 if shift.half_dose else 1.0, stretch=STRETCH if shift.stretch else 1.0, maps=True
    )
    rows = defects_data.fields_of(index, recipe=recipe)
    told = rows["condition"][:, 3] > 0.5  # one header in seven leaves the pixel size out
    size_m = NEUTRAL_SCENE_M * 10.0 ** rows["condition"][:, 2].astype(np.float64)
    rows = {"pixel_size_m": np.where(told, size_m, np.nan).astype(np.float32)} | rows
    return _charged(rows, index, seed, shift)


def _charged(rows: Arrays, index: int, seed: int, shift: Shift) -> Arrays:
    return shifted.charged(rows, np.random.default_rng([seed, index, 2])) if shift.charging else rows


TASKS: dict[str, Task] = {
    "autofocus": Task(_autofocus, (*scenes.KINDS, EMPTY), ("calibration.train.data",)),
    "depth": Task(_depth, depth_data.KINDS, ("calibration.train.depth_data",)),
    "defects": Task(_defects, defects_data.KINDS, ("calibration.train.defects_data",), ("shifted-unseen-material",)),
}
