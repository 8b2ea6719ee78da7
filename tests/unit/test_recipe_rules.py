"""What a recipe leaves of a frame's finds, and what it says of the rest; sizes, regions, alarms of density, rates."""

from typing import Any

import msgspec
import numpy as np
import pytest

from agent.control import density
from agent.control.alarm_rate import most_alarms, needed, threshold_for, upper
from agent.control.density import Alarm, Alarms
from agent.control.inspecting import CROPS, crop, misfit, told
from agent.control.inspection import Inspection
from agent.control.recipe import ClassRule, Density, Recipe, Region, Rules, Sizes
from agent.control.recipe_rules import Pixel, sift
from agent.messages import SOURCES, Box, Defect, Findings, Frame, Lane, Optics, Shown

PIXEL = Pixel(2e-9, 2e-9)


def find(name: str = "pit", box: Box = (10.0, 10.0, 20.0, 16.0), confidence: float = 0.7) -> Defect:
    return Defect(name=name, path=("defect", name), box_px=box, confidence=confidence)


def known(threshold: float | None = 0.5, **rules: Any) -> Recipe:
    return Recipe(name="via-2", rules=Rules(**rules), threshold=threshold)


def left(recipe: Recipe, *finds: Defect, pixel: Pixel = PIXEL, reason: str | None = None) -> tuple[int, dict[str, int]]:
    sifted = sift(finds, recipe, pixel=pixel, own_threshold=0.5, nuisance=lambda _: reason)
    return len(sifted.kept), sifted.dropped


@pytest.mark.parametrize(
    ("recipe", "dropped"),
    [
        (known(), {}),
        (known(classes={"pit": ClassRule(report=False)}), {"class": 1}),
        (known(regions=(Region(box_px=(0, 0, 64, 64), do="ignore"),)), {"region": 1}),
        (known(regions=(Region(box_px=(30, 30, 64, 64), do="inspect"),)), {"region": 1}),
        (known(regions=(Region(box_px=(0, 0, 64, 64), do="inspect"),)), {}),
        (known(sizes=Sizes(least_m=21e-9)), {"size": 1}),
        (known(sizes=Sizes(least_m=20e-9)), {}),
        (known(sizes=Sizes(least_m=21e-9), classes={"pit": ClassRule(least_size_m=5e-9)}), {}),
    ],
)
def test_each_rule_names_what_it_leaves_out(recipe: Recipe, dropped: dict[str, int]) -> None:
    assert left(recipe, find()) == (1 - sum(dropped.values()), dropped)


def test_what_is_not_sure_enough_is_no_find_and_is_not_counted() -> None:
    assert left(known(threshold=0.8), find()) == (0, {})
    assert left(known(threshold=0.8, classes={"pit": ClassRule(threshold=0.6)}), find()) == (1, {})
    assert left(known(threshold=None), find(confidence=0.49), find(confidence=0.51)) == (1, {})


def test_a_nuisance_is_asked_for_last_and_named() -> None:
    assert left(known(), find(), find(), reason="streak") == (0, {"streak": 2})
    assert left(known(sizes=Sizes(least_m=1e-6)), find(), reason="streak") == (0, {"size": 1})


def test_without_a_pixel_size_no_size_rule_is_applied() -> None:
    recipe = known(sizes=Sizes(small_m=1e-9, large_m=2e-9, least_m=1e-6))
    (kept,) = sift([find()], recipe, pixel=Pixel(), nuisance=lambda _: None).kept
    assert (kept.size_m, kept.path) == (None, ("defect", "pit"))


@pytest.mark.parametrize(("side_px", "word"), [(5.0, "small"), (19.0, "small"), (21.0, "large"), (90.0, "large")])
def test_small_and_large_stand_in_the_path_by_what_the_size_is_nearer_to(side_px: float, word: str) -> None:
    recipe = known(sizes=Sizes(small_m=20e-9, large_m=60e-9))
    (kept,) = sift([find(box=(0, 0, 2.0, side_px))], recipe, pixel=PIXEL, nuisance=lambda _: None).kept
    assert kept.path == ("defect", word, "pit") and kept.size_m == pytest.approx(side_px * 2e-9)


def test_a_path_that_has_its_word_already_keeps_it() -> None:
    recipe = known(sizes=Sizes(small_m=20e-9, large_m=60e-9))
    judged = Defect(name="other", path=("defect", "unknown"), box_px=(0, 0, 90, 90), confidence=0.9)
    assert sift([judged], recipe, pixel=PIXEL, nuisance=lambda _: None).kept[0].path == ("defect", "unknown")


# --- a frame ---


def frame(lane: Lane = Lane.INSPECT, **optics: Any) -> Frame:
    given = {"pixel_size_m": 2e-9, "lot": "L1", "die_x": 3, "recipe": "via-2", **optics}
    return Frame(number=7, pixels=np.zeros((64, 96), np.uint8), optics=Optics(**given), lane=lane, received_ns=0)


def findings(*finds: Defect) -> Findings:
    noise = np.random.default_rng(2).integers(90, 110, (64, 96), np.uint8)
    return Findings(defects=finds, shown=Shown(image=noise))


def test_a_frame_tells_its_defects_with_where_it_lies_and_a_crop_of_each() -> None:
    seen = told(frame(), findings(find()), known(), own_threshold=0.5)
    assert seen.inspected is not None and seen.defects is not None
    assert (seen.inspected.recipe, seen.inspected.lot, seen.inspected.die_x) == ("via-2", "L1", 3)
    assert seen.inspected.shape_px == (64, 96) and [each.shape for each in seen.inspected.crops] == [(48, 48)]
    assert seen.defects[0].size_m == pytest.approx(20e-9)


def test_of_hundreds_of_defects_the_first_have_crops_and_live_frames_have_none() -> None:
    many = msgspec.structs.replace(findings(*[find()] * 500), shown=Shown(image=np.zeros((64, 96), np.uint8)))
    seen = told(frame(), many, known(), own_threshold=0.5)
    assert seen.defects is not None and seen.inspected is not None
    assert (len(seen.defects), len(seen.inspected.crops)) == (500, CROPS)
    live = told(frame(Lane.LIVE), many, known(), own_threshold=0.5).inspected
    assert live is not None and live.crops == ()


def test_without_a_recipe_every_find_of_the_model_is_told() -> None:
    seen = told(frame(), findings(find(confidence=0.01)), None, own_threshold=0.5)
    assert seen.defects is not None and seen.inspected is not None
    assert len(seen.defects) == 1 and (seen.inspected.recipe, seen.inspected.dropped) == (None, {})
    assert told(frame(), Findings(), known(), own_threshold=0.5).defects is None


@pytest.mark.parametrize("box", [(0.0, 0.0, 4.0, 4.0), (90.0, 60.0, 96.0, 64.0), (0.0, 0.0, 96.0, 64.0)])
def test_a_crop_lies_in_the_picture_and_is_a_copy(box: Box) -> None:
    image = np.zeros((64, 96), np.uint8)
    made = crop(image, box)
    assert min(made.shape) >= 48 and made.base is None and made.size <= image.size


def test_a_region_beyond_the_frame_and_a_threshold_that_is_not_the_one_asked_for_are_told() -> None:
    recipe = known(regions=(Region(box_px=(0, 0, 97, 64), do="inspect"),))
    said = misfit(recipe, frame(), findings())
    assert "[0, 0, 97, 64]" in said and "96x64" in said
    doubtful = Recipe(name="via-2", doubt="measured with another model")
    assert misfit(doubtful, frame(), findings()) == "recipe via-2: measured with another model"
    inspection = Inspection()
    edges = [
        (flag.code, flag.state, flag.detail)
        for doubt in ("", "a", "a", "b", "")
        for flag in inspection.recipe_flags(frame(), recipe, doubt=doubt, count=0)
    ]
    assert [(state, detail) for _, state, detail in edges] == [
        ("raised", "a"), ("cleared", ""), ("raised", "b"), ("cleared", ""),
    ]  # fmt: skip
    assert {code for code, _, _ in edges} == {"recipe_doubtful"}


# --- density ---


def test_an_alarm_of_density_begins_above_its_bound_and_ends_at_half_of_it() -> None:
    rule, alarm, states = Density(frames=3, most=4.0), Alarm(), []
    for count in (1, 2, 1, 2, 3, 1, 0, 1, 0, 0):  # sums of three: 1 3 4 5 6 6 4 2 1 1
        alarm = alarm.after(count, rule)
        states.append(alarm.raised)
    assert states == [False, False, False, True, True, True, True, False, False, False]


def test_density_is_told_once_and_each_recipe_has_its_own() -> None:
    recipe = known(density=Density(frames=2, most=3.0))
    inspection, edges = Inspection(), []
    for count in (2, 2, 5, 0, 0):
        edges += inspection.recipe_flags(frame(), recipe, doubt="", count=count)
    assert [(flag.code, flag.state) for flag in edges] == [(density.CODE, "raised"), (density.CODE, "cleared")]
    assert "4 defects in the last 2 frames, 3 are allowed" in edges[0].detail and edges[0].frame == 7
    alarms = Alarms()
    for n in range(3 * SOURCES):
        alarms.after(f"invented-{n}", 9, Density(frames=1, most=1.0))
    assert len(alarms.standing()) == SOURCES


# --- rates ---


def test_bounds_of_a_poisson_rate_are_those_of_the_tables() -> None:
    # Garwood's one-sided 95 % limits of 0, 1, 5 and 20 events.
    for alarms, limit in ((0, 2.996), (1, 4.744), (5, 10.513), (20, 29.062)):
        assert upper(alarms, 1) == pytest.approx(limit, abs=1e-3)


def test_how_many_clean_frames_a_rate_needs() -> None:
    assert [needed(rate) for rate in (0.1, 0.01, 0.001)] == [30, 300, 2996]
    assert most_alarms(29, 0.1) is None and most_alarms(30, 0.1) == 0 and most_alarms(200, 0.1) == 12


def test_a_threshold_keeps_its_rate_by_the_bound_and_not_by_luck() -> None:
    rng = np.random.default_rng(4)
    kept = 0
    for _ in range(200):
        found = threshold_for(0.1, rng.uniform(0.0, 1.0, rng.poisson(1.0 * 100)).tolist(), frames=100, floor=0.0)
        assert found is not None and found.upper_per_frame <= 0.1
        kept += 1.0 - found.threshold <= 0.1  # the true rate above it, of one alarm a frame, uniform
    assert kept >= 0.93 * 200


def test_too_few_frames_fix_no_threshold_and_quiet_ones_the_floor() -> None:
    assert threshold_for(0.01, [], frames=299, floor=0.05) is None
    found = threshold_for(0.01, [], frames=300, floor=0.05)
    assert found is not None and (found.threshold, found.alarms) == (0.05, 0)
    found = threshold_for(0.1, [0.4, 0.9, 0.9], frames=30, floor=0.05)
    assert found is not None and found.threshold > 0.9 and found.alarms == 0
