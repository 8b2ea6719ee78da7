"""Built engines on disk, found only by what they were built from: model bytes, builder, device, recipe, shape.

A plan is code and is only ever built here. It counts once its sidecar is in place, so that a power cut at any byte and
a second process leave either the whole entry or none. Beside it stands the report of the parity gate.
"""

import contextlib
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from engines.cuda import Device
from engines.durable import PARTIAL, distrust, locked, write_whole
from engines.errors import CacheError

FORMAT = 1
SEAL_BYTES = 32  # before what the run-time compiled: sha256 of it and of the plan it belongs to
REVISION = 1  # grows when engines/compiler.py makes another engine of the same: old plans must not outlive it
GIB = 1024**3
LIMIT_BYTES = 4 * GIB  # three models, three shapes, two backends are 0.3 GB
SIDECAR, REPORT, PLAN, KERNELS = ".json", ".parity", ".plan", ".kernels"
BESIDE = (SIDECAR, REPORT, KERNELS)  # of a plan, by key


class Builder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What builds and what will run."""

    module: str  # tensorrt, tensorrt_rtx
    version: str


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an engine depends on. `name` is for people and for keeping the last good one; the key ignores it."""

    name: str  # of the package: autofocus, depth, defects
    model_sha256: str  # of the ONNX bytes that were built, a twin's own
    builder: Builder
    device: Device
    recipe: str  # fp32, fp16, int8
    shape: tuple[int, int]  # h, w
    revision: int = REVISION  # of how we build

    @property
    def key(self) -> str:
        nameless = msgspec.structs.replace(self, name="")
        return sha256(msgspec.json.encode(nameless, order="sorted")).hexdigest()


class _Sidecar(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    key: str
    plan: str  # file name
    plan_sha256: str
    plan_bytes: int
    facts: Facts


class _Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    plan_sha256: str  # a report says nothing of a plan that was built again
    passed: bool
    report: msgspec.Raw


@dataclass(frozen=True)
class Entry:
    """One engine on disk."""

    key: str
    facts: Facts
    path: Path  # of the plan
    bytes: int
    passed: bool | None  # the parity gate; None: not yet asked
    used_ns: int  # when it was last written or read, by the file system's clock


def key(model: bytes, builder: Builder, *, device: Device, recipe: str, shape: tuple[int, int]) -> str:
    """Of the engine that these make."""
    return facts("", model, builder=builder, device=device, variant=(recipe, shape)).key


def facts(name: str, model: bytes, *, builder: Builder, device: Device, variant: tuple[str, tuple[int, int]]) -> Facts:
    """variant: recipe, (h, w)."""
    digest = sha256(model).hexdigest()
    return Facts(name=name, model_sha256=digest, builder=builder, device=device, recipe=variant[0], shape=variant[1])


class Cache:
    """One folder. Reading never fails: what cannot be trusted is not there."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    @property
    def distrusted(self) -> str | None:
        """Why nothing in the folder is used: others could put plans of their own into it. None where all is well."""
        return distrust(self.folder)

    # --- reading ---

    def get(self, key: str) -> bytes | None:
        """The plan, checked against its sidecar; a foreign, truncated or edited one is removed: None."""
        plan = self._plan(key)
        if plan is None and self._sidecar(key).exists():
            plan = self._second_look(key)
        if plan is not None:
            with contextlib.suppress(OSError):
                os.utime(self._sidecar(key))  # the least recently used goes first
        return plan

    def entries(self) -> list[Entry]:
        """What is there, by name, recipe and shape; plans are not read for it."""
        found = [self._entry(path) for path in self.folder.glob(f"*{SIDECAR}")]
        known = [entry for entry in found if entry is not None]
        return sorted(known, key=lambda e: (e.facts.name, e.facts.recipe, e.facts.shape, -e.used_ns))

    def entry(self, key: str) -> Entry | None:
        return self._entry(self._sidecar(key))

    def damaged(self, key: str) -> bool:
        """Something of it is there and it cannot be used: the plan was read for it."""
        # Between two looks another process may have put a new one in place.
        return self._sidecar(key).exists() and self._plan(key) is None and self._plan(key) is None

    def kernels(self, key: str) -> bytes | None:
        """What the run-time compiled of the plan that is there now; damaged or of another plan: None."""
        sidecar = self._read_sidecar(self._sidecar(key))
        try:
            data = (self.folder / f"{key}{KERNELS}").read_bytes()
        except OSError:
            return None
        seal, compiled = data[:SEAL_BYTES], data[SEAL_BYTES:]
        return compiled if sidecar is not None and seal == _seal(sidecar.plan_sha256, compiled) else None

    def report(self, key: str) -> bytes | None:
        """JSON of the parity gate on the plan that is there now."""
        sidecar, known = self._read_sidecar(self._sidecar(key)), self._read_report(key)
        if sidecar is None or known is None or known.plan_sha256 != sidecar.plan_sha256:
            return None
        return bytes(known.report)

    # --- writing ---

    def put(self, plan: bytes, facts: Facts) -> Path:
        """Keep a plan, then make room. Raises CacheError; what was there before is still there."""
        digest = sha256(plan).hexdigest()
        name = f"{facts.key}-{digest[:16]}{PLAN}"
        sidecar = _Sidecar(
            format=FORMAT, key=facts.key, plan=name, plan_sha256=digest, plan_bytes=len(plan), facts=facts
        )
        with locked(self.folder):
            write_whole(self.folder / name, plan)
            write_whole(self._sidecar(facts.key), msgspec.json.format(msgspec.json.encode(sidecar), indent=1))
            self._sweep(keep=facts.key)
        return self.folder / name

    def keep_report(self, key: str, report: bytes, *, passed: bool) -> None:
        """report: JSON of the parity gate on the plan under `key`. Raises CacheError."""
        with locked(self.folder):
            sidecar = self._read_sidecar(self._sidecar(key))
            if sidecar is None:
                raise CacheError(f"{self.folder}: no engine {key[:12]} to keep a report for; build it again")
            known = _Report(plan_sha256=sidecar.plan_sha256, passed=passed, report=msgspec.Raw(report))
            write_whole(self.folder / f"{key}{REPORT}", msgspec.json.encode(known))

    def keep_kernels(self, key: str, compiled: bytes) -> None:
        """What the run-time compiled of the plan under `key`; gone without harm. Raises CacheError."""
        with locked(self.folder):
            sidecar = self._read_sidecar(self._sidecar(key))
            if sidecar is not None:
                write_whole(self.folder / f"{key}{KERNELS}", _seal(sidecar.plan_sha256, compiled) + compiled)

    def remove(self, key: str) -> None:
        """Take an engine out. Raises CacheError."""
        with locked(self.folder):
            self._drop(key)
            self._sweep(keep="")

    # --- on disk ---

    def _sidecar(self, key: str) -> Path:
        return self.folder / f"{key}{SIDECAR}"

    def _plan(self, key: str) -> bytes | None:
        sidecar = self._read_sidecar(self._sidecar(key))
        if sidecar is None:
            return None
        try:
            plan = (self.folder / sidecar.plan).read_bytes()
        except OSError:
            return None
        return plan if sha256(plan).hexdigest() == sidecar.plan_sha256 else None

    def _read_sidecar(self, path: Path) -> _Sidecar | None:
        if self.distrusted:
            return None
        try:
            sidecar = msgspec.json.decode(path.read_bytes(), type=_Sidecar)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None
        # The name, the key and what the key is made of must agree: a renamed or edited sidecar is foreign.
        same = sidecar.key == path.name.removesuffix(SIDECAR) == sidecar.facts.key
        beside = sidecar.plan == f"{sidecar.key}-{sidecar.plan_sha256[:16]}{PLAN}"
        return sidecar if same and beside and sidecar.format == FORMAT else None

    def _read_report(self, key: str) -> _Report | None:
        try:
            return msgspec.json.decode((self.folder / f"{key}{REPORT}").read_bytes(), type=_Report)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def _entry(self, path: Path) -> Entry | None:
        sidecar = self._read_sidecar(path)
        if sidecar is None:
            return None
        plan = self.folder / sidecar.plan
        try:
            size, used_ns = plan.stat().st_size, path.stat().st_mtime_ns
        except OSError:
            return None
        if size != sidecar.plan_bytes:
            return None
        report = self._read_report(sidecar.key)
        stands = report is not None and report.plan_sha256 == sidecar.plan_sha256
        passed = report.passed if report is not None and stands else None
        return Entry(sidecar.key, sidecar.facts, plan, size, passed, used_ns)

    def _drop(self, key: str) -> None:
        for ending in BESIDE:
            with contextlib.suppress(OSError):
                (self.folder / f"{key}{ending}").unlink()

    def _second_look(self, key: str) -> bytes | None:
        """Alone with the folder: another process may just have built it again. What is bad now is removed."""
        plan = None
        with contextlib.suppress(CacheError), locked(self.folder):
            plan = self._plan(key)
            if plan is None:
                self._drop(key)
                self._sweep(keep="")
        return plan

    def _sweep(self, keep: str) -> None:
        """Debris of interrupted writes, plans that no sidecar names, then the least recently used ones."""
        entries = self.entries()
        named = {name for e in entries for name in (e.path.name, *(f"{e.key}{ending}" for ending in BESIDE))}
        for path in self.folder.iterdir():
            if path.name.endswith((PARTIAL, PLAN, *BESIDE)) and path.name not in named:
                with contextlib.suppress(OSError):
                    path.unlink()
        self._make_room(entries, keep)

    def _make_room(self, entries: list[Entry], keep: str) -> None:
        size = {entry.key: entry.bytes + self._kernel_bytes(entry.key) for entry in entries}
        used = sum(size.values())
        kept = {keep, *(max(group, key=_goodness).key for group in _groups(entries))}
        for entry in sorted(entries, key=lambda e: e.used_ns):
            if used <= self.limit_bytes:
                return
            if entry.key not in kept:
                self._drop(entry.key)
                with contextlib.suppress(OSError):
                    entry.path.unlink()
                used -= size[entry.key]

    def _kernel_bytes(self, key: str) -> int:
        with contextlib.suppress(OSError):
            return (self.folder / f"{key}{KERNELS}").stat().st_size
        return 0


def _seal(plan_sha256: str, data: bytes) -> bytes:
    return sha256(plan_sha256.encode() + data).digest()


def _goodness(entry: Entry) -> tuple[bool, bool, int]:
    """Passed the gate, or was at least not refused; then the latest."""
    return entry.passed is True, entry.passed is not False, entry.used_ns


def _groups(entries: list[Entry]) -> list[list[Entry]]:
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        known = entry.facts
        groups.setdefault((known.name, known.builder.module, known.recipe, known.shape), []).append(entry)
    return list(groups.values())
