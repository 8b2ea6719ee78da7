"""Brightness and contrast closed over detectors with laws of their own: learned, careful, quiet where nothing helps."""

from dataclasses import dataclass, field, replace
from math import exp
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control import exposure, focus
from agent.control.exposing import Exposing
from agent.control.exposure import FRAMES, Advice, Exposure, trouble
from agent.control.histogram import histogram_of
from agent.control.knobs import CLIPPED_SHARE, Effect, Knobs, learned
from agent.messages import Ack, Findings, Histogram, Optics, Outcome, Phase
from tests.unit.test_control_estimate import seen as evidence_at

RNG = np.random.default_rng(7)
SIZE = (128, 256)
# Smooth and skewed, as pictures of edges are.
SIGNAL = np.exp(0.6 * (smooth := cv2.GaussianBlur(RNG.normal(size=SIZE), (0, 0), 3.0)) / smooth.std()) * 2.5


def proportional(b: float, c: float, x: NDArray[Any]) -> NDArray[Any]:
    return 0.06 + b - 0.5 + 0.24 * c * x


def photomultiplier(b: float, c: float, x: NDArray[Any]) -> NDArray[Any]:
    return b - 0.45 + 0.06 * exp(7.0 * (c - 0.4)) * x


def offset_before_gain(b: float, c: float, x: NDArray[Any]) -> NDArray[Any]:
    return 0.1 * exp(5.0 * (c - 0.5)) * (x + 4.0 * (b - 0.5))


def the_wrong_way(b: float, c: float, x: NDArray[Any]) -> NDArray[Any]:
    return 0.06 - (b - 0.5) + 0.12 * exp(-4.0 * (c - 0.5)) * x


def not_connected(b: float, c: float, x: NDArray[Any]) -> NDArray[Any]:
    return 0.06 + 0.2 * x


@dataclass
class Detector:
    law: Any = proportional
    brightness: float = 0.5
    contrast: float = 0.5
    signal: float = 1.0
    noise: float = 0.4
    sharp: bool = True
    scene: int = 1
    state: Exposure = field(default_factory=Exposure)
    said: list[Advice] = field(default_factory=list)

    def histogram(self) -> Histogram:
        x = self.signal * SIGNAL + self.noise * RNG.normal(size=SIZE)
        levels = np.clip(self.law(self.brightness, self.contrast, x) * 255.0 + 0.5, 0, 255).astype(np.uint8)
        found = histogram_of(levels, Optics())
        assert found is not None
        return found

    def frame(self) -> Advice | None:
        optics = Optics(session="a", brightness=self.brightness, contrast=self.contrast, scene_epoch=self.scene)
        seen = exposure.seen_of(optics, self.histogram(), sharp=self.sharp)
        assert seen is not None
        self.state, advice = exposure.advise(exposure.watch(self.state, seen))
        if advice is not None:
            self.said.append(advice)
        return advice

    def obey(self, advice: Advice) -> None:
        self.brightness, self.contrast = advice.knobs.brightness, advice.knobs.contrast
        self.scene += 1

    def run(self, frames: int = 50) -> "Detector":
        for _ in range(frames):
            if (advice := self.frame()) is not None:
                self.obey(advice)
        return self


@pytest.mark.parametrize("law", [proportional, photomultiplier, offset_before_gain])
@pytest.mark.parametrize("start", [(0.5, 0.9), (0.8, 0.5), (0.5, 0.2), (0.6, 0.7), (0.35, 0.35)])
def test_clipping_ends_whatever_the_knobs_do(law: Any, start: tuple[float, float]) -> None:
    detector = Detector(law, *start)
    detector.run()
    h = detector.histogram()
    assert max(h.at_black, h.at_white) <= 1.2 * CLIPPED_SHARE
    assert len(detector.said) <= 12


@pytest.mark.parametrize("start", [(0.5, 0.2), (0.35, 0.35)])
def test_knobs_that_turn_the_other_way_are_found_out(start: tuple[float, float]) -> None:
    h = Detector(the_wrong_way, *start).run().histogram()
    assert max(h.at_black, h.at_white) <= 1.2 * CLIPPED_SHARE


def test_a_squeezed_picture_in_focus_is_stretched() -> None:
    detector = Detector(contrast=0.08).run()
    h = detector.histogram()
    assert h.high - h.low > 1 / 3 and max(h.at_black, h.at_white) < CLIPPED_SHARE


def test_a_blurred_picture_is_not_called_squeezed_for_focus_will_widen_it() -> None:
    assert Detector(contrast=0.08, sharp=False).run(10).said == []


def test_no_step_is_long_and_the_first_is_small_and_turns_one_knob() -> None:
    detector, settings = Detector(contrast=0.9), [(0.5, 0.9)]
    for _ in range(40):
        if (advice := detector.frame()) is not None:
            detector.obey(advice)
            settings.append((detector.brightness, detector.contrast))
    steps = np.abs(np.diff(np.array(settings), axis=0))
    assert steps.max() <= exposure.LONGEST_STEP + 1e-9
    assert sorted(steps[0])[0] == 0.0 and sorted(steps[0])[1] <= exposure.FIRST_STEP + 1e-9


def test_noise_is_never_amplified() -> None:
    for signal, noise in ((0.0, 0.4), (0.05, 0.4)):
        assert Detector(contrast=0.1, signal=signal, noise=noise).run(10).said == []
    detector = Detector(contrast=0.05, noise=1.0).run()
    assert detector.histogram().noise <= 1.1 * exposure.MOST_NOISE


def test_a_step_that_made_it_worse_is_undone_and_not_tried_again() -> None:
    detector = Detector(the_wrong_way, contrast=0.2).run(2)
    first, settings = detector.run(1).said[0], (0.5, 0.2)
    assert first.knobs.contrast < 0.2 and "clipped at white" in first.reason
    detector.run(exposure.FRAMES_AFTER)
    undone = detector.said[1]
    assert (undone.knobs.brightness, undone.knobs.contrast) == settings
    assert "made it worse" in undone.reason and "before" in undone.reason
    detector.run(exposure.FRAMES_AFTER)
    assert detector.said[2].knobs.contrast > 0.2


def test_knobs_without_effect_are_found_out_and_left_in_peace() -> None:
    detector = Detector(not_connected).run()
    assert detector.state.quiet and len(detector.said) <= 6
    assert max(abs(detector.brightness - 0.5), abs(detector.contrast - 0.5)) <= exposure.LONGEST_STEP


def test_advice_that_nobody_follows_is_given_once() -> None:
    detector = Detector(contrast=0.9)
    for _ in range(20):
        detector.frame()
    assert len(detector.said) == 1


def test_advice_is_given_anew_when_the_condition_came_back() -> None:
    detector = Detector(contrast=0.9)
    for contrast in (0.9, 0.25, 0.9):
        detector.contrast, detector.scene = contrast, detector.scene + 1
        for _ in range(2 * FRAMES):
            detector.frame()
    assert len(detector.said) == 2


def test_an_operators_own_turn_is_not_undone_even_if_it_made_things_worse() -> None:
    detector = Detector(contrast=0.7)
    for _ in range(FRAMES):
        detector.frame()
    detector.contrast, detector.scene = 0.95, 2
    for _ in range(FRAMES):
        detector.frame()
    assert [("worse" in advice.reason) for advice in detector.said] == [False, False]


def test_one_bright_frame_is_not_enough() -> None:
    detector = Detector(contrast=0.3)
    for contrast in (0.3, 0.3, 0.9, 0.3, 0.3, 0.3):
        detector.law = lambda b, c, x, gain=contrast: proportional(b, gain, x)
        assert detector.frame() is None


def test_another_site_is_another_condition_and_teaches_nothing_of_the_knobs() -> None:
    detector = Detector(contrast=0.9)
    for _ in range(FRAMES):
        detector.frame()
    detector.signal, detector.scene = 0.9, 2  # the stage moved: the knobs did not
    for _ in range(FRAMES):
        detector.frame()
    assert len(detector.said) == 2
    assert (detector.state.effect.gain, detector.state.effect.lift) == (None, None)


def test_a_black_picture_is_left_alone_unless_something_shows_above_the_black() -> None:
    for noise in (0.0, 0.4):  # a beam that is off, with an amplifier's noise or without
        assert Detector(brightness=0.43, contrast=0.5, signal=0.0, noise=noise).run(10).said == []
    dark = Detector(brightness=0.31, contrast=0.2, noise=0.1)
    assert dark.histogram().at_black > exposure.DARK
    assert dark.run(10).said[0].knobs.brightness > 0.31


def test_two_frames_tell_what_a_turn_did() -> None:
    detector = Detector(contrast=0.3)
    points = []
    for brightness, contrast in ((0.5, 0.3), (0.5, 0.36), (0.58, 0.36)):
        detector.brightness, detector.contrast = brightness, contrast
        points.append(exposure.Seen(Knobs(brightness, contrast), detector.histogram()))
    effect = learned(Effect(), points[0], points[1])
    assert effect.gain == pytest.approx(np.log(1.2) / 0.06, rel=0.1) and effect.lift is None
    assert effect.pivot == pytest.approx(0.06, abs=0.03)
    effect = learned(effect, points[1], points[2])
    assert effect.lift == pytest.approx(1.0, rel=0.1)
    assert effect.pivot == pytest.approx(0.14, abs=0.03)


# --- when ---


def clipped() -> Findings:
    return Findings(histogram=Detector(contrast=0.9).histogram(), score=5.0, blur_px=4.0)


def due(routine: focus.Routine, *holds: str, steers: bool = True, frames: int = 4, **findings: Any) -> bool:
    """Is advice given within so many clipped frames?"""
    exposing = Exposing()
    optics = Optics(session="a", brightness=0.5, contrast=0.9, scene_epoch=1)
    found = Findings(**{"histogram": clipped().histogram, **findings})
    for _ in range(frames):
        exposing.look(optics, found, routine)
        if exposing.advice(found, routine, holds, steers=steers) is not None:
            return True
    return False


def test_it_is_said_before_the_first_probe_and_after_convergence_and_never_in_between() -> None:
    begun = focus.begin()
    assert due(begun) and due(replace(begun, phase=Phase.CONVERGED)) and due(replace(begun, phase=Phase.IDLE))
    for phase in (Phase.PROBING, Phase.CORRECTING, Phase.VERIFYING, Phase.HELD):
        assert not due(replace(begun, phase=phase, probes=1))
    assert not due(replace(begun, probes=1))


def test_without_steering_two_working_distances_are_a_bracket_too() -> None:
    bracket = evidence_at("blobs", [5.0, 0.0])
    one, two = (replace(focus.begin(), evidence=tuple(bracket[:count])) for count in (1, 2))
    assert due(one, steers=False) and not due(two, steers=False)


def test_a_saturated_picture_is_helped_wherever_the_routine_stands() -> None:
    probing = replace(focus.begin(), phase=Phase.PROBING, probes=1)
    assert due(probing, "saturated", refused="saturated")


@pytest.mark.parametrize("hold", ["operator", "auto_function", "stage_moving", "no_ack", "averaging", "frozen"])
def test_while_anything_else_holds_nothing_is_said(hold: str) -> None:
    assert not due(focus.begin(), hold)
    assert not due(focus.begin(), "saturated", hold, refused="saturated")


def test_without_a_read_back_it_is_quiet() -> None:
    exposing, found = Exposing(), clipped()
    for _ in range(6):
        exposing.look(Optics(session="a", contrast=0.9, scene_epoch=1), found, focus.begin())
        assert exposing.advice(found, focus.begin(), (), steers=True) is None
        assert not exposing.first(focus.begin(), ())


def test_focus_waits_for_it_while_it_may_help_and_no_longer() -> None:
    exposing, begun = Exposing(), focus.begin()
    optics, found = Optics(session="a", brightness=0.5, contrast=0.9, scene_epoch=1), clipped()
    for _ in range(FRAMES):
        exposing.look(optics, found, begun)
        assert exposing.first(begun, ())
    assert exposing.advice(found, begun, (), steers=True) is not None
    exposing.answered(Ack(suggestion="1", outcome=Outcome.REJECTED))
    exposing.look(optics, found, begun)
    assert not exposing.first(begun, ())
    assert exposing.advice(found, begun, (), steers=True) is None


# --- the histogram ---


@pytest.mark.parametrize(
    ("dtype", "top", "header"),
    [(np.uint8, 255.0, {}), (np.uint16, 65535.0, {}), (np.uint16, 4095.0, {"bits_significant": 12}),
     (np.float32, 1.0, {"full_scale": 1.0})],
)  # fmt: skip
def test_levels_are_of_full_scale_whatever_the_depth(dtype: Any, top: float, header: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    levels = np.clip(rng.normal(0.5, 0.15, (500, 400)), 0.0, 1.0)
    levels[:40] = 1.0
    found = histogram_of((levels * top).astype(dtype), Optics(**header))
    assert found is not None and trouble(exposure.Seen(Knobs(0.5, 0.5), found)) == exposure.WHITE
    assert found.at_white == pytest.approx(0.08, abs=0.01)
    assert found.low == pytest.approx(0.114, abs=0.02) and found.high == 1.0
    assert found.noise == pytest.approx(0.15, rel=0.15)
    turned = histogram_of((levels * top).astype(dtype), Optics(**header, inverted=True))
    assert turned is not None and turned.at_black == found.at_white


def test_a_picture_without_a_full_scale_or_with_numbers_that_are_none_has_no_histogram() -> None:
    picture = np.zeros((64, 64), np.float32)
    assert histogram_of(picture, Optics()) is None
    picture[3, 3] = np.nan
    assert histogram_of(picture, Optics(full_scale=1.0)) is None


@pytest.mark.parametrize("pitch", [2, 4, 8, 32])
def test_lines_along_the_scan_do_not_deceive_the_sampled_rows(pitch: int) -> None:
    bright = (np.arange(2048) % pitch < pitch // 2)[:, None]
    found = histogram_of(np.where(bright, 255, 60).astype(np.uint8) * np.ones((1, 64), np.uint8), Optics())
    assert found is not None and found.at_white == pytest.approx(0.5, abs=0.05)
