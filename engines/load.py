"""The only place that chooses a backend: a package's folder in, an engine that answers and one line of why out.

Order: tensorrt > tensorrt_rtx > onnxruntime_cuda > onnxruntime. `auto` counts a backend only where a device answers
and, for the first two, an engine of this very model was built and passed the parity gate; a backend asked for by name
is that one or an error, never another.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import onnxruntime as ort

from engines import admit
from engines.built import Built, Engine, NotBuiltError, Package, Shape
from engines.built import start as start_built
from engines.cuda import Device, probe
from engines.errors import BackendMissingError, CudaError, InferenceError, PackageError
from engines.listener import module
from engines.manifest import Manifest, read, read_twin
from engines.onnx import OnnxEngine
from engines.signature import FIRST, check_declared, read_first

MODELS = Path(__file__).parent / "models"  # the packages that came with beamside
BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda", "onnxruntime")  # the best first


@dataclass(frozen=True)
class Loaded:
    """A package in service."""

    engine: Engine
    manifest: Manifest
    reason: str  # which backend and why, one line


@dataclass(frozen=True)
class _Job:
    """What a backend needs to start."""

    package: Path
    manifest: Manifest
    model: bytes
    threads: int
    built: Built | None


def load(
    task: str, *, models: Path | None = None, backend: str = "auto", threads: int = 2, built: Built | None = None
) -> Loaded:
    """Check the package of `task`, start it and read a first picture; `built` is the same for all models of a process.

    Raises PackageError, BackendMissingError.
    """
    package = (models or MODELS) / task
    choose(backend)
    manifest, model = read(package)
    if manifest.task != task:
        raise PackageError(f"{package}: the manifest is for task {manifest.task!r}, not {task!r}")
    job = _Job(package, manifest, model, threads, built)
    try:
        engine, reason = _first_that_starts(job) if backend == "auto" else _that_one(job, backend)
    except PackageError as error:
        raise PackageError(f"{package}: {error}") from error
    return Loaded(engine, manifest, reason)


def _first_that_starts(job: _Job) -> tuple[Engine, str]:
    passed: list[str] = []
    for name in BACKENDS:
        missing = why_not(name)
        if missing is None:
            try:
                engine, which = START[name](job)
            except (NotBuiltError, BackendMissingError, CudaError) as error:
                missing = "; ".join(filter(None, (str(error), doubt(name))))
            else:
                return engine, f"{name}: {which}the best that answers here ({'; '.join(passed)})"
        passed.append(f"{name}: {missing}")
    raise BackendMissingError(f"no backend can serve: {'; '.join(passed)}")


def _that_one(job: _Job, name: str) -> tuple[Engine, str]:
    try:
        engine, which = START[name](job)
    except (NotBuiltError, CudaError) as error:
        raise BackendMissingError(f"{_asked(name)} {job.manifest.label} cannot run on it: {error}") from error
    return engine, f"{name}: {which}asked for by name"


def _asked(name: str) -> str:
    return f"backend {name} was asked for, but"


# --- what this machine has ---


def choose(backend: str = "auto") -> tuple[str, str]:
    """The best backend that this machine has, whatever was built, and one line of why. Raises BackendMissingError."""
    if backend == "auto":
        return _best()
    if backend not in BACKENDS:
        raise BackendMissingError(f"backend {backend!r} is unknown; known are auto, {', '.join(BACKENDS)}")
    missing = why_not(backend)
    if missing:
        raise BackendMissingError(
            f"{_asked(backend)} {missing}; install what is missing, or set engines.backend = 'auto'"
        )
    return backend, f"{backend}: asked for by name"


def _best() -> tuple[str, str]:
    passed: list[str] = []
    for name in BACKENDS:
        missing = why_not(name)
        if missing is None:
            return name, f"{name}: the best that answers here ({'; '.join(passed)})"
        passed.append(f"{name}: {missing}")
    raise BackendMissingError(f"no backend can serve: {'; '.join(passed)}")


def why_not(backend: str) -> str | None:
    """None where the backend can serve on this machine, else what it lacks."""
    if backend == "onnxruntime":
        return None
    if backend == "onnxruntime_cuda":
        missing = None if "CUDAExecutionProvider" in ort.get_available_providers() else "onnxruntime has no CUDA here"
    else:
        needed = {backend: backend, "cuda": "cuda-python"}  # import name -> package
        missing = next((f"the package {needed[name]} is not installed" for name in needed if not _has(name)), None)
    return missing or _no_device()


def doubt(backend: str) -> str | None:
    """What speaks against a backend that is there; it is tried all the same, for a list may be incomplete."""
    found = device()
    if backend != "tensorrt_rtx" or isinstance(found, str):
        return None
    with contextlib.suppress(BackendMissingError):
        trt = module(backend)
        listed = getattr(getattr(trt, "ComputeCapability", None), "__members__", ())
        if listed and f"SM{found.compute_capability.replace('.', '')}" not in listed:
            return f"{backend} {trt.__version__} does not list compute capability {found.compute_capability}"
    return None


def _has(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a half removed package
        return False


def _no_device() -> str | None:
    found = device()
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1)
def device() -> Device | str:
    """The device that engines are built for and run on, or why there is none; asked once a process."""
    return probe()


# --- starting each ---


def _start_onnx(job: _Job) -> tuple[Engine, str]:
    why = job.built.cache.distrusted if job.built else None
    here = admit.on_cpu(job.built.cache.folder) if job.built and not why else None
    engine, which = _session(job, here)
    try:
        read_first(engine, job.manifest)
    except InferenceError as error:
        raise PackageError(f"the model cannot read a picture: {error}") from error
    return engine, f"{which}no verdict is believed, {why}; " if why else which


def _start_onnx_cuda(job: _Job) -> tuple[Engine, str]:
    return _on_cuda(job, job.built.shapes if job.built else ())


def _on_cuda(job: _Job, shapes: Iterable[Shape]) -> tuple[Engine, str]:
    """shapes: those that are to be read without a pause for kernels and memory."""
    found = device()
    if isinstance(found, str):
        raise BackendMissingError(found)
    if job.built is None:
        raise NotBuiltError("no folder of verdicts was named")
    if job.built.cache.distrusted:
        raise NotBuiltError(job.built.cache.distrusted)
    engine, which = _session(job, admit.on_cuda(job.built.cache.folder, f"{found.name} {found.driver}"))
    _warm(engine, job, (FIRST, *shapes))
    return engine, which


def _session(job: _Job, here: admit.Here | None) -> tuple[Engine, str]:
    """The twin in fewer bits where the gate passed it on this machine, else float32, which on a GPU is gated too."""
    chosen = admit.admitted(job.package, job.manifest, job.model, here)
    if here is not None:
        _check_gated(job, here, chosen.precision)
    cuda = here is not None and here.backend == admit.CUDA
    engine = OnnxEngine(chosen.model, threads=job.threads, cuda=cuda, precision=chosen.precision)
    check_declared(job.manifest, engine)
    return engine, "" if here is None else f"{chosen.precision}, {chosen.why}; "


def _check_gated(job: _Job, here: admit.Here, precision: str) -> None:
    """The reference is ONNX Runtime on a CPU: on another device float32 has something to prove, on this one it must
    not be known to be wrong, for then nothing that was compared with it is right."""
    verdict = admit.read_verdict(here, job.manifest, admit.FULL)
    if here.backend == admit.CPU:
        if verdict is not None and not verdict.passed:
            raise NotBuiltError(
                "fp32 failed the parity gate on this processor: install another version of onnxruntime, or ask again "
                "with beamside engines verify --backend onnxruntime"
            )
    elif precision == admit.FULL:
        if verdict is None:
            raise NotBuiltError("fp32 was never compared with the CPU on this GPU: beamside engines build")
        if not verdict.passed:
            raise NotBuiltError("fp32 failed the parity gate on this GPU")


def _other(job: _Job, shapes: tuple[Shape, ...]) -> Engine:
    """For the shapes that no engine was built for."""
    if why_not(admit.CUDA) is None:
        with contextlib.suppress(BackendMissingError, NotBuiltError):
            return _on_cuda(job, shapes)[0]
    return _start_onnx(job)[0]


def _warm(engine: Engine, job: _Job, shapes: Iterable[Shape]) -> None:
    """The package may still be good where a device is not: the next backend is asked. Raises NotBuiltError."""
    try:
        read_first(engine, job.manifest, shapes)
    except InferenceError as error:
        raise NotBuiltError(f"it cannot read a picture: {error}") from error


def _start_tensorrt(name: str) -> Callable[[_Job], tuple[Engine, str]]:
    def start(job: _Job) -> tuple[Engine, str]:
        found = device()
        if job.built is None or isinstance(found, str):
            raise NotBuiltError("no folder of built engines was named" if job.built is None else str(found))
        models = {recipe: _precision(job, recipe) for recipe in job.built.recipes if _offers(job, recipe)}
        package = Package(job.manifest.label, job.manifest.name, models)
        other = partial(_other, job)
        engine, which = start_built(package, job.built, name, device=found, other=other)
        _warm(engine, job, sorted(engine.shapes))
        return engine, f"{which}; "

    return start


def _offers(job: _Job, recipe: str) -> bool:
    return recipe == admit.FULL or recipe in job.manifest.twins


def _precision(job: _Job, recipe: str) -> bytes:
    return job.model if recipe == admit.FULL else read_twin(job.package, job.manifest, recipe)


START: dict[str, Callable[[_Job], tuple[Engine, str]]] = {
    "tensorrt": _start_tensorrt("tensorrt"),
    "tensorrt_rtx": _start_tensorrt("tensorrt_rtx"),
    admit.CUDA: _start_onnx_cuda,
    admit.CPU: _start_onnx,
}
