"""`beamside calibrate twin`: frames and geometry in, profile, page and JSON out; one sentence for what cannot be."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from agent.commands import calibrate
from agent.commands.twin_frames import samples_in
from agent.commands.twin_geometry import Asked
from agent.errors import BeamsideError
from calibration.twin import scan
from calibration.twin.emission import Emission, render, sky_view
from calibration.twin.profile import load

PX = 3e-9
SIDE = 48
MONTE_CARLO = Path(__file__).resolve().parents[3] / "shared" / "data" / "montecarlo"
FITTED = ("lines_p080_h45_s1", "holes_p096_r22_d60_s1")
HELD_OUT = (
    "lines_p096_h50_s0",
    "lines_p060_h30_s2",
    "lines_p108_h35h_s1",
    "holes_p080_r17_d30_s0",
    "holes_p090_r24_d20_s2",
    "focus_holes_f04",
    "topo_rough_rms08",
    "topo_pillars_b",
    "topo_stairs_mesa",
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate.app, ["twin", *map(str, arguments)])


def refused(*arguments: object) -> BeamsideError:
    result = run(*arguments)
    assert isinstance(result.exception, BeamsideError), result.exception
    assert "\n" not in str(result.exception)
    return result.exception


def heights() -> NDArray[np.float32]:
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = 9.0 - np.hypot(x - 20, y - 26)
    return np.asarray(cv2.GaussianBlur(40e-9 * np.clip(inside, 0.0, 1.0), (0, 0), 0.7), np.float32)


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    """frames/a.png, 8 bit, and its heights beside it in maps/."""
    z = heights()
    shown = render(z, Emission(), pixel_size_m=PX, sky=sky_view(z, pixel_size_m=PX))
    counts = scan.expose(shown, electrons_per_pixel=100.0, rng=np.random.default_rng(1))
    (tmp_path / "frames").mkdir()
    (tmp_path / "maps").mkdir()
    at = tmp_path / "frames" / "a.png"
    cv2.imwrite(str(at), scan.digitise(counts, gain=0.5 / 255.0, offset=10.0 / 255.0, bits=8))
    np.save(tmp_path / "maps" / "a.npy", z)
    return at


def test_json_is_the_profile_and_the_file_says_the_same(frame: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.json"
    options = [
        "--heights",
        tmp_path / "maps",
        "--pixel-size-m",
        PX,
        "--instrument",
        "S-1",
        "--report",
        tmp_path / "page",
    ]
    result = run(frame, *options, "--out", out, "--json")
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert told == json.loads(out.read_text())
    assert told["instrument"] == "S-1"
    assert load(out).frames[0].name == "a"
    assert len(told["frames"][0]["sha256"]) == 64
    assert 0.0 <= told["frames"][0]["nrmse"] < 0.1
    page = (tmp_path / "page" / "twin-fit.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert "not determined" in page


def test_a_person_gets_a_table_with_what_is_not_determined(frame: Path, tmp_path: Path) -> None:
    result = run(frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX, "--out", tmp_path / "p.json")
    assert result.exit_code == 0, result.exception
    assert "not determined" in result.stdout


def test_the_same_frames_give_the_same_profile(frame: Path, tmp_path: Path) -> None:
    told = [
        json.loads(run(frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX, "--json", "--out", out).stdout)
        for out in (tmp_path / "1.json", tmp_path / "2.json")
    ]
    assert told[0]["parameters"] == told[1]["parameters"]


def test_no_frames_is_a_usage_error() -> None:
    assert refused().exit_code == 2


def test_a_frame_that_is_not_there_is_named(tmp_path: Path) -> None:
    told = refused(tmp_path / "none.tif", "--pixel-size-m", PX)
    assert told.exit_code == 1
    assert "none.tif" in str(told)


def test_a_frame_without_any_geometry_says_what_can_be_given(frame: Path) -> None:
    assert "--heights" in str(refused(frame, "--pixel-size-m", PX))


def test_a_frame_without_a_pixel_size_says_so(frame: Path, tmp_path: Path) -> None:
    assert "--pixel-size-m" in str(refused(frame, "--heights", tmp_path / "maps"))


def test_heights_of_another_shape_are_refused_with_both_shapes(frame: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "maps" / "a.npy", np.zeros((40, 44), np.float32))
    told = str(refused(frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX))
    assert "44x40" in told and "48x48" in told


def test_heights_that_are_not_finite_are_refused(frame: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "maps" / "a.npy", np.full((SIDE, SIDE), np.nan, np.float32))
    assert "not finite" in str(refused(frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX))


@pytest.mark.parametrize(
    ("line_space", "told"),
    [
        (("--pitch-m", 80e-9, "--cd-m", 80e-9, "--height-m", 40e-9), "less than the pitch"),
        (("--pitch-m", 80e-9, "--cd-m", 40e-9, "--height-m", 40e-9, "--side-wall-deg", 95), "side_wall_deg"),
        (("--pitch-m", 80e-9, "--cd-m", 40e-9), "--height-m is missing"),
    ],
)
def test_an_assumed_line_space_that_cannot_be_is_a_usage_error(
    frame: Path, line_space: tuple[object, ...], told: str
) -> None:
    error = refused(frame, "--pixel-size-m", PX, *line_space)
    assert error.exit_code == 2
    assert told in str(error)


def test_a_file_beside_the_frame_gives_its_line_space(frame: Path) -> None:
    frame.with_suffix(".toml").write_text("pitch_m = 30e-9\ncd_m = 40e-9\nheight_m = 20e-9\npixel_size_m = 3e-9\n")
    told = refused(frame)
    assert told.exit_code == 1
    assert "cd_m" in str(told) and "a.png" in str(told)


@pytest.mark.parametrize("text", ["pitch = 3", "pitch_m = 'wide'", "pitch_m = ", "pitch_m = 30e-9"])
def test_a_bad_file_beside_the_frame_is_refused_by_name(frame: Path, text: str) -> None:
    frame.with_suffix(".toml").write_text(text)
    assert "a." in str(refused(frame, "--pixel-size-m", PX))


def test_the_same_frame_twice_is_a_usage_error(frame: Path, tmp_path: Path) -> None:
    assert refused(frame, frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX).exit_code == 2


def test_fewer_levels_than_constants_are_refused(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for at in (tmp_path / "tiny.npy", tmp_path / "maps" / "tiny.npy"):
        np.save(at, np.zeros((4, 4), np.float32))
    told = refused(tmp_path / "tiny.npy", "--heights", tmp_path / "maps", "--pixel-size-m", PX)
    assert "16 usable pixels" in str(told)


def test_a_profile_that_cannot_be_written_is_one_sentence(frame: Path, tmp_path: Path) -> None:
    at = tmp_path / "file"
    at.write_text("")
    told = refused(frame, "--heights", tmp_path / "maps", "--pixel-size-m", PX, "--out", at / "p.json")
    assert told.exit_code == 1


@pytest.mark.skipif(not MONTE_CARLO.is_dir(), reason="../shared/data/montecarlo is not here")
def test_two_simulated_scenes_tell_the_others_to_five_per_cent(tmp_path: Path) -> None:
    from calibration.evaluate.scenes import Scene, listed
    from calibration.evaluate.scenes import load as read
    from calibration.evaluate.twin import compare

    out = tmp_path / "p.json"
    result = run(*(MONTE_CARLO / f"{name}_SE.npy" for name in FITTED), "--out", out, "--json")
    assert result.exit_code == 0, result.exception
    profile = load(out)
    others = [each for each in listed(MONTE_CARLO) if isinstance(each, Scene) and each.name in HELD_OUT]
    errors = [compare(read(MONTE_CARLO, each), profile.emission).error.nrmse for each in others]
    assert len(errors) == len(HELD_OUT)
    assert float(np.median(errors)) < 0.05
    assert [frame.offset for frame in profile.frames] == [0.0, 0.0]  # no signal is no electron
    assert profile.variance_factor == pytest.approx(1.63, abs=0.1)  # of flat silicon there, found from repeats
    charging = next(each for each in profile.parameters if each.name == "charging.strength")
    assert abs(charging.value) < 0.1  # the simulation has none


def scenes(folder: Path, **facts: object) -> Path:
    """A folder of one Monte Carlo scene with the facts of its beam and specimen."""
    folder.mkdir()
    counts = scan.expose(np.ones((SIDE, SIDE), np.float32), electrons_per_pixel=50.0, rng=np.random.default_rng(2))
    np.save(folder / "a_SE.npy", counts)
    np.save(folder / "a_height_px_nm.npy", heights() * 1e9)
    told = {"name": "a", "pixel_size_m": PX, "probe_sigma_m": [1e-9, 1e-9], "probe_angle_deg": 0.0} | facts
    (folder / "scenes.json").write_text(json.dumps([told]))
    return folder


def test_a_simulated_scene_brings_its_voltage_and_material(tmp_path: Path) -> None:
    both = samples_in([scenes(tmp_path / "a", accelerating_voltage_v=3000, material="W")], Asked())[0]
    assert (both.voltage_v, both.material) == (3000.0, "W")
    landed = samples_in([scenes(tmp_path / "b", accelerating_voltage_v=3000, landing_energy_ev=800)], Asked())[0]
    assert (landed.voltage_v, landed.material) == (800.0, None)


@pytest.mark.parametrize("facts", [{"material": "cheese"}, {"accelerating_voltage_v": -1}, {"landing_energy_ev": "1"}])
def test_a_scene_of_an_impossible_beam_or_material_is_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    told = str(refused(scenes(tmp_path / "a", **facts)))
    assert next(iter(facts)) in told and "expected" in told
