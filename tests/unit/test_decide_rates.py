"""The decision at every rate a microscope has, on a clock of the test's own: what waits, waits in frame times."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.control.envelope import Envelope
from agent.control.instrument import Instrument
from agent.decide import Decider, Terms
from agent.messages import (
    Ack,
    Decision,
    Evidence,
    Findings,
    Frame,
    Kind,
    Lane,
    Mode,
    ModeRequest,
    Optics,
    Outcome,
    Phase,
    Suggestion,
    Wanted,
)
from engines.readings import DepthMap

S = 1_000_000_000
RATES = {"TV": 0.04, "usual": 0.5, "slow": 30.0, "a minute": 60.0}
PIXELS = np.zeros((8, 8), np.uint8)
TERMS = Terms(Instrument(alpha_rad=5e-3), Envelope(1e-3, 20e-3, step_m=100e-6, cumulative_m=200e-6))

every_rate = pytest.mark.parametrize("frame_time_s", RATES.values(), ids=RATES.keys())


class Watch:
    """A decider fed by hand: frames at a rate, silence, requests; perception answers that all is well."""

    def __init__(self, frame_time_s: float, terms: Terms = TERMS, *, tells: bool = True) -> None:
        self.decider, self.frame_time_s, self.tells = Decider(terms, boot="watch"), frame_time_s, tells
        self.now_ns, self.number = 1000 * S, 0
        self.said: list[Decision] = []
        self.wanted: list[Wanted] = []

    def frame(self, lane: Lane = Lane.LIVE, *, spent_s: float | None = None, **changes: Any) -> Decision:
        """The next frame, a frame time later."""
        self.now_ns += round(self.frame_time_s * S)
        self.number += 1
        told: dict[str, Any] = {
            "session": "s", "source": "electron/SE2", "optics_epoch": 1, "scene_epoch": 1, "t_start_ns": self.now_ns,
            "working_distance_m": 5e-3, "pixel_size_m": 1e-8,
        }  # fmt: skip
        if self.tells:
            told["frame_time_s"] = self.frame_time_s
        shown = Frame(
            number=self.number, pixels=PIXELS, optics=Optics(**{**told, **changes}), lane=lane, received_ns=self.now_ns
        )
        self.wanted.append(self.decider.admit(shown, self.now_ns, spent_s))
        evidence = evidence_of(shown) if self.wanted[-1].evidence else None
        findings = Findings(score=7.0, content=0.9, evidence=evidence, models=("m@1",))
        return self._keep(self.decider.decide(shown, findings, now_ns=self.now_ns))

    def silence(self, seconds: float) -> Decision:
        self.now_ns += round(seconds * S)
        return self._keep(self.decider.decide(None, None, now_ns=self.now_ns))

    def ask(self, *asked: Any) -> None:
        self.decider.hear(list(asked), self.now_ns)

    def take_control(self) -> None:
        self.ask(ModeRequest(mode=Mode.CONTROL, lease_s=3600.0, controller="rig"))

    def suggested(self, frames: int = 60) -> Suggestion:
        for _ in range(frames):
            if (suggestion := self.frame().suggestion) is not None:
                return suggestion
        raise AssertionError("nothing suggested")

    def reasons(self) -> list[str]:
        return [hold.reason for decision in self.said for hold in decision.holds if hold.state == "begin"]

    def _keep(self, decision: Decision) -> Decision:
        self.said.append(decision)
        return decision


def evidence_of(frame: Frame) -> Evidence:
    """Spectra full of structure: enough to be worth a probe."""
    o = frame.optics
    assert o.optics_epoch is not None and o.t_start_ns is not None and o.working_distance_m is not None
    rng = np.random.default_rng(frame.number)
    spectra = 100.0 * (rng.normal(size=(4, 256, 129)) + 1j * rng.normal(size=(4, 256, 129)))
    return Evidence(
        frame=frame.number, session=o.session, source=frame.source, optics_epoch=o.optics_epoch,
        scene_epoch=o.scene_epoch, t_start_ns=o.t_start_ns, working_distance_m=o.working_distance_m, stigmator_x=0.0,
        stigmator_y=0.0, pixel_size_m=1e-8, pixel_size_y_m=1e-8, semi_convergence_angle_rad=None,
        landing_energy_ev=5000.0, frame_time_s=o.frame_time_s, centres_px=np.zeros((4, 2), np.float32),
        spectra=spectra.astype(np.complex64), noise=np.ones(129, np.float32),
    )  # fmt: skip


# --- silence ---


@every_rate
@pytest.mark.parametrize("lane", list(Lane))
@pytest.mark.parametrize("tells", [True, False], ids=["told", "measured"])
def test_a_stream_is_stale_after_five_frame_times_and_not_before(frame_time_s: float, lane: Lane, tells: bool) -> None:
    watch = Watch(frame_time_s, tells=tells)
    for _ in range(5):
        watch.frame(lane)
    limit_s = max(5.0, 5.0 * frame_time_s)
    watch.silence(0.99 * limit_s)
    assert "stale" not in watch.reasons()
    watch.silence(0.02 * limit_s)
    assert watch.reasons()[-1] == "stale"
    watch.frame(lane)
    assert watch.decider.standing.holding() is None


@every_rate
def test_averages_are_waited_for_as_long_as_they_take(frame_time_s: float) -> None:
    watch = Watch(16 * frame_time_s)
    for _ in range(3):
        end_ns = watch.now_ns + round(16 * frame_time_s * S)
        watch.frame(
            frame_time_s=frame_time_s, averaging="frame", average_count=16, t_start_ns=watch.now_ns, t_end_ns=end_ns
        )
    watch.silence(4.9 * 16 * frame_time_s if frame_time_s > 0.3 else 4.9)
    assert "stale" not in watch.reasons()


# --- suggestions ---


@every_rate
def test_suggestion_and_acknowledgement_are_good_for_two_frame_times(frame_time_s: float) -> None:
    watch = Watch(frame_time_s)
    watch.take_control()
    suggestion = watch.suggested()
    assert suggestion.kind is Kind.PROBE
    assert suggestion.valid_for_s == pytest.approx(max(5.0, 2.0 * frame_time_s))
    wait_s = max(2.0, 2.0 * frame_time_s)
    watch.silence(0.0)  # the next turn, from which on it waits
    watch.silence(0.99 * wait_s)
    assert watch.reasons() == []
    watch.silence(0.02 * wait_s)
    assert watch.reasons() == ["no_ack"]


@every_rate
def test_a_frame_after_the_acknowledged_change_is_evidence_at_once(frame_time_s: float) -> None:
    watch = Watch(frame_time_s)
    watch.take_control()
    suggestion = watch.suggested()
    landed = suggestion.working_distance_m
    watch.ask(
        Ack(
            suggestion=suggestion.id,
            outcome=Outcome.APPLIED,
            working_distance_m=landed,
            optics_epoch=2,
            t_settled_ns=watch.now_ns,
        )
    )
    watch.frame(optics_epoch=2, working_distance_m=landed)
    assert watch.wanted[-1].evidence
    assert watch.reasons() == []


# --- two producers ---


@every_rate
def test_a_second_producer_is_named_without_a_break_as_long_as_it_sends(frame_time_s: float) -> None:
    watch = Watch(frame_time_s)
    watch.frame()
    for _ in range(6):
        watch.frame(session="theirs")
        watch.frame()
    assert watch.reasons() == ["two_sessions"]
    for _ in range(2 + round(max(5.0 / frame_time_s, 3.0))):  # the one that is left is alone now
        watch.frame(session="theirs")
    assert watch.decider.standing.holding() is None


# --- the budget ---


@every_rate
def test_depth_and_defects_keep_to_their_share_at_every_rate(frame_time_s: float) -> None:
    watch = Watch(frame_time_s)
    watch.ask(ModeRequest(mode=Mode.OBSERVE))
    for _ in range(200):
        watch.frame(spent_s=0.3)
    read = sum(wanted.inspection for wanted in watch.wanted)
    assert (read - 1) * 0.3 <= 0.25 * 200 * frame_time_s
    assert read == 200 if frame_time_s > 1.2 else read >= 200 * frame_time_s / (1.2 + frame_time_s)


@every_rate
def test_while_the_column_is_steered_live_frames_are_for_focus_alone(frame_time_s: float) -> None:
    watch = Watch(frame_time_s)
    watch.take_control()
    watch.suggested()
    watch.frame(spent_s=0.01)
    assert not any(wanted.inspection for wanted in watch.wanted)
    watch.frame(Lane.INSPECT, spent_s=0.01)
    assert watch.wanted[-1].inspection  # whoever asked for it gets it
    watch.ask(ModeRequest(mode=Mode.OBSERVE))
    for _ in range(2 + round(1.0 / frame_time_s)):
        watch.frame(spent_s=0.01)
    assert watch.wanted[-1].inspection


# --- sources ---


def test_frames_of_another_detector_are_neither_evidence_nor_a_sign_of_life() -> None:
    watch = Watch(0.3)
    for _ in range(4):
        watch.frame()
        watch.frame(source="electron/BSE", optics_epoch=77, scene_epoch=78)
        assert not watch.wanted[-1].evidence
    assert [each.source for each in watch.decider.routine.evidence] == ["electron/SE2"] * len(
        watch.decider.routine.evidence
    )
    assert watch.decider.heard.stream.optics_epoch == 1 and watch.reasons() == []


def test_a_detector_that_fell_silent_is_replaced_by_one_that_speaks_unless_it_was_named() -> None:
    for named, expected in (("", "electron/BSE"), ("electron/SE2", "electron/SE2")):
        terms = Terms(TERMS.instrument, TERMS.envelope, source=named)
        watch = Watch(0.3, terms)
        for _ in range(3):
            watch.frame()
        for _ in range(40):
            watch.frame(source="electron/BSE")
        assert watch.decider.heard.source == expected
        sources = {each.source for each in watch.decider.routine.evidence}
        assert sources == {expected}
        assert ("stale" in watch.decider.standing.codes) is bool(named)


def test_a_falling_score_of_another_detector_does_not_restart_the_routine() -> None:
    watch = Watch(0.3)
    watch.take_control()
    watch.frame()
    decider = watch.decider
    decider.focusing.routine = replace(decider.routine, phase=Phase.CONVERGED)
    decider.focusing.converged_score = 9.0  # two points above what these frames score
    for _ in range(5):
        watch.frame(source="electron/BSE")
        assert decider.routine.phase is Phase.CONVERGED
    for _ in range(2):
        watch.frame()
    assert decider.routine.phase is Phase.MEASURING


# --- maps ---


def test_a_depth_map_is_told_only_where_the_setting_asks_for_it() -> None:
    for publish in (False, True):
        terms = Terms(TERMS.instrument, TERMS.envelope, publish_depth=publish, height_scale=1.1)
        decider = Decider(terms)
        shown = Frame(number=1, pixels=PIXELS, optics=Optics(pixel_size_m=1e-9), lane=Lane.INSPECT, received_ns=0)
        wanted = decider.admit(shown, 0)
        assert wanted.inspection and wanted.height_scale == 1.1
        ones = np.ones((8, 8), np.float32)
        told = decider.decide(shown, Findings(depth=DepthMap(ones, ones), defects=()), now_ns=0)
        assert (told.depth is not None and told.depth.calibrated) is publish
        assert told.defects == ()


def test_a_shape_without_an_engine_is_flagged_once_a_source_and_holds_nothing() -> None:
    watch = Watch(0.1)

    def shown(number: int, source: str, *flags: str) -> tuple[str, ...]:
        watch.now_ns += S // 10
        optics = Optics(session="s", source=source, optics_epoch=1, scene_epoch=1, t_start_ns=watch.now_ns)
        frame = Frame(number=number, pixels=PIXELS, optics=optics, lane=Lane.LIVE, received_ns=watch.now_ns)
        watch.decider.admit(frame, watch.now_ns)
        said = watch.decider.decide(frame, Findings(score=7.0, content=0.9, flags=flags), now_ns=watch.now_ns)
        assert "shape_not_built" not in [hold.reason for hold in said.holds]
        return tuple(flag.state for flag in said.flags if flag.code == "shape_not_built")

    assert shown(1, "electron/SE2", "shape_not_built") == ("raised",)
    assert shown(2, "electron/SE2", "shape_not_built") == ()
    assert shown(3, "electron/BSE") == ()  # another detector's frames of a built shape say nothing of these
    assert shown(4, "electron/SE2") == ("cleared",)


def test_in_suggest_mode_a_lens_with_play_keeps_one_frame_of_each_setting() -> None:
    watch = Watch(0.5, replace(TERMS, instrument=replace(TERMS.instrument, hysteresis_m=1e-6)))
    for epoch, distance_m in enumerate((5e-3, 5.006e-3), start=1):
        for _ in range(4):
            watch.frame(optics_epoch=epoch, working_distance_m=distance_m)
    kept = watch.decider.routine.evidence
    assert [round(e.working_distance_m * 1e6, 3) for e in kept] == [5000.0, 5005.5]
