"""Datasets: the same seed gives the same bytes, a broken run is taken up again, and no geometry is in two splits."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.dataset import build, index, plan, read, shards, sources, splits, version
from calibration.dataset.errors import DatasetError, OrderError
from calibration.dataset.plan import Order
from calibration.dataset.sources import TASKS, Source, Task
from calibration.dataset.splits import DRAWN, Shift
from calibration.train import chunks

KINDS = ("lines", "contacts", "rough")
ORDER = Order("depth", 30, 5, frames_per_shard=4)


def drawn(number: int, seed: int, shift: Shift) -> shards.Arrays:
    """Three frames of one geometry, at once."""
    rng = np.random.default_rng([seed, number])
    kind = int(rng.integers(len(KINDS)))
    return {
        "image": rng.integers(0, 255, (3, 8, 8)).astype(np.uint8),
        "kind": np.full(3, kind, np.uint8),
        "pixel_size_m": np.full(3, 1e-9, np.float32),
    }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that takes no time, in the place of depth's."""
    monkeypatch.setitem(TASKS, "depth", Task(drawn, KINDS, ("calibration.train.depth_data",)))


def made(folder: Path, order: Order = ORDER, **how: Any) -> build.Built:
    options: dict[str, Any] = {"workers": 1, "force": False, "progress": lambda done, of: None} | how
    return build.build(order, folder, **options)


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- splits ---


@given(st.lists(st.integers(0, splits.LARGEST_SEED - 1), min_size=2, max_size=6, unique=True))
def test_no_two_splits_of_any_two_datasets_draw_from_the_same_seed(seeds: list[int]) -> None:
    found = [splits.generator_seed(seed, name) for seed in seeds for name in DRAWN]
    assert len(set(found)) == len(found)
    assert max(found) < 2**63  # the column of a shard holds it


@given(st.integers(1, 100_000))
def test_the_shares_add_up_to_the_count(count: int) -> None:
    shared = splits.shared_out(count, splits.chosen((), held_out=False))
    assert sum(shared.values()) == count
    assert all(abs(shared.get(name, 0) - count * DRAWN[name].share) <= 1.0 for name in DRAWN)


@given(st.integers(1, 200))
def test_a_count_that_is_said_to_be_enough_gives_each_split_a_frame(count: int) -> None:
    for held_out in (False, True):
        names = splits.chosen((), held_out=held_out)
        least = splits.least_count(names)
        assert set(splits.shared_out(max(count, least), names)) == set(names)
        assert set(splits.shared_out(least // 2, names)) < set(names)


def test_a_small_dataset_says_which_sets_it_lacks_until_they_are_there(tmp_path: Path, quick: None) -> None:
    shifted = [name for name in DRAWN if name.startswith(splits.SHIFTED) and name != splits.FAMILY]
    small = made(tmp_path, replace(ORDER, count=8)).index
    assert {split.name for split in small.splits} == {"train", "tune", "test"}
    assert [each.split for each in small.left_out] == shifted
    assert small.left_out[0].why == "no frame of 8 fell to it; a count of 40 gives each split one"
    assert index.read(tmp_path).left_out == small.left_out
    filled = made(tmp_path, replace(ORDER, count=4, splits=(splits.SHIFTED,))).index
    assert filled.left_out == ()
    only = made(tmp_path / "other", replace(ORDER, count=4, splits=("test",))).index
    assert only.left_out == ()  # what nobody asked for is not missing


def test_no_geometry_is_in_two_splits(tmp_path: Path, quick: None) -> None:
    made(tmp_path, replace(ORDER, count=300))
    owners: dict[tuple[int, ...], set[str]] = {}
    for shard, rows in read.shards(tmp_path):
        for geometry in rows["geometry"]:
            owners.setdefault(tuple(geometry), set()).add(shard.split)
    assert len(owners) >= 100
    assert all(len(names) == 1 for names in owners.values())


def test_a_geometry_in_two_splits_is_told(tmp_path: Path, quick: None) -> None:
    made(tmp_path)
    held = index.read(tmp_path)
    test = next(shard for shard in held.shards if shard.split == "test")
    stolen = replace_shard(tmp_path, test, read.load(tmp_path, next(s for s in held.shards if s.split == "train")))
    index.write(tmp_path, index.msgspec.structs.replace(held, shards=stolen))
    found = read.verify(tmp_path)
    assert found.shared == ("train and test",)
    assert not found.good


def replace_shard(folder: Path, shard: index.Shard, rows: shards.Arrays) -> tuple[index.Shard, ...]:
    digest = shards.write(folder / shard.file, rows)
    other = index.msgspec.structs.replace(shard, sha256=digest)
    return tuple(other if each == shard else each for each in index.read(folder).shards)


def test_a_family_held_out_is_in_no_split_but_its_own(tmp_path: Path, quick: None) -> None:
    made(tmp_path, replace(ORDER, count=120, held_out=("contacts",)))
    by_split = read.verify(tmp_path).by_split
    assert set(by_split[splits.FAMILY]) == {"contacts"}
    assert all("contacts" not in kinds for name, kinds in by_split.items() if name != splits.FAMILY)


# --- bytes ---


def test_one_worker_and_two_give_the_same_bytes(tmp_path: Path) -> None:
    order = Order("depth", 8, 3, splits=("train",), frames_per_shard=3)
    one, two = made(tmp_path / "one", order), made(tmp_path / "two", order, workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert one.frames_made == two.frames_made == 8


def test_another_seed_gives_other_frames(tmp_path: Path, quick: None) -> None:
    made(tmp_path / "one")
    made(tmp_path / "two", replace(ORDER, seed=6))
    images = [next(read.shards(tmp_path / name, "train"))[1]["image"] for name in ("one", "two")]
    assert not np.array_equal(*images)


def test_the_count_is_kept_to_the_frame_and_every_column_is_described(tmp_path: Path, quick: None) -> None:
    built = made(tmp_path)
    assert sum(len(rows["image"]) for _, rows in read.shards(tmp_path)) == 30
    assert built.index.count == 30
    for split in built.index.splits:
        assert {column.name for column in split.columns} == {"image", "kind", "pixel_size_m", "geometry"}
        image = next(column for column in split.columns if column.name == "image")
        assert (image.shape, image.dtype, image.unit) == ((8, 8), "uint8", "grey level")


@pytest.mark.parametrize("task", TASKS)
def test_a_generator_fills_every_split_it_offers(task: str) -> None:
    for name in DRAWN:
        if name == splits.FAMILY:
            continue
        rows = Source(task, name, 1).rows(0)
        assert rows is not None
        assert len({len(array) for array in rows.values()}) == 1
        assert rows["image"].dtype == np.uint8
        assert rows["geometry"][0].tolist() == [splits.generator_seed(1, name), 0]
        assert np.nanmin(rows["pixel_size_m"]) > 0.0


@pytest.mark.parametrize("split", ["test", "shifted-half-dose", "shifted-double-charging"])
def test_the_same_index_gives_the_same_frames(split: str) -> None:
    one, two = Source("depth", split, 1).rows(1), Source("depth", split, 1).rows(1)
    assert one is not None and two is not None
    assert shards.packed(one) == shards.packed(two)


def test_the_version_changes_with_a_file_far_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = version.version(["calibration.train.depth_data"])
    assert before == version.version(["calibration.train.depth_data"])
    real, other = version._source, tmp_path / "probe.py"
    path = real("calibration.twin.roughness")
    assert path is not None
    other.write_bytes(path.read_bytes() + b"# another word\n")
    monkeypatch.setattr(version, "_source", lambda name: other if name == "calibration.twin.roughness" else real(name))
    assert version.version(["calibration.train.depth_data"]) != before


# --- interrupted ---


def test_what_stands_is_kept_and_what_is_damaged_is_made_again(tmp_path: Path, quick: None) -> None:
    made(tmp_path)
    before = tree(tmp_path)
    first, second, third = sorted((tmp_path / "train").glob("*.npz"))[:3]
    stamp = first.stat().st_mtime_ns
    damaged = bytearray(second.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    second.write_bytes(bytes(damaged))
    third.unlink()
    found = read.verify(tmp_path)
    assert len(found.bad) == 2
    assert str(second) in found.bad[0]
    with pytest.raises(DatasetError, match=r"00001\.npz is damaged"):
        list(read.shards(tmp_path, "train"))
    again = made(tmp_path)
    assert again.frames_made == 8
    assert tree(tmp_path) == before
    assert first.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_disk_that_fills_ends_in_one_line_and_is_taken_up_again(
    number: int, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, [0]

    def full(handle: int) -> None:
        calls[0] += 1
        if calls[0] > number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match=r"No space left on device; .* run the same command again") as told:
        made(tmp_path / "broken")
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "broken").rglob("*.partial"))
    monkeypatch.setattr(os, "fsync", real)
    made(tmp_path / "broken")
    made(tmp_path / "whole")
    assert tree(tmp_path / "broken") == tree(tmp_path / "whole")


def test_a_killed_run_is_taken_up_again(tmp_path: Path) -> None:
    script = "\n".join(
        (
            "from pathlib import Path",
            "from calibration.dataset.build import build",
            "from calibration.dataset.plan import Order",
            "order = Order('depth', 24, 2, splits=('train',), frames_per_shard=3)",
            f"folder = Path({str(tmp_path / 'killed')!r})",
            "build(order, folder, workers=1, force=False, progress=lambda done, of: None)",
        )
    )
    child = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60.0
    while len(list((tmp_path / "killed").rglob("*.npz"))) < 2 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    whole = Order("depth", 24, 2, splits=("train",), frames_per_shard=3)
    again = made(tmp_path / "killed", whole)
    assert again.frames_kept >= 3
    assert read.verify(tmp_path / "killed").good
    stored = next(read.shards(tmp_path / "killed"))[1]
    assert np.array_equal(
        stored["image"], build.filled(plan.pieces(again.index.identity, again.index.splits[0])[0])["image"]
    )


def test_a_dataset_grows_and_shrinks_in_its_folder(tmp_path: Path, quick: None) -> None:
    made(tmp_path, replace(ORDER, splits=("train",), count=12))
    grown = made(tmp_path, replace(ORDER, splits=("train",), count=20))
    assert (grown.frames_kept, grown.frames_made) == (12, 8)
    made(tmp_path, replace(ORDER, splits=("test",), count=4))
    shrunk = made(tmp_path, replace(ORDER, splits=("train",), count=5))
    assert {split.name: split.frames for split in shrunk.index.splits} == {"train": 5, "test": 4}
    assert len(list((tmp_path / "train").glob("*.npz"))) == 2
    assert read.verify(tmp_path).good


# --- refused ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "defects"}, "its task is depth, not defects"),
        ({"seed": 6}, "its seed is 5, not 6"),
        ({"held_out": ("lines",)}, "its held-out families is none, not lines"),
    ],
)
def test_a_folder_of_another_dataset_is_refused_unless_forced(
    change: dict[str, Any], words: str, tmp_path: Path, quick: None
) -> None:
    made(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DatasetError, match=words):
        made(tmp_path, replace(ORDER, **change))
    assert tree(tmp_path) == before


def test_a_folder_of_another_version_is_refused_and_forced(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    monkeypatch.setattr(sources, "generator", lambda *_: "0123456789abcdef")
    with pytest.raises(DatasetError, match=r"another version of the generator .* --force"):
        made(tmp_path)
    assert made(tmp_path, force=True).frames_made == 30


def test_force_takes_nothing_away_that_is_no_dataset(tmp_path: Path, quick: None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not empty"):
        made(tmp_path)
    made(tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "colour"}, "unknown task 'colour'; known are autofocus, depth, defects"),
        ({"count": 0}, "a count of 0"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"splits": ("exam",)}, "unknown split 'exam'"),
        ({"held_out": ("clouds",)}, "no layout family 'clouds'"),
        ({"splits": (splits.FAMILY,)}, "--hold-out KIND"),
    ],
)
def test_an_order_that_cannot_be_filled_is_one_sentence(
    change: dict[str, Any], words: str, tmp_path: Path, quick: None
) -> None:
    with pytest.raises(OrderError, match=words):
        made(tmp_path, replace(ORDER, **change))


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path, quick: None) -> None:
    with build._alone(tmp_path), pytest.raises(DatasetError, match="another run is writing here"):
        made(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"identity": 3}'])
def test_a_corrupt_index_is_one_sentence(text: bytes, tmp_path: Path, quick: None) -> None:
    (tmp_path / index.INDEX).write_bytes(text)
    for act in (lambda: made(tmp_path), lambda: list(read.shards(tmp_path)), lambda: read.verify(tmp_path)):
        with pytest.raises(DatasetError, match=r"dataset\.json is not an index .* --force"):
            act()


# --- chunks ---


def test_a_damaged_chunk_of_a_training_is_drawn_again(tmp_path: Path) -> None:
    shards.write(tmp_path / "numbers-0000.npz", {"number": np.array([7, 8])})  # whole: it is read back
    shards.write(tmp_path / "numbers-0001.npz", {"number": np.array([9, 9])})
    (tmp_path / "numbers-0001.npz").write_bytes(b"half a fi")
    told: list[int] = []
    rows = chunks.gather(counted, 4, per_chunk=2, stem=tmp_path / "numbers", progress=told.append)
    assert rows["number"].tolist() == [7, 8, 2, 3]
    assert told == [2, 4]


def counted(number: int) -> shards.Arrays:
    return {"number": np.array([number])}
