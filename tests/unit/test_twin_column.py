"""The column's moving parts: play, settling, faults."""

import pytest

from calibration.twin.column import Actuator, Column, play, settle_s

MS = 1_000_000


def test_the_play_operator_leaves_the_lens_behind_by_half_the_hysteresis_on_either_side() -> None:
    lens = 0.0
    for commanded in (1.0, 5.0, 4.9, 4.5, 5.2, -3.0):
        lens = play(lens, commanded, 0.4)
    assert lens == pytest.approx(-2.8)
    assert play(4.8, 4.9, 0.4) == 4.8  # inside the dead zone nothing moves
    assert play(4.8, 5.2, 0.4) == pytest.approx(5.0)


def test_coming_from_both_sides_leaves_the_lens_one_hysteresis_apart() -> None:
    ends = []
    for start in (-10e-6, 10e-6):
        column = Column(5e-3 + start, 5e-3 + start, hysteresis_m=0.1e-6)
        column.focus(5e-3, 0)
        ends.append(column.lens_m)
    assert ends[1] - ends[0] == pytest.approx(0.1e-6, rel=1e-6)


@pytest.mark.parametrize(("change_um", "seconds"), [(0.5, 0.2), (10, 0.2), (50, 0.6), (500, 1.1), (-50, 0.6)])
def test_settling_takes_as_long_as_the_change_is_large(change_um: float, seconds: float) -> None:
    assert settle_s(change_um * 1e-6) == pytest.approx(seconds)


def test_the_optics_are_where_they_belong_only_after_settling() -> None:
    column = Column(5e-3, 5e-3)
    column.focus(5.01e-3, 0)
    assert column.motion.at(100 * MS)[0] == pytest.approx(5.005e-3)
    assert column.motion.at(200 * MS)[0] == pytest.approx(5.01e-3)
    assert column.settled_ns == 200 * MS


def test_a_command_that_changes_nothing_is_no_new_epoch() -> None:
    column = Column(5e-3, 5e-3, hysteresis_m=1e-7)
    column.focus(5e-3, 0)
    column.stigmate(0.0, 0.0, 0)
    assert column.epoch == 1
    column.stigmate(0.1, 0.0, 0)
    assert column.epoch == 2


def test_going_and_coming_back_restores_the_command_exactly() -> None:
    column = Column(0.0049123, 0.0049123)
    for there in (0.0049423, 0.0048823, 0.0049123):
        column.focus(there, 0)
    assert column.working_distance_m == 0.0049123 == column.lens_m


def test_a_stuck_supply_reads_back_the_command_and_stays() -> None:
    column = Column(5e-3, 5e-3, actuator=Actuator.STUCK)
    column.focus(5.01e-3, 0)
    assert (column.working_distance_m, column.lens_m, column.epoch) == (5.01e-3, 5e-3, 2)


def test_an_inverted_supply_goes_the_other_way() -> None:
    column = Column(5e-3, 5e-3, actuator=Actuator.INVERTED)
    column.focus(5.01e-3, 0)
    assert column.lens_m == pytest.approx(4.99e-3)
    column.focus(5.0e-3, 0)
    assert column.lens_m == pytest.approx(5.0e-3)


@pytest.mark.parametrize(("way_m", "told_m", "lens_m"), [(-2e-6, 4.99e-3, 4.998e-3), (3e-6, 5.01e-3, 5.003e-3)])
def test_a_supply_that_ends_early_reads_back_the_command_and_comes_back_exactly(
    way_m: float, told_m: float, lens_m: float
) -> None:
    column = Column(5e-3, 5e-3)
    column.stop(way_m)
    column.focus(told_m, 0)
    assert (column.working_distance_m, column.lens_m) == (told_m, pytest.approx(lens_m))
    column.focus(10e-3 - told_m, 0)  # the other side is free
    assert column.lens_m == pytest.approx(10e-3 - told_m)
    column.focus(5e-3, 0)
    assert column.lens_m == 5e-3
