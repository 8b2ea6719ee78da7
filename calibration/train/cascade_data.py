"""Candidates for the cascade: pictures and their truth in, crops, features and labels out.

Where a candidate comes from is where one comes from in service and a little more: defects that can be seen, whose boxes
are off by as much as a detector's; what the shipped detector finds at a low threshold, defects and false alarms; boxes
of nuisances; any place. Heights are the shipped depth model's own reading of the picture, never the truth.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.train import defects_data
from calibration.train.chunks import Arrays, gather, joined
from calibration.train.defects_data import Recipe
from calibration.twin.nuisances import NUISANCES
from engines.cascade_crops import Box
from engines.cascade_seen import Beside, seen
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.load import load
from engines.readings import Defects, FoundDefect, Relief
from engines.reference import repetition
from engines.scene import NEUTRAL_ELECTRONS, NEUTRAL_PIXEL_M, NEUTRAL_VOLTAGE_V, Levels, Scene

SOURCES = ("defect", "find", "nuisance", "anywhere")
NOT_A_DEFECT = -1
PER_CHUNK = 20  # specimens
OWN_SEED = 7_000_003  # added to every seed: no specimen that the detector or the depth model was trained on
CLEAN = 0.1  # share of layouts without a defect: places without one are in every picture
WEAK = 0.05  # confidence from which a find is a candidate: the cascade is to clear up what a detector lets through
MOST_FALSE, MOST_NUISANCES = 4, 2  # of one picture
MOST_AGAIN = 2  # finds of one defect: the second is of a worse box
NOWHERE = -1  # near no defect
JITTER, JITTER_PX = 0.12, 1.5  # sigmas: of a box's sides, and in pixels
TOUCHES = 4.0  # px around a true box in which a candidate's centre belongs to it
LARGEST_NUISANCE_PX = 96.0  # a longer one is cut: a streak is judged by a piece of it
WITH_GOLDEN, WITH_OWN = 0.5, 0.3  # shares of pictures; the rest has no reference
WITH_PITCH, WITH_HEIGHT = 0.8, 0.85


@dataclass(frozen=True)
class Candidates:
    """n candidates and what they are."""

    planes: NDArray[np.uint8]  # (n, PLANES, SIDE_PX, SIDE_PX)
    features: NDArray[np.float32]  # (n, FEATURES)
    label: NDArray[np.int8]  # (n,) index into CLASSES; NOT_A_DEFECT
    source: NDArray[np.int8]  # (n,) index into SOURCES
    specimen: NDArray[np.int32]  # (n,)
    matched: NDArray[np.float32]  # (n,) of the true defect's matched filter; 0: not a defect
    chance: NDArray[np.float32]  # (n,) of the noise gate
    shading: NDArray[np.float32]  # (n,) sigmas
    relief: NDArray[np.float32]  # (n,) |height above the surroundings| over its sigma; NaN: not known

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> "Candidates":
        return Candidates(**{name: getattr(self, name)[which] for name in Candidates.__annotations__})


def generate(specimens: int, recipe: Recipe, *, folder: Path, progress: Callable[[int], None]) -> Candidates:
    """Of so many specimens, rounded up to whole chunks; chunks already in the folder are read back."""
    make = partial(candidates_at, recipe=recipe)
    stem = folder / f"candidates-{recipe.seed}-{recipe.clean:g}-{recipe.dose:g}"
    return Candidates(**gather(make, specimens, per_chunk=PER_CHUNK, stem=stem, progress=progress))


def small(specimens: int, recipe: Recipe) -> Candidates:
    """A few in this process."""
    return Candidates(**joined([candidates_at(index, recipe=recipe) for index in range(specimens)]))


def candidates_at(index: int, *, recipe: Recipe) -> Arrays:
    """In the pictures of one specimen, in the columns of `Candidates`; the same recipe and index give the same."""
    return candidates_of(defects_data.fields_of(index, recipe=recipe), index, seed=recipe.seed)


def candidates_of(pictures: Arrays, index: int, *, seed: int) -> Arrays:
    """pictures: columns of `Fields`, of one specimen."""
    rng = np.random.default_rng([seed, index, 1])
    rows = [{name: column[number] for name, column in pictures.items()} for number in range(len(pictures["image"]))]
    table = joined([_of_picture(row, rng) for row in rows])
    return table | {"specimen": np.full(len(table["label"]), index, np.int32)}


def _of_picture(row: Arrays, rng: np.random.Generator) -> Arrays:
    chosen = list(_chosen(row, rng))
    words = [each.word for each in chosen]
    looked = seen(row["image"], [each.box_px for each in chosen], _beside(row, rng), words=words)
    heights = [fact.height for fact in looked.facts]
    return {
        "planes": looked.planes,
        "features": looked.features,
        "label": np.array([each.label for each in chosen], np.int8),
        "source": np.array([SOURCES.index(each.source) for each in chosen], np.int8),
        "matched": np.array([each.matched for each in chosen], np.float32),
        "chance": np.array([fact.contrast.chance for fact in looked.facts], np.float32),
        "shading": np.array([fact.contrast.shading for fact in looked.facts], np.float32),
        "relief": np.array([np.nan if h is None else abs(h.above_px) / h.sigma_px for h in heights], np.float32),
    }


@dataclass(frozen=True)
class Chosen:
    """A box and what it is."""

    box_px: Box
    label: int
    source: str
    matched: float = 0.0
    word: FoundDefect | None = None


def _chosen(row: Arrays, rng: np.random.Generator) -> Iterator[Chosen]:
    """What nobody can see, and what lies near it, is left out."""
    side = float(row["image"].shape[0])
    used = np.nonzero(row["label"] >= 0)[0]
    for each in used[row["visible"][used]]:
        box = _jittered(row["box_px"][each], side, rng)
        yield Chosen(box, int(row["label"][each]), "defect", float(row["matched"][each]))
    told: Counter[int] = Counter()
    for find in _found(row):
        box = find.box_px
        near = next((int(each) for each in used if _touches(box, row["box_px"][each])), NOWHERE)
        told[near] += 1
        if near == NOWHERE and told[near] <= MOST_FALSE:
            yield Chosen(box, NOT_A_DEFECT, "find", word=find)
        elif near != NOWHERE and row["visible"][near] and told[near] <= MOST_AGAIN:
            yield Chosen(box, int(row["label"][near]), "find", float(row["matched"][near]), find)
    for source, boxes in (("nuisance", _nuisances(row, side, rng)), ("anywhere", [_anywhere(side, rng)])):
        for box in boxes:
            if not any(_overlaps(box, row["box_px"][each]) for each in used):
                yield Chosen(box, NOT_A_DEFECT, source)


def _found(row: Arrays) -> Defects:
    scene, levels = scene_told(row["condition"]), levels_told(row["condition"])
    finder = _finder()
    reference = row["golden"] if finder.wants_reference else None
    return finder.read(row["image"], scene, levels, reference=reference, threshold=WEAK)


def _nuisances(row: Arrays, side: float, rng: np.random.Generator) -> list[Box]:
    """Some of the named ones that are no larger than a picture; a long one's piece."""
    drawn = rng.permutation(np.nonzero((row["nuisance"] >= 0) & (row["nuisance"] != NUISANCES.index("patch")))[0])
    return [_piece(row["nuisance_px"][each], side, rng) for each in drawn[:MOST_NUISANCES]]


def _piece(box: NDArray[np.float32], side: float, rng: np.random.Generator) -> Box:
    x0, x1 = _part(float(box[0]), float(box[2]), rng)
    y0, y1 = _part(float(box[1]), float(box[3]), rng)
    return _within((x0, y0, x1, y1), side)


def _part(first: float, last: float, rng: np.random.Generator) -> tuple[float, float]:
    length = min(last - first, float(rng.uniform(8.0, LARGEST_NUISANCE_PX)))
    start = first + float(rng.uniform(0.0, max(last - first - length, 0.0)))
    return start - 2.0, start + length + 2.0


def _anywhere(side: float, rng: np.random.Generator) -> Box:
    width, height = np.exp(rng.uniform(np.log(8.0), np.log(80.0), 2))
    x, y = rng.uniform(0.0, side, 2)
    return _within((x - width / 2, y - height / 2, x + width / 2, y + height / 2), side)


def _jittered(box: NDArray[np.float32], side: float, rng: np.random.Generator) -> Box:
    x0, y0, x1, y1 = (float(value) for value in box)
    off = rng.normal(0.0, JITTER, 4) * np.array([x1 - x0, y1 - y0, x1 - x0, y1 - y0]) + rng.normal(0.0, JITTER_PX, 4)
    moved = np.array([x0, y0, x1, y1]) + off
    return _within((moved[0], moved[1], moved[2], moved[3]), side)


def _within(box: tuple[float, float, float, float], side: float) -> Box:
    x0, y0 = (float(np.clip(value, 0.0, side - 4.0)) for value in box[:2])
    return x0, y0, float(np.clip(box[2], x0 + 3.0, side)), float(np.clip(box[3], y0 + 3.0, side))


def _touches(box: Box, true: NDArray[np.float32]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(true[0] - TOUCHES <= x <= true[2] + TOUCHES and true[1] - TOUCHES <= y <= true[3] + TOUCHES)


def _overlaps(box: Box, true: NDArray[np.float32]) -> bool:
    return bool(box[0] < true[2] and true[0] < box[2] and box[1] < true[3] and true[1] < box[3])


def _beside(row: Arrays, rng: np.random.Generator) -> Beside:
    """What may be known of a picture, and often is not."""
    draw, scene = rng.random(3), scene_told(row["condition"])
    reference = row["golden"] if draw[0] < WITH_GOLDEN else row["own"] if draw[0] < WITH_GOLDEN + WITH_OWN else None
    found = repetition(row["image"]) if draw[1] < WITH_PITCH else None
    relief = _relief(row["image"], scene, levels_told(row["condition"])) if draw[2] < WITH_HEIGHT else None
    return Beside(reference, relief, scene, None if found is None else found.period_px)


def _relief(image: NDArray[np.uint8], scene: Scene, levels: Levels) -> Relief | None:
    return _depth().begin(image, scene, levels)()


def scene_told(condition: NDArray[np.float32]) -> Scene:
    """Back from what a network is told: see engines.scene.condition."""
    neutral = (NEUTRAL_PIXEL_M, NEUTRAL_ELECTRONS, NEUTRAL_VOLTAGE_V)
    pairs = zip(condition[2::2], condition[3::2], neutral, strict=True)
    return Scene(*(float(near * 10.0**value) if known else None for value, known, near in pairs))


def levels_told(condition: NDArray[np.float32]) -> Levels:
    return Levels(float(condition[0]) * 255.0, float(condition[1]) * 255.0)


@lru_cache(maxsize=1)
def _finder() -> DefectFinder:
    """One of each in a process that draws."""
    return DefectFinder(load("defects", backend="onnxruntime", threads=1))


@lru_cache(maxsize=1)
def _depth() -> Depth:
    return Depth(load("depth", backend="onnxruntime", threads=1))
