"""The twin's signal from shape: exact sky views, and what light and shadow do to edges."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.twin.emission import Emission, EmissionError, range_m, render, sides, sky_view
from calibration.twin.relief import RELIEFS

PIXEL_M = 1e-9
Field = NDArray[np.float32]


def plateau(inside: NDArray[np.bool_], height_px: float) -> Field:
    return np.where(inside, height_px * PIXEL_M, 0.0).astype(np.float32)


def grid(side: int) -> tuple[Field, Field]:
    y, x = np.mgrid[:side, :side].astype(np.float32) - side // 2
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


@pytest.mark.parametrize(("radius", "depth"), [(20, 10), (20, 20), (20, 40), (12, 36)])
def test_sky_view_in_the_middle_of_a_hole_is_exact(radius: int, depth: int) -> None:
    x, y = grid(161)
    hole = plateau(np.hypot(x, y) >= radius, depth)
    seen = sky_view(hole, pixel_size_m=PIXEL_M)
    assert seen[80, 80] == pytest.approx(radius**2 / (radius**2 + depth**2), rel=0.06)


@pytest.mark.parametrize("depth", [10, 30])
@pytest.mark.parametrize("x_px", [8.0, 20.0, 33.0])
def test_sky_view_across_an_endless_trench_is_exact(depth: int, x_px: float) -> None:
    width = 40
    x, _ = grid(241)
    trench = plateau((x < 0) | (x >= width), depth)
    seen = sky_view(trench, pixel_size_m=PIXEL_M, azimuths=64)
    left, right = x_px + 0.5, width - x_px - 0.5  # the walls stand between two pixels
    expected = (np.sin(np.arctan2(left, depth)) + np.sin(np.arctan2(right, depth))) / 2
    assert seen[120, 120 + int(x_px)] == pytest.approx(expected, rel=0.06)


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


# Next to the edge four rings are a coarse sum: the wall itself is a ramp of one pixel there.
@pytest.mark.parametrize(("away_px", "within"), [(1, 0.12), (3, 0.05), (6, 0.05), (12, 0.05)])
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
    assert open_side[16, 16] == pytest.approx(1.0, abs=0.01)


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
