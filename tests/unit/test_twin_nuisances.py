"""What no defect is: drawn, named, told where, and never in the list of defects."""

import numpy as np
import pytest

from calibration.train import defects_data
from calibration.train.defects_data import Recipe
from calibration.twin import patterns
from calibration.twin.defects import inject, seen, tails
from calibration.twin.flaws import Spot
from calibration.twin.inspection import inspected_frame
from calibration.twin.nuisances import (
    NUISANCES,
    STAIN,
    Tear,
    charged,
    rougher,
    stains,
    troubled,
)
from calibration.twin.sketch import Sketch, surface_px

SHAPE = (96, 128)


def lines(seed: int = 1) -> Sketch:
    return patterns.PATTERNS["lines"](SHAPE, pixel_size_m=2e-9, rng=np.random.default_rng(seed), pitch_px=(20.0, 30.0))


@pytest.mark.parametrize("name", STAIN)
def test_a_stain_changes_the_yield_where_its_box_says(name: str) -> None:
    for seed in range(12):
        factor, (x0, y0, x1, y1) = STAIN[name](SHAPE, np.random.default_rng(seed))
        assert 0 <= x0 < x1 <= SHAPE[1]
        assert 0 <= y0 < y1 <= SHAPE[0]
        change = np.abs(factor - 1.0)
        assert 0.02 < change.max() < 0.7
        outside = change.copy()
        outside[y0:y1, x0:x1] = 0.0
        assert outside.max() <= (0.45 if name != "streak" else 0.0) * max(change.max(), 0.1) + 1e-6
        assert (factor > 0.0).all()


def test_a_streak_is_whole_scan_lines_of_one_brightness() -> None:
    factor, (x0, y0, x1, y1) = STAIN["streak"](SHAPE, np.random.default_rng(4))
    assert np.unique(factor[y0:y1, x0:x1]).size == 1
    assert x1 == SHAPE[1]
    assert y1 - y0 <= 3


def test_edges_that_are_rougher_in_one_place_stay_edges() -> None:
    clean = lines()
    for seed in range(8):
        rough, (x0, y0, x1, y1) = rougher(clean, np.random.default_rng(seed))
        moved = np.abs(rough.inside - clean.inside)
        assert 0.0 < moved.max() < 0.12 * clean.pitch
        outside = moved.copy()
        outside[y0:y1, x0:x1] = 0.0
        assert outside.max() < 0.6 * moved.max()


def test_a_tear_is_named_where_the_rows_jump() -> None:
    plane = np.tile(np.arange(40, dtype=np.float32), (30, 1))
    tear = Tear(12, 3)
    moved = tear.torn(plane)
    (named,) = tear.named((30, 40))
    assert named.box_px == (0, 11, 40, 13)
    assert (moved[11] == plane[11]).all()
    assert (moved[12, 3:] == plane[12, :-3]).all()
    assert Tear(0, 0).named((30, 40)) == ()


def test_the_charge_of_a_particle_trails_along_the_scan_and_is_no_part_of_it() -> None:
    clean, charges = lines(), 0
    for seed in range(40):
        changed, placed = inject(clean, "particle", Spot(40.0, 48.0), rng=np.random.default_rng(seed))
        assert placed is not None
        step = np.abs(seen(changed).relative_yield - seen(clean).relative_yield)
        x0, y0, x1, y1 = placed.box_px
        beside = step.copy()
        beside[y0:y1, x0:x1] = 0.0
        if placed.tail_px is None:
            assert beside.max() <= 0.03
            continue
        charges += 1
        (tail,) = tails([placed])
        assert tail.name == "charging"
        assert tail.box_px[2] > x1
        rows, columns = np.nonzero(beside > 0.03)
        assert rows.min() >= y0
        assert rows.max() < y1
        assert columns.min() >= x0
    assert 3 <= charges <= 20


def test_a_tail_falls_off_behind_what_is_charged() -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[20:30, 10:20] = True
    factor, box = charged(mask, np.random.default_rng(0))
    tail = np.abs(factor[25] - 1.0)
    assert (tail[:20] == 0.0).all()
    assert (np.diff(tail[20:]) < 0.0).all()
    assert box[:2] == (20, 20)
    assert box[3] == 30


def test_nuisances_leave_the_list_of_defects_empty() -> None:
    named: set[str] = set()
    for seed in range(24):
        frame = inspected_frame("line-space", (96, 96), seed=seed, defects=0)
        assert frame.defects == ()
        named |= {each.name for each in frame.nuisances}
    assert {"streak", "patch", "clump", "tear", "roughness", "contamination"} <= named
    assert named <= set(NUISANCES)
    rows = defects_data.small(10, Recipe(3, kinds=("lines", "logic", "natural"), clean=1.0))
    assert (rows.label == -1).all()
    assert not rows.visible.any()
    there = rows.nuisance >= 0
    assert there.any(axis=1).mean() > 0.3
    assert (rows.nuisance_px[there][:, 2] > rows.nuisance_px[there][:, 0]).all()
    assert (rows.nuisance_px[~there] == 0.0).all()


def test_the_same_seed_troubles_a_field_the_same_way() -> None:
    for seed in range(6):
        (one, first), (two, second) = (troubled(lines(), np.random.default_rng(seed)) for _ in range(2))
        assert first == second
        assert surface_px(one).tobytes() == surface_px(two).tobytes()
        a, b = (stains(SHAPE, np.random.default_rng(seed))[0] for _ in range(2))
        assert (a is None) == (b is None)
        assert a is None or b is None or a.tobytes() == b.tobytes()
