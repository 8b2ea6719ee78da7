"""Thread 4: the PUB socket. Decisions become messages, numbered as they leave; a status goes out every second.

The loop only ever puts a decision into a queue. When the loop itself stops turning, this thread says so and ends the
process: the supervisor starts a fresh one.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
import zmq

from agent.clock import Clock
from agent.errors import ConfigurationError
from agent.messages import Decision, Defect, Flag, FrameRef, Heights, Hold, Inspected, Lane, Mode, Status
from agent.settings import Advice
from agent.wire.curve import Guard, protect_bind
from agent.wire.outbound import Body, Defects, Depth, Envelope, encode
from agent.wire.sockets import attach, prepare

log = logging.getLogger(__name__)

HEARTBEAT_NS = 1_000_000_000  # the controller's dead-man is 3 s: two may get lost
WAKE_S = 0.1  # how late a heartbeat or the end of the process may be noticed
QUEUE = 1000  # decisions; the sender needs microseconds for each, so a full queue means that it is stuck
LINGER_MS = 500  # the last words must leave the process, but not hold up its end
DOUBT_S = 0.5  # for a loop that is late: what held up this thread too, the whole process, is no hang of the loop
HANG_FLUSH_S = 0.3  # for libzmq's own thread to send the last words before the process is ended
JOIN_S = 1.5  # SIGTERM to exit is 2 s
HANG_EXIT = 70  # sysexits EX_SOFTWARE

Events = Mapping[tuple[str, int], int]  # (topic, index within that topic of this decision) -> journal row


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks."""

    agent: str  # version
    boot: str  # hex, new with each process


class Reporter:
    """The sender thread. `send` never waits; `seq` has no gap because a message is numbered when it is sent."""

    def __init__(
        self,
        settings: Advice,
        endpoint: str,
        *,
        context: "zmq.Context[zmq.Socket[bytes]]",
        clock: Clock,
        identity: Identity,
        status: Callable[[], Status | None],
        step_limit_s: Callable[[], float],
        guard: Guard | None = None,
        on_hang: Callable[[], None] = lambda: os._exit(HANG_EXIT),
    ) -> None:
        self._settings, self._endpoint, self._context, self._guard = settings, endpoint, context, guard
        self._clock, self._identity, self._status = clock, identity, status
        self._step_limit_s, self._on_hang = step_limit_s, on_hang
        self._queue: queue.Queue[tuple[Decision, Events]] = queue.Queue(QUEUE)
        self._ready, self._first_status, self._stopping = threading.Event(), threading.Event(), threading.Event()
        self._last_words: tuple[str, int | None] | None = None
        self._seq = self._dropped = 0
        self._mode = Mode.OBSERVE  # both as last told, for the messages no decision stands behind
        self._models: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Bind, and send what comes. Raises ConfigurationError."""
        self._socket = self._open()
        self._thread.start()

    def ready(self, timeout_s: float = 5.0) -> bool:
        """Models are loaded and frames connected: start the heartbeat. True when the first status is out."""
        self._ready.set()
        return self._first_status.wait(timeout_s)

    def send(self, decision: Decision, events: Events | None = None) -> bool:
        """Queue all that a decision says, with its journal rows. False: the queue was full, and it was dropped."""
        try:
            self._queue.put_nowait((decision, events or {}))
        except queue.Full:
            self._dropped += sum(1 for _ in messages(decision)) + (decision.depth is not None)
            return False
        return True

    def stop(self, reason: str = "shutdown", *, event: int | None = None) -> None:
        """Send what waits, then `hold begin` as the last message of the boot, and close."""
        self._last_words = (reason, event)
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    @property
    def sent(self) -> int:
        """Messages sent: the last `seq`."""
        return self._seq

    @property
    def dropped(self) -> int:
        """Messages that found the queue full or could not be encoded."""
        return self._dropped

    def _open(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.PUB)
        try:
            prepare(socket, self._endpoint, high_water_mark=self._settings.high_water_mark, linger_ms=LINGER_MS)
            protect_bind(socket, self._endpoint, self._guard)
            attach(socket, self._endpoint, bind=True)
        except ConfigurationError:
            socket.close()
            raise
        return socket

    def _run(self) -> None:
        due_ns = self._clock.now_ns()
        while not self._stopping.is_set():
            until_due_s = (due_ns - self._clock.now_ns()) / 1e9
            self._forward(min(WAKE_S, max(0.001, until_due_s)) if self._ready.is_set() else WAKE_S)
            now_ns = self._clock.now_ns()
            if self._ready.is_set() and now_ns >= due_ns:
                due_ns = now_ns + HEARTBEAT_NS
                self._beat()
        self._flush()
        if self._last_words is not None:
            self._hold(*self._last_words)
        self._socket.close()

    def _forward(self, timeout_s: float) -> None:
        try:
            decision, events = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return
        self._tell(decision, events)

    def _flush(self) -> None:
        while True:
            try:
                self._tell(*self._queue.get_nowait())
            except queue.Empty:
                return

    def _tell(self, decision: Decision, events: Events) -> None:
        self._mode, self._models = decision.mode, decision.models or self._models
        counts: dict[str, int] = {}
        for topic, body in messages(decision):
            index = counts.get(topic, 0)
            counts[topic] = index + 1
            about = _about(decision.frame, body)
            envelope = self._envelope(topic, event=events.get((topic, index)))
            self._publish(
                msgspec.structs.replace(envelope, took_s=decision.took_s, models=decision.models, **about), body
            )
        if decision.depth is not None:
            self._tell_depth(decision.depth)

    def _tell_depth(self, told: Heights) -> None:
        """A map comes with the frame it was read from, which may be an earlier one than the decision's."""
        about = _about(told.frame, None)
        envelope = self._envelope("depth")
        envelope = msgspec.structs.replace(envelope, took_s=told.took_s, models=told.models, **about)
        self._publish(envelope, summary(told), np.ascontiguousarray(told.height_m, "<f4").tobytes())

    def _beat(self) -> None:
        status = self._status()
        if status is None:
            return
        if self._late(status) and not self._stopping.wait(DOUBT_S):
            status = self._status() or status
            if self._late(status):
                self._hang(status.loop_age_s or 0.0)
                return
        self._mode, self._models = status.mode, status.models
        status = msgspec.structs.replace(status, dropped=self._dropped, boot=self._identity.boot)
        self._publish(self._envelope("status"), status)
        self._first_status.set()

    def _late(self, status: Status) -> bool:
        return status.loop_age_s is not None and status.loop_age_s > self._step_limit_s()

    def _hang(self, age_s: float) -> None:
        limit_s = self._step_limit_s()
        log.critical("no turn of the loop for %.1f s (limit %.1f s): ending the process", age_s, limit_s)
        self._hold("engine_hang", None)
        self._stopping.wait(HANG_FLUSH_S)
        self._on_hang()
        self._stopping.set()  # reached in tests only

    def _hold(self, reason: str, event: int | None) -> None:
        hold = Hold(state="begin", reason=reason, since_ns=self._clock.wall_ns())
        self._publish(self._envelope("hold", event=event), hold)

    def _envelope(self, topic: str, event: int | None = None) -> Envelope:
        return Envelope(
            topic=topic,
            agent=self._identity.agent,
            boot=self._identity.boot,
            seq=self._seq + 1,
            t_sent_ns=self._clock.wall_ns(),
            mode=self._mode,
            event=event,
            models=self._models,
        )

    def _publish(self, envelope: Envelope, body: Body, array: bytes | None = None) -> None:
        try:
            self._socket.send_multipart(encode(envelope, body, array), zmq.NOBLOCK)
            self._seq += 1
        except ValueError as error:
            # A number that is not one never leaves; the next message takes its place in the count.
            self._dropped += 1
            log.error("message not sent: %s", error)
        except zmq.ZMQError as error:
            self._dropped += 1
            log.error("advice socket: %s", error)


def messages(decision: Decision) -> Iterator[tuple[str, Body]]:
    """What a decision says, in the order of its fields; its depth map, megabytes that nobody waits for, comes last."""
    yield from (("flag", flag) for flag in decision.flags)
    yield from (("hold", hold) for hold in decision.holds)
    if decision.focus is not None:
        yield "focus", decision.focus
    if decision.defects is not None and decision.frame is not None:
        yield "defects", found(decision.defects, decision.frame.lane, decision.inspected)
    if decision.suggestion is not None:
        yield "suggestion", decision.suggestion


def found(defects: tuple[Defect, ...], lane: Lane, seen: Inspected | None) -> Defects:
    recipe, dropped = (None, {}) if seen is None else (seen.recipe, seen.dropped)
    return Defects(count=len(defects), lane=lane, recipe=recipe, dropped=dropped, defects=defects)


def summary(told: Heights) -> Depth:
    heights = told.height_m
    return Depth(
        shape=(heights.shape[0], heights.shape[1]),
        calibrated=told.calibrated,
        mean_m=float(heights.mean(dtype=np.float64)),
        min_m=float(heights.min()),
        max_m=float(heights.max()),
    )


def _about(frame: FrameRef | None, body: Body | None) -> dict[str, int | str | None]:
    """The envelope's words on the frame. A flag about another frame (uninspected) names that one, and no epochs."""
    if isinstance(body, Flag) and body.frame is not None and (frame is None or body.frame != frame.number):
        return {"frame": body.frame}
    if frame is None:
        return {}
    return {
        "frame": frame.number,
        "session": frame.session,
        "source": frame.source,
        "optics_epoch": frame.optics_epoch,
        "scene_epoch": frame.scene_epoch,
        "t_frame_ns": frame.t_start_ns,
    }
