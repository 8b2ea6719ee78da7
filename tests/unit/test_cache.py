"""Built engines on disk: the right one or none, whatever happened to the folder."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engines import durable
from engines.cache import Builder, Cache, Facts, facts, key
from engines.cuda import NO_DEVICE, Device
from engines.errors import CacheError

ROOT = Path(__file__).parents[2]
MODEL = bytes(range(256)) * 20
BUILDER = Builder(module="tensorrt_rtx", version="1.7.1.116")
DEVICE = Device(name="NVIDIA H200", compute_capability="9.0", sm_count=132, driver="580.65 cuda 13000")
VARIANT = ("fp16", (768, 1024))


def made(model: bytes = MODEL, name: str = "depth", **changes: Any) -> Facts:
    known = facts(name, model, builder=BUILDER, device=DEVICE, variant=VARIANT)
    return msgspec.structs.replace(known, **changes)


def plan(size: int = 5000, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "engines")


def files(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.iterdir()} - {durable.LOCK}


def test_a_plan_comes_back_as_it_was_put(cache: Cache) -> None:
    known = made()
    path = cache.put(plan(), known)
    assert cache.get(known.key) == plan() == path.read_bytes()
    assert known.key == key(MODEL, BUILDER, device=DEVICE, recipe="fp16", shape=(768, 1024))
    (entry,) = cache.entries()
    assert (entry.key, entry.facts, entry.bytes, entry.passed) == (known.key, known, 5000, None)
    assert json.loads((cache.folder / f"{known.key}.json").read_text())["facts"]["device"]["sm_count"] == 132


CHANGES = {
    "builder": Builder(module="tensorrt_rtx", version="1.7.2.0"),
    "builder module": Builder(module="tensorrt", version="1.7.1.116"),
    "device": NO_DEVICE,
    "device's share": msgspec.structs.replace(DEVICE, sm_count=16),  # a slice of the same GPU
    "driver": msgspec.structs.replace(DEVICE, driver="590.1 cuda 13010"),
    "recipe": "fp32",
    "shape": (1024, 768),
    "revision": 2,
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_an_engine_depends_on_makes_another_key(cache: Cache, what: str) -> None:
    cache.put(plan(), made())
    other = made(**{what.split()[0].removesuffix("'s").replace("driver", "device"): CHANGES[what]})
    assert other.key != made().key
    assert cache.get(other.key) is None


def test_one_changed_byte_of_the_model_never_meets_the_old_engine(cache: Cache) -> None:
    cache.put(plan(), made())
    random = np.random.default_rng(5)
    for place, bit in zip(random.integers(0, len(MODEL), 50), random.integers(0, 8, 50), strict=True):
        changed = bytearray(MODEL)
        changed[place] ^= 1 << int(bit)
        assert cache.get(made(bytes(changed)).key) is None
    assert cache.get(made().key) == plan()


def test_the_name_is_for_people_and_not_part_of_the_key() -> None:
    assert made(name="depth").key == made(name="heights").key


# --- what may have happened to the folder ---


@pytest.mark.parametrize("offset", [0, 1, 17, 2500, 4999])
def test_a_truncated_plan_is_removed_and_not_answered(cache: Cache, offset: int) -> None:
    path = cache.put(plan(), made())
    path.write_bytes(plan()[:offset])
    assert cache.entries() == [] and cache.get(made().key) is None
    assert files(cache) == set()
    cache.put(plan(), made())
    assert cache.get(made().key) == plan()


def test_a_plan_with_one_changed_byte_is_removed(cache: Cache) -> None:
    path = cache.put(plan(), made())
    edited = bytearray(plan())
    edited[1234] ^= 1
    path.write_bytes(edited)
    assert cache.get(made().key) is None
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00" * 50, '{"format": 1}'])
def test_a_sidecar_that_is_none_is_nothing(cache: Cache, text: str) -> None:
    cache.put(plan(), made())
    (cache.folder / f"{made().key}.json").write_text(text)
    assert cache.get(made().key) is None
    assert files(cache) == set()


def test_a_plan_under_the_name_of_another_model_is_foreign(cache: Cache) -> None:
    cache.put(plan(), made())
    mine = made(b"another model")
    for name in files(cache):
        (cache.folder / name).rename(cache.folder / name.replace(made().key, mine.key))
    assert cache.get(mine.key) is None and cache.entries() == []


def test_an_edited_sidecar_is_foreign_although_its_plan_is_whole(cache: Cache) -> None:
    cache.put(plan(), made())
    path = cache.folder / f"{made().key}.json"
    path.write_text(path.read_text().replace("132", "108"))
    assert cache.get(made().key) is None


def test_a_power_cut_at_any_byte_leaves_the_old_engine_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    real, steps = {"write": os.fsync, "replace": Path.replace}, [0]

    def cut(name: str) -> Any:
        def step(*arguments: Any) -> Any:
            steps[0] -= 1
            if steps[0] == 0:
                if name == "write" and stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                    # Half of the file has reached the disk.
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                raise PowerCut
            return real[name](*arguments)

        return step

    monkeypatch.setattr(durable.os, "fsync", cut("write"))
    monkeypatch.setattr(Path, "replace", cut("replace"))
    outcomes = []
    for moment in range(1, 12):
        steps[0] = 0
        cache = Cache(tmp_path / str(moment))
        cache.put(plan(seed=1), made())
        steps[0] = moment
        try:
            cache.put(plan(seed=2), made())
        except PowerCut:
            outcomes.append(Cache(cache.folder).get(made().key))
        steps[0] = 0
        cache.put(plan(seed=3), made())  # and the next build cleans up
        assert cache.get(made().key) == plan(seed=3)
        assert len(files(cache)) == 2
    assert len(outcomes) >= 6
    assert set(outcomes) == {plan(seed=1), plan(seed=2)}


WRITER = """
import sys
from pathlib import Path
from tests.unit.test_cache import Cache, made, plan
cache = Cache(Path(sys.argv[1]))
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    cache.put(plan(200_000, seed=turn), made())
"""


def writer(folder: Path, turns: int) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(turns)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


def test_two_processes_and_a_reader_see_only_whole_plans(tmp_path: Path) -> None:
    cache, turns = Cache(tmp_path / "engines"), 15
    whole = {plan(200_000, seed=turn) for turn in range(turns)}
    cache.put(plan(200_000, seed=0), made())
    writers = [writer(cache.folder, turns) for _ in range(2)]
    deadline = time.monotonic() + 60.0
    seen = 0
    while any(child.poll() is None for child in writers) and time.monotonic() < deadline:
        assert cache.get(made().key) in whole
        seen += 1
    assert [child.wait(timeout=10.0) for child in writers] == [0, 0]
    for child in writers:
        assert child.stdout is not None
        child.stdout.close()
    assert seen and cache.get(made().key) == plan(200_000, seed=turns - 1)
    assert len(files(cache)) == 2


def test_a_writer_that_is_killed_blocks_nobody_and_leaves_no_debris(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "engines")
    cache.put(plan(200_000, seed=0), made())
    child = writer(cache.folder, 100_000)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10.0)
    assert child.stdout is not None
    child.stdout.close()
    (cache.folder / f"{'0' * 64}.json.partial").write_bytes(b"{")  # as if in the middle of a write
    cache.put(plan(seed=9), made())
    assert cache.get(made().key) == plan(seed=9)
    assert len(files(cache)) == 2


def test_a_plan_with_one_changed_byte_is_damaged_and_one_never_built_is_not(cache: Cache) -> None:
    assert not cache.damaged(made().key)
    path = cache.put(plan(), made())
    assert not cache.damaged(made().key)
    for spoiled in (plan()[:-1], bytes([plan()[0] ^ 1]) + plan()[1:]):
        path.write_bytes(spoiled)
        assert cache.damaged(made().key)
    path.unlink()
    assert cache.damaged(made().key)
    (cache.folder / f"{made().key}.json").write_text("{")
    assert cache.damaged(made().key)


def test_what_was_compiled_of_a_plan_is_kept_whole_and_for_that_plan_alone(cache: Cache) -> None:
    known, path = made(), cache.folder / f"{made().key}.kernels"
    cache.put(plan(seed=1), known)
    assert cache.kernels(known.key) is None
    cache.keep_kernels(known.key, b"compiled" * 100)
    assert cache.kernels(known.key) == b"compiled" * 100
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], whole[:-1] + b"x", b"x" + whole[1:]):
        path.write_bytes(damaged)
        assert cache.kernels(known.key) is None and cache.get(known.key) == plan(seed=1)
    path.write_bytes(whole)
    cache.put(plan(seed=2), known)
    assert cache.kernels(known.key) is None
    cache.remove(known.key)
    cache.keep_kernels(known.key, b"of nothing")
    assert files(cache) == set()


# --- room ---


def aged(cache: Cache, known: Facts, seconds: int) -> None:
    os.utime(cache.folder / f"{known.key}.json", ns=(0, (1_700_000_000 + seconds) * 10**9))


def put_row(cache: Cache, count: int) -> list[Facts]:
    row = [made(bytes([n])) for n in range(count)]
    for n, known in enumerate(row):
        cache.put(plan(1000, seed=n), known)
        aged(cache, known, n)
    return row


def test_the_least_recently_used_goes_when_there_is_no_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "engines", limit_bytes=3500)
    old, middle, new = put_row(cache, 3)
    assert cache.get(old.key) is not None  # read last: now the latest
    latest = made(b"latest")
    cache.put(plan(1000), latest)
    assert [cache.entry(known.key) is not None for known in (old, middle, new, latest)] == [True, False, True, True]
    assert len(files(cache)) == 6


def test_the_last_known_good_is_never_the_one_to_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "engines", limit_bytes=10_000)
    good, refused, _ = put_row(cache, 3)
    cache.keep_report(good.key, b'{"figures": []}', passed=True)
    cache.keep_report(refused.key, b"{}", passed=False)
    cache.limit_bytes = 1500
    other = made(b"other", shape=(1024, 1536))
    cache.put(plan(1000), other)
    assert {entry.key for entry in cache.entries()} == {good.key, other.key}


def test_a_report_belongs_to_one_plan(cache: Cache) -> None:
    known = made()
    cache.put(plan(seed=1), known)
    cache.keep_report(known.key, b'{"score":0.01}', passed=True)
    entry = cache.entry(known.key)
    assert entry is not None and entry.passed is True
    assert cache.report(known.key) == b'{"score":0.01}'
    cache.put(plan(seed=2), known)
    entry = cache.entry(known.key)
    assert entry is not None and entry.passed is None and cache.report(known.key) is None
    with pytest.raises(CacheError, match="no engine"):
        cache.keep_report(made(b"never built").key, b"{}", passed=True)


def test_an_engine_taken_out_leaves_nothing(cache: Cache) -> None:
    cache.put(plan(), made())
    cache.keep_report(made().key, b"{}", passed=True)
    cache.remove(made().key)
    assert files(cache) == set()


# --- who may write ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_the_old_engine_stays(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    cache.put(plan(), made())

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", full)
        with pytest.raises(CacheError, match=r"the disk is full; 9 MB are needed"):
            cache.put(plan(9_000_000), made())
    assert cache.get(made().key) == plan()
    assert len(files(cache)) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "engines")
    with pytest.raises(CacheError, match=r"file/engines: .*set state_dir to another one"):
        cache.put(plan(), made())
    assert cache.entries() == [] and cache.get(made().key) is None


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_nothing_of_a_folder_that_others_can_write_is_used_and_nothing_is_put_there(cache: Cache, mode: int) -> None:
    cache.put(plan(), made())
    cache.keep_kernels(made().key, b"kernels")
    assert cache.distrusted is None
    cache.folder.chmod(mode)
    assert "a plan is code" in (cache.distrusted or "") and "chmod 755" in (cache.distrusted or "")
    assert cache.get(made().key) is None and cache.kernels(made().key) is None and cache.entries() == []
    with pytest.raises(CacheError, match="a plan is code"):
        cache.put(plan(), made())
    cache.folder.chmod(0o755)
    assert cache.get(made().key) == plan()  # distrust removes nothing


def test_no_file_can_be_written_by_others_whatever_the_umask(cache: Cache) -> None:
    before = os.umask(0)
    try:
        cache.put(plan(), made())
    finally:
        os.umask(before)
    assert all(not path.stat().st_mode & 0o022 for path in [cache.folder, *cache.folder.iterdir()])
