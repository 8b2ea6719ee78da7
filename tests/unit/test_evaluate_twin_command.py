"""`beamside evaluate twin`: one JSON document, renders to judge again, a page, a sentence for each fault."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.errors import BeamsideError, UsageError
from calibration.evaluate.scenes import Recording, Scene
from calibration.evaluate.twin_render import rendered
from calibration.twin.emission import SILICON_1KEV
from calibration.twin.profile import EMISSION, POSSIBLE, Parameter, Profile

MONTE_CARLO = Path(__file__).parents[3] / "shared/data/montecarlo"
PIXEL_M = 3e-9
SIDE = 64
FANO = 1.63


def entry(name: str, **more: Any) -> dict[str, Any]:
    known = {"group": "lines", "pixel_size_m": PIXEL_M, "probe_sigma_m": [2e-9, 2e-9], "probe_angle_deg": 0.0}
    return {"name": name, **known, **more}


def add(at: Path, name: str, *, gain: float = 60.0, wrong: float = 0.0) -> dict[str, Any]:
    """A scene that the twin itself drew, with electrons' noise; `wrong`: counts of a pattern nobody renders."""
    heights = np.zeros((SIDE, SIDE), np.float32)
    heights[:, 8:24] = heights[:, 40:56] = 45.0
    scene = Scene(name, "lines", PIXEL_M, (2e-9, 2e-9), 0.0)
    exact = gain * rendered(Recording(scene, heights * np.float32(1e-9), heights), SILICON_1KEV)
    exact = exact + wrong * np.sin(np.arange(SIDE) / 6.0)[:, None]
    noise = np.random.default_rng(len(name)).normal(size=exact.shape) * np.sqrt(FANO * np.maximum(exact, 0.1))
    np.save(at / f"{name}_SE.npy", np.maximum(exact + noise, 0.0).astype(np.float32))
    np.save(at / f"{name}_height_px_nm.npy", heights)
    return entry(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    at = tmp_path / "scenes"
    at.mkdir()
    (at / "scenes.json").write_text(json.dumps([add(at, "good"), add(at, "off", wrong=8.0)]))
    return at


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "twin", *map(str, arguments)])


def rows(told: Any) -> dict[str, Any]:
    return {row["name"]: row for row in told["scenes"]}


def recomputed(render: np.ndarray[Any, Any], counts: np.ndarray[Any, Any], fano: float) -> float:
    """NRMSE by the formula of the issue, written out again."""
    t, m = (cv2.blur(each.astype(np.float64), (5, 5), borderType=cv2.BORDER_REFLECT) for each in (render, counts))
    low, high = np.percentile(m, [1, 99])
    return float(np.sqrt(max(0.0, np.mean((t - m) ** 2) - fano * m.mean() / 25)) / (high - low))


def test_json_is_one_document_with_a_row_for_each_scene(folder: Path) -> None:
    result = run(folder, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert [row["name"] for row in told["scenes"]] == ["good", "off"]
    assert told["failed"] == 0 and told["fano"] == FANO
    assert rows(told)["good"]["nrmse_low"] < 0.02 < 0.04 < rows(told)["off"]["nrmse"]
    assert rows(told)["good"]["gain"] == pytest.approx(60.0, rel=0.03)
    assert abs(rows(told)["good"]["edge_peak"]["position_error_px"]) < 0.1
    assert len(rows(told)["good"]["floors"]) == 3
    assert told["median_nrmse"] == pytest.approx(np.mean([row["nrmse"] for row in told["scenes"]]))
    assert told["summary"]["worst"] == ["off", "good"]
    assert told["summary"]["baselines"]["constant"] > 0.2


def test_anyone_can_compute_the_error_again_from_the_renders(folder: Path, tmp_path: Path) -> None:
    renders = tmp_path / "new" / "renders"
    told = json.loads(run(folder, "--render-dir", renders, "--json").stdout)
    assert sorted(path.name for path in renders.iterdir()) == ["good.npy", "off.npy"]
    for name, row in rows(told).items():
        render, counts = np.load(renders / f"{name}.npy"), np.load(folder / f"{name}_SE.npy")
        assert render.dtype == np.float32 and render.shape == counts.shape
        assert recomputed(render, counts, FANO) == pytest.approx(row["nrmse"], rel=1e-6)
        a, b = np.polyfit(render.ravel().astype(np.float64), counts.ravel().astype(np.float64), 1)
        assert (a, b) == pytest.approx((1.0, 0.0), abs=1e-3)  # fitting again changes nothing


def test_the_same_scenes_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(folder, "--render-dir", first, "--json").stdout == run(folder, "--render-dir", second, "--json").stdout
    assert (first / "off.npy").read_bytes() == (second / "off.npy").read_bytes()


def test_the_fano_factor_is_measured_where_a_scene_was_simulated_twice(folder: Path) -> None:
    again = add(folder, "good_again") | {"repeat_of": "good"}
    (folder / "scenes.json").write_text(json.dumps([entry("good"), again]))
    told = json.loads(run(folder, "--json", "--fano", "0").stdout)
    measured = told["measured_fano"]
    assert measured["pairs"] == 1
    assert measured["value"] == pytest.approx(FANO, abs=4.0 * measured["sigma"])
    less_noise = json.loads(run(folder, "--json").stdout)
    assert rows(told)["good"]["nrmse"] > 2.0 * rows(less_noise)["good"]["nrmse"]  # no noise was taken off


def test_the_page_stands_alone_with_its_pictures(folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--report", tmp_path / "page").exit_code == 0
    page = (tmp_path / "page/twin.html").read_text(encoding="utf-8")
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert len(shown) == 2 * 4
    for path in shown:
        picture = cv2.imread(str(tmp_path / "page" / path))
        assert picture is not None and picture.shape[:2] == (SIDE, SIDE)
    assert page.index('<h3 id="off"') < page.index('<h3 id="good"')  # worst first
    assert "http" not in page and "<script" not in page


def test_a_person_gets_tables(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0
    for word in ("NRMSE", "baseline: height", "worst scenes", "off", "Floors:"):
        assert word in result.stdout


def test_a_scene_that_fails_is_a_row_and_exit_1_and_the_others_are_done(folder: Path, tmp_path: Path) -> None:
    wild = np.zeros((SIDE, SIDE), np.float32)
    wild[0, 0] = np.nan
    add(folder, "wild")
    np.save(folder / "wild_height_px_nm.npy", wild)
    listed = [entry("gone"), entry("good"), entry("wild"), entry("odd", pixel_size_m=-1)]
    (folder / "scenes.json").write_text(json.dumps(listed))
    result = run(folder, "--json", "--report", tmp_path / "page")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["failed"] == 3
    assert "gone_SE.npy: No such file" in rows(told)["gone"]["error"]
    assert "not finite" in rows(told)["wild"]["error"]
    assert "pixel_size_m = -1" in rows(told)["odd"]["error"]
    assert told["median_nrmse"] == rows(told)["good"]["nrmse"]
    assert "Not evaluated" in (tmp_path / "page/twin.html").read_text(encoding="utf-8")


def test_a_negative_of_the_scene_is_a_missed_row_and_exit_1(folder: Path, tmp_path: Path) -> None:
    add(folder, "negative", gain=-60.0)
    heights = np.load(folder / "good_height_px_nm.npy")
    np.save(folder / "negative_SE.npy", np.load(folder / "good_SE.npy").max() - np.load(folder / "good_SE.npy"))
    np.save(folder / "level_SE.npy", np.load(folder / "good_SE.npy"))
    np.save(folder / "level_height_px_nm.npy", np.zeros_like(heights))
    (folder / "scenes.json").write_text(json.dumps([entry("good"), entry("negative"), entry("level")]))
    result = run(folder, "--json", "--render-dir", tmp_path / "renders")
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and told["failed"] == 2
    assert "the picture's negative" in rows(told)["negative"]["error"]
    assert "level ground" in rows(told)["level"]["error"]
    assert told["summary"]["nrmse"]["n"] == 1
    assert [path.name for path in (tmp_path / "renders").iterdir()] == ["good.npy"]


def test_scenes_that_were_fitted_to_are_told_apart_from_the_others(folder: Path, tmp_path: Path) -> None:
    listed = [entry("good", fitted=True), entry("off", fitted=False)]
    (folder / "scenes.json").write_text(json.dumps(listed))
    told = json.loads(run(folder, "--json", "--report", tmp_path / "page").stdout)
    assert told["summary"]["fitted"]["median"] == rows(told)["good"]["nrmse"]
    assert told["summary"]["unfitted"]["median"] == rows(told)["off"]["nrmse"]
    assert "never seen by the fit" in (tmp_path / "page/twin.html").read_text(encoding="utf-8")
    assert "never seen by the fit" in run(folder).stdout
    (folder / "scenes.json").write_text(json.dumps([entry("good", fitted="yes")]))
    assert "fitted = 'yes'" in rows(json.loads(run(folder, "--json").stdout))["good"]["error"]


def test_where_every_scene_fails_there_is_no_median(folder: Path, tmp_path: Path) -> None:
    (folder / "scenes.json").write_text(json.dumps([entry("gone")]))
    result = run(folder, "--json", "--report", tmp_path / "page")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told["median_nrmse"] is None and told["summary"] is None


@pytest.mark.parametrize("text", ["[", "{}", "[]"])
def test_a_list_that_is_none_is_a_usage_error(folder: Path, text: str) -> None:
    (folder / "scenes.json").write_text(text)
    result = run(folder, "--json")
    assert isinstance(result.exception, UsageError)
    assert "scenes.json" in str(result.exception)


def test_an_impossible_fano_factor_and_a_profile_that_is_none_are_usage_errors(folder: Path, tmp_path: Path) -> None:
    for fano in ("-1", "nan", "inf"):
        assert "--fano" in str(run(folder, "--fano", fano).exception)
    (tmp_path / "profile.json").write_text("{}")
    for path in (tmp_path / "nowhere.json", tmp_path / "profile.json"):
        result = run(folder, "--profile", path)
        assert isinstance(result.exception, UsageError)
        assert f"--profile {path}" in str(result.exception)


def test_a_profile_of_another_tool_renders_otherwise(folder: Path, tmp_path: Path) -> None:
    values = {name: least for name, (least, _) in POSSIBLE.items()}
    values |= {EMISSION + name: value for name, value in asdict(replace(SILICON_1KEV, side=0.0)).items()}
    parameters = tuple(Parameter(name, x, None, False, x, x, x) for name, x in values.items())
    Profile("tool", "edges that do not shine", "2026-01-01", "0", (), parameters).save(tmp_path / "tool.json")
    told = json.loads(run(folder, "--profile", tmp_path / "tool.json", "--json").stdout)
    assert told["profile"] == str(tmp_path / "tool.json")
    own = rows(json.loads(run(folder, "--json").stdout))["good"]["nrmse"]
    assert rows(told)["good"]["nrmse"] > max(3.0 * own, 0.05)  # the scene was drawn with edges that do


@pytest.mark.parametrize("option", ["--render-dir", "--report"])
def test_a_folder_that_cannot_be_written_is_one_sentence_before_anything_is_rendered(
    option: str, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = run(folder, option, tmp_path / "file" / "deeper", "--json")
    assert isinstance(result.exception, BeamsideError) and result.exception.exit_code == 1
    assert option in str(result.exception) and "cannot be written" in str(result.exception)
    assert result.stdout == ""


@pytest.mark.skipif(os.name != "posix", reason="limits of a file's size are set the POSIX way")
def test_a_full_disk_leaves_no_half_of_a_render(folder: Path, tmp_path: Path) -> None:
    renders = tmp_path / "renders"
    renders.mkdir()
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from agent.__main__ import main; main()"
    )
    command = [sys.executable, "-c", limited, "evaluate", "twin", str(folder), "--render-dir", str(renders), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "--render-dir" in done.stderr and "Traceback" not in done.stderr
    assert list(renders.iterdir()) == []


@pytest.mark.skipif(not (MONTE_CARLO / "scenes.json").exists(), reason="the project's shared Monte Carlo is not here")
def test_the_shipped_silicon_meets_the_monte_carlo(tmp_path: Path) -> None:
    told = json.loads(run(MONTE_CARLO, "--render-dir", tmp_path, "--json").stdout)
    totals = told["summary"]
    assert told["failed"] == 0 and totals["nrmse"]["n"] == 54
    assert told["median_nrmse"] <= 0.05
    assert (totals["fitted"]["n"], totals["unfitted"]["n"]) == (28, 26)
    assert totals["unfitted"]["median"] <= 0.06
    assert totals["median_nrmse_gain_only"] <= 0.05  # contrast is right by itself, too
    assert told["median_nrmse"] < 0.3 * min(totals["baselines"].values())
    assert totals["edges"]["worst_position_error_px"] <= 1.0
    assert totals["floors"]["rms_without_noise"] <= 0.08
    assert {order["name"] for order in totals["floors"]["order"]} == {"topo_pits_b"}
    assert totals["floors"]["order"][0]["twin"] <= -0.95
    assert told["measured_fano"]["value"] == pytest.approx(FANO, abs=0.05)
    for name, row in rows(told).items():
        counts = np.load(MONTE_CARLO / f"{name}_SE.npy")
        assert recomputed(np.load(tmp_path / f"{name}.npy"), counts, FANO) == pytest.approx(row["nrmse"], rel=1e-5)
