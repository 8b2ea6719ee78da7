"""All engines of a configuration: which could be, built, judged. Models and backends in, rows out, one by one."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

import msgspec

from agent.commands.makers import USUAL, Effort, Job, Maker, OnnxMaker, PlanMaker, Row, Shape
from engines import admit, autofocus, defects, depth, load, manifest
from engines.build import Backend
from engines.cache import Cache
from engines.cuda import Device
from engines.durable import distrust
from engines.errors import BackendMissingError, CacheError, ModelError, PackageError
from engines.golden import Golden, read_golden
from engines.listener import module

TASKS = (autofocus.TASK, depth.TASK, defects.TASK)


@dataclass
class Workshop:
    """Where models are, what they may be built with, and where the results go."""

    models: Path
    shapes: tuple[Shape, ...]
    makers: tuple[Maker, ...]
    named: bool  # the backend was asked for: what it lacks is an error, not an absence
    _golden: dict[str, Golden | str] = field(default_factory=dict)

    def jobs(self, maker: Maker) -> Iterator[Job]:
        """Raises PackageError."""
        packages = [self.models / task for task in TASKS if (self.models / task).is_dir()]
        if not packages:
            raise PackageError(f"{self.models}: no model package; expected one of {', '.join(TASKS)}")
        for package in packages:
            described, model = manifest.read(package)
            for precision in maker.precisions:
                if precision == "fp32" or precision in described.twins:
                    for shape in (None,) if maker.free_shapes else self.shapes:
                        yield Job(package, described, model, precision, shape)

    def __len__(self) -> int:
        return sum(1 for _ in self.all())

    def build(self) -> Iterator[Row]:
        """Each row with the gate's yes or no."""
        for row in self.make():
            yield msgspec.structs.replace(row, parity=row.passed)

    def make(self) -> Iterator[Row]:
        """Each row with the gate's report."""
        for maker, job in self.all():
            yield self.made(maker, job)

    def made(self, maker: Maker, job: Job) -> Row:
        """One engine, built or found, with the gate's report."""
        row = maker.make(job)
        return self._judged(maker, job, row) if row.ok else row

    def verify(self) -> Iterator[Row]:
        """Of what was built: each row with the gate's report."""
        for maker, job in self.all():
            row = maker.found(job)
            if row is not None:
                yield self._judged(maker, job, row) if row.ok else row
            elif self.named:
                why = "not built for this model and machine: beamside engines build"
                yield Row(
                    model=job.manifest.name,
                    precision=job.precision,
                    shape=job.shape,
                    backend=maker.backend,
                    ok=False,
                    parity=None,
                    error=why,
                )

    def list(self) -> Iterator[Row]:
        """What was built, and what the gate said of it last."""
        for maker, job in self.all():
            row = maker.found(job)
            if row is not None:
                yield row

    def all(self) -> Iterator[tuple[Maker, Job]]:
        for maker in self.makers:
            for job in self.jobs(maker):
                yield maker, job

    def _judged(self, maker: Maker, job: Job, row: Row) -> Row:
        if maker.device() is not None:
            return msgspec.structs.replace(row, parity=None)
        golden = self._set_of(job)
        if isinstance(golden, str):
            return msgspec.structs.replace(row, parity=None, error=golden)
        try:
            report = maker.judge(job, golden)
        except ModelError as error:
            return msgspec.structs.replace(row, ok=False, parity=None, error=str(error))
        return msgspec.structs.replace(row, parity=report, error="; ".join(report.failures) or None)

    def _set_of(self, job: Job) -> Golden | str:
        """Or why there is none: an engine that cannot be compared does not serve."""
        name = job.manifest.name
        if name not in self._golden:
            try:
                self._golden[name] = read_golden(job.package, job.manifest, job.model)
            except ModelError as error:
                self._golden[name] = str(error)
        return self._golden[name]


def makers(backend: str, folder: Path, effort: Effort = USUAL) -> tuple[Maker, ...]:
    """The one asked for, or all that are installed and can be imported. Raises BackendMissingError, CacheError."""
    if backend and backend not in load.BACKENDS:
        raise BackendMissingError(f"backend {backend!r} is unknown; known are {', '.join(load.BACKENDS)}")
    why = distrust(folder)
    if why is not None:
        raise CacheError(why)
    return tuple(_maker(name, folder, effort) for name in ((backend,) if backend else _installed()))


def absent(backends: Iterable[str] = load.BACKENDS) -> dict[str, str]:
    """Backend -> why it cannot serve here, of those that cannot."""
    found = {name: _broken(name) or load.why_not(name) for name in backends}
    return {name: why for name, why in found.items() if why is not None}


def doubts(backends: Iterable[str] = load.BACKENDS) -> list[str]:
    """What speaks against backends that are tried all the same."""
    return [doubt for name in backends if load.why_not(name) is None and (doubt := load.doubt(name)) is not None]


def _installed() -> Iterator[str]:
    for name in load.BACKENDS:
        if name == "onnxruntime_cuda":
            there = load.why_not(name) is None
        else:
            there = find_spec(name) is not None and _broken(name) is None
        if there:
            yield name


def _broken(name: str) -> str | None:
    """Why a builder that is installed cannot be imported: one broken package must not stop the others."""
    if name not in get_args(Backend) or find_spec(name) is None:
        return None
    try:
        module(name)
    except BackendMissingError as error:
        return str(error)
    return None


def _maker(name: str, folder: Path, effort: Effort) -> Maker:
    if name in get_args(Backend):
        return PlanMaker(cast(Backend, name), Cache(folder), effort)
    if name == admit.CPU:
        return OnnxMaker(admit.on_cpu(folder))
    device = load.device()
    missing = load.why_not(name)
    if missing or not isinstance(device, Device):
        raise BackendMissingError(f"backend {name} was asked for, but {missing or device}")
    return OnnxMaker(admit.on_cuda(folder, f"{device.name} {device.driver}"))
