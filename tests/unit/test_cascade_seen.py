"""What is measured of a candidate: crops, contrast against noise, height, and the row of features they become."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.cascade_contrast import Contrast, contrasts
from engines.cascade_crops import SIDE_PX, WIDE_PX, pixel_noise, shown, windows
from engines.cascade_features import ELEMENTS, FEATURES, GROUPS, columns_of, height_at
from engines.cascade_seen import Beside, seen
from engines.defects import CLASSES
from engines.readings import FoundDefect, Relief
from engines.scene import Scene

NOISE = 10.0
BOX = (90.0, 70.0, 110.0, 90.0)  # middle at 100, 80


def noisy(level: float = 120.0, *, seed: int = 0, shape: tuple[int, int] = (160, 200)) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(level, NOISE, shape)


def picture(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def bump(height: float, sigma: float = 5.0) -> NDArray[np.float64]:
    y, x = np.mgrid[:160, :200]
    return height * np.exp(-((x - 99.5) ** 2 + (y - 79.5) ** 2) / (2.0 * sigma**2))


def contrast(with_it: NDArray[np.float64], reference: NDArray[np.float64] | None = None) -> Contrast:
    other = None if reference is None else picture(reference)
    return contrasts(windows(picture(with_it), [BOX], other))[0]


def test_a_crop_is_centred_on_its_box_and_the_wide_one_holds_twice_as_much() -> None:
    image = picture(noisy())
    cut = windows(image, [BOX])
    planes = cut.planes()
    assert planes.shape == (1, 4, SIDE_PX, SIDE_PX)
    np.testing.assert_array_equal(planes[0, 0], image[80 - 32 : 80 + 32, 100 - 32 : 100 + 32])
    wide = image[80 - 64 : 80 + 64, 100 - 64 : 100 + 64].reshape(64, 2, 64, 2).mean(axis=(1, 3))
    assert np.abs(planes[0, 2] - wide).max() <= 0.5
    np.testing.assert_array_equal(cut.box_px, [[54, 54, 74, 74]])


def test_beyond_the_border_a_crop_is_the_mirrored_picture() -> None:
    image = picture(noisy())
    mirrored = np.pad(image, WIDE_PX, mode="reflect")
    for box in ((0.0, 0.0, 6.0, 8.0), (190.0, 150.0, 200.0, 160.0), BOX):
        x, y = round((box[0] + box[2]) / 2), round((box[1] + box[3]) / 2)
        rows, columns = slice(y + 64, y + 192), slice(x + 64, x + 192)
        np.testing.assert_array_equal(windows(image, [box]).frame[0], mirrored[rows, columns])


def test_a_picture_smaller_than_a_crop_is_mirrored_again_and_again() -> None:
    image = picture(noisy(shape=(20, 30)))
    assert windows(image, [(2.0, 2.0, 9.0, 9.0)]).frame.shape == (1, WIDE_PX, WIDE_PX)


def test_a_reference_of_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(10, 10\) reference of a \(160, 200\) picture"):
        windows(picture(noisy()), [BOX], np.zeros((10, 10), np.uint8))


def test_no_candidates_are_no_crops() -> None:
    looked = seen(picture(noisy()), [], Beside())
    assert looked.planes.shape == (0, 4, SIDE_PX, SIDE_PX)
    assert looked.features.shape == (0, FEATURES)


def test_pixel_noise_is_measured_on_a_pattern_too() -> None:
    lines = 30.0 * np.sign(np.sin(2.0 * np.pi * np.arange(200) / 40.0))
    assert pixel_noise((noisy() + lines).astype(np.float32)) == pytest.approx(NOISE, rel=0.15)


def test_the_matched_contrast_of_a_known_bump_is_in_its_sigmas() -> None:
    told = contrast(noisy() + bump(30.0), noisy(seed=1))
    # Means over 13 x 13 pixels, of the bump and of two frames' noise.
    expected = bump(30.0)[73:86, 93:106].mean() / (NOISE * np.sqrt(2.0) / 13.0)
    assert told.matched[2] == pytest.approx(expected, rel=0.2)
    assert told.chance < 1e-6
    assert contrast(noisy() - bump(30.0), noisy(seed=1)).matched[2] < 0.0


def test_what_noise_alone_shows_is_by_chance_as_often_as_it_says() -> None:
    chances = np.array([contrast(noisy(seed=s), noisy(seed=1000 + s)).chance for s in range(60)])
    assert 0.3 < np.mean(chances < 0.5) < 0.7
    assert np.mean(chances < 0.05) < 0.2


def test_a_pattern_that_both_frames_show_is_no_contrast() -> None:
    lines = 40.0 * np.sin(2.0 * np.pi * np.arange(200) / 20.0)
    alone, compared = contrast(noisy() + lines), contrast(noisy() + lines, noisy(seed=1) + lines)
    assert alone.best > 10.0
    assert compared.best < 5.5


def test_a_dome_is_bright_in_the_middle_and_a_bowl_dark() -> None:
    assert contrast(noisy() + bump(25.0), noisy(seed=1)).shading > 3.0
    assert contrast(noisy() - bump(25.0), noisy(seed=1)).shading < -3.0


def test_a_long_defect_is_long_and_its_direction_is_told() -> None:
    line = np.zeros((160, 200))
    for step in range(-9, 10):
        line[80 + step - 1 : 80 + step + 2, 100 + step - 1 : 100 + step + 2] = 90.0
    told = contrast(noisy() + line, noisy(seed=1))
    assert told.elongation > 0.8
    assert told.along_rad == pytest.approx(np.pi / 4, abs=0.1)
    assert told.area_px == pytest.approx((line > 0).sum(), rel=0.6)


def test_the_shown_crop_has_less_noise_and_the_measured_one_is_left_alone() -> None:
    crop = picture(noisy() + bump(60.0))[48:112, 68:132]
    before = crop.copy()
    quiet = shown(crop)
    assert quiet[:12].std() < 0.6 * crop[:12].std()
    assert float(quiet[30:34, 30:34].mean()) == pytest.approx(180.0, abs=12.0)
    np.testing.assert_array_equal(crop, before)


def relief(sign: float) -> Relief:
    height = np.asarray(bump(sign * 8.0, sigma=8.0), np.float32)
    return Relief(height, np.full_like(height, 0.5), 2e-9)


def test_a_height_has_the_sign_of_what_stands_there() -> None:
    up, down = height_at(BOX, relief(1.0)), height_at(BOX, relief(-1.0))
    assert up is not None
    assert down is not None
    assert up.above_px == pytest.approx(-down.above_px, rel=1e-3)
    assert up.above_px > 3.0
    assert up.sigma_px == pytest.approx(0.5 * np.sqrt(2.0))


def test_a_height_whose_surroundings_the_picture_cuts_is_not_known() -> None:
    assert height_at((0.0, 0.0, 190.0, 158.0), relief(1.0)) is None


def test_features_say_what_is_not_known() -> None:
    image = picture(noisy())
    bare = seen(image, [BOX], Beside()).features[0]
    fractions = np.full((1, len(ELEMENTS)), 0.125, np.float32)
    told = seen(image, [BOX], Beside(picture(noisy(seed=1)), relief(1.0), Scene(2e-9), 40.0, fractions)).features[0]
    for name in ("height", "fractions"):
        assert not bare[columns_of(name)].any()
        assert told[columns_of(name)][-1] == 1.0
    assert bare[columns_of("contrast")][-1] == bare[columns_of("shape")][-1] == 0.0
    assert told[columns_of("contrast")][-1] == told[columns_of("shape")][-1] == 1.0
    assert told[columns_of("shape")][6] == pytest.approx(np.log(20.0 / 40.0))
    assert np.isfinite(told).all()
    assert sum(GROUPS.values()) == len(told) == FEATURES


def test_the_detectors_word_is_its_class_and_how_sure_it_was() -> None:
    image, columns = picture(noisy()), columns_of("word")
    told = seen(image, [BOX, BOX], Beside(), words=[FoundDefect("break", 0.9, BOX), None]).features[:, columns]
    assert told[0, CLASSES.index("break")] == told[0, -1] == 1.0
    assert told[0, -2] == pytest.approx(np.log(9.0))
    assert told[0, : len(CLASSES)].sum() == 1.0
    assert not told[1].any()


def test_fractions_that_are_nan_and_a_reference_that_is_the_picture_are_none() -> None:
    image = picture(noisy())
    fractions = np.full((1, len(ELEMENTS)), np.nan, np.float32)
    told = seen(image, [BOX], Beside(image.copy(), fractions=fractions))
    np.testing.assert_array_equal(told.features, seen(image, [BOX], Beside()).features)
