"""The way back of a lens with play, held against the twin's play operator: it ends where the lens stood."""

from dataclasses import replace

import pytest

from agent.control.backlash import Play, begin
from agent.control.envelope import Envelope, Move
from agent.control.focus import Routine, Wish
from agent.control.returning import ways
from agent.messages import Kind, Phase
from calibration.twin.column import play

HOME_M, H_M, WIDTH_M = 5e-3, 1e-6, 0.5e-6
ENVELOPE = Envelope(1e-3, 20e-3, step_m=100e-6, cumulative_m=200e-6)
HOME = Move(HOME_M, 0.0, 0.0)
BACK = Wish(Kind.RESTORE, HOME, "inconsistent")


def gone(stood: Play, away_m: float) -> Routine:
    """A routine that began at home, its lens as it stood there, and was told to go away."""
    at = replace(HOME, working_distance_m=HOME_M + away_m)
    return Routine(phase=Phase.HELD, home=HOME, at=at, play=stood.after(at.working_distance_m))


def obeyed(lens_m: float, wishes: tuple[Wish, ...], width_m: float = WIDTH_M) -> float:
    for wish in wishes:
        lens_m = play(lens_m, wish.move.working_distance_m, width_m)
    return lens_m


@pytest.mark.parametrize("away_m", [-7e-6, -0.6e-6, 0.6e-6, 7e-6])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_lens_that_was_pushed_there_comes_back_to_the_same_place_and_the_same_command(
    away_m: float, side: float
) -> None:
    stood = begin(HOME_M, WIDTH_M).after(HOME_M - side * 3e-6).after(HOME_M)
    routine = gone(stood, away_m)
    wishes = ways(BACK, routine, stood=stood, h=H_M, envelope=ENVELOPE)
    assert wishes[-1] == BACK  # what is read back in the end is what it was
    assert routine.play is not None
    assert obeyed(routine.play.lens_m, wishes) == pytest.approx(stood.lens_m, abs=1e-12)


def test_where_nobody_knows_from_which_side_it_came_it_is_off_by_half_the_play_at_most() -> None:
    stood = begin(HOME_M, WIDTH_M)
    for share in (-1.0, -0.3, 0.8, 1.0):
        began_m = HOME_M + share * WIDTH_M / 2.0
        away_m = play(began_m, HOME_M + 4e-6, WIDTH_M)
        back_m = obeyed(away_m, ways(BACK, gone(stood, 4e-6), stood=stood, h=H_M, envelope=ENVELOPE))
        assert abs(back_m - began_m) <= WIDTH_M / 2.0 + 1e-12
        assert abs(obeyed(away_m, (BACK,)) - (HOME_M + WIDTH_M / 2.0)) < 1e-12  # in one move: the far end of the zone


@pytest.mark.parametrize("width_m", [0.0, 0.15e-6])
def test_play_that_cannot_be_seen_takes_one_move(width_m: float) -> None:
    stood = begin(HOME_M, width_m)
    assert ways(BACK, gone(stood, 4e-6), stood=stood, h=H_M, envelope=ENVELOPE) == (BACK,)


def test_a_place_where_the_lens_was_not_seen_takes_one_move() -> None:
    elsewhere = begin(HOME_M + 1e-6, WIDTH_M)
    for stood in (None, elsewhere):
        assert ways(BACK, gone(begin(HOME_M, WIDTH_M), 4e-6), stood=stood, h=H_M, envelope=ENVELOPE) == (BACK,)


def test_the_envelope_is_kept_where_it_leaves_no_room_beyond() -> None:
    stood, tight = begin(HOME_M, WIDTH_M), replace(ENVELOPE, working_distance_min_m=HOME_M)
    assert ways(BACK, gone(stood, 4e-6), stood=stood, h=H_M, envelope=tight) == (BACK,)
    assert len(ways(BACK, gone(stood, -4e-6), stood=stood, h=H_M, envelope=tight)) == 2
