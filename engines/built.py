"""The engines that were built for this very model and machine and passed the parity gate, as one engine for all shapes.

Nothing is built here: a shape without an engine runs on ONNX Runtime, and `lacks` says so.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engines.cache import Builder, Cache, facts
from engines.channels import size_of
from engines.cuda import Cuda, Device
from engines.errors import CacheError, CudaError, ModelError, PlanError
from engines.listener import module
from engines.trt import TrtEngine, Uploads

log = logging.getLogger(__name__)
Shape = tuple[int, int]
SHAPES: tuple[Shape, ...] = ((768, 1024), (1024, 1536), (2048, 3072))
RECIPES = ("fp16", "fp32")  # the first that passed serves; INT8 only by name: whether it is faster, a bench must show


class Engine(Protocol):
    """What every backend offers."""

    backend: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]: ...


class NotBuiltError(ModelError):
    """The backend answers here, but no engine of this model may serve on it."""


class Built:
    """Where built engines are and which may serve; one for all models, so that they share each picture's upload."""

    def __init__(
        self,
        cache: Cache,
        *,
        shapes: tuple[Shape, ...] = SHAPES,
        recipes: tuple[str, ...] = RECIPES,
        open_device: Callable[[], Cuda] = Cuda,
    ) -> None:
        self.cache, self.shapes, self.recipes = cache, shapes, recipes
        self._open_device = open_device
        self._in_use = False

    @cached_property
    def cuda(self) -> Cuda:
        return self._open_device()

    @cached_property
    def uploads(self) -> Uploads:
        self._in_use = True
        return Uploads(self.cuda)

    def share(self, image: NDArray[np.uint8]) -> None:
        """The models are about to read this very array, which does not change meanwhile. Raises InferenceError."""
        if self._in_use:
            self.uploads.share(image)


@dataclass(frozen=True)
class Package:
    """A model as the cache knows it."""

    label: str  # name@sha
    name: str
    precisions: dict[str, bytes]  # recipe -> ONNX bytes


class ShapedEngine:
    """An engine for each built shape, and another backend for all others."""

    def __init__(self, engines: dict[Shape, TrtEngine], other: Engine) -> None:
        first = next(iter(engines.values()))
        self.backend = first.backend
        self.inputs, self.outputs = other.inputs, other.outputs
        self.shapes = frozenset(engines)
        self._engines, self._other = engines, other
        for shape, engine in engines.items():
            if set(engine.outputs) != set(other.outputs):
                raise NotBuiltError(f"the engine for {shape} answers {engine.outputs}, the model {other.outputs}")

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """image (h, w) or (c, h, w), condition (k,) -> outputs by name, valid until the next call.

        Raises InferenceError.
        """
        return self.at(size_of(image)).run(image, condition)

    def at(self, shape: Shape) -> "Engine | TrtEngine":
        """What serves frames of this shape."""
        return self._engines.get(shape) or self._other


def lacks(engine: Engine, shape: Shape) -> bool:
    """Would a frame of this shape run on a slower backend because no engine was built for it?"""
    return isinstance(engine, ShapedEngine) and shape not in engine.shapes


def start(
    package: Package, built: Built, backend: str, *, device: Device, other: Callable[[tuple[Shape, ...]], Engine]
) -> tuple[ShapedEngine, str]:
    """The engines of one model in service, and one line of which. `other` serves the shapes that have none.

    Raises NotBuiltError, BackendMissingError.
    """
    if built.cache.distrusted:
        raise NotBuiltError(built.cache.distrusted)
    builder = Builder(module=backend, version=str(module(backend).__version__))
    engines: dict[Shape, TrtEngine] = {}
    served, missed = [], []
    for shape in built.shapes:
        what = f"{shape[0]}x{shape[1]}"
        try:
            recipe, key = _serving(package, built, builder=builder, device=device, shape=shape)
            engines[shape] = opened(built.cache, key, backend=backend, cuda=built.cuda, uploads=built.uploads)
            served.append(f"{what} {recipe}")
        except ModelError as error:
            if isinstance(error, CudaError) and error.lost:
                raise NotBuiltError(f"the GPU fails: {error}") from error
            missed.append(f"{what}: {error}")
    if not engines:
        raise NotBuiltError(f"no engine may serve ({'; '.join(missed)})")
    line = ", ".join(served)
    rest = other(tuple(shape for shape in built.shapes if shape not in engines))
    return ShapedEngine(engines, rest), f"{line}; not {'; '.join(missed)}" if missed else line


def opened(cache: Cache, key: str, *, backend: str, cuda: Cuda, uploads: Uploads) -> TrtEngine:
    """The engine under `key`; what its run-time compiles is kept for the next start. Raises ModelError."""
    plan = cache.get(key)
    if plan is None:
        raise PlanError("the plan was damaged and is removed: beamside engines build")
    engine = TrtEngine(plan, backend=backend, cuda=cuda, uploads=uploads, kernels=cache.kernels(key))
    compiled = engine.compiled()
    if compiled is not None:
        try:
            cache.keep_kernels(key, compiled)
        except CacheError as error:
            log.info("the next start compiles again: %s", error)
    return engine


def _serving(package: Package, built: Built, *, builder: Builder, device: Device, shape: Shape) -> tuple[str, str]:
    """Recipe and key of the engine that may serve this shape. Raises NotBuiltError with what to do."""
    reasons = []
    for key, recipe in _keys(package, built, builder=builder, device=device, shape=shape):
        entry = built.cache.entry(key)
        if entry is None:
            continue
        if entry.passed is None:
            reasons.append(f"{recipe} was never compared with the float32 model: beamside engines verify")
        elif not entry.passed:
            reasons.append(f"{recipe} failed the parity gate")
        elif built.cache.get(key) is None:  # a slower recipe may still be whole
            reasons.append(f"the {recipe} plan was damaged and is removed: beamside engines build")
        else:
            return recipe, key
    raise NotBuiltError(", ".join(reasons) or "not built for this model and machine: beamside engines build")


def _keys(
    package: Package, built: Built, *, builder: Builder, device: Device, shape: Shape
) -> Iterator[tuple[str, str]]:
    for recipe in built.recipes:
        model = package.precisions.get(recipe)
        if model is not None:
            known = facts(package.name, model, builder=builder, device=device, variant=(recipe, shape))
            yield known.key, recipe
