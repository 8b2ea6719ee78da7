"""A frame whose design is known: where it lies, how far its edges lie outside, and how bright the ground is."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from agent.__main__ import app
from agent.errors import BeamsideError, UsageError
from calibration.fit.designed import Designed, Standing, designed
from calibration.fit.errors import FitError
from calibration.fit.imaging import Chain, imaged
from calibration.fit.sample import Sample, valid_of
from calibration.fit.twin import Fitted, fit
from calibration.twin.emission import SILICON_1KEV, render
from calibration.twin.profile import Charging, Spot

Field = NDArray[np.float32]

PX = 3e-9
SIDE, WINDOW = 200, (slice(36, 164), slice(36, 164))
STANDING = Standing(height_m=60e-9, side_wall_deg=86.0)
BIAS_PX, BLUR_PX, GROUND, SHIFT_PX = 1.4, 5.0, 0.6, (3.3, -2.2)
GAIN, BLACK = 90.0, 20.0


def cover(seed: int = 4, side: int = SIDE) -> Field:
    """Islands, drawn."""
    rough = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((side, side)), (0, 0), 9.0)
    return np.asarray(rough > 0.0, np.float32)


def picture(drawn: Field) -> NDArray[np.uint8]:
    """What a microscope makes of it, a little larger, elsewhere, and dimmer beside."""
    made = Designed(drawn, (slice(None), slice(None)), STANDING, PX).relief(
        np.array([*SHIFT_PX, BIAS_PX, BLUR_PX, GROUND])
    )
    shown = render(made.height_m, SILICON_1KEV, pixel_size_m=PX, sky=made.sky, material=made.material)
    seen = imaged(shown, Chain(Spot(3e-9, 3e-9, 0.0), Charging(0.0, 1.0)), pixel_size_m=PX, shift_px=SHIFT_PX)
    noisy = np.random.default_rng(1).normal(GAIN * seen + BLACK, 2.0)
    return np.asarray(np.clip(noisy + 0.5, 0, 255), np.uint8)


@lru_cache(maxsize=1)
def fitted() -> Fitted:
    drawn = cover()
    shown = picture(drawn)
    levels = np.asarray(shown, np.float32)
    sample = Sample(
        name="islands",
        sha256="0" * 64,
        levels=np.ascontiguousarray(levels[WINDOW]),
        valid=valid_of(np.ascontiguousarray(shown[WINDOW]), cut_out=True),
        pixel_size_m=PX,
        geometry=designed(levels, drawn, window=WINDOW, standing=STANDING, pixel_size_m=PX),
        black=BLACK,
    )
    return fit([sample], progress=lambda *_: None)


def test_the_frame_is_laid_on_its_design_to_a_fifth_of_a_pixel() -> None:
    placed = fitted().frames[0].placed
    assert abs(placed["shift_x_px"] - SHIFT_PX[0]) < 0.2
    assert abs(placed["shift_y_px"] - SHIFT_PX[1]) < 0.2


def test_edges_outside_the_drawn_ones_are_measured() -> None:
    assert abs(fitted().frames[0].placed["bias_px"] - BIAS_PX) < 0.25


def test_the_blur_that_rounded_the_corners_is_measured() -> None:
    assert abs(fitted().frames[0].placed["blur_px"] - BLUR_PX) < 0.5


def test_another_material_of_the_ground_is_told_from_topography() -> None:
    assert abs(fitted().frames[0].placed["ground_yield"] - GROUND) < 0.05


def test_little_is_left_of_what_the_twin_rendered() -> None:
    assert fitted().frames[0].nrmse < 0.02


def test_a_frame_of_another_place_is_refused() -> None:
    other = np.asarray(picture(cover(seed=9)), np.float32)
    with pytest.raises(FitError, match=r"alike by|beside its design"):
        designed(other, cover(), window=WINDOW, standing=STANDING, pixel_size_m=PX)


def test_an_upside_down_design_says_what_to_do() -> None:
    levels = np.asarray(picture(cover()), np.float32)
    with pytest.raises(FitError, match=r"--design-inverted|another place"):
        designed(levels, 1.0 - cover(), window=WINDOW, standing=STANDING, pixel_size_m=PX)


def test_a_window_without_an_edge_is_refused() -> None:
    half = np.zeros((SIDE, SIDE), np.float32)
    half[:, :60] = 1.0
    levels = np.asarray(picture(half), np.float32)
    with pytest.raises(FitError, match="no edge"):
        designed(levels, half, window=(slice(80, 120), slice(120, 180)), standing=STANDING, pixel_size_m=PX)


@pytest.mark.parametrize(("height_m", "wall"), [(0.0, 88.0), (-1e-9, 88.0), (60e-9, 95.0), (float("nan"), 88.0)])
def test_what_cannot_stand_is_refused(height_m: float, wall: float) -> None:
    with pytest.raises(FitError, match="expected"):
        Standing(height_m, wall)


def test_the_command_takes_a_folder_of_designs(tmp_path: Path) -> None:
    drawn = cover()
    (tmp_path / "designs").mkdir()
    cv2.imwrite(str(tmp_path / "designs/one.png"), np.asarray(255 * np.kron(drawn, np.ones((2, 2))), np.uint8))
    cv2.imwrite(str(tmp_path / "one.png"), picture(drawn))
    arguments = [tmp_path / "one.png", "--design", tmp_path / "designs", "--height-m", "60e-9", "--pixel-size-m", PX]
    arguments += ["--black-level", BLACK, "--window-px", 96, "--out", tmp_path / "profile.json", "--json"]
    done = CliRunner().invoke(app, ["calibrate", "twin", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert '"geometry": "design"' in done.output


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["calibrate", "twin", *map(str, arguments)])
    assert isinstance(done.exception, BeamsideError | UsageError), done.output
    return str(done.exception)


def test_a_frame_without_its_design_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), picture(cover()))
    (tmp_path / "designs").mkdir()
    told = refused(tmp_path / "one.png", "--design", tmp_path / "designs", "--height-m", 6e-8, "--pixel-size-m", PX)
    assert "one.png" in told and "No such file" in told


def test_a_design_without_a_height_is_a_usage_error(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), picture(cover()))
    assert "--height-m" in refused(tmp_path / "one.png", "--design", tmp_path / "one.png", "--pixel-size-m", PX)


def test_a_design_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "one.png", "--design", tmp_path / "none", "--height-m", 6e-8)
