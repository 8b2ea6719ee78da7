"""Play of a lens: where it stands by what it was told, held against the twin's play operator."""

import numpy as np
import pytest

from agent.control.backlash import begin
from calibration.twin.column import play

WIDTH_M = 0.8e-6


def test_after_one_long_way_the_place_is_known_and_right() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        commanded = 5e-3
        lens = commanded + WIDTH_M * float(rng.uniform(-0.5, 0.5))
        known = begin(commanded, WIDTH_M)
        assert abs(known.lens_m - lens) <= WIDTH_M / 2
        for _ in range(6):
            commanded += float(rng.choice([-1, 1])) * float(rng.uniform(1.1, 5.0)) * WIDTH_M
            lens, known = play(lens, commanded, WIDTH_M), known.after(commanded)
            assert known.sigma_m == 0.0
            assert known.lens_m == pytest.approx(lens, abs=1e-12)


@pytest.mark.parametrize("way_m", [-3e-6, -1e-7, 1e-7, 3e-6])
def test_the_lens_goes_where_it_is_wanted_from_either_side(way_m: float) -> None:
    known = begin(5e-3, WIDTH_M).after(5.01e-3)
    wanted = known.lens_m + way_m
    command = known.command_for(wanted)
    assert play(known.lens_m, command, WIDTH_M) == pytest.approx(wanted, abs=1e-12)
    assert known.after(command).lens_m == pytest.approx(wanted, abs=1e-12)


def test_before_any_move_the_doubt_is_that_of_the_dead_zone() -> None:
    assert begin(5e-3, WIDTH_M).sigma_m == pytest.approx(WIDTH_M / np.sqrt(12))


def test_a_small_move_leaves_the_lens_where_it_may_have_been() -> None:
    known = begin(5e-3, WIDTH_M).after(5e-3 + 0.25 * WIDTH_M)
    assert known.low_m == pytest.approx(5e-3 - 0.25 * WIDTH_M)
    assert known.high_m == pytest.approx(5e-3 + 0.5 * WIDTH_M)


def test_a_lens_without_play_is_where_it_was_told_to_go() -> None:
    known = begin(5e-3, 0.0).after(5.2e-3)
    assert (known.lens_m, known.sigma_m, known.command_for(4.9e-3)) == (5.2e-3, 0.0, 4.9e-3)


def test_asked_to_stay_it_is_not_told_anything_new() -> None:
    known = begin(5e-3, WIDTH_M).after(5.01e-3)
    assert known.command_for(known.lens_m) == 5.01e-3
