"""The virtual microscope on the wire, opposite a scripted agent: real sockets, real time at twenty times the speed."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from agent.messages import Frame
from agent.wire import array1
from calibration.certificate import Certificate
from calibration.twin.controller import Controller
from calibration.twin.episode import run_episode
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.link import Link
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.script import Action, Do, chain, dropped, malformed_before

DEADLINE_S = 10.0
SMALL = MicroscopeSettings(specimen="grains", shape=(96, 96), session="first", start_defocus_m=4e-6)


class ScriptedAgent:
    """The agent's end of the sockets, without an agent: says what a test tells it to say."""

    def __init__(self, folder: Path) -> None:
        self.endpoints = tuple(f"ipc://{folder}/{name}" for name in ("f", "a", "c"))
        self.context = zmq.Context()
        self.advice, self.commands = self.context.socket(zmq.PUB), self.context.socket(zmq.ROUTER)
        self.frames = self.context.socket(zmq.SUB)
        self.frames.setsockopt(zmq.SUBSCRIBE, b"")
        self.advice.bind(self.endpoints[1])
        self.commands.bind(self.endpoints[2])
        self.asked: list[dict[str, Any]] = []
        self.messages: list[list[bytes]] = []
        self.grants = True

    def connect(self) -> None:
        self.frames.connect(self.endpoints[0])

    def say(self, topic: str, **body: Any) -> None:
        told = {"topic": topic, "boot": "b", "mode": "control", **body}
        self.advice.send_multipart([topic.encode(), json.dumps(told).encode()])

    def answer(self) -> None:
        while self.commands.poll(0):
            who, request = self.commands.recv_multipart()
            told = json.loads(request)
            self.asked.append(told)
            reply = {"id": told["id"], "ok": self.grants}
            self.commands.send_multipart([who, json.dumps(reply).encode()])

    def receive(self) -> None:
        while self.frames.poll(0):
            self.messages.append(self.frames.recv_multipart())

    def pictures(self) -> list[Frame]:
        return [array1.decode(parts, dialect="psi", topic="", received_ns=0) for parts in self.messages]

    @property
    def acks(self) -> list[dict[str, Any]]:
        return [told for told in self.asked if told["request"] == "ack"]


class Bench:
    """An agent and a microscope that meet, and a clock that can be set forward."""

    def __init__(self, folder: Path) -> None:
        self.agent = ScriptedAgent(folder)
        self.link = Link(*self.agent.endpoints)
        self.skipped_s = 0.0
        self.controller = Controller(
            self.link, VirtualMicroscope(SMALL), speed=20.0, clock=lambda: time.monotonic() + self.skipped_s
        )
        self.said: list[str] = []
        self.controller.says = self.said.append
        self.agent.connect()

    def meet(self) -> None:
        self.until(lambda: self.controller.alive and self.controller.granted and self.link.subscribers > 0)
        self.agent.receive()
        self.agent.messages.clear()

    def turn(self) -> None:
        self.agent.say("status")
        self.agent.answer()
        self.controller.scan()
        self.agent.answer()
        self.agent.receive()

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline, "not within the deadline"
            self.turn()

    def suggest(self, number: str = "1", **fields: Any) -> None:
        scope = self.controller.scope
        state = {"session": scope.session, "optics_epoch": scope.optics_epoch, "scene_epoch": scope.scene_epoch}
        self.agent.say("suggestion", id=number, kind="probe", **({"valid_for_s": 5.0} | state | fields))

    def close(self) -> None:
        self.link.close()
        self.agent.context.destroy(linger=0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.meet()
    yield bench
    bench.close()


def test_it_asks_for_control_with_a_lease_and_renews_it(bench: Bench) -> None:
    asked = [told for told in bench.agent.asked if told["request"] == "mode"]
    assert (asked[0]["mode"], asked[0]["lease_s"], asked[0]["controller"]) == ("control", 5.0, "virtual microscope")
    before = len(asked)
    bench.skipped_s += 2.0
    bench.until(lambda: len([told for told in bench.agent.asked if told["request"] == "mode"]) > before)


def test_frames_are_array_1_with_the_state_of_the_microscope(bench: Bench) -> None:
    bench.until(lambda: len(bench.agent.messages) >= 3)
    read = bench.agent.pictures()
    assert [b.number - a.number for a, b in itertools.pairwise(read)] == [1] * (len(read) - 1)
    optics = read[-1].optics
    assert (optics.session, optics.optics_epoch, optics.pixel_size_m) == ("first", 1, 10e-9)
    assert optics.working_distance_m == bench.controller.scope.working_distance_m
    assert read[-1].bad_fields == ()


def test_a_suggestion_is_applied_and_acknowledged_once_it_has_settled(bench: Bench) -> None:
    scope = bench.controller.scope
    wanted = scope.working_distance_m - 4e-6
    bench.suggest(working_distance_m=wanted)
    bench.until(lambda: bool(bench.agent.acks))
    ack = bench.agent.acks[0]
    assert (ack["suggestion"], ack["outcome"], ack["working_distance_m"], ack["optics_epoch"]) == (
        "1",
        "applied",
        wanted,
        2,
    )
    assert ack["t_settled_ns"] <= scope.now_ns
    assert abs(scope.defocus_m) < 0.2e-6
    bench.until(lambda: bench.agent.pictures()[-1].optics.optics_epoch == 2)
    epochs = [frame.optics.optics_epoch for frame in bench.agent.pictures()]
    assert None in epochs and 1 not in epochs[epochs.index(None) :]


def test_a_suggestion_made_for_an_older_epoch_is_superseded(bench: Bench) -> None:
    before = bench.controller.scope.working_distance_m
    bench.suggest(working_distance_m=before + 1e-6, optics_epoch=0)
    bench.until(lambda: bool(bench.agent.acks))
    assert bench.agent.acks[0]["outcome"] == "superseded"
    assert bench.controller.scope.working_distance_m == before


def test_the_same_suggestion_twice_is_obeyed_once(bench: Bench) -> None:
    for _ in range(2):
        bench.suggest(working_distance_m=bench.controller.scope.working_distance_m + 1e-6)
    bench.suggest("2", optics_epoch=99)
    bench.until(lambda: len(bench.agent.acks) >= 2)
    assert sorted(ack["suggestion"] for ack in bench.agent.acks) == ["1", "2"]


def test_outside_control_a_suggestion_is_for_people(bench: Bench) -> None:
    before = bench.controller.scope.working_distance_m
    bench.suggest(working_distance_m=before + 1e-6, mode="suggest")
    bench.suggest("2", optics_epoch=99)
    bench.until(lambda: bool(bench.agent.acks))
    assert [ack["suggestion"] for ack in bench.agent.acks] == ["2"]
    assert bench.controller.scope.working_distance_m == before


def test_a_slow_controller_lets_suggestions_expire(bench: Bench) -> None:
    bench.controller.delay_s = 0.3
    bench.suggest(working_distance_m=bench.controller.scope.working_distance_m + 1e-6, valid_for_s=0.2)
    bench.until(lambda: bool(bench.agent.acks))
    assert bench.agent.acks[0]["outcome"] == "expired"


def test_without_a_heartbeat_for_three_seconds_it_obeys_nobody_and_says_so(bench: Bench) -> None:
    before = bench.controller.scope.working_distance_m
    bench.skipped_s += 3.1
    bench.suggest(working_distance_m=before + 1e-6)
    deadline = time.monotonic() + DEADLINE_S
    while not bench.agent.acks and time.monotonic() < deadline:
        bench.controller.scan()  # no status is sent
        bench.agent.answer()
    assert bench.agent.acks[0]["outcome"] == "rejected"
    assert bench.controller.scope.working_distance_m == before
    assert any("dead-man" in words for words in bench.said)


def test_a_stuck_lens_reads_back_what_it_was_told_and_stays(bench: Bench) -> None:
    scope = bench.controller.scope
    bench.controller.begin_session(scope, [Action(0, Do.STICK)])
    bench.turn()
    wanted = scope.working_distance_m - 4e-6
    bench.suggest(working_distance_m=wanted)
    bench.until(lambda: bool(bench.agent.acks))
    assert bench.agent.acks[0]["working_distance_m"] == wanted
    assert scope.defocus_m == pytest.approx(4e-6)


def test_a_controller_that_never_acknowledges_still_moves(bench: Bench) -> None:
    bench.controller.acknowledges = False
    bench.suggest(working_distance_m=bench.controller.scope.working_distance_m - 4e-6)
    bench.until(lambda: bool(bench.controller.outcomes) and not bench.controller.busy)
    assert not bench.agent.acks and abs(bench.controller.scope.defocus_m) < 0.2e-6


def test_faults_fall_into_the_byte_stream(bench: Bench) -> None:
    n = bench.controller.number
    bench.controller.stream = chain(malformed_before(n + 2, junk=[b"{"]), dropped(n + 1))
    bench.until(lambda: n + 2 in numbers(bench.agent.messages))
    told = numbers(bench.agent.messages)
    assert told[told.index(n) : told.index(n + 2) + 1] == [n, None, n + 2]


def numbers(messages: list[list[bytes]]) -> list[int | None]:
    """The frame numbers, None for what is no frame."""
    return [json.loads(parts[0])["frame"] if len(parts) == 2 else None for parts in messages]


def test_an_episode_ends_when_the_agent_says_so_and_tells_the_truth(bench: Bench) -> None:
    """A listener plays the agent: it corrects by what only a test may know, then calls it converged."""
    moved = []

    def play(_point: object) -> None:
        bench.agent.say("status")
        bench.agent.answer()
        scope = bench.controller.scope
        if not moved:
            moved.append(scope.working_distance_m)
            bench.suggest("e", working_distance_m=scope.working_distance_m - scope.defocus_m)
        done = bool(bench.agent.acks) and scope.now_ns > scope.settled_ns
        bench.agent.say(
            "focus", session=scope.session, frame=bench.controller.number - 1, evidence_frames=4,
            phase="converged" if done else "measuring",
        )  # fmt: skip

    settings = MicroscopeSettings(specimen="cells", shape=(96, 96), seed=7, session="second", start_defocus_m=-6e-6)
    episode = run_episode(bench.controller, settings, on_frame=play)
    told = episode.told()
    assert (told["end"], told["reason"], told["frames"], told["seed"], told["specimen"]) == (
        "converged",
        "",
        4,
        7,
        "cells",
    )
    assert told["start_defocus_m"] == pytest.approx(-6e-6)
    assert abs(told["residual_m"]) <= 0.11e-6  # what the lens's play leaves
    assert told["moved_m"] == pytest.approx(6e-6, abs=1e-9)
    assert told["half_depth_of_focus_m"] == pytest.approx(1.03e-6, abs=0.01e-6)
    assert episode.first is not None and episode.track[0].frame == bench.controller.number - len(episode.track)


def test_an_episode_nobody_ends_fails_with_its_residual(bench: Bench) -> None:
    settings = MicroscopeSettings(specimen="flat", shape=(96, 96), session="third", start_defocus_m=2e-6)
    episode = run_episode(bench.controller, settings, frame_limit=5, on_frame=lambda _: bench.agent.say("status"))
    assert (episode.end, episode.reason) == ("failed", "frame limit in phase unknown")
    assert episode.residual_m == pytest.approx(2e-6) and episode.moved_m == 0.0


def test_in_lockstep_it_waits_for_the_agents_word_and_not_for_the_scan(bench: Bench) -> None:
    bench.controller.lockstep, bench.controller.speed = True, 1e-3  # in step with time a frame would take minutes
    started = time.monotonic()
    for _ in range(3):
        bench.agent.say("status")
        bench.agent.say("focus", frame=bench.controller.number, session="first", phase="measuring")
        bench.controller.scan()
    assert time.monotonic() - started < 3.0


def test_the_command_publishes_and_writes_a_wrong_certificate_when_asked(tmp_path: Path) -> None:
    script = "import typer\nfrom agent.commands.microscope import microscope\ntyper.run(microscope)"
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    arguments = ["--frames-count", "2", "--specimen", "flat", "--certificate", str(tmp_path / "c.json"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--alpha-error=-0.3", "--start-defocus-m=3e-6"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (told["frames"], told["specimen"], told["start_defocus_m"]) == (2, "flat", 3e-6)
    assert Certificate.load(tmp_path / "c.json").alpha_rad == pytest.approx(3.5e-3)
