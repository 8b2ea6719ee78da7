"""Dose, amplifier, shift, scale: known answers."""

import numpy as np
import pytest

from calibration.twin import scan

RNG = np.random.default_rng


@pytest.mark.parametrize("electrons", [3.0, 12.0, 100.0])
@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_variance_over_mean_is_the_stated_factor(electrons: float, factor: float) -> None:
    flat = np.ones((400, 400), np.float32)
    counts = scan.expose(flat, electrons_per_pixel=electrons, rng=RNG(1), variance_factor=factor)
    assert counts.mean() == pytest.approx(electrons, rel=0.01)
    assert counts.var() / counts.mean() == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("electrons", [2.0, 60.0])
def test_averaging_k_frames_divides_the_variance_by_k(electrons: float) -> None:
    flat = np.ones((400, 400), np.float32)
    counts = scan.expose(flat, electrons_per_pixel=electrons, rng=RNG(2), averages=4)
    assert counts.mean() == pytest.approx(electrons, rel=0.01)
    assert counts.var() == pytest.approx(electrons * scan.VARIANCE_FACTOR / 4, rel=0.03)


@pytest.mark.parametrize("snr", [0.64, 1.8])
def test_the_dose_gives_the_signal_to_noise_ratio_that_was_asked_for(snr: float) -> None:
    signal = (0.4 + 0.1 * RNG(3).standard_normal((512, 512))).clip(0, 1).astype(np.float32)
    dose = scan.electrons_for_snr(signal, snr)
    noise = scan.expose(signal, electrons_per_pixel=dose, rng=RNG(4)) - dose * signal
    assert dose * signal.std() / noise.std() == pytest.approx(snr, rel=0.03)


def test_a_flat_field_gets_a_finite_dose() -> None:
    assert 0 < scan.electrons_for_snr(np.full((64, 64), 0.4, np.float32), 1.8) < 1e4


def test_gain_and_offset_act_before_the_clip() -> None:
    counts = np.array([[0.0, 50.0, 100.0, 1000.0]], np.float32)
    eight = scan.digitise(counts, gain=0.005, offset=0.1, bits=8)
    assert eight.dtype == np.uint8
    assert eight.tolist() == [[26, 89, 153, 255]]
    sixteen = scan.digitise(counts, gain=0.005, offset=-0.3, bits=16)
    assert sixteen.dtype == np.uint16
    assert sixteen[0, 0] == 0 and sixteen[0, 3] == 65535


def test_a_fractional_shift_moves_a_wave_by_exactly_that_and_blurs_nothing() -> None:
    x = np.arange(64)
    wave = np.tile(np.cos(2 * np.pi * 12 * x / 64), (64, 1))
    moved = np.fft.irfft2(np.fft.rfft2(wave) * scan.ramp((64, 64), 0.37, 2.5), s=(64, 64))
    assert moved[10] == pytest.approx(np.cos(2 * np.pi * 12 * (x - 0.37) / 64), abs=1e-5)


def test_scale_moves_the_edge_by_the_stated_pixels() -> None:
    """16 um at 5 mm: 1.6 px at the edge of 1024 (PHYSICS, section 1)."""
    x = np.arange(1024, dtype=np.float32)
    ridge = np.exp(-((x - 1000.0) ** 2) / 18.0)
    grown = scan.scale(np.tile(ridge, (1024, 1)).astype(np.float32), 1.0 + 16e-6 / 5e-3)[512]
    centroid = float((grown * x).sum() / grown.sum())
    assert centroid - 1000.0 == pytest.approx(3.2e-3 * (1000.0 - 511.5), abs=0.05)


def test_line_jitter_has_the_size_that_was_asked_for_and_moves_rows() -> None:
    shifts = scan.jitter(20000, sigma_px=0.5, rng=RNG(5))
    assert shifts.std() == pytest.approx(0.5, rel=0.05)
    picture = RNG(6).standard_normal((3, 256)).astype(np.float32)
    moved = scan.displace_rows(picture, np.array([0.0, 3.0, 0.0], np.float32))
    assert moved[1, 40:200] == pytest.approx(picture[1, 37:197], abs=1e-3)
    assert moved[0] == pytest.approx(picture[0], abs=1e-5)


def test_rows_that_are_passed_twice_are_the_mean_of_both_passes() -> None:
    picture = RNG(7).standard_normal((40, 128)).astype(np.float32)
    shifts = np.stack([scan.jitter(40, sigma_px=0.6, rng=RNG(8)), scan.jitter(40, sigma_px=0.6, rng=RNG(9))], axis=1)
    both = [scan.displace_rows(picture, one) for one in shifts.T]
    assert scan.displace_rows(picture, shifts) == pytest.approx((both[0] + both[1]) / 2, abs=1e-4)


@pytest.mark.parametrize("frequency_hz", [50.0, 60.0])
def test_hum_repeats_after_the_lines_that_one_period_of_the_mains_takes(frequency_hz: float) -> None:
    line_s = 1.0 / frequency_hz / 40.0  # forty lines a period
    times = 0.0123 + line_s * np.arange(400)
    shift = scan.hum(times, amplitude_px=0.7, frequency_hz=frequency_hz)
    assert shift[40:] == pytest.approx(shift[:-40], abs=1e-4)
    assert shift.std() == pytest.approx(0.7 / np.sqrt(2), rel=0.01)
    assert shift[0] == pytest.approx(0.7 * np.sin(2 * np.pi * frequency_hz * 0.0123), abs=1e-5)


def test_pixels_of_a_slow_line_are_moved_each_by_its_own_amount() -> None:
    x = np.arange(256, dtype=np.float32)
    wave = np.tile(np.cos(2 * np.pi * x / 16), (8, 1)).astype(np.float32)
    shift = np.tile(0.8 * np.sin(2 * np.pi * x / 128), (8, 1)).astype(np.float32)
    moved = scan.displace_pixels(wave, shift)
    assert moved[3, 20:-20] == pytest.approx(np.cos(2 * np.pi * (x - shift[3]) / 16)[20:-20], abs=0.02)


def test_drift_tears_the_frame_by_its_pixels_from_the_first_row_to_the_last() -> None:
    y, x = np.mgrid[:201, :201].astype(np.float32)
    for drift in ((6.0, 0.0), (0.0, -5.0)):
        dots = np.zeros((201, 201), np.float32)
        for row, column in ((50, 100), (150, 100)):
            dots += np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18.0)
        torn = scan.warp(dots, 1.0, drift_px=drift, rows=200)
        at = []
        for part in (slice(0, 100), slice(100, 201)):
            weight = torn[part]
            at.append(((weight * x[part]).sum() / weight.sum(), (weight * y[part]).sum() / weight.sum()))
        # A dot half a frame below is scanned half a frame later; drift down stretches by itself again: 1 / (1 - d).
        stretch = 1.0 / (1.0 - drift[1] / 200.0)
        assert at[1][0] - at[0][0] == pytest.approx(drift[0] / 2, abs=0.05)
        assert at[1][1] - at[0][1] == pytest.approx(100.0 * stretch, abs=0.05)


@pytest.mark.parametrize("lag_px", [0.3, 4.0])
def test_the_amplifier_lags_by_its_time_constant_and_only_backwards(lag_px: float) -> None:
    point = np.zeros((3, 256), np.float32)
    point[1, 100] = 1.0
    seen = scan.amplifier(point, lag_px)[1]
    assert seen[:100].max() == 0.0
    assert seen.sum() == pytest.approx(1.0, abs=1e-3)
    assert seen[101] / seen[100] == pytest.approx(np.exp(-1 / lag_px), rel=1e-3)
    assert scan.amplifier(np.full((3, 64), 7.0, np.float32), lag_px) == pytest.approx(7.0, rel=1e-5)
    noise = RNG(10).standard_normal((64, 4096)).astype(np.float32)
    keep = np.exp(-1 / lag_px)  # of a one-pole filter: variance (1 - k) / (1 + k), neighbours correlated by k
    lagged = scan.amplifier(noise, lag_px)[:, 100:]
    assert lagged.var() == pytest.approx((1 - keep) / (1 + keep), rel=0.05)
    assert (lagged[:, 1:] * lagged[:, :-1]).mean() / lagged.var() == pytest.approx(keep, abs=0.02)


def test_gamma_bends_the_level_after_the_clip_and_one_changes_nothing() -> None:
    counts = np.array([[-1.0, 0.0, 25.0, 100.0, 130.0]], np.float32)
    bent = scan.digitise(counts, gain=0.01, offset=0.0, bits=8, gamma=2.0)
    assert bent.tolist() == [[0, 0, 128, 255, 255]]  # sqrt(1/4) = 1/2
    straight = scan.digitise(counts, gain=0.01, offset=0.0, bits=8)
    assert np.array_equal(straight, scan.digitise(counts, gain=0.01, offset=0.0, bits=8, gamma=1.0))


def test_charging_drags_behind_the_edge_and_never_ahead_of_it() -> None:
    edge = np.zeros((4, 256), np.float32)
    edge[:, 100:110] = 1.0
    charged = scan.charging_tail(edge, strength=-0.5, length_px=20.0)
    ground = charged[0, 50]
    assert charged[0, 115] < ground - 0.05
    assert charged[0, 40:90] == pytest.approx(ground, abs=0.02)


def test_the_databar_covers_the_last_rows_only() -> None:
    pixels = np.full((100, 200), 77, np.uint16)
    barred = scan.databar(pixels, 20, "5.0 kV")
    assert (barred[:80] == 77).all()
    assert (barred[81:] == 0).mean() > 0.5
    assert scan.databar(pixels, 0) is pixels


def test_a_lag_far_below_a_pixel_leaves_the_present_alone() -> None:
    taps = scan.one_pole(1e-3)
    np.testing.assert_allclose(taps, [[1.0, 0.0]], atol=1e-12)
