"""How long readings take: in turns, so that whatever else the machine does befalls all alike. Nothing is asserted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

WARM_UP = 2  # buffers are bound and arenas grown in the first


@dataclass(frozen=True)
class Took:
    """Of one reader."""

    p50_s: float
    p99_s: float


def in_turns(reads: Mapping[str, Callable[[], object]], runs: int) -> dict[str, Took]:
    """One after the other, round and round."""
    took: dict[str, list[float]] = {name: [] for name in reads}
    for run in range(runs + WARM_UP):
        for name, read in reads.items():
            began = perf_counter()
            read()
            if run >= WARM_UP:
                took[name].append(perf_counter() - began)
    return {name: _figures(seconds) for name, seconds in took.items()}


def _figures(seconds: list[float]) -> Took:
    return Took(*(float(np.percentile(seconds, share)) for share in (50, 99)))
