"""Peaks become defects: threshold, clipping, one word on each; the reading on pictures of any content."""

import dataclasses

import msgspec
import numpy as np
import pytest

from engines.defects import CLASSES, OVERLAP, DefectFinder, clipped, defects_of, overlap
from engines.errors import PackageError
from engines.load import Loaded, load
from engines.readings import Defects
from engines.scene import Scene, condition, levels_of

SCENE = Scene(pixel_size_m=3e-9, electrons_per_pixel=40.0, accelerating_voltage_v=1000.0)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load("defects", backend="onnxruntime")


def told(*peaks: tuple[float, int, tuple[float, float, float, float]], least: float = 0.3) -> Defects:
    confidence, index, box = zip(*peaks, strict=True)
    return defects_of(
        np.array(confidence, np.float32), np.array(index, np.int32), np.array(box, np.float32), least, (100, 200)
    )


def test_peaks_below_the_threshold_are_no_defects() -> None:
    found = told((0.9, 2, (10, 10, 20, 20)), (0.31, 0, (50, 50, 60, 60)), (0.29, 1, (80, 80, 90, 90)))
    assert [each.name for each in found] == ["bridge", "pit"]
    assert [each.confidence for each in found] == pytest.approx([0.9, 0.31])


def test_of_two_boxes_that_are_one_defect_the_more_confident_stays() -> None:
    found = told((0.9, 2, (10, 10, 20, 20)), (0.8, 3, (11, 10, 21, 20)), (0.7, 3, (17, 10, 27, 20)))
    assert [each.confidence for each in found] == pytest.approx([0.9, 0.7])
    assert overlap(found[0].box_px, found[1].box_px) < OVERLAP


def test_boxes_are_clipped_to_the_picture_and_a_pixel_wide_at_least() -> None:
    assert clipped(np.array([-5, -5, 8, 9], np.float32), (100, 200)) == (0.0, 0.0, 8.0, 9.0)
    assert clipped(np.array([190, 95, 230, 130], np.float32), (100, 200)) == (190.0, 95.0, 200.0, 100.0)
    x0, y0, x1, y1 = clipped(np.array([250, 120, 260, 130], np.float32), (100, 200))
    assert (x1 - x0, y1 - y0) == (1.0, 1.0)
    assert x1 <= 200
    assert y1 <= 100


def test_overlap_of_known_boxes() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (512, 512)])
def test_a_reading_is_sorted_inside_the_picture_and_of_known_classes(loaded: Loaded, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    found = DefectFinder(loaded).read(image, SCENE, threshold=0.0)
    confidence = [each.confidence for each in found]
    assert found
    assert confidence == sorted(confidence, reverse=True)
    for each in found:
        x0, y0, x1, y1 = each.box_px
        assert each.name in CLASSES
        assert 0 <= x0 < x1 <= shape[1]
        assert 0 <= y0 < y1 <= shape[0]
        assert 0.0 <= each.confidence <= 1.0


def test_without_another_word_the_threshold_is_the_packages_own(loaded: Loaded) -> None:
    finder = DefectFinder(loaded)
    image = np.random.default_rng(3).integers(0, 256, (256, 256), np.uint8)
    every = finder.read(image, SCENE, threshold=0.0)
    kept = finder.read(image, SCENE)
    assert len(kept) <= len(every)
    assert all(each.confidence >= finder.threshold for each in kept)


def test_a_tile_is_read_as_the_same_place_of_the_whole(loaded: Loaded) -> None:
    engine = loaded.engine
    image = np.random.default_rng(5).integers(0, 256, (256, 640), np.uint8)
    levels = levels_of(image)
    seen = []
    for left in (0, 128):
        out = engine.run(np.ascontiguousarray(image[:, left : left + 512]), condition(levels, SCENE))
        box, sure = out["box_px"][0], out["confidence"][0]
        middle = (box[:, 0] + box[:, 2]) / 2 + left
        # Peaks far from either tile's borders: a border shows the network another surrounding.
        seen.append({round(float(s), 4) for s, x in zip(sure[:24], middle[:24], strict=True) if 300 < x < 340})
    assert seen[0] == seen[1]


def test_a_blank_frame_is_answered_with_finite_numbers(loaded: Loaded) -> None:
    for level in (0, 128, 255):
        found = DefectFinder(loaded).read(np.full((96, 96), level, np.uint8), Scene(), threshold=0.0)
        assert np.isfinite([each.confidence for each in found]).all()


def test_a_picture_that_is_not_padded_is_refused(loaded: Loaded) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        DefectFinder(loaded).read(np.zeros((100, 96), np.uint8), SCENE)


def test_a_package_without_a_working_point_is_refused_by_name(loaded: Loaded) -> None:
    bare = dataclasses.replace(loaded, manifest=msgspec.structs.replace(loaded.manifest, metrics={}))
    with pytest.raises(PackageError, match=r"working_point\.threshold"):
        DefectFinder(bare)
