"""A stand-in for the package tensorrt: the same names, a plan that holds its model, ONNX Runtime in a GPU's place.

In reach once tests/fakes is on the path. FAKE_TENSORRT in the environment makes a builder in a child process crash,
hang, run out of memory or give up; `faults` does the like for the run-time in this process.
"""

import ctypes
import enum
import hashlib
import json
import os
import signal
import struct
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError

__version__ = "10.99.0"
MAGIC = b"FAKEPLAN"


class DataType(enum.Enum):
    FLOAT = np.dtype(np.float32)
    HALF = np.dtype(np.float16)
    INT8 = np.dtype(np.int8)
    UINT8 = np.dtype(np.uint8)
    INT32 = np.dtype(np.int32)
    INT64 = np.dtype(np.int64)
    BOOL = np.dtype(np.bool_)


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 1


class ErrorCode(enum.Enum):
    MODEL_DESERIALIZE_FAILED = 3
    UNSUPPORTED_NODE = 8


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None: ...


class faults:
    """What the run-time does wrong from now on; `cure()` after each test."""

    nan = False  # every float that comes back
    refuse_run = False  # execute_async_v3 answers False
    refuse_capture = False
    no_context = False  # create_execution_context answers None, as without memory
    null_runtime = False  # the run-time's factory gives a null pointer, which the bindings make a TypeError

    @classmethod
    def cure(cls) -> None:
        cls.nan = cls.refuse_run = cls.refuse_capture = cls.no_context = cls.null_runtime = False


NULL = "pybind11::init(): factory function returned nullptr"


class compiler:
    """As tensorrt_rtx: a context compiles its engine on the device unless a cache knows it; off: as tensorrt."""

    on = False
    times = 0


class RuntimeCache:
    def __init__(self, of: bytes) -> None:
        self.of, self.known = of, False

    def deserialize(self, data: bytes) -> bool:
        self.known = data == self.serialize()
        return self.known

    def serialize(self) -> bytes:
        return b"KERNELS" + hashlib.sha256(self.of).digest()


class RuntimeConfig:
    def __init__(self, of: bytes) -> None:
        self._of = of
        self.cache: RuntimeCache | None = None
        if compiler.on:
            self.create_runtime_cache = lambda: RuntimeCache(self._of)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


@dataclass
class ITensor:
    name: str
    dtype: DataType
    shape: tuple[int, ...]


@dataclass
class ILayer:
    dtype: DataType
    num_outputs: int = 1

    def get_output(self, index: int) -> ITensor:
        return ITensor("", self.dtype, ())


@dataclass
class ParserError:
    words: str
    kind: ErrorCode
    operator: str = ""

    def code(self) -> ErrorCode:
        return self.kind

    def desc(self) -> str:
        return self.words

    def node(self) -> int:
        return 0

    def node_name(self) -> str:
        return f"the_{self.operator}"

    def node_operator(self) -> str:
        return self.operator


def session(model: bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outcome(running: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    names = [node.name for node in running.get_outputs()]
    return dict(zip(names, running.run(names, feeds), strict=True))


class Network:
    def __init__(self) -> None:
        self.model = b""
        self.inputs: list[ITensor] = []
        self.layers: list[ILayer] = []

    def read(self, model: bytes, graph: Any) -> None:
        kinds = {"tensor(uint8)": DataType.UINT8, "tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF}
        self.model = model
        self.session = session(model)
        for node in self.session.get_inputs():
            shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
            self.inputs.append(ITensor(node.name, kinds[node.type], shape))
        half = any(each.data_type == onnx.TensorProto.FLOAT16 for each in graph.initializer)
        for node in graph.node:
            kind = DataType.INT8 if node.op_type == "QuantizeLinear" else DataType.HALF if half else DataType.FLOAT
            self.layers.append(ILayer(kind))

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    @property
    def num_outputs(self) -> int:
        return len(self.session.get_outputs())

    def get_output(self, index: int) -> ITensor:
        if any(size < 0 for tensor in self.inputs for size in tensor.shape):
            return ITensor(self.session.get_outputs()[index].name, DataType.FLOAT, (-1,))
        out = outcome(self.session, {t.name: np.ones(t.shape, t.dtype.value) for t in self.inputs})
        name, array = list(out.items())[index]
        return ITensor(name, DataType(array.dtype), array.shape)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network = network
        self.errors: list[ParserError] = []

    def parse(self, model: bytes) -> bool:
        try:
            graph = onnx.load_from_string(model).graph
        except DecodeError:
            self.errors.append(ParserError("Failed to parse the ONNX model.", ErrorCode.MODEL_DESERIALIZE_FAILED))
            return False
        for node in graph.node:
            if node.op_type == "Det":
                self.errors.append(ParserError("false", ErrorCode.UNSUPPORTED_NODE, node.op_type))
                return False
        self.network.read(model, graph)
        return True

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]


class Config:
    progress_monitor: Any = None

    def clear_flag(self, flag: BuilderFlag) -> None: ...


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger: Any = logger
        if os.environ.get("FAKE_TENSORRT") == "null":
            self.logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError(NULL)

    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        monitor, fault = config.progress_monitor, os.environ.get("FAKE_TENSORRT", "")
        monitor.phase_start("Building engine", None, 2)
        monitor.step_complete("Building engine", 0)
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hang":
            time.sleep(600.0)
        if fault == "memory":
            raise MemoryError
        if fault == "refuse":
            self.logger.log(ILogger.ERROR, "Error Code 9: no kernel\nfor this node")
            return None
        monitor.step_complete("Building engine", 1)
        monitor.phase_finish("Building engine")
        return plan_of(network)


def plan_of(network: Network, version: str = __version__) -> bytes:
    shapes = {tensor.name: list(tensor.shape) for tensor in network.inputs}
    head = json.dumps({"version": version, "shapes": shapes}).encode()
    body = struct.pack("<II", len(head), len(network.model)) + head + network.model
    return MAGIC + hashlib.sha256(body).digest() + body


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger: Any = logger
        if faults.null_runtime:
            self.logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError(NULL)

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        body = plan[len(MAGIC) + 32 :]
        if plan[: len(MAGIC)] != MAGIC or hashlib.sha256(body).digest() != plan[len(MAGIC) : len(MAGIC) + 32]:
            return self._refuse("Serialization assertion plan.header.size == blobSize failed.")
        size, model_size = struct.unpack("<II", body[:8])
        head = json.loads(body[8 : 8 + size])
        if head["version"] != __version__:
            return self._refuse(f"The engine plan file was made by {head['version']}, this is {__version__}.")
        return Engine(body[8 + size : 8 + size + model_size], head["shapes"])

    def _refuse(self, words: str) -> None:
        self.logger.log(ILogger.ERROR, words)


class Engine:
    def __init__(self, model: bytes, shapes: dict[str, list[int]]) -> None:
        self.session, self.model = session(model), model
        kinds = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
        self.feeds = {n.name: np.ones(shapes[n.name], kinds[n.type]) for n in self.session.get_inputs()}
        self.arrays = self.feeds | outcome(self.session, self.feeds)
        self.num_io_tensors = len(self.arrays)

    def get_tensor_name(self, index: int) -> str:
        return list(self.arrays)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.feeds else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.arrays[name].shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.arrays[name].dtype)

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self.model)

    def create_execution_context(self, config: RuntimeConfig | None = None) -> "Context | None":
        cache = config.cache if config is not None else None
        compiler.times += compiler.on and not (cache is not None and cache.known)
        return None if faults.no_context else Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.arrays

    def execute_async_v3(self, stream_handle: int) -> bool:
        from tests.fakes.driver import STREAMS

        stream = STREAMS[stream_handle]
        if faults.refuse_run or (faults.refuse_capture and stream.captured is not None):
            return False
        stream.do(self._execute)
        return True

    def _at(self, name: str) -> Any:
        like = self.engine.arrays[name]
        data = (ctypes.c_char * like.nbytes).from_address(self.addresses[name])
        return np.frombuffer(data, like.dtype).reshape(like.shape)

    def _execute(self) -> None:
        feeds = {name: self._at(name).copy() for name in self.engine.feeds}
        for name, array in outcome(self.engine.session, feeds).items():
            place = self._at(name)
            place[...] = array
            if faults.nan and place.dtype.kind == "f":
                place[...] = np.nan
