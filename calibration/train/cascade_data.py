"""Candidates for the cascade: pictures and their truth in, crops, features and labels out.

A candidate comes from where one comes from in service: the shipped detector, at a low threshold, finds defects and what
is none, beside a reference or without. Heights are the shipped depth model's own reading of the picture, never the
truth.
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
from engines.cascade_crops import Box
from engines.cascade_seen import Beside, seen
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.load import load
from engines.readings import Defects, FoundDefect, Relief
from engines.reference import repetition
from engines.scene import NEUTRAL_ELECTRONS, NEUTRAL_PIXEL_M, NEUTRAL_VOLTAGE_V, Levels, Scene

NOT_A_DEFECT = -1
PER_CHUNK = 20  # specimens
OWN_SEED = 7_000_003  # added to every seed: no specimen that the detector or the depth model was trained on
CLEAN = 0.1  # share of layouts without a defect: places without one are in every picture
WEAK = 0.05  # confidence from which a find is a candidate: the cascade is to clear up what a detector lets through
MOST_FALSE = 6  # of one picture
MOST_AGAIN = 2  # finds of one defect: the second is of a worse box
NOWHERE = -1  # near no defect
TOUCHES = 4.0  # px around a true box in which a candidate's centre belongs to it
WITH_GOLDEN, WITH_OWN = 0.5, 0.3  # shares of pictures; the rest has no reference
WITH_PITCH, WITH_HEIGHT = 0.8, 0.85


@dataclass(frozen=True)
class Candidates:
    """n candidates and what they are."""

    planes: NDArray[np.uint8]  # (n, PLANES, SIDE_PX, SIDE_PX)
    features: NDArray[np.float32]  # (n, FEATURES)
    label: NDArray[np.int8]  # (n,) index into CLASSES; NOT_A_DEFECT
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
    beside = _beside(row, rng)
    chosen = list(_chosen(row, beside))
    words = [each.word for each in chosen]
    looked = seen(row["image"], [each.box_px for each in words], beside, words=words)
    heights = [fact.height for fact in looked.facts]
    return {
        "planes": looked.planes,
        "features": looked.features,
        "label": np.array([each.label for each in chosen], np.int8),
        "matched": np.array([each.matched for each in chosen], np.float32),
        "chance": np.array([fact.contrast.chance for fact in looked.facts], np.float32),
        "shading": np.array([fact.contrast.shading for fact in looked.facts], np.float32),
        "relief": np.array([np.nan if h is None else abs(h.above_px) / h.sigma_px for h in heights], np.float32),
    }


@dataclass(frozen=True)
class Chosen:
    """A find and what it is."""

    word: FoundDefect
    label: int
    matched: float = 0.0


def _chosen(row: Arrays, beside: Beside) -> Iterator[Chosen]:
    """What nobody can see, and what lies near it, is left out."""
    used = np.nonzero(row["label"] >= 0)[0]
    told: Counter[int] = Counter()
    for find in _found(row, beside):
        near = next((int(each) for each in used if _touches(find.box_px, row["box_px"][each])), NOWHERE)
        told[near] += 1
        if near == NOWHERE and told[near] <= MOST_FALSE:
            yield Chosen(find, NOT_A_DEFECT)
        elif near != NOWHERE and row["visible"][near] and told[near] <= MOST_AGAIN:
            yield Chosen(find, int(row["label"][near]), float(row["matched"][near]))


def _found(row: Arrays, beside: Beside) -> Defects:
    levels = levels_told(row["condition"])
    return _finder().read(row["image"], beside.scene, levels, reference=beside.reference, threshold=WEAK)


def _touches(box: Box, true: NDArray[np.float32]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(true[0] - TOUCHES <= x <= true[2] + TOUCHES and true[1] - TOUCHES <= y <= true[3] + TOUCHES)


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
