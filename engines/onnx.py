"""ONNX Runtime on the CPU or by CUDA: bytes of a model in; a picture and its condition in, named arrays out.

Buffers are bound once for each shape of picture; after the first frame of a shape nothing is allocated for a frame.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as causes

from engines.channels import check_channels, size_of
from engines.errors import BackendMissingError, InferenceError, PackageError
from engines.manifest import IMAGE
from engines.outputs import check_finite

SHAPES_KEPT = 6  # bound shapes: a producer that changes its raster without end must not grow us without end

CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
CUDA_OPTIONS = {
    "device_id": "0",
    "gpu_mem_limit": str(8 * 1024**3),  # of each model's arena: a 2048x3072 frame takes less than two of it
    "arena_extend_strategy": "kSameAsRequested",  # the default doubles, and three models share the device with others
    "cudnn_conv_algo_search": "HEURISTIC",  # the default tries every kernel on the first frame of a shape: seconds
    "use_tf32": "0",  # ten bits of mantissa: float32 in name only
}

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

    image: NDArray[np.uint8]  # (1, c, h, w)
    condition: NDArray[np.float32]  # (1, k)
    outputs: dict[str, NDArray[Any]]
    binding: Any


class OnnxEngine:
    """One model in one session. Not for two threads at once: the loop owns it."""

    def __init__(self, model: bytes, *, threads: int = 2, cuda: bool = False, precision: str = "fp32") -> None:
        """precision: of the model's bytes, to be told. Raises PackageError, BackendMissingError."""
        self.backend = "onnxruntime_cuda" if cuda else "onnxruntime"
        self.precision = precision
        if cuda and CUDA_PROVIDER not in ort.get_available_providers():
            raise BackendMissingError("this ONNX Runtime has no CUDA provider: install onnxruntime-gpu in its place")
        try:
            self._session = ort.InferenceSession(model, _options(threads), providers=_providers(cuda))
        except REFUSALS as error:
            raise PackageError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        self.providers = tuple(self._session.get_providers())
        if cuda and CUDA_PROVIDER not in self.providers:
            # It falls back to the CPU with no more than a line on stderr.
            raise BackendMissingError(
                "ONNX Runtime has its CUDA provider but cannot start it: CUDA or cuDNN do not fit its version; "
                "install those it names, or set engines.backend = 'onnxruntime'"
            )
        self.inputs = tuple(node.name for node in self._session.get_inputs())
        self.declared = tuple((_dtype(node.type), _sizes(node.shape)) for node in self._session.get_inputs())
        self.outputs = tuple(node.name for node in self._session.get_outputs())
        self.channels = self._channels()
        self._bound: OrderedDict[tuple[int, int], _Bound] = OrderedDict()

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """image (h, w) or (c, h, w), condition (k,) -> outputs by name, valid until the next call.

        Raises InferenceError.
        """
        check_channels(image, self.channels)
        shape = size_of(image)
        bound = self._bound.get(shape)
        if bound is None:
            bound = self._first(shape, image, condition)
        else:
            self._again(bound, image, condition)
        self._bound.move_to_end(shape)
        check_finite(bound.outputs)
        return bound.outputs

    def _again(self, bound: _Bound, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> None:
        np.copyto(bound.image[0], image)  # a frame alone is written to each channel
        np.copyto(bound.condition[0], condition)
        try:
            self._session.run_with_iobinding(bound.binding)
        except REFUSALS as error:
            raise InferenceError(f"ONNX Runtime failed on a {image.shape} frame: {_first_line(error)}") from error

    def _first(self, shape: tuple[int, int], image: NDArray[np.uint8], condition: NDArray[np.float32]) -> _Bound:
        """The sizes of the outputs are the graph's own affair: the answer to the first frame becomes their buffers."""
        pictures, conditions = np.empty((1, self.channels, *shape), np.uint8), np.array(condition[None], np.float32)
        np.copyto(pictures[0], image)
        feeds: dict[str, NDArray[Any]] = {IMAGE: pictures, "condition": conditions}
        try:
            said = self._session.run(list(self.outputs), feeds)
        except REFUSALS as error:
            raise InferenceError(f"ONNX Runtime cannot take a {shape} frame: {_first_line(error)}") from error
        outputs = {name: _owned(value) for name, value in zip(self.outputs, said, strict=True)}
        bound = self._bound[shape] = _Bound(pictures, conditions, outputs, self._binding(feeds, outputs))
        if len(self._bound) > SHAPES_KEPT:
            self._bound.popitem(last=False)
        return bound

    def _channels(self) -> int:
        """Of the picture; 1 where the graph leaves it open, which its manifest then may not."""
        sizes = next((sizes for name, (_, sizes) in zip(self.inputs, self.declared, strict=True) if name == IMAGE), ())
        return (sizes[1] if len(sizes) == 4 else None) or 1

    def _binding(self, feeds: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> Any:
        # Host memory on both sides: with CUDA, ONNX Runtime copies between it and the device, once each way.
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        return binding


def _dtype(kind: str) -> str:
    """tensor(float) -> float32, as a manifest has it."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _sizes(shape: list[Any]) -> tuple[int | None, ...]:
    """None where a size is free."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _owned(value: NDArray[Any]) -> NDArray[Any]:
    """An array to be written into; small ones are copied, for the runtime may answer with a scalar."""
    array = np.asarray(value)
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array)


def _providers(cuda: bool) -> list[Any]:
    return [(CUDA_PROVIDER, CUDA_OPTIONS), CPU_PROVIDER] if cuda else [CPU_PROVIDER]


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what fails is raised, once
    # Spinning workers would take the cores from the microscope's own software between frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
