"""Defects put into a layout: where they are, how high, and that nothing else changes; how far they stand out."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.train.develop import draw_look
from calibration.twin import sketch
from calibration.twin.contrast import VISIBLE, Contrast, Surface, contrast, visible, window
from calibration.twin.defects import APART_PX, KINDS, Placed, inject, plain, roughened, scatter, tells_m
from calibration.twin.emission import Emission
from calibration.twin.flaws import DRAW, Spot
from calibration.twin.inspection import inspected_frame
from calibration.twin.sketch import Sketch, surface_m
from engines.defects import CLASSES

PIXEL_M = 3e-9
DRAWN = {"lines": sketch.lines, "contacts": sketch.contacts, "plain": plain}
MIDDLE = Spot(80.0, 80.0)


def layout(kind: str, seed: int = 3) -> Sketch:
    return DRAWN[kind]((160, 160), pixel_size_m=PIXEL_M, rng=np.random.default_rng(seed))


def put(kind: str, name: str, seed: int = 3) -> tuple[Sketch, Sketch, Placed]:
    """A clean layout, the same with one defect, and its truth."""
    clean = layout(kind, seed)
    changed, placed = inject(clean, name, MIDDLE, rng=np.random.default_rng(seed))
    assert placed is not None
    return clean, changed, placed


EVERY = [(kind, name) for kind, shares in KINDS.items() for name in shares]


def test_every_class_of_the_design_is_drawn_and_no_other() -> None:
    assert set(DRAW) == set(CLASSES)
    assert {name for shares in KINDS.values() for name in shares} == set(CLASSES)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_box_holds_all_that_differs_and_touches_it_on_each_side(kind: str, name: str) -> None:
    clean, changed, placed = put(kind, name)
    step = np.abs(surface_m(changed) - surface_m(clean))
    before = np.ones(clean.shape) if clean.material is None else clean.material
    after = np.ones(clean.shape) if changed.material is None else changed.material
    differs = (step > tells_m(clean)) | (np.abs(after - before) > 0.03)
    x0, y0, x1, y1 = placed.box_px
    outside = differs.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    within = differs[y0:y1, x0:x1]
    assert within[0].any()
    assert within[-1].any()
    assert within[:, 0].any()
    assert within[:, -1].any()
    assert placed.area_px == within.sum()


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_height_is_the_largest_change_with_its_sign(kind: str, name: str) -> None:
    clean, changed, placed = put(kind, name)
    step = surface_m(changed) - surface_m(clean)
    if placed.height_m == 0.0:
        assert np.abs(step).max() <= tells_m(clean)
    else:
        assert abs(placed.height_m) == pytest.approx(float(np.abs(step).max()), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_a_bridge_fills_the_space_to_the_height_of_the_lines(seed: int) -> None:
    clean, _, placed = put("lines", "bridge", seed)
    line_m = clean.height * PIXEL_M
    assert 0.75 * line_m < placed.height_m <= 1.02 * line_m
    x0, y0, x1, y1 = placed.box_px
    assert max(x1 - x0, y1 - y0) >= 0.8 * (clean.pitch - clean.width)


def test_a_microbridge_is_lower_and_thinner_than_a_bridge() -> None:
    pairs = [(put("lines", "microbridge", seed)[2], put("lines", "bridge", seed)[2]) for seed in range(8)]
    assert all(thread.height_m < body.height_m for thread, body in pairs)
    assert np.mean([thread.area_px for thread, _ in pairs]) < 0.6 * np.mean([body.area_px for _, body in pairs])


@pytest.mark.parametrize("seed", range(4))
def test_a_break_goes_through_the_line_and_a_missing_contact_is_level_with_the_film(seed: int) -> None:
    clean, _, gap = put("lines", "break", seed)
    assert -1.02 * clean.height * PIXEL_M <= gap.height_m < -0.5 * clean.height * PIXEL_M
    film, filled, hole = put("contacts", "missing_contact", seed)
    x0, y0, x1, y1 = hole.box_px
    assert surface_m(filled)[y0:y1, x0:x1].min() > 0.97 * film.height * PIXEL_M
    assert hole.height_m == pytest.approx(film.height * PIXEL_M, rel=0.05)


def test_a_merged_contact_joins_two_holes_at_a_depth_of_half_the_film_or_more() -> None:
    clean, _, placed = put("contacts", "merged_contact")
    assert placed.height_m < -0.45 * clean.height * PIXEL_M
    x0, y0, x1, y1 = placed.box_px
    assert max(x1 - x0, y1 - y0) < 1.5 * clean.pitch


def test_a_void_has_no_height_and_a_particle_stands_out() -> None:
    assert put("lines", "void")[2].height_m == 0.0
    assert put("plain", "particle")[2].height_m > 1e-9


def test_a_class_that_has_no_place_in_a_layout_is_not_drawn() -> None:
    film = layout("plain")
    changed, placed = inject(film, "missing_contact", MIDDLE, rng=np.random.default_rng(0))
    assert placed is None
    assert changed is film


def test_defects_of_one_field_keep_apart_and_the_same_seed_gives_the_same() -> None:
    clean = layout("lines")
    _, one = scatter(clean, 6, rng=np.random.default_rng(1))
    _, two = scatter(clean, 6, rng=np.random.default_rng(1))
    assert one == two
    assert len(one) >= 4
    for i, a in enumerate(one):
        for b in one[i + 1 :]:
            apart_x = max(a.box_px[0], b.box_px[0]) - min(a.box_px[2], b.box_px[2])
            apart_y = max(a.box_px[1], b.box_px[1]) - min(a.box_px[3], b.box_px[3])
            assert max(apart_x, apart_y) >= APART_PX


def test_necking_within_the_lines_own_roughness_is_drowned_and_invisible() -> None:
    clean, _, placed = put("lines", "necking", 1)
    assert not placed.drowned
    rng = np.random.default_rng(0)
    wavy = sketch.edges(400, 400, sigma_px=0.3 * clean.width, xi_px=3.0, hurst=0.7, rng=rng)
    line = np.floor(clean.across / clean.pitch).astype(int)
    rough = replace(clean, inside=clean.inside + wavy[line % 400, np.abs(clean.along.astype(int)) % 400])
    _, lost = inject(rough, "necking", MIDDLE, rng=np.random.default_rng(1))
    assert lost is not None
    assert lost.drowned
    assert not visible(lost, Contrast(to_noise=9.0, matched=99.0))


def _contrast(electrons: float) -> tuple[Placed, Contrast]:
    clean, changed, placed = put("lines", "bridge")
    height_m, clean_m = surface_m(changed), surface_m(clean)
    look = replace(
        draw_look(np.random.default_rng(5), pixel_size_m=PIXEL_M),
        emission=Emission(),
        electrons_per_pixel=electrons,
        probe_px=(0.5, 0.5),
    )
    seen = window(placed, height_m, clean_m, pixel_size_m=PIXEL_M)
    return placed, contrast(seen, look, field=Surface(height_m, None), clean=Surface(clean_m, None))


def test_contrast_grows_with_the_root_of_the_dose_and_decides_what_can_be_seen() -> None:
    placed, dim = _contrast(10.0)
    _, bright = _contrast(1000.0)
    assert bright.matched == pytest.approx(10.0 * dim.matched, rel=1e-4)
    assert bright.to_noise == pytest.approx(10.0 * dim.to_noise, rel=1e-4)
    assert visible(placed, bright)
    _, none = _contrast(10.0 * (0.9 * VISIBLE / dim.matched) ** 2)
    assert not visible(placed, none)


def test_what_no_defect_is_moves_no_box() -> None:
    rough = roughened(layout("lines"), np.random.default_rng(2))
    changed, placed = inject(rough, "break", MIDDLE, rng=np.random.default_rng(2))
    assert placed is not None
    x0, y0, x1, y1 = placed.box_px
    assert (x1 - x0) * (y1 - y0) < 0.2 * changed.inside.size


@pytest.mark.parametrize("pattern", ["line-space", "contact-holes"])
def test_an_inspected_frame_shows_as_many_defects_as_were_asked_for(pattern: str) -> None:
    frame = inspected_frame(pattern, (256, 320), seed=4, defects=3)
    again = inspected_frame(pattern, (256, 320), seed=4, defects=3)
    assert np.array_equal(frame.pixels, again.pixels)
    assert frame.defects == again.defects
    assert len(frame.defects) == 3
    assert frame.pixels.shape == frame.height_m.shape == (256, 320)
    for defect in frame.defects:
        x0, y0, x1, y1 = defect.box_px
        assert 0 <= x0 < x1 <= 320
        assert 0 <= y0 < y1 <= 256
        assert defect.contrast_to_noise > 0.0


def test_a_field_without_defects_is_clean_and_another_seed_is_another_field() -> None:
    one, two = (inspected_frame("line-space", (128, 128), seed=seed, defects=0) for seed in (1, 2))
    assert one.defects == ()
    assert not np.array_equal(one.pixels, two.pixels)
