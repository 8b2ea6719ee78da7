"""Patterned sketches: each kind is what its name says, of the pitch and width it claims, the same for the same seed."""

import cv2
import numpy as np
import pytest

from calibration.twin import design
from calibration.twin.design import covered
from calibration.twin.patterns import PATTERNS
from calibration.twin.sketch import PITCH_PX, Sketch, surface_m, surface_of, surface_px

SHAPE = (192, 256)
PIXEL_M = 3e-9


def drawn(kind: str, seed: int = 1, **how: object) -> Sketch:
    return PATTERNS[kind](SHAPE, pixel_size_m=PIXEL_M, rng=np.random.default_rng(seed), **how)


@pytest.mark.parametrize("kind", PATTERNS)
def test_every_pattern_says_what_it_is_and_is_the_same_for_the_same_seed(kind: str) -> None:
    one, two, other = drawn(kind, 1), drawn(kind, 1), drawn(kind, 2)
    assert one.kind == kind
    assert one.inside.shape == SHAPE
    assert one.inside.dtype == np.float32
    assert np.array_equal(one.inside, two.inside)
    assert np.array_equal(surface_m(one), surface_m(two))
    assert one.height != other.height
    assert np.isfinite(one.inside).all()
    assert (one.lattice is not None) == (kind in ("lines", "contacts", "pillars"))


@pytest.mark.parametrize("kind", [kind for kind in PATTERNS if kind != "plain"])
def test_every_pattern_has_material_and_gaps_at_pitches_from_10_to_160_pixels(kind: str) -> None:
    pitches = []
    for seed in range(12):
        sketch = drawn(kind, seed)
        pitches.append(sketch.pitch)
        share = float((sketch.inside > 0).mean())
        assert 0.04 < share < 0.96
        z = surface_px(sketch)
        assert z.max() == pytest.approx(sketch.height, rel=0.15)
        assert z.min() == pytest.approx(0.0, abs=0.25 * sketch.height)
    assert min(pitches) < 30.0 < 80.0 < max(pitches)
    assert all(PITCH_PX[0] <= pitch <= PITCH_PX[1] for pitch in pitches)


@pytest.mark.parametrize("kind", ["lines", "contacts", "pillars"])
def test_the_pitch_and_the_width_come_back_from_the_drawn_heights(kind: str) -> None:
    for seed in range(6):
        sketch = drawn(kind, seed, pitch_px=(16.0, 40.0))
        solid = surface_px(sketch) > 0.5 * sketch.height
        island = ~solid if kind == "contacts" else solid
        if kind == "lines":
            assert island.mean() * sketch.pitch == pytest.approx(sketch.width, abs=1.0)
            continue
        _, label, stats, _ = cv2.connectedComponentsWithStats(island.astype(np.uint8))
        whole = [
            stats[label[round(hole.y), round(hole.x)]]
            for hole in sketch.features
            if sketch.pitch < hole.x < SHAPE[1] - sketch.pitch and sketch.pitch < hole.y < SHAPE[0] - sketch.pitch
        ]
        across = np.mean([(each[cv2.CC_STAT_WIDTH] + each[cv2.CC_STAT_HEIGHT]) / 2 for each in whole])
        area = np.mean([each[cv2.CC_STAT_AREA] for each in whole])
        assert 0.78 * sketch.width**2 * 0.88 < area < 1.05 * sketch.width**2  # between a disc and a square
        assert across == pytest.approx(sketch.width, rel=0.45)  # a turned square is wider by its diagonal
        spacing = [min(np.hypot(a.x - b.x, a.y - b.y) for b in sketch.features if b is not a) for a in sketch.features]
        assert np.median(spacing) == pytest.approx(sketch.pitch, abs=1.5)


def test_a_line_space_field_repeats_with_its_pitch() -> None:
    for seed in range(4):
        sketch = drawn("lines", seed, pitch_px=(14.0, 30.0))
        u = sketch.across.ravel() / sketch.pitch % 1.0
        profile = np.bincount((u * 40).astype(int), weights=surface_px(sketch).ravel(), minlength=40)
        profile /= np.bincount((u * 40).astype(int), minlength=40)
        assert profile[20] == pytest.approx(sketch.height, rel=0.1)  # the middle of the line
        assert profile[[0, 39]].mean() < 0.2 * sketch.height + 0.5  # the middle of the space


def components(rects: list[design.Rect], shape: tuple[int, int]) -> tuple[int, int]:
    """Separate pieces of material, and of space."""
    solid = (covered(shape, rects) > 0.5).astype(np.uint8)
    return cv2.connectedComponents(solid)[0] - 1, cv2.connectedComponents(1 - solid, connectivity=4)[0] - 1


def test_tips_face_each_other_across_gaps() -> None:
    rects = design.tip_to_tip((400, 400), 30.0, width=15.0, rng=np.random.default_rng(3))
    pieces, spaces = components(rects, (400, 400))
    assert pieces > 20  # some 14 lines, each cut more than once
    assert spaces == 1  # the gaps join the spaces
    lines: dict[float, list[design.Rect]] = {}
    for rect in rects:
        lines.setdefault(round(rect.x0, 3), []).append(rect)
    gaps = {
        round(low.y0 - high.y1, 3)
        for column in lines.values()
        for high, low in zip(sorted(column, key=lambda r: r.y0), sorted(column, key=lambda r: r.y0)[1:], strict=False)
    }
    assert len(gaps) == 1
    assert 0.4 * 30.0 <= gaps.pop() <= 1.2 * 30.0


@pytest.mark.parametrize("seed", range(6))
def test_lines_with_jogs_stay_whole_and_apart(seed: int) -> None:
    shape = (300, 300)
    rects = design.jogs(shape, 30.0, width=14.0, rng=np.random.default_rng(seed))
    solid = (covered(shape, rects) > 0.5).astype(np.uint8)
    count, label = cv2.connectedComponents(solid)
    border = np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]]))
    assert set(range(1, count)) <= set(border)  # no line ends within the picture
    assert 8 <= count - 1 <= 26
    apart = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    ridge = cv2.connectedComponents(1 - solid)[0] - 1
    assert ridge >= count - 2  # a space between any two
    assert apart.max() < 30.0


def test_manhattan_routes_never_meet_and_keep_their_distance() -> None:
    rects = design.manhattan((300, 300), 20.0, width=9.0, rng=np.random.default_rng(5))
    cover = covered((300, 300), rects)
    closed = cv2.morphologyEx((cover > 0.5).astype(np.uint8), cv2.MORPH_DILATE, np.ones((9, 9), np.uint8))
    before = cv2.connectedComponents((cover > 0.5).astype(np.uint8))[0]
    assert before > 20
    assert cv2.connectedComponents(closed)[0] == before  # 11 px of space lie between routes: 4 from each side join none


@pytest.mark.parametrize("seed", range(3))
def test_vias_land_on_wires_of_several_widths(seed: int) -> None:
    made = design.logic((400, 400), 24.0, width=12.0, rng=np.random.default_rng(seed))
    assert len({round(wire.y1 - wire.y0, 1) for wire in made.wires}) >= 3
    assert len(made.vias) > 10
    for x, y, radius in made.vias:
        assert any(
            w.x0 <= x - radius and x + radius <= w.x1 and w.y0 <= y - radius and y + radius <= w.y1 for w in made.wires
        )


def test_a_via_is_a_hole_down_to_the_floor() -> None:
    sketch = drawn("logic", 3, pitch_px=(40.0, 44.0))
    z, seen = surface_px(sketch), 0
    for via in sketch.features:
        if 6 < via.x < SHAPE[1] - 6 and 6 < via.y < SHAPE[0] - 6:
            seen += 1
            assert z[round(via.y), round(via.x)] < 0.3 * sketch.height
    assert seen >= 2


def test_a_blank_film_is_level() -> None:
    z = surface_m(drawn("plain"))
    assert np.ptp(z) == pytest.approx(0.0, abs=1e-12)


def test_materials_differ_from_sketch_to_sketch() -> None:
    maps = [surface_of(drawn("manhattan", seed)).material for seed in range(12)]
    assert any(each is None for each in maps)
    assert any(each is not None and np.ptp(each) > 0.2 for each in maps)
