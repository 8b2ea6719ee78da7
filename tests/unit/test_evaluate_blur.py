"""`beamside evaluate blur`: a folder of frames of known blur, and folders that are none."""

import csv
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.errors import UsageError
from calibration.evaluate.blur_table import Frame, reference_of
from calibration.twin.roughness import fractal

COLUMNS = ("file", "kind", "sample_seed", "sigma_px", "astig_ratio", "astig_angle_rad", "poisson_dose")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharp frame, a round one twice as blurred as it is, and one stretched across 30 degrees."""
    place, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(1)
    patches = np.asarray(fractal((192, 192), coarse_px=30.0, octaves=5, rng=rng) > 0.0, np.float32)
    rows = []
    for name, sigma, ratio, angle in (("sharp", 0.8, 1.0, 0.0), ("soft", 2.0, 1.0, 0.0), ("oval", 3.0, 1.4, 0.5)):
        seen = through(patches, sigma / ratio, sigma * ratio, angle) + 0.01 * rng.standard_normal(patches.shape)
        tifffile.imwrite(place / f"{name}.tiff", (60.0 + 120.0 * seen).astype(np.float32))
        rows.append((f"{name}.tiff", "patches", 1, sigma, ratio, angle, 200))
    write(place, rows)
    return place


def through(field: np.ndarray, along_px: float, across_px: float, angle_rad: float) -> np.ndarray:
    """Blurred by a Gaussian with that sigma along the angle, and across it."""
    y, x = np.mgrid[-24:25, -24:25].astype(np.float64)
    u, v = x * np.cos(angle_rad) + y * np.sin(angle_rad), y * np.cos(angle_rad) - x * np.sin(angle_rad)
    kernel = np.exp(-0.5 * ((u / along_px) ** 2 + (v / across_px) ** 2))
    return cv2.filter2D(field, cv2.CV_32F, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def write(place: Path, rows: list[tuple[object, ...]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (place / "truth.csv").open("w", newline="") as table:
        csv.writer(table).writerows([columns, *rows])


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "blur", *map(str, words)])


def test_blur_and_axis_are_read_back(folder: Path) -> None:
    result = run(folder, "--json")
    assert result.exit_code == 0, result.output
    told = msgspec.json.decode(result.stdout)
    rows = {each["file"]: each for each in told["frames"]}
    assert set(rows) == {"soft.tiff", "oval.tiff"}  # the sharpest is what the others are compared with
    assert rows["soft.tiff"]["added_px"] == pytest.approx(np.sqrt(2.0**2 - 0.8**2))
    for row in rows.values():
        assert abs(row["relative_error"]) < told["target"]
        assert row["misfit"] == pytest.approx(1.0, abs=0.15)
    assert rows["soft.tiff"]["axis_error_deg"] is None
    assert abs(rows["oval.tiff"]["axis_error_deg"]) < 3.0


def test_the_table_says_how_many_are_within_the_aim(folder: Path) -> None:
    assert "100% of 2 frames within 5% of the added blur" in run(folder).output


def test_a_frame_that_cannot_be_read_is_a_row_and_exit_1(folder: Path, tmp_path: Path) -> None:
    for each in folder.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    (tmp_path / "soft.tiff").write_bytes(b"no picture")
    result = run(tmp_path, "--json")
    assert result.exit_code == 1
    told = msgspec.json.decode(result.stdout)
    assert told["failed"] == 1
    assert [each["file"] for each in told["frames"] if "error" in each] == ["soft.tiff"]


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([], COLUMNS, "no frame in it"),
        ([("a.tiff", "lines")], ("file", "kind"), "no column sample_seed"),
        ([("a.tiff", "lines", 1, "wide", 1.0, 0.0, 200)], COLUMNS, "line 2"),
        ([("a.tiff", "lines", 1, -1.0, 1.0, 0.0, 200)], COLUMNS, "positive numbers only"),
        ([("a.tiff", "lines", 1, "nan", 1.0, 0.0, 200)], COLUMNS, "positive numbers only"),
    ],
)
def test_a_broken_list_is_named(
    rows: list[tuple[object, ...]], columns: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    write(tmp_path, rows, columns)
    result = run(tmp_path)
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)


def test_a_folder_without_a_list_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere")
    assert isinstance(result.exception, UsageError)
    assert "a folder with truth.csv is needed" in str(result.exception)


def test_the_reference_is_the_sharpest_round_frame_of_the_same_sample_with_most_electrons() -> None:
    def frame(file: str, sample: str, sigma: float, ratio: float, dose: float) -> Frame:
        return Frame(file, sample, "lines", sigma, ratio, 0.0, dose)

    frames = [
        frame("few", "a", 0.7, 1.0, 30), frame("many", "a", 0.7, 1.0, 200), frame("oval", "a", 0.6, 1.3, 200),
        frame("soft", "a", 3.0, 1.0, 200), frame("other", "b", 0.5, 1.0, 200),
    ]  # fmt: skip
    assert reference_of(frames[3], frames) == frames[1]
    assert [reference_of(each, frames) for each in (frames[0], frames[1], frames[4])] == [None, None, None]
