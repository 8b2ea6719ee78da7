"""How long one frame takes: reference, detector, cascade, and all of it. Pictures made for the clock."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.defects_methods import Tree
from engines.cascade import Beside
from engines.defects import DefectFinder
from engines.reference import self_reference
from engines.scene import Scene, levels_of, padded

PRODUCT = (768, 1024)  # rows, columns of the frame that the target is for
MOST_SHAPES = 3  # of the sets, beside it
PITCH_PX, NOISE = 24.0, 25.0  # of the lines in the frame, grey levels
SPOTS, SPOT_PX = 20, 8  # as many finds as a bad frame has
SCENE = Scene(3e-9, 40.0, 1000.0)
LONGEST_S, FEWEST = 40.0, 4  # of one size
WARM = 2  # readings that are not counted: buffers, caches


@dataclass(frozen=True)
class Latency:
    """Seconds of wall clock; the slowest of the percentiles is the frame's own, not the sum of its stages'."""

    rows: int
    columns: int
    stage: str
    n: int
    p50_s: float
    p99_s: float


def shapes_of(seen: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The commonest sizes of the sets, and that of the product."""
    common = [shape for shape, _ in Counter(seen).most_common(MOST_SHAPES)]
    return tuple(sorted({*common, PRODUCT}))


def latencies(
    finder: DefectFinder, tree: Tree | None, shapes: Sequence[tuple[int, int]], *, repeats: int
) -> tuple[Latency, ...]:
    """A row for each stage of each shape."""
    return tuple(row for shape in shapes for row in _of(finder, tree, shape, repeats=repeats))


def frame(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Lines in noise with some bright spots: something repeats, and there are finds to sort and to judge."""
    rng, x = np.random.default_rng(0), np.arange(shape[1])
    lines = 110.0 + 60.0 * (np.sin(2.0 * np.pi * x / PITCH_PX) > 0.0) + rng.normal(0.0, NOISE, shape)
    for y, column in rng.integers(0, [max(side - SPOT_PX, 1) for side in shape], (SPOTS, 2)):
        lines[y : y + SPOT_PX, column : column + SPOT_PX] += 120.0
    return np.asarray(np.clip(lines, 0, 255), np.uint8)


def _of(finder: DefectFinder, tree: Tree | None, shape: tuple[int, int], *, repeats: int) -> list[Latency]:
    image = frame(shape)
    laps: list[dict[str, float]] = []
    ends = time.perf_counter() + LONGEST_S
    while len(laps) < FEWEST or (len(laps) < repeats + WARM and time.perf_counter() < ends):
        laps.append(_laps(finder, tree, image))
    laps = laps[WARM:]
    return [_row(shape, stage, [each[stage] for each in laps]) for stage in laps[0]]


def _laps(finder: DefectFinder, tree: Tree | None, image: NDArray[np.uint8]) -> dict[str, float]:
    """Stage -> seconds; `frame` is all of them. The depth model runs for every frame, cascade or none: not in it."""
    took: dict[str, float] = {}
    began = time.perf_counter()
    compares = finder.wants_reference or tree is not None
    reference = self_reference(image) if compares else None
    compared = time.perf_counter()
    shown = None if reference is None else padded(reference)
    found = finder.read(padded(image), SCENE, levels_of(image), reference=shown)[:SPOTS]
    ended = time.perf_counter()
    if compares:
        took["reference"] = compared - began
    took["detector"] = ended - compared
    if tree is not None:
        tree.cascade.judge(image, found, beside=Beside(reference=reference, scene=SCENE))
        took["cascade"] = time.perf_counter() - ended
    return took | {"frame": time.perf_counter() - began}


def _row(shape: tuple[int, int], stage: str, times: Sequence[float]) -> Latency:
    p50, p99 = np.percentile(times, (50, 99))
    return Latency(shape[0], shape[1], stage, len(times), float(p50), float(p99))
