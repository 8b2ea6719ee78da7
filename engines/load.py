"""The only place that chooses a backend: a package's folder in, an engine that answers and one line of why out.

Order: tensorrt > tensorrt_rtx > onnxruntime_cuda > onnxruntime. `auto` counts a backend only where a device answers;
a backend asked for by name is that one or an error, never another.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.errors import BackendMissingError, PackageError
from engines.manifest import Manifest, read
from engines.onnx import OnnxEngine

MODELS = Path(__file__).parent / "models"  # the packages that came with beamside
BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda", "onnxruntime")  # the best first


class Engine(Protocol):
    """What every backend offers."""

    backend: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class Loaded:
    """A package in service."""

    engine: Engine
    manifest: Manifest
    reason: str  # which backend and why, one line


def load(task: str, *, models: Path | None = None, backend: str = "auto", threads: int = 2) -> Loaded:
    """Check the package of `task` and start it. Raises PackageError, BackendMissingError."""
    package = (models or MODELS) / task
    chosen, reason = choose(backend)
    manifest, model = read(package)
    if manifest.task != task:
        raise PackageError(f"{package}: the manifest is for task {manifest.task!r}, not {task!r}")
    try:
        engine = START[chosen](model, threads)
    except PackageError as error:
        raise PackageError(f"{package}: {error}") from error
    _check_names(package, manifest, engine)
    return Loaded(engine, manifest, reason)


def choose(backend: str = "auto") -> tuple[str, str]:
    """The backend that serves here and one line of why. Raises BackendMissingError."""
    if backend == "auto":
        return _best()
    if backend not in BACKENDS:
        raise BackendMissingError(f"backend {backend!r} is unknown; known are auto, {', '.join(BACKENDS)}")
    missing = why_not(backend)
    if missing:
        raise BackendMissingError(
            f"backend {backend} was asked for, but {missing}; install what is missing, or set engines.backend = 'auto'"
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
        missing = None if find_spec(backend) else f"the package {backend} is not installed"
    missing = missing or _no_device()
    return missing or (None if backend in START else "this version of beamside cannot drive it yet")


@lru_cache(maxsize=1)
def _no_device() -> str | None:
    """None where an NVIDIA device answers. The driver's own library, so that a missing one is an answer too."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver"
    status = driver.cuInit(0)
    if status != 0:
        return f"the NVIDIA driver answers error {status}"
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or count.value == 0:
        return f"the NVIDIA driver finds no device (status {status})"
    return None


def _start_onnx(model: bytes, threads: int) -> Engine:
    return OnnxEngine(model, threads=threads)


START: dict[str, Callable[[bytes, int], Engine]] = {"onnxruntime": _start_onnx}


def _check_names(package: Path, manifest: Manifest, engine: Engine) -> None:
    said = tuple(t.name for t in manifest.inputs), tuple(t.name for t in manifest.outputs)
    if said != (engine.inputs, engine.outputs):
        raise PackageError(
            f"{package}: the manifest names {said[0]} -> {said[1]}, the graph has {engine.inputs} -> {engine.outputs}"
        )
