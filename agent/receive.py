"""Thread 1: SUB or PULL -> the newest live frame of each source, and the next frame to inspect. Keeps the books.

Live frames are latest-wins, one slot a source, sources in turn. Inspected frames queue, bounded by bytes; what does not
fit is refused and named. When both lanes hold frames they alternate.
"""

import logging
import threading
from collections import Counter, OrderedDict, deque

import zmq

from agent.clock import Clock
from agent.control.pace import Pace
from agent.errors import ConfigurationError, MalformedFrameError
from agent.messages import SOURCES, Books, Flag, Frame, Lane, Optics
from agent.settings import Frames
from agent.wire import array1
from agent.wire.curve import Guard, protect_bind
from agent.wire.sockets import Tie, attach, beyond_loopback, prepare

log = logging.getLogger(__name__)

TICK_MS = 100  # how often an idle thread shows that it lives, and looks whether to stop
OVERHEAD_BYTES = 4096  # header, structs and message of a queued frame: a flood of tiny ones has a bound too
FLAG_EVERY_NS = 1_000_000_000  # a condition that persists is told once a second, with its count
CLEAR_AFTER_S, CLEAR_AFTER_FRAMES = 5.0, 3.0  # and is over when it did not come back for so long
NAMED_AT_THE_END = 800  # as many frames of 300 kB as the queue has room for; SIGTERM to exit is 2 s
JOIN_S = 2.0


class Lanes:
    """The two lanes and the books: everything that several threads touch, under one lock."""

    def __init__(self, inspect_bytes: int) -> None:
        self._changed = threading.Condition()
        self._live: OrderedDict[str, Frame] = OrderedDict()
        self._inspect: deque[Frame] = deque()
        self._inspect_bytes, self._inspect_limit = 0, inspect_bytes
        self._hand: Frame | None = None
        self._turn = Lane.INSPECT
        self._resting = False  # live frames are not wanted just now
        self._received = self._processed = self._superseded = self._uninspected = 0
        self._malformed: Counter[str] = Counter()
        self._closed = False

    def offer(self, frame: Frame) -> bool:
        """Take a frame in. False: it was to be inspected and there is no room."""
        with self._changed:
            self._received += 1
            taken = self._queue(frame) if frame.lane is Lane.INSPECT else self._replace(frame)
            if frame.lane is Lane.INSPECT or not self._resting:
                self._changed.notify()
            return taken

    def refuse(self, reason: str) -> None:
        with self._changed:
            self._received += 1
            self._malformed[reason] += 1

    def next(self, timeout_s: float, rest_s: float = 0.0) -> Frame | None:
        """The next frame, a live one not before `rest_s`; the one handed out before counts as processed now."""
        with self._changed:
            if self._hand is not None:
                self._processed += 1
                self._hand = None
            if rest_s > 0.0:
                self._rest(rest_s)
            self._changed.wait_for(self._ready, timeout_s)
            self._hand = self._take()
            return self._hand

    def _rest(self, rest_s: float) -> None:
        """Sleep through live frames, but not through one to inspect."""
        self._resting = True
        self._changed.wait_for(lambda: bool(self._inspect or self._closed), rest_s)
        self._resting = False

    def books(self) -> Books:
        with self._changed:
            waiting = len(self._live) + len(self._inspect) + (self._hand is not None)
            return Books(
                received=self._received,
                processed=self._processed,
                superseded=self._superseded,
                uninspected=self._uninspected,
                malformed=dict(self._malformed),
                waiting=waiting,
            )

    def abandon(self) -> list[Frame]:
        """The frames to inspect that nobody will look at any more."""
        with self._changed:
            left = list(self._inspect)
            self._inspect.clear()
            self._inspect_bytes = 0
            self._uninspected += len(left)
            return left

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _ready(self) -> bool:
        return bool(self._live or self._inspect or self._closed)

    def _take(self) -> Frame | None:
        if self._inspect and (self._turn is Lane.INSPECT or not self._live):
            self._turn = Lane.LIVE
            frame = self._inspect.popleft()
            self._inspect_bytes -= _weight(frame)
            return frame
        if not self._live:
            return None
        self._turn = Lane.INSPECT
        return self._live.popitem(last=False)[1]

    def _queue(self, frame: Frame) -> bool:
        if self._inspect_bytes + _weight(frame) > self._inspect_limit:
            self._uninspected += 1
            return False
        self._inspect_bytes += _weight(frame)
        self._inspect.append(frame)
        return True

    def _replace(self, frame: Frame) -> bool:
        if frame.source in self._live:
            self._superseded += 1
        elif len(self._live) >= SOURCES:
            self._live.popitem(last=False)
            self._superseded += 1
        self._live[frame.source] = frame  # a newer frame keeps its source's place in the turn
        return True


def _unseen(frame: Frame, why: str) -> Flag:
    detail = f"frame {frame.number} of source {frame.source!r}: {why}"
    return Flag(code="uninspected", state="raised", severity="error", detail=detail, frame=frame.number)


def _weight(frame: Frame) -> int:
    return frame.pixels.nbytes + OVERHEAD_BYTES


class Complaints:
    """What was wrong with the stream, gathered by the thread and drained by the loop at a bearable rate."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str], tuple[int, str]] = {}  # (code, what) -> how often, the last one's words
        self._told_ns: dict[tuple[str, str], int] = {}
        self._seen_ns: dict[str, int] = {}  # raised codes -> last time
        self._pace = Pace()
        # Not bounded: each refused frame is named, and a loop that stopped draining ends the process within seconds.
        self._uninspected: deque[Flag] = deque()

    def frame(self, optics: Optics, now_ns: int) -> None:
        """A readable one: a condition of a slow scan is not over between two frames that have it."""
        self._pace = self._pace.after(optics, now_ns)

    def add(self, code: str, what: str, detail: str) -> None:
        with self._lock:
            count, _ = self._pending.get((code, what), (0, ""))
            self._pending[code, what] = (count + 1, detail)
            self._seen_ns[code] = self._clock.now_ns()

    def add_uninspected(self, frame: Frame) -> None:
        with self._lock:
            self._uninspected.append(_unseen(frame, "the inspection queue is full"))

    def drain(self) -> list[Flag]:
        with self._lock:
            now_ns = self._clock.now_ns()
            flags = list(self._uninspected)
            self._uninspected.clear()
            return flags + self._due(now_ns) + self._over(now_ns)

    def _due(self, now_ns: int) -> list[Flag]:
        due = [key for key in self._pending if now_ns - self._told_ns.get(key, -FLAG_EVERY_NS) >= FLAG_EVERY_NS]
        flags = []
        for key in due:
            count, detail = self._pending.pop(key)
            self._told_ns[key] = now_ns
            text = f"{key[1]}, {count} since last told: {detail}"
            flags.append(Flag(code=key[0], state="raised", severity="warning", detail=text))
        return flags

    def _over(self, now_ns: int) -> list[Flag]:
        waiting = {code for code, _ in self._pending}
        clear_ns = self._pace.limit_s(CLEAR_AFTER_S, CLEAR_AFTER_FRAMES) * 1e9
        over = [code for code, seen in self._seen_ns.items() if now_ns - seen >= clear_ns and code not in waiting]
        for code in over:
            del self._seen_ns[code]
        return [Flag(code=code, state="cleared", severity="info", detail="not seen again") for code in over]


class Receiver:
    """The receive thread. `start` it, then call `next` from one thread only; the rest may be called from any."""

    def __init__(
        self,
        settings: Frames,
        endpoint: str,
        *,
        context: "zmq.Context[zmq.Socket[bytes]]",
        clock: Clock,
        guard: Guard | None = None,
    ) -> None:
        self._settings, self._endpoint = settings, endpoint
        self._context, self._clock, self._guard = context, clock, guard
        self._lanes, self._complaints = Lanes(settings.inspect_bytes), Complaints(clock)
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)
        self._stopping = threading.Event()
        self._tick_ns = clock.now_ns()
        self._frame_ns: int | None = None

    def start(self) -> None:
        """Connect or bind, and listen. Raises ConfigurationError."""
        self._socket = self._open()
        self._thread.start()

    def next(self, timeout_s: float, rest_s: float = 0.0) -> Frame | None:
        """The newest live frame, not before `rest_s`, or the oldest to inspect, in turn; None after `timeout_s`."""
        return self._lanes.next(timeout_s, rest_s)

    def books(self) -> Books:
        return self._lanes.books()

    def flags(self) -> list[Flag]:
        """What to tell since the last call: malformed and bad_field once a second a cause, uninspected one by one."""
        return self._complaints.drain()

    def abandon(self) -> list[Flag]:
        """Names the frames to inspect that still wait when the agent ends, as many as the advice socket holds."""
        left = self._lanes.abandon()
        return self.flags() + [_unseen(frame, "the agent ended") for frame in left[:NAMED_AT_THE_END]]

    def last_tick_ns(self) -> int:
        """When the thread last went round; it does so without frames too."""
        return self._tick_ns

    def last_frame_ns(self) -> int | None:
        """When the last readable frame came in."""
        return self._frame_ns

    def close(self) -> None:
        self._stopping.set()
        self._lanes.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _open(self) -> "zmq.Socket[bytes]":
        settings = self._settings
        socket = self._context.socket(zmq.SUB if settings.pattern == "sub" else zmq.PULL)
        try:
            prepare(socket, self._endpoint, high_water_mark=settings.high_water_mark)
            socket.setsockopt(zmq.MAXMSGSIZE, settings.max_message_bytes)
            socket.setsockopt(zmq.RCVTIMEO, TICK_MS)
            if settings.pattern == "sub":
                socket.setsockopt(zmq.SUBSCRIBE, settings.topic.encode())
            self._secure(socket)
            attach(socket, self._endpoint, bind=settings.bind)
        except ConfigurationError:
            socket.close()
            raise
        return socket

    def _secure(self, socket: "zmq.Socket[bytes]") -> None:
        if self._settings.allow_plain_tcp:
            return
        if self._settings.bind:
            protect_bind(socket, self._endpoint, self._guard)
        elif not (self._guard and self._guard.introduce(socket, self._endpoint)) and beyond_loopback(self._endpoint):
            raise ConfigurationError(
                f"frames from another host, {self._endpoint!r}, over plain TCP: put the producer's public key into "
                "keys.allowed as frames.key, or set frames.allow_plain_tcp = true on a network you trust"
            )

    def _run(self) -> None:
        tie = None if self._settings.bind else Tie(self._socket, self._endpoint)
        while not self._stopping.is_set():
            self._tick_ns = self._clock.now_ns()
            try:
                message = self._socket.recv_multipart(copy=False)
            except zmq.Again:
                self._mend(tie)
                continue
            except zmq.ZMQError as error:
                log.error("frames socket: %s", error)
                break
            self._read(message)
        if tie is not None:
            tie.close()
        self._socket.close()

    def _mend(self, tie: Tie | None) -> None:
        if tie is not None and tie.mend():
            limit = self._settings.max_message_bytes
            detail = f"connection broken by a message above {limit} bytes or a peer that speaks another protocol"
            self._complaints.add("malformed", "size", detail)

    def _read(self, message: "list[zmq.Frame]") -> None:
        now_ns, settings = self._clock.now_ns(), self._settings
        try:
            frame = array1.decode(
                [part.buffer for part in message],
                dialect=settings.dialect,
                topic=settings.topic,
                received_ns=now_ns,
                max_bytes=settings.max_message_bytes,
            )
        except MalformedFrameError as error:
            self._complaints.add("malformed", error.reason, error.detail)
            self._lanes.refuse(error.reason)
            return
        self._frame_ns = now_ns
        self._complaints.frame(frame.optics, now_ns)
        for name in frame.bad_fields:
            self._complaints.add("bad_field", name, f"frame {frame.number}")
        if not self._lanes.offer(frame):
            self._complaints.add_uninspected(frame)
