"""`beamside calibrate rate`: a table of ratings in, a scale out; `look`, `check` and the agent tell scores on it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.clock import ManualClock
from agent.commands import rate_table
from agent.commands.check import _score_scale
from agent.commands.rate_frames import candidate_of, digest
from agent.commands.rate_table import Rating
from agent.commands.run import terms
from agent.control.focusing import RESTART_FRAMES, RESTART_SCORE
from agent.decide import Decider
from agent.errors import BeamsideError
from agent.messages import Findings, Frame, Lane, Optics, Phase
from agent.settings import load
from engines.score_scale import ScoreScale
from tests.unit.test_rate_frames import through_focus
from tests.unit.test_rate_scale import scale

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve frames, from sharp to blurred."""
    return through_focus(tmp_path_factory.mktemp("rated") / "frames", 12)


def said(frames: list[Path], table: Path, *, rater: str = "Ada", less: float = 0.0, best: float = 9.0) -> None:
    """A rater who goes down in equal steps, and rated each third one again, half a point higher."""
    for number, path in enumerate(frames):
        score = max(best * (1.0 - number / (len(frames) - 1)) - less, 0.0)
        for repeat in (False, True) if number % 3 == 0 else (False,):
            where = os.path.relpath(path, table.parent)
            told = Rating(
                where, candidate_of(path).sha256, rater, score + 0.5 * repeat, "2026", 1.0, number + 1, repeat
            )
            rate_table.append(table, told)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["calibrate", "rate", *map(str, words)])


def refused(*words: object) -> BeamsideError:
    result = run(*words)
    assert isinstance(result.exception, BeamsideError), result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_a_scale_is_fitted_to_a_table_without_a_page(frames: list[Path], tmp_path: Path) -> None:
    said(frames, tmp_path / "s.ratings.csv")
    result = run("--fit-only", "--out", tmp_path / "s.json", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    known = ScoreScale.load(tmp_path / "s.json")
    assert told["scale"]["knots"] == [list(knot) for knot in known.knots]
    assert (known.frames, known.raters[0].name, known.raters[0].repeats) == (12, "Ada", 4)
    assert known.raters[0].repeat_sigma == pytest.approx(0.5 / np.sqrt(2.0))
    assert known.error_left_out < known.error_before
    assert known.spearman > 0.9
    assert told["left_out"] == []


def test_a_person_is_told_knots_errors_and_who_rated(frames: list[Path], tmp_path: Path) -> None:
    said(frames, tmp_path / "r.csv")
    result = run("--fit-only", "--out", tmp_path / "s.json", "--ratings", tmp_path / "r.csv")
    for part in ("model's score", "Ada: 12 frames, 4 twice, a single rating to ±0.4", "on a frame it never saw"):
        assert part in result.stdout


def test_frames_without_a_pixel_size_are_counted_aloud_and_it_can_be_given(frames: list[Path], tmp_path: Path) -> None:
    said(frames, tmp_path / "s.ratings.csv")
    out = ("--fit-only", "--out", tmp_path / "s.json")
    assert "12 of the frames do not tell their pixel size" in run(*out).stdout
    without = ScoreScale.load(tmp_path / "s.json")
    assert "pixel size" not in run(*out, "--pixel-size-m", "2e-9").stdout
    assert ScoreScale.load(tmp_path / "s.json").knots != without.knots


def test_raters_are_fitted_apart_or_together(frames: list[Path], tmp_path: Path) -> None:
    table = tmp_path / "s.ratings.csv"
    said(frames, table, rater="Ada")
    said(frames, table, rater="Bob", less=2.0)
    out = ("--fit-only", "--out", tmp_path / "s.json")
    error = refused(*out)
    assert error.exit_code == 2 and "Ada, Bob" in str(error) and "--together" in str(error)
    assert "no ratings by Eve" in str(refused(*out, "--rater", "Eve"))
    told = {}
    for words in (("--rater", "Ada"), ("--rater", "Bob"), ("--together",)):
        assert run(*out, *words).exit_code == 0
        known = ScoreScale.load(tmp_path / "s.json")
        told[words[-1]] = (known.told(8.0), len(known.raters), known.frames)
    (ada, *_), (bob, *_), both = told["Ada"], told["Bob"], told["--together"]
    assert ada - bob == pytest.approx(2.0, abs=0.2)
    assert both == (pytest.approx((ada + bob) / 2.0, abs=0.2), 2, 12)


def test_a_frame_that_is_gone_or_changed_costs_its_ratings_only(frames: list[Path], tmp_path: Path) -> None:
    mine = [tmp_path / path.name for path in frames]
    for path, other in zip(mine, frames, strict=True):
        path.write_bytes(other.read_bytes())
    said(mine, tmp_path / "s.ratings.csv")
    mine[3].unlink()
    cv2.imwrite(str(mine[5]), np.zeros((160, 160), np.uint8))
    result = run("--fit-only", "--out", tmp_path / "s.json", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["scale"]["frames"] == 10
    assert {Path(each["path"]).name for each in told["left_out"]} == {mine[3].name, mine[5].name}
    assert "05.png: left out: the file holds another picture" in result.stderr


def test_frames_that_moved_are_found_by_their_pixels_when_given(frames: list[Path], tmp_path: Path) -> None:
    said(frames, tmp_path / "s.ratings.csv")
    text = (tmp_path / "s.ratings.csv").read_text()
    (tmp_path / "s.ratings.csv").write_text(re.sub(r"^[^,]*(\d\d)\.png", r"gone/\1.png", text, flags=re.MULTILINE))
    out = ("--fit-only", "--out", tmp_path / "s.json")
    assert "0 distinct frames" in str(refused(*out))
    assert run(*out, frames[0].parent, "--json").exit_code == 0


@pytest.mark.parametrize(
    ("best", "count", "why"),
    [
        (9.0, 9, "9 distinct frames are rated, 10 at least"),
        (0.4, 12, "only go from 0 to 0."),
        (-9.0, 12, "do not rise"),
    ],
)
def test_what_makes_no_scale_is_said_and_writes_none(
    frames: list[Path], tmp_path: Path, best: float, count: int, why: str
) -> None:
    chosen = frames if best > 0.0 else frames[::-1]  # the wrong way round
    said(chosen[:count], tmp_path / "s.ratings.csv", best=abs(best))
    error = refused("--fit-only", "--out", tmp_path / "s.json")
    assert error.exit_code == 1 and why in str(error)
    assert not (tmp_path / "s.json").exists()


def test_bad_input_is_one_sentence(frames: list[Path], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "s.json")
    assert "no FRAMES" in str(refused(*out))
    assert "no ratings" in str(refused(*out, "--fit-only"))
    assert "none.tif" in str(refused(*out, tmp_path / "none.tif"))
    assert "--pixel-size-m" in str(refused(*out, frames[0], "--pixel-size-m", 5))
    assert "--rater" in str(refused(*out, frames[0], "--rater", "a\nb"))
    assert "--repeat-share nan" in str(refused(*out, frames[0], "--repeat-share", "nan"))
    assert "give two files" in str(refused(*out, frames[0], "--ratings", tmp_path / "s.json"))
    assert "cannot be written" in str(refused("--out", tmp_path, frames[0]))
    (tmp_path / "s.ratings.csv").write_text("a,b\n")
    assert "line 1: columns a, b" in str(refused(*out, frames[0], "--no-browser"))


# --- the page, from the command line ---


@contextmanager
def started(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a person starts it, and the address it tells."""
    line = [sys.executable, "-m", "agent", "calibrate", "rate", *map(str, words), "--no-browser"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell lets its background jobs ignore it
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        try:
            yield process, address(process)
        finally:
            process.kill()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    told = ""
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", told)):
        line = process.stderr.readline()
        assert line, told
        told += line
    return found.group()


def ask(url: str, what: str, body: object = None) -> bytes:
    _, _, host, token, _ = url.split("/")
    connection = HTTPConnection(host, timeout=DEADLINE_S)
    data = None if body is None else json.dumps(body)
    method, headers = ("GET", {}) if data is None else ("POST", {"Content-Type": "application/json"})
    connection.request(method, f"/{token}/{what}", data, headers)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def post(url: str, what: str, **body: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(url, what, body))
    return answer


def test_a_round_is_interrupted_gone_on_with_and_fitted(frames: list[Path], tmp_path: Path) -> None:
    words = (frames[0].parent, "--out", tmp_path / "s.json", "--rater", "Ada", "--json")
    table, number = tmp_path / "s.ratings.csv", {candidate_of(path).sha256: n for n, path in enumerate(frames)}

    def rated(url: str, item: int) -> dict[str, Any]:
        """As a rater would who knows which is sharper."""
        shown = cv2.imdecode(np.frombuffer(ask(url, f"frame/{item}.png"), np.uint8), cv2.IMREAD_UNCHANGED)
        return post(url, "rate", item=item, score=9.0 - 0.75 * number[digest(shown)], seconds=1)

    with started(*words) as (process, url):
        rated(url, 1)
        assert "1 distinct frames are rated, 10 at least" in post(url, "finish")["error"]
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1 and out == ""
        assert f"ratings are kept in {table}" in told and "Traceback" not in told
    with started(*words) as (process, url):
        state = json.loads(ask(url, "state"))
        assert (state["item"], state["done"], state["total"]) == (2, 1, 13)
        while state["item"] is not None:
            state = rated(url, state["item"])
        assert "error" not in post(url, "finish")
        post(url, "close")
        out, told = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, told
    assert json.loads(out)["scale"]["frames"] == 12
    (rater,) = ScoreScale.load(tmp_path / "s.json").raters
    assert (rater.repeats, rater.repeat_sigma) == (1, 0.0)


# --- what is told on it ---


def test_look_tells_both_scores(frames: list[Path], tmp_path: Path) -> None:
    scale().save(tmp_path / "s.json")
    result = CliRunner().invoke(app, ["look", str(frames[4]), "--json", "--score-scale", str(tmp_path / "s.json")])
    assert result.exit_code == 0, result.output
    focus = json.loads(result.stdout)[0]["focus"]
    assert focus["score"] == pytest.approx(scale().told(focus["score_physical"]))
    assert focus["score"] != pytest.approx(focus["score_physical"], abs=0.1)
    bare = json.loads(CliRunner().invoke(app, ["look", str(frames[4]), "--json"]).stdout)[0]["focus"]
    assert "score_physical" not in bare and bare["score"] == focus["score_physical"]


def test_look_refuses_another_models_scale_before_it_reads(frames: list[Path], tmp_path: Path) -> None:
    scale(model_sha256="0" * 64).save(tmp_path / "s.json")
    result = CliRunner().invoke(app, ["look", str(frames[0]), "--score-scale", str(tmp_path / "s.json")])
    assert isinstance(result.exception, BeamsideError)
    assert result.exception.exit_code == 78


def test_check_describes_it(tmp_path: Path) -> None:
    scale().save(tmp_path / "s.json")
    settings = load(None, {"focus": {"score_scale": tmp_path / "s.json"}})
    assert _score_scale(settings) == ("ok", "by Ada, 20 frames rated from 1.0 to 9.0, error 1.0 of 10, made 2026-01-02")
    assert _score_scale(load())[0] == "ok"


def test_the_agent_tells_the_mapped_score_and_remembers_the_models_own(tmp_path: Path) -> None:
    scale().save(tmp_path / "s.json")
    decider = Decider(terms(load(None, {"focus": {"score_scale": tmp_path / "s.json"}})))
    pixels, optics = np.zeros((160, 160), np.uint8), Optics(source="electron/SE2")
    frame = Frame(number=1, pixels=pixels, optics=optics, lane=Lane.LIVE, received_ns=0)
    decider.admit(frame, ManualClock().now_ns())
    findings = Findings(score=7.5, content=1.0)
    decision = decider.decide(frame, findings, now_ns=ManualClock().now_ns())
    assert decision.focus is not None
    assert decision.focus.score == pytest.approx(6.0)
    assert findings.score == 7.5


def test_the_watch_on_focus_goes_by_the_models_own_score() -> None:
    """A loss of 1.5 points by the model, more than it lets pass, is 0.75 on the scale, less than it lets pass."""
    decider = Decider(replace(terms(load()), score_scale=scale()))
    assert scale().told(5.5) - scale().told(4.0) < RESTART_SCORE < 5.5 - 4.0
    decider.focusing.routine = replace(decider.routine, phase=Phase.CONVERGED)
    decider.focusing.converged_score = 5.5
    for _ in range(RESTART_FRAMES):
        decider.focusing.watch_for_loss(Findings(score=4.0, content=1.0))
    assert decider.routine.phase is not Phase.CONVERGED
