"""The twin's probe against the formulas of PHYSICS, section 1."""

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.optics import disc_transfer, displacement, floor_transfer, probe_transfer, wavelength_m
from calibration.twin.probe import blur, needs_waves

PX = 10e-9
ALPHA = 5e-3
H = PX / (2 * ALPHA)


def white(seed: int, side: int = 512) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((side, side)).astype(np.float32)


def measured_transfer(before: NDArray[np.float32], after: NDArray[np.float32], block: int = 16) -> NDArray[np.float64]:
    """Cross spectrum over power spectrum of the windowed pictures, averaged over blocks of the half plane."""
    side = before.shape[0]
    window = np.outer(np.hanning(side), np.hanning(side))
    b, a = np.fft.fft2(before * window), np.fft.fft2(after * window)
    return blocks((a * b.conj()).real, block) / blocks(np.abs(b) ** 2, block)


def blocks(values: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    n = values.shape[0] // block
    return values.reshape(n, block, n, block).mean(axis=(1, 3))


@pytest.mark.parametrize(("z_h", "ax_h", "ay_h"), [(3.0, 0.0, 0.0), (-5.0, 2.0, 1.0), (0.0, 0.0, 3.0)])
def test_the_measured_transfer_of_a_random_field_is_the_formulas(z_h: float, ax_h: float, ay_h: float) -> None:
    before = white(1)
    optics = {"z_m": z_h * H, "ax_m": ax_h * H, "ay_m": ay_h * H}
    after = blur(before, pixel_size_m=PX, alpha_rad=ALPHA, fw50_m=8e-9, **optics)
    k = 2 * np.pi * np.fft.fftfreq(512, PX)
    kx, ky = k[None, :] + 0 * k[:, None], k[:, None] + 0 * k[None, :]
    q = ALPHA * np.hypot(*displacement(kx, ky, optics["z_m"], optics["ax_m"], optics["ay_m"]))
    expected = disc_transfer(q) * floor_transfer(np.hypot(kx, ky), 8e-9)
    assert np.abs(measured_transfer(before, after) - blocks(expected, 16)).max() < 0.02


def test_a_point_becomes_an_ellipse_with_semi_axes_alpha_times_z_plus_and_minus_a() -> None:
    point = np.zeros((257, 257), np.float32)
    point[128, 128] = 1.0
    z, a = 40 * H, 10 * H
    spot = blur(point, pixel_size_m=PX, z_m=z, ax_m=a, alpha_rad=ALPHA).astype(np.float64)
    x = np.arange(257) - 128.0
    sigma_x, sigma_y = np.sqrt((spot.sum(0) * x**2).sum()), np.sqrt((spot.sum(1) * x**2).sum())
    # A uniform ellipse has a standard deviation of half its semi-axis.
    assert sigma_x == pytest.approx(ALPHA * (z + a) / PX / 2, rel=0.01)
    assert sigma_y == pytest.approx(ALPHA * (z - a) / PX / 2, rel=0.01)
    assert spot.sum() == pytest.approx(1.0, abs=1e-3)


def streak_angle_deg(spot: NDArray[np.float32]) -> float:
    y, x = np.mgrid[: spot.shape[0], : spot.shape[1]] - spot.shape[0] // 2
    xx, yy, xy = (spot * x * x).sum(), (spot * y * y).sum(), (spot * x * y).sum()
    return float(np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)))


def test_line_foci_lie_at_plus_and_minus_a_and_turn_by_90_degrees() -> None:
    point = np.zeros((129, 129), np.float32)
    point[64, 64] = 1.0
    ax, ay = 8 * H, 6 * H
    a = float(np.hypot(ax, ay))
    over, under = (blur(point, pixel_size_m=PX, z_m=z, ax_m=ax, ay_m=ay, alpha_rad=ALPHA) for z in (a, -a))
    turn = (streak_angle_deg(over) - streak_angle_deg(under)) % 180
    assert turn == pytest.approx(90.0, abs=1.0)
    assert streak_angle_deg(over) == pytest.approx(np.degrees(0.5 * np.arctan2(ay, ax)), abs=1.0)


def test_one_frame_cannot_tell_z_and_a_from_their_negatives() -> None:
    picture = white(2, 128)
    one = blur(picture, pixel_size_m=PX, z_m=5 * H, ax_m=H, ay_m=-2 * H, alpha_rad=ALPHA)
    other = blur(picture, pixel_size_m=PX, z_m=-5 * H, ax_m=-H, ay_m=2 * H, alpha_rad=ALPHA)
    assert np.array_equal(one, other)


def test_below_two_diffraction_lengths_the_wave_transfer_holds_what_the_disc_loses() -> None:
    px, energy = 2.5e-9, 1000.0
    assert needs_waves(px, ALPHA, energy) and not needs_waves(100e-9, ALPHA, energy)
    z = 4 * px / (2 * ALPHA)
    k = 2 * np.pi * np.array([0.2, 0.3]) / px
    wave, in_focus = (
        probe_transfer(k, 0 * k, z_m=defocus, alpha_rad=ALPHA, wavelength_m=wavelength_m(energy))
        for defocus in (z, 0.0)
    )
    assert wave / in_focus == pytest.approx([0.68, 0.59], abs=0.01)  # PHYSICS, section 1
    before = white(3)
    after = blur(before, pixel_size_m=px, z_m=z, alpha_rad=ALPHA, wavelength_m=wavelength_m(energy))
    cycles = (np.arange(16) + 8 * 16) / 512  # of that block: where the transfer is read
    expected = np.interp(cycles.mean(), [0.2, 0.3], wave)
    assert measured_transfer(before, after)[0, 8] == pytest.approx(expected, abs=0.03)


def test_nothing_wraps_round_from_the_opposite_edge() -> None:
    picture = np.zeros((128, 128), np.float32)
    picture[:, :2] = 1.0
    blurred = blur(picture, pixel_size_m=PX, z_m=30 * H, alpha_rad=ALPHA, fw50_m=20e-9)
    assert np.abs(blurred[:, -40:]).max() < 1e-3
