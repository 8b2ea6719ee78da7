"""How each backend makes, judges and opens one engine: a model, a precision and a shape in, a row of facts out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Protocol

import msgspec

from engines import admit, load, manifest
from engines.build import TIMEOUT_S, Backend, Recipe, build
from engines.built import opened
from engines.cache import Builder, Cache, Facts, facts
from engines.cuda import NO_DEVICE, Cuda, Device
from engines.errors import BackendMissingError, ModelError
from engines.golden import Golden
from engines.listener import module
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.parity import Report, check
from engines.trt import TrtEngine, Uploads

Shape = tuple[int, int]
Opened = OnnxEngine | TrtEngine
THREADS = 2  # of ONNX Runtime
DAMAGED = "the plan is damaged: beamside engines build makes it again"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, as `beamside engines` prints it."""

    model: str
    precision: str
    shape: Shape | None  # None: any
    backend: str
    ok: bool  # it was built, or its session starts
    parity: bool | Report | None  # None: no device was asked yet; such an engine does not serve
    path: str | None = None
    bytes: int | None = None
    took_s: float | None = None
    error: str | None = None

    @property
    def passed(self) -> bool | None:
        return self.parity.passed if isinstance(self.parity, Report) else self.parity

    @property
    def failed(self) -> bool:
        return self.error is not None or not self.ok or self.passed is False


@dataclass(frozen=True)
class Job:
    """One engine that could be."""

    package: Path
    manifest: Manifest
    model: bytes  # float32
    precision: Recipe
    shape: Shape | None

    @property
    def onnx(self) -> bytes:
        """Raises PackageError."""
        full = self.precision == "fp32"
        return self.model if full else manifest.read_twin(self.package, self.manifest, self.precision)

    @property
    def file(self) -> Path:
        full = self.precision == "fp32"
        return self.package / (manifest.MODEL_FILE if full else manifest.twin_file(self.precision))


@dataclass(frozen=True)
class Effort:
    """What a build may take, and who hears how far it is: the engine, the share done 0..1, the builder's phase."""

    timeout_s: float = TIMEOUT_S
    progress: Callable[[str, float, str], None] = lambda engine, share, phase: None


USUAL = Effort()


class Maker(Protocol):
    """One backend."""

    backend: str
    precisions: tuple[Recipe, ...]
    free_shapes: bool  # one engine for all shapes

    def make(self, job: Job) -> Row:
        """Build it, or find it built. Never raises a ModelError: it is in the row."""
        ...

    def found(self, job: Job) -> Row | None:
        """What is there of it, and what the gate said last."""
        ...

    def device(self) -> str | None:
        """None where a device answers, else why not."""
        ...

    def judge(self, job: Job, golden: Golden) -> Report:
        """Ask the gate and keep its report. Raises ModelError."""
        ...

    def open(self, job: Job, threads: int = THREADS) -> Opened:
        """Raises ModelError."""
        ...


class OnnxMaker:
    """ONNX Runtime: the file is the engine."""

    free_shapes = True

    def __init__(self, here: admit.Here) -> None:
        self._here, self.backend = here, here.backend
        self._cuda = here.backend == admit.CUDA
        self.precisions: tuple[Recipe, ...] = ("fp32", "fp16") if self._cuda else ("fp32", "int8")

    def device(self) -> str | None:
        return load.why_not(self.backend)

    def make(self, job: Job) -> Row:
        began = perf_counter()
        row = self._row(job)
        if self.device() is None:
            try:
                self.open(job)
            except ModelError as error:
                row = msgspec.structs.replace(row, ok=False, error=str(error))
        return msgspec.structs.replace(row, took_s=perf_counter() - began)

    def found(self, job: Job) -> Row | None:
        verdict = admit.read_verdict(self._here, job.manifest, job.precision)
        return msgspec.structs.replace(self._row(job), parity=None if verdict is None else verdict.passed)

    def judge(self, job: Job, golden: Golden) -> Report:
        report = check(self.open(job).run, golden, precision=job.precision)
        admit.keep_verdict(self._here, job.manifest, job.precision, report=report.json(), passed=report.passed)
        return report

    def open(self, job: Job, threads: int = THREADS) -> Opened:
        return OnnxEngine(job.onnx, threads=threads, cuda=self._cuda, precision=job.precision)

    def _row(self, job: Job) -> Row:
        return Row(
            model=job.manifest.name,
            precision=job.precision,
            shape=None,
            backend=self.backend,
            ok=True,
            parity=None,
            path=str(job.file),
            bytes=len(job.onnx),
        )


class PlanMaker:
    """TensorRT or TensorRT-RTX: a plan for each shape, in the cache."""

    free_shapes = False
    # The INT8 twins have the unsigned activations that ONNX Runtime wants on a CPU; TensorRT takes signed ones only.
    precisions: tuple[Recipe, ...] = ("fp32", "fp16")

    def __init__(self, backend: Backend, cache: Cache, effort: Effort = USUAL) -> None:
        """Raises BackendMissingError where the package is not installed or cannot be imported."""
        self.backend: str = backend
        self._effort = effort
        self._module: Backend = backend
        self._cache = cache
        self._builder = Builder(module=backend, version=str(module(backend).__version__))

    def device(self) -> str | None:
        return load.why_not(self.backend)

    def make(self, job: Job) -> Row:
        began, row = perf_counter(), self._row(job)
        try:
            known = self._facts(job)
            plan = self._cache.get(known.key)
            if plan is None:
                plan = self._built(job)
                self._cache.put(plan, known)
            entry = self._cache.entry(known.key)
        except ModelError as error:
            return msgspec.structs.replace(row, error=str(error), took_s=perf_counter() - began)
        path = None if entry is None else str(entry.path)
        return msgspec.structs.replace(row, ok=True, path=path, bytes=len(plan), took_s=perf_counter() - began)

    def _built(self, job: Job) -> bytes:
        height, width = _one(job)
        return build(
            job.onnx,
            backend=self._module,
            recipe=job.precision,
            shape=(height, width),
            timeout_s=self._effort.timeout_s,
            progress=partial(self._effort.progress, f"{job.manifest.name} {job.precision} {height}x{width}"),
        )

    def found(self, job: Job) -> Row | None:
        """The plan is read for it: one changed byte is told, with a device or without."""
        key, row = self._facts(job).key, self._row(job)
        if self._cache.damaged(key):
            return msgspec.structs.replace(row, path=str(self._cache.folder / f"{key}.json"), error=DAMAGED)
        entry = self._cache.entry(key)
        if entry is None:
            return None
        return msgspec.structs.replace(row, ok=True, parity=entry.passed, path=str(entry.path), bytes=entry.bytes)

    def judge(self, job: Job, golden: Golden) -> Report:
        report = check(self.open(job).run, golden, precision=job.precision, shape=job.shape)
        self._cache.keep_report(self._facts(job).key, report.json(), passed=report.passed)
        return report

    def open(self, job: Job, threads: int = THREADS) -> Opened:
        key = self._facts(job).key
        if self._cache.entry(key) is None:
            raise BackendMissingError(f"{job.manifest.label} is not built for {job.shape} on {self.backend}")
        return opened(self._cache, key, backend=self.backend, cuda=self._driver, uploads=self.uploads)

    @cached_property
    def _driver(self) -> Cuda:
        return Cuda()

    @cached_property
    def uploads(self) -> Uploads:
        """One for all engines of this backend: a picture goes up once."""
        return Uploads(self._driver)

    def _facts(self, job: Job) -> Facts:
        device = load.device()
        known = device if isinstance(device, Device) else NO_DEVICE
        variant = job.precision, _one(job)
        return facts(job.manifest.name, job.onnx, builder=self._builder, device=known, variant=variant)

    def _row(self, job: Job) -> Row:
        return Row(
            model=job.manifest.name,
            precision=job.precision,
            shape=job.shape,
            backend=self.backend,
            ok=False,
            parity=None,
        )


def _one(job: Job) -> Shape:
    if job.shape is None:
        raise ValueError("a plan is built for one shape")
    return job.shape
