"""The tree: which level ends a path, and what each of them said."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.cascade_contrast import Contrast
from engines.cascade_features import Fact, Height
from engines.cascade_levels import Answer, Judged, Level, Limits, Sizes, judged, size_of
from engines.defects import CLASSES

LIMITS = Limits(defect=0.5, known=0.05, chance=0.5)
SIZES = Sizes(small_m=30e-9, large_m=50e-9)
CLEAR = Contrast((9.0, 9.0, 9.0), 1e-6, shading=8.0, noise=5.0, area_px=40.0, elongation=0.2, along_rad=0.0)
FACT = Fact((10.0, 20.0, 30.0, 26.0), CLEAR, None, None)


def leaf(name: str, sure: float = 0.9) -> NDArray[np.float32]:
    shares = np.full(len(CLASSES), (1.0 - sure) / (len(CLASSES) - 1), np.float32)
    shares[CLASSES.index(name)] = sure
    return shares


def judge(answer: Answer, fact: Fact = FACT, *, sizes: Sizes | None = SIZES, pixel_m: float | None = 3e-9) -> Judged:
    return judged(answer, fact, LIMITS, sizes=sizes, pixel_size_m=pixel_m)


BRIDGE = Answer(0.97, leaf("bridge"), 0.6)


def test_a_defect_goes_down_to_its_leaf_and_each_level_says_how_sure_it_is() -> None:
    told = judge(BRIDGE)
    assert (told.name, told.path) == ("bridge", ("defect", "large", "bridge"))
    assert told.size_m == pytest.approx(60e-9)
    assert [level.level for level in told.levels] == ["defect", "kind", "noise", "leaf"]
    assert [level.said for level in told.levels] == ["defect", "large", "signal", "bridge"]
    assert [level.probability for level in told.levels] == pytest.approx([0.97, 0.6, 1.0, 0.9], abs=1e-5)


def test_what_is_no_defect_is_asked_nothing_more() -> None:
    told = judge(replace(BRIDGE, defect=0.2))
    assert (told.name, told.path) == ("not_defect", ("not_defect",))
    assert told.levels == (Level("defect", "not_defect", pytest.approx(0.8)),)


def test_what_looks_like_nothing_known_is_not_named() -> None:
    told = judge(replace(BRIDGE, known=0.01))
    assert (told.name, told.path) == ("unknown", ("defect", "unknown"))
    assert told.levels[-1] == Level("kind", "unknown", pytest.approx(0.99))


def test_what_noise_does_as_often_is_no_defect() -> None:
    told = judge(BRIDGE, replace(FACT, contrast=replace(CLEAR, chance=0.8)))
    assert (told.name, told.path) == ("not_defect", ("not_defect", "noise"))
    assert told.levels[-1] == Level("noise", "noise", 0.8)


@pytest.mark.parametrize(
    ("size_m", "expected"), [(20e-9, "small"), (30e-9, "small"), (39e-9, "small"), (41e-9, "large"), (50e-9, "large")]
)
def test_between_small_and_large_the_nearer_one_counts(size_m: float, expected: str) -> None:
    assert size_of(size_m, SIZES) == expected


def test_one_length_may_part_small_from_large() -> None:
    assert [size_of(x, Sizes(40e-9, 40e-9)) for x in (39e-9, 40e-9)] == ["small", "large"]


@pytest.mark.parametrize(("sizes", "pixel_m"), [(None, 3e-9), (SIZES, None)])
def test_without_sizes_or_pixel_size_no_size_is_told(sizes: Sizes | None, pixel_m: float | None) -> None:
    told = judge(BRIDGE, sizes=sizes, pixel_m=pixel_m)
    assert told.path == ("defect", "bridge")
    assert told.levels[1].said == "unsized"
    assert (told.size_m is None) == (pixel_m is None)


DULL = replace(CLEAR, shading=1.2)
TALL, LOW = Height(4.0, 5.0, 3.0, sigma_px=1.0), Height(0.4, 1.0, -1.0, sigma_px=1.0)


@pytest.mark.parametrize("name", ["pit", "particle"])
@pytest.mark.parametrize(
    ("contrast", "height", "decided"),
    [(CLEAR, None, True), (DULL, TALL, True), (DULL, LOW, False), (DULL, None, False)],
)
def test_a_pit_that_may_be_a_particle_is_other_and_that_is_said(
    name: str, contrast: Contrast, height: Height | None, decided: bool
) -> None:
    told = judge(Answer(0.97, leaf(name, 0.6), 0.6), Fact(FACT.box_px, contrast, height, None))
    assert told.name == (name if decided else "other")
    assert told.levels[-1].said == (name if decided else "pit_or_particle")
    if not decided:
        assert told.levels[-1].probability == pytest.approx(0.6 + 0.4 / 13, abs=1e-5)


def test_other_classes_need_neither_height_nor_shading() -> None:
    assert judge(BRIDGE, replace(FACT, contrast=DULL)).name == "bridge"
