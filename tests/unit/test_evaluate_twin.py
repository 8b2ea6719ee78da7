"""The twin against simulated scenes: pictures with known errors give these errors, by every figure that is told."""

import math
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.evaluate import twin_split
from calibration.evaluate.scenes import Recording, Scene, SceneError, Unread
from calibration.evaluate.twin import Comparison, judged, row
from calibration.evaluate.twin_edges import peak, profile, walls_of
from calibration.evaluate.twin_error import error_of, fitted
from calibration.evaluate.twin_floors import Pictures, floors, rank_correlation
from calibration.evaluate.twin_render import rendered, through_probe
from calibration.evaluate.twin_spectrum import spectrum
from calibration.evaluate.twin_split import split
from calibration.evaluate.twin_summary import summary
from calibration.twin.emission import SILICON_1KEV

NM = 1e-9
PIXEL_M = 3e-9
SIDE = 96
FANO = 1.63
Field = NDArray[np.float32]


def scene(*, sigma_m: tuple[float, float] = (1e-9, 1e-9), angle_deg: float = 0.0, name: str = "one") -> Scene:
    return Scene(name, "lines", PIXEL_M, sigma_m, angle_deg)


def lines(*, wide_px: int = 12, pitch_px: int = 24, height_m: float = 45 * NM) -> Field:
    across = ((np.arange(SIDE) + 6) % pitch_px) < wide_px  # the border lies in the middle of a line
    return np.tile(np.where(across, height_m, 0.0).astype(np.float32), (SIDE, 1))


def noisy(counts: NDArray[np.floating], *, fano: float = FANO, seed: int = 1) -> Field:
    """Counts whose variance is so many times their mean."""
    rng = np.random.default_rng(seed)
    drawn = counts + rng.normal(size=counts.shape) * np.sqrt(fano * counts)
    return np.asarray(np.maximum(drawn, 0.0), np.float32)


def edges_at(shift_px: float, *, height: float = 12.0) -> Field:
    """Light of edges, a Gaussian of sigma 1.5 px, so far above each wall of `lines`; 8 counts below, 10 above."""
    x = (np.arange(SIDE) + 6) % 24 + 0.5
    d = np.where(x < 12, np.minimum(x, 12 - x), -np.minimum(x - 12, 24 - x))
    shown = np.where(d > 0, 10.0, 8.0) + height * np.exp(-0.5 * ((d - shift_px) / 1.5) ** 2)
    return np.tile(shown.astype(np.float32), (SIDE, 1))


def against(truth: Field, render: Field, fano: float = 0.0, height_m: Field | None = None) -> Comparison:
    return judged(Recording(scene(), lines() if height_m is None else height_m, truth), render, fano)


# --- the error ---


def test_a_twin_that_is_the_truth_but_for_noise_has_no_error() -> None:
    exact = edges_at(1.0)
    found = error_of(exact, noisy(exact), FANO)
    assert found.low <= 0.02
    assert found.nrmse <= 0.03
    assert found.noise_floor == pytest.approx(math.sqrt(FANO * exact.mean() / 25.0) / found.range_counts, rel=0.02)


def test_a_pattern_added_by_the_twin_is_the_error_to_the_digit() -> None:
    # Blocks of 16 px up and down by 1: after the box each row and column of blocks keeps this share of its power.
    exact = edges_at(1.0, height=0.0) + np.arange(SIDE, dtype=np.float32)[:, None] / 4
    block = np.where(np.arange(SIDE) // 16 % 2, 1.0, -1.0)
    kept = (12 * 1.0 + 4 * (0.2**2 + 0.6**2) / 2) / 16  # 4 of 16 px lie within 2 px of a step: 0.2 or 0.6 of it stays
    inner = 1.0 - kept
    ends = 2 * 2 / SIDE * (1.0 - (0.2**2 + 0.6**2) / 2)  # the mirror at the border has no step
    share = 1.0 - inner + ends
    render = exact + np.tile(block.astype(np.float32), (SIDE, 1))
    found = error_of(np.asarray(render, np.float32), np.asarray(exact, np.float32), fano=0.0)
    assert found.nrmse * found.range_counts == pytest.approx(math.sqrt(share), rel=1e-5)


def test_noise_that_is_taken_off_is_the_fano_factor_times_the_mean_over_25() -> None:
    exact = edges_at(1.0)
    shifted = np.asarray(exact + 1.0, np.float32)  # mean((T-M)^2) = 1, exactly
    span = error_of(shifted, exact, 0.0).range_counts
    for fano in (0.0, 0.5, 1.0):
        expected = math.sqrt(1.0 - fano * float(exact.mean(dtype=np.float64)) / 25.0) / span
        assert error_of(shifted, exact, fano).nrmse == pytest.approx(expected, rel=1e-5)
    assert error_of(shifted, exact, 5.0).nrmse == 0.0  # less than chance: nothing is left


def test_one_sigma_of_the_error_is_what_repeated_simulations_scatter_by() -> None:
    exact = edges_at(1.0)
    wrong = np.asarray(exact + 1.5 * np.sin(np.arange(SIDE) / 5.0)[:, None], np.float32)
    found = [error_of(wrong, noisy(exact, seed=seed), FANO) for seed in range(60)]
    scatter = float(np.std([each.nrmse for each in found]))
    told = float(np.mean([0.5 * (each.high - each.low) for each in found]))
    assert 0.6 * told <= scatter <= 1.3 * told


def test_gain_and_offset_are_those_that_were_put_on() -> None:
    exact = edges_at(1.0)
    fit = fitted(exact, np.asarray(3.0 * exact - 7.0, np.float32))
    assert fit.gain == pytest.approx(3.0, rel=1e-5)
    assert fit.offset == pytest.approx(-7.0, abs=1e-3)


def test_contrast_that_needs_an_offset_is_told_apart() -> None:
    exact = edges_at(1.0)
    proportional, pale = against(np.asarray(3.0 * exact, np.float32), exact), against(exact, 1.0 + 0.01 * exact)
    assert proportional.gain_only.nrmse < 1e-5
    assert pale.error.nrmse < 1e-4
    assert pale.gain_only.nrmse > 0.2


def test_a_render_without_contrast_gets_the_mean_and_no_gain() -> None:
    exact = edges_at(1.0)
    fit = fitted(np.ones_like(exact), exact)
    assert fit.gain == 0.0
    assert fit.offset == pytest.approx(float(exact.mean(dtype=np.float64)))


def test_the_height_baseline_is_exact_where_counts_are_heights() -> None:
    counts = np.asarray(5.0 + lines() / NM, np.float32)
    found = against(counts, counts)
    mean = np.full_like(counts, counts.mean(dtype=np.float64))
    assert found.baselines.height < 1e-4
    assert found.baselines.constant == pytest.approx(error_of(mean, counts, 0.0).nrmse, rel=1e-5)
    assert found.baselines.constant > 0.4  # two levels, half of the ground each


# --- what no gain and no offset may hide ---


def test_a_render_that_is_the_pictures_negative_is_no_score() -> None:
    exact = edges_at(1.0)
    with pytest.raises(SceneError, match=r"gain -2.*the render is the picture's negative"):
        against(exact, 20.0 - 0.5 * exact)  # its square error after the fit is none


def test_a_render_that_shows_nothing_of_the_scene_is_no_score() -> None:
    truth = noisy(np.full((SIDE, SIDE), 12.0))
    other = np.random.default_rng(8).normal(10.0, 1.0, (SIDE, SIDE)).astype(np.float32)
    with pytest.raises(SceneError, match="no likeness beyond chance"):
        against(truth, other, FANO)


def test_a_flat_render_is_no_score_even_where_rounding_tells_its_pixels_apart() -> None:
    exact = edges_at(1.0)
    for render in (np.ones_like(exact), np.where(exact > exact.mean(), 1.0, np.nextafter(np.float32(1), 2))):
        with pytest.raises(SceneError, match="one level everywhere"):
            against(exact, np.asarray(render, np.float32))


def test_level_heights_and_a_render_that_is_not_finite_are_no_score() -> None:
    exact = edges_at(1.0)
    with pytest.raises(SceneError, match="heights: every pixel is 0 m"):
        against(exact, exact, height_m=np.zeros_like(exact))
    broken = exact.copy()
    broken[3, 4] = np.nan
    with pytest.raises(SceneError, match="not finite"):
        against(exact, broken)


def test_a_faint_but_true_likeness_is_a_score() -> None:
    exact = np.asarray(15.0 + 0.1 * edges_at(1.0), np.float32)  # a tenth of the contrast, four sigma a pixel of noise
    assert against(noisy(exact), exact, FANO).fit.gain == pytest.approx(1.0, abs=0.3)


# --- what the fit has seen ---


def test_shipped_constants_have_seen_every_second_scene_of_their_own_list_and_of_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = [scene(name="a"), scene(name="b"), replace(scene(name="a2"), repeat_of="a"), scene(name="c")]
    assert [each.fitted for each in scenes_of(split(listed))] == [None] * 4
    monkeypatch.setattr(twin_split, "SHIPPED", sha256(b"a\nb\nc").hexdigest()[:16])
    assert [each.fitted for each in scenes_of(split(listed))] == [True, False, True, True]


def test_a_profile_has_seen_the_frames_it_names_and_an_index_may_say_it_itself() -> None:
    listed = [scene(name="a"), replace(scene(name="b"), fitted=True), replace(scene(name="b2"), repeat_of="b")]
    assert [each.fitted for each in scenes_of(split(listed, ["a"]))] == [True, False, False]
    assert [each.fitted for each in scenes_of(split(listed, ["b"]))] == [False, True, True]
    assert [each.fitted for each in scenes_of(split(listed, ["elsewhere"]))] == [None, True, None]


def test_the_summary_tells_medians_of_fitted_and_never_seen_scenes_apart() -> None:
    exact, wave = edges_at(1.0), np.sin(np.arange(SIDE) / 5.0)[:, None]
    rows = [
        replace(row(against(np.asarray(exact + size * wave, np.float32), exact)), fitted=seen)
        for size, seen in ((0.5, True), (1.0, True), (2.0, False), (3.0, None))
    ]
    totals = summary(rows)
    assert totals is not None and totals.fitted is not None and totals.unfitted is not None
    assert (totals.fitted.n, totals.unfitted.n, totals.nrmse.n) == (2, 1, 4)
    assert totals.fitted.median == pytest.approx((rows[0].nrmse + rows[1].nrmse) / 2)
    assert totals.unfitted.median == pytest.approx(rows[2].nrmse)
    alone = summary(rows[3:])
    assert alone is not None and alone.fitted is None and alone.unfitted is None


def scenes_of(listed: list[Scene | Unread]) -> list[Scene]:
    return [each for each in listed if isinstance(each, Scene)]


# --- edges ---


@pytest.mark.parametrize("shift_px", [-2.0, 0.5, 2.0])
def test_an_edge_that_shines_elsewhere_is_told_by_its_shift(shift_px: float) -> None:
    found = against(edges_at(1.0), edges_at(1.0 + shift_px)).edges
    assert found is not None
    assert found.position_error_px == pytest.approx(shift_px, abs=0.15)
    assert found.twin.position_px == pytest.approx(1.0 + shift_px, abs=0.15)


def test_walls_moved_by_two_pixels_move_the_light_by_two_pixels() -> None:
    moved = lines(wide_px=16)  # each wall of the lines stands 2 px further out ...
    moved = np.asarray(np.roll(moved, -2, axis=1), np.float32)
    truth = Recording(scene(), moved, np.ones_like(moved))
    true_picture = rendered(truth, SILICON_1KEV)
    ours = rendered(Recording(scene(), lines(), true_picture), SILICON_1KEV)
    found = against(true_picture, ours).edges  # ... than in the heights that the twin was given
    assert found is not None
    assert found.position_error_px == pytest.approx(2.0, abs=0.2)


def test_height_and_width_of_an_edge_are_those_drawn() -> None:
    truth = edges_at(1.0)
    walls = walls_of(np.asarray(lines() / PIXEL_M, np.float32))
    assert walls is not None
    found, low = peak(profile(truth, walls)), peak(profile(edges_at(1.0, height=6.0), walls))
    assert found is not None and low is not None
    assert found.height == pytest.approx(12.0, rel=0.06)  # its tail lies on the plateau
    # At half height, 16 counts, 6 of 12 are left above the wall's plateau of 10, and 8 of 12 above the floor of 8.
    expected_px = 1.5 * (math.sqrt(2.0 * math.log(12 / 6)) + math.sqrt(2.0 * math.log(12 / 8)))
    assert found.width_px == pytest.approx(expected_px, abs=0.1)
    assert low.height / found.height == pytest.approx(0.5, abs=0.03)
    assert found.plateau == pytest.approx(10.0, abs=0.5)
    assert found.floor == pytest.approx(8.0, abs=0.1)


def test_the_doubt_of_an_edges_place_is_what_chance_moves_it_by() -> None:
    exact = edges_at(1.0, height=4.0)
    walls = walls_of(np.asarray(lines() / PIXEL_M, np.float32))
    assert walls is not None
    peaks = [peak(profile(noisy(exact, seed=seed), walls), FANO) for seed in range(40)]
    places = [each.position_px for each in peaks if each is not None]
    told = float(np.mean([each.position_sigma_px for each in peaks if each is not None]))
    assert len(places) == 40
    assert 0.5 * told <= float(np.std(places)) <= 2.0 * told


def test_ground_without_walls_has_no_edges_and_no_floors() -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    hills = np.asarray(20 * NM * np.sin(x / 9.0) * np.sin(y / 9.0), np.float32)
    counts = np.asarray(10.0 + hills / NM / 10.0, np.float32)
    found = against(counts, counts, height_m=hills)
    assert found.edges is None and found.profiles is None and found.floors == ()
    assert row(found).edge_peak is None


# --- floors ---


def pits(depths_m: list[float]) -> tuple[Field, NDArray[np.bool_]]:
    """Square pits of 16 px in rows; and where they are."""
    heights = np.zeros((SIDE, SIDE), np.float32)
    for i, depth in enumerate(depths_m):
        y, x = 6 + 30 * (i // 3), 6 + 30 * (i % 3)
        heights[y : y + 16, x : x + 16] = -depth
    return heights, np.asarray(heights < 0.0)


def test_floors_are_told_by_depth_with_the_error_that_was_drawn() -> None:
    depths = [10 * NM, 20 * NM, 30 * NM, 40 * NM, 50 * NM]
    heights, inside = pits(depths)
    truth = np.asarray(12.0 + 0.1 * heights / NM, np.float32)
    ours = np.where(inside, 1.05 * truth, truth).astype(np.float32)
    ours[~inside] += np.float32((truth - ours).sum() / (~inside).sum())  # gain and offset would be moved otherwise
    recording = Recording(scene(), heights, truth)
    height_px = np.asarray(heights / PIXEL_M, np.float32)
    walls = walls_of(height_px)
    assert walls is not None
    found = floors(Pictures(ours, recording.counts, height_px), walls, pixel_size_m=PIXEL_M, fano=FANO)
    assert [floor.depth_m for floor in found] == pytest.approx(depths, rel=1e-3)
    assert [floor.area_px for floor in found] == [12 * 12] * 5  # of 16 a side, 2 px from every wall
    assert [floor.relative_error for floor in found] == pytest.approx([0.05] * 5, abs=1e-4)
    assert found[0].width_m == pytest.approx(16 * PIXEL_M, abs=2 * PIXEL_M)
    assert found[0].sigma == pytest.approx(math.sqrt(FANO / (11.0 * 144)), rel=1e-3)


def test_a_terrace_and_a_plateau_are_no_floors() -> None:
    mesa = np.zeros((SIDE, SIDE), np.float32)
    mesa[20:76, 20:76] = 30 * NM
    mesa[36:60, 36:60] = 60 * NM
    counts = np.asarray(10.0 + mesa / NM / 10.0, np.float32)
    found = against(counts, counts, height_m=mesa).floors
    assert [round(floor.depth_m / NM) for floor in found] == [30]  # the ground around, and nothing above it


def test_deeper_is_darker_is_a_rank_correlation_of_minus_one() -> None:
    heights, _ = pits([10 * NM, 20 * NM, 30 * NM, 40 * NM, 50 * NM])
    counts = np.asarray(12.0 + 0.1 * heights / NM, np.float32)
    totals = summary([row(against(counts, counts, height_m=heights))])
    assert totals is not None and totals.floors is not None
    (order,) = totals.floors.order
    assert order.twin == pytest.approx(-1.0)
    assert order.monte_carlo == pytest.approx(-1.0)
    assert totals.floors.share_within_target == 1.0


def test_ranks_share_their_ties() -> None:
    assert rank_correlation([1, 1, 2, 2], [3, 3, 9, 9]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)  # Spearman: 1 - 6 * 2 / 60


# --- spectrum ---


def test_twice_the_contrast_is_six_decibels() -> None:
    rng = np.random.default_rng(3)
    texture = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    once, twice = np.asarray(100.0 + texture, np.float32), np.asarray(100.0 + 2.0 * texture, np.float32)
    found = spectrum(twice, once, fano=0.0)
    assert found.db == pytest.approx(20.0 * math.log10(2.0), abs=1e-3)


def test_white_noise_stands_at_its_variance_and_is_taken_off() -> None:
    flat = np.full((SIDE, SIDE), 20.0, np.float32)
    found = spectrum(flat, noisy(flat), FANO)
    assert found.noise == pytest.approx(FANO * 20.0, rel=0.02)
    assert abs(float(found.monte_carlo[5:].mean())) < 0.03 * found.noise
    assert found.db is None  # nothing of it is signal


# --- the probe ---


def test_a_probe_has_the_axes_and_the_direction_of_the_scene() -> None:
    spot = np.zeros((65, 65), np.float32)
    spot[32, 32] = 1.0
    seen = through_probe(spot, scene(sigma_m=(12e-9, 4e-9), angle_deg=30.0)).astype(np.float64)
    y, x = np.mgrid[-32:33, -32:33]
    xx, yy, xy = ((seen * a * b).sum() for a, b in ((x, x), (y, y), (x, y)))
    assert seen.sum() == pytest.approx(1.0, abs=1e-5)
    assert math.degrees(0.5 * math.atan2(2 * xy, xx - yy)) == pytest.approx(30.0, abs=0.5)  # towards +y, which is down
    major, minor = np.sqrt(np.linalg.eigvalsh([[xx, xy], [xy, yy]])[::-1])
    assert major * PIXEL_M == pytest.approx(12e-9, rel=0.02)
    assert minor * PIXEL_M == pytest.approx(4e-9, rel=0.02)


def test_a_round_probe_and_a_nearly_round_one_agree() -> None:
    exact = edges_at(1.0)
    round_one = through_probe(exact, scene(sigma_m=(6e-9, 6e-9)))
    nearly = through_probe(exact, scene(sigma_m=(6.02e-9, 5.98e-9)))
    assert float(np.abs(round_one - nearly).max()) < 0.02
