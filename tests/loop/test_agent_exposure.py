"""Brightness and contrast, and lenses that do not do as told, in a closed loop over real sockets: the truth is the
virtual microscope's."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from agent.messages import Outcome
from calibration.twin.column import Actuator
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.readback import applied
from calibration.twin.script import Action, Do, act
from tests.loop.harness import Agent, Message, Rig, scope_for

Make = Callable[..., Rig]
SESSIONS = itertools.count(1)
CLIPPED = 0.006  # share of the pixels at one end
BACK_H = 0.25  # the play of the lens
SLOW_S = 30e-6  # of dwell: an acknowledgement is waited for two frame times, and the machine may be busy


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """With the certificate of the column; it lives through all the tests."""
    folder = tmp_path_factory.mktemp("a")
    scope_for().certificate().save(folder / "certificate.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(folder))
        made = Agent(
            folder, frames={"stale_after_s": 1000.0}, focus={"certificate": folder / "certificate.json"}
        ).start()
    yield made
    made.stop()


@pytest.fixture
def make(agent: Agent) -> Make:
    """A session with a microscope of its own, the agent in control of it unless `mode` says otherwise."""

    def begin(mode: str = "control", **settings: Any) -> Rig:
        agent.wire.change_mode("suggest")
        rig = Rig(agent, scope_for(session=f"exposed {next(SESSIONS)}", dwell_s=SLOW_S, **settings))
        rig.show()  # the first frame of a session has not settled
        agent.wire.mark = len(agent.wire.heard)
        return rig.take_control() if mode == "control" else rig

    return begin


def steer(rig: Rig, frames: int = 40, *, linger: int = 4) -> list[Message]:
    """Obey until nothing has been asked for in so many frames after an end; what was asked for."""
    asked, quiet = [], 0
    for _ in range(frames):
        told = rig.show()
        quiet = quiet + 1 if told["phase"] in ("converged", "held") and rig.suggestion is None else 0
        if rig.suggestion is not None:
            asked.append(rig.suggestion)
            assert rig.obey(rig.suggestion)["ok"]
        if quiet > linger:
            break
    return asked


def clipped(scope: VirtualMicroscope) -> float:
    pixels = scope.frame()[0]
    return float(max(np.mean(pixels == 0), np.mean(pixels == 255)))


# --- brightness and contrast ---


def test_a_saturated_picture_is_mended_first_and_focused_then(make: Make) -> None:
    rig = make(contrast=1.0, brightness=0.7)
    assert rig.wire.status()["hold"]["reason"] == "saturated"
    asked = steer(rig)
    kinds = [told["kind"] for told in asked]
    assert kinds[0] == "exposure" and "correct" in kinds
    assert rig.off_h < 1.0 and clipped(rig.scope) < CLIPPED
    assert rig.wire.told("hold", state="end", reason="saturated")
    bracket = kinds[kinds.index("probe") : kinds.index("correct")]
    assert "exposure" not in bracket
    for told in (told for told in asked if told["kind"] == "exposure"):
        assert told["working_distance_m"] is None and told["stigmator_x"] is None
        assert 0.0 <= told["brightness"] <= 1.0 and 0.0 <= told["contrast"] <= 1.0
        assert "clipped" in told["reason"]


def test_what_is_squeezed_is_stretched_once_it_is_in_focus(make: Make) -> None:
    rig = make(specimen="tin-balls", contrast=0.1, start_defocus_m=10e-6)
    kinds = [told["kind"] for told in steer(rig)]
    assert "exposure" in kinds and kinds.index("exposure") > kinds.index("correct")
    assert rig.scope.contrast > 0.15 and rig.off_h < 1.0
    assert rig.show()["phase"] == "converged"  # focus in metres survives another contrast


def test_a_well_used_histogram_is_left_alone(make: Make) -> None:
    rig = make()
    assert "exposure" not in {told["kind"] for told in steer(rig)}


def test_without_control_it_is_said_once(make: Make) -> None:
    rig = make(mode="suggest", contrast=0.9)
    said_so = []
    for _ in range(10):
        rig.show()
        said_so += [rig.suggestion] if rig.suggestion is not None else []
    assert [told["kind"] for told in said_so] == ["exposure"]
    assert said_so[0]["mode"] == "suggest"


def test_a_controller_that_refuses_is_not_asked_again_and_focus_goes_on(make: Make) -> None:
    rig = make(contrast=0.75)
    suggestion = rig.suggested()
    assert suggestion["kind"] == "exposure"
    assert rig.acknowledge(suggestion, applied(rig.scope, Outcome.REJECTED))["ok"]
    kinds = [told["kind"] for told in steer(rig)]
    assert kinds[0] == "probe" and "exposure" not in kinds
    assert not rig.wire.told("hold", reason="rejected")


# --- lenses ---


def test_a_lens_that_was_always_inverted_is_named_by_its_magnification(make: Make) -> None:
    rig = make(actuator=Actuator.INVERTED, start_defocus_m=-6e-6)
    steer(rig)
    assert rig.show()["phase"] == "held"
    assert rig.wire.told("hold", state="begin")[-1]["reason"] == "actuator_inverted"
    assert not any(told["phase"] == "converged" for told in rig.wire.told("focus", session=rig.scope.session))
    assert rig.off_h < 1.0  # in focus all the same


def test_a_lens_that_turns_round_within_a_routine_is_named_and_brought_back(make: Make) -> None:
    rig = make(start_defocus_m=4e-6)
    began_h = rig.off_h
    rig.obey(rig.suggested())
    act(rig.scope, Action(0, Do.INVERT))
    asked = steer(rig)
    assert asked[-1]["kind"] == "restore"
    assert rig.wire.told("hold", state="begin")[-1]["reason"] == "actuator_inverted"
    assert rig.off_h == pytest.approx(began_h, abs=BACK_H)


def test_a_lens_that_ends_early_and_reads_back_the_whole_way_is_called_clipped(make: Make) -> None:
    rig = make(start_defocus_m=9e-6)
    began_h = rig.off_h
    act(rig.scope, Action(0, Do.STOP, -1e-6))
    steer(rig)
    assert rig.wire.told("hold", state="begin")[-1]["reason"] == "clipped"
    assert rig.off_h == pytest.approx(began_h, abs=BACK_H)
