"""Thread 2: ROUTER. Answers at once from the loop's last snapshot; acknowledgements, mode and reload wait for the loop.

Nothing that arrives here ends the thread: it is answered with ok = false, or dropped by libzmq as too large.
"""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from agent.clock import Clock
from agent.errors import ConfigurationError, JournalError, RequestError
from agent.messages import Ack, Asked, Books, Mode, ModeRequest, Snapshot, Status, Timing
from agent.wire import outbound
from agent.wire.curve import Guard, protect_bind
from agent.wire.sockets import attach, prepare

log = logging.getLogger(__name__)

POLL_MS = 100  # how often an idle thread looks whether to stop
REQUEST_BYTES = 64 * 1024  # answered as too large above this
MESSAGE_BYTES = 1024 * 1024  # libzmq drops the peer above this
QUEUE = 1000  # asks the loop has not taken yet; it takes all of them every turn
REMEMBERED = 10_000  # suggestions that may still be acknowledged: hours of them
HIGH_WATER_MARK = 1000
JOIN_S = 2.0

Events = Callable[[int, int], list[dict[str, Any]]]
Answer = dict[str, Any]


class Requests:
    """The command socket. `books` and `timings` make an answer as fresh as its question."""

    def __init__(
        self,
        endpoint: str,
        *,
        context: "zmq.Context[zmq.Socket[bytes]]",
        clock: Clock,
        events: Events,
        books: Callable[[], Books] | None = None,
        timings: Callable[[], dict[str, Timing]] = dict,
        guard: Guard | None = None,
    ) -> None:
        self._endpoint, self._context, self._clock, self._guard = endpoint, context, clock, guard
        self._events, self._books, self._timings = events, books, timings
        self._lock = threading.Lock()
        self._asked: deque[Asked] = deque()
        self._issued: OrderedDict[str, bool] = OrderedDict()  # suggestion -> acknowledged
        self._snapshot: Snapshot | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)

    def start(self) -> None:
        """Bind and answer. Raises ConfigurationError."""
        self._socket = self._open()
        self._thread.start()

    def drain(self) -> list[Asked]:
        """What was asked since the last call, in order; an acknowledgement comes once."""
        with self._lock:
            asked = list(self._asked)
            self._asked.clear()
            return asked

    def publish(self, snapshot: Snapshot) -> None:
        """Leave behind what to answer from; once a turn."""
        with self._lock:
            self._snapshot = snapshot

    def issued(self, suggestion: str) -> None:
        """A suggestion is about to go out: its acknowledgement will be known. Call before sending it."""
        with self._lock:
            self._issued[suggestion] = False
            while len(self._issued) > REMEMBERED:
                self._issued.popitem(last=False)

    def status(self) -> Status | None:
        """The last snapshot with its age and the books of this moment; None before the first turn."""
        with self._lock:
            snapshot = self._snapshot
        if snapshot is None:
            return None
        age_s = max(0, self._clock.now_ns() - snapshot.now_ns) / 1e9
        books = self._books() if self._books else snapshot.status.frames
        return msgspec.structs.replace(snapshot.status, frames=books, loop_age_s=age_s, timings=self._timings())

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _open(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.ROUTER)
        try:
            prepare(socket, self._endpoint, high_water_mark=HIGH_WATER_MARK)
            socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
            socket.setsockopt(zmq.RCVTIMEO, POLL_MS)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a controller that restarts under its own name is let in
            protect_bind(socket, self._endpoint, self._guard)
            attach(socket, self._endpoint, bind=True)
        except ConfigurationError:
            socket.close()
            raise
        return socket

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                *envelope, request = self._socket.recv_multipart()
                self._socket.send_multipart([*envelope, self.answer(request)], zmq.NOBLOCK)
            except zmq.Again:
                continue
            except zmq.ZMQError as error:
                # EHOSTUNREACH: the asker is gone. Anything else would come back at once, so it is told and waited out.
                log.warning("commands socket: %s", error)
                self._stopping.wait(POLL_MS / 1000)
        self._socket.close()

    def answer(self, request: bytes) -> bytes:
        """One request -> one reply, whatever it was."""
        number: outbound.Id = None
        try:
            if len(request) > REQUEST_BYTES:
                raise RequestError("too_large", f"{len(request)} bytes; a request has at most {REQUEST_BYTES}")
            fields = outbound.open_request(request)
            number = outbound.request_id(fields)
            return outbound.reply(number, self._fulfil(outbound.read_request(fields)))
        except RequestError as error:
            return outbound.refuse(number, error)
        except JournalError as error:
            return outbound.refuse(number, RequestError("journal_unavailable", str(error)))
        except ValueError as error:
            return outbound.refuse(number, RequestError("not_finite", f"the answer cannot be sent: {error}"))

    def _fulfil(self, body: outbound.RequestBody) -> Answer:
        match body:
            case Ack():
                return self._acknowledge(body)
            case ModeRequest():
                return self._mode(body)
            case outbound.StatusRequest():
                return {"status": self._status_now()}
            case outbound.LimitsRequest():
                return {"limits": self._limits()}
            case outbound.EventsRequest():
                return {"events": self._events(body.since, body.limit)}
            case _:
                self._queue(body)
                return {}

    def _acknowledge(self, ack: Ack) -> Answer:
        with self._lock:
            known = self._issued.get(ack.suggestion)
        if known is None:
            raise RequestError("unknown_suggestion", f"suggestion {ack.suggestion!r} was not issued by this boot")
        if known:
            return {"duplicate": True}
        self._queue(ack)
        with self._lock:
            self._issued[ack.suggestion] = True
        return {}

    def _mode(self, asked: ModeRequest) -> Answer:
        status = self._status_now() if asked.mode is Mode.CONTROL else None
        if status and status.mode is Mode.HOLD:
            raise RequestError("held", "an operator's hold stands: request mode suggest or observe to end it")
        lease = status.lease if status else None
        if lease and lease.controller != asked.controller:
            raise RequestError(
                "lease_held",
                f"{lease.controller!r} holds the lease for {lease.expires_in_s:.1f} s more; ask again then",
            )
        self._queue(asked)
        return {"mode": asked.mode, "lease_s": asked.lease_s if asked.mode is Mode.CONTROL else None}

    def _queue(self, asked: Asked) -> None:
        with self._lock:
            if len(self._asked) >= QUEUE:
                raise RequestError("busy", f"{QUEUE} requests wait already; ask again")
            self._asked.append(asked)

    def _status_now(self) -> Status:
        status = self.status()
        if status is None:
            raise RequestError("starting", "the models are being loaded; ask again in a second")
        return status

    def _limits(self) -> dict[str, float | int | None]:
        with self._lock:
            snapshot = self._snapshot
        if snapshot is None:
            raise RequestError("starting", "the models are being loaded; ask again in a second")
        return snapshot.limits
