"""The profile of a tool: what is written is read again, and what no instrument can be is refused by name."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from calibration.twin.emission import Emission
from calibration.twin.profile import (
    EMISSION,
    KEEP,
    LENGTH,
    NAMES,
    SIGMA,
    STRENGTH,
    STRETCH_X,
    STRETCH_XY,
    FrameFit,
    Pair,
    Parameter,
    Profile,
    ProfileError,
    Spot,
    load,
    spot_of,
    stretch_of,
)

VALUES = {EMISSION + each.name: float(getattr(Emission(), each.name)) for each in fields(Emission)} | {
    SIGMA: 3e-9,
    STRETCH_X: 0.1,
    STRETCH_XY: -0.2,
    STRENGTH: -0.1,
    LENGTH: 40.0,
    KEEP: math.exp(-2.0),
    "noise.factor": 1.63,
}


def profile(**changed: float) -> Profile:
    values = VALUES | {name.replace("__", "."): value for name, value in changed.items()}
    frame = FrameFit(
        name="a",
        sha256="00",
        geometry="lines",
        shape=(64, 48),
        pixel_size_m=3e-9,
        gain=2.0,
        offset=-1.0,
        nrmse=0.03,
        noise_slope=0.0,
        noise_slope_sigma=None,
        counts=False,
        placed={"phase_px": 1.5},
        placed_sigma={"phase_px": 0.1},
    )
    known = tuple(Parameter(name, value, 0.01, True, value, value - 1.0, value + 1.0) for name, value in values.items())
    pair = Pair(EMISSION + "side", EMISSION + "shadow", 0.97)
    return Profile("tool", "recipe", "2026-01-01T00:00:00+00:00", "0", (frame,), known, (pair,))


def edited(path: Path, **changed: Any) -> Path:
    profile().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return path


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = profile()
    written.save(tmp_path / "p.json")
    assert load(tmp_path / "p.json") == written
    assert [each.name for each in tmp_path.iterdir()] == ["p.json"]


def test_it_gives_the_renderer_what_it_takes() -> None:
    found = profile()
    assert found.emission == Emission()
    assert (found.charging.strength, found.charging.length_px) == (-0.1, 40.0)
    assert found.lag_px == pytest.approx(0.5)
    assert found.variance_factor == 1.63


def test_a_spot_and_its_stretch_are_the_same() -> None:
    spot = Spot(5e-9, 3e-9, 1.1)
    again = spot_of(dict(zip((SIGMA, STRETCH_X, STRETCH_XY), stretch_of(spot), strict=True)))
    assert again.major_m == pytest.approx(5e-9)
    assert again.minor_m == pytest.approx(3e-9)
    assert again.angle_rad == pytest.approx(1.1)


def test_a_failed_write_leaves_the_old_profile_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    profile().save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calibration.twin.profile.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        profile(noise__factor=2.0).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["p.json"]


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="calibrate twin"):
        load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"schema": 9}, "schema"),
        ({"colour": 1}, "colour"),
        ({"parameters": []}, "parameters"),
        ({"parameters": 3}, "not a profile"),
        ({"frames": [{}]}, "not a profile"),
    ],
)
def test_what_is_no_profile_is_refused_with_the_field(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ProfileError, match=told) as refused:
        load(edited(tmp_path / "p.json", **changed))
    assert "p.json" in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_not_json_of_that_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("emission.shadow", -1.0), ("probe.sigma_m", -1e-9), ("amplifier.keep", 1.5), ("noise.factor", float("nan"))],
)
def test_an_impossible_constant_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ProfileError, match=name.split(".")[-1]):
        profile(**{name.replace(".", "__"): value})


def test_a_doubt_about_what_is_not_determined_is_refused(tmp_path: Path) -> None:
    raw = json.loads(profile().to_json())["parameters"]
    raw[0]["determined"] = False
    with pytest.raises(ProfileError, match="sigma"):
        load(edited(tmp_path / "p.json", parameters=raw))


def test_every_constant_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(VALUES)
