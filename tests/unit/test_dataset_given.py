"""Depth frames under a user's own layouts and profile: what they show, and when a folder may be taken up again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.commands import calibrate
from agent.errors import BeamsideError, UsageError
from calibration.dataset import rows_given
from calibration.dataset.plan import Order, identity_of
from calibration.dataset.rows_given import Given, named
from calibration.dataset.splits import NONE, Shift
from calibration.train import depth_data
from calibration.train.develop import draw_look
from calibration.twin.cad import Layout
from calibration.twin.profile import SIGMA
from tests.unit.test_fit_profile import profile
from tests.unit.test_twin_cad import PITCH_M, drawing, picture, stripes_m


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_data, "SIDE", 128)


def layouts(folder: Path) -> Given:
    return Given((("lines.gds", Layout(drawing(folder))), ("lines.png", Layout(picture(folder), 2e-9))))


def asked(*words: object) -> object:
    return CliRunner().invoke(calibrate.app, ["dataset", *map(str, words)])


def test_frames_show_the_layout_at_its_scale_with_heights_as_truth(tmp_path: Path) -> None:
    given = layouts(tmp_path)
    rows = rows_given.rows(given, 0, 7, NONE)
    assert rows["image"].shape == (depth_data.LOOKS, 128, 128)
    size_m = float(rows["pixel_size_m"][0])
    assert stripes_m(rows["height_px"][0].astype(np.float64), size_m) == pytest.approx(PITCH_M, rel=0.1)
    again = rows_given.rows(given, 0, 7, NONE)
    assert all(np.array_equal(rows[name], again[name]) for name in rows)
    assert {int(rows_given.rows(given, index, 7, NONE)["kind"][0]) for index in range(6)} == {0, 1}


def test_a_look_under_a_profile_has_the_tools_constants() -> None:
    found = profile(emission__side=0.5, noise__factor=2.2)
    drawn = draw_look(np.random.default_rng(1), pixel_size_m=2e-9)
    look = rows_given.under(drawn, found, pixel_size_m=2e-9)
    assert (look.emission.side, look.burst) == (0.5, 2.2)
    assert look.electrons_per_pixel == drawn.electrons_per_pixel
    assert np.hypot(*look.probe_px) * 2e-9 == pytest.approx(np.hypot(found.spot.major_m, found.spot.minor_m))
    parameters = (replace(p, determined=False, sigma=None) if p.name == SIGMA else p for p in found.parameters)
    untold = replace(found, parameters=tuple(parameters))
    assert rows_given.under(drawn, untold, pixel_size_m=2e-9).probe_px == drawn.probe_px


def test_a_profile_alone_looks_at_the_trainings_own_reliefs_and_tells_no_voltage() -> None:
    rows = rows_given.rows(Given(profile=profile()), 1, 3, Shift(half_dose=True, charging=True))
    assert 0 <= int(rows["kind"][0]) < len(depth_data.KINDS)
    other = rows_given.rows(Given(profile=profile(emission__side=0.1)), 1, 3, Shift(half_dose=True, charging=True))
    np.testing.assert_array_equal(rows["height_px"], other["height_px"])
    assert not np.array_equal(rows["image"], other["image"])


def test_a_folder_is_not_taken_up_again_with_other_layouts(tmp_path: Path) -> None:
    path, out = picture(tmp_path), tmp_path / "d"
    words = ("depth", "--count", 3, "--split", "train", "--workers", 1, "--out", out, "--layouts", path, "--json")
    result = asked(*words, "--layout-scale-nm", 2)
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["frames"] == 3
    assert json.loads((out / "dataset.json").read_text())["splits"][0]["kinds"] == ["lines.png"]
    other = asked(*words, "--layout-scale-nm", 4)
    assert isinstance(other.exception, BeamsideError)
    assert "other layouts" in str(other.exception)


@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        ("defects", ("--layouts", "lines.gds"), "are for depth"),
        ("depth", ("--layouts", "lines.png"), "give --layout-scale-nm"),
        ("depth", ("--layouts", "none"), "no layout there"),
        ("depth", ("--layout-scale-nm", 1), "of which layouts"),
        ("depth", ("--layouts", "lines.gds", "--hold-out", "moon"), "it has lines.gds"),
    ],
)
def test_what_cannot_be_made_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, options: tuple[object, ...], told: str
) -> None:
    drawing(tmp_path)
    picture(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = asked(task, "--out", "d", *options)
    assert isinstance(result.exception, UsageError), result.exception
    assert told in str(result.exception)


def test_families_are_named_by_what_tells_the_files_apart(tmp_path: Path) -> None:
    paths = (tmp_path / "a" / "mask.png", tmp_path / "b" / "mask.png")
    assert [name for name, _ in named(paths)] == ["a/mask.png", "b/mask.png"]
    assert [name for name, _ in named(paths[:1])] == ["mask.png"]


def test_the_identity_of_a_dataset_holds_what_was_given(tmp_path: Path) -> None:
    given = layouts(tmp_path)
    one, other, none = (
        identity_of(Order("depth", 3, 1, given=each)).given for each in (given, replace(given, profile=profile()), None)
    )
    assert one != other and none == ""
