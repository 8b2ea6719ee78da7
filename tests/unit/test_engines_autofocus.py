"""The shipped autofocus model on frames of the virtual microscope that no training saw, and on pictures of nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.optics import probe_fw50_m
from calibration.twin import probe, scan, specimen
from engines.autofocus import Autofocus, condition, reading
from engines.errors import InferenceError
from engines.load import load
from engines.readings import FocusReading

PIXEL_M = 20e-9
ALPHA_RAD = 5e-3
FW50_M = probe_fw50_m(ALPHA_RAD, 10e3)
HALF_DEPTH_M = PIXEL_M / (2 * ALPHA_RAD)
SHAPE = (512, 640)
UNSEEN = 77_000_000_001  # specimen seeds of a training are below 2**31


@pytest.fixture(scope="module")
def model() -> Autofocus:
    return Autofocus(load("autofocus", backend="onnxruntime"))


def frame(name: str, *, defocus_h: float, snr: float = 1.8, seed: int = 0) -> NDArray[np.uint8]:
    """What the virtual microscope shows of the specimen at so many half depths of focus."""
    emission = specimen.make(name, SHAPE, pixel_size_m=PIXEL_M, seed=UNSEEN + seed)
    signal = probe.blur(
        emission, pixel_size_m=PIXEL_M, z_m=defocus_h * HALF_DEPTH_M, alpha_rad=ALPHA_RAD, fw50_m=FW50_M
    )
    electrons = scan.electrons_for_snr(emission, snr)
    counts = scan.expose(signal, electrons_per_pixel=electrons, rng=np.random.default_rng(seed))
    spread = float(counts.std())
    gain = 40.0 / 255.0 / spread
    return scan.digitise(counts, gain=gain, offset=0.45 - gain * float(counts.mean()), bits=8)


def read(model: Autofocus, image: NDArray[np.uint8]) -> FocusReading:
    said = model.read(image, PIXEL_M)
    assert said is not None
    return said


@pytest.mark.parametrize("name", specimen.TEXTURED)
def test_sharper_scores_higher_and_blur_grows_with_defocus(model: Autofocus, name: str) -> None:
    series = [read(model, frame(name, defocus_h=h)) for h in (0.0, 4.0, 10.0, 24.0)]
    scores, blurs = [r.score for r in series], [r.blur_px for r in series]
    assert scores == sorted(scores, reverse=True)
    assert blurs == sorted(blurs)
    assert scores[0] > 7.5
    assert scores[-1] < 5.5  # the label there is 4.6


@pytest.mark.parametrize("name", ["tin-balls", "grains", "cells"])
@pytest.mark.parametrize("defocus_h", [6.0, 16.0])
def test_blur_is_right_within_a_factor_of_1_6(model: Autofocus, name: str, defocus_h: float) -> None:
    true_px = defocus_h / 4.0  # alpha z / (2 px)
    said = read(model, frame(name, defocus_h=defocus_h, snr=2.5))
    assert true_px / 1.6 < said.blur_px < true_px * 1.6
    assert 0.0 < said.blur_uncertainty_px < said.blur_px


@pytest.mark.parametrize("name", ["line-space", "contact-holes"])
@pytest.mark.parametrize("defocus_h", [6.0, 16.0])
def test_of_bare_patterns_blur_is_right_in_the_middle_and_where_it_is_not_the_interval_is_wide(
    model: Autofocus, name: str, defocus_h: float
) -> None:
    """One frame of one period holds a few harmonics only: little tells their strength in focus from their loss."""
    true_px = defocus_h / 4.0
    said = [read(model, frame(name, defocus_h=defocus_h, snr=2.5, seed=seed)) for seed in range(8)]
    ratios = np.array([each.blur_px / true_px for each in said])
    sigmas = np.array([each.blur_uncertainty_px / each.blur_px for each in said])
    assert 1.0 / 1.6 < np.median(ratios) < 1.6
    assert np.abs(np.log(ratios) / sigmas).max() < 2.5


def test_the_sign_of_defocus_makes_no_difference(model: Autofocus) -> None:
    above, below = (read(model, frame("grains", defocus_h=h)) for h in (-8.0, 8.0))
    assert above.blur_px == pytest.approx(below.blur_px, rel=0.1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_picture_scores_nothing(model: Autofocus, level: int) -> None:
    said = read(model, np.full(SHAPE, level, np.uint8))
    assert said.score < 0.5
    assert said.content < 0.1


@pytest.mark.parametrize("spread", [2.0, 15.0, 50.0])
def test_noise_scores_nothing(model: Autofocus, spread: float) -> None:
    noise = np.random.default_rng(1).normal(120.0, spread, SHAPE)
    said = read(model, np.clip(noise, 0, 255).astype(np.uint8))
    assert said.score < 0.7
    assert said.content < 0.1


def test_a_featureless_specimen_scores_nothing(model: Autofocus) -> None:
    said = read(model, frame("flat", defocus_h=0.0))
    assert said.score < 0.7
    assert said.content < 0.1


@pytest.mark.parametrize("name", specimen.TEXTURED)
def test_a_textured_specimen_has_content(model: Autofocus, name: str) -> None:
    assert read(model, frame(name, defocus_h=2.0)).content > 0.6


def test_an_unknown_pixel_size_is_read_too(model: Autofocus) -> None:
    image = frame("tin-balls", defocus_h=8.0)
    said = model.read(image, None)
    assert said is not None
    assert said.blur_px == pytest.approx(read(model, image).blur_px, rel=0.3)


def test_contrast_and_brightness_do_not_move_the_reading(model: Autofocus) -> None:
    image = frame("cells", defocus_h=6.0)
    dim = (20.0 + 0.5 * image).astype(np.uint8)
    assert read(model, dim).score == pytest.approx(read(model, image).score, abs=0.7)


@pytest.mark.parametrize("defocus_h", [2.0, 8.0, 20.0])
def test_a_larger_frame_of_the_same_scene_reads_the_same(model: Autofocus, defocus_h: float) -> None:
    part = frame("grains", defocus_h=defocus_h)[:256, :256]
    mirrored = np.hstack([part, part[:, ::-1]])
    large = np.vstack([mirrored, mirrored[::-1]])
    small_said, large_said = read(model, np.ascontiguousarray(part)), read(model, large)
    assert large_said.blur_px == pytest.approx(small_said.blur_px, rel=0.25)
    assert large_said.score == pytest.approx(small_said.score, abs=1.0)


def test_the_same_picture_gets_the_same_answer(model: Autofocus) -> None:
    image = frame("grains", defocus_h=3.0)
    first = read(model, image)
    read(model, np.zeros(SHAPE, np.uint8))
    assert read(model, image) == first


def test_a_picture_too_small_to_judge_is_not_judged(model: Autofocus) -> None:
    assert model.read(np.zeros((96, 512), np.uint8), PIXEL_M) is None


def test_a_picture_that_was_not_padded_is_the_callers_fault(model: Autofocus) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        model.read(np.zeros((500, 512), np.uint8), PIXEL_M)


def test_what_is_unknown_is_not_a_pixel_size() -> None:
    assert condition(25e-9).tolist() == [0.0, 1.0]
    for unknown in (None, 0.0, -1.0, float("nan"), float("inf")):
        assert condition(unknown).tolist() == [0.0, 0.0]


def test_an_uncertainty_is_half_the_width_of_the_log_normals_interval() -> None:
    said = reading(score=11.0, log_blur=np.log(4.0), log_blur_sigma=0.1, content=0.9)
    assert said.blur_uncertainty_px == pytest.approx(0.5 * (4.0 * np.exp(0.1) - 4.0 * np.exp(-0.1)))
    assert said.score == 10.0


def test_a_sigma_that_is_none_is_an_error() -> None:
    with pytest.raises(InferenceError, match="log_blur_sigma"):
        reading(score=5.0, log_blur=0.0, log_blur_sigma=0.0, content=1.0)
