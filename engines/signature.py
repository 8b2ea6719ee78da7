"""A graph held against its manifest's word, and a first picture: what cannot be read must not come into service.

Names alone say little: an input of sixteen bits, a fixed size or a weight that is no number fail on every frame.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.built import Engine, Shape
from engines.channels import KNOWN, frame_of, shape_of
from engines.errors import PackageError
from engines.manifest import IMAGE, Manifest, Tensor
from engines.onnx import OnnxEngine
from engines.scene import CONDITION, Scene, condition, levels_of

FIRST = (160, 224)  # small, not square, and no size of an export; the smallest that autofocus judges is 128
TOLD = "condition"

Sizes = tuple[int | None, ...]


@dataclass(frozen=True)
class Declared:
    """One input as the graph has it; None where a size is free."""

    dtype: str
    shape: Sizes


def check_declared(manifest: Manifest, engine: OnnxEngine) -> None:
    """Names and inputs; what comes out is seen with the first picture. Raises PackageError."""
    said = tuple(t.name for t in manifest.inputs), tuple(t.name for t in manifest.outputs)
    if said != (engine.inputs, engine.outputs):
        raise PackageError(
            f"the manifest names {said[0]} -> {said[1]}, the graph has {engine.inputs} -> {engine.outputs}"
        )
    for tensor, found in zip(manifest.inputs, engine.declared, strict=True):
        expected = Declared(tensor.dtype, tuple(s if isinstance(s, int) else None for s in tensor.shape))
        if expected != Declared(*found):
            raise PackageError(
                f"the manifest says that {tensor.name} is {_words(expected)}, the graph has {_words(Declared(*found))}"
            )
    if manifest.channels not in KNOWN:
        raise PackageError(
            f"the manifest has no input {IMAGE} of one channel, a frame, or two, a frame and its reference"
        )


def read_first(engine: Engine, manifest: Manifest, shapes: Iterable[Shape] = (FIRST,)) -> None:
    """A picture of each shape: buffers are bound, kernels chosen, and the answers are what the manifest says.

    Raises PackageError, and InferenceError where the engine cannot read or answers with numbers that are not finite.
    """
    for shape in shapes:
        picture = np.random.default_rng(0).integers(0, 256, shape_of(manifest.channels, shape), np.uint8)
        said = engine.run(picture, _told(manifest, picture))
        sizes = _sizes(manifest, shape)
        for tensor in manifest.outputs:
            _check_output(tensor, said, sizes)


def _told(manifest: Manifest, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of a frame of which nothing is known."""
    shape = next((tensor.shape for tensor in manifest.inputs if tensor.name == TOLD), ())
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise PackageError(f"the manifest has no input {TOLD} (1, k)")
    return condition(levels_of(frame_of(picture)), Scene()) if shape[1] == CONDITION else np.zeros(shape[1], np.float32)


def _sizes(manifest: Manifest, shape: Shape) -> dict[str, int]:
    """The free sizes of this picture, by their names."""
    named = next((tensor.shape for tensor in manifest.inputs if tensor.name == IMAGE), ())
    sizes = (1, manifest.channels, *shape)
    return {name: size for name, size in zip(named, sizes, strict=False) if isinstance(name, str)}


def _check_output(tensor: Tensor, said: Mapping[str, NDArray[np.generic]], sizes: dict[str, int]) -> None:
    found = said[tensor.name]
    expected = tuple(size if isinstance(size, int) else sizes.get(size) for size in tensor.shape)
    same = len(expected) == found.ndim and all(
        size in (None, has) for size, has in zip(expected, found.shape, strict=True)
    )
    if tensor.dtype != found.dtype.name or not same:
        raise PackageError(
            f"the manifest says that {tensor.name} is {_words(Declared(tensor.dtype, expected))}, "
            f"the graph answers with {found.dtype.name} {found.shape}"
        )


def _words(tensor: Declared) -> str:
    sizes = ", ".join("free" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.dtype} ({sizes})"
