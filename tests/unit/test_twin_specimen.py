"""Specimens: reproducible, crisp, different by seed; any picture as texture."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.twin import specimen
from calibration.twin.matter import brightness

SHAPE = (192, 256)


@pytest.mark.parametrize("name", specimen.NAMES)
def test_every_specimen_is_an_emission_between_0_and_1_and_the_same_for_the_same_seed(name: str) -> None:
    one, again = (specimen.make(name, SHAPE, pixel_size_m=10e-9, seed=5) for _ in range(2))
    assert one.shape == SHAPE and one.dtype == np.float32
    assert one.min() >= 0.0 and one.max() <= 1.0
    assert np.array_equal(one, again)


@pytest.mark.parametrize("name", specimen.TEXTURED)
@pytest.mark.parametrize("seed", range(4))
def test_textured_specimens_have_contrast_and_detail_down_to_a_few_pixels(name: str, seed: int) -> None:
    picture = specimen.make(name, (256, 256), pixel_size_m=10e-9, seed=seed)
    assert picture.std() / picture.mean() > 0.12
    smooth = cv2.GaussianBlur(picture, (0, 0), 2.0)
    assert (picture - smooth).std() / picture.std() > 0.2
    assert not np.array_equal(picture, specimen.make(name, (256, 256), pixel_size_m=10e-9, seed=seed + 1))


@pytest.mark.parametrize("pixel_size_m", [1e-9, 300e-9])
def test_specimens_make_sense_at_fine_and_coarse_pixels(pixel_size_m: float) -> None:
    for name in specimen.TEXTURED:
        assert specimen.make(name, SHAPE, pixel_size_m=pixel_size_m, seed=1).std() > 0.05


def test_flat_is_constant_and_sparse_nearly_so() -> None:
    assert specimen.make("flat", SHAPE, pixel_size_m=10e-9, seed=1).std() < 1e-6
    assert 0.0 < specimen.make("sparse", SHAPE, pixel_size_m=10e-9, seed=1).std() < 0.05


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(specimen.SpecimenError, match="tin-balls"):
        specimen.make("moon", SHAPE, pixel_size_m=10e-9, seed=1)


@pytest.mark.parametrize("name", specimen.NAMES)
def test_every_specimen_is_also_a_surface_measured_from_its_mean_height(name: str) -> None:
    seen = specimen.surface(name, SHAPE, pixel_size_m=10e-9, seed=5)
    assert seen.shape == SHAPE
    assert seen.height_m.dtype == np.float32
    assert seen.pixel_size_m == 10e-9
    assert abs(float(seen.height_m.mean())) < 1e-3 * max(float(np.ptp(seen.height_m)), 1e-12)
    assert 0.0 <= np.ptp(seen.height_m) < 120 * 10e-9
    if seen.material is not None:
        assert seen.material.shape == SHAPE
        assert seen.material.dtype == np.float32
        assert seen.material.min() > 0.0
    again = specimen.surface(name, SHAPE, pixel_size_m=10e-9, seed=5)
    assert np.array_equal(seen.height_m, again.height_m)


@pytest.mark.parametrize("name", ["line-space", "tin-balls", "fibres", "particles", "pillars"])
def test_the_emission_shows_what_the_surface_is(name: str) -> None:
    """Slopes are brighter than plains of the same material: the picture is made from the heights."""
    seen = specimen.surface(name, (256, 256), pixel_size_m=10e-9, seed=2)
    flat = replace(seen, height_m=np.zeros_like(seen.height_m))
    gain = specimen.lit(seen) / specimen.lit(flat)
    slope = np.hypot(*np.gradient(seen.height_m / seen.pixel_size_m))
    assert gain[slope > 1.0].mean() > 1.1 * gain[slope < 0.1].mean()


@pytest.mark.parametrize(("name", "film", "ground"), [("tin-balls", "Sn", "C"), ("fibres", "polymer", "C")])
def test_natural_specimens_are_of_their_materials(name: str, film: str, ground: str) -> None:
    seen = specimen.surface(name, (256, 256), pixel_size_m=10e-9, seed=3)
    assert seen.material is not None
    high = seen.height_m > np.percentile(seen.height_m, 95)
    low = seen.height_m < np.percentile(seen.height_m, 20)
    assert np.median(seen.material[high]) == pytest.approx(brightness(film), rel=0.02)
    assert np.median(seen.material[low]) == pytest.approx(brightness(ground), rel=0.1)


def test_tin_balls_are_round_on_top() -> None:
    """Along a ball's middle, height and distance are those of a circle: curvature 1/r."""
    seen = specimen.surface("tin-balls", (384, 384), pixel_size_m=10e-9, seed=4)
    z = seen.height_m / seen.pixel_size_m
    y, x = np.unravel_index(int(np.argmax(z[40:-40, 40:-40])), (304, 304))
    row = z[y + 40, x + 40 - 8 : x + 40 + 9].astype(float)
    curvature = -2.0 * np.polyfit(np.arange(-8, 9), row, 2)[0]
    assert 15.0 < 1.0 / curvature < 75.0


def test_a_patterned_specimen_is_the_pattern_of_its_name() -> None:
    for name, kind in specimen.DRAWN.items():
        assert specimen.surface(name, SHAPE, pixel_size_m=10e-9, seed=1).kind == kind


def test_a_16_bit_picture_with_a_wrong_suffix_is_texture(tmp_path: Path) -> None:
    picture = np.random.default_rng(2).integers(1000, 3000, (300, 400), dtype=np.uint16)
    ok, data = cv2.imencode(".tif", picture)
    path = tmp_path / "really_a_tiff.png"
    path.write_bytes(data.tobytes())
    cut = specimen.from_image(path, (128, 128), seed=1)
    assert ok and cut.shape == (128, 128) and cut.dtype == np.float32
    assert cut.min() == pytest.approx(0.05, abs=1e-6) and cut.max() == pytest.approx(0.95, abs=1e-6)
    assert np.array_equal(cut, specimen.from_image(path, (128, 128), seed=1))
    assert not np.array_equal(cut, specimen.from_image(path, (128, 128), seed=2))


def test_a_small_picture_goes_on_as_its_mirror_image() -> None:
    plane = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert specimen.window(plane, -1, -2, shape=(5, 8))[1].tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert specimen.from_image(plane, (50, 60), seed=1).shape == (50, 60)


def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("not a picture")
    with pytest.raises(specimen.SpecimenError, match=r"notes\.tif"):
        specimen.from_image(path, (64, 64), seed=1)
    with pytest.raises(specimen.SpecimenError, match="missing"):
        specimen.from_image(tmp_path / "missing.png", (64, 64), seed=1)
