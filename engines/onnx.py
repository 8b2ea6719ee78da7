"""ONNX Runtime on the CPU: bytes of a model in; a picture and its condition in, named arrays out.

Buffers are bound once for each shape of picture; after the first frame of a shape nothing is allocated for a frame.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as causes

from engines.errors import InferenceError, PackageError

SHAPES_KEPT = 6  # bound shapes: a producer that changes its raster without end must not grow us without end

# ONNX Runtime's exceptions have no parent of their own.
REFUSALS = (
    causes.EPFail,
    causes.Fail,
    causes.InvalidArgument,
    causes.InvalidGraph,
    causes.InvalidProtobuf,
    causes.NotImplemented,
    causes.RuntimeException,
)


@dataclass(frozen=True)
class _Bound:
    """The buffers of one picture shape."""

    image: NDArray[np.uint8]  # (1, 1, h, w)
    condition: NDArray[np.float32]  # (1, k)
    outputs: dict[str, NDArray[Any]]
    binding: Any


class OnnxEngine:
    """One model in one session. Not for two threads at once: the loop owns it."""

    backend = "onnxruntime"

    def __init__(self, model: bytes, *, threads: int = 2) -> None:
        try:
            self._session = ort.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])
        except REFUSALS as error:
            raise PackageError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())
        self._bound: OrderedDict[tuple[int, int], _Bound] = OrderedDict()

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """image (h, w), condition (k,) -> outputs by name, valid until the next call. Raises InferenceError."""
        bound = self._buffers((image.shape[0], image.shape[1]), condition)
        np.copyto(bound.image[0, 0], image)
        np.copyto(bound.condition[0], condition)
        try:
            self._session.run_with_iobinding(bound.binding)
        except REFUSALS as error:
            raise InferenceError(f"ONNX Runtime failed on a {image.shape} frame: {_first_line(error)}") from error
        _check_finite(bound.outputs)
        return bound.outputs

    def _buffers(self, shape: tuple[int, int], condition: NDArray[np.float32]) -> _Bound:
        bound = self._bound.get(shape)
        if bound is None:
            bound = self._bound[shape] = self._bind(shape, condition)
            if len(self._bound) > SHAPES_KEPT:
                self._bound.popitem(last=False)
        self._bound.move_to_end(shape)
        return bound

    def _bind(self, shape: tuple[int, int], condition: NDArray[np.float32]) -> _Bound:
        image, conditions = np.zeros((1, 1, *shape), np.uint8), np.array(condition[None], np.float32)
        feeds: dict[str, NDArray[Any]] = {"image": image, "condition": conditions}
        # The sizes of the outputs are the graph's own affair: one plain run tells them and leaves the buffers.
        try:
            first = self._session.run(list(self.outputs), feeds)
        except REFUSALS as error:
            raise InferenceError(f"ONNX Runtime cannot take a {shape} frame: {_first_line(error)}") from error
        outputs = {name: np.array(value) for name, value in zip(self.outputs, first, strict=True)}
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return _Bound(image, conditions, outputs, binding)


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, once
    # Spinning workers would take the cores from the microscope's own software between frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_finite(outputs: dict[str, NDArray[Any]]) -> None:
    for name, array in outputs.items():
        # A sum is finite only where every term is; unlike isfinite().all() it allocates nothing.
        if array.dtype.kind == "f" and not math.isfinite(float(array.sum())):
            raise InferenceError(f"output {name} of the model is not finite")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
