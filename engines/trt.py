"""A TensorRT or TensorRT-RTX plan in service, for one shape: a picture and its condition in, named arrays out.

Everything is bound once: page-locked buffers, one CUDA graph, a stream and an execution context of its own. The
picture is copied and uploaded once and read by every model that shares its `Uploads`; a picture with its reference
goes up beside it, for the models that compare. Written with the names that tensorrt 10 and 11 and tensorrt_rtx 1.x
share.
"""

import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.channels import KNOWN, Shape, check_channels, shape_of, size_of
from engines.cuda import Cuda, DeviceMemory, Event, Graph, Stream
from engines.errors import CudaError, DeviceLostError, InferenceError, PlanError
from engines.kernels import Kernels
from engines.listener import listener, module
from engines.outputs import check_finite

log = logging.getLogger(__name__)
IMAGE, CONDITION = "image", "condition"
DTYPES = {  # trt.DataType by name
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class DeviceImage:
    """A picture on the device; good until the next one of its shape is uploaded."""

    shape: tuple[int, ...]  # (h, w) or (c, h, w)
    memory: DeviceMemory
    ready: Event


class Upload:
    """Pictures of one shape: page-locked, then on the device, at addresses that never change."""

    def __init__(self, cuda: Cuda, stream: Stream, shape: tuple[int, ...]) -> None:
        self._stream = stream
        self._staged = cuda.page_locked(shape, np.uint8)  # (h, w) or (c, h, w)
        self.image = DeviceImage(shape, DeviceMemory(cuda, self._staged.nbytes), Event(cuda))
        self.readers: weakref.WeakSet[Event] = weakref.WeakSet()  # what engines mark when they have read it
        self.shared: NDArray[np.uint8] | None = None  # held, so that no other array can be taken for it

    def put(self, image: NDArray[np.uint8]) -> DeviceImage:
        self.image.ready.wait()  # the page-locked copy may still be on its way
        np.copyto(self._staged, image)  # a frame alone is written to each channel
        for event in self.readers:
            self._stream.follow(event)
        self._stream.send(self._staged, self.image.memory)
        self._stream.mark(self.image.ready)
        return self.image


class Uploads:
    """One upload a picture, whatever the number of models that read it. Not for two threads at once."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._stream = cuda, Stream(cuda)
        self._by_shape: dict[tuple[int, ...], Upload] = {}

    def at(self, shape: tuple[int, ...]) -> Upload:
        """shape: (h, w), or (c, h, w) of more than one channel."""
        upload = self._by_shape.get(shape)
        if upload is None:
            upload = self._by_shape[shape] = Upload(self._cuda, self._stream, shape)
        return upload

    def share(self, image: NDArray[np.uint8]) -> None:
        """Upload now, once for all that is asked about this very array (h, w); it must not change until the next."""
        for upload in self._by_shape.values():
            upload.shared = None
        upload_here = self._by_shape.get((image.shape[0], image.shape[1]))
        if upload_here is not None:  # else no engine has its shape
            self._put(upload_here, image)
            upload_here.shared = image

    def of(self, image: NDArray[np.uint8], channels: int = 1) -> DeviceImage:
        """The picture on the device: the shared one as it is there, another one anew. Raises InferenceError."""
        check_channels(image, channels)
        upload = self.at(shape_of(channels, size_of(image)))
        if upload.shared is image:
            return upload.image
        upload.shared = None
        return self._put(upload, image)

    def _put(self, upload: Upload, image: NDArray[np.uint8]) -> DeviceImage:
        try:
            self._cuda.enter()
            return upload.put(image)
        except CudaError as error:
            raise failure(error, f"the upload of a {image.shape} picture") from error


class TrtEngine:
    """One plan, one shape. Not for two threads at once: the loop owns it."""

    def __init__(
        self, plan: bytes, *, backend: str, cuda: Cuda, uploads: Uploads, kernels: bytes | None = None
    ) -> None:
        """backend: tensorrt or tensorrt_rtx. kernels: what `compiled` gave of this plan in an earlier process.

        Raises PlanError, CudaError, BackendMissingError.
        """
        self.backend = backend
        self._cuda, self._trt = cuda, module(backend)
        self._said = listener(self._trt)
        cuda.enter()
        self._runtime = self._accepted(lambda: self._trt.Runtime(self._said), "the run-time does not start")
        self._engine = self._accepted(lambda: self._runtime.deserialize_cuda_engine(plan), "the plan is refused")
        self._kernels: Kernels = self._accepted(lambda: Kernels(self._engine, kernels), "no configuration")
        self._context = self._accepted(lambda: self._kernels.context(self._engine), "no execution context")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        inputs = {name for name in names if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT}
        if inputs != {IMAGE, CONDITION}:
            raise PlanError(f"the plan takes {sorted(inputs)} instead of {IMAGE} and {CONDITION}: build it again")
        self.inputs = (IMAGE, CONDITION)
        self.outputs = tuple(name for name in names if name not in inputs)
        self.channels, self.shape = self._image_shape()
        self._stream, self._done = Stream(cuda), Event(cuda)
        self._bind(uploads)
        self._graph = self._captured()

    def _accepted(self, make: Callable[[], Any], what: str) -> Any:
        """TensorRT answers None where it fails, or its bindings raise, and the reason is in its log."""
        try:
            made = make()
        except (TypeError, RuntimeError) as error:  # a constructor that got a null pointer is a TypeError
            raise PlanError(f"{self.backend}: {what}: {self._said.last()} ({error})") from error
        if made is None:
            raise PlanError(f"{self.backend}: {what}: {self._said.last()}")
        return made

    def _image_shape(self) -> tuple[int, Shape]:
        found = tuple(self._engine.get_tensor_shape(IMAGE))
        dtype = self._engine.get_tensor_dtype(IMAGE).name
        if len(found) != 4 or found[0] != 1 or found[1] not in KNOWN or min(found) < 1 or dtype != "UINT8":
            raise PlanError(f"the plan's image is {dtype} {found}, not UINT8 (1, 1 or 2, h, w): build it again")
        return found[1], (found[2], found[3])

    # --- bound once ---

    def _bind(self, uploads: Uploads) -> None:
        self._uploads = uploads
        upload = uploads.at(shape_of(self.channels, self.shape))
        upload.readers.add(self._done)
        self._image = upload.image
        self._condition = self._host(CONDITION)  # (1, k)
        self._results = {name: self._host(name) for name in self.outputs}
        self._memory = {
            name: DeviceMemory(self._cuda, array.nbytes)
            for name, array in {CONDITION: self._condition, **self._results}.items()
        }
        self._address(IMAGE, self._image.memory)
        for name, memory in self._memory.items():
            self._address(name, memory)

    def _host(self, name: str) -> NDArray[Any]:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = DTYPES.get(self._engine.get_tensor_dtype(name).name)
        if dtype is None or any(size < 0 for size in shape):
            raise PlanError(f"the plan's {name} is {self._engine.get_tensor_dtype(name).name} {shape}: build it again")
        return self._cuda.page_locked(shape, dtype)

    def _address(self, name: str, memory: DeviceMemory) -> None:
        if not self._context.set_tensor_address(name, memory.address):
            raise PlanError(f"{self.backend}: no place for {name}: {self._said.last()}")

    def _captured(self) -> Graph | None:
        """One launch for the whole reading; None where this engine cannot be captured: it is then queued each time."""
        self._queue()  # TensorRT compiles and allocates at the first run, which no capture allows
        self._stream.wait()
        try:
            return self._stream.capture(self._queue)
        except (CudaError, InferenceError) as error:
            if isinstance(error, CudaError) and error.lost:
                raise
            height, width = self.shape
            why = f"{error}; {self._said.last()}" if isinstance(error, CudaError) else str(error)
            log.warning(
                "%s %dx%d: no CUDA graph, each frame is queued call by call: %s", self.backend, height, width, why
            )
            return None

    @property
    def captured(self) -> bool:
        """Is a frame one launch?"""
        return self._graph is not None

    def compiled(self) -> bytes | None:
        """What the run-time had to compile for this start and another start could be spared; None where nothing."""
        return self._kernels.compiled()

    def _queue(self) -> None:
        """Condition up, the network, outputs down: all in our stream, none waited for."""
        self._stream.send(self._condition, self._memory[CONDITION])
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise InferenceError(f"{self.backend} failed on a {self.shape} frame: {self._said.last()}")
        for name, array in self._results.items():
            self._stream.fetch(self._memory[name], array)

    # --- each frame ---

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """image (h, w) or (c, h, w), condition (k,) -> outputs by name, valid until the next call.

        Raises InferenceError.
        """
        if size_of(image) != self.shape:
            raise InferenceError(f"a {image.shape} frame reached the engine for {self.shape}")
        return self.run_on(self.upload(image), condition)

    def upload(self, image: NDArray[np.uint8]) -> DeviceImage:
        """Once, for all engines of this shape and these channels that share the uploads."""
        return self._uploads.of(image, self.channels)

    def run_on(self, image: DeviceImage, condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        self.start(image, condition)
        return self.finish()

    def start(self, image: DeviceImage, condition: NDArray[np.float32]) -> None:
        """Give the work to the device and come back at once. Raises InferenceError."""
        if image is not self._image:
            raise InferenceError(f"a picture of other uploads reached the engine for {self.shape}")
        if condition.shape != self._condition.shape[1:]:
            raise InferenceError(f"the condition has shape {condition.shape}, not {self._condition.shape[1:]}")
        try:
            self._cuda.enter()
            self._done.wait()  # of a reading that nobody finished: its buffers are in use
            np.copyto(self._condition[0], condition)
            self._stream.follow(image.ready)
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._queue()
            self._stream.mark(self._done)
        except CudaError as error:
            raise failure(error, f"{self.backend} on a {self.shape} frame") from error

    def finish(self) -> dict[str, NDArray[Any]]:
        """The outputs of what was started. Raises InferenceError."""
        try:
            self._done.wait()
        except CudaError as error:
            raise failure(error, f"{self.backend} on a {self.shape} frame") from error
        check_finite(self._results)
        return self._results


def failure(error: CudaError, what: str) -> InferenceError:
    """A fault of the driver as what it means for the frame."""
    if error.lost:
        return DeviceLostError(f"{what}: {error}; the GPU is lost to this process, which has to start anew")
    return InferenceError(f"{what}: {error}")
