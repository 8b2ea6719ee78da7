"""One NVIDIA device through its driver: is it there, memory on both sides, streams, events, graphs. No torch.

`probe` needs the driver's library alone; `Cuda` needs the package cuda-python, whose functions answer (error, values).
"""

import ctypes
import importlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from engines.errors import BackendMissingError, CudaError

LIBRARY = "libcuda.so.1"
DRIVER_VERSION = Path("/sys/module/nvidia/version")  # the full number; the library only tells which CUDA it speaks
MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76  # CUdevice_attribute
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the legacy stream of others in this process does not hold ours up
QUIET_EVENT = 1 | 2  # CU_EVENT_BLOCKING_SYNC | DISABLE_TIMING: who waits sleeps, the core is the microscope's own
OUT_OF_MEMORY = 2


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an engine is built for."""

    name: str
    compute_capability: str  # "9.0"
    sm_count: int
    driver: str


NO_DEVICE = Device(name="none", compute_capability="", sm_count=0, driver="")  # an engine built where none answers


# --- is there a device ---


def probe(open_library: Callable[[str], Any] = ctypes.CDLL) -> Device | str:
    """The first device, or why there is none. A driver may be missing, answer with an error value, or raise."""
    try:
        library = open_library(LIBRARY)
    except OSError:
        return "there is no NVIDIA driver"
    try:
        return _described(library)
    except CudaError as error:
        return f"the NVIDIA driver does not answer: {error}"
    except (OSError, AttributeError, RuntimeError, ValueError) as error:
        return f"the NVIDIA driver cannot be asked: {error}"


def _described(library: Any) -> Device | str:
    _ask(library, "cuInit", 0)
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    _ask(library, "cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        return "the NVIDIA driver finds no device"
    _ask(library, "cuDriverGetVersion", ctypes.byref(version))
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    _ask(library, "cuDeviceGet", ctypes.byref(device), 0)
    _ask(library, "cuDeviceGetName", name, len(name), device)
    major, minor, count_sm = (_attribute(library, device, which) for which in (MAJOR, MINOR, MULTIPROCESSORS))
    return Device(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{major}.{minor}",
        sm_count=count_sm,
        driver=_driver(version.value),
    )


def _attribute(library: Any, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int(0)
    _ask(library, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value


def _driver(cuda: int) -> str:
    try:
        return f"{DRIVER_VERSION.read_text().strip()} cuda {cuda}"
    except OSError:
        return f"cuda {cuda}"


def _ask(library: Any, call: str, *arguments: Any) -> None:
    code = int(getattr(library, call)(*arguments))
    if code != 0:
        raise CudaError(call, code, "the driver reports an error")


# --- a device in use ---


class Cuda:
    """The first device's primary context, which TensorRT and ONNX Runtime use too."""

    def __init__(self, driver: Any = None) -> None:
        """driver: cuda.bindings.driver, or a stand-in. Raises BackendMissingError, CudaError."""
        self.driver = driver if driver is not None else _bindings()
        self.call("cuInit", 0)
        self._context = self.call("cuDevicePrimaryCtxRetain", self.call("cuDeviceGet", 0))
        self.enter()

    def call(self, name: str, *arguments: Any) -> Any:
        """One call of the driver. Raises CudaError."""
        try:
            code, *values = getattr(self.driver, name)(*arguments)
        except RuntimeError as error:  # the bindings raise where the driver's library is missing
            raise CudaError(name, -1, str(error)) from error
        if int(code) != 0:
            raise CudaError(name, int(code), self._words(code))
        return values[0] if values else None

    def _words(self, code: Any) -> str:
        _, text = self.driver.cuGetErrorString(code)
        words = bytes(text or b"unknown").decode("utf-8", "replace")
        return f"{words}; close what else uses the GPU" if int(code) == OUT_OF_MEMORY else words

    def enter(self) -> None:
        """Make the device the calling thread's own: a context is current by thread."""
        self.call("cuCtxSetCurrent", self._context)

    def own(self, owner: object, name: str, handle: Any) -> None:
        """When `owner` goes, `name`(handle) is called; at the process's end the driver itself takes all back."""
        weakref.finalize(owner, self._release, name, handle).atexit = False

    def _release(self, name: str, handle: Any) -> None:
        try:
            self.enter()
            self.call(name, handle)
        except CudaError:
            pass  # a lost device has nothing left to give back

    def page_locked(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A zeroed array that the device reads and writes by itself; freed with its last view."""
        return np.asarray(_PageLocked(self, shape, np.dtype(dtype)))


def _bindings() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise BackendMissingError("the package cuda-python is not installed: pip install 'beamside[gpu]'") from error
    except (OSError, RuntimeError, AttributeError) as error:  # a library beside it that does not fit
        raise BackendMissingError(f"the package cuda-python cannot be imported ({error}): install it again") from error


class _PageLocked:
    """numpy keeps this alive as the base of its views."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        size = max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 1)
        address = int(cuda.call("cuMemHostAlloc", size, 0))
        cuda.own(self, "cuMemFreeHost", address)
        ctypes.memset(address, 0, size)
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}


class DeviceMemory:
    """Bytes on the device."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        handle = cuda.call("cuMemAlloc", max(size, 1))
        cuda.own(self, "cuMemFree", handle)
        self.address, self.size = int(handle), size


class Event:
    """A mark in a stream that others can wait for; not yet recorded, it is already over."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self.handle = cuda, cuda.call("cuEventCreate", QUIET_EVENT)
        cuda.own(self, "cuEventDestroy", self.handle)

    def wait(self) -> None:
        self._cuda.call("cuEventSynchronize", self.handle)


class Stream:
    """Work in order, beside that of other streams."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self.handle = cuda, cuda.call("cuStreamCreate", NON_BLOCKING)
        cuda.own(self, "cuStreamDestroy", self.handle)

    def send(self, source: NDArray[Any], target: DeviceMemory) -> None:
        """source: page-locked, contiguous."""
        self._cuda.call("cuMemcpyHtoDAsync", target.address, source.ctypes.data, source.nbytes, self.handle)

    def fetch(self, source: DeviceMemory, target: NDArray[Any]) -> None:
        """target: page-locked, contiguous."""
        self._cuda.call("cuMemcpyDtoHAsync", target.ctypes.data, source.address, target.nbytes, self.handle)

    def mark(self, event: Event) -> None:
        self._cuda.call("cuEventRecord", event.handle, self.handle)

    def follow(self, event: Event) -> None:
        """What is given to this stream from now on waits for the event."""
        self._cuda.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def wait(self) -> None:
        self._cuda.call("cuStreamSynchronize", self.handle)

    def capture(self, work: Callable[[], None]) -> "Graph":
        """What `work` gives to this stream, kept to be launched at once instead of being run."""
        mode = self._cuda.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._cuda.call("cuStreamBeginCapture", self.handle, mode)
        try:
            work()
        finally:
            graph = self._cuda.call("cuStreamEndCapture", self.handle)
        return Graph(self._cuda, graph)


class Graph:
    """Captured work, ready to launch."""

    def __init__(self, cuda: Cuda, graph: Any) -> None:
        self._cuda = cuda
        cuda.own(self, "cuGraphDestroy", graph)
        self._ready = cuda.call("cuGraphInstantiate", graph, 0)
        cuda.own(self, "cuGraphExecDestroy", self._ready)

    def launch(self, stream: Stream) -> None:
        self._cuda.call("cuGraphLaunch", self._ready, stream.handle)
