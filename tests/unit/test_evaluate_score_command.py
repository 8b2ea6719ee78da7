"""`beamside evaluate score`: one JSON document, a table, a page that a browser shows whole, clear refusals."""

import shutil
import subprocess
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.commands import evaluate_score
from agent.commands.score_account import OWN, Account, Asked, account, targets, verdict
from agent.commands.score_page import page
from agent.commands.score_table import sentences, tell
from agent.errors import BeamsideError, UsageError
from calibration.evaluate import score_cells, score_figures, score_learn
from calibration.evaluate.score_cells import READERS, Cell, Measured
from calibration.evaluate.score_folds import Fold, folds
from calibration.evaluate.score_learn import NETWORKS
from calibration.train.data import Samples
from tests.unit.scored import Slight
from tests.unit.scored import samples as drawn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KINDS = ("line-space", "contact-holes", "flat")
FOLDS = len(KINDS) + 1
ASKED = Asked(pictures=240, seed=1, minutes=2.0)


@lru_cache(maxsize=1)
def samples() -> Samples:
    return drawn()


def some() -> list[Fold]:
    """A few of all: three specimens and the highest magnification."""
    return [fold for fold in folds(samples()) if fold.name in (*KINDS, "50 000 x")]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_figures, "RESAMPLES", 100)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "score", *map(str, words)])


@lru_cache(maxsize=1)
def measured() -> Measured:
    """Each reader errs by its own amount; the last one came to nothing but its first fold."""
    cells, rng = [], np.random.default_rng(2)
    for number, reader in enumerate(READERS):
        for place, fold in enumerate(some()):
            off = 0.2 * (len(READERS) - number) * rng.standard_normal(len(fold.asked))
            said = np.asarray(np.clip(samples().score[fold.asked] + off, 0.0, 10.0), np.float32)
            done = reader != READERS[-1] or place == 0
            cells.append(Cell(reader, fold, said if done else None, 1.0 if done else None))
    return Measured(samples(), 240, tuple(cells))


@lru_cache(maxsize=1)
def told() -> Account:
    return account(ASKED, measured(), model="autofocus@test", work="out/score", began_s=0.0)


def test_the_totals_are_those_of_what_was_finished() -> None:
    by_reader = {each.reader: each for each in told().totals if each.by == "specimen"}
    assert by_reader[OWN].folds == by_reader[OWN].of == len(KINDS)
    assert by_reader[READERS[-1]].folds == 1 and by_reader[OWN].shared_folds == 1
    worst, own = by_reader[READERS[0]].finished, by_reader[OWN].finished
    assert worst is not None and own is not None and own.rmse < worst.rmse
    assert worst.rmse == pytest.approx(0.2 * len(READERS), rel=0.15)
    assert len(told().unfinished) == FOLDS - 1 and f"{READERS[-1]}, {KINDS[0]}" not in told().unfinished


def test_a_target_is_met_or_missed_by_what_was_measured() -> None:
    perfect = tuple(replace(cell, said=samples().score[cell.fold.asked]) for cell in measured().cells)
    whole = replace(measured(), cells=perfect)
    known = account(ASKED, whole, model="m", work="w", began_s=0.0)
    assert [each.met for each in known.targets] == [True, True, True]
    assert told().targets[0].met is False
    assert [each.met for each in targets([], [])] == [None, None, None]


def test_no_target_is_met_on_some_of_the_folds() -> None:
    perfect = [replace(cell, said=samples().score[cell.fold.asked], took_s=1.0) for cell in measured().cells]
    last = max(i for i, cell in enumerate(perfect) if cell.reader == OWN and cell.fold.by == "specimen")
    perfect[last] = replace(perfect[last], said=None, took_s=None)
    known = account(ASKED, replace(measured(), cells=tuple(perfect)), model="m", work="w", began_s=0.0)
    assert [each.met for each in known.targets][::2] == [None, None]
    assert verdict(known.targets[0]) == "not all folds" and known.targets[0].measured == 0.0
    assert f"{OWN} ({len(KINDS) - 1} of {len(KINDS)} folds)" in page(known, measured())


def test_the_screen_names_every_fold_reader_and_what_is_not_finished(capsys: pytest.CaptureFixture[str]) -> None:
    tell(told())
    said = capsys.readouterr().out
    assert all(name in said for name in (*KINDS, *READERS, "50 000 x", "missed", "not yet"))
    assert f"{FOLDS - 1} of {len(READERS) * FOLDS} cells are not finished" in said


def test_a_bench_without_all_its_pictures_measures_nothing_and_says_how_to_go_on() -> None:
    early = account(ASKED, Measured(None, 80, ()), model="m", work="w", began_s=0.0)
    assert early.rows == () and "80 of 240 pictures were drawn" in " ".join(sentences(early))
    assert "80 of 240 pictures" in page(early, Measured(None, 80, ()))


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.tags: list[str] = []

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def test_the_page_has_a_scatter_for_each_fold_and_no_script() -> None:
    words = _Words()
    words.feed(page(told(), measured()))
    said = " ".join(words.seen)
    assert words.tags.count("figure") == FOLDS + 1 and "script" not in words.tags
    assert all(name in said for name in (*KINDS, *READERS)) and said.count("not finished") >= FOLDS - 1
    assert "missed" in said


def test_a_browser_shows_the_page_without_sliding_sideways(tmp_path: Path) -> None:
    """Chromium's own layout: no drawing or table makes the page wider than the window."""
    assert CHROMIUM is not None, "the tests of pages need chromium"
    probe = "<script>document.title='width '+document.documentElement.scrollWidth+' '+document.images.length</script>"
    shown = tmp_path / "score.html"
    shown.write_text(page(told(), measured()).replace("</body>", probe + "</body>"), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=800,900",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", shown.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "<title>width 800 0</title>" in dom or "<title>width 785 0</title>" in dom


def test_the_command_writes_one_document_and_a_page_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of the test, networks of eight weights, the shipped model as it is."""
    monkeypatch.setattr(score_cells, "pictures", lambda count, **more: samples())
    monkeypatch.setattr(score_cells, "folds", lambda shown: [folds(shown)[each] for each in (0, -1)])
    monkeypatch.setattr(score_cells, "NETWORKS", tuple(replace(each, make=Slight) for each in NETWORKS))
    monkeypatch.setattr(score_learn, "EPOCHS", 1)
    work, report = tmp_path / "work", tmp_path / "report"
    result = run("--pictures", 130, "--work", work, "--report", report, "--json")
    assert result.exit_code == 0, result.output
    document = msgspec.json.decode(result.stdout)
    assert document["asked"]["pictures"] == 240 and document["unfinished"] == []
    assert [each["reader"] for each in document["rows"]] == [reader for reader in READERS for _ in range(2)]
    assert document["model"].startswith("autofocus@") and (report / "score.html").is_file()
    again = msgspec.json.decode(run("--pictures", 130, "--work", work, "--minutes", 0.01, "--json").stdout)
    assert again["rows"] == document["rows"]
    assert not list(tmp_path.rglob("*.part*"))


def test_a_damaged_answer_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_cells, "pictures", lambda count, **more: samples())
    monkeypatch.setattr(score_cells, "folds", lambda shown: folds(shown)[:1])
    monkeypatch.setattr(score_cells, "READERS", ("Laplacian",))
    first = msgspec.json.decode(run("--pictures", 130, "--work", tmp_path, "--json").stdout)
    (kept,) = tmp_path.rglob("laplacian*.npz")
    kept.write_bytes(kept.read_bytes()[:-9])
    second = msgspec.json.decode(run("--pictures", 130, "--work", tmp_path, "--json").stdout)
    assert [each["figures"] for each in second["rows"]] == [each["figures"] for each in first["rows"]]


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = run("--pictures", 0).exception
    assert isinstance(error, UsageError) and "--pictures 0: 120 at least" in str(error)
    (tmp_path / "file").touch()
    error = run("--work", tmp_path / "file").exception
    assert isinstance(error, BeamsideError) and "--work" in str(error) and "cannot be written" in str(error)
    monkeypatch.setattr(evaluate_score, "find_spec", lambda name: None)
    error = run("--work", tmp_path / "work").exception
    assert isinstance(error, BeamsideError) and "pip install 'beamside[calibrate]'" in str(error)
