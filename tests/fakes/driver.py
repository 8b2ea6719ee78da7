"""A stand-in for cuda.bindings.driver: functions that answer (error, values...), memory that is this process's own.

Streams keep their work until somebody waits, so that a forgotten wait is a wrong answer here too. Faults are put in by
the name of the call: `driver.fail["cuGraphLaunch"] = 700`, and taken out again by the test.
"""

import ctypes
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[], None]
STREAMS: dict[int, "FakeStream"] = {}  # by handle: the fake TensorRT finds the stream that it was given


class Token:
    """One recording of an event."""

    def __init__(self, stream: "FakeStream") -> None:
        self.stream, self.done = stream, False

    def reach(self) -> None:
        while not self.done:
            self.stream.step()

    def mark(self) -> None:
        self.done = True


class FakeEvent:
    token: Token | None = None


class FakeStream:
    numbers = itertools.count(0x5000)

    def __init__(self) -> None:
        self.handle = next(self.numbers)
        self.work: deque[Work] = deque()
        self.captured: list[Work] | None = None
        STREAMS[self.handle] = self

    def __int__(self) -> int:
        return self.handle

    def do(self, work: Work) -> None:
        (self.work if self.captured is None else self.captured).append(work)

    def step(self) -> None:
        self.work.popleft()()

    def drain(self) -> None:
        while self.work:
            self.step()


@dataclass
class Ready:
    work: list[Work] = field(default_factory=list)


class FakeDriver:
    """All functions that engines/cuda.py calls, and nothing else."""

    class CUstreamCaptureMode:
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def __init__(self) -> None:
        self.fail: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}  # address -> buffer, on both sides
        self.objects = 0  # streams, events, graphs
        self.contexts: dict[int, object] = {}  # thread -> context
        self.hanging: threading.Event | None = None  # what a wait for the device waits for

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("cu"):
            return super().__getattribute__(name)
        self.calls[name] += 1
        if name in self.fail:
            return lambda *arguments: (self.fail[name], None)
        if name not in ("cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuGetErrorString"):
            assert threading.get_ident() in self.contexts, f"{name} without a current context in this thread"
        return super().__getattribute__(name)

    @property
    def bytes_held(self) -> int:
        return sum(len(buffer) for buffer in self.memory.values())

    # --- the device ---

    def cuInit(self, flags: int) -> tuple[int]:
        return (0,)

    def cuDeviceGet(self, ordinal: int) -> tuple[int, int]:
        return 0, ordinal

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[int, object]:
        return 0, "context"

    def cuCtxSetCurrent(self, context: object) -> tuple[int]:
        self.contexts[threading.get_ident()] = context
        return (0,)

    def cuGetErrorString(self, code: int) -> tuple[int, bytes]:
        return 0, {2: b"out of memory", 700: b"an illegal memory access was encountered"}.get(code, b"a fault")

    # --- memory ---

    def _allocate(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(size)
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return 0, address

    def _free(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    def cuMemAlloc(self, size: int) -> tuple[int, int]:
        return self._allocate(size)

    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        return self._allocate(size)

    def cuMemFree(self, address: int) -> tuple[int]:
        return self._free(address)

    def cuMemFreeHost(self, address: int) -> tuple[int]:
        return self._free(address)

    def cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: FakeStream) -> tuple[int]:
        assert target in self.memory and len(self.memory[target]) >= size
        stream.do(lambda: ctypes.memmove(target, source, size) and None)
        return (0,)

    def cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: FakeStream) -> tuple[int]:
        assert source in self.memory and len(self.memory[source]) >= size
        stream.do(lambda: ctypes.memmove(target, source, size) and None)
        return (0,)

    # --- streams and events ---

    def _made(self, thing: object) -> tuple[int, object]:
        self.objects += 1
        return 0, thing

    def _gone(self) -> tuple[int]:
        self.objects -= 1
        return (0,)

    def cuStreamCreate(self, flags: int) -> tuple[int, object]:
        return self._made(FakeStream())

    def cuStreamDestroy(self, stream: FakeStream) -> tuple[int]:
        STREAMS.pop(stream.handle)
        return self._gone()

    def cuStreamSynchronize(self, stream: FakeStream) -> tuple[int]:
        stream.drain()
        return (0,)

    def cuStreamWaitEvent(self, stream: FakeStream, event: FakeEvent, flags: int) -> tuple[int]:
        if event.token is not None:
            stream.do(event.token.reach)
        return (0,)

    def cuEventCreate(self, flags: int) -> tuple[int, object]:
        return self._made(FakeEvent())

    def cuEventDestroy(self, event: FakeEvent) -> tuple[int]:
        return self._gone()

    def cuEventRecord(self, event: FakeEvent, stream: FakeStream) -> tuple[int]:
        event.token = Token(stream)
        stream.do(event.token.mark)
        return (0,)

    def cuEventSynchronize(self, event: FakeEvent) -> tuple[int]:
        if self.hanging is not None:
            self.hanging.wait()
        if event.token is not None:
            event.token.reach()
        return (0,)

    # --- graphs ---

    def cuStreamBeginCapture(self, stream: FakeStream, mode: int) -> tuple[int]:
        stream.captured = []
        return (0,)

    def cuStreamEndCapture(self, stream: FakeStream) -> tuple[int, object]:
        work, stream.captured = stream.captured, None
        return self._made(Ready(work or []))

    def cuGraphInstantiate(self, graph: Ready, flags: int) -> tuple[int, object]:
        return self._made(graph)

    def cuGraphLaunch(self, graph: Ready, stream: FakeStream) -> tuple[int]:
        for work in graph.work:
            stream.do(work)
        return (0,)

    def cuGraphDestroy(self, graph: Ready) -> tuple[int]:
        return self._gone()

    def cuGraphExecDestroy(self, graph: Ready) -> tuple[int]:
        return self._gone()
