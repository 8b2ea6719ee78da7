"""The agent and the virtual microscope, each on its thread, closing the loop over real sockets. Truth is the twin's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibration.twin.column import Actuator
from calibration.twin.controller import Controller
from calibration.twin.episode import Episode, plan, run_episode
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.link import Link
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.script import Action, Do
from tests.loop.harness import VALIDATORS, Hosted, Message, endpoints

START_S = 20.0
FRAMES = 6  # of evidence, from 12 half depths of focus away
WORSE_H = 0.25  # the play of the lens


class Laboratory:
    """An agent in control, and one microscope after the other behind the same sockets."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.heard = folder / "certificate.json", list[Message]()
        scope = self.certify()
        self.agent = Hosted(folder, focus={"certificate": self.certificate, "operator_yield_s": 0.5})
        self.controller = Controller(Link(*endpoints(folder).values()), scope, lockstep=True)
        self.controller.listeners.append(self.heard.append)
        self.agent.serve()
        assert self.controller.wait_for_agent(START_S)

    def certify(self, alpha_error: float = 0.0) -> VirtualMicroscope:
        scope = VirtualMicroscope(MicroscopeSettings())
        scope.certificate(alpha_error=alpha_error).save(self.certificate)
        return scope

    def reload(self) -> None:
        """Let the agent read the certificate again."""
        before = self.agent.loop.decider.terms
        self.controller.link.ask("reload")
        while self.agent.loop.decider.terms is before:
            self.controller.scan()

    def focus(self, settings: MicroscopeSettings, *script: Action) -> Episode:
        return run_episode(self.controller, settings, script=script)

    def close(self) -> None:
        self.agent.loop.stopping.set()
        self.agent.ended()
        self.controller.scan()  # hears the last words
        self.agent.shut()
        self.controller.link.close()
        assert (self.heard[-1]["topic"], self.heard[-1]["reason"]) == ("hold", "shutdown")
        assert [told["seq"] for told in self.heard] == list(range(1, len(self.heard) + 1))
        for told in self.heard:
            VALIDATORS[told["topic"]].validate(told)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(folder))
        made = Laboratory(folder)
    yield made
    made.close()


def one(session: str, **settings: Any) -> MicroscopeSettings:
    return MicroscopeSettings(**{"specimen": "tin-balls", "seed": 5, "session": session, **settings})


def off_h(episode: Episode) -> float:
    return abs(episode.residual_m) / episode.half_depth_of_focus_m


def worse_h(episode: Episode) -> float:
    """How much further out of focus than at the start."""
    return (abs(episode.residual_m) - abs(episode.start_defocus_m)) / episode.half_depth_of_focus_m


def test_two_specimens_in_a_row_are_brought_into_focus(laboratory: Laboratory) -> None:
    for settings in plan(2, seed=11):
        episode = laboratory.focus(settings)
        assert (episode.end, episode.reason) == ("converged", "")
        assert off_h(episode) <= 1.0 and episode.frames <= FRAMES
        assert {outcome for _, outcome in episode.outcomes} == {"applied"}


def test_a_flat_specimen_is_held_and_nothing_moves(laboratory: Laboratory) -> None:
    episode = laboratory.focus(one("flat", specimen="flat"))
    assert (episode.end, episode.moved_m) == ("held", 0.0)
    assert episode.reason in ("featureless", "noise_only")
    assert abs(episode.residual_m - episode.start_defocus_m) <= WORSE_H * episode.half_depth_of_focus_m


def test_a_certificate_that_is_wrong_by_a_third_still_leads_into_focus(laboratory: Laboratory) -> None:
    laboratory.certify(alpha_error=-0.3)
    laboratory.reload()
    try:
        for n, start_h in enumerate((-7.0, 5.0)):
            scope = one(f"wrong {n}", start_defocus_m=start_h * 1.03e-6, seed=n)
            episode = laboratory.focus(scope)
            assert episode.end == "converged" and off_h(episode) <= 1.0
    finally:
        laboratory.certify()
        laboratory.reload()


@pytest.mark.parametrize("start_h", [-8.0, 3.0])
def test_a_stuck_lens_is_held_and_never_called_converged(laboratory: Laboratory, start_h: float) -> None:
    scope = one(f"stuck {start_h}", actuator=Actuator.STUCK, start_defocus_m=start_h * 1.03e-6)
    episode = laboratory.focus(scope)
    assert episode.end == "held" and worse_h(episode) <= WORSE_H
    assert episode.moved_m == pytest.approx(0.0, abs=1e-9)


def test_a_lens_that_sticks_in_the_middle_of_a_routine_is_held(laboratory: Laboratory) -> None:
    episode = laboratory.focus(one("sticks", start_defocus_m=8e-6), Action(2, Do.STICK))
    assert (episode.end, episode.reason) == ("held", "actuator_dead")  # it cannot be brought back, but it is named


@pytest.mark.parametrize("start_h", [-8.0, 3.0])
def test_an_inverted_lens_never_ends_worse_than_it_began(laboratory: Laboratory, start_h: float) -> None:
    scope = one(f"inverted {start_h}", actuator=Actuator.INVERTED, start_defocus_m=start_h * 1.03e-6)
    assert worse_h(laboratory.focus(scope)) <= WORSE_H


def test_a_hand_on_the_knob_in_the_middle_of_it_delays_and_does_no_harm(laboratory: Laboratory) -> None:
    episode = laboratory.focus(one("hand", start_defocus_m=6e-6), Action(2, Do.WORKING_DISTANCE, 2e-6))
    assert episode.end == "converged" and off_h(episode) <= 1.0
    assert any(told.get("code") == "operator" and told["session"] == "hand" for told in laboratory.heard)


def test_another_site_in_the_middle_of_it_is_focused_instead(laboratory: Laboratory) -> None:
    episode = laboratory.focus(one("site", start_defocus_m=6e-6), Action(3, Do.STAGE, -3e-6))
    assert episode.end == "converged" and off_h(episode) <= 1.0
