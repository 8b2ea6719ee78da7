"""Each class of defect does to the pattern what its name says, on lattices, layouts and designs drawn by hand."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.twin.defects import KINDS, ROUTED, Placed, inject
from calibration.twin.emission import Emission, render, sky_view
from calibration.twin.flaws import DRAW, MICROBRIDGE_LEVEL, Spot
from calibration.twin.patterns import PATTERNS
from calibration.twin.places import BODY, SPACE, around, between, compact, middle, nearest
from calibration.twin.sketch import Sketch, surface_m, surface_px

PIXEL_M = 2e-9
SIDE = 160
MIDDLE = Spot(80.0, 80.0)
SEEDS = range(4)


def pattern(kind: str, seed: int) -> Sketch:
    """One that fits into the picture a few times; its own walls and roughness."""
    sized = {} if kind == "plain" else {"pitch_px": (24.0, 44.0)}
    return PATTERNS[kind]((SIDE, SIDE), pixel_size_m=PIXEL_M, rng=np.random.default_rng(seed), **sized)


def design(picture: NDArray[np.bool_], pitch: float = 40.0) -> Sketch:
    """A binary picture as a sketch: nothing but signed distances."""
    mask = picture.astype(np.uint8)
    out, into = (cv2.distanceTransform(each, cv2.DIST_L2, 5) for each in (1 - mask, mask))
    inside = np.where(picture, into - 0.5, 0.5 - out).astype(np.float32)
    return Sketch("mask", inside, 20.0, 1.0, 0.5, pitch, PIXEL_M, width=pitch / 2)


def bars(width: int = 20, pitch: int = 40) -> Sketch:
    """Level lines of exactly that width."""
    rows = np.arange(SIDE) % pitch < width
    return design(np.broadcast_to(rows[:, None], (SIDE, SIDE)).copy(), float(pitch))


def elbow() -> Sketch:
    """Two nested corners: no lattice tells where their space is."""
    picture = np.zeros((SIDE, SIDE), np.bool_)
    picture[30:50, 30:150], picture[30:150, 30:50] = True, True
    picture[70:90, 70:150], picture[70:150, 70:90] = True, True
    return design(picture)


def put(clean: Sketch, name: str, seed: int, spot: Spot = MIDDLE) -> tuple[Sketch, Placed]:
    changed, placed = inject(clean, name, spot, rng=np.random.default_rng(seed))
    assert placed is not None, f"no {name} on {clean.kind}"
    return changed, placed


def stands(sketch: Sketch) -> NDArray[np.uint8]:
    return np.asarray(surface_px(sketch) > 0.5 * sketch.height, np.uint8)


def parts(sketch: Sketch) -> int:
    """Pieces of material."""
    return int(cv2.connectedComponents(stands(sketch), connectivity=4)[0]) - 1


def openings(sketch: Sketch) -> int:
    """Pieces without."""
    return int(cv2.connectedComponents(1 - stands(sketch), connectivity=4)[0]) - 1


WIRES = ("lines", "tip_to_tip", "jogs", "manhattan", "logic")
EVERY = [(kind, name) for kind in PATTERNS for name in KINDS.get(kind, ROUTED)]


@pytest.mark.parametrize("kind", [*WIRES, "pillars"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_bridge_joins_two_pieces_of_material(kind: str, seed: int) -> None:
    clean = pattern(kind, seed)
    changed, placed = put(clean, "bridge", seed)
    assert parts(changed) < parts(clean)
    assert placed.height_m > 0.0


@pytest.mark.parametrize("drawn", [bars, elbow])
def test_a_bridge_on_a_design_joins_the_two_sides_of_a_space(drawn: Callable[[], Sketch]) -> None:
    clean = drawn()
    for seed in range(6):
        changed, _ = put(clean, "bridge", seed)
        assert parts(changed) == parts(clean) - 1


@pytest.mark.parametrize("kind", WIRES)
def test_a_break_makes_two_pieces_of_one(kind: str) -> None:
    broken = 0
    for seed in range(6):
        clean = pattern(kind, seed)
        changed, placed = inject(clean, "break", MIDDLE, rng=np.random.default_rng(seed))
        if placed is not None:
            assert placed.height_m < -0.5 * clean.height * PIXEL_M
            broken += parts(changed) == parts(clean) + 1
    assert broken >= 4


def test_a_break_on_a_design_leaves_two_pieces_wherever_it_is_asked_for() -> None:
    clean = elbow()
    for seed, spot in enumerate((Spot(100.0, 40.0), Spot(40.0, 100.0), Spot(100.0, 80.0), Spot(80.0, 120.0))):
        changed, _ = put(clean, "break", seed, spot)
        assert parts(changed) == 3


@pytest.mark.parametrize("seed", range(8))
def test_a_microbridge_is_between_a_fifth_and_four_fifths_of_the_height(seed: int) -> None:
    kind = ("lines", "tip_to_tip", "jogs", "manhattan", "pillars", "logic")[seed % 6]
    clean = replace(pattern(kind, seed), foot=0.0, added=None)
    _, placed = put(clean, "microbridge", seed)
    level = placed.height_m / (clean.height * PIXEL_M)
    assert 0.7 * MICROBRIDGE_LEVEL[0] < level < MICROBRIDGE_LEVEL[1] + 0.02  # its top is rounded


@pytest.mark.parametrize("seed", range(10))
def test_necking_takes_20_to_60_percent_of_the_critical_dimension(seed: int) -> None:
    clean = bars()
    changed, placed = put(clean, "necking", seed)
    x0, y0, x1, y1 = placed.box_px
    widths = np.count_nonzero(changed.inside[y0 - 20 : y1 + 20, x0:x1] > 0, axis=0)
    before = np.count_nonzero(clean.inside[y0 - 20 : y1 + 20, x0:x1] > 0, axis=0)
    lost_px = float((before - widths).max())
    assert 0.2 * 20 - 1.5 <= lost_px <= 0.6 * 20 + 1.5
    assert parts(changed) == parts(clean)


def test_lines_that_collapse_lean_together_and_keep_their_width() -> None:
    clean = bars()
    for seed in range(6):
        changed, _ = put(clean, "collapse", seed)
        column = np.asarray(changed.inside[:, 80] > 0, int)
        gaps = np.diff(np.nonzero(np.diff(np.concatenate([[0], column, [0]])))[0])[1:-1:2]
        narrowest = int(gaps.min()) if len(gaps) == 3 else 0  # they touch: one gap less
        assert narrowest <= 0.4 * 20
        assert np.count_nonzero(changed.inside > 0) == pytest.approx(np.count_nonzero(clean.inside > 0), rel=0.12)


@pytest.mark.parametrize("kind", ["contacts", "logic"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_contact_is_one_hole_less_and_a_merged_one_joins_two(kind: str, seed: int) -> None:
    clean = pattern(kind, seed)
    filled, placed = put(clean, "missing_contact", seed)
    assert len(compact(filled, SPACE)) == len(compact(clean, SPACE)) - 1
    x0, y0, x1, y1 = placed.box_px
    assert surface_px(filled)[(y0 + y1) // 2, (x0 + x1) // 2] > 0.97 * clean.height
    if kind == "contacts":
        assert surface_px(filled)[y0:y1, x0:x1].min() > 0.9 * clean.height
        joined, _ = put(clean, "merged_contact", seed)
        assert openings(joined) <= openings(clean)
        assert float((surface_px(joined) - surface_px(clean)).min()) < -0.4 * clean.height


def test_a_merged_contact_of_full_depth_is_one_opening_less() -> None:
    clean = replace(pattern("contacts", 2), added=None)
    merged = [put(clean, "merged_contact", seed)[0] for seed in range(12)]
    assert sum(openings(each) == openings(clean) - 1 for each in merged) >= 8  # the others are shallow ones


@pytest.mark.parametrize("seed", SEEDS)
def test_a_closed_contact_has_less_of_a_hole_and_its_neighbours_all_of_theirs(seed: int) -> None:
    clean = pattern("contacts", seed)
    changed, placed = put(clean, "closed_contact", seed)
    hole = nearest(clean, MIDDLE, SPACE)
    assert hole is not None
    assert placed.height_m > 0.2 * clean.height * PIXEL_M
    far = around(clean, hole, SPACE) < -2.0
    np.testing.assert_allclose(surface_px(changed)[far], surface_px(clean)[far], atol=0.05)


def test_a_pillar_may_be_missing_and_a_film_has_none_to_lose() -> None:
    clean = pattern("pillars", 1)
    lost = [parts(put(clean, "other", seed)[0]) - parts(clean) for seed in range(12)]
    assert -1 in lost
    film = pattern("plain", 1)
    for name in ("bridge", "break", "necking", "missing_contact", "closed_contact", "merged_contact", "collapse"):
        assert inject(film, name, MIDDLE, rng=np.random.default_rng(0))[1] is None
    assert compact(film, BODY) == ()


@pytest.mark.parametrize("turn_deg", [0.0, 30.0, 75.0])
def test_the_middle_of_a_space_is_found_with_its_width_and_its_direction(turn_deg: float) -> None:
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    turn = np.radians(turn_deg)
    across = np.cos(turn) * (x - 80) + np.sin(turn) * (y - 80)
    clean = design(np.abs(across) > 9.0)
    place = middle(clean, Spot(70.0, 85.0), SPACE)
    assert place is not None
    assert place.half == pytest.approx(9.0, abs=0.7)  # px
    assert abs(np.cos(turn) * (place.x - 80) + np.sin(turn) * (place.y - 80)) < 0.7
    assert abs(place.across[0] * np.cos(turn) + place.across[1] * np.sin(turn)) > 0.999
    assert between(clean, Spot(70.0, 85.0)) is not None


def test_a_pit_is_dark_in_the_middle_and_bright_at_the_rim() -> None:
    film = replace(pattern("plain", 2), height=30.0, film=1.0, ground=1.0)
    centres, rims = [], []
    for seed in range(8):
        changed, placed = put(film, "pit", seed)
        if placed.area_px < 40 or placed.height_m > -4.0 * PIXEL_M:
            continue
        height_m = surface_m(changed)
        seen = render(height_m, Emission(), pixel_size_m=PIXEL_M, sky=sky_view(height_m, pixel_size_m=PIXEL_M))
        x0, y0, x1, y1 = placed.box_px
        centres.append(float(seen[(y0 + y1) // 2, (x0 + x1) // 2]))
        rims.append(float(seen[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2].max()))
    assert len(centres) >= 3
    assert max(centres) < 0.95  # flat film is 1
    assert min(rims) > 1.03


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_same_seed_draws_the_same_defect_and_its_mask_fills_its_box(kind: str, name: str) -> None:
    clean = pattern(kind, 3)
    one, two = (inject(clean, name, MIDDLE, rng=np.random.default_rng(7)) for _ in range(2))
    assert surface_m(one[0]).tobytes() == surface_m(two[0]).tobytes()
    assert one[1] == two[1]
    if one[1] is None:
        assert name in ("missing_contact", "closed_contact", "merged_contact", "break", "collapse")
        return
    x0, y0, x1, y1 = one[1].box_px
    mask = one[1].mask
    assert mask.shape == (y1 - y0, x1 - x0)
    assert mask.sum() == one[1].area_px
    assert all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    assert one[1].pitch_share == pytest.approx(np.sqrt(mask.sum()) / clean.pitch)


def test_every_class_is_drawn_on_something() -> None:
    assert {name for _, name in EVERY} == set(DRAW)
