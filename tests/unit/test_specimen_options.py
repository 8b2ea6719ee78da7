"""`--specimen`, the layout options and `--profile`: what they make of the virtual microscope, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from agent.__main__ import app
from agent.commands.specimens import LayoutOptions, layer_of, layout_files, profile_settings, specimen_settings
from agent.errors import UsageError
from calibration.optics import FW50_PER_SIGMA
from calibration.twin.emission import SILICON_1KEV
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.profile import KEEP, SIGMA, STRENGTH, STRETCH_X, STRETCH_XY, Profile
from tests.unit.test_fit_profile import profile
from tests.unit.test_twin_cad import drawing, picture


def refused(specimen: str, how: LayoutOptions) -> str:
    with pytest.raises(UsageError) as caught:
        specimen_settings(specimen, how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_layout_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    path = drawing(tmp_path).rename(tmp_path / "drawing.bin")
    given = specimen_settings(str(path), LayoutOptions(layer="0"))
    assert given["layout"].source.endswith("layer 0/0")
    assert given["specimen"] == str(path)
    assert specimen_settings(str(path), pixel_size_m=7e-9)["pixel_size_m"] == 7e-9


def test_a_picture_with_a_scale_is_a_layout_and_without_one_a_texture(tmp_path: Path, capsys) -> None:
    path = str(picture(tmp_path))
    assert "layout" in specimen_settings(path, LayoutOptions(scale_nm=2.0))
    assert "picture" in specimen_settings(path)
    assert "--layout-scale-nm" in capsys.readouterr().err  # two levels are a mask as often as not
    cv2.imwrite(path, np.arange(256, dtype=np.uint8).reshape(16, 16))
    specimen_settings(path)
    assert capsys.readouterr().err == ""


def test_options_that_do_not_fit_the_specimen_say_what_to_do(tmp_path: Path) -> None:
    path = str(picture(tmp_path))
    assert "give --layout-scale-nm" in refused(path, LayoutOptions(inverted=True))
    assert "drawn here" in refused("tin-balls", LayoutOptions(scale_nm=1.0))
    assert "no layers" in refused(path, LayoutOptions(scale_nm=1.0, layer="3"))
    assert "NUMBER/DATATYPE" in refused(str(drawing(tmp_path)), LayoutOptions(layer="metal"))
    assert "no layer 4/1" in refused(str(drawing(tmp_path)), LayoutOptions(layer="4/1"))
    cv2.imwrite(path, np.zeros((64, 64), np.uint8))
    assert "empty" in refused(path, LayoutOptions(scale_nm=1.0))
    cv2.imwrite(path, np.tile(np.arange(256, dtype=np.uint8), (64, 1)))
    assert "not binary" in refused(path, LayoutOptions(scale_nm=1.0))
    assert layer_of("17/2") == (17, 2) and layer_of("17") == (17, 0) and layer_of("") is None


def test_a_folder_or_a_pattern_is_its_layouts(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, other = drawing(tmp_path), picture(tmp_path / "a")
    (tmp_path / "notes.txt").write_text("none")
    assert layout_files(str(tmp_path)) == [other, one]
    assert layout_files(str(tmp_path / "*" / "lines.png")) == [other]
    assert layout_files(str(one)) == [one]
    with pytest.raises(UsageError, match="no layout there"):
        layout_files(str(tmp_path / "none*"))


def undetermined(found: Profile, name: str) -> Profile:
    rest = tuple(
        replace(each, determined=False, sigma=None) if each.name == name else each for each in found.parameters
    )
    return replace(found, parameters=rest)


def test_a_profile_gives_emission_noise_charging_amplifier_and_the_probe_it_measured(tmp_path: Path) -> None:
    found = profile(emission__side=0.5, noise__factor=2.1)
    found.save(tmp_path / "p.json")
    settings = MicroscopeSettings(**profile_settings(tmp_path / "p.json"))
    assert settings.emission.side == 0.5
    assert settings.variance_factor == 2.1
    assert (settings.charging, settings.charging_length_px) == (found.value(STRENGTH), 40.0)
    assert settings.amplifier_lag_px == pytest.approx(-1.0 / np.log(found.value(KEEP)))
    assert settings.fw50_m == pytest.approx(FW50_PER_SIGMA * found.value(SIGMA))
    undetermined(found, SIGMA).save(tmp_path / "q.json")
    own = MicroscopeSettings(**profile_settings(tmp_path / "q.json"))
    assert own.fw50_m == MicroscopeSettings().fw50_m
    assert profile_settings(None) == {}


def test_a_measured_probe_widens_the_picture_and_waves_bring_their_own_diffraction() -> None:
    plain, wide = MicroscopeSettings(pixel_size_m=5e-10), MicroscopeSettings(pixel_size_m=5e-10, focused_fw50_m=9e-9)
    assert wide.probe.wavelength_m is not None
    assert plain.probe.fw50_m < wide.probe.fw50_m < wide.fw50_m == pytest.approx(9e-9)
    finer = MicroscopeSettings(pixel_size_m=5e-10, focused_fw50_m=1e-10)
    assert finer.probe.fw50_m == 0.0
    assert finer.fw50_m > 1e-9  # nothing is sharper than diffraction


def test_a_profiles_emission_is_what_named_specimens_are_rendered_with() -> None:
    dull = replace(SILICON_1KEV, side=0.0, exponent=0.0, swallow=0.0, shadow=0.0)
    how = {"specimen": "pillars", "shape": (96, 96), "seed": 5, "pixel_size_m": 4e-9}
    bright, plain = (VirtualMicroscope(MicroscopeSettings(emission=e, **how)) for e in (SILICON_1KEV, dull))
    assert not np.array_equal(bright._view.plane, plain._view.plane)


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"charging__strength": -3.0}, "charging"), ({"amplifier__keep": 0.99}, "amplifier_lag_px")],
)
def test_a_profile_that_no_virtual_microscope_can_have_is_refused(
    tmp_path: Path, changed: dict[str, float], told: str
) -> None:
    profile(**changed).save(tmp_path / "p.json")
    with pytest.raises(UsageError, match=told):
        profile_settings(tmp_path / "p.json")


@pytest.mark.parametrize("command", [["microscope"], ["demo"], ["calibrate", "dataset", "depth"]])
def test_every_command_refuses_a_bad_profile_by_name(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({"schema": 1}))
    result = CliRunner().invoke(app, [*command, "--profile", str(tmp_path / "bad.json")])
    assert isinstance(result.exception, UsageError), result.exception
    assert "bad.json" in str(result.exception)


def test_the_microscope_publishes_a_layout_under_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    profile(**{STRETCH_X.replace(".", "__"): 0.0, STRETCH_XY.replace(".", "__"): 0.0}).save(tmp_path / "p.json")
    words = ["--specimen", str(picture(tmp_path)), "--layout-scale-nm", "2", "--profile", str(tmp_path / "p.json")]
    result = CliRunner().invoke(app, ["microscope", *words, "--frames-count", "1", "--no-control", "--json"])
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert told["frames"] == 1
    assert 3e-9 < told["pixel_size_m"] < 9e-9
