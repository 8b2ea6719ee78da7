"""Frames from outside in a dataset: another simulator's scenes with their truth, real frames without any."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.dataset import build, outside, read
from calibration.dataset.errors import DatasetError
from calibration.dataset.outside import Picture
from calibration.dataset.plan import Order
from calibration.dataset.splits import OTHER_SIMULATOR, REAL
from engines.defects import CLASSES

MONTE_CARLO = Path(__file__).parents[2].parent / "shared" / "data" / "montecarlo"
ONLY = Order("defects", 1, 1, splits=(OTHER_SIMULATOR, REAL))
SCENE: dict[str, Any] = {
    "name": "one",
    "group": "lines",
    "pixel_size_m": 3e-9,
    "accelerating_voltage_v": 1000,
    "electrons_per_pixel": 40,
    "probe_sigma_m": [2e-9, 1e-9],
    "probe_angle_deg": 90.0,
    "se_at_255": 51.0,
    "defects": [
        {"class": "bridge", "box_px": [1, 2, 5, 6], "limit": "above", "contrast_chi_se": 12.0, "area_px": 9},
        {"class": "gap", "box_px": [7, 2, 9, 4], "limit": "below", "contrast_chi_se": 3.0, "area_px": 4},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One scene of 8 x 12: 10 electrons everywhere, 45 nm high."""
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    tell(scenes, [SCENE])
    np.save(scenes / "one_SE.npy", np.full((8, 12), 10, np.uint16))
    np.save(scenes / "one_height_px_nm.npy", np.full((8, 12), 45.0, np.float32))
    return scenes


def tell(folder: Path, scenes: object) -> None:
    (folder / "scenes.json").write_text(json.dumps(scenes))


def made(folder: Path, frames: build.Outside) -> build.Built:
    return build.build(ONLY, folder, workers=1, force=False, progress=lambda done, of: None, outside=frames)


def test_a_scene_keeps_its_counts_heights_boxes_and_classes(folder: Path, tmp_path: Path) -> None:
    made(tmp_path / "set", {OTHER_SIMULATOR: outside.montecarlo(folder)})
    ((shard, rows),) = read.shards(tmp_path / "set")
    assert shard.kinds == {"lines": 1}
    assert rows["counts"].dtype == np.uint16
    assert (rows["image"] == 50).all()  # 10 of 51 electrons, of 255
    assert rows["height_m"] == pytest.approx(45e-9)
    assert rows["box_px"][0].tolist() == [[1, 2, 5, 6], [7, 2, 9, 4]]
    assert [CLASSES[number] for number in rows["label"][0]] == ["bridge", "break"]
    assert rows["visible"][0].tolist() == [True, False]
    assert rows["probe_angle_rad"][0] == pytest.approx(np.pi / 2)
    assert rows["name"][0] == "one"


def test_real_frames_come_as_eight_bits_without_truth(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 5000, 64 * 48).reshape(64, 48)
    pictures = [Picture("a.tif", ramp.astype(np.uint16), 2e-9), Picture("b.png", ramp.astype(np.uint8), None)]
    built = made(tmp_path, {REAL: outside.real(iter(pictures))})
    (_, first), (_, second) = read.shards(tmp_path, REAL)
    assert first["image"].dtype == np.uint8
    assert (int(first["image"].min()), int(first["image"].max())) == (0, 255)
    assert first["pixel_size_m"][0] == pytest.approx(2e-9)
    assert np.isnan(second["pixel_size_m"][0])
    assert {column.name for column in built.index.split(REAL).columns} == {"image", "name", "pixel_size_m", "kind"}


def test_frames_of_other_sizes_have_no_side_in_common(folder: Path, tmp_path: Path) -> None:
    tell(folder, [SCENE, SCENE | {"name": "two", "defects": []}])
    np.save(folder / "two_SE.npy", np.ones((16, 12), np.uint16))
    np.save(folder / "two_height_px_nm.npy", np.zeros((16, 12), np.float32))
    built = made(tmp_path / "set", {OTHER_SIMULATOR: outside.montecarlo(folder)})
    shapes = {column.name: column.shape for column in built.index.split(OTHER_SIMULATOR).columns}
    assert shapes["image"] == (None, 12)
    assert shapes["box_px"] == (None, 4)
    assert read.verify(tmp_path / "set").good


def test_an_order_without_outside_frames_keeps_those_that_are_there(folder: Path, tmp_path: Path) -> None:
    made(tmp_path / "set", {OTHER_SIMULATOR: outside.montecarlo(folder)})
    again = made(tmp_path / "set", {})
    assert [shard.split for shard in again.index.shards] == [OTHER_SIMULATOR]
    assert read.verify(tmp_path / "set").good


def forget(name: str) -> Any:
    return lambda folder: (folder / f"one_{name}.npy").unlink()


def put(name: str, array: Any) -> Any:
    return lambda folder: np.save(folder / f"one_{name}.npy", array)


def said(scenes: object) -> Any:
    return lambda folder: tell(folder, scenes)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "scenes.json").unlink(), "scenes.json: no such file"),
        (lambda folder: (folder / "scenes.json").write_text("{"), "cannot be read as JSON"),
        (said([]), "at least one"),
        (said([{"name": "one"}]), "scene 0 lacks 'group'"),
        (said([SCENE | {"defects": [SCENE["defects"][0] | {"class": "ghost"}]}]), "scene one: class 'ghost'"),
        (forget("SE"), "scene one: .*one_SE.npy is missing"),
        (forget("height_px_nm"), "one_height_px_nm.npy is missing"),
        (put("SE", np.zeros((4, 4), np.uint16)), r"counts are \(4, 4\) and heights \(8, 12\)"),
        (put("height_px_nm", np.full((8, 12), np.nan)), "not all finite"),
        (lambda folder: (folder / "one_SE.npy").write_bytes(b"no array"), "one_SE.npy cannot be read"),
    ],
)
def test_scenes_that_cannot_be_used_are_one_sentence(spoil: Any, words: str, folder: Path, tmp_path: Path) -> None:
    spoil(folder)
    with pytest.raises(DatasetError, match=words) as told:
        made(tmp_path / "set", {OTHER_SIMULATOR: outside.montecarlo(folder)})
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not MONTE_CARLO.is_dir(), reason="the project's shared data is not here")
def test_the_shared_scenes_are_all_read(tmp_path: Path) -> None:
    scenes = json.loads((MONTE_CARLO / "scenes.json").read_text())
    built = made(tmp_path, {OTHER_SIMULATOR: outside.montecarlo(MONTE_CARLO)})
    assert built.index.split(OTHER_SIMULATOR).frames == len(scenes)
    for scene, (_, rows) in zip(scenes, read.shards(tmp_path), strict=True):
        assert rows["name"][0] == scene["name"]
        assert [CLASSES[number] for number in rows["label"][0]] == [defect["class"] for defect in scene["defects"]]
        height_nm = np.load(MONTE_CARLO / f"{scene['name']}_height_px_nm.npy")
        assert np.abs(rows["height_m"][0] * 1e9 - height_nm).max() < 1e-4
