"""`beamside evaluate focus`: one JSON document, the same figures on one process and on two, a page, clear refusals."""

import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.commands import evaluate_focus
from agent.commands.evaluate_focus import measure
from agent.commands.focus_account import Account, Asked, Measured, account
from agent.commands.focus_page import page
from agent.commands.focus_table import tell
from agent.errors import BeamsideError, UsageError
from calibration.evaluate import focus_mapfost
from calibration.evaluate.focus_faults import FAULTS
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_rows import Row
from calibration.evaluate.focus_run import Task, several
from tests.unit.test_evaluate_focus_figures import GOOD, HELD

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ASKED = Asked(episodes=4, seed=1, specimens=(), jobs=1, minutes=None, baselines=True, faults=True)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "focus", *map(str, words)])


def timeless(rows: list[Row]) -> list[Row]:
    return [replace(row, took_ms=(), method_s=0.0, twin_s=0.0) for row in rows]


def test_json_and_rows_of_a_small_bench(tmp_path: Path) -> None:
    """Flat fields: there is no specimen to render and nothing to focus on, which the agent says."""
    rows = tmp_path / "deep/rows.json"
    result = run("--episodes", 2, "--specimen", "flat", "--jobs", 1, "--json", "--episodes-json", rows)
    assert result.exit_code == 0, result.output
    told = msgspec.json.decode(result.stdout)
    assert told["done"] == 2 and told["asked"]["specimens"] == ["flat"]
    own = told["methods"][0]
    assert own["name"] == "beamside" and own["figures"]["n"] == 2
    assert own["abstention"]["featureless"]["n"] == 2 and own["abstention"]["textured"]["n"] == 0
    assert told["machine"]["cores"] >= 1 and told["machine"]["agent_s"] > 0.0
    assert {each["met"] for each in told["targets"]} <= {True, False, None}
    kept = msgspec.json.decode(rows.read_bytes(), type=list[Row])
    assert [row.number for row in kept] == [0, 1] and not list(tmp_path.rglob("*.part"))


def test_processes_change_no_figure() -> None:
    """And the first episodes of a longer bench are those of a shorter one."""
    alone = measure(replace(ASKED, episodes=1, specimens=("flat",), baselines=False, faults=False)).agent
    together = measure(replace(ASKED, episodes=2, specimens=("flat",), jobs=2, baselines=False, faults=False)).agent
    assert len(together) == 2 and timeless(list(together))[:1] == timeless(list(alone))


def test_it_stops_when_its_time_is_over_and_says_so() -> None:
    result = run("--episodes", 50, "--specimen", "flat", "--jobs", 1, "--minutes", 0.01)
    assert result.exit_code == 0, result.output
    assert "Stopped after" in result.stdout and "of 50 episodes" in result.stdout


def test_nothing_is_begun_when_the_time_is_over() -> None:
    assert several([Task(0, _never, 1)], jobs=1, until_s=time.monotonic() - 1.0) == []


def _never() -> Any:
    raise AssertionError("a task was begun")


def test_without_the_package_its_row_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Any:
        raise ImportError("mapfost")

    monkeypatch.setattr(focus_mapfost, "_package", gone)
    monkeypatch.setattr(evaluate_focus, "_followed", lambda what, tasks, asked, until_s: [])
    result = run("--episodes", 1, "--baselines", "--json")
    assert result.exit_code == 0, result.output
    notes = {each["name"]: each["note"] for each in msgspec.json.decode(result.stdout)["methods"]}
    assert notes["MAPFoSt 4.3.1"] == "not installed: pip install beamside[bench]"
    assert notes["Brent on sharpness"] == "no time was left for it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--episodes", 0), "--episodes 0: at least 1"),
        (("--episodes", -3), "--episodes -3: at least 1"),
        (("--specimen", "moon"), "--specimen moon: no specimen of that name; known are line-space"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words: tuple[object, ...], said: str) -> None:
    error = run(*words).exception
    assert isinstance(error, UsageError) and said in str(error)


@pytest.mark.parametrize("option", ["--report", "--episodes-json"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    error = run("--episodes", 9, option, tmp_path / "file" / "below").exception
    assert isinstance(error, BeamsideError) and option in str(error) and "cannot be written" in str(error)


# --- what people see ---


@pytest.fixture(scope="module")
def measured() -> Measured:
    """Rows as they might be: every end, a fault, a baseline and one that is not installed."""
    rows = [replace(GOOD, number=i, snr=(0.64, 1.3, 1.8, 4.0)[i % 4], start_h=2.0 * i - 40.0) for i in range(40)]
    rows += [replace(HELD, number=40, start_h=80.0, residual_h=80.0, stratum=3)]
    rows += [replace(GOOD, number=41, residual_h=2.0), replace(GOOD, number=42, frames=99)]
    faulty = {name: [replace(HELD, fault=name or None, reason="blank")] for name in FAULTS}
    compared = {"sweep": [replace(row, method="sweep", said=()) for row in rows[:5]], "other": "not installed: get it"}
    return Measured(agent=rows, compared=compared, faulty=faulty, took_s=60.0, load=0.5)


@pytest.fixture(scope="module")
def told(measured: Measured) -> Account:
    return account(ASKED, measured)


class Seen(HTMLParser):
    """What a page is made of, and whether its elements are closed in order."""

    VOID = ("meta", "br", "img", "circle", "rect", "polygon", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.words = list[str](), list[str](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_shows_all(told: Account, measured: Measured) -> None:
    text = page(told, measured.agent)
    seen = Seen(text)
    assert not seen.open and seen.tags.count("table") == 3 + len({each.by for each in told.strata})
    assert "script" not in seen.tags and "http" not in text and "link" not in seen.tags
    assert seen.tags.count("circle") > 10, "episodes of the worst signal are circles"
    for words in ("not installed: get it", "stale pixels", "frame to suggestion, p99", "1 of 42"):
        assert words in seen.words
    assert ">met</span>" in text and ">missed</span>" in text


def test_a_bench_of_nothing_still_has_a_page() -> None:
    empty = Measured(agent=[], compared={}, faulty={}, took_s=1.0, load=0.0)
    seen = Seen(page(account(ASKED, empty), []))
    assert not seen.open and "No episode was finished." in seen.words


def test_the_screen_has_a_line_for_each_fault_and_target(told: Account, capsys: pytest.CaptureFixture[str]) -> None:
    tell(told)
    said = capsys.readouterr().out
    assert all(name in said for name in FAULTS) and "blank 1" in said
    assert "other: not installed: get it" in said and "missed" in said
    assert "43 of" not in said, "all that was asked for was done"


def test_false_claims_are_drawn_apart(measured: Measured) -> None:
    from agent.commands.focus_plots import coverage, frames

    assert 'rect class="f-vermillion"' in frames(measured.agent)
    assert 'rect class="f-vermillion"' not in frames([row for row in measured.agent if row.residual_h < 1.0])
    assert "estimates" in coverage(measured.agent)
    assert any(row.end is End.HELD for row in measured.agent)


def test_a_browser_shows_the_page_without_sliding_sideways(told: Account, measured: Measured, tmp_path: Path) -> None:
    """Chromium's own layout: no drawing or table makes the page wider than the window."""
    assert CHROMIUM is not None, "the tests of pages need chromium"
    probe = "<script>document.title='width '+document.documentElement.scrollWidth+' '+document.images.length</script>"
    shown = tmp_path / "focus.html"
    shown.write_text(page(told, measured.agent).replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=800,900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", shown.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>width 800 0</title>" in dom or "<title>width 785 0</title>" in dom
