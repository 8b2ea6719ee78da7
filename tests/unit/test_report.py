"""The sender: order, numbers without a gap, a heartbeat, the last words, and the end of a process that hangs."""

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
import zmq

from agent.clock import ManualClock
from agent.errors import ConfigurationError
from agent.messages import (
    Decision,
    Defect,
    Flag,
    FocusState,
    FrameRef,
    Heights,
    Hold,
    Kind,
    Lane,
    Mode,
    Phase,
    Status,
    Suggestion,
)
from agent.report import QUEUE, Identity, Reporter
from agent.settings import Advice
from agent.wire import schema
from tests.wire.streams import eventually, receive

Message = dict[str, Any]
FULL = Decision(
    now_ns=0,
    mode=Mode.CONTROL,
    frame=FrameRef(number=7, session="s", source="SE", optics_epoch=3, scene_epoch=4, t_start_ns=5),
    flags=(
        Flag(code="blank", state="raised", severity="warning"),
        Flag(code="uninspected", state="raised", severity="error", frame=99),
    ),
    holds=(Hold(state="begin", reason="blank", since_ns=1),),
    focus=FocusState(phase=Phase.MEASURING, score=5.0),
    defects=(Defect(name="pit", path=(), box_px=(0.0, 0.0, 1.0, 1.0), confidence=1.0),),
    suggestion=Suggestion(id="s1", kind=Kind.PROBE, based_on_frames=(7,)),
    models=("autofocus@12ab",),
    took_s={"perceive": 0.01},
)
HEIGHTS = np.linspace(-1e-8, 9e-8, 12, dtype=np.float32).reshape(3, 4)
MAP = Heights(
    frame=FrameRef(number=5, session="s", source="BSE", optics_epoch=2, t_start_ns=3, lane=Lane.INSPECT),
    height_m=HEIGHTS,
    calibrated=True,
    models=("depth@34cd",),
    took_s={"depth": 0.1},
)
ORDER = ["flag", "flag", "hold", "focus", "defects", "suggestion"]


class Rig:
    """A reporter with a listener that subscribed to everything."""

    def __init__(self, tmp_path: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.clock, self.hung, self.limit_s = ManualClock(), threading.Event(), 2.0
        self.status: Status | None = Status(mode=Mode.SUGGEST, loop_age_s=0.1)
        self.reporter = Reporter(
            Advice(),
            f"ipc://{tmp_path}/advice.ipc",
            context=self.context,
            clock=self.clock,
            identity=Identity(agent="0.1.0", boot="ab12"),
            status=lambda: self.status,
            step_limit_s=lambda: self.limit_s,
            on_hang=self.hung.set,
        )
        self.listener = self.context.socket(zmq.SUB)
        self.listener.subscribe(b"")
        self.listener.connect(f"ipc://{tmp_path}/advice.ipc")

    def start(self) -> None:
        """Begin only when the listener is heard: PUB drops what nobody subscribed to."""
        self.reporter.start()
        self.reporter.ready()
        for _ in range(50):
            if self.heard(0.1):
                break
            self.clock.advance(1.0)
        while self.heard(0.15):
            pass

    def heard(self, deadline_s: float = 5.0) -> Message | None:
        parts = receive(self.listener, deadline_s)
        if parts is None:
            return None
        self.third = parts[2:]
        told: Message = json.loads(parts[1])
        assert parts[0].decode() == told["topic"]
        jsonschema.Draft202012Validator(json.loads(schema.PATH.read_text())).validate(told)
        return told

    def rest(self) -> list[Message]:
        return list(iter(lambda: self.heard(0.3), None))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.reporter.stop()
    made.context.destroy(linger=0)


def test_a_decision_becomes_messages_in_the_order_of_its_fields(rig: Rig) -> None:
    rig.start()
    before = rig.reporter.sent
    rig.reporter.send(FULL, {("flag", 1): 42, ("suggestion", 0): 43})
    told = [rig.heard() or {} for _ in ORDER]
    assert [each["topic"] for each in told] == ORDER
    assert [each["seq"] for each in told] == list(range(before + 1, before + 7))
    assert [each["event"] for each in told] == [None, 42, None, None, None, 43]
    assert [each["frame"] for each in told] == [7, 99, 7, 7, 7, 7]
    assert told[1]["session"] is None and told[5]["optics_epoch"] == 3 and told[5]["t_frame_ns"] == 5
    assert told[0]["models"] == ["autofocus@12ab"] and told[0]["took_s"] == {"perceive": 0.01}


def test_a_depth_map_comes_last_with_the_frame_it_was_read_from_and_its_pixels(rig: Rig) -> None:
    rig.start()
    rig.reporter.send(msgspec.structs.replace(FULL, depth=MAP))
    for topic in ORDER:
        assert (rig.heard() or {})["topic"] == topic and rig.third == []
    told = rig.heard() or {}
    assert (told["topic"], told["frame"], told["source"], told["scene_epoch"]) == ("depth", 5, "BSE", None)
    assert (told["models"], told["took_s"]) == (["depth@34cd"], {"depth": 0.1})
    assert (told["shape"], told["calibrated"], told["event"]) == ([3, 4], True, None)
    assert (told["min_m"], told["mean_m"], told["max_m"]) == pytest.approx((-1e-8, 4e-8, 9e-8), rel=1e-5)
    (part,) = rig.third
    assert np.array_equal(np.frombuffer(part, "<f4").reshape(3, 4), HEIGHTS)


def test_a_map_cut_out_of_a_larger_one_and_one_with_a_number_that_is_none(rig: Rig) -> None:
    rig.start()
    cut = msgspec.structs.replace(MAP, height_m=np.tile(HEIGHTS, (2, 2))[1:4, 2:5])
    broken = msgspec.structs.replace(MAP, height_m=np.full((2, 2), np.nan, np.float32))
    for heights in (broken, cut):
        rig.reporter.send(Decision(now_ns=0, mode=Mode.SUGGEST, depth=heights))
    told = rig.heard() or {}
    assert told["shape"] == [3, 3] and rig.reporter.dropped == 1
    assert np.array_equal(np.frombuffer(rig.third[0], "<f4").reshape(3, 3), cut.height_m)


def test_no_heartbeat_before_ready_then_one_a_second(rig: Rig) -> None:
    rig.reporter.start()
    assert rig.reporter.sent == 0
    assert rig.reporter.ready() and rig.reporter.sent == 1
    for beat in range(2, 5):
        rig.clock.advance(1.0)
        assert eventually(lambda beat=beat: rig.reporter.sent == beat)  # type: ignore[misc]
    assert not eventually(lambda: rig.reporter.sent > 4, 0.3)


def test_ready_waits_for_the_first_snapshot(rig: Rig) -> None:
    rig.status = None
    rig.reporter.start()
    assert not rig.reporter.ready(0.3) and rig.reporter.sent == 0


def test_the_heartbeat_carries_the_age_of_the_loop(rig: Rig) -> None:
    rig.start()
    rig.clock.advance(1.0)
    status = rig.heard()
    assert status and (status["topic"], status["loop_age_s"], status["boot"]) == ("status", 0.1, "ab12")


@pytest.mark.parametrize("holding", [False, True])
def test_hold_shutdown_is_the_last_message_of_the_boot(rig: Rig, holding: bool) -> None:
    rig.start()
    if holding:
        rig.reporter.send(Decision(now_ns=0, mode=Mode.HOLD, holds=FULL.holds))
    for _ in range(20):
        rig.reporter.send(FULL)
    rig.reporter.stop(event=77)
    rig.reporter.send(FULL)
    told = rig.rest()
    last = told[-1]
    assert (last["topic"], last["state"], last["reason"], last["event"]) == ("hold", "begin", "shutdown", 77)
    assert len(told) == 20 * len(ORDER) + 1 + holding
    assert [each["seq"] for each in told] == list(range(told[0]["seq"], told[0]["seq"] + len(told)))


def test_a_loop_that_stopped_ends_the_process_with_a_hold(rig: Rig) -> None:
    rig.start()
    rig.status = Status(mode=Mode.CONTROL, loop_age_s=2.5)
    rig.clock.advance(1.0)
    told = rig.heard()
    assert told and (told["topic"], told["state"], told["reason"]) == ("hold", "begin", "engine_hang")
    assert rig.hung.wait(5.0)


def test_a_loop_that_was_held_up_with_the_whole_process_is_no_hung_one(rig: Rig) -> None:
    rig.start()
    late, well = Status(mode=Mode.CONTROL, loop_age_s=2.5), Status(mode=Mode.CONTROL, loop_age_s=0.1)
    ages = iter((late,))
    rig.reporter._status = lambda: next(ages, well)  # it turns again while the sender doubts
    rig.clock.advance(1.0)
    told = rig.heard()
    assert told and (told["topic"], told["loop_age_s"]) == ("status", 0.1)
    assert not rig.hung.is_set()


def test_the_limit_is_the_one_of_this_moment(rig: Rig) -> None:
    rig.start()
    rig.limit_s = 10.0
    rig.status = Status(mode=Mode.CONTROL, loop_age_s=6.0)
    rig.clock.advance(1.0)
    told = rig.heard()
    assert told and told["topic"] == "status"
    rig.limit_s = 2.0
    rig.clock.advance(1.0)
    assert rig.hung.wait(5.0)


def test_a_full_queue_drops_counts_and_leaves_no_gap(rig: Rig) -> None:
    kept = [rig.reporter.send(FULL) for _ in range(QUEUE + 3)]  # the sender is not running yet
    assert kept.count(False) == 3 and rig.reporter.dropped == 3 * len(ORDER)
    rig.reporter.start()
    assert eventually(lambda: rig.reporter.sent == QUEUE * len(ORDER))


def test_a_number_that_is_not_finite_is_not_sent_and_leaves_no_gap(rig: Rig) -> None:
    rig.start()
    bad = Decision(now_ns=0, mode=Mode.SUGGEST, focus=FocusState(phase=Phase.IDLE, score=math.nan))
    rig.reporter.send(bad)
    rig.reporter.send(FULL)
    told = [rig.heard() or {} for _ in ORDER]
    assert [each["topic"] for each in told] == ORDER and rig.reporter.dropped == 1
    assert told[0]["seq"] == rig.reporter.sent - len(ORDER) + 1


def test_a_bind_beyond_loopback_without_keys_is_a_configuration_error() -> None:
    with zmq.Context() as context, pytest.raises(ConfigurationError, match=r"keys\.secret"):
        Reporter(
            Advice(),
            "tcp://0.0.0.0:5560",
            context=context,
            clock=ManualClock(),
            identity=Identity(agent="0", boot="0"),
            status=lambda: None,
            step_limit_s=lambda: 1.0,
        ).start()
