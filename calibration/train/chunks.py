"""Training pictures in chunks on disk: a function from an index to arrays in, all of them joined out.

Chunks are the shards of a dataset: made in two processes, checked by their checksums and kept, so that an interrupted
training goes on where it stopped.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from calibration.dataset import shards
from calibration.dataset.shards import Arrays
from calibration.dataset.workers import pool

__all__ = ["Arrays", "gather", "joined"]


def gather(
    make: Callable[[int], Arrays], count: int, *, per_chunk: int, stem: Path, progress: Callable[[int], None]
) -> Arrays:
    """`make(index)` for index 0..count-1, rounded up to whole chunks, joined along the first axis.

    `make` can be pickled, and gives the same arrays for the same index. Files are `stem`-0000.npz and so on; progress
    is told how many indices are done. Raises OSError where the disk is full.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    chunks = -(-count // per_chunk)
    parts: list[Arrays] = []
    work = partial(_chunk, make=make, per_chunk=per_chunk, stem=stem)
    with pool(2) as workers:
        for path in workers.map(work, range(chunks)):
            parts.append(shards.load(path))
            progress(min(len(parts) * per_chunk, count))
    return joined(parts)


def joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _chunk(number: int, *, make: Callable[[int], Arrays], per_chunk: int, stem: Path) -> Path:
    path = stem.with_name(f"{stem.name}-{number:04d}.npz")
    if shards.intact(path) is None:
        shards.write(path, joined([make(index) for index in range(number * per_chunk, (number + 1) * per_chunk)]))
    return path
