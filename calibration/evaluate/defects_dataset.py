"""A dataset of `calibrate dataset defects` as pictures with truth, split by split."""

from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import index, read
from calibration.dataset.errors import DatasetError
from calibration.dataset.index import Index, Shard
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import OUTSIDE
from calibration.evaluate.defects_truth import Box, Case, Picture, PictureSet, SetError, Split, TrueDefect, checked
from engines.scene import NEUTRAL_ELECTRONS, NEUTRAL_PIXEL_M, NEUTRAL_VOLTAGE_V, Scene

TASK = "defects"
TUNING = ("train", "tune")  # another seed than the model's own: to it they are as fresh as the others
NO_LAYOUT = ("relief", "natural", "empty")  # kinds of pictures in which whatever there is, is no defect
NEEDED = ("image", "condition", "box_px", "label", "visible")


def open_dataset(folder: Path) -> PictureSet:
    """Raises SetError: of another task, not complete, or damaged."""
    try:
        held = index.read(folder)
    except DatasetError as error:
        raise SetError(str(error)) from error
    if held.identity.task != TASK:
        raise SetError(f"{folder} is a dataset of {held.identity.task}; one of {TASK} is needed")
    if not held.complete or not held.shards:
        raise SetError(f"{folder} is not complete: run the command that makes it once more")
    drawn = [split for split in held.splits if split.name not in OUTSIDE]
    names = {split.name for split in drawn}
    tuning = names.intersection(TUNING) if names.difference(TUNING) else set()  # nothing else: then it is counted
    splits = tuple(Split(each.name, each.purpose, each.name in tuning) for each in drawn)
    left = [split.name for split in held.splits if split.name in OUTSIDE]
    notes = [f"split {name} is left out: give its own folder instead" for name in left]
    if not tuning and splits:
        notes.append(f"no split to tune by: every second clean specimen of {splits[0].name} fixes the thresholds")
    count = sum(shard.frames for shard in held.shards if shard.split not in OUTSIDE)
    return PictureSet(folder, "dataset", splits, count, lambda: _pictures(folder, held), tuple(notes))


def seeds(folder: Path) -> dict[str, int]:
    """Generator seed of each split that has one: a model must not have been trained on it."""
    return {each.name: each.generator_seed for each in index.read(folder).splits if each.generator_seed is not None}


def _pictures(folder: Path, held: Index) -> Iterator[Picture]:
    for shard in held.shards:
        if shard.split in OUTSIDE:
            continue
        try:
            rows = read.load(folder, shard)
        except DatasetError as error:
            raise SetError(str(error)) from error
        missing = [name for name in NEEDED if name not in rows]
        if missing:
            raise SetError(f"{folder / shard.file}: no column {missing[0]}; make the dataset anew with --force")
        for number in range(len(rows["image"])):
            yield _picture(rows, number, shard, held)


def _picture(rows: Arrays, number: int, shard: Shard, held: Index) -> Picture:
    image = np.asarray(rows["image"][number], np.uint8)
    used = np.nonzero(rows["label"][number] >= 0)[0]
    size_m = float(rows["pixel_size_m"][number]) if "pixel_size_m" in rows else float("nan")
    kind = _kind(rows, number, held.split(shard.split).kinds)
    case = Case(
        key=f"{shard.file}#{number}",
        split=shard.split,
        specimen=f"{shard.split} {_specimen(rows, number, shard)}",
        shape=(image.shape[0], image.shape[1]),
        scene=scene_of(rows["condition"][number]),
        truth=tuple(_defect(rows, number, int(row), held.classes) for row in used),
        pixel_size_m=size_m if isfinite(size_m) else None,
        kind=kind,
        layout=kind not in NO_LAYOUT,
    )
    return Picture(checked(case), image, _golden(rows, number, image))


def _kind(rows: Arrays, number: int, kinds: tuple[str, ...]) -> str:
    place = int(rows["kind"][number]) if "kind" in rows else len(kinds)
    return kinds[place] if place < len(kinds) else ""


def _golden(rows: Arrays, number: int, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """The column holds the frame itself where there is no golden one."""
    golden = np.asarray(rows["golden"][number], np.uint8) if "golden" in rows else image
    return None if np.array_equal(golden, image) else golden


def _specimen(rows: Arrays, number: int, shard: Shard) -> str:
    if "geometry" not in rows:
        return f"{shard.file} {number}"
    return " ".join(str(int(word)) for word in rows["geometry"][number])


def _defect(rows: Arrays, number: int, row: int, classes: tuple[str, ...]) -> TrueDefect:
    def known(name: str) -> float | None:
        return float(rows[name][number, row]) if name in rows else None

    label = int(rows["label"][number, row])
    if label >= len(classes):
        raise SetError(f"label {label} of picture {number}: the dataset names {len(classes)} classes; make it anew")
    height, width = rows["image"][number].shape
    return TrueDefect(
        name=classes[label],
        box_px=_inside(rows["box_px"][number, row], height, width),
        visible=bool(rows["visible"][number, row]),
        area_px=known("area_px"),
        pitch_share=known("pitch_share") or None,  # 0: there is no pitch
        matched=known("matched"),
        to_noise=known("to_noise"),
    )


def _inside(box: NDArray[np.float32], height: int, width: int) -> Box:
    """A tear may move a box over the edge: what is left of it within the picture."""
    x0, y0, x1, y1 = (float(side) for side in box)
    x0, y0 = min(max(x0, 0.0), width - 1.0), min(max(y0, 0.0), height - 1.0)
    return x0, y0, min(max(x1, x0 + 1.0), float(width)), min(max(y1, y0 + 1.0), float(height))


def scene_of(condition: NDArray[np.float32]) -> Scene:
    """The facts that a network is told, back from what it is told: `engines.scene.condition` read backwards."""
    facts = [
        neutral * 10.0 ** float(condition[at]) if condition[at + 1] > 0.5 else None
        for at, neutral in zip((2, 4, 6), (NEUTRAL_PIXEL_M, NEUTRAL_ELECTRONS, NEUTRAL_VOLTAGE_V), strict=True)
    ]
    return Scene(*facts)
