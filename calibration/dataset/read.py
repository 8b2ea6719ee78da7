"""Datasets as they are read: a folder in, one verified shard after another out; never more than one in memory.

`for shard, rows in read.shards(folder, "train"): rows["image"]  # (n, h, w) uint8`
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from calibration.dataset import index
from calibration.dataset import shards as files
from calibration.dataset.errors import DatasetError
from calibration.dataset.index import Index, Shard
from calibration.dataset.shards import Arrays


class Found(msgspec.Struct, frozen=True):
    """What a check of every checksum found."""

    task: str
    seed: int
    generator: str
    frames: int
    geometries: int
    bytes: int
    by_split: dict[str, dict[str, int]]  # frames by layout family
    bad: tuple[str, ...]  # a sentence for each shard that is damaged or gone
    shared: tuple[str, ...]  # splits that show the same geometry: none should
    missing_frames: int  # planned, not made yet

    @property
    def good(self) -> bool:
        return not self.bad and not self.shared and not self.missing_frames


def shards(folder: Path, split: str | None = None) -> Iterator[tuple[Shard, Arrays]]:
    """The shards of a split, or all, in the index's order, each checked. Raises DatasetError naming a bad one."""
    held = index.read(folder)
    if split is not None:
        held.split(split)
    for shard in held.shards:
        if split is None or shard.split == split:
            yield shard, load(folder, shard)


def load(folder: Path, shard: Shard) -> Arrays:
    """One shard, checked. Raises DatasetError naming it."""
    return files.load(folder / shard.file, shard.sha256)


def verify(folder: Path, progress: Callable[[int, int], None] = lambda done, of: None) -> Found:
    """Reads every byte: checksums, rows, and that no geometry is in two splits."""
    held = index.read(folder)
    bad: list[str] = []
    owners: dict[tuple[int, int], str] = {}
    shared: set[str] = set()
    for number, shard in enumerate(held.shards, 1):
        try:
            rows = load(folder, shard)
        except DatasetError as error:
            bad.append(str(error))
        else:
            shared |= _claimed(rows, shard.split, owners)
        progress(number, len(held.shards))
    return _found(held, tuple(bad), tuple(sorted(shared)))


def _claimed(rows: Arrays, split: str, owners: dict[tuple[int, int], str]) -> set[str]:
    """Notes whose the geometries are; -> pairs of splits that have one in common."""
    pairs = set()
    for seed, number in rows.get("geometry", ()):
        owner = owners.setdefault((int(seed), int(number)), split)
        if owner != split:
            pairs.add(f"{owner} and {split}")
    return pairs


def _found(held: Index, bad: tuple[str, ...], shared: tuple[str, ...]) -> Found:
    by_split: dict[str, Counter[str]] = {split.name: Counter() for split in held.splits}
    for shard in held.shards:
        by_split[shard.split].update(shard.kinds)
    frames = sum(shard.frames for shard in held.shards)
    return Found(
        task=held.identity.task,
        seed=held.identity.seed,
        generator=held.identity.generator,
        frames=frames,
        geometries=sum(shard.geometries for shard in held.shards),
        bytes=sum(shard.bytes for shard in held.shards),
        by_split={name: dict(kinds) for name, kinds in by_split.items()},
        bad=bad,
        shared=shared,
        missing_frames=held.count - frames,
    )
