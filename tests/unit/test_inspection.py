"""When depth and defects are due on live frames, which depth map is told, what is said of frames to inspect."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from agent.control.inspection import SOURCES, UNKNOWN_S, Inspection, Maps, Turns
from agent.messages import Findings, Frame, FrameRef, Heights, Lane, Optics
from engines.readings import DepthMap

S = 1_000_000_000
PICTURE = np.zeros((4, 6), np.uint8)


NONE: frozenset[str] = frozenset()  # recipes


def run(period_s: float, *, seconds: float, spent_s: float | None, budget: float, sources: int = 1) -> Counter[str]:
    """How many live frames of each source were read."""
    turns, read = Turns(), Counter[str]()
    for n in range(round(seconds / period_s)):
        source = f"electron/{n % sources}"
        turns, due = turns.live(source, now_ns=round(n * period_s * S), spent_s=spent_s, budget=budget)
        read[source] += due
    return read


@pytest.mark.parametrize("period_s", [0.04, 0.3, 1.0])
def test_readings_of_live_frames_take_no_more_than_their_share_of_the_time(period_s: float) -> None:
    read = run(period_s, seconds=120.0, spent_s=0.25, budget=0.25).total()
    assert read * 0.25 <= 0.25 * 120.0 + 0.25
    assert read >= 120.0 / (1.0 + period_s)  # and no less: one a second, to the next frame


def test_each_frame_of_a_slow_scan_is_read() -> None:
    assert run(30.0, seconds=3000.0, spent_s=2.0, budget=0.25).total() == 100


def test_without_a_budget_no_live_frame_is_read() -> None:
    assert run(0.3, seconds=30.0, spent_s=0.01, budget=0.0).total() == 0


def test_until_it_is_known_how_long_a_reading_takes_they_are_far_apart() -> None:
    assert run(0.04, seconds=20.0 * UNKNOWN_S, spent_s=None, budget=0.25).total() == pytest.approx(20, abs=1)


@pytest.mark.parametrize("sources", [2, 3, 5])
@pytest.mark.parametrize("period_s", [0.04, 0.1, 0.25])
def test_sources_take_turns_however_they_interleave(sources: int, period_s: float) -> None:
    read = run(period_s, seconds=100.0, spent_s=0.25, budget=0.25, sources=sources)
    assert max(read.values()) - min(read.values()) <= 1 and min(read.values()) > 0


def test_a_source_that_fell_silent_does_not_keep_the_others_waiting_for_ever() -> None:
    turns = Turns()
    for source in ("a", "b"):
        turns, _ = turns.live(source, now_ns=0, spent_s=1.0, budget=0.5)
    due = [turns.live("a", now_ns=n * S, spent_s=1.0, budget=0.5)[1] for n in range(1, 6)]
    assert due == [False, False, False, True, True]  # two periods of 2 s


def test_time_spent_on_frames_to_inspect_is_spent() -> None:
    turns = Turns().inspected(10 * S)
    assert turns.live("a", now_ns=11 * S, spent_s=0.5, budget=0.25)[1] is False
    assert turns.live("a", now_ns=12 * S, spent_s=0.5, budget=0.25)[1] is True


def test_a_producer_that_invents_sources_is_not_remembered_for_ever() -> None:
    turns = Turns()
    for n in range(200):
        turns, _ = turns.live(f"invented/{n}", now_ns=n * S // 100, spent_s=0.0, budget=1.0)
        turns, _ = turns.live(f"unread/{n}", now_ns=n * S // 100, spent_s=10.0, budget=0.1)
    assert len(turns.last) <= SOURCES and len(turns.seen) <= SOURCES


# --- maps ---


def heights(number: int, lane: Lane = Lane.LIVE) -> Heights:
    return Heights(frame=FrameRef(number=number, lane=lane), height_m=np.zeros((2, 2), np.float32), calibrated=False)


def test_a_map_is_told_at_once_and_the_next_a_second_later() -> None:
    maps, told = Maps().offered(heights(1)).due(0)
    assert told is not None and told.frame.number == 1
    maps, told = maps.offered(heights(2)).due(S - 1)
    assert told is None
    maps, told = maps.offered(heights(3)).due(S)
    assert told is not None and told.frame.number == 3  # the newest
    assert maps.due(5 * S)[1] is None  # each once


def test_the_map_of_a_frame_to_inspect_is_not_displaced_by_live_ones() -> None:
    maps, _ = Maps().offered(heights(1)).due(0)
    for number, lane in ((2, Lane.LIVE), (3, Lane.INSPECT), (4, Lane.LIVE), (5, Lane.LIVE)):
        maps = maps.offered(heights(number, lane))
    _, told = maps.due(S)
    assert told is not None and told.frame.number == 3


# --- what is said of a frame ---


def frame(number: int, lane: Lane = Lane.INSPECT, **optics: Any) -> Frame:
    return Frame(number=number, pixels=PICTURE, optics=Optics(**optics), lane=lane, received_ns=0)


def test_every_frame_to_inspect_is_due_whatever_the_budget() -> None:
    inspection = Inspection()
    assert all(inspection.due(frame(n), now_ns=n, spent_s=100.0, budget=0.0) for n in range(5))


def test_frames_without_a_pixel_size_are_told_when_they_begin_and_when_they_end() -> None:
    inspection, told = Inspection(), []
    for number, size in enumerate((1e-9, None, None, 1e-9, 1e-9, None)):
        told += inspection.flags(frame(number, pixel_size_m=size), Findings(), (), NONE)
    assert [(flag.code, flag.state, flag.frame) for flag in told] == [
        ("no_pixel_size", "raised", 1), ("no_pixel_size", "cleared", 3), ("no_pixel_size", "raised", 5),
    ]  # fmt: skip
    assert inspection.flags(frame(6, pixel_size_m=1e-9), Findings(), ("no_pixel_size",), NONE) == ()


def test_a_frame_that_nobody_could_see_is_named() -> None:
    (flag,) = Inspection().flags(frame(7, pixel_size_m=1e-9), Findings(unseen="the beam was blanked"), (), NONE)
    assert (flag.code, flag.frame, flag.detail) == ("uninspected", 7, "the beam was blanked")


@pytest.mark.parametrize(
    ("header", "findings", "code"),
    [
        ({"source": "ion/SE"}, {}, "not_electron"),
        ({"gamma": 2.0}, {}, "nonlinear"),
        ({"stage_moving": True}, {}, "stage_moving"),
        ({"auto_function_active": True}, {}, "auto_function"),
        ({"recipe": "nobody"}, {}, "unknown_recipe"),
        ({}, {"refused": "saturated"}, "saturated"),
        ({}, {"refused": "inconsistent"}, "inconsistent"),
        ({}, {"content": 0.1}, "featureless"),
    ],
)
def test_what_makes_the_reading_of_an_inspected_frame_doubtful_is_told(
    header: dict[str, Any], findings: dict[str, Any], code: str
) -> None:
    inspection, known = Inspection(), frozenset({"m1-layer"})
    whole = {"pixel_size_m": 1e-9, "recipe": "m1-layer"}
    assert inspection.flags(frame(1, **whole), Findings(content=0.9), (), known) == ()
    (raised,) = inspection.flags(frame(2, **{**whole, **header}), Findings(**{"content": 0.9, **findings}), (), known)
    assert (raised.code, raised.state, raised.frame) == (code, "raised", 2)
    (cleared,) = inspection.flags(frame(3, **whole), Findings(content=0.9), (), known)
    assert (cleared.code, cleared.state) == (code, "cleared")


def test_a_map_on_offer_knows_its_frame_and_whether_its_scale_is_vouched_for() -> None:
    inspection = Inspection()
    ones = np.ones((4, 6), np.float32)
    inspection.offer(frame(3), Findings(), calibrated=True)
    assert inspection.map_due(0) is None
    inspection.offer(frame(4), Findings(depth=DepthMap(ones, ones), models=("depth@1",)), calibrated=True)
    told = inspection.map_due(0)
    assert told is not None
    assert (told.frame.number, told.frame.lane, told.calibrated, told.models) == (4, Lane.INSPECT, True, ("depth@1",))
