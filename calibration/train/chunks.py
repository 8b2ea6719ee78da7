"""Training pictures in chunks on disk: a function from an index to arrays in, all of them joined out.

Chunks are made in two processes and kept, so that an interrupted training goes on where it stopped.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]  # each of the same length


def gather(
    make: Callable[[int], Arrays], count: int, *, per_chunk: int, stem: Path, progress: Callable[[int], None]
) -> Arrays:
    """`make(index)` for index 0..count-1, rounded up to whole chunks, joined along the first axis.

    `make` can be pickled, and gives the same arrays for the same index. Files are `stem`-0000.npz and so on; progress
    is told how many indices are done.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    chunks = -(-count // per_chunk)
    parts: list[Arrays] = []
    work = partial(_chunk, make=make, per_chunk=per_chunk, stem=stem)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for path in pool.map(work, range(chunks)):
            with np.load(path) as stored:
                parts.append({name: stored[name] for name in stored.files})
            progress(min(len(parts) * per_chunk, count))
    return joined(parts)


def joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _chunk(number: int, *, make: Callable[[int], Arrays], per_chunk: int, stem: Path) -> Path:
    path = stem.with_name(f"{stem.name}-{number:04d}.npz")
    if not path.exists():
        made = joined([make(index) for index in range(number * per_chunk, (number + 1) * per_chunk)])
        partial_path = path.with_suffix(".partial")
        with partial_path.open("wb") as out:
            np.savez(out, allow_pickle=False, **made)
        partial_path.replace(path)
    return path
