"""Which finds mean which hidden defects, and what of a field is told to whom."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from calibration.twin.inspecting import (
    DRAWN,
    Find,
    InspectedField,
    Listener,
    Word,
    header,
    height_map,
    match,
    plan_fields,
)
from calibration.twin.inspection import InspectedFrame, TrueDefect
from calibration.twin.link import ARRAY, Message
from calibration.twin.nuisances import Nuisance
from calibration.twin.readback import ELECTRON_C

SESSION = "inspection-1"


def hidden(*box: float, name: str = "bridge") -> TrueDefect:
    x0, y0, x1, y1 = box
    return TrueDefect(name, (x0, y0, x1, y1), 20e-9, 5.0)


def find(*box: float, name: str = "bridge", confidence: float = 0.9) -> Find:
    x0, y0, x1, y1 = box
    return Find(name, (x0, y0, x1, y1), confidence, None)


def frame(*defects: TrueDefect) -> InspectedFrame:
    pixels = np.full((96, 128), 120, np.uint8)
    return InspectedFrame("line-space", pixels, 2e-9, 40.0, 800.0, np.zeros((96, 128), np.float32), defects)


@pytest.mark.parametrize(
    ("found", "there"),
    [
        (find(10, 10, 30, 30), True),
        (find(18, 18, 22, 22), True),  # small, in the middle of it
        (find(0, 0, 60, 60), True),  # large, around its middle
        (find(22, 10, 60, 30), False),  # they touch, and neither holds the other's middle
        (find(60, 60, 80, 80), False),
    ],
    ids=["the same", "within", "around", "beside", "elsewhere"],
)
def test_a_find_counts_where_its_box_means_the_same_place(found: Find, there: bool) -> None:
    assert match([hidden(10, 10, 30, 30)], [found]) == (((0, 0),) if there else ())


def test_one_defect_is_found_once_by_the_most_confident_find() -> None:
    twice = [find(11, 11, 31, 31, confidence=0.4), find(10, 10, 30, 30, confidence=0.8)]
    assert match([hidden(10, 10, 30, 30)], twice) == ((0, 1),)


def test_of_two_defects_a_find_takes_the_one_it_covers_best() -> None:
    truth = [hidden(10, 10, 40, 40), hidden(20, 20, 40, 40)]
    assert match(truth, [find(20, 20, 40, 40)]) == ((1, 0),)


def test_the_row_of_a_field_counts_what_was_found_missed_and_invented() -> None:
    shown = frame(hidden(10, 10, 30, 30), hidden(50, 50, 70, 70, name="pit"), hidden(80, 10, 90, 20))
    found = (find(11, 11, 29, 29), find(51, 51, 69, 69, name="void"), find(100, 70, 110, 80))
    word = Word("inspected", "", found, took_s={"defects": 0.05})
    told = InspectedField(7, shown, word, match(shown.defects, found)).told()
    counts = {name: told[name] for name in ("count", "matched", "missed", "false_alarms", "class_right")}
    assert counts == {"count": 3, "matched": 2, "missed": 1, "false_alarms": 1, "class_right": 1}
    assert (told["seed"], told["specimen"], told["end"], told["reason"]) == (7, "line-space", "inspected", "")
    assert told["truth"][1] == {"class": "pit", "box_px": [50, 50, 70, 70], "height_m": 20e-9}
    assert told["found"][0] == {"class": "bridge", "box_px": [11, 11, 29, 29], "confidence": 0.9, "height_m": None}


def test_a_false_alarm_is_told_with_the_nuisance_that_it_lies_on() -> None:
    troubled = replace(
        frame(hidden(10, 10, 30, 30)),
        nuisances=(Nuisance("patch", (40, 0, 128, 96)), Nuisance("streak", (0, 60, 128, 62))),
    )
    found = (find(11, 11, 29, 29), find(50, 55, 60, 65), find(90, 10, 99, 20), find(5, 80, 15, 90))
    field = InspectedField(7, troubled, Word("inspected", "", found), match(troubled.defects, found))
    assert field.causes == ("streak", "patch", None)
    assert field.told()["false_alarm_causes"] == ["streak", "patch", None]
    assert {each["name"] for each in field.told()["nuisances"]} == {"patch", "streak"}


def test_a_plan_of_some_fields_has_a_clean_one_and_both_patterns() -> None:
    planned = plan_fields(len(DRAWN), seed=5)
    assert [plan.seed for plan in planned] == [5, 6, 7, 8]
    assert {plan.pattern for plan in planned} == {"line-space", "contact-holes"}
    assert 0 in {plan.defects for plan in planned} and len({plan.defects for plan in planned}) > 1


def test_the_header_tells_what_an_instrument_knows_and_nothing_of_what_is_hidden() -> None:
    shown = frame(hidden(10, 10, 30, 30))
    optics = header(shown, session=SESSION, place=1, now_ns=5)
    assert optics.inspect is True and optics.recipe is None
    assert optics.beam_current_a is not None and optics.dwell_time_s is not None
    assert optics.beam_current_a * optics.dwell_time_s / ELECTRON_C == pytest.approx(40.0)
    assert header(frame(), session=SESSION, place=1, now_ns=5) == optics
    assert None not in (optics.stage_x_m, optics.lot, optics.wafer, optics.die_x, optics.pixel_size_m)


# --- what the agent says of it ---


def told(topic: str, **fields: object) -> Message:
    return {"topic": topic, "frame": 4, "session": SESSION, **fields}


DEFECTS = told(
    "defects",
    count=1,
    defects=[{"class": "pit", "path": ["defect", "pit"], "box_px": [1, 2, 3, 4], "confidence": 0.7, "height_m": -1e-9}],
    took_s={"defects": 0.03},
)


def test_the_word_on_a_frame_is_made_of_its_own_messages() -> None:
    listener = Listener(SESSION, 4)
    listener({**DEFECTS, "frame": 3})
    listener({**DEFECTS, "session": "episode-4"})
    assert not listener.spoke
    listener(DEFECTS)
    heights = np.arange(6, dtype="<f4").reshape(2, 3)
    listener(told("depth", shape=[2, 3], calibrated=True, **{ARRAY: heights.tobytes()}))
    word = listener.word(alive=True)
    assert (word.end, word.took_s, word.calibrated) == ("inspected", {"defects": 0.03}, True)
    assert word.found == (Find("pit", (1.0, 2.0, 3.0, 4.0), 0.7, -1e-9),)
    assert word.height_m is not None and np.array_equal(word.height_m, heights)


def test_a_frame_that_was_refused_failed_with_the_agents_reason() -> None:
    listener = Listener(SESSION, 4)
    listener({"topic": "flag", "code": "uninspected", "state": "raised", "frame": 4, "detail": "the queue is full"})
    assert listener.spoke
    assert listener.word(alive=True) == Word("failed", "the queue is full")


def test_an_agent_without_a_defect_model_and_one_that_died_are_told_apart() -> None:
    listener = Listener(SESSION, 4)
    assert "no word" in listener.word(alive=True).reason
    assert "heartbeat" in listener.word(alive=False).reason
    listener(told("focus", score=8.0))
    assert "defect model" in listener.word(alive=True).reason


@pytest.mark.parametrize("change", [{"shape": [3, 3]}, {"shape": None}, {ARRAY: None}])
def test_a_map_that_is_not_as_large_as_it_says_is_none(change: Message) -> None:
    good = told("depth", shape=[2, 3], **{ARRAY: bytes(24)})
    assert height_map(good) is not None
    assert height_map({**good, **change}) is None


def test_the_row_is_json_whatever_became_of_the_field() -> None:
    field = InspectedField(1, frame(hidden(10, 10, 30, 30)), Word("failed", "no word"), ())
    row = msgspec.json.decode(msgspec.json.encode(replace(field, seed=2).told()))
    assert (row["end"], row["reason"], row["matched"], row["missed"]) == ("failed", "no word", 0, 1)
