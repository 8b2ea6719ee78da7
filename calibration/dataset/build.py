"""Makes a dataset in a folder, or what is missing of it: an order in, shards and their index out.

The index stands first and says that it is not complete; each shard is there whole or not at all; the full index comes
last. So a run that ends anywhere (killed, disk full) is taken up by the same command.
"""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from calibration.dataset import columns, index, plan, shards
from calibration.dataset.errors import DatasetError
from calibration.dataset.index import Column, Index, Shard, Split
from calibration.dataset.outside import Frame
from calibration.dataset.plan import Order, Piece
from calibration.dataset.rows_given import Given
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import OUTSIDE
from calibration.dataset.workers import pool
from calibration.twin.nuisances import NUISANCES
from engines.defects import CLASSES

Progress = Callable[[int, int], None]  # frames done, of
Outside = dict[str, Iterator[Frame]]  # frames by the name of their split


@dataclass(frozen=True)
class Made:
    """One shard that stands."""

    shard: Shard
    columns: tuple[Column, ...]
    cpu_s: float = 0.0  # 0: it was there already


@dataclass(frozen=True)
class Built:
    """What a run did."""

    index: Index
    frames_made: int
    frames_kept: int
    wall_s: float
    cpu_s: float  # of all workers


def build(
    order: Order, folder: Path, *, workers: int, force: bool, progress: Progress, outside: Outside | None = None
) -> Built:
    """Raises DatasetError in one sentence; what stands by then is whole, and is kept by the next run."""
    identity, drawn = plan.identity_of(order), plan.splits_of(order)
    began = time.perf_counter()
    try:
        with _alone(folder):
            there = _there(folder, identity, force)
            foreign = _write_outside(folder, outside or {})
            asked = (*drawn, *(split for split, _ in foreign))
            held = plan.together(there, asked)
            begun = Index(identity, 0, False, CLASSES, held, (), NUISANCES, plan.left_out(order, held, there))
            from_outside = [each for _, some in foreign for each in some]
            index.write(folder, _counted(begun, there, from_outside))
            made = _draw(folder, begun, _Way(workers, progress, order.given)) + from_outside
            done = _finished(folder, begun, there, made)
            index.write(folder, done)
    except OSError as error:
        raise DatasetError(_told(error, folder)) from error
    except BrokenProcessPool as error:
        raise DatasetError(
            f"{folder}: a worker process was ended from outside (out of memory?); shards that stand are kept: "
            "run the same command again, with --workers 1 for half the memory"
        ) from error
    fresh = [each for each in made if each.cpu_s]
    frames = sum(each.shard.frames for each in fresh)
    kept = sum(each.shard.frames for each in made) - frames
    return Built(done, frames, kept, time.perf_counter() - began, sum(each.cpu_s for each in fresh))


# --- the folder ---


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two runs in one folder would write over one another."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise DatasetError(f"{folder}: another run is writing here; wait for it, or give another folder") from error
    finally:
        os.close(handle)


def _there(folder: Path, identity: index.Identity, force: bool) -> Index | None:
    """The index of what may stay in this folder."""
    if force:
        _clear(folder)
        return None
    if not (folder / index.INDEX).exists():
        if any(folder.iterdir()):
            raise DatasetError(f"{folder} is not empty and holds no {index.INDEX}; give another folder, or --force")
        return None
    there = index.read(folder)
    wrong = plan.differs(there.identity, identity)
    if wrong:
        raise DatasetError(f"{folder} holds another dataset: {wrong}; give another folder, or --force to replace it")
    return there


def _clear(folder: Path) -> None:
    """Takes away what a dataset is made of, and nothing else that may lie in the folder."""
    (folder / index.INDEX).unlink(missing_ok=True)
    for path in folder.glob("*/[0-9][0-9][0-9][0-9][0-9].npz*"):
        path.unlink(missing_ok=True)


def _told(error: OSError, folder: Path) -> str:
    where = error.filename or folder
    return (
        f"{where}: {error.strerror}; shards that stand are whole and kept: mend that, then run the same command again"
    )


# --- shards ---


@dataclass(frozen=True)
class _Way:
    workers: int
    progress: Progress
    given: Given | None


def _draw(folder: Path, begun: Index, way: _Way) -> list[Made]:
    """Every shard of the drawn splits, in their order; those that stand are only checked."""
    drawn = [split for split in begun.splits if split.name not in OUTSIDE]
    pieces = [piece for split in drawn for piece in plan.pieces(begun.identity, split, way.given)]
    whole = sum(piece.frames for piece in pieces)
    made: dict[str, Made] = {}
    for split in drawn:
        (folder / split.name).mkdir(exist_ok=True)
    for each in _each(pieces, folder, way.workers):
        made[each.shard.file] = each
        way.progress(sum(one.shard.frames for one in made.values()), whole)
    return [made[piece.file] for piece in pieces]


def _each(pieces: list[Piece], folder: Path, workers: int) -> Iterator[Made]:
    if workers == 1:  # in this process: a debugger's and a test's friend
        yield from (stand(piece, folder) for piece in pieces)
        return
    with pool(workers) as processes:
        waiting = [processes.submit(stand, piece, folder) for piece in pieces]
        try:
            for ready in as_completed(waiting):
                yield ready.result()
        finally:
            processes.shutdown(cancel_futures=True)


def stand(piece: Piece, folder: Path) -> Made:
    """The shard of a piece: checked if it stands, made if not."""
    path = folder / piece.file
    rows = shards.intact(path)
    if rows is not None and len(rows["image"]) == piece.frames:
        return _made(path, rows, piece)
    began = time.process_time()
    rows = filled(piece)
    cpu_s = time.process_time() - began
    shards.write(path, rows)
    return _made(path, rows, piece, max(cpu_s, 1e-9))


def filled(piece: Piece) -> Arrays:
    """Geometries one after the other until the shard is full; the last one gives as many frames as still fit."""
    parts: list[Arrays] = []
    have = 0
    for number in piece.indices:
        rows = piece.source.rows(number)
        if rows is not None:
            parts.append(rows)
            have += len(rows["image"])
        if have >= piece.frames:
            break
    return {name: np.concatenate([part[name] for part in parts])[: piece.frames] for name in parts[0]}


def _made(path: Path, rows: Arrays, piece: Piece, cpu_s: float = 0.0) -> Made:
    shard = described(path, rows, split=piece.source.split, kinds=piece.source.kinds)
    return Made(shard, columns.columns_of(rows), cpu_s)


def described(path: Path, rows: Arrays, *, split: str, kinds: tuple[str, ...]) -> Shard:
    found = Counter(kinds[int(number)] for number in rows["kind"])
    return Shard(
        file=f"{split}/{path.name}",
        split=split,
        frames=len(rows["image"]),
        geometries=len(np.unique(rows["geometry"], axis=0)) if "geometry" in rows else len(rows["image"]),
        bytes=path.stat().st_size,
        sha256=shards.told(path) or "",
        kinds={name: found[name] for name in kinds if found[name]},
    )


def _write_outside(folder: Path, outside: Outside) -> list[tuple[Split, list[Made]]]:
    """One shard a frame; frames from outside are always read again: their folder may hold others by now."""
    written = []
    for name, frames in outside.items():
        (folder / name).mkdir(exist_ok=True)
        kinds: list[str] = []
        made: list[Made] = []
        for number, frame in enumerate(frames):
            if frame.kind not in kinds:
                kinds.append(frame.kind)
            rows = frame.rows | {"kind": np.array([kinds.index(frame.kind)], np.uint8)}
            path = folder / name / f"{number:05d}.npz"
            shards.write(path, rows)
            shard = described(path, rows, split=name, kinds=tuple(kinds))
            made.append(Made(shard, columns.columns_of(rows)))
        split = Split(name, OUTSIDE[name], None, len(made), tuple(kinds))
        written.append((_with_columns(split, made), made))
    return written


# --- the index ---


def _finished(folder: Path, begun: Index, there: Index | None, made: list[Made]) -> Index:
    """The index of all that stands; shards of a longer plan than this one's are taken away."""
    named = {each.shard.file for each in made}
    for old in there.shards if there else ():
        if old.file not in named and any(old.split == each.shard.split for each in made):
            shards.remove(folder / old.file)
    splits = [_with_columns(split, made) for split in begun.splits]
    complete = msgspec.structs.replace(begun, splits=tuple(splits), complete=True)
    return _counted(complete, there, made)


def _with_columns(split: Split, made: list[Made]) -> Split:
    """The split with the columns that its shards have in common."""
    own = split.columns
    for each in made:
        if each.shard.split == split.name:
            own = columns.merged(own, each.columns)
    return msgspec.structs.replace(split, columns=own)


def _counted(begun: Index, there: Index | None, made: list[Made]) -> Index:
    """With the shards that were made, and those of splits which this run did not touch."""
    names = [split.name for split in begun.splits]
    fresh = [each.shard for each in made]
    touched = {shard.split for shard in fresh}
    kept = [shard for shard in (there.shards if there else ()) if shard.split not in touched and shard.split in names]
    every = sorted((*kept, *fresh), key=lambda shard: (names.index(shard.split), shard.file))
    count = sum(split.frames for split in begun.splits)
    return msgspec.structs.replace(begun, shards=tuple(every), count=count)
