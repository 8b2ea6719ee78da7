"""What a scan does by itself, as the virtual microscope draws it, is told from defects: shares, not single cases."""

from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control.nuisances import NOISE, STREAK, TEAR, Looked, looked, reason, torn_rows
from agent.control.recipe import NuisanceRules
from agent.messages import Box
from calibration.twin.nuisances import Tear, clump, streak

Plane = NDArray[np.float32]
Told = Counter[str | None]

SHAPE = (256, 320)
SIGMA = 12.0  # of the noise, grey levels: contrast of 2 sigma, as at 40 electrons a pixel
ALL = NuisanceRules()
MANY = 16
PATTERNS = ("plain", "lines", "holes")


def clean(pattern: str) -> Plane:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    if pattern == "lines":
        wave = np.where(x % 32 < 14, 1.0, 0.0)
    elif pattern == "holes":
        wave = np.where(np.hypot(x % 32 - 16, y % 32 - 16) < 9, 0.0, 1.0)
    else:
        wave = np.full(SHAPE, 0.5)
    return np.asarray(100.0 + 50.0 * cv2.GaussianBlur(wave.astype(np.float32), (0, 0), 1.0), np.float32)


def taken(still: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.clip(still + rng.normal(0.0, SIGMA, SHAPE), 0, 255).astype(np.uint8)


def pieces(box: Box, rng: np.random.Generator) -> Box:
    """As a detector boxes it: some 20 px of a streak, a little off."""
    x = float(rng.uniform(box[0], max(box[2] - 24.0, box[0] + 1.0)))
    middle = 0.5 * (box[1] + box[3]) + float(rng.uniform(-1.5, 1.5))
    return x, middle - 9.0, x + 22.0, middle + 9.0


def disc(still: Plane, level: float, rng: np.random.Generator) -> tuple[Plane, Box]:
    """A spot of 8 px: what a particle or a pit adds."""
    x, y = rng.uniform(30, SHAPE[1] - 30), rng.uniform(30, SHAPE[0] - 30)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    spot = np.where(np.hypot(columns - x, rows - y) < 4.0, level, 0.0).astype(np.float32)
    return still + cv2.GaussianBlur(spot, (0, 0), 0.8), (x - 7.0, y - 7.0, x + 7.0, y + 7.0)


def tried(pattern: str, draw: Callable[[Plane, np.random.Generator], tuple[Plane, Box]], reference: bool) -> Told:
    """What is said of one nuisance or defect in each of MANY fields."""
    rng, still, said = np.random.default_rng(11), clean(pattern), Counter[str | None]()
    for _ in range(MANY):
        drawn, box = draw(still, rng)
        seen = looked(taken(drawn, rng), taken(still, rng) if reference else None)
        said[reason(seen, box, ALL)] += 1
    return said


def with_streak(still: Plane, rng: np.random.Generator) -> tuple[Plane, Box]:
    """One that runs through the whole field and that somebody would see."""
    while True:
        factor, box = streak(SHAPE, rng)
        if box[0] == 0 and 20 < box[1] < SHAPE[0] - 20 and abs(np.log(float(factor[box[1], -1]))) > 0.1:
            return still * factor, pieces(box, rng)


def with_clump(still: Plane, rng: np.random.Generator) -> tuple[Plane, Box]:
    factor, box = clump(SHAPE, rng)
    return still * factor, box


def with_disc(still: Plane, rng: np.random.Generator) -> tuple[Plane, Box]:
    return disc(still, float(rng.choice([-1.0, 1.0])) * 2.0 * SIGMA, rng)


def with_tear(still: Plane, rng: np.random.Generator) -> tuple[Plane, Box]:
    row = int(rng.integers(40, SHAPE[0] - 40))
    x = float(rng.uniform(20, SHAPE[1] - 60))
    moved = Tear(row, int(rng.choice([-4, -3, -2, 2, 3, 4]))).torn(still)
    return moved, (x, row - 10.0, x + 24.0, row + 12.0)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_with_a_reference_streaks_and_clumps_of_noise_are_told(pattern: str) -> None:
    streaks, clumps = tried(pattern, with_streak, True), tried(pattern, with_clump, True)
    assert streaks[STREAK] + streaks[NOISE] >= 0.9 * MANY
    assert clumps[NOISE] >= 0.5 * MANY  # the coarsest are no noise to any filter


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_defects_are_left_alone(pattern: str, reference: bool) -> None:
    assert tried(pattern, with_disc, reference)[None] == MANY


@pytest.mark.parametrize("pattern", ["plain", "lines"])
def test_without_a_reference_a_streak_through_the_middle_of_a_box_is_told_where_rows_are_quiet(pattern: str) -> None:
    assert tried(pattern, with_streak, False)[STREAK] >= 0.8 * MANY


@pytest.mark.parametrize("reference", [True, False])
def test_a_tear_is_told_where_a_pattern_shows_it(reference: bool) -> None:
    assert tried("lines", with_tear, reference)[TEAR] >= 0.9 * MANY


def test_a_whole_field_has_no_tear_and_a_torn_one_has_it_in_its_row() -> None:
    rng = np.random.default_rng(5)
    for pattern in PATTERNS:
        assert torn_rows(taken(clean(pattern), rng).astype(np.float32)) == ()
    (row,) = torn_rows(taken(Tear(100, 3).torn(clean("lines")), rng).astype(np.float32))
    assert abs(row - 100) <= 3


def test_a_defect_that_a_streak_runs_through_is_still_one() -> None:
    rng, still = np.random.default_rng(6), clean("lines")
    drawn, box = disc(still, 3.0 * SIGMA, rng)
    row = int(0.5 * (box[1] + box[3]))
    drawn[row : row + 2] *= 1.2
    assert reason(looked(taken(drawn, rng), taken(still, rng)), box, ALL) is None


def test_a_rule_that_is_off_says_nothing() -> None:
    off, rng, still = NuisanceRules(streak=False, tear=False, noise=False), np.random.default_rng(7), clean("lines")
    drawn, box = with_streak(still, rng)
    seen = looked(taken(drawn, rng), taken(still, rng))
    assert reason(seen, box, off) is None and reason(seen, box, ALL) in (STREAK, NOISE)


@pytest.mark.parametrize("box", [(-5.0, -5.0, 3.0, 3.0), (318.0, 254.0, 330.0, 270.0), (0.0, 0.0, 320.0, 256.0)])
def test_any_box_is_answered(box: Box) -> None:
    rng = np.random.default_rng(8)
    for seen in (
        looked(taken(clean("lines"), rng), None),
        looked(taken(clean("lines"), rng), taken(clean("lines"), rng)),
    ):
        assert isinstance(seen, Looked) and reason(seen, box, ALL) in (None, NOISE)


def test_pictures_too_small_to_tell_are_answered() -> None:
    tiny = np.full((8, 8), 90, np.uint8)
    assert reason(looked(tiny, None), (1.0, 1.0, 4.0, 4.0), ALL) is None
    assert reason(looked(tiny, tiny), (1.0, 1.0, 4.0, 4.0), ALL) == NOISE
