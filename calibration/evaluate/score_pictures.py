"""Pictures for the score's table: a number and a seed in, labelled 256 px crops out, every kind in equal parts.

Drawn, blurred and developed as the autofocus training does, with seeds of their own; chunks stay in the work folder.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from calibration.train import labels, picture
from calibration.train.chunks import Arrays, gather
from calibration.train.data import PER_SCENE, Samples, developed, drawn, samples_of
from calibration.train.scenes import KINDS, Field

SEEDS = 2_000_003  # added to the seed: beyond those of every training's own sets
SCENES_PER_CHUNK = 5  # what an interruption loses at most


def rounded(pictures: int) -> int:
    """As many, and some more until each kind has the same number of scenes."""
    each = PER_SCENE * len(KINDS)
    return max(-(-pictures // each), 1) * each


def pictures(count: int, *, seed: int, folder: Path, progress: Callable[[int], None]) -> Samples:
    """`count` samples, a multiple of what `rounded` gives; the same seed and count give the same ones.

    Chunks already in the folder are read back. progress is told how many there are, and may raise to stop.
    """
    make = partial(of_scene, seed=seed + SEEDS)
    scenes = count // PER_SCENE
    stem = folder / "pictures"
    made = gather(make, scenes, per_chunk=SCENES_PER_CHUNK, stem=stem, progress=lambda done: progress(done * PER_SCENE))
    return Samples(**made)


def of_scene(index: int, *, seed: int) -> Arrays:
    """The samples of one scene; scenes take the kinds in turn."""
    kind = KINDS[index % len(KINDS)]
    return samples_of(index, seed=seed, draw=partial(_draw, kind), look=partial(_look, kind))


def scene_of(count: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """(count,): the scene that each sample was cut from. Crops of one scene share its specimen and its probes."""
    return np.arange(count) // PER_SCENE


def _draw(kind: str, _: str, used: labels.Probe, rng: np.random.Generator) -> Field:
    return drawn(kind, used, rng)


def _look(
    kind: str, emission: Field, used: labels.Probe, _: str, crop: int, rng: np.random.Generator
) -> Iterator[tuple[picture.Picture, str]]:
    return developed(emission, used, kind, crop, rng)
