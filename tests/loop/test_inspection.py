"""The inspection episode over real sockets: fields published, the agent's word on each collected, truth kept."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.perceive import Perceiver
from calibration.twin.controller import Controller
from calibration.twin.inspecting import InspectedField, PlannedField, plan_fields, run_inspection
from calibration.twin.inspection import InspectedFrame, TrueDefect
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.link import ARRAY, Link
from calibration.twin.microscope import VirtualMicroscope
from tests.loop.harness import ROOT, VALIDATORS, Hosted, Message, clean_environment, endpoints
from tests.loop.test_agent_engine import Moody
from tests.loop.test_agent_models import PIT, Pits, Relief

START_S = 20.0
SHAPE = (256, 256)


def drawn(plan: PlannedField) -> InspectedFrame:
    """A field with a hole where the stand-in sees one, and a bridge where it sees nothing; a clean one without."""
    pixels = np.random.default_rng(plan.seed).integers(20, 230, SHAPE, np.uint8)
    truth = (
        TrueDefect("pit", PIT.box_px, -50e-9, 5.0),
        TrueDefect("bridge", (20.0, 200.0, 40.0, 220.0), 30e-9, 5.0),
    )[: plan.defects]
    return InspectedFrame(plan.pattern, pixels, 2e-9, 40.0, 800.0, np.zeros(SHAPE, np.float32), truth)


class Bench:
    """An agent with stand-in models, and the virtual microscope's end of the sockets."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[Message] = []
        self.agent = Hosted(folder, depth={"publish": True})
        self.agent.loop.perceiver = Perceiver(Moody(), Relief(), Pits())
        scope = VirtualMicroscope(MicroscopeSettings(shape=(64, 64)))
        self.controller = Controller(Link(*endpoints(folder).values()), scope, lockstep=True)
        self.controller.listeners.append(self.heard.append)
        self.agent.serve()
        assert self.controller.wait_for_agent(START_S)

    def inspect(self, count: int, **changes: Any) -> list[InspectedField]:
        return run_inspection(self.controller, plan_fields(count, seed=5), draw=drawn, **changes)

    def close(self) -> None:
        if self.agent.alive:
            self.agent.shut()
        self.controller.link.close()
        for told in self.heard:
            VALIDATORS[told["topic"]].validate({name: value for name, value in told.items() if name != ARRAY})


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder)
    yield made
    made.close()


def test_each_field_gets_the_agents_word_with_its_heights_and_times(bench: Bench) -> None:
    seen: list[InspectedField] = []
    done = bench.inspect(3, on_field=seen.append)
    assert done == seen and [each.shown.pattern for each in done] == ["line-space", "contact-holes", "line-space"]
    for each in done:
        assert (each.word.end, each.word.reason) == ("inspected", "")
        assert [find.name for find in each.word.found] == ["pit"]
        assert each.word.found[0].height_m == pytest.approx(-50e-9)
        assert each.word.height_m is not None and each.word.height_m.shape == SHAPE
        assert each.word.calibrated is False
        assert {"depth", "defects"} <= set(each.word.took_s)
    assert [(len(each.pairs), len(each.missed), len(each.false_alarms)) for each in done] == [
        (1, 1, 0),
        (1, 1, 0),
        (0, 0, 1),  # the clean one, where it saw the hole all the same
    ]
    assert done[0].class_right == 1


def test_all_fields_are_frames_to_inspect_of_one_session(bench: Bench) -> None:
    bench.inspect(2)
    told = [each for each in bench.heard if each["topic"] == "defects"]
    assert {each["session"] for each in told} == {"inspection-5"} and {each["lane"] for each in told} == {"inspect"}
    assert len({each["scene_epoch"] for each in told}) == 2
    assert bench.agent.loop.receiver.books().uninspected == 0


def test_an_agent_without_a_defect_model_fails_the_field_and_says_so(bench: Bench) -> None:
    bench.agent.loop.perceiver = Perceiver(Moody())
    (each,) = bench.inspect(1)
    assert each.word.end == "failed" and "defect model" in each.word.reason
    assert each.told()["found"] == [] and each.told()["missed"] == 2


def test_an_agent_that_is_gone_fails_the_fields_that_are_left(bench: Bench) -> None:
    done = bench.inspect(2, on_field=lambda _: bench.agent.shut() if bench.agent.alive else None)
    assert [each.word.end for each in done] == ["inspected", "failed"]
    assert "heartbeat" in done[1].word.reason


# --- the command ---


def run_demo(folder: Path, *options: str) -> Message:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "demo", "--json", "--seed", "8", *options],
        env=clean_environment(folder), cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: Message = json.loads(done.stdout)
    return told


def test_demo_inspects_fields_after_the_episodes_and_leaves_a_report(folder: Path) -> None:
    told = run_demo(folder, "--episodes", "1", "--fields", "2", "--report", str(folder / "report"))
    assert [row["end"] for row in told["episodes"]] == ["converged"]
    assert [(row["seed"], row["specimen"]) for row in told["inspection"]] == [(8, "line-space"), (9, "contact-holes")]
    for row in told["inspection"]:
        assert (row["end"], row["reason"]) == ("inspected", "")
        assert row["count"] == len(row["found"]) == row["matched"] + row["false_alarms"]
        assert len(row["truth"]) == row["matched"] + row["missed"] and row["class_right"] <= row["matched"]
        assert {"depth", "defects"} <= set(row["took_s"])
    page = (folder / "report" / "demo.html").read_text()
    assert (folder / "report" / "demo.png").exists()
    assert "Height read by the agent" in page and "Field 2" in page and "defects@" not in page


def test_demo_without_fields_is_focus_alone(folder: Path) -> None:
    told = run_demo(folder, "--episodes", "1", "--fields", "0", "--report", str(folder / "report"))
    assert told["inspection"] == [] and len(told["episodes"]) == 1
    assert "No field was inspected" in (folder / "report" / "demo.html").read_text()
