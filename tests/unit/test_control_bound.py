"""The bound on focus: the published floor for one spectrum, what it may not depend on, and the estimator beside it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control.bound import Bound, bound, expected_sigma_m, least_sigmas, told
from agent.control.estimate import estimate, solved
from agent.control.instrument import Instrument
from agent.control.likelihood import Hypothesis
from agent.messages import Evidence
from calibration.optics import disc_transfer
from tests.simulator import ALPHA_RAD, H_M, MARGIN, PX_M, frame, scene
from tests.unit.test_control_estimate import KNOWN, error_h, evidence

SIDE = 128  # of the half-plane that stands for the 512 of a field: each sample for 16
Real = NDArray[np.float64]


def plane() -> tuple[Real, Real, Real]:
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij")
    return fx, fy, np.hypot(fx, fy)


def floor(snr: float, z_h: float, probe_h: float) -> Bound:
    """Two frames at +-probe, a picture whose power falls like k^-2.5."""
    fx, fy, radius = plane()
    power = (0.02**2 + radius**2) ** -1.25 * np.exp(-((2 * np.pi * 0.4 * radius) ** 2))
    twice = np.where((fx > 0) & (fx < 0.5), 2.0, 1.0)
    power /= (power * twice)[radius > 0].sum() / SIDE**2
    used = (radius > 2 / 256) & (radius < 116 / 256)
    kx, ky = 2 * np.pi * fx[used] / PX_M, 2 * np.pi * fy[used] / PX_M

    def transfers(at: Hypothesis) -> Real:
        places = [at.z_m + side * probe_h * H_M for side in (1.0, -1.0)]
        across = [np.hypot((z + at.ax_m) * kx + at.ay_m * ky, at.ay_m * kx + (z - at.ax_m) * ky) for z in places]
        return np.stack([disc_transfer(ALPHA_RAD * each) for each in across])

    at = Hypothesis(z_h * H_M)
    signal = snr**2 * power[used] * (transfers(at) ** 2).sum(axis=0)
    return least_sigmas(told(signal, np.full(signal.size, (512 / SIDE) ** 2)), transfers, at, h=H_M)


@pytest.mark.parametrize(
    ("snr", "z_h", "probe_h", "published_h"),
    [
        (0.23, 4, 4, 0.47), (0.23, 12, 8, 0.72), (0.23, 30, 16, 1.2),
        (0.64, 4, 4, 0.077), (0.64, 12, 8, 0.13), (0.64, 30, 16, 0.32),
        (1.27, 4, 4, 0.026), (1.27, 30, 16, 0.15),
    ],
)  # fmt: skip
def test_it_is_the_information_floor_of_a_falling_spectrum_to_a_third(
    snr: float, z_h: float, probe_h: float, published_h: float
) -> None:
    # Of a spectrum that is not told: it moves the floor by up to two.
    assert floor(snr, z_h, probe_h).sigma_z_m / H_M == pytest.approx(published_h, rel=0.34)


def test_twice_the_signal_to_noise_halves_it_or_better() -> None:
    assert floor(1.2, 4.0, 4.0).sigma_z_m < 0.5 * floor(0.6, 4.0, 4.0).sigma_z_m


def noisy(realisation: int) -> list[Evidence]:
    rng, objects = np.random.default_rng(realisation), scene("cloud", 512 + 2 * MARGIN, 1)
    shown = [frame(objects, z_m=z * H_M, shift_px=(0.4 * z, 0.2), snr=1.8, rng=rng) for z in (8.0, -4.0)]
    return [evidence(pixels, (-12.0 * i) * H_M, i) for i, pixels in enumerate(shown)]


def test_the_estimator_scatters_by_no_more_than_half_above_it_and_its_sigma_is_no_smaller() -> None:
    cases = [noisy(realisation) for realisation in range(8)]
    least = bound(cases[0], KNOWN, defocus_m=-4.0 * H_M)
    found = [estimate(case, KNOWN) for case in cases]
    errors = np.array([error_h(each, -4.0) for each in found])
    # Eight draws: a true ratio of 1 stays below 1.5 in all but 2 of 100 sets.
    assert 0.4 < np.sqrt(np.mean(errors**2)) * H_M / least.sigma_z_m < 1.5
    assert min(each.sigma_m or 0.0 for each in found) > least.sigma_z_m


def test_noise_alone_does_not_look_like_information() -> None:
    first, second = (bound(noisy(r), KNOWN, defocus_m=-4.0 * H_M).sigma_z_m for r in (0, 1))
    assert first == pytest.approx(second, rel=0.1)


def test_an_angle_that_is_less_well_known_makes_it_larger() -> None:
    frames = noisy(0)
    loose = Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.1 * ALPHA_RAD)
    known, doubtful = (bound(frames, each, defocus_m=-4.0 * H_M).sigma_z_m for each in (KNOWN, loose))
    assert doubtful > known


def test_without_an_angle_there_is_none() -> None:
    with pytest.raises(ValueError, match="convergence angle"):
        bound(noisy(0), Instrument(), defocus_m=0.0)


def test_one_frame_more_tells_more_from_beyond_focus_than_from_beside_the_last_one() -> None:
    """And what is expected of a frame is about what the bound says once it was taken."""
    rng, objects = np.random.default_rng(3), scene("cloud", 512 + 2 * MARGIN, 1)
    at_h = (12.0, 8.0, -4.0)
    shown = [frame(objects, z_m=z * H_M, shift_px=(0.4 * z, 0.2), snr=1.8, rng=rng) for z in at_h]
    frames = [evidence(pixels, (z - 12.0) * H_M, i) for i, (z, pixels) in enumerate(zip(at_h, shown, strict=True))]
    known = solved(frames[:2], KNOWN)[1]
    assert known is not None
    expected = {
        way: expected_sigma_m(known.scene, Hypothesis(8.0 * H_M), way_m=way * H_M, h=H_M) for way in (-12.0, -1.0, 4.0)
    }
    alone = bound(frames[:2], KNOWN, defocus_m=8.0 * H_M).sigma_z_m
    assert expected[-12.0] < expected[-1.0] < 1.05 * alone
    assert expected[-12.0] < expected[4.0]
    taken = bound(frames, KNOWN, defocus_m=-4.0 * H_M).sigma_z_m
    assert expected[-12.0] == pytest.approx(taken, rel=0.3)
    doubtful = expected_sigma_m(known.scene, Hypothesis(8.0 * H_M), way_m=-12.0 * H_M, h=H_M, sigma_m=2.0 * H_M)
    assert doubtful != expected[-12.0]
