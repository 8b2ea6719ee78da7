"""The twin's signal from shape: exact sky views, and what light and shadow do to edges."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.twin.emission import Emission, EmissionError, at_voltage, range_m, render, sides, sky_view
from calibration.twin.relief import RELIEFS

PIXEL_M = 1e-9
Field = NDArray[np.float32]


def plateau(inside: NDArray[np.bool_], height_px: float) -> Field:
    return np.where(inside, height_px * PIXEL_M, 0.0).astype(np.float32)


def grid(side: int) -> tuple[Field, Field]:
    y, x = np.mgrid[:side, :side].astype(np.float32) - side // 2
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


# Shares of the whole sky, with the azimuths that ship. The worst here: 0.016 of a hole, 0.003 of one 40 px in radius,
# 0.036 and 0.025 of a trench 20 and 40 px wide. Walls of narrow ones are met a step late; a deep trench is open along
# its length alone, which few azimuths see: at an aspect of 4 it is 15 % too dark of what is left of its sky.
HOLE, HOLE_40, TRENCH = 0.018, 0.004, {20: 0.037, 40: 0.026}


@pytest.mark.parametrize("radius", [12, 20, 40])
@pytest.mark.parametrize("aspect", [0.25, 0.5, 1.0, 2.0, 4.0])  # depth to radius
def test_sky_view_in_the_middle_of_a_hole_is_exact(radius: int, aspect: float) -> None:
    depth, side = radius * aspect, 4 * radius + 1
    x, y = grid(side)
    hole = plateau(np.hypot(x, y) >= radius, depth)
    seen = float(sky_view(hole, pixel_size_m=PIXEL_M)[side // 2, side // 2])
    assert seen == pytest.approx(radius**2 / (radius**2 + depth**2), abs=HOLE)
    if radius == 40:  # round to a fortieth: what is left is the view itself
        assert seen == pytest.approx(radius**2 / (radius**2 + depth**2), abs=HOLE_40)


@pytest.mark.parametrize("width", [20, 40])
@pytest.mark.parametrize("aspect", [0.25, 0.5, 1.0, 2.0, 4.0])  # depth to width
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])  # of the width
def test_sky_view_across_an_endless_trench_is_exact(width: int, aspect: float, share: float) -> None:
    depth, x_px = width * aspect, int(width * share)
    x, _ = grid(241)
    trench = plateau((x < 0) | (x >= width), depth)
    seen = sky_view(trench, pixel_size_m=PIXEL_M)
    left, right = x_px + 0.5, width - x_px - 0.5  # the walls stand between two pixels
    expected = (np.sin(np.arctan2(left, depth)) + np.sin(np.arctan2(right, depth))) / 2
    assert seen[120, 120 + x_px] == pytest.approx(expected, abs=TRENCH[width])


def test_a_plain_sees_the_whole_sky_and_so_does_the_top_of_a_mesa() -> None:
    x, y = grid(96)
    assert sky_view(np.zeros((64, 64), np.float32), pixel_size_m=PIXEL_M).min() == 1.0
    mesa = plateau((np.abs(x) < 20) & (np.abs(y) < 20), 30)
    assert sky_view(mesa, pixel_size_m=PIXEL_M)[48, 48] == 1.0


def test_a_flat_field_yields_one_everywhere() -> None:
    flat = np.zeros((48, 48), np.float32)
    signal = render(flat, Emission(), pixel_size_m=PIXEL_M, sky=sky_view(flat, pixel_size_m=PIXEL_M))
    np.testing.assert_allclose(signal, 1.0, atol=1e-5)


def test_a_step_is_bright_above_and_dark_below() -> None:
    x, _ = grid(121)
    step = plateau(x >= 0, 20)
    signal = render(step, Emission(), pixel_size_m=PIXEL_M, sky=sky_view(step, pixel_size_m=PIXEL_M))[60]
    far_below, far_above = signal[5], signal[115]
    assert signal[61:64].max() > 1.2 * far_above
    assert signal[52:57].mean() < 0.93 * far_below
    assert signal[56] < signal[40] < signal[25]  # the shadow fades with distance


def test_a_slope_is_brighter_as_its_cosine_says() -> None:
    x, _ = grid(101)
    slope = (x * PIXEL_M).astype(np.float32)  # 45 degrees
    bare = Emission(exponent=1.0, steepest=10.0, side=0.0, swallow=0.0)
    signal = render(slope, bare, pixel_size_m=PIXEL_M, sky=np.ones_like(slope))
    assert signal[50, 50] == pytest.approx(np.sqrt(2.0), rel=1e-4)
    steeper = render(slope, replace(bare, exponent=2.0), pixel_size_m=PIXEL_M, sky=np.ones_like(slope))
    assert steeper[50, 50] == pytest.approx(2.0, rel=1e-4)


def test_a_detector_on_the_right_sees_what_leans_to_the_right() -> None:
    x, y = grid(81)
    ball = (np.sqrt(np.maximum(20.0**2 - x**2 - y**2, 0.0)) * PIXEL_M).astype(np.float32)
    sky = np.ones_like(ball)
    signal = render(ball, Emission(asymmetry=0.3), pixel_size_m=PIXEL_M, sky=sky)
    assert signal[40, 52] > 1.1 * signal[40, 28]


@pytest.mark.parametrize(("voltage_v", "range_um"), [(500, 0.010), (1000, 0.032), (5000, 0.47), (30000, 9.3)])
def test_the_range_of_electrons_in_silicon_is_kanaya_okayamas(voltage_v: float, range_um: float) -> None:
    assert range_m(voltage_v) * 1e6 == pytest.approx(range_um, rel=0.06)


@pytest.mark.parametrize("kind", RELIEFS)
def test_every_relief_is_repeatable_finite_and_has_height(kind: str) -> None:
    one, two, other = (
        RELIEFS[kind]((96, 128), pixel_size_m=3e-9, rng=np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert one.shape == (96, 128)
    assert one.dtype == np.float32
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.isfinite(one).all()
    assert 3e-9 < np.ptp(one) < 100 * 3e-9  # a pixel at least, and no tower


# 64 whole steps stand for the law: each is 1.6 % of it.
@pytest.mark.parametrize(("away_px", "within"), [(1, 0.03), (3, 0.03), (6, 0.03), (12, 0.03)])
def test_the_side_of_a_deep_cliff_is_as_open_as_the_escape_law_says(away_px: int, within: float) -> None:
    """Share of exp-distributed ways, in all directions, that end beyond the edge: an integral over the angle."""
    x, _ = grid(161)
    cliff = np.where(x >= 0, 4000.0 * PIXEL_M, 0.0).astype(np.float32)
    how = Emission(side_length_m=5.0 * PIXEL_M, side_height_m=1.0 * PIXEL_M)
    open_side, walled = sides(cliff, how, pixel_size_m=PIXEL_M)
    angle = (np.arange(4000) + 0.5) * np.pi / 8000  # a quarter of a turn; half of the ways go the other way
    expected = 0.5 * np.exp(-(away_px - 0.5) / 5.0 / np.cos(angle)).mean()
    assert open_side[80, 80 + away_px - 1] == pytest.approx(expected, abs=within)
    assert walled[80, 80 - away_px] == pytest.approx(expected, abs=within)


def test_a_plain_has_no_sides_and_a_needle_nothing_else() -> None:
    flat = np.zeros((32, 32), np.float32)
    assert max(float(each.max()) for each in sides(flat, Emission(), pixel_size_m=PIXEL_M)) == 0.0
    needle = flat.copy()
    needle[16, 16] = 1e-3
    open_side, _ = sides(needle, Emission(side_length_m=30 * PIXEL_M), pixel_size_m=PIXEL_M)
    assert open_side[16, 16] == pytest.approx(1.0, abs=2.1 / 64)  # the nearest step and its opposite stay on it


def test_silicon_that_sends_back_more_is_brighter_by_the_indirect_share() -> None:
    flat = np.zeros((96, 96), np.float32)
    half = np.where(np.arange(96)[None, :] < 48, 1.0, 2.0).astype(np.float32) * np.ones((96, 1), np.float32)
    how = Emission(indirect=0.3, range_m=6e-9)
    signal = render(flat, how, pixel_size_m=PIXEL_M, sky=np.ones_like(flat), backscatter=half)
    assert signal[48, 10] == pytest.approx(1.0, rel=1e-3)
    assert signal[48, 86] == pytest.approx(1.3, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"), [("side_length_m", 0.0), ("exponent", -1.0), ("floor", 1.5), ("shadow", float("nan"))]
)
def test_a_constant_that_no_material_has_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(EmissionError, match=name):
        replace(Emission(), **{name: value})


@pytest.mark.parametrize("pixel_nm", [0.5, 0.8, 1.5, 2.5, 3.0, 5.0, 8.0, 12.0, 25.0, 60.0, 200.0])
def test_a_wall_is_as_bright_in_all_whatever_the_pixels_size(pixel_nm: float) -> None:
    """The light beside a high wall, summed over its width in nanometres; by the escape law length / pi."""
    pixel_m = pixel_nm * 1e-9
    cliff = np.zeros((8, 600), np.float32)
    cliff[:, 300:] = 4e-6
    how = Emission()
    open_side, walled = sides(cliff, how, pixel_size_m=pixel_m)
    expected = how.side_length_m / np.pi
    assert float(open_side[4].sum()) * pixel_m == pytest.approx(expected, rel=0.09)
    assert float(walled[4].sum()) * pixel_m == pytest.approx(expected, rel=0.09)


def test_the_light_beside_an_edge_falls_off_smoothly_where_pixels_are_fine() -> None:
    cliff = np.zeros((96, 300), np.float32)
    cliff[:, 150:] = 400e-9
    row = sides(cliff, Emission(), pixel_size_m=0.5e-9)[0][48, 150:230]
    assert row[0] > 0.35
    assert (np.diff(row) <= 1e-6).all()
    assert float(-np.diff(row)[1:].min()) < 0.05  # no terrace is seen; the law itself is steepest at the edge


def test_edges_grow_wider_with_the_voltage_and_never_narrower_than_at_1_kv() -> None:
    bare = Emission()
    low, same, high, coarse = (
        at_voltage(bare, v, pixel_size_m=px) for v, px in ((500, 3e-9), (1000, 3e-9), (2000, 3e-9), (2000, 50e-9))
    )
    assert low.side_length_m == same.side_length_m == bare.side_length_m
    assert high.side_length_m == pytest.approx(bare.side_length_m * min(2**1.67, 18e-9 / 8.2e-9), rel=1e-6)
    assert coarse.side_length_m == pytest.approx(bare.side_length_m * 2**1.67, rel=1e-6)
    assert high.swallow_height_m / high.side_length_m == pytest.approx(bare.swallow_height_m / bare.side_length_m)


@pytest.mark.parametrize("voltage_v", [0.0, -5.0, float("nan"), float("inf")])
def test_a_voltage_that_is_none_is_refused(voltage_v: float) -> None:
    with pytest.raises(EmissionError, match="no accelerating voltage"):
        at_voltage(Emission(), voltage_v, pixel_size_m=3e-9)


def test_for_a_fit_the_light_beside_an_edge_changes_evenly_with_the_sides_length() -> None:
    cliff = np.zeros((64, 128), np.float32)
    cliff[:, 64:] = 200e-9

    def light(length_px: float) -> np.ndarray:
        how = Emission(side_length_m=length_px * PIXEL_M)
        return np.asarray(sides(cliff, how, pixel_size_m=PIXEL_M, smooth=True)[0][32, 64:80])

    lengths = np.linspace(4.0, 4.6, 61)
    step = np.diff([light(length) for length in lengths], axis=0)
    assert np.abs(step).max() < 4.0 * np.abs(step.mean(axis=0)).max()  # no step stands for many
    assert (
        np.abs(
            light(4.3) - sides(cliff, Emission(side_length_m=4.3 * PIXEL_M), pixel_size_m=PIXEL_M)[0][32, 64:80]
        ).max()
        < 0.03
    )
