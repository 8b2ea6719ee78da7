"""Defects put into a layout: where they are, how high, and that nothing else changes; how far they stand out."""

from dataclasses import replace

import numpy as np
import pytest

from calibration.train.develop import draw_look
from calibration.twin import sketch
from calibration.twin.contrast import VISIBLE, Contrast, contrast, to_noise, visible, window
from calibration.twin.defects import APART_PX, KINDS, ROUTED, Placed, inject, scatter, seen, tells_m
from calibration.twin.emission import Emission
from calibration.twin.flaws import DRAW, Spot
from calibration.twin.inspection import PATTERNS, inspected_frame
from calibration.twin.nuisances import roughened
from calibration.twin.patterns import plain
from calibration.twin.sketch import Sketch, surface_m
from calibration.twin.surface import Surface
from engines.defects import CLASSES

PIXEL_M = 3e-9
DRAWN = {"lines": sketch.lines, "contacts": sketch.contacts, "plain": plain}
MIDDLE = Spot(80.0, 80.0)


def layout(kind: str, seed: int = 3) -> Sketch:
    sized = {} if kind == "plain" else {"pitch_px": (24.0, 48.0)}
    return DRAWN[kind]((160, 160), pixel_size_m=PIXEL_M, rng=np.random.default_rng(seed), **sized)


def put(kind: str, name: str, seed: int = 3) -> tuple[Sketch, Sketch, Placed]:
    """A clean layout, the same with one defect, and its truth."""
    clean = layout(kind, seed)
    changed, placed = inject(clean, name, MIDDLE, rng=np.random.default_rng(seed))
    assert placed is not None
    return clean, changed, placed


EVERY = [(kind, name) for kind in DRAWN for name in KINDS[kind]]


def test_every_class_of_the_design_is_drawn_and_no_other() -> None:
    assert set(DRAW) == set(CLASSES)
    assert {name for shares in (*KINDS.values(), ROUTED) for name in shares} == set(CLASSES)
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in (*KINDS.values(), ROUTED))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_box_holds_all_that_differs_and_touches_it_on_each_side(kind: str, name: str) -> None:
    clean, changed, placed = put(kind, name)
    step = np.abs(surface_m(changed) - surface_m(clean))
    stain = np.abs(seen(changed).relative_yield - seen(clean).relative_yield)
    if placed.tail_px is not None:  # of its charge, which is told apart
        stain[:, placed.box_px[2] :] = 0.0
    differs = (step > tells_m(clean)) | (stain > 0.03)
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
    around = window(placed, height_m, clean_m, pixel_size_m=PIXEL_M)
    field, bare = (Surface(each, None, PIXEL_M, "lines") for each in (height_m, clean_m))
    return placed, contrast(around, look, field=field, clean=bare)


def test_contrast_to_noise_is_the_difference_of_the_means_over_one_pixels_sigma() -> None:
    reference, mask = np.full((6, 6), 10.0, np.float32), np.zeros((6, 6), np.bool_)
    mask[1:4, 2:5] = True
    shown = reference + 3.0 * mask
    assert to_noise(shown, reference, np.full((6, 6), 4.0, np.float32), mask) == pytest.approx(1.5)
    both = shown.copy()
    both[1:4, 2:5] = 10.0 + np.array([[3, -3, 0]] * 3, np.float32)  # bright and dark parts have no mean difference
    assert to_noise(both, reference, np.full((6, 6), 4.0, np.float32), mask) == pytest.approx(0.0, abs=1e-6)
    dark = reference - 2.0 * mask
    uneven = np.where(np.arange(6)[None, :] % 2 == 0, 1.0, 7.0).astype(np.float32)
    pixels = np.broadcast_to(uneven, (6, 6))
    assert to_noise(dark, reference, pixels, mask) == pytest.approx(2.0 / np.sqrt(pixels[mask].mean()))


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


@pytest.mark.parametrize("pattern", ["line-space", "contact-holes", "logic"])
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
        assert defect.mask is not None
        assert defect.mask.shape == (y1 - y0, x1 - x0)
        assert defect.mask.sum() == defect.area_px >= 6
        assert defect.visible
        assert defect.matched >= VISIBLE
        assert defect.pitch_share > 0.0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_can_be_inspected_and_the_same_seed_gives_the_same_bytes(pattern: str) -> None:
    one, two = (inspected_frame(pattern, (128, 128), seed=9, defects=1) for _ in range(2))
    assert one.pixels.tobytes() == two.pixels.tobytes()
    assert one.height_m.tobytes() == two.height_m.tobytes()
    assert (one.defects, one.nuisances) == (two.defects, two.nuisances)
    assert len(one.defects) <= 1


def test_a_field_without_defects_is_clean_and_another_seed_is_another_field() -> None:
    one, two = (inspected_frame("line-space", (128, 128), seed=seed, defects=0) for seed in (1, 2))
    assert one.defects == ()
    assert not np.array_equal(one.pixels, two.pixels)
