"""The other end of the agent's sockets, for benchmarks: a producer that never drops, and its ear on the advice."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from agent.messages import Optics
from agent.wire import array1

START_S = 30.0
PENDING = 10  # messages the producer may have on their way: enough to keep a receiver busy, and memory bounded
Context = zmq.Context[zmq.Socket[bytes]]


class Producer:
    """Binds frames; waits for its one subscriber rather than drop (XPUB_NODROP)."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, PENDING)
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)

    def wait_for_subscriber(self) -> None:
        if not self._socket.poll(START_S * 1000):
            raise TimeoutError("nobody subscribed to the frames")
        self._socket.recv()

    def send(self, parts: Sequence[bytes]) -> None:
        self._socket.send_multipart(parts, copy=False)

    def close(self) -> None:
        self._socket.close()


class Ear:
    """Listens to the agent's advice."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.connect(endpoint)

    def hear(self, timeout_s: float) -> tuple[dict[str, Any], int] | None:
        """The next message and when it came (monotonic ns), or None."""
        if not self._socket.poll(max(0, round(timeout_s * 1000))):
            return None
        parts, now_ns = self._socket.recv_multipart(), monotonic_ns()
        return msgspec.json.decode(parts[1]), now_ns

    def wait_for(self, topic: str, frame: int | None = None, timeout_s: float = START_S) -> int:
        """When the message on `topic` (about `frame`) came, monotonic ns."""
        end = monotonic() + timeout_s
        while (left := end - monotonic()) > 0:
            heard = self.hear(left)
            if heard and heard[0]["topic"] == topic and frame in (None, heard[0]["frame"]):
                return heard[1]
        raise TimeoutError(f"no {topic} message about frame {frame} within {timeout_s:g} s")

    def close(self) -> None:
        self._socket.close(0)


@contextmanager
def process(module: str, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """One of this folder's modules, ended by SIGTERM."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BEAMSIDE_")}
    child = subprocess.Popen([sys.executable, "-m", f"tests.bench.{module}", *arguments], env=environment)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(START_S)


def header(number: int, shape: tuple[int, int], *, inspect: bool = False) -> bytes:
    """As a microscope tells it, with some thirty fields."""
    told = Optics(
        session="bench",
        source="electron/SE2",
        optics_epoch=1,
        scene_epoch=1,
        t_start_ns=number * 10_000_000,
        t_end_ns=number * 10_000_000 + 9_000_000,
        averaging="none",
        average_count=1,
        complete=True,
        working_distance_m=5e-3,
        stigmator_x=0.0,
        stigmator_y=0.0,
        pixel_size_m=10e-9,
        dwell_time_s=10e-9,
        frame_time_s=0.01,
        accelerating_voltage_v=5000.0,
        beam_current_a=1e-10,
        brightness=0.5,
        contrast=0.5,
        bits_significant=8,
        stage_x_m=0.0,
        stage_y_m=0.0,
        stage_z_m=0.0,
        stage_rotation_rad=0.0,
        stage_tilt_rad=0.0,
        stage_moving=False,
        scan_rotation_rad=0.0,
        blanked=False,
        frozen=False,
        auto_function_active=False,
        inspect=inspect or None,
    )
    parts = array1.encode(number, np.broadcast_to(np.uint8(0), shape), told)
    return bytes(parts[0])


def pictures(shape: tuple[int, int], count: int) -> list[bytes]:
    """Noise about mid-grey: no two alike."""
    rng = np.random.default_rng(0)
    noise: list[NDArray[np.float32]] = [rng.standard_normal(shape, np.float32) for _ in range(count)]
    return [np.clip(128.0 + 30.0 * each, 0, 255).astype(np.uint8).tobytes() for each in noise]


def kept(folder: Path, name: str) -> dict[str, list[float]]:
    told: dict[str, list[float]] = json.loads((folder / name).read_text())
    return told
