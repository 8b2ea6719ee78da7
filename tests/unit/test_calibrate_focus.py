"""`beamside calibrate focus` as people run it: certificate, page, JSON; signals, going on, and what cannot be."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from agent.commands import calibrate
from agent.errors import BeamsideError, UsageError
from agent.messages import Optics
from calibration.certificate import Certificate
from calibration.sweep.virtual import VirtualColumn

ALPHA_RAD, PLAY_M = 6e-3, 0.4e-6
TRUTH = ("--alpha-rad", ALPHA_RAD, "--hysteresis-m", PLAY_M, "--seed", 5, "--snr", 3, "--specimen", "cells")
DEADLINE_S = 120.0  # on a machine that does other things too


def run(*arguments: object) -> Result:
    return CliRunner().invoke(calibrate.app, ["focus", *map(str, arguments)])


def refused(*arguments: object) -> BeamsideError:
    result = run(*arguments)
    assert isinstance(result.exception, BeamsideError), result.exception
    assert "\n" not in str(result.exception)
    return result.exception


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("calibrated")
    out = folder / "new" / "c.json"
    options = ("--report", folder / "page", "--expires-days", 7, "--instrument", "S-1", "--limit-step-m", 5e-5)
    return folder, run("--out", out, *TRUTH, *options, "--json")


def test_json_is_the_certificate_with_its_path_and_the_agent_can_load_it(done: tuple[Path, Result]) -> None:
    folder, result = done
    assert result.exit_code == 0, result.exception
    told = json.loads(result.stdout)
    assert Path(told["path"]) == folder / "new" / "c.json"
    assert told["certificate"] == json.loads(Path(told["path"]).read_text())
    found = Certificate.load(Path(told["path"]))
    assert found.instrument == "S-1" and found.limits.step_m == 5e-5
    assert found.alpha_rad == pytest.approx(ALPHA_RAD, rel=0.03)
    assert found.hysteresis_m == pytest.approx(PLAY_M, abs=0.1e-6)
    assert told["frames"] <= 45
    assert sorted(path.name for path in (folder / "new").iterdir()) == ["c.json"]  # the work folder is gone


def test_the_page_stands_alone_and_a_browser_draws_its_six_curves(done: tuple[Path, Result]) -> None:
    page = done[0] / "page" / "focus-calibration.html"
    text = page.read_text()
    assert "http" not in text and "<script" not in text and "src=" not in text
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
    drawn = subprocess.run(["chromium", *options, page.as_uri()], capture_output=True, timeout=DEADLINE_S, text=True)
    assert len(re.findall(r'<svg viewBox="0 0 (?:500 320|430 430)"', drawn.stdout)) == 6
    for told in ("Convergence angle", "Play of the working distance", "Settling time", "What the fits leave", "S-1"):
        assert told in drawn.stdout
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower().replace("nanometre", "")


def started(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "agent", "calibrate", "focus", *map(str, arguments)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)


def test_sigterm_restores_the_start_keeps_the_frames_and_leaves_the_old_certificate(tmp_path: Path) -> None:
    out, work = tmp_path / "c.json", tmp_path / "c.json.sweep"
    out.write_text("what was there before")
    sweep = started("--out", out, *TRUTH)
    deadline_s = time.monotonic() + DEADLINE_S
    while not list(work.glob("shot-*.npz")) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    sweep.send_signal(signal.SIGTERM)
    told = sweep.communicate(timeout=DEADLINE_S)[1]
    assert sweep.returncode == 1, told
    assert "SIGTERM; the start settings are restored" in told and "--resume" in told and "Traceback" not in told
    assert out.read_text() == "what was there before"
    assert list(work.glob("shot-*.npz"))
    other = refused("--out", out, *TRUTH, "--seed", 6, "--resume")
    assert "--seed = 5, not 6" in str(other) and other.exit_code == 2
    again = refused("--out", out, *TRUTH)
    assert "--resume" in str(again) and again.exit_code == 2


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, taken = VirtualColumn.frame, []

    def frame(column: VirtualColumn) -> tuple[NDArray[Any], Optics]:
        taken.append(column)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return plain(column)

    monkeypatch.setattr(VirtualColumn, "frame", frame)
    result = run("--out", tmp_path / "c.json", *TRUTH)
    assert result.exit_code == 130
    assert "interrupted; the start settings are restored" in result.stderr and "--resume" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json.sweep"]


def test_a_refusal_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    error = refused("--out", tmp_path / "c.json", "--specimen", "flat")
    assert error.exit_code == 1
    assert "no certificate" in str(error) and "featureless" in str(error)
    assert "the start settings are restored" in str(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--expires-days", 0), "--expires-days 0"),
        (("--expires-days", "nan"), "--expires-days nan"),
        (("--bits", 12), "--bits 12"),
        (("--limit-min-m", 6e-3, "--limit-max-m", 5.5e-3), "leave nothing between"),
        (("--limit-step-m", 0), "--limit-step-m 0"),
        (("--specimen", "moon"), "known are"),
    ],
)
def test_what_cannot_be_is_a_usage_error_before_anything_moves(
    arguments: tuple[object, ...], told: str, tmp_path: Path
) -> None:
    error = refused("--out", tmp_path / "c.json", *arguments)
    assert isinstance(error, UsageError) and told in str(error)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_told_before_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--report" in str(refused("--out", tmp_path / "c.json", "--report", tmp_path / "file" / "page"))
    assert "is a folder" in str(refused("--out", tmp_path))
