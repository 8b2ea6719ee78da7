"""The estimator against a simulator that is not the twin: known answers in, tolerances in h out."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control.estimate import Estimate, estimate, solved
from agent.control.hearing import object_nats
from agent.control.instrument import Instrument
from agent.control.spectra import patch_spectra
from agent.messages import Evidence
from tests.simulator import ALPHA_RAD, H_M, PX_M, series

WD_M = 5e-3
KNOWN = Instrument(alpha_rad=ALPHA_RAD)


def evidence(
    pixels: NDArray[np.uint8], offset_m: float, number: int, stigmators: tuple[float, float] = (0, 0)
) -> Evidence:
    patches = patch_spectra(pixels)
    return Evidence(
        frame=number,
        session="s",
        source="electron/SE2",
        optics_epoch=number,
        scene_epoch=0,
        t_start_ns=number,
        working_distance_m=WD_M + offset_m,
        stigmator_x=stigmators[0],
        stigmator_y=stigmators[1],
        pixel_size_m=PX_M,
        pixel_size_y_m=PX_M,
        semi_convergence_angle_rad=None,
        landing_energy_ev=None,
        frame_time_s=0.35,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=patches.noise,
        independent=patches.independent,
    )


def seen(kind: str, defocus_h: Sequence[float], *, snr: float = 1.8, seed: int = 1, **more: object) -> list[Evidence]:
    frames = series(kind, [z * H_M for z in defocus_h], snr=snr, seed=seed, **more)  # type: ignore[arg-type]
    first = defocus_h[0]
    return [evidence(pixels, (z - first) * H_M, i) for i, (pixels, z) in enumerate(zip(frames, defocus_h, strict=True))]


def error_h(found: Estimate, truth_h: float) -> float:
    assert found.defocus_m is not None, found.reason
    return found.defocus_m / H_M - truth_h


@pytest.mark.parametrize(("kind", "start_h"), [("cloud", 12.0), ("cloud", -3.0), ("blobs", -9.0), ("blobs", 0.5)])
def test_a_pair_gives_sign_and_size_to_a_third_of_h(kind: str, start_h: float) -> None:
    found = estimate(seen(kind, [start_h + 6, start_h]), KNOWN)
    assert abs(error_h(found, start_h)) < 0.33
    assert found.p_wrong_direction is not None
    assert abs(start_h) < 1 or found.p_wrong_direction < 0.02


def test_sixteen_noisy_series_up_to_28_h_are_answered_to_a_quarter_of_h_without_a_wrong_sign() -> None:
    starts = np.linspace(-28, 28, 16)
    errors = []
    for i, start in enumerate(starts):
        kind = ("cloud", "blobs")[i % 2]
        frames = seen(kind, [start, start + 8, start - 8], snr=0.64, seed=i)
        found = estimate([*frames[1:], frames[0]], KNOWN)
        if found.answered:
            errors.append(error_h(found, start))
            assert found.defocus_m is not None
            assert abs(start) < 2 or found.defocus_m * start > 0
    assert len(errors) >= 14
    assert np.median(np.abs(errors)) <= 0.25
    assert np.sum(np.abs(errors) > 1.0) <= 1


def test_sigma_is_about_the_size_of_the_error() -> None:
    ratios = []
    for seed in range(8):
        start = -14.0 + 4 * seed
        found = estimate(seen("cloud", [start + 7, start], snr=1.0, seed=seed), KNOWN)
        assert found.sigma_m is not None
        ratios.append(error_h(found, start) * H_M / found.sigma_m)
    assert np.sqrt(np.mean(np.square(ratios))) < 2.0
    assert np.max(np.abs(ratios)) < 4.0


def test_each_frame_in_turn_as_the_first_tells_the_same_focus() -> None:
    frames = seen("blobs", [5.0, 13.0, -3.0])
    places = []
    for i in range(3):
        found = estimate([*frames[i:], *frames[:i]], KNOWN)
        places.append(found.in_focus_working_distance_m)
    assert np.ptp(np.array(places)) < 0.15 * H_M


def test_astigmatism_is_told_from_defocus() -> None:
    found = estimate(seen("cloud", [12.0, 4.0, -4.0], astigmatism_m=(0.8e-6, -0.5e-6)), KNOWN)
    assert found.astigmatism_m is not None
    assert abs(found.astigmatism_m[0] - 0.8e-6) < 0.3 * H_M
    assert abs(found.astigmatism_m[1] + 0.5e-6) < 0.3 * H_M
    assert abs(error_h(found, -4.0)) < 0.3


def test_three_working_distances_give_the_angle_without_a_certificate() -> None:
    found = estimate(seen("cloud", [14.0, -2.0, 6.0]), Instrument())
    assert found.alpha_rad == pytest.approx(ALPHA_RAD, rel=0.1)
    assert abs(error_h(found, 6.0)) < 0.7


def test_contrast_that_changed_between_files_costs_nothing() -> None:
    files = Instrument(alpha_rad=ALPHA_RAD, gain_sigma=0.01)
    found = estimate(seen("blobs", [-2.0, 6.0, -10.0], contrast=[1.0, 1.3, 0.8]), files)
    assert abs(error_h(found, -10.0)) < 0.4


def test_a_gaussian_pupil_is_recognised() -> None:
    found = estimate(seen("cloud", [10.0, 2.0], pupil="gaussian"), KNOWN)
    assert abs(error_h(found, 2.0)) < 0.3


def test_one_working_distance_cannot_tell_the_sign() -> None:
    frames = seen("cloud", [6.0, 6.0])
    found = estimate(frames, KNOWN)
    assert (found.reason, found.defocus_m) == ("sign_unknown", None)


def test_two_working_distances_without_the_angle_are_uncalibrated() -> None:
    assert estimate(seen("cloud", [8.0, 0.0]), Instrument()).reason == "uncalibrated"


def test_flat_fields_are_never_answered() -> None:
    for seed in range(6):
        found = estimate(seen("flat", [3.0, 11.0, -5.0], seed=seed), KNOWN)
        assert not found.answered
        assert object_nats(seen("flat", [3.0], seed=seed)[0]) < 300


def test_an_actuator_that_only_says_it_moved_is_called_dead() -> None:
    still = series("blobs", [6 * H_M] * 3, snr=1.8, seed=5)
    frames = [
        evidence(pixels, offset * H_M, i) for i, (pixels, offset) in enumerate(zip(still, (0, 8, -8), strict=True))
    ]
    assert estimate(frames, KNOWN).reason == "actuator_dead"


def test_brightness_and_contrast_drop_out_of_the_spectra() -> None:
    pixels = series("cloud", [2 * H_M], snr=1.8, seed=3)[0].astype(np.float32)
    plain, changed = patch_spectra(pixels), patch_spectra(3.0 * pixels + 1000.0)
    np.testing.assert_allclose(changed.spectra / 3.0, plain.spectra, atol=2e-2 * np.abs(plain.spectra).max())
    np.testing.assert_allclose(changed.noise / 9.0, plain.noise, rtol=1e-3)


def test_a_line_filter_colours_the_noise_and_is_seen() -> None:
    rng = np.random.default_rng(0)
    white = rng.normal(128, 20, (512, 514))
    lagged = (white[:, :-2] + 2 * white[:, 1:-1] + white[:, 2:]) / 4
    flat, coloured = patch_spectra(white[:, :512]).noise, patch_spectra(lagged).noise
    assert np.ptp(flat) < 0.03 * flat.mean()
    assert flat.mean() == pytest.approx(400, rel=0.05)
    assert coloured[5] == pytest.approx(400, rel=0.2)
    assert coloured[120] < 20


def test_an_amplifier_that_lags_a_little_is_not_taken_for_a_picture() -> None:
    rng = np.random.default_rng(1)
    white, kept = rng.normal(128, 20, (512, 520)), 0.05
    lagged = (1.0 - kept) * (white[:, 8:] + kept * white[:, 7:-1] + kept**2 * white[:, 6:-2])
    found = patch_spectra(lagged)
    power = (np.abs(found.spectra[:, :, 4:]) ** 2).mean(axis=(0, 1)) / found.noise[4:]
    assert power[:40].mean() == pytest.approx(1.0, abs=0.03)  # a sixth above the corner's
    assert power[-40:].mean() == pytest.approx(1.0, abs=0.03)


def rows_displaced(pixels: NDArray[np.uint8], sigma_px: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each row by itself, as mains and jitter do; the noise, which comes later, on top."""
    along = np.arange(pixels.shape[1])
    moved = [np.interp(along + sigma_px * rng.standard_normal(), along, row.astype(float)) for row in pixels]
    return np.asarray(np.clip(np.stack(moved) + rng.normal(0.0, 3.0, pixels.shape), 0, 255), np.uint8)


def test_rows_that_are_displaced_in_each_frame_are_not_taken_for_blur() -> None:
    rng, places = np.random.default_rng(4), [5.0, -1.5, 0.4]
    frames = series("blobs", [z * H_M for z in places], snr=30.0, seed=6)
    shown = [rows_displaced(pixels, 0.4, rng) for pixels in frames]
    evidences = [evidence(p, (z - places[0]) * H_M, i) for i, (p, z) in enumerate(zip(shown, places, strict=True))]
    found, known = solved(evidences, KNOWN)
    assert abs(error_h(found, 0.4)) < 0.15
    assert known is not None
    assert float(known.scene.common.min()) < 0.6  # of what is finest along the rows
