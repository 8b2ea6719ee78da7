"""The microscope's end of the three sockets: binds frames, connects to the agent's advice and commands.

One thread owns it. Advice and replies come out as plain dicts, stamped with when they were received.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import zmq

from agent.wire.sockets import attach, prepare

HIGH_WATER_MARK = 200
LINGER_MS = 200
ARRAY = "array"  # not a name of the wire's: no field is hidden by it

Message = dict[str, Any]
Part = bytes | memoryview


class Link:
    """frames, advice, commands: endpoints as `beamside run` names them."""

    def __init__(self, frames: str, advice: str, commands: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB tells when somebody subscribes; to a slow subscriber it drops, as PUB does.
        self._frames = self._open(zmq.XPUB, frames, bind=True)
        self._advice = self._open(zmq.SUB, advice, bind=False)
        self._advice.setsockopt(zmq.SUBSCRIBE, b"")
        self._commands = self._open(zmq.DEALER, commands, bind=False)
        self._poller = zmq.Poller()
        for socket in (self._frames, self._advice, self._commands):
            self._poller.register(socket, zmq.POLLIN)
        self.subscribers = 0
        self._asked = 0

    @property
    def frames_endpoint(self) -> str:
        """Where frames are bound: with the port that a wildcard became."""
        told = self._frames.getsockopt(zmq.LAST_ENDPOINT)
        return told.decode().rstrip("\0") if isinstance(told, bytes) else str(told)

    def publish(self, parts: Sequence[Part]) -> None:
        self._frames.send_multipart(parts, copy=True)

    def ask(self, request: str, **fields: Any) -> str:
        """Send one request and go on; its reply comes by `replies()` under the same id. Dropped when nobody listens."""
        self._asked += 1
        number = str(self._asked)
        told = {"id": number, "request": request, **{k: v for k, v in fields.items() if v is not None}}
        try:
            self._commands.send(msgspec.json.encode(told), zmq.NOBLOCK)
        except zmq.Again:
            return ""
        return number

    def wait(self, timeout_s: float) -> bool:
        """Until something arrives on any socket, at most timeout_s. Takes note of subscribers."""
        ready = bool(self._poller.poll(max(0, round(timeout_s * 1000))))
        for parts in _waiting(self._frames):
            self.subscribers += {1: 1, 0: -1}.get(parts[0][0] if parts[0] else -1, 0)
        return ready

    def advice(self) -> list[Message]:
        """Everything that waits on the advice socket, in order. A third part (a map) comes as bytes under ARRAY."""
        return _decoded(_waiting(self._advice), part=1)

    def replies(self) -> list[Message]:
        """Everything that waits on the command socket, in order."""
        return _decoded(_waiting(self._commands), part=-1)

    def close(self) -> None:
        self._context.destroy(linger=LINGER_MS)

    def _open(self, kind: int, endpoint: str, *, bind: bool) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        prepare(socket, endpoint, high_water_mark=HIGH_WATER_MARK, linger_ms=LINGER_MS)
        if kind == zmq.DEALER:
            socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is kept for an agent that is not there
        attach(socket, endpoint, bind=bind)
        return socket


def _waiting(socket: "zmq.Socket[bytes]") -> list[list[bytes]]:
    messages = []
    while True:
        try:
            messages.append(socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return messages


def _decoded(messages: list[list[bytes]], *, part: int) -> list[Message]:
    """JSON objects only: what cannot be read is no advice."""
    decoded = []
    for parts in messages:
        try:
            told = msgspec.json.decode(parts[part])
        except (msgspec.DecodeError, IndexError):
            continue
        if isinstance(told, dict):
            decoded.append({**told, ARRAY: parts[2]} if part == 1 and len(parts) > 2 else told)
    return decoded
