"""`beamside calibrate dataset`: what it prints, what it refuses, and the contact sheet."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from agent.commands import calibrate, dataset_sheet
from agent.errors import BeamsideError, UsageError
from calibration.dataset import index, read, shards
from calibration.dataset.index import Column, Identity, Index, Shard, Split
from calibration.dataset.sources import TASKS, Task
from calibration.dataset.splits import DRAWN, FAMILY, Shift
from engines.defects import CLASSES


def drawn(number: int, seed: int, shift: Shift) -> shards.Arrays:
    rng = np.random.default_rng([seed, number])
    return {
        "image": rng.integers(0, 255, (2, 32, 32)).astype(np.uint8),
        "kind": np.full(2, number % 2, np.uint8),
        "pixel_size_m": np.full(2, 2e-9, np.float32),
        "height_px": rng.random((2, 32, 32)).astype(np.float16),
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(drawn, ("lines", "contacts"), ("calibration.train.depth_data",))
    monkeypatch.setitem(TASKS, "depth", task)


def asked(*words: object) -> Any:
    return CliRunner().invoke(calibrate.app, ["dataset", *map(str, words)])


def test_json_is_one_account_of_what_was_made(tmp_path: Path) -> None:
    result = asked("depth", "--count", 40, "--seed", 2, "--out", tmp_path / "d", "--workers", 1, "--json")
    account = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (account["task"], account["seed"], account["frames"], account["frames_made"]) == ("depth", 2, 40, 40)
    assert sum(account["splits"].values()) == 40
    assert account["crops_per_hour"] > 0
    again = json.loads(
        asked("depth", "--count", 40, "--seed", 2, "--out", tmp_path / "d", "--workers", 1, "--json").stdout
    )
    assert (again["frames_made"], again["frames_kept"], again["crops_per_hour"]) == (0, 40, None)


def test_a_person_gets_a_table_and_the_speed(tmp_path: Path) -> None:
    result = asked("depth", "--count", 40, "--out", tmp_path / "d", "--workers", 1)
    assert "crops an hour with 1 worker" in result.stdout
    assert "train" in result.stdout


def test_a_small_dataset_names_the_sets_it_lacks(tmp_path: Path) -> None:
    told = asked("depth", "--count", 8, "--out", tmp_path / "a", "--workers", 1).stdout
    assert "no shifted-half-dose: no frame of 8 fell to it; a count of 40 gives each split one" in told
    account = json.loads(asked("depth", "--count", 8, "--out", tmp_path / "a", "--workers", 1, "--json").stdout)
    assert set(account["left_out"]) == {name for name in DRAWN if name.startswith("shifted-")} - {FAMILY}
    whole = asked("depth", "--count", 40, "--out", tmp_path / "b", "--workers", 1).stdout
    assert "fell to it" not in whole


def test_verify_tells_frames_by_split_and_kind(tmp_path: Path) -> None:
    asked("depth", "--count", 40, "--out", tmp_path, "--workers", 1, "--split", "train", "--split", "test")
    result = asked("--verify", tmp_path, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert found["frames"] == 40
    assert sum(found["by_split"]["train"].values()) + sum(found["by_split"]["test"].values()) == 40
    assert set(found["by_split"]["train"]) == {"lines", "contacts"}


def test_verify_names_the_bad_shard_and_fails(tmp_path: Path) -> None:
    asked("depth", "--count", 10, "--out", tmp_path, "--workers", 1, "--split", "train")
    (tmp_path / "train" / "00000.npz").write_bytes(b"")
    result = asked("--verify", tmp_path, "--json")
    assert isinstance(result.exception, BeamsideError)
    assert "00000.npz is damaged" in str(result.exception)
    assert len(json.loads(result.stdout)["bad"]) == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "give a task"),
        (("colour",), "unknown task 'colour'"),
        (("depth", "--count", "0"), "a count of 0"),
        (("depth", "--seed", "-1"), "seed -1"),
        (("depth", "--workers", "0"), "--workers 0"),
        (("depth", "--split", "exam"), "unknown split 'exam'"),
        (("depth", "--split", "other-simulator"), "--montecarlo DIR"),
        (("depth", "--split", "real"), "--real DIR"),
    ],
)
def test_a_wrong_order_is_one_line_and_a_usage_error(words: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    result = asked(*words, "--out", tmp_path / "d")
    assert isinstance(result.exception, UsageError)
    assert complaint in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "d").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = asked("depth", "--count", 10, "--out", tmp_path / "file" / "d", "--workers", 1)
    assert isinstance(result.exception, BeamsideError)
    assert "Not a directory" in str(result.exception)


def test_verify_of_no_dataset_is_one_line(tmp_path: Path) -> None:
    result = asked("--verify", tmp_path / "nothing")
    assert isinstance(result.exception, BeamsideError)
    assert "no such file or folder" in str(result.exception)


def test_a_sheet_shows_heights_beside_the_frames(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    asked("depth", "--count", 40, "--out", tmp_path / "d", "--workers", 1, "--sheet", sheet)
    picture = cv2.imread(str(sheet))
    assert picture is not None
    left, top = dataset_sheet.MARGIN, dataset_sheet.HEAD + dataset_sheet.SECTION
    frame = picture[top + 4 : top + 250, left + 4 : left + 250]
    heights = picture[top + 4 : top + 250, left + 260 : left + 508]
    assert (frame.std(axis=2) == 0).all()  # grey
    assert (heights.std(axis=2) > 0).mean() > 0.9  # in colours


def test_a_sheet_draws_the_box_of_a_defect_where_it_is(tmp_path: Path) -> None:
    rows = {
        "image": np.full((1, 128, 128), 90, np.uint8),
        "kind": np.zeros(1, np.uint8),
        "box_px": np.array([[[40, 50, 80, 90]]], np.float32),
        "label": np.array([[CLASSES.index("bridge")]], np.int8),
        "visible": np.array([[True]]),
        "pixel_size_m": np.full(1, np.nan, np.float32),
        "geometry": np.zeros((1, 2), np.int64),
    }
    (tmp_path / "train").mkdir()
    digest = shards.write(tmp_path / "train" / "00000.npz", rows)
    shard = Shard("train/00000.npz", "train", 1, 1, 1, digest, {"lines": 1})
    columns = (Column("image", (128, 128), "uint8", "grey level", "the frame"),)
    split = Split("train", "to learn from", 16, 1, ("lines",), columns)
    index.write(tmp_path, Index(Identity("defects", 1, "0" * 16, (), 240), 1, True, CLASSES, (split,), (shard,)))
    assert read.verify(tmp_path).good
    page = dataset_sheet.draw(tmp_path)
    left, top = dataset_sheet.MARGIN, dataset_sheet.HEAD + dataset_sheet.SECTION
    cell = page[top : top + 256, left : left + 256]
    coloured = (cell.astype(int).max(axis=2) - cell.min(axis=2)) > 60
    ys, xs = np.nonzero(coloured)
    assert xs.min() == pytest.approx(2 * 40 - 3, abs=3)  # shown at twice its size
    assert xs.max() == pytest.approx(2 * 80 + 3, abs=3)
    assert ys.max() == pytest.approx(2 * 90 + 3, abs=3)
