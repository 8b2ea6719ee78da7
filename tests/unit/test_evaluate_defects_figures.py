"""Figures of found defects against hand-computed ones: fates, thresholds, precision, names, shares of a sure name."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calibration.evaluate.defects_leaves import automatic, naming
from calibration.evaluate.defects_outcome import Fate, Found, Outcome, outcome
from calibration.evaluate.defects_points import (
    EVERY,
    LEAST,
    OWN,
    capture,
    cut,
    false_alarms,
    halved,
    own_points,
    threshold,
)
from calibration.evaluate.defects_precision import average_precision, mean_precision
from calibration.evaluate.defects_share import a_frame, mean, share
from calibration.evaluate.defects_truth import Case, Split, TrueDefect
from engines.scene import Scene

SIDE = 512  # a picture is a frame


def case(*truth: TrueDefect, key: str = "a", split: str = "test", layout: bool = True, border_px: int = 0) -> Case:
    specimen = f"{split} {key}"
    return Case(key, split, specimen, (SIDE, SIDE), Scene(), truth, border_px=border_px, layout=layout)


def at(x: float, y: float, side: float = 10.0) -> tuple[float, float, float, float]:
    return x, y, x + side, y + side


def said(name: str, confidence: float, x: float, y: float, side: float = 10.0) -> Found:
    return Found(name, confidence, at(x, y, side))


# --- fates ---


def test_each_find_meets_its_fate() -> None:
    truth = (TrueDefect("pit", at(100, 100)), TrueDefect("bridge", at(200, 200), visible=False))
    told = outcome(
        case(*truth),
        [
            said("pit", 0.5, 103, 103),  # less sure than the next one, on the same defect
            said("particle", 0.9, 100, 100),
            said("bridge", 0.8, 200, 200),  # nobody is asked to see that
            said("void", 0.7, 300, 300),
        ],
    )
    assert [each.fate for each in told.said] == [Fate.CAPTURED, Fate.ALLOWED, Fate.FALSE, Fate.AGAIN]
    assert [each.confidence for each in told.said] == [0.9, 0.8, 0.7, 0.5]
    assert told.captured(0.6)[0].name == "particle"
    assert (told.false(0.6), told.false(0.75)) == (1, 0)


def test_of_two_defects_that_share_a_find_the_nearer_one_is_captured() -> None:
    truth = (TrueDefect("pit", at(100, 100)), TrueDefect("pit", at(108, 100)))
    told = outcome(case(*truth), [said("pit", 0.9, 107, 100), said("pit", 0.8, 101, 100)])
    assert [each.row for each in told.said] == [1, 0]


def test_what_is_centred_on_the_border_is_not_looked_at() -> None:
    found = [said("pit", 0.9, -4, 100), said("pit", 0.8, SIDE - 6, 100), said("pit", 0.7, 100, 100)]
    assert len(outcome(case(border_px=3), found).said) == 1
    assert len(outcome(case(), found).said) == 3


# --- thresholds ---


def clean(number: int, *confidences: float, split: str = "tune", layout: bool = True) -> Outcome:
    found = [said("pit", each, 20.0 + 30.0 * i, 50.0) for i, each in enumerate(confidences)]
    return outcome(case(key=f"clean{number}", split=split, layout=layout), found)


def test_a_threshold_lets_as_many_false_alarms_pass_as_the_rate_allows() -> None:
    frames = [clean(i, 0.1 * i, 0.05 * i) for i in range(1, 10)] + [clean(10)]  # 10 frames: 1 at 0.1 a frame
    least = threshold(frames, 0.1)
    assert least is not None and 0.8 < least < 0.9
    assert sum(each.false(least) for each in frames) == 1
    assert cut(frames, 0) > 0.9
    assert threshold(frames[:9], 0.1) is None  # too few frames for one
    assert threshold([clean(1)] * 10, 0.1) == LEAST


@given(st.lists(st.lists(st.floats(0.03, 1.0), max_size=5), min_size=10, max_size=30))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine at work is no fault
def test_no_threshold_lets_more_pass_than_the_rate(rows: list[list[float]]) -> None:
    frames = [clean(i, *each) for i, each in enumerate(rows)]
    least = threshold(frames, 0.1)
    assert least is not None
    assert sum(each.false(least) for each in frames) <= 0.1 * len(frames) + 1e-9


def test_the_frames_that_fix_a_threshold_are_counted_nowhere_else() -> None:
    tune, test = Split("tune", "", tunes=True), Split("test", "")
    outcomes = [clean(i, 0.5) for i in range(20)] + [clean(i, 0.9, split="test") for i in range(20, 24)]
    halves = halved(outcomes, (tune, test))
    point = own_points(halves, "test")[0]
    assert (point.by, point.tuned_frames) == (OWN, 20.0)
    assert point.false_alarms is not None
    assert (point.false_alarms.n, point.false_alarms.frames) == (4, 4.0)  # the test's own: the rate was not held
    alone = halved(outcomes[20:], (test,))
    assert [each.case.key for each in alone.tuning] == ["clean20", "clean22"]
    assert [each.case.key for each in alone.of("test")] == ["clean21", "clean23"]


def test_pictures_without_a_layout_fix_a_threshold_of_their_own() -> None:
    tune, test = Split("tune", "", tunes=True), Split("test", "")
    wild = [clean(i, 0.9, 0.95, layout=False) for i in range(10)]
    calm = [clean(i, 0.3) for i in range(10, 20)]
    points = own_points(halved([*wild, *calm, clean(30, split="test")], (tune, test)), "test")
    by = {each.by: each.threshold for each in points if each.rate == 0.1}
    assert by[OWN] is not None and by[EVERY] is not None
    assert by[OWN] < 0.5 < 0.9 < by[EVERY]


def test_too_few_clean_frames_are_told_with_the_number_needed() -> None:
    tune, test = Split("tune", "", tunes=True), Split("test", "")
    points = own_points(halved([clean(i) for i in range(20)] + [clean(99, split="test")], (tune, test)), "test")
    told = {each.rate: (each.threshold is None, each.needed_frames) for each in points}
    assert told == {0.1: (False, 10.0), 0.01: (True, 100.0), 0.001: (True, 1000.0), 0.0: (False, 0.0)}


# --- shares ---


def test_a_share_has_wilsons_interval_and_one_by_specimen() -> None:
    told = share([("a", True), ("a", True), ("b", False), ("b", False)])
    assert (told.k, told.n, told.value) == (2, 4, 0.5)
    assert told.low == pytest.approx(0.150, abs=1e-3) and told.high == pytest.approx(0.850, abs=1e-3)
    assert (told.specimen_low, told.specimen_high) == (0.0, 1.0)  # two specimens tell nearly nothing
    assert share([]).value is None


def test_false_alarms_a_frame_have_the_exact_poisson_interval() -> None:
    none = a_frame(0, 3.0)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(3.689 / 3.0, rel=1e-3)
    assert a_frame(10, 100.0).low == pytest.approx(0.0480, rel=1e-2)
    assert a_frame(0, 0.0).value is None


def test_means_are_weighted_by_pictures_and_bootstrapped_by_specimen() -> None:
    told = mean([("a", 0.0), ("a", 0.0), ("b", 3.0)])
    assert told is not None and (told.n, told.value) == (3, 1.0)
    assert told.low == 0.0 and told.high == 3.0
    assert mean([]) is None


# --- precision ---


def test_average_precision_of_a_case_worked_by_hand() -> None:
    """Right, wrong, right, wrong, right of 4: precisions 1, 2/3, 3/5 at recalls 1/4, 1/2, 3/4."""
    right = np.array([True, False, True, False, True])
    assert average_precision(right, np.ones(5), 4.0) == pytest.approx((1.0 + 2 / 3 + 3 / 5) / 4)


def test_a_later_better_precision_raises_an_earlier_one() -> None:
    """Wrong, right, right of 2: 1/2 at recall 1/2 is raised to the 2/3 that follows."""
    assert average_precision(np.array([False, True, True]), np.ones(3), 2.0) == pytest.approx(2 / 3)


def test_mean_precision_by_class_from_boxes() -> None:
    truth = (TrueDefect("pit", at(100, 100)), TrueDefect("bridge", at(200, 200)), TrueDefect("void", at(9, 9), False))
    told = outcome(
        case(*truth),
        [
            said("pit", 0.9, 101, 101),  # overlap 0.68
            said("bridge", 0.8, 206, 200),  # captured, but an overlap of 0.25 is none
            said("void", 0.7, 9, 9),  # nobody is asked to see it: neither right nor wrong
        ],
    )
    found = mean_precision([told])
    assert found is not None
    assert {each.name: each.value for each in found.classes} == {"bridge": 0.0, "pit": 1.0}
    assert (found.value, found.any_class) == (0.5, 0.5)
    assert capture([told], 0.0).value == 1.0
    assert mean_precision([clean(1, 0.9)]) is None


# --- names ---


def test_leaves_tell_captured_named_and_pure() -> None:
    truth = (
        TrueDefect("pit", at(50, 50), area_px=100.0, matched=12.0),
        TrueDefect("pit", at(150, 50), area_px=100.0, matched=30.0),
        TrueDefect("pit", at(250, 50), area_px=25.0, matched=30.0),
    )
    told = outcome(case(*truth), [said("pit", 0.9, 50, 50), said("particle", 0.8, 150, 50), said("pit", 0.7, 400, 400)])
    known = naming([told, clean(1)], 0.5)
    (leaf,) = known.leaves
    assert (leaf.captured.k, leaf.captured.n) == (2, 3)
    assert (leaf.named.k, leaf.named.n) == (1, 2)
    assert leaf.end_to_end.value == pytest.approx(1 / 3)
    assert (leaf.purity.k, leaf.purity.n) == (1, 2)
    assert leaf.mistaken_for == ("particle",)
    assert known.count_error is not None and known.count_error.value == 0.0  # 3 for 3, and 0 for 0
    assert known.count_share == 1.0
    assert [(each.low, each.captured.k, each.captured.n) for each in known.by_size] == [(4.0, 0, 1), (9.0, 2, 2)]
    assert [(each.low, each.captured.k, each.captured.n) for each in known.by_signal] == [(10.0, 1, 1), (20.0, 1, 2)]
    assert known.by_contrast == ()  # nobody says


def test_a_pit_that_may_be_a_particle_is_told_apart_from_a_wrong_name() -> None:
    truth = TrueDefect("pit", at(50, 50)), TrueDefect("particle", at(150, 50))
    found = [Found("other", 0.9, at(50, 50), undecided=True), Found("particle", 0.9, at(150, 50))]
    known = naming([outcome(case(*truth), found)], 0.5)
    assert (known.undecided.k, known.undecided.n) == (1, 2)
    assert (known.parted.k, known.parted.n) == (1, 1)


def test_the_share_that_is_named_without_a_person() -> None:
    sure = [(1.0 - 0.01 * i, True) for i in range(19)] + [(0.5, False), (0.4, False)]
    assert automatic(sure) == pytest.approx(20 / 21)  # 19 of 20 are right
    assert automatic([(0.9, False), (0.8, True)]) == 0.0
    assert automatic([]) is None


def test_false_alarms_are_counted_by_frames_of_512_pixels() -> None:
    told = false_alarms([clean(1, 0.9), clean(2)], 0.5)
    assert (told.n, told.frames, told.value) == (1, 2.0, 0.5)
    assert not math.isnan(told.high or math.nan)
