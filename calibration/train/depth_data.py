"""Training fields for the depth model: a seed and an index in, pictures with exact heights out. numpy only.

One relief is looked at several times: the sky view is the dear part, another material, dose and probe are cheap.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.train.chunks import Arrays, gather, joined
from calibration.train.develop import CENTRED, Developed, develop, draw_look, draw_material, draw_pixel_m, times
from calibration.twin.emission import sky_view
from calibration.twin.relief import SURFACES
from calibration.twin.roughness import field
from calibration.twin.surface import Surface
from engines.scene import condition, levels_of

SIDE = 256
LOOKS = 3  # at one relief
PER_CHUNK = 60  # reliefs: half a minute's work at most is lost to an interruption
SHARES = {
    "lines": 0.15,
    "contacts": 0.15,
    "pillars": 0.08,
    "posts": 0.05,
    "pits": 0.12,
    "terraces": 0.1,
    "balls": 0.05,
    "rough": 0.1,
    "tip_to_tip": 0.03,
    "jogs": 0.03,
    "manhattan": 0.03,
    "logic": 0.03,
    "tin_balls": 0.02,
    "particles": 0.02,
    "fibres": 0.02,
    "grains": 0.01,
    "cells": 0.01,
}
KINDS = tuple(SHARES)
FINE_SHARE, COARSE_M = 0.75, (8e-9, 100e-9)  # patterns, and the coarser world that they are looked for in
BARE_SHARE = 0.6  # of reliefs: one stuff all over, where brightness does tell of height
GROUND_M = (0.0, 0.8e-9)  # rms of the roughness of every surface
Draw = Callable[[str, tuple[int, int], float, np.random.Generator], Surface]  # kind, shape, pixel size
TRAINING, TUNING, HELD_OUT = 0, 500_009, 1_000_003  # added to the seed: reliefs of one are never seen by another


@dataclass(frozen=True)
class Fields:
    """n pictures and their truth."""

    image: NDArray[np.uint8]  # (n, SIDE, SIDE)
    condition: NDArray[np.float32]  # (n, 8)
    height_px: NDArray[np.float16]  # (n, SIDE, SIDE), any zero
    pixel_size_m: NDArray[np.float32]  # (n,)
    kind: NDArray[np.uint8]  # (n,) index into KINDS

    def __len__(self) -> int:
        return len(self.image)


def generate(count: int, *, seed: int, folder: Path, progress: Callable[[int], None]) -> Fields:
    """`count` pictures, rounded up to whole chunks; chunks already in the folder are read back."""
    reliefs = -(-count // LOOKS)

    def tell(done: int) -> None:
        progress(min(done * LOOKS, count))

    make = partial(fields_of, seed=seed)
    return Fields(**gather(make, reliefs, per_chunk=PER_CHUNK, stem=folder / f"depth-{seed}", progress=tell))


def small(reliefs: int, *, seed: int, side: int = SIDE) -> Fields:
    """A few in this process."""
    return Fields(**joined([fields_of(index, seed=seed, side=side) for index in range(reliefs)]))


def drawn(kind: str, shape: tuple[int, int], pixel_size_m: float, rng: np.random.Generator) -> Surface:
    return SURFACES[kind](shape, pixel_size_m=pixel_size_m, rng=rng)


def fields_of(index: int, *, seed: int, side: int = SIDE) -> Arrays:
    """The pictures of one relief; the same seed and index give the same bytes."""
    rng = np.random.default_rng([seed, index])
    seen, kind = relief(rng, side=side)
    sky = sky_view(seen.height_m, pixel_size_m=seen.pixel_size_m)
    rows = [_row(seen, sky, kind, rng) for _ in range(LOOKS)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def relief(
    rng: np.random.Generator, *, side: int = SIDE, shares: dict[str, float] = SHARES, draw: Draw = drawn
) -> tuple[Surface, str]:
    """What is looked at, and its kind. shares: of the kinds."""
    kind = list(shares)[int(rng.choice(len(shares), p=np.array(list(shares.values())) / sum(shares.values())))]
    pixel_size_m = draw_pixel_m(rng) if rng.random() < FINE_SHARE else float(np.exp(rng.uniform(*np.log(COARSE_M))))
    seen = draw(kind, (side, side), pixel_size_m, rng)
    ground = np.float32(rng.uniform(*GROUND_M)) * field((side, side), size_px=1.2, rng=rng)
    material = None if rng.random() < BARE_SHARE else seen.material
    return replace(seen, height_m=seen.height_m + ground, material=material), kind


def _row(seen: Surface, sky: NDArray[np.float32], kind: str, rng: np.random.Generator) -> dict[str, Any]:
    look = draw_look(rng, pixel_size_m=seen.pixel_size_m, shading=CENTRED)
    material = times(seen.material, draw_material(seen.height_m, rng))
    shown = develop(seen.height_m, look, pixel_size_m=seen.pixel_size_m, sky=sky, material=material, rng=rng)
    return row_of(seen, shown) | {"kind": np.uint8(KINDS.index(kind))}


def row_of(seen: Surface, shown: Developed) -> dict[str, Any]:
    """A picture and its heights, as `Fields` has them."""
    scene = replace(shown.scene, pixel_size_m=seen.pixel_size_m)  # without it nothing is read
    return {
        "image": shown.pixels,
        "condition": condition(levels_of(shown.pixels), scene),
        "height_px": (seen.height_m / seen.pixel_size_m).astype(np.float16),
        "pixel_size_m": np.float32(seen.pixel_size_m),
    }


def above_lowest_px(height_px: NDArray[Any]) -> NDArray[np.float32]:
    """(n, h, w) heights above each field's own lowest plateau: the first percentile."""
    heights = np.asarray(height_px, np.float32)
    low = np.percentile(heights.reshape(len(heights), -1)[:, ::3], 1.0, axis=1)
    return np.asarray(heights - low[:, None, None], np.float32)
