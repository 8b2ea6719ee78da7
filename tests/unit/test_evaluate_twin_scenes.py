"""A folder of scenes that is not as it should be: one clear sentence for each fault, the other scenes still read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.evaluate.scenes import Scene, SceneError, Unread, listed, load

SIDE = 32
GOOD: dict[str, Any] = {
    "name": "one",
    "group": "lines",
    "pixel_size_m": 3e-9,
    "probe_sigma_m": [1e-9, 1e-9],
    "probe_angle_deg": 0.0,
}


def folder(at: Path, *entries: Any) -> Path:
    (at / "scenes.json").write_text(json.dumps(list(entries)))
    return at


def arrays(at: Path, name: str = "one", **wrong: np.ndarray[Any, Any]) -> None:
    rng = np.random.default_rng(1)
    np.save(at / f"{name}_SE.npy", wrong.get("counts", rng.poisson(12, (SIDE, SIDE)).astype(np.uint16)))
    np.save(at / f"{name}_height_px_nm.npy", wrong.get("heights", np.zeros((SIDE, SIDE), np.float32)))


def only(at: Path) -> Scene | Unread:
    (found,) = listed(at)
    return found


def test_heights_come_in_metres_and_counts_as_they_are(tmp_path: Path) -> None:
    heights = np.full((SIDE, SIDE), -45.0, np.float32)
    arrays(folder(tmp_path, GOOD), heights=heights)
    found = only(tmp_path)
    assert isinstance(found, Scene)
    read = load(tmp_path, found)
    assert read.height_m[0, 0] == pytest.approx(-45e-9)
    assert read.counts.dtype == np.float32 and 10 < read.counts.mean() < 14


def test_a_folder_without_a_list_is_told_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"scenes\.json.*folder that holds"):
        listed(tmp_path)
    with pytest.raises(SceneError, match=r"scenes\.json"):
        listed(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "told"),
    [("[", "not JSON"), ("{}", "expected a list of scenes, found dict"), ("[]", "empty"), ("\udcff", "not JSON")],
)
def test_a_list_that_is_none_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "scenes.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SceneError, match=told):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"pixel_size_m": -3e-9}, "pixel_size_m = -3e-09"),
        ({"pixel_size_m": 3.0}, "pixel_size_m = 3; expected metres"),
        ({"pixel_size_m": float("nan")}, "pixel_size_m = nan"),
        ({"pixel_size_m": "3 nm"}, "pixel_size_m = '3 nm'"),
        ({"pixel_size_m": True}, "pixel_size_m = True"),
        ({"pixel_size_m": None}, "pixel_size_m = None"),
        ({"probe_sigma_m": 1e-9}, "expected \\[major, minor\\]"),
        ({"probe_sigma_m": [1e-9, -1e-9]}, "major >= minor >= 0"),
        ({"probe_sigma_m": [1e-9, 4e-9]}, "major >= minor >= 0"),
        ({"probe_sigma_m": [8e-9, 4e-9], "probe_angle_deg": None}, "probe_angle_deg = None"),
        ({"name": "../one"}, "expected a plain file name"),
        ({"name": ""}, "expected a plain file name"),
        ({"name": ".."}, "expected a plain file name"),
        ({"name": 7}, "name = 7"),
    ],
)
def test_a_wrong_field_is_told_of_its_scene_alone(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    found = listed(folder(tmp_path, GOOD | wrong, GOOD | {"name": "two"}))
    assert isinstance(found[0], Unread)
    assert isinstance(found[1], Scene)
    with pytest.raises(SceneError, match=told):
        raise SceneError(found[0].error)


def test_an_entry_that_is_no_object_and_a_name_that_comes_twice_are_told(tmp_path: Path) -> None:
    found = listed(folder(tmp_path, "one", GOOD, GOOD))
    assert isinstance(found[0], Unread) and "expected an object, found str" in found[0].error
    assert isinstance(found[1], Scene)
    assert isinstance(found[2], Unread) and "twice" in found[2].error


HUGE = np.zeros((SIDE, SIDE), np.float32)
HUGE[3, 7] = np.nan


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"heights": np.zeros((SIDE, SIDE + 1), np.float32)}, "32x32 and 32x33 px"),
        ({"heights": HUGE}, "one_height_px_nm.npy: 1 values are not finite, the first at x 7, y 3"),
        ({"heights": np.zeros((SIDE, SIDE, 3), np.float32)}, "expected a plane of numbers"),
        ({"heights": np.zeros((SIDE, SIDE), np.complex64)}, "expected a plane of numbers"),
        ({"heights": np.array([{}, {}])}, "not an array as numpy.save writes it"),  # a pickle is never loaded
        ({"counts": np.zeros((8, 8)), "heights": np.zeros((8, 8))}, "at least 16 px"),
        ({"counts": np.full((SIDE, SIDE), 4.0)}, "every pixel is 4"),
        ({"counts": np.full((SIDE, SIDE), -4.0)}, "lowest value -4"),
        ({"counts": np.full((SIDE, SIDE), np.inf)}, "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    arrays(folder(tmp_path, GOOD), **wrong)
    found = only(tmp_path)
    assert isinstance(found, Scene)
    with pytest.raises(SceneError, match=told):
        load(tmp_path, found)


def test_a_missing_a_cut_off_and_an_empty_array_are_named(tmp_path: Path) -> None:
    found = only(folder(tmp_path, GOOD))
    assert isinstance(found, Scene)
    with pytest.raises(SceneError, match=r"one_SE\.npy: No such file"):
        load(tmp_path, found)
    arrays(tmp_path)
    whole = (tmp_path / "one_SE.npy").read_bytes()
    for left in (whole[:300], b""):
        (tmp_path / "one_SE.npy").write_bytes(left)
        with pytest.raises(SceneError, match=r"one_SE\.npy: not an array"):
            load(tmp_path, found)


def test_a_probe_wider_than_the_field_is_refused(tmp_path: Path) -> None:
    arrays(folder(tmp_path, GOOD | {"probe_sigma_m": [1e-6, 1e-6]}))
    found = only(tmp_path)
    assert isinstance(found, Scene)
    with pytest.raises(SceneError, match=r"probe_sigma_m = 1e-06; expected at most 2\.4e-08"):
        load(tmp_path, found)
