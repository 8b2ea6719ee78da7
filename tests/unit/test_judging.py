"""The cascade's word in the messages: names, paths and levels; what is no defect is left out."""

import msgspec

from agent.judging import judged
from agent.messages import Defect
from agent.wire.outbound import plain
from engines.cascade import Judged
from engines.cascade_levels import Level


def defect(number: int) -> Defect:
    box = (float(number), 1.0, 9.0 + number, 12.0)
    return Defect(name="bridge", path=("defect", "bridge"), box_px=box, confidence=0.8, height_m=2e-9)


LEAF = Judged("break", ("defect", "small", "break"), (Level("leaf", "break", 0.9),), 8e-9)
STRANGE = Judged("unknown", ("defect", "unknown"), (Level("kind", "unknown", 0.98),), None)
NOTHING = Judged("not_defect", ("not_defect",), (Level("defect", "not_defect", 0.7),), None)


def test_a_defect_takes_name_path_levels_and_size_and_keeps_the_rest() -> None:
    (told,) = judged([defect(0)], [LEAF])
    assert (told.name, told.path, told.size_m) == ("break", ("defect", "small", "break"), 8e-9)
    assert (told.confidence, told.height_m, told.box_px) == (0.8, 2e-9, defect(0).box_px)
    assert list(plain(told)["levels"]) == [{"level": "leaf", "said": "break", "probability": 0.9}]


def test_what_is_no_defect_is_left_out_and_the_others_keep_their_own_answers() -> None:
    told = judged([defect(number) for number in range(3)], [LEAF, NOTHING, STRANGE])
    assert [each.box_px[0] for each in told] == [0.0, 2.0]
    assert told[1].path == ("defect", "unknown")


def test_an_unknown_is_of_class_other_for_the_list_of_classes_is_closed() -> None:
    (told,) = judged([defect(0)], [STRANGE])
    assert told.name == "other"
    assert told.levels[0].said == "unknown"


def test_a_defect_that_no_cascade_judged_says_so_by_having_no_levels() -> None:
    told = plain(defect(0))
    assert not told["levels"]
    assert told["size_m"] is None
    assert msgspec.convert(told, Defect) == defect(0)
