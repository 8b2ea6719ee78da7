"""What an answer may be off by: held against what it moves by when the header of a frame, or the angle, is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import msgspec
import numpy as np
import pytest

from agent.control.doubt import widest
from agent.control.estimate import Estimate, estimate
from agent.control.instrument import Instrument
from agent.messages import Evidence
from tests.simulator import ALPHA_RAD, H_M
from tests.unit.test_control_estimate import KNOWN, error_h, seen

OFF_M, TRUTH_H = 0.3e-6, 1.0
CERTAIN = Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.0)


@lru_cache(maxsize=1)
def bracket() -> tuple[Evidence, ...]:
    return tuple(seen("blobs", [7.0, -4.0, TRUTH_H]))


@lru_cache(maxsize=1)
def sound() -> Estimate:
    return estimate(bracket(), CERTAIN)


def elsewhere(frames: Sequence[Evidence], number: int, *, told: bool) -> list[Evidence]:
    """One frame's header off by OFF_M; told: the doubt stands in it."""
    off = frames[number].working_distance_m + OFF_M
    sigma_m = OFF_M if told else 0.0
    changed = msgspec.structs.replace(frames[number], working_distance_m=off, place_sigma_m=sigma_m)
    return [changed if i == number else frame for i, frame in enumerate(frames)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_frame_whose_place_is_in_doubt_adds_what_the_answer_moves_by(number: int) -> None:
    moved = estimate(elsewhere(bracket(), number, told=False), CERTAIN)
    doubted = estimate(elsewhere(bracket(), number, told=True), CERTAIN)
    assert sound().defocus_m and moved.defocus_m and doubted.sigma_m and moved.sigma_m
    added = np.sqrt(doubted.sigma_m**2 - moved.sigma_m**2)
    assert added == pytest.approx(abs(moved.defocus_m - (sound().defocus_m or 0.0)), rel=0.3, abs=0.02 * H_M)
    assert added < 0.7 * OFF_M  # other frames have a say


def test_an_angle_that_two_places_cannot_tell_adds_what_the_answer_moves_by() -> None:
    pair = seen("cloud", [11.0, 4.0])
    wrong = 1.03
    told = estimate(pair, replace(KNOWN, alpha_sigma_rad=0.03 * ALPHA_RAD))
    moved = estimate(pair, Instrument(alpha_rad=ALPHA_RAD / wrong))
    assert abs(error_h(moved, 4.0) - error_h(told, 4.0)) * H_M == pytest.approx(told.angle_m * np.log(wrong), rel=0.3)
    assert told.sigma_m is not None and told.sigma_m > 0.03 * told.angle_m
    assert told.sigma_astigmatism_m is not None
    assert told.sigma_astigmatism_m < 0.6 * told.sigma_m  # of a round probe nobody takes the angle for astigmatism


def test_three_places_tell_the_angle_themselves() -> None:
    found = estimate(bracket(), replace(KNOWN, alpha_sigma_rad=0.03 * ALPHA_RAD))
    assert found.angle_m == 0.0
    assert found.sigma_m is not None and found.sigma_m < 0.1 * H_M


def total(found: Estimate) -> float:
    assert found.sigma_total_m is not None and found.sigma_m is not None
    return found.sigma_total_m / found.sigma_m


def test_defocus_and_astigmatism_that_only_their_sum_is_told_of_are_in_doubt_together() -> None:
    along = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.01]])  # z + ax is known, z - ax is not
    assert widest(0.09 * along) == pytest.approx(0.6, rel=1e-3)
    assert widest(np.diag([0.09, 0.0, 0.0])) == pytest.approx(0.3)
    assert total(sound()) < 2.0
