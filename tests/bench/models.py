"""How long the shipped autofocus model takes on this machine's processor, by shape and threads, in turns."""

from time import perf_counter

import numpy as np

from engines.autofocus import Autofocus
from engines.load import load
from tests.bench.estimator import SHAPES

THREADS = (1, 2)
RUNS = 40


def measure(runs: int = RUNS) -> list[dict[str, object]]:
    models = {threads: Autofocus(load("autofocus", threads=threads)) for threads in THREADS}
    rows = []
    for shape in SHAPES:
        picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        took: dict[int, list[float]] = {threads: [] for threads in THREADS}
        for run in range(runs + 2):
            for threads, model in models.items():
                began = perf_counter()
                model.read(picture, 10e-9)
                if run >= 2:  # buffers are bound and arenas grown
                    took[threads].append(perf_counter() - began)
        rows += [_row(models[threads], shape, threads, seconds) for threads, seconds in took.items()]
    return rows


def _row(model: Autofocus, shape: tuple[int, int], threads: int, seconds: list[float]) -> dict[str, object]:
    return {
        "model": model.name,
        "backend": model.backend,
        "shape": list(shape),
        "threads": threads,
        "p50_ms": 1e3 * float(np.percentile(seconds, 50)),
        "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
    }
