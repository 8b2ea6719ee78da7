"""Co-occurrence statistics: the numbers that scikit-image gives, whatever gain and offset the detector had."""

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from engines.scene import Levels, levels_of
from engines.texture import GREYS, OFFSETS_PX, STATISTICS, TEXTURE, quantised, texture

LEVELS = Levels(128.0, 60.0)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    rng = np.random.default_rng(0)
    rough = rng.normal(128.0, 40.0, (2, 64, 64))
    lines = 128.0 + 80.0 * np.sin(np.arange(64) / 3.0) * np.ones((64, 1)) + rng.normal(0.0, 8.0, (64, 64))
    return np.clip(np.concatenate([rough, lines[None]]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_statistics_are_those_of_scikit_image(crops: np.ndarray, statistic: str) -> None:
    told = texture(crops, LEVELS).reshape(len(crops), 2, 4, len(STATISTICS))[..., STATISTICS.index(statistic)]
    for greys, mine in zip(quantised(crops, LEVELS), told, strict=True):
        angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
        tables = graycomatrix(greys, [1, 3], angles, levels=GREYS, symmetric=True, normed=True)
        np.testing.assert_allclose(mine, graycoprops(tables, statistic), rtol=1e-5, atol=1e-6)


def test_gain_and_offset_of_the_detector_leave_texture_nearly_as_it_is(crops: np.ndarray) -> None:
    brighter = np.asarray(60.0 + 0.6 * crops, np.uint8)
    before, after = texture(crops, levels_of(crops[0])), texture(brighter, levels_of(brighter[0]))
    np.testing.assert_allclose(after[0], before[0], rtol=0.05, atol=0.02)


def test_lines_look_alike_along_themselves_and_not_across(crops: np.ndarray) -> None:
    contrast = texture(crops, LEVELS)[2].reshape(len(OFFSETS_PX), len(STATISTICS))[:, 0]
    assert contrast[OFFSETS_PX.index((3, 0))] < 0.2 * contrast[OFFSETS_PX.index((0, 3))]


def test_a_flat_crop_is_all_one_grey() -> None:
    told = texture(np.full((1, 64, 64), 90, np.uint8), LEVELS)
    assert told.shape == (1, TEXTURE)
    np.testing.assert_allclose(told[0].reshape(-1, 5), [[0.0, 1.0, 1.0, 1.0, 0.0]] * len(OFFSETS_PX), atol=1e-7)
