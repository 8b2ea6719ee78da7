"""`beamside focus SERIES.csv`: pictures by another simulator on disk, JSON out."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.errors import BeamsideError
from tests.simulator import ALPHA_RAD, H_M, PX_M, series

WD_M = 4.2e-3
HEADER = "path,working_distance_m,stigmator_x,stigmator_y,pixel_size_m"


def write(
    folder: Path, kind: str, defocus_h: list[float], *, snr: float = 0.64, seed: int = 1, alpha: bool = True
) -> Path:
    lines = [HEADER + (",semi_convergence_angle_rad" if alpha else "")]
    for i, pixels in enumerate(series(kind, [z * H_M for z in defocus_h], snr=snr, seed=seed)):
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        wd = WD_M + (defocus_h[i] - defocus_h[0]) * H_M
        lines.append(f"{i}.png,{wd!r},0.0,0.0,{PX_M!r}" + (f",{ALPHA_RAD}" if alpha else ""))
    path = folder / "series.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def ask(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["focus", str(path), "--json", *options])


def told(path: Path, *options: str) -> dict[str, float]:
    result = ask(path, *options)
    assert result.exit_code == 0, result.output
    answer: dict[str, float] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize("start_h", [-21.0, -6.0, 9.0, 17.0])
def test_a_start_frame_and_a_pair_tell_the_defocus_of_the_first_row(tmp_path: Path, start_h: float) -> None:
    answer = told(write(tmp_path, "blobs", [start_h, start_h + 8, start_h - 8]))
    assert set(answer) == {
        "defocus_m", "sigma_m", "astigmatism_x_m", "astigmatism_y_m", "sigma_astigmatism_m", "abstained", "reason",
    }  # fmt: skip
    assert answer["abstained"] is False
    assert abs(answer["defocus_m"] / H_M - start_h) < 1.0


def test_a_flat_field_abstains_with_nulls_and_exit_0(tmp_path: Path) -> None:
    answer = told(write(tmp_path, "flat", [4.0, 12.0, -4.0]))
    assert answer["abstained"] is True
    assert answer["reason"] in ("featureless", "ambiguous", "noise_only")
    assert answer["defocus_m"] is None


def test_without_the_angle_two_frames_are_uncalibrated_and_three_are_not(tmp_path: Path) -> None:
    two, three = tmp_path / "two", tmp_path / "three"
    two.mkdir(), three.mkdir()
    assert told(write(two, "cloud", [8.0, 0.0], snr=1.8, alpha=False))["reason"] == "uncalibrated"
    answer = told(write(three, "cloud", [6.0, 14.0, -2.0], snr=1.8, alpha=False))
    assert abs(answer["defocus_m"] / H_M - 6.0) < 1.0


def test_each_frame_as_first_row_moves_the_answer_by_its_known_step(tmp_path: Path) -> None:
    defocus_h = [5.0, 13.0, -3.0]
    path = write(tmp_path, "cloud", defocus_h, snr=1.0)
    head, *rows = path.read_text().split()
    for i in range(3):
        path.write_text("\n".join([head, *rows[i:], *rows[:i]]))
        assert abs(told(path)["defocus_m"] / H_M - defocus_h[i]) < 0.5


def test_sixteen_bits_and_subfolders_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "blobs", [4.0, 12.0], snr=1.8)
    for i in range(2):
        deep = cv2.imread(str(tmp_path / f"{i}.png"), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 200
        cv2.imwrite(str(tmp_path / f"{i}.png"), deep)
    assert abs(told(path)["defocus_m"] / H_M - 4.0) < 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        (f"{HEADER}\n", "no rows"),
        ("path,working_distance_m\na.png,1\n", "stigmator_x"),
        (f"{HEADER}\nno.png,0.005,0,0,1e-8\n", "no.png"),
        (f"{HEADER}\n0.png,near,0,0,1e-8\n", "'near'"),
        (f"{HEADER}\n0.png,0.005,0,0,nan\n", "pixel_size_m"),
        (f"{HEADER}\n0.png,0.005,0,0,0\n", "above zero"),
    ],
)
def test_a_bad_series_is_one_clear_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, "blobs", [4.0, 12.0])
    path.write_text(text)
    result = ask(path)
    assert isinstance(result.exception, BeamsideError)
    assert result.exception.exit_code in (1, 2)
    assert says in str(result.exception)
