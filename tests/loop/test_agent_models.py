"""All three models behind the real sockets: what is said of frames to inspect and of live ones, and at what rate."""

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.errors import EngineError
from agent.journal import FILE, read
from engines import readings
from engines.errors import InferenceError
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene
from tests.fakes.models import Reads
from tests.loop.harness import DEADLINE_S, SHAPE, Agent, Message, Process, Rig, Stream, said, scope_for
from tests.loop.test_agent_bad_input import MALFORMED
from tests.loop.test_agent_engine import Moody

Start = Callable[..., Agent]
MAP_S = 1.0  # between two depth maps
PIT = FoundDefect("pit", 0.75, (100.0, 60.0, 120.0, 80.0))


class Relief(Reads):
    """A depth model that sees the box of PIT as a hole of 50 nm; slow where it is told to be, by the agent's clock."""

    name = "relief@0"

    def __init__(self, *moods: Exception) -> None:
        self.moods, self.frames = list(moods), 0

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> readings.Relief | None:
        self.frames += 1
        if self.moods:
            raise self.moods.pop(0)
        if scene.pixel_size_m is None:
            return None
        height_px = np.full(image.shape, 80e-9 / scene.pixel_size_m, np.float32)
        height_px[60:80, 100:120] = 30e-9 / scene.pixel_size_m
        return readings.Relief(height_px, np.full(image.shape, 0.1, np.float32), scene.pixel_size_m)


class Pits(Reads):
    """A defect model that always finds PIT."""

    name = "pits@0"

    def __init__(self, *found: FoundDefect) -> None:
        self.found = found or (PIT,)

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> Defects:
        return self.found


def stand_ins(agent: Agent, *moods: Exception) -> Stream:
    agent.look_with(Moody(), Relief(*moods), Pits())
    return Stream(agent.wire)


# --- the shipped packages ---


def test_each_frame_to_inspect_gets_its_defects_among_live_and_malformed_ones_and_the_books_are_exact(
    launch: Callable[..., Process], folder: Path
) -> None:
    process = launch(sys.executable, "-m", "agent", "run", "--json", BEAMSIDE_DEPTH__PUBLISH="true").start()
    wire, began = process.wire, time.monotonic()
    secondary, backscattered = Stream(wire), Stream(wire, source="electron/BSE", session="s1")
    junk = itertools.cycle(parts for parts, _ in MALFORMED.values())
    inspected = []
    for n in range(60):
        stream = (secondary, backscattered)[n % 2]
        number = stream.send(number=n + 1, inspect=n % 3 == 0)
        inspected += [number] if n % 3 == 0 else []
        if n % 4 == 1:
            wire.send(next(junk))
    books = wire.settled_books()
    assert books["received"] == 60 + 15 and sum(books["malformed"].values()) == 15
    assert books["received"] == books["processed"] + books["superseded"] + books["uninspected"] + 15
    for number in inspected:
        told = wire.until(said("defects", frame=number, lane="inspect"))
        assert told["count"] == len(told["defects"]) and told["event"] is not None
        assert {name.split("@")[0] for name in told["models"]} == {"autofocus", "depth", "defects"}
        assert {"convert", "autofocus", "depth", "defects"} <= set(told["took_s"])
        wire.until(said("focus", frame=number))
    lasted_s = time.monotonic() - began
    process.popen.terminate()
    code, out, err = process.ended()
    assert code == 0 and "Traceback" not in err
    wire.last_words()
    assert 1 <= len(wire.maps) <= lasted_s / MAP_S + 2
    for told, part in wire.maps:
        heights = np.frombuffer(part, "<f4").reshape(told["shape"])
        assert heights.shape == SHAPE and told["calibrated"] is False
        assert told["mean_m"] == pytest.approx(float(heights.mean()), rel=1e-4, abs=1e-12)
        assert told["frame"] in range(1, 61)
    rows = [row for row in read(folder / "state" / FILE) if row["topic"] == "defects" and row["frame"] in inspected]
    assert [row["frame"] for row in rows] == inspected
    numbered = {told["frame"]: told["event"] for told in wire.heard if told["topic"] == "defects"}
    assert [numbered[row["frame"]] for row in rows] == [row["event"] for row in rows]
    assert json.loads(out)["frames"] == books


def test_the_status_names_all_models_and_the_backends_and_times_of_those_that_read(agent: Agent) -> None:
    stream = Stream(agent.wire)
    stream.show(inspect=True)
    agent.wire.flush()
    status = agent.wire.status()
    assert [name.split("@")[0] for name in status["models"]] == ["autofocus", "depth", "defects", "cascade"]
    assert set(status["backends"]) == set(status["backend_reasons"]) == {"autofocus", "depth", "defects"}
    for model, backend in status["backends"].items():
        why = status["backend_reasons"][model]
        assert why.startswith(f"{backend}: ") and "the best that answers here" in why and "\n" not in why
    assert {"convert", "autofocus", "depth", "defects", "evidence"} <= set(status["timings"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(32, 700), (33, 65), (64, 64), (255, 257)], ids=str)
def test_frames_of_any_shape_and_depth_are_inspected(stream: Stream, shape: tuple[int, int], dtype: str) -> None:
    picture = np.random.default_rng(stream.number).integers(1, 250, shape).astype(dtype)
    number = stream.send(picture, inspect=True, full_scale=None, bits_significant=None)
    told = stream.wire.until(said("defects", frame=number))
    for defect in told["defects"]:
        x0, y0, x1, y1 = defect["box_px"]
        assert 0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]


# --- what a defect carries ---


def test_a_defect_has_its_class_its_height_and_its_place(agent: Agent) -> None:
    stream = stand_ins(agent)
    place = {"stage_x_m": 1e-3, "stage_y_m": 2e-3, "scan_rotation_rad": 0.0}
    told = told_of(stream, **place)
    (defect,) = told["defects"]
    assert (defect["class"], defect["path"], defect["box_px"]) == ("pit", ["defect", "pit"], [100, 60, 120, 80])
    assert defect["confidence"] == 0.75 and defect["height_m"] == pytest.approx(-50e-9, rel=1e-3)
    assert defect["stage_x_m"] == pytest.approx(1e-3 + (110 - 128) * 10e-9, abs=1e-12)
    assert defect["stage_y_m"] == pytest.approx(2e-3 + (128 - 70) * 10e-9, abs=1e-12)


def test_what_is_unknown_is_null_and_a_missing_pixel_size_is_told_once_without_a_hold(agent: Agent) -> None:
    stream = stand_ins(agent)
    stream.show()
    for _ in range(2):
        (defect,) = told_of(stream, pixel_size_m=None, stage_x_m=1e-3, stage_y_m=0.0, scan_rotation_rad=0.0)["defects"]
        assert (defect["height_m"], defect["stage_x_m"], defect["stage_y_m"]) == (None, None, None)
    (defect,) = told_of(stream)["defects"]
    assert defect["height_m"] is not None and defect["stage_x_m"] is None
    agent.wire.flush()
    assert [flag["state"] for flag in agent.wire.told("flag", code="no_pixel_size")] == ["raised", "cleared"]
    assert not agent.wire.told("hold")


def test_heights_follow_the_certificate_that_vouches_for_them(start: Start, folder: Path) -> None:
    path = folder / "certificate.json"
    known = scope_for().certificate()
    type(known)(**{**vars(known), "height_scale": 1.2, "height_scale_sigma": 0.05}).save(path)
    agent = start(focus={"certificate": path}, depth={"publish": True})
    (defect,) = told_of(stand_ins(agent))["defects"]
    assert defect["height_m"] == pytest.approx(-60e-9, rel=1e-3)
    told = agent.wire.until(said("depth"))
    assert told["calibrated"] is True
    assert (told["min_m"], told["max_m"]) == pytest.approx((36e-9, 96e-9), rel=1e-3)


def told_of(stream: Stream, **changes: object) -> Message:
    """What is said of the defects of the next frame to inspect."""
    number = stream.send(inspect=True, **changes)
    return stream.wire.until(said("defects", frame=number))


# --- what nobody saw ---


def test_an_empty_frame_to_inspect_is_named_and_not_called_clean(agent: Agent) -> None:
    stream = stand_ins(agent)
    empty = stream.send(np.zeros(SHAPE, np.uint8), inspect=True)
    blanked = stream.send(inspect=True, blanked=True)
    for number, word in ((empty, "blank"), (blanked, "blanked")):
        flag = agent.wire.until(said("flag", code="uninspected", frame=number))
        assert word in flag["detail"] and flag["event"] is not None
        agent.wire.until(said("focus", frame=number))
    told_of(stream)
    assert {told["frame"] for told in agent.wire.told("defects")}.isdisjoint({empty, blanked})


def test_a_depth_model_that_fails_holds_and_names_the_frame_and_the_next_one_is_well(agent: Agent) -> None:
    stream = stand_ins(agent, InferenceError("out of memory"))
    failed = stream.send(inspect=True)
    flag = agent.wire.until(said("flag", code="uninspected", frame=failed))
    assert "relief@0: out of memory" in flag["detail"]
    agent.wire.until(said("hold", state="begin", reason="engine_error"))
    told_of(stream)
    agent.wire.until(said("hold", state="end", reason="engine_error"))
    assert not agent.wire.told("defects", frame=failed)


def test_a_model_that_always_fails_ends_the_process_though_the_others_answer(start: Start) -> None:
    agent = start(engines={"live_budget": 0.0})
    stream = stand_ins(agent, *[InferenceError("no")] * 5)
    for n in range(5):
        stream.send(inspect=True)
        if n < 4:
            stream.show()  # a live frame that autofocus alone reads, and reads well
    assert isinstance(agent.ended(), EngineError)
    last = agent.wire.until(lambda told: told["topic"] == "hold" and told is agent.wire.heard[-1])
    assert last["reason"] == "engine_error"


# --- live frames ---


def test_live_frames_are_read_within_the_budget_and_clean_ones_are_no_records(start: Start) -> None:
    agent = start(engines={"live_budget": 0.25})
    agent.look_with(Moody(), Relief(), Pits())
    stream = Stream(agent.wire)
    stream.show()  # the first: nobody knows yet what a reading costs
    told = agent.wire.until(said("defects", lane="live"))
    assert told["event"] is not None and told["count"] == 1
    agent.look_with(Moody(), Relief(), Nothing())
    agent.clock.skip(2.0)
    stream.show()
    told = agent.wire.until(said("defects", lane="live", count=0))
    assert told["event"] is None


class Nothing(Pits):
    """A defect model that finds nothing."""

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> Defects:
        return ()


def test_without_a_budget_only_frames_to_inspect_are_read(start: Start) -> None:
    agent = start(engines={"live_budget": 0.0})
    stream = stand_ins(agent)
    for _ in range(4):
        stream.show()
        agent.clock.skip(3.0)
    told_of(stream)
    assert [told["lane"] for told in agent.wire.told("defects")] == ["inspect"]


def test_while_it_focuses_no_live_frame_waits_for_depth_and_defects(start: Start, folder: Path) -> None:
    scope = scope_for(session="focus")
    scope.certificate().save(folder / "certificate.json")
    agent = start(focus={"certificate": folder / "certificate.json"}, frames={"stale_after_s": 1000.0})
    agent.look_with(agent.loop.perceiver.autofocus, Relief(), Pits())
    rig = Rig(agent, scope).take_control()
    rig.converge()
    agent.wire.flush()
    assert agent.wire.told("defects", lane="live") == []
    agent.clock.skip(3.0)
    rig.show()
    agent.wire.until(said("defects", lane="live"))


def test_two_slow_models_are_no_hung_one(start: Start) -> None:
    agent = start(frames={"stale_after_s": 1000.0})
    slow = Slow(agent)
    agent.look_with(Moody(), slow, slow)
    number = Stream(agent.wire).send(inspect=True)
    assert slow.looking.wait(DEADLINE_S)  # twelve seconds into the turn
    told = agent.wire.until(said("status"), since=len(agent.wire.heard))
    assert 6.0 <= told["loop_age_s"] < 10.0  # the step limit on a processor
    slow.go_on.set()
    agent.wire.until(said("defects", frame=number))


class Slow(Relief):
    """Two models that take six seconds each by the agent's clock; the second then waits for the test."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent, self.looking, self.go_on = agent, threading.Event(), threading.Event()

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> Any:
        self.agent.clock.skip(6.0)
        if self.frames == 0:
            return super().read(image, scene, levels)
        self.looking.set()
        assert self.go_on.wait(DEADLINE_S)
        return ()


# --- maps ---


def test_maps_are_off_unless_asked_for(agent: Agent) -> None:
    told_of(stand_ins(agent))
    agent.wire.flush()
    assert agent.wire.maps == []


def test_of_many_maps_one_a_second_is_told_and_a_frame_to_inspect_comes_before_live_ones(start: Start) -> None:
    agent = start(depth={"publish": True}, engines={"live_budget": 1.0}, frames={"stale_after_s": 1000.0})
    stream = stand_ins(agent)
    first = stream.show()["frame"]
    agent.wire.until(said("depth", frame=first))
    asked_for = stream.show(inspect=True)["frame"]
    for _ in range(3):
        stream.show()
    assert len(agent.wire.maps) == 1
    agent.clock.skip(MAP_S)
    told = agent.wire.until(said("depth", frame=asked_for))
    assert told["source"] == "electron/SE2" and told["shape"] == list(SHAPE)
    assert [told["frame"] for told, _ in agent.wire.maps] == [first, asked_for]
    assert all(len(part) == 4 * SHAPE[0] * SHAPE[1] for _, part in agent.wire.maps)
