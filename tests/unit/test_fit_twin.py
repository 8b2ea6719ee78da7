"""The twin's constants from frames: what it rendered itself is found again, and what a frame does not tell is not."""

import math
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.fit.align import aligned
from calibration.fit.doubt import doubt, inflated, pairs, undetermined
from calibration.fit.errors import FitError
from calibration.fit.geometry import Lines, Measures, known
from calibration.fit.imaging import Chain, imaged
from calibration.fit.noise import measured
from calibration.fit.priors import DENSITY, RANGES, priors, reach_m
from calibration.fit.sample import Sample, valid_of
from calibration.fit.twin import Fitted, fit
from calibration.twin import scan
from calibration.twin.emission import Emission, range_m, render, sky_view
from calibration.twin.matter import MATERIALS
from calibration.twin.profile import (
    EMISSION,
    FACTOR,
    KEEP,
    LENGTH,
    SIGMA,
    STRENGTH,
    STRETCH_X,
    STRETCH_XY,
    Charging,
    Parameter,
    Spot,
    stretch_of,
)

Field = NDArray[np.float32]

PX = 3e-9
SIDE = 96
DOSE, FANO = 200.0, 1.5
GREY_GAIN, GREY_BLACK = 0.5, 10.0  # grey levels an electron, and without any
TRUE = Emission(
    exponent=0.5,
    steepest=2.0,
    side=0.7,
    side_length_m=10e-9,
    side_height_m=5e-9,
    swallow=0.4,
    swallow_height_m=30e-9,
    shadow=0.25,
    asymmetry=0.1,
)
CHAIN = Chain(Spot(5e-9, 3.5e-9, 0.5), Charging(0.12, 30.0), keep=0.1)
MEASURES = Measures(pitch_m=80e-9, cd_m=36e-9, height_m=45e-9, side_wall_deg=86.0)
PHASE_PX, ANGLE_RAD = 3.3, 0.2


def relief(rng: np.random.Generator, side: int = SIDE) -> Field:
    """Round pillars and pits of every size."""
    z, (y, x) = np.zeros((side, side), np.float32), np.mgrid[:side, :side]
    for cy in range(12, side, 24):
        for cx in range(12, side, 24):
            inside = rng.uniform(4.0, 9.0) - np.hypot(x - cx, y - cy)
            z += np.asarray(rng.uniform(-60e-9, 70e-9) * np.clip(inside + 0.5, 0.0, 1.0), np.float32)
    return np.asarray(cv2.GaussianBlur(z, (0, 0), 0.7), np.float32)


def electrons(height_m: Field, sky: Field, rng: np.random.Generator, chain: Chain = CHAIN) -> Field:
    shown = imaged(render(height_m, TRUE, pixel_size_m=PX, sky=sky), chain, pixel_size_m=PX)
    return scan.expose(shown, electrons_per_pixel=DOSE, rng=rng, variance_factor=FANO)


def pillars(rng: np.random.Generator) -> Sample:
    z = relief(rng)
    geometry = known(z, pixel_size_m=PX, exact=True)
    levels = electrons(z, geometry.sky, rng)
    return Sample("pillars", "", levels, valid_of(levels, cut_out=False), PX, geometry, counts=True)


def line_space(rng: np.random.Generator) -> Sample:
    """Eight bits, of an array whose place the fit is not told."""
    at = Lines(MEASURES, (SIDE, SIDE), PX, ANGLE_RAD).relief(np.array([PHASE_PX, ANGLE_RAD]))
    levels = electrons(at.height_m, at.sky, rng)
    grey = scan.digitise(levels, gain=GREY_GAIN / 255.0, offset=GREY_BLACK / 255.0, bits=8)
    seen = np.asarray(grey, np.float32)
    return Sample("lines", "", seen, valid_of(grey, cut_out=False), PX, aligned(seen, MEASURES, PX))


@lru_cache(maxsize=1)
def recovered() -> Fitted:
    rng = np.random.default_rng(11)
    return fit([pillars(rng), pillars(rng), line_space(rng)])


def truth() -> dict[str, float]:
    shape = dict(zip((SIGMA, STRETCH_X, STRETCH_XY), stretch_of(CHAIN.spot), strict=True))
    rest = {STRENGTH: CHAIN.charging.strength, LENGTH: CHAIN.charging.length_px, KEEP: CHAIN.keep, FACTOR: FANO}
    return {EMISSION + name: float(value) for name, value in vars(TRUE).items()} | shape | rest


def off(each: Parameter) -> float:
    """Sigmas from the truth."""
    assert each.sigma is not None
    true = truth()[each.name]
    if each.low > 0.0 and true > 0.0 and each.name != FACTOR:
        return math.log(each.value / true) / (each.sigma / each.value)
    return (each.value - true) / each.sigma if each.value != true else 0.0


def test_constants_that_the_twin_rendered_with_are_found_again_within_their_doubt() -> None:
    z = np.array([off(each) for each in recovered().parameters if each.determined])
    assert z.size >= 15
    assert int((np.abs(z) > 2.0).sum()) <= 1  # of some 17, chance alone expects 0.8
    assert np.abs(z).max() < 3.0
    assert float(np.sqrt(np.mean(z**2))) < 1.4


def test_doubts_are_small_enough_to_be_of_use() -> None:
    known_ = {each.name: each for each in recovered().parameters}
    for name, most in (
        (SIGMA, 0.1e-9),
        (EMISSION + "side_length_m", 0.6e-9),
        (EMISSION + "shadow", 0.08),
        (KEEP, 0.05),
    ):
        sigma = known_[name].sigma
        assert sigma is not None and sigma < most, name


def test_a_share_without_effect_leaves_its_range_not_determined_and_at_its_prior() -> None:
    """The truth has no indirect electrons: how far they come from cannot be seen."""
    found = next(each for each in recovered().parameters if each.name == EMISSION + "range_m")
    assert not found.determined and found.sigma is None
    assert found.value == found.prior
    assert "kept at its prior" in found.note


def test_a_line_space_is_found_to_a_twentieth_of_a_pixel() -> None:
    frame = next(each for each in recovered().frames if each.name == "lines")
    assert frame.placed["phase_px"] == pytest.approx(PHASE_PX, abs=0.06)
    assert frame.placed["angle_rad"] == pytest.approx(ANGLE_RAD, abs=2e-3)


def test_grey_levels_tell_the_noise_only_times_the_gain() -> None:
    frame = next(each for each in recovered().frames if each.name == "lines")
    assert frame.noise_slope_sigma is not None
    assert abs(frame.noise_slope - GREY_GAIN * FANO) < 3.0 * frame.noise_slope_sigma


def test_nothing_but_noise_is_left_of_what_the_twin_rendered() -> None:
    assert max(frame.nrmse for frame in recovered().frames) < 0.03


def test_a_frame_of_a_flat_film_determines_nothing_but_its_noise() -> None:
    rng = np.random.default_rng(3)
    flat = np.zeros((48, 48), np.float32)
    levels = scan.expose(np.ones_like(flat), electrons_per_pixel=50.0, rng=rng, variance_factor=FANO)
    geometry = known(flat, pixel_size_m=PX, exact=True)
    found = fit([Sample("film", "", levels, valid_of(levels, cut_out=False), PX, geometry, counts=True)])
    assert [each.name for each in found.parameters if each.determined] == [FACTOR]
    factor = next(each for each in found.parameters if each.name == FACTOR)
    assert factor.value == pytest.approx(FANO, rel=0.12)
    assert found.frames[0].gain == 0.0
    assert found.frames[0].offset == pytest.approx(50.0, abs=1.0)


def test_heights_that_lie_beside_the_frame_are_moved_to_where_they_fit() -> None:
    rng = np.random.default_rng(5)
    z = relief(rng, 64)
    sky = sky_view(z, pixel_size_m=PX)
    shown = render(z, Emission(), pixel_size_m=PX, sky=sky)
    point = Chain(Spot(2e-9, 2e-9, 0.0), Charging(0.0, 40.0))
    moved = imaged(shown, point, pixel_size_m=PX, shift_px=(1.3, -0.7))
    levels = scan.expose(moved, electrons_per_pixel=DOSE, rng=rng)
    geometry = known(z, pixel_size_m=PX, exact=False)
    found = fit([Sample("beside", "", levels, valid_of(levels, cut_out=True), PX, geometry, counts=True)])
    placed = found.frames[0].placed
    assert placed["shift_y_px"] == pytest.approx(-0.7, abs=0.1)
    assert placed["shift_x_px"] == pytest.approx(1.3, abs=0.3)  # an amplifier's lag and charging move it too


def test_a_defect_that_the_heights_do_not_have_hardly_moves_the_noise() -> None:
    rng = np.random.default_rng(11)
    signal = np.full((96, 96), 20.0, np.float32) + 15.0 * np.sin(np.arange(96, dtype=np.float32) / 5.0)
    levels = scan.expose(signal, electrons_per_pixel=1.0, rng=rng, variance_factor=FANO)
    levels[40:46, 40:52] += 60.0
    noise = measured(levels, signal, np.ones(levels.shape, np.bool_), counts=True)
    assert noise.slope == pytest.approx(FANO, rel=0.06)
    assert abs(noise.slope - FANO) < 3.0 * noise.slope_sigma


def test_of_two_constants_with_one_effect_one_is_kept_and_one_stays_at_its_prior() -> None:
    slope = np.random.default_rng(1).standard_normal((400, 3)) * 30.0
    slope[:, 1] = slope[:, 0] * (1.0 + 1e-6)
    information = slope.T @ slope
    assert len(undetermined(information, 3, inflation=1.0)) == 1
    assert 2 not in undetermined(information, 3, inflation=1.0)


def test_constants_that_are_told_only_together_are_named_with_their_correlation() -> None:
    true = np.array([[1.0, -0.98, 0.0], [-0.98, 1.0, 0.0], [0.0, 0.0, 1.0]])
    [(first, second, correlation)] = pairs(doubt(np.linalg.inv(true)), 3)
    assert (first, second) == (0, 1)
    assert correlation == pytest.approx(-0.98, abs=1e-6)


def test_misfit_that_neighbours_share_inflates_the_doubt_and_white_noise_does_not() -> None:
    rng = np.random.default_rng(2)
    white = rng.standard_normal((160, 160))
    assert inflated(white) == pytest.approx(1.0, abs=0.1)
    assert inflated(white + 0.4) == pytest.approx(1.0 + 25 * 0.16, abs=0.5)


def test_every_constant_of_the_emission_has_a_range_around_its_own_value() -> None:
    known_ = {each.name: each for each in priors(PX)}
    for name in vars(Emission()):
        each = known_[EMISSION + name]
        assert each.low <= each.value <= each.high, name
    assert set(RANGES) < set(vars(Emission()))


def test_at_higher_voltages_edges_may_shine_further() -> None:
    near, far = ({p.name: p for p in priors(PX, voltage)} for voltage in (1000.0, 10_000.0))
    name = EMISSION + "side_length_m"
    assert far[name].high == pytest.approx(near[name].high * 10.0**1.67, rel=1e-6)


def test_electrons_go_as_far_as_voltage_and_material_let_them() -> None:
    assert reach_m(1000.0, "Si") == pytest.approx(range_m(1000.0), rel=1e-3) == reach_m()
    assert reach_m(2000.0) == pytest.approx(reach_m(1000.0) * 2.0**1.67)
    assert reach_m(1000.0, "W") < 0.4 * reach_m(1000.0, "Si") < 0.4 * reach_m(1000.0, "resist")
    assert set(DENSITY) == set(MATERIALS)
    assert all(0.0 < reach_m(1000.0, name) < 1e-7 for name in MATERIALS)
    low, high = ({p.name: p for p in priors(PX, voltage, "W")}[EMISSION + "range_m"] for voltage in (500.0, 5000.0))
    assert (low.value, high.value) == (reach_m(500.0, "W"), reach_m(5000.0, "W"))


def test_voltage_and_material_of_the_frames_reach_the_priors_and_the_gain() -> None:
    flat = np.zeros((48, 48), np.float32)
    geometry = known(flat, pixel_size_m=PX, exact=True)
    levels = scan.expose(np.ones_like(flat), electrons_per_pixel=DOSE, rng=np.random.default_rng(3))
    plain = Sample("film", "", levels, valid_of(levels, cut_out=False), PX, geometry, counts=True, black=0.0)
    silicon, tungsten = (fit([each]) for each in (plain, replace(plain, voltage_v=5000.0, material="W")))
    assert silicon.frames[0].gain == pytest.approx(tungsten.frames[0].gain * MATERIALS["W"].brightness, rel=1e-3)
    prior = {each.name: each.prior for each in tungsten.parameters}
    assert prior[EMISSION + "range_m"] == reach_m(5000.0, "W")


@pytest.mark.parametrize(("wrong", "told"), [({"material": "cheese"}, "cheese"), ({"voltage_v": -5.0}, "voltage -5")])
def test_a_beam_or_a_material_that_cannot_be_is_refused(wrong: dict, told: str) -> None:
    geometry = known(np.zeros((48, 48), np.float32), pixel_size_m=PX, exact=True)
    levels = np.ones((48, 48), np.float32)
    sample = Sample("film", "", levels, valid_of(levels, cut_out=False), PX, geometry, counts=True, **wrong)
    with pytest.raises(FitError, match=told):
        fit([sample])


def test_the_chain_is_the_scans_own_charging_and_amplifier() -> None:
    rng = np.random.default_rng(4)
    field = np.asarray(cv2.GaussianBlur(rng.random((64, 64), np.float32), (0, 0), 2.0), np.float32)
    point = Spot(1e-12, 1e-12, 0.0)
    lag = -1.0 / math.log(0.3)
    shown = imaged(field, Chain(point, Charging(0.2, 25.0), 0.3), pixel_size_m=PX)
    expected = scan.charging_tail(scan.amplifier(field, lag), strength=0.2, length_px=25.0)
    assert shown[:, 24:] == pytest.approx(expected[:, 24:], abs=2e-3 * float(np.ptp(field)))


def test_an_elliptic_spot_has_its_variances_along_its_own_axes() -> None:
    point = np.zeros((65, 65), np.float32)
    point[32, 32] = 1.0
    shown = imaged(point, Chain(Spot(4 * PX, 2 * PX, 0.6), Charging(0.0, 9.0)), pixel_size_m=PX)
    y, x = np.mgrid[-32:33, -32:33]
    along, across = x * np.cos(0.6) + y * np.sin(0.6), y * np.cos(0.6) - x * np.sin(0.6)
    assert float(shown.sum()) == pytest.approx(1.0, abs=1e-4)
    assert float((shown * along**2).sum()) == pytest.approx(16.0, rel=0.01)
    assert float((shown * across**2).sum()) == pytest.approx(4.0, rel=0.01)


def test_lines_have_the_width_and_height_they_were_given() -> None:
    at = Lines(MEASURES, (SIDE, SIDE), 1e-9, 0.0).relief(np.array([0.0, 0.0]))
    assert float(at.height_m.max()) == pytest.approx(45e-9, rel=0.01)
    duty = float((at.height_m[:, :80] > 22.5e-9).mean())
    assert duty == pytest.approx(36.0 / 80.0, abs=0.02)


def test_the_middle_of_a_trench_sees_as_much_sky_as_the_formula_says() -> None:
    upright = Measures(pitch_m=200e-9, cd_m=100e-9, height_m=50e-9, side_wall_deg=90.0, rounding_m=0.0)
    at = Lines(upright, (8, 400), 1e-9, 0.0).relief(np.array([100.0, 0.0]))  # a space in the middle
    assert float(at.sky[4, 199]) == pytest.approx(math.sin(math.atan(50.0 / 50.0)), abs=0.03)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"cd_m": 80e-9}, "cd_m"),
        ({"pitch_m": 0.0}, "pitch_m"),
        ({"height_m": float("nan")}, "height_m"),
        ({"side_wall_deg": 95.0}, "side_wall_deg"),
        ({"side_wall_deg": 40.0}, "walls meet"),
        ({"rounding_m": -1e-9}, "rounding_m"),
    ],
)
def test_a_line_space_that_cannot_be_is_refused(wrong: dict[str, float], told: str) -> None:
    measures = {"pitch_m": 80e-9, "cd_m": 40e-9, "height_m": 45e-9, **wrong}
    with pytest.raises(FitError, match=told):
        Measures(**measures)


def test_a_frame_without_the_assumed_period_is_refused() -> None:
    noise = np.random.default_rng(6).standard_normal((SIDE, SIDE)).astype(np.float32)
    with pytest.raises(FitError, match=r"no period of 26\.7 px"):
        aligned(noise, MEASURES, PX)


def test_a_pitch_that_does_not_fit_into_the_frame_twice_is_refused() -> None:
    with pytest.raises(FitError, match="is the pixel size right"):
        aligned(np.zeros((SIDE, SIDE), np.float32), MEASURES, 1e-9)


def test_fewer_levels_than_unknowns_are_refused() -> None:
    tiny = np.zeros((4, 4), np.float32)
    geometry = known(tiny, pixel_size_m=PX, exact=True)
    with pytest.raises(FitError, match="16 usable pixels"):
        fit([Sample("tiny", "", tiny, valid_of(tiny, cut_out=False), PX, geometry)])


def test_no_frames_at_all_are_refused() -> None:
    with pytest.raises(FitError, match="no frames"):
        fit([])


def test_clipped_levels_and_their_neighbours_do_not_count() -> None:
    grey = np.array([[0, 9, 9, 9, 254, 9, 9, 255]], np.uint8)
    assert valid_of(grey, cut_out=False).tolist() == [[False, False, False, True, True, False, False, False]]
