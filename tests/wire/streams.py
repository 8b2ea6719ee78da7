"""What the wire's tests share: messages as a producer sends them, and waits that have a deadline."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

DEADLINE_S = 5.0


def header(**changes: Any) -> dict[str, Any]:
    told = {"htype": "array-1.0", "type": "uint8", "shape": [4, 6], "frame": 7, "ndattr": {}}
    return {**told, **changes}


def message(told: dict[str, Any] | None = None, pixels: bytes = bytes(range(24))) -> list[bytes]:
    return [json.dumps(told or header()).encode(), pixels]


def eventually(true: Callable[[], bool], deadline_s: float = DEADLINE_S) -> bool:
    """Wait until something holds; False after the deadline."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not true():
        if time.monotonic() > end:
            return False
        pause.wait(0.005)
    return True


def receive(socket: "zmq.Socket[bytes]", deadline_s: float = DEADLINE_S) -> list[bytes] | None:
    """The next message, or None after the deadline."""
    return socket.recv_multipart() if socket.poll(round(deadline_s * 1000)) else None
