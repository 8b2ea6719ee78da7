"""The unit of waiting: how long a frame takes, by its header or by the agent's own clock."""

import pytest

from agent.control.pace import Pace, told_frame_time_s
from agent.messages import Optics

S = 1_000_000_000


@pytest.mark.parametrize("seconds", [0.04, 0.3, 30.0])
def test_the_header_tells_how_long_a_frame_takes(seconds: float) -> None:
    assert Pace().after(Optics(frame_time_s=seconds), 5 * S).frame_time_s == seconds


def test_an_average_takes_as_long_as_all_its_scans() -> None:
    averaged = Optics(frame_time_s=2.0, average_count=8, t_start_ns=10 * S, t_end_ns=26 * S)
    assert told_frame_time_s(averaged) == 16.0


@pytest.mark.parametrize(("start_s", "end_s"), [(0, 1_700_000_000), (20, 10), (10, 10), (0, 500)])
def test_a_start_and_an_end_that_do_not_fit_the_scan_are_not_waited_for(start_s: int, end_s: int) -> None:
    assert told_frame_time_s(Optics(frame_time_s=2.0, t_start_ns=start_s * S, t_end_ns=end_s * S)) == 2.0


def test_without_a_scan_time_start_and_end_tell_it_unless_a_clock_was_set_in_between() -> None:
    assert told_frame_time_s(Optics(t_start_ns=5 * S, t_end_ns=35 * S)) == 30.0
    assert told_frame_time_s(Optics(t_start_ns=0, t_end_ns=1_700_000_000 * S)) is None


def test_where_the_header_says_nothing_the_shorter_of_the_last_two_intervals_counts() -> None:
    pace, seen = Pace(), []
    for now_s in (0, 30, 60, 660, 690, 720):  # a pause of ten minutes among frames of 30 s
        pace = pace.after(Optics(), now_s * S)
        seen.append(pace.frame_time_s)
    assert seen == [None, 30.0, 30.0, 30.0, 30.0, 30.0]


def test_a_limit_is_so_many_frame_times_and_never_less_than_its_least() -> None:
    assert Pace().limit_s(5.0, 5.0) == 5.0
    assert Pace(0.04).limit_s(5.0, 5.0) == 5.0
    assert Pace(30.0).limit_s(5.0, 5.0) == 150.0
