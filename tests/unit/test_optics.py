"""The probe's transfer function against closed forms and direct integration."""

import numpy as np
import pytest
from scipy.integrate import dblquad
from scipy.special import j1

from calibration.optics import (
    bessel_j1,
    disc_transfer,
    disc_transfer_of_square,
    floor_transfer,
    half_depth_of_focus_m,
    probe_fw50_m,
    probe_transfer,
    wave_transfer,
    wavelength_m,
)


def test_wavelengths_are_those_of_the_textbook() -> None:
    energies = np.array([1e3, 5e3, 10e3, 30e3])
    picometres = np.array([wavelength_m(e) for e in energies]) * 1e12
    np.testing.assert_allclose(picometres, [38.8, 17.3, 12.2, 7.0], atol=0.06)


def test_the_in_focus_probe_is_that_of_barth_and_kruit() -> None:
    nanometres = [probe_fw50_m(5e-3, e) * 1e9 for e in (1e3, 5e3, 30e3)]
    np.testing.assert_allclose(nanometres, [5.3, 2.5, 1.5], atol=0.06)


def test_half_depth_of_focus_is_a_pixel_over_twice_the_angle() -> None:
    assert half_depth_of_focus_m(25e-9, 5e-3) == pytest.approx(2.5e-6)
    assert half_depth_of_focus_m(3e-9, 5e-3, 4e-9) == pytest.approx(0.5e-6)


def test_the_disc_is_the_bessel_function() -> None:
    q = np.linspace(0.01, 150, 20_000)
    np.testing.assert_allclose(disc_transfer(q), 2 * j1(q) / q, atol=2e-5)
    np.testing.assert_allclose(bessel_j1(q), j1(q), atol=1e-3)
    small = q[q < 55].astype(np.float32)
    np.testing.assert_allclose(disc_transfer_of_square(small**2), 2 * j1(small) / small, atol=3e-4)
    ends = disc_transfer_of_square(np.array([-1e-9, 0.0, 1e9], np.float32))
    np.testing.assert_allclose(ends, [1.0, 1.0, 0.0], atol=4e-3)


@pytest.mark.parametrize(
    ("along", "across", "apart"), [(0.0, 0.0, 0.4), (3.0, 0.0, 0.6), (2.0, 5.0, 1.1), (8.0, 1.0, 0.2)]
)
def test_the_wave_transfer_is_the_integral_over_the_overlap(along: float, across: float, apart: float) -> None:
    def edge(x: float) -> float:
        return float(np.sqrt(max(1 - (abs(x) + apart / 2) ** 2, 0.0)))

    half = 1 - apart / 2
    direct = dblquad(lambda y, x: np.cos(along * x + across * y), -half, half, lambda x: -edge(x), edge)[0] / np.pi
    told = wave_transfer(np.array([along]), np.array([across]), np.array([apart]))[0]
    assert told == pytest.approx(direct, abs=4e-3)


def test_without_diffraction_to_speak_of_the_wave_becomes_the_disc() -> None:
    k = np.linspace(1e6, 2e8, 50)
    wave = probe_transfer(k, 0 * k, z_m=2e-6, alpha_rad=5e-3, wavelength_m=1e-15)
    np.testing.assert_allclose(wave, probe_transfer(k, 0 * k, z_m=2e-6, alpha_rad=5e-3), atol=0.02)


def test_where_pixels_are_fine_the_disc_damps_far_too_much() -> None:
    """1 keV, 5 mrad, 2.5 nm pixels, at 4 h: .68 and .59 of the in-focus transfer; the disc says .39, .01."""
    k = 2 * np.pi * np.array([0.2, 0.3]) / 2.5e-9
    wave = wavelength_m(1e3)
    z_m = 4 * half_depth_of_focus_m(2.5e-9, 5e-3)
    out = probe_transfer(k, 0 * k, z_m=z_m, alpha_rad=5e-3, wavelength_m=wave)
    focused = probe_transfer(k, 0 * k, z_m=0.0, alpha_rad=5e-3, wavelength_m=wave)
    np.testing.assert_allclose(out / focused, [0.68, 0.59], atol=0.01)
    np.testing.assert_allclose(probe_transfer(k, 0 * k, z_m=z_m, alpha_rad=5e-3), [0.39, 0.01], atol=0.01)


def test_one_frame_cannot_tell_the_sign() -> None:
    rng = np.random.default_rng(0)
    kx, ky = rng.normal(0, 1e8, (2, 100))
    for wave in (None, 20e-12):
        one = probe_transfer(kx, ky, z_m=3e-6, ax_m=1e-6, ay_m=-2e-6, alpha_rad=5e-3, wavelength_m=wave)
        other = probe_transfer(kx, ky, z_m=-3e-6, ax_m=-1e-6, ay_m=2e-6, alpha_rad=5e-3, wavelength_m=wave)
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_the_probe_is_a_line_at_the_line_foci() -> None:
    k = np.array([1.5e8])
    sharp_x = probe_transfer(k, 0 * k, z_m=-2e-6, ax_m=2e-6, alpha_rad=5e-3)
    blurred_y = probe_transfer(0 * k, k, z_m=-2e-6, ax_m=2e-6, alpha_rad=5e-3)
    assert sharp_x[0] == pytest.approx(1.0)
    assert abs(blurred_y[0]) < 0.6


def test_the_floor_is_a_gaussian_of_the_given_width() -> None:
    sigma_m = 4e-9 / 2.355
    assert floor_transfer(np.array([1 / sigma_m]), 4e-9)[0] == pytest.approx(np.exp(-0.5))
