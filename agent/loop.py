"""The page to read first: a frame in, a decision out, told and written down. Thread 3; it never waits for another.

receive (wire) -> perceive (engines) -> decide (control, flags) -> journal -> report.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import msgspec

from agent.clock import Clock
from agent.control.envelope import Envelope
from agent.decide import Decider, Terms
from agent.errors import EngineError, JournalError
from agent.health import Health, Patience
from agent.journal import Journal
from agent.messages import Asked, Decision, Flag, Frame, Lane, Reload, Snapshot, Standing, Status
from agent.perceive import Perceiver
from agent.receive import Receiver
from agent.report import Reporter
from agent.requests import Requests

log = logging.getLogger(__name__)

WAIT_S = 0.2  # for a frame; requests and timeouts are looked at as often
LOOK_NS = 5_000_000  # between two live frames at least: no instrument is faster, and receiving must not starve
FAILURES = 5  # of an engine in a row: the process ends and is restarted with fresh ones


@dataclass(frozen=True)
class Service:
    """What a reload replaces, all of it at once and between two frames."""

    perceiver: Perceiver
    terms: Terms
    facts: Status  # what of the status does not change: backends and why, models, plain TCP
    patience: Patience


class Renewal(Protocol):
    """Reads what serves again, beside the frames: agent/commands/reloading.py."""

    def ask(self) -> None: ...

    def take(self) -> Service | None: ...

    def flags(self) -> tuple[Flag, ...]: ...

    def wait(self, timeout_s: float) -> bool: ...


class Loop:
    """Owns nothing but the order of things."""

    def __init__(
        self,
        receiver: Receiver,
        requests: Requests,
        *,
        service: Service,
        decider: Decider,
        journal: Journal,
        reporter: Reporter,
        health: Health,
        clock: Clock,
        reload: Renewal,
    ) -> None:
        self.receiver, self.requests, self.decider = receiver, requests, decider
        self.perceiver, self.facts, self.patience = service.perceiver, service.facts, service.patience
        self.journal, self.reporter, self.health, self.clock = journal, reporter, health, clock
        self.reload = reload
        self.stopping, self.reloading = threading.Event(), threading.Event()
        self._spent_s: float | None = None  # by depth and defects, the last time they ran
        self._looked_ns = -LOOK_NS  # when the last live frame was taken up

    def run(self) -> None:
        """Turn until told to stop. Raises EngineError when a model keeps failing."""
        while not self.stopping.is_set():
            self.turn()

    def turn(self) -> None:
        frame = self._next()  # newest live frame, or the oldest one to inspect, or None
        asked = self.requests.drain()  # acknowledgements, mode, reload since the last turn
        self._renew(asked)
        noted = (*self.receiver.flags(), *self.reload.flags(), *self.journal.flags())
        decision = self.step(frame, asked, self.clock.now_ns(), noted=noted, spent_s=self._spent_s)
        decided = perf_counter()
        self._spent_s = inspection_s(decision.took_s) or self._spent_s
        events = self.write(decision)
        written = perf_counter()
        if decision.suggestion is not None:
            self.requests.issued(decision.suggestion.id)
        self.reporter.send(decision, events)
        self.health.beat(decision, self.receiver.last_tick_ns())
        self.requests.publish(self.snapshot())
        if frame is not None:
            self.health.add("journal", written - decided)
            self.health.add("send", perf_counter() - written)
        if self.perceiver.failures >= FAILURES:
            raise EngineError(f"{FAILURES} failures of a model in a row: ending the process for a fresh one")

    def step(
        self,
        frame: Frame | None,
        asked: list[Asked],
        now_ns: int,
        *,
        noted: tuple[Flag, ...] = (),
        spent_s: float | None = None,
    ) -> Decision:
        """Same frame, same requests, same history, same now_ns and spent_s: same decision.

        spent_s: what depth and defects took the last time, given because no two runs take the same.
        """
        acks = self.decider.hear(asked, now_ns)  # first: the frame may be the one after an acknowledged change
        return msgspec.structs.replace(self._judge(frame, now_ns, noted, spent_s), acks=acks)

    def _judge(self, frame: Frame | None, now_ns: int, noted: tuple[Flag, ...], spent_s: float | None) -> Decision:
        wall_ns = self.clock.wall_ns()
        if frame is None:
            return self.decider.decide(None, None, now_ns=now_ns, wall_ns=wall_ns, noted=noted)
        wanted = self.decider.admit(frame, now_ns, spent_s)
        self.health.allow(self.patience.limit_s(slow=self.perceiver.lacks(frame)))
        try:
            findings = self.perceiver.look(frame, wanted, self._progress)
        except EngineError as error:
            return self.decider.engine_failed(frame, str(error), now_ns=now_ns, wall_ns=wall_ns, noted=noted)
        began = perf_counter()
        decision = self.decider.decide(frame, findings, now_ns=now_ns, wall_ns=wall_ns, noted=noted)
        took = {"receive": (now_ns - frame.received_ns) / 1e9, **decision.took_s, "decide": perf_counter() - began}
        return msgspec.structs.replace(decision, took_s=took)

    def _progress(self) -> None:
        """One model of several is done: the step limit is for one that hangs, not for three in a row."""
        self.requests.publish(self.snapshot())

    def write(self, decision: Decision) -> Mapping[tuple[str, int], int]:
        """The journal's numbers for what this decision says; without a journal the agent holds, and goes on looking."""
        try:
            if not self.journal.healthy and self.journal.retry():
                self.decider.journal_mended()
            return self.journal.write(decision)
        except JournalError as error:
            self.decider.journal_failed(str(error))
            return {}

    def snapshot(self) -> Snapshot:
        """What the other threads may tell of the agent until the next turn ends."""
        now_ns = self.clock.now_ns()
        decider = self.decider
        reason = decider.standing.reason
        status = msgspec.structs.replace(
            self.facts,
            mode=decider.mode.mode,
            phase=decider.routine.phase,
            lease=decider.lease(now_ns),
            hold=None if reason is None else Standing(reason=reason, since_ns=decider.standing.since_ns),
            frames=self.receiver.books(),
            receive_age_s=(now_ns - self.receiver.last_tick_ns()) / 1e9,
            last_frame_age_s=_age_s(now_ns, self.receiver.last_frame_ns()),
            uptime_s=self.health.uptime_s(),
            dose=decider.dose(),
            flags=tuple(decider.standing.codes),
        )
        return Snapshot(status=status, limits=limits(decider.terms.envelope, decider.terms.dose_frames), now_ns=now_ns)

    def _next(self) -> Frame | None:
        """A producer without a pause would keep this thread busy with pictures nobody can tell apart: it rests."""
        rest_ns = self._looked_ns + LOOK_NS - self.clock.now_ns()
        frame = self.receiver.next(WAIT_S, rest_ns / 1e9)
        if frame is not None and frame.lane is Lane.LIVE:
            self._looked_ns = self.clock.now_ns()
        return frame

    def _renew(self, asked: list[Asked]) -> None:
        """Models and certificate are read again beside the frames, and change between two of them."""
        if self.reloading.is_set() or any(isinstance(each, Reload) for each in asked):
            self.reloading.clear()
            self.reload.ask()
        new = self.reload.take()
        if new is not None:
            self.perceiver, self.patience, self.decider.terms = new.perceiver, new.patience, new.terms
            self.facts = new.facts


def inspection_s(took_s: Mapping[str, float]) -> float:
    """What depth and defects took on one frame, what they are compared with and who judges; 0 where none was due."""
    return sum(took_s.get(stage, 0.0) for stage in ("depth", "reference", "defects", "cascade"))


def limits(envelope: Envelope, dose_frames: int) -> dict[str, float | int | None]:
    """What the agent would never ask for beyond, as `limits` answers it."""
    return {
        "working_distance_min_m": envelope.working_distance_min_m,
        "working_distance_max_m": envelope.working_distance_max_m,
        "working_distance_step_m": envelope.step_m,
        "working_distance_cumulative_m": envelope.cumulative_m,
        "stigmator_min": envelope.stigmator_min,
        "stigmator_max": envelope.stigmator_max,
        "stigmator_step": envelope.stigmator_step,
        "dose_frames": dose_frames,
    }


def _age_s(now_ns: int, then_ns: int | None) -> float | None:
    return None if then_ns is None else (now_ns - then_ns) / 1e9
