"""`beamside look`: files in, rows out; good ones beside bad ones, small ones, flat ones, those without metadata."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.bridges import vendor
from agent.commands import look as command
from agent.commands.looking import Looker, Models, Told
from agent.commands.outputs import Outputs
from agent.errors import ConfigurationError, UsageError
from agent.messages import FLAG_CODES, Optics
from engines.errors import InferenceError
from engines.readings import FoundDefect

DATA = Path(__file__).parents[2].parent / "shared" / "data"
KEYS = {"path", "shape", "optics", "focus", "depth", "defects", "count", "flags", "took_s"}
DEFECT_KEYS = {"class", "path", "levels", "box_px", "size_m", "confidence", "height_m", "stage_x_m", "stage_y_m"}


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.loaded()


@pytest.fixture(autouse=True)
def loaded_once(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: models))


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["look", *map(str, words)])


def rows_of(result: Result) -> list[dict[str, Any]]:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def row_of(*words: object) -> dict[str, Any]:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    (row,) = rows_of(result)
    assert set(row) == KEYS
    assert set(row["flags"]) <= set(FLAG_CODES)
    assert row["count"] == len(row["defects"])
    return row


def pattern(rows: int = 160, columns: int = 192, seed: int = 1) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    x = np.arange(columns)[None, :] + np.zeros((rows, 1))
    return np.clip(120 + 50 * np.sign(np.sin(x / 4)) + random.normal(0, 15, (rows, columns)), 1, 254).astype(np.uint8)


def written(path: Path, pixels: NDArray[Any], suffix: str = ".png") -> Path:
    done, coded = cv2.imencode(suffix, pixels)
    assert done
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(coded.tobytes())
    return path


# Rows


def test_a_row_holds_what_the_design_names(tmp_path: Path) -> None:
    row = row_of(written(tmp_path / "a.png", pattern()), "--pixel-size-m", 3e-9, "--accelerating-voltage-v", 1000)
    assert row["shape"] == [160, 192]
    assert set(row["optics"]) == set(Optics.__struct_fields__)
    assert (row["optics"]["pixel_size_m"], row["optics"]["accelerating_voltage_v"]) == (3e-9, 1000)
    assert row["optics"]["working_distance_m"] is None
    assert set(row["focus"]) == {"score", "blur_px", "blur_uncertainty_px"}
    assert 0 <= row["focus"]["score"] <= 10
    assert set(row["depth"]) == {"map", "calibrated", "mean_m"}
    assert (row["depth"]["map"], row["depth"]["calibrated"]) == (None, False)
    assert {"autofocus", "depth", "defects"} <= set(row["took_s"])


def test_without_a_pixel_size_heights_are_unknown_and_the_rest_stands(tmp_path: Path) -> None:
    result = run(written(tmp_path / "a.png", pattern()), "--json", "--depth-dir", tmp_path / "d")
    (row,) = rows_of(result)
    assert row["depth"] is None
    assert row["focus"] is not None
    assert row["flags"] == ["no_pixel_size"]
    assert all(defect["height_m"] is None for defect in row["defects"])
    assert "--pixel-size-m" in result.stderr
    assert list((tmp_path / "d").iterdir()) == []


def test_what_the_user_says_outranks_the_file_with_all_that_depends_on_it(tmp_path: Path) -> None:
    tag = b"PixelSizeX=1.25e-008\r\nPixelSizeY=1.3e-008\r\nHV=15000\r\nWD=0.007\r\n"
    tifffile.imwrite(tmp_path / "t.tif", pattern(), extratags=[(vendor.TESCAN, 1, len(tag), tag, True)])
    said = row_of(tmp_path / "t.tif")["optics"]
    assert (said["pixel_size_m"], said["pixel_size_y_m"], said["accelerating_voltage_v"]) == (1.25e-8, 1.3e-8, 15000)
    told = row_of(tmp_path / "t.tif", "--pixel-size-m", 2e-9, "--accelerating-voltage-v", 800)["optics"]
    assert (told["pixel_size_m"], told["pixel_size_y_m"], told["accelerating_voltage_v"]) == (2e-9, 2e-9, 800)
    assert told["horizontal_field_width_m"] is None
    assert told["working_distance_m"] == 0.007


def test_rows_come_in_the_order_given_and_bad_files_do_not_stop_good_ones(tmp_path: Path) -> None:
    good = written(tmp_path / "good.png", pattern())
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "notes.png").write_text("this is no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "folder").mkdir()
    bad = {
        "empty.png": "it is empty: 0 bytes",
        "nobody.png": "No such file",
        "notes.png": "not an image",
        "cut.png": "cut off",
        "folder": "is a folder; give the images in it",
    }
    result = run(good, *(tmp_path / name for name in bad), good, "--json")
    rows = rows_of(result)
    assert result.exit_code == 1
    assert [row["path"] for row in rows] == [str(good), *(str(tmp_path / name) for name in bad), str(good)]
    assert set(rows[0]) == set(rows[-1]) == KEYS
    for row, (name, why) in zip(rows[1:-1], bad.items(), strict=True):
        assert set(row) == {"path", "error"}
        assert why in row["error"]
        assert f"{name}: " in result.stderr


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_row_with_its_reason(tmp_path: Path) -> None:
    locked = written(tmp_path / "locked.png", pattern())
    locked.chmod(0)
    (row,) = rows_of(run(locked, "--json"))
    assert "Permission denied" in row["error"]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (row,) = rows_of(run(tmp_path / "pipe", "--json"))
    assert "not a regular file" in row["error"]


def test_the_table_names_each_file_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    result = run(written(tmp_path / "a.png", pattern()), tmp_path / "nobody.png")
    assert result.exit_code == 1
    assert "a.png" in result.stdout
    assert "192x160" in result.stdout
    assert "not read" in result.stdout
    assert "nobody.png: cannot be read" in result.stderr


def test_a_name_that_is_no_text_is_looked_at_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.png")
    file.write_bytes(written(tmp_path / "a.png", pattern()).read_bytes())
    (row,) = rows_of(run(file, "--json", "--overlay-dir", tmp_path / "o"))
    assert row["path"] == str(file)
    table = run(file, "--overlay-dir", tmp_path / "o")
    assert table.exit_code == 0, table.exception
    assert "caf?.png" in table.stdout


@pytest.mark.parametrize("words", [[], ["--nonsense", "a.png"], ["a.png", "--pixel-size-m", "small"]])
def test_wrong_usage_is_exit_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("size", ["0", "-1e-9", "nan", "inf", "3"])
def test_an_impossible_pixel_size_is_refused_with_what_was_expected(tmp_path: Path, size: str) -> None:
    result = run(written(tmp_path / "a.png", pattern()), f"--pixel-size-m={size}")
    assert isinstance(result.exception, UsageError)
    assert "expected 1e-13 to 0.001" in str(result.exception)


def test_a_model_that_fails_is_the_row_of_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def read(self, *_: object) -> None:
            raise InferenceError("output height_px of the model is not finite")

    whole = Models.loaded()
    broken = Models(whole.autofocus, Broken(), whole.defects)
    monkeypatch.setattr(Models, "loaded", classmethod(lambda cls, _=None: broken))
    file = written(tmp_path / "a.png", pattern())
    result = run(file, "--json", "--pixel-size-m", 3e-9, "--depth-dir", tmp_path / "d")
    assert result.exit_code == 1
    assert rows_of(result) == [{"path": str(file), "error": "output height_px of the model is not finite"}]
    assert list((tmp_path / "d").iterdir()) == []


# Pictures of every kind


def test_a_blank_picture_has_a_score_of_zero_no_blur_and_no_defects(tmp_path: Path) -> None:
    row = row_of(written(tmp_path / "b.png", np.full((200, 200), 90, np.uint8)), "--pixel-size-m", 1e-9)
    assert row["focus"] == {"score": 0.0, "blur_px": None, "blur_uncertainty_px": None}
    assert (row["depth"], row["count"]) == (None, 0)
    assert row["flags"] == ["blank"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (20, 16), (32, 32), (31, 500)])
def test_a_tiny_picture_is_mirrored_out_read_and_said_to_be_too_small_for_focus(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    pixels = np.tile(pattern(64, 64), (1, 8))[: shape[0], : shape[1]]
    result = run(written(tmp_path / "t.png", pixels), "--json", "--pixel-size-m", 3e-9, "--depth-dir", tmp_path)
    (row,) = rows_of(result)
    assert result.exit_code == 0
    assert row["shape"] == list(shape)
    if "blank" not in row["flags"]:
        assert row["focus"] is None
        assert "too small to judge focus" in result.stderr
        assert np.load(row["depth"]["map"]).shape == shape
    for defect in row["defects"]:
        x0, y0, x1, y1 = defect["box_px"]
        assert 0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]


def colour(path: Path) -> Path:
    return written(path, np.dstack([pattern(), pattern(seed=2), pattern(seed=3)]))


def one_bit(path: Path) -> Path:
    tifffile.imwrite(path, pattern() > 120, photometric="minisblack")
    return path


def few_levels(path: Path) -> Path:
    tifffile.imwrite(path, (pattern() // 40).astype(np.uint16) + 1000)
    return path


def deep(path: Path) -> Path:
    tifffile.imwrite(path, pattern().astype(np.uint32) * 70000)
    return path


def bitmap(path: Path) -> Path:
    return written(path, pattern(), ".bmp")


def photograph(path: Path) -> Path:
    return written(path, pattern(), ".jpg")


@pytest.mark.parametrize("make", [colour, one_bit, few_levels, deep, bitmap, photograph])
def test_pictures_of_every_kind_are_read_under_any_suffix(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    row = row_of(make(tmp_path / "x.png"), "--pixel-size-m", 3e-9)
    assert row["shape"] == [160, 192]
    assert row["focus"] is not None
    assert row["depth"] is not None


def test_black_and_white_is_said_to_be_saturated(tmp_path: Path) -> None:
    assert "saturated" in row_of(one_bit(tmp_path / "x.tif"))["flags"]
    assert "saturated" not in row_of(few_levels(tmp_path / "y.tif"))["flags"]


def test_of_a_file_of_several_pages_the_first_whole_one_is_looked_at(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as tiff:
        tiff.write(pattern(40, 48), subfiletype=1)
        tiff.write(pattern())
        tiff.write(pattern(seed=5))
    assert row_of(tmp_path / "m.tif")["shape"] == [160, 192]


# Real ones


REAL = [
    "thermo_tiff/P33_scale1_detectorA.tif", "zeiss_tiff/test_tiff_Zeiss_SEM_512pix.tif", "thermo_frames/a.tif",
    "cad_sem/cad/0.05_1.png", "artimagen", "particles/images/Cu1.jpg", "montecarlo/topo_stairs_diag_SE.png",
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_images_of_every_source_give_a_row(tmp_path: Path, name: str) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here: real images are not part of the project")
    path = sorted(path.glob("*.tiff"))[0] if path.is_dir() else path
    row = row_of(path, "--depth-dir", tmp_path / "d", "--overlay-dir", tmp_path / "o")
    assert row["focus"] is not None
    assert (tmp_path / "o" / f"{path.stem}.png").stat().st_size > 1000
    for defect in row["defects"]:
        assert set(defect) == DEFECT_KEYS
    if row["depth"] is not None:
        heights = np.load(row["depth"]["map"])
        assert heights.shape == (row["shape"][0] - (row["optics"]["databar_rows"] or 0), row["shape"][1])
        assert row["depth"]["mean_m"] == pytest.approx(float(heights.mean(dtype=np.float64)), rel=1e-6)


# Progress, and what is not loaded


def test_progress_appears_on_stderr_only_after_a_while(capfd: pytest.CaptureFixture[str]) -> None:
    times: Iterator[float] = iter([0.0, 1.0, 1.9, 2.1, 2.2, 2.3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "perf_counter", lambda: next(times))
        with command.Bar(4) as bar:
            bar.at(0.0, "a.png")
            bar.at(0.5, "a.png")
            assert capfd.readouterr().err == ""
            bar.at(1.0, "b.png")
            bar.at(1.5, "b.png")
        shown = capfd.readouterr()
    assert "2 of 4  b.png" in shown.err
    assert shown.out == ""


def test_looking_never_loads_torch_nor_anything_else_of_calibration(tmp_path: Path) -> None:
    file = written(tmp_path / "a.png", pattern())
    code = (
        "import sys; from agent.__main__ import app\n"
        f"app(['look', {str(file)!r}, '--json', '--pixel-size-m', '3e-9'], standalone_mode=False)\n"
        "print(sorted({'torch', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_a_configuration_that_cannot_work_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEAMSIDE_ENGINES__FOO", "1")
    assert isinstance(run(tmp_path / "a.png").exception, ConfigurationError)


def test_finds_on_pixels_beyond_the_training_are_said_to_be_hints(models: Models, tmp_path: Path) -> None:
    class Finds:
        wants_reference = False

        def read(self, image: Any, scene: Any, levels: Any = None, **_: Any) -> tuple[FoundDefect, ...]:
            return (FoundDefect("pit", 0.9, (30.0, 30.0, 44.0, 44.0)),)

    path = tmp_path / "coarse.png"
    assert cv2.imwrite(str(path), np.random.default_rng(3).integers(60, 190, (256, 256)).astype(np.uint8))
    for pixel_size_m, warned in ((65e-9, True), (3e-9, False)):
        finding = replace(models, defects=Finds(), cascade=None)
        looker = Looker(finding, Told(pixel_size_m), Outputs(None, None, [str(path)]))
        lines = command.problems(command.look_at([str(path)], looker))
        assert any("take them as hints" in line for line in lines) is warned
