"""The demo's report: one file that needs nothing else, tells the truth in plain words, and fits a phone."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.commands.report_curves import runs
from agent.commands.report_fields import SHOWN, most_telling_fields
from agent.commands.report_heights import agreement
from agent.commands.report_page import Account, page, write
from agent.commands.report_words import focus_words, inspection_words
from calibration.twin.episode import Episode
from calibration.twin.inspecting import Find, InspectedField, Word, match
from calibration.twin.inspection import InspectedFrame, TrueDefect
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from tests.unit.test_picture import DEAF, EXACT, FAILED, H_M, HELD, episode

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CERTIFICATE = VirtualMicroscope(MicroscopeSettings(shape=(64, 64))).certificate()
WRONG = episode(residual_m=2.5 * H_M)
STATUS = {
    "agent": "0.1.0",
    "models": ["autofocus@12345678", "depth@abcdef01", "defects@0badcafe"],
    "backends": {"autofocus": "onnxruntime", "depth": "onnxruntime", "defects": "onnxruntime"},
    "timings": {"autofocus": {"p50_s": 0.02, "p99_s": 0.05}, "own stage": {"p50_s": 2e-5, "p99_s": 2e-5}},
    "frames": {"received": 20, "processed": 20, "superseded": 0, "uninspected": 0},
}
VOID = {"meta", "br", "img", "link", "hr", "input"}


def heights(shape: tuple[int, int] = (96, 128)) -> NDArray[np.float32]:
    lines = np.where(np.arange(shape[1]) % 16 < 8, 30e-9, 0.0).astype(np.float32)
    return np.tile(lines, (shape[0], 1))


def field(*found: Find, defects: tuple[TrueDefect, ...] | None = None, **changes: Any) -> InspectedField:
    truth = (BRIDGE, PIT) if defects is None else defects
    pixels = np.random.default_rng(1).integers(0, 256, (96, 128), np.uint8)
    shown = InspectedFrame("line-space", pixels, 2e-9, 40.0, 800.0, heights(), truth)
    told = {"end": "inspected", "found": found, "height_m": heights(), "calibrated": False, "took_s": {"depth": 0.03}}
    word = Word(**{**told, **changes})
    return InspectedField(3, shown, word, match(truth, word.found))


BRIDGE = TrueDefect("bridge", (20.0, 20.0, 40.0, 36.0), 25e-9, 6.0)
PIT = TrueDefect("pit", (70.0, 60.0, 90.0, 80.0), -20e-9, 3.0)
RIGHT = Find("bridge", (21.0, 20.0, 40.0, 36.0), 0.91, 22e-9)
OTHERWISE = Find("void", (70.0, 61.0, 90.0, 80.0), 0.66, None)
FALSE = Find("particle", (100.0, 4.0, 112.0, 14.0), 0.4, None)
GOOD, MISSING, CRYING = field(RIGHT, OTHERWISE), field(RIGHT), field(RIGHT, OTHERWISE, FALSE)
CLEAN = field(defects=())
LOST = field(end="failed", reason="no heartbeat from the agent", height_m=None, took_s={})
BLIND = field(FALSE, height_m=None, calibrated=None)
COARSE = field(RIGHT, height_m=heights()[::4, ::4])
LEVEL = field(height_m=np.zeros((96, 128), np.float32))


def account(episodes: list[Episode], fields: list[InspectedField], **changes: Any) -> Account:
    made = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    told = {"certificate": CERTIFICATE, "made": made, "machine": "a processor", "status": STATUS, **changes}
    return Account(episodes=episodes, fields=fields, **told)


FULL = account([episode(), HELD, FAILED, WRONG], [GOOD, MISSING, CRYING, CLEAN, LOST])


class Outline(HTMLParser):
    """Tags in order, whether they balance, addresses, and the words between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words += " " + data


# --- the file ---


@pytest.mark.parametrize(
    ("episodes", "fields"),
    [
        ([], []),
        ([episode()], []),
        ([HELD], [CLEAN]),
        ([FAILED], [LOST]),
        ([DEAF], [BLIND]),
        ([EXACT], [COARSE, LEVEL]),
        ([WRONG], [CRYING]),
        ([episode()] * 50, [GOOD, MISSING] * 20),
        ([episode(), HELD, FAILED, DEAF], [GOOD, LOST, CLEAN]),
    ],
    ids=["nothing", "no fields", "held", "failed", "no numbers", "exact", "wrong", "many", "mixed"],
)
def test_the_page_is_whole_whatever_became_of_the_demo(episodes: list[Episode], fields: list[InspectedField]) -> None:
    told = Outline(page(account(episodes, fields)))
    assert [tag for tag, _ in told.tags if tag == "h1"] == ["h1"]
    for heading in ("What happened", "Finding focus", "Looking for defects", "What these numbers do not tell"):
        assert heading in told.words
    assert "nan" not in told.words.lower().split() and "None" not in told.words


def test_nothing_on_the_page_comes_from_elsewhere() -> None:
    text = page(FULL)
    addresses = [a for _, attrs in Outline(text).tags for name, a in attrs.items() if name in ("href", "src", "srcset")]
    assert addresses and all(str(address).startswith("data:image/png;base64,") for address in addresses)
    assert "<script" not in text and "@import" not in text and "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#hatch"}


def test_every_picture_is_told_in_words_and_every_table_has_headings() -> None:
    tags = Outline(page(FULL)).tags
    drawings = [attrs for tag, attrs in tags if tag == "svg" and attrs.get("aria-hidden") != "true"]
    assert drawings and all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in drawings)
    assert sum(tag == "caption" for tag, _ in tags) == sum(tag == "table" for tag, _ in tags) > 3
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in tags if tag == "th")


def test_what_came_off_the_wire_stays_words() -> None:
    reason = '<img src=x onerror="alert(1)">&'
    lost = field(end="failed", reason=reason, height_m=None, took_s={})
    told = account([replace(HELD, reason=reason, specimen="<b>.tif")], [lost], status={**STATUS, "agent": "<i>"})
    outline = Outline(page(told))
    assert "img" not in [tag for tag, _ in outline.tags]
    assert reason in outline.words and "<b>.tif" in outline.words


def test_models_certificate_date_and_machine_are_named() -> None:
    told = Outline(page(FULL)).words
    for fact in ("12345678", "0badcafe", "onnxruntime", "2026-05-04", "a processor", "virtual microscope 0", "5.00"):
        assert fact in told


def test_a_status_that_tells_little_is_no_reason_for_no_report() -> None:
    told = Outline(page(account([episode()], [GOOD], status={}))).words
    assert "no timings" in told and "named no model" in told


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write(FULL, tmp_path / "nowhere" / "demo.html")


# --- what it says ---


def test_a_demo_where_all_went_well_says_so() -> None:
    told = " ".join(focus_words([episode(), episode()]) + inspection_words([GOOD, CLEAN]))
    assert "All ended in focus" in told and "no false alarm" in told and "without a flag" in told
    assert not re.search("Missed|stopped|failed|was not|not inspected", told)


def test_a_demo_where_nothing_went_well_says_that_too() -> None:
    told = " ".join(focus_words([HELD, FAILED, WRONG]) + inspection_words([MISSING, CRYING, LOST]))
    assert "No episode ended in focus" in told
    assert "said why" in told and "featureless" in told
    assert "One episode failed" in told and "no heartbeat" in told
    assert "believed to be in focus and was not" in told and "2.5 half depths" in told
    assert "Missed: a pit in field 1" in told
    assert "one place was flagged where nothing is wrong" in told
    assert "Field 3 was not inspected" in told


def test_a_long_list_is_cut_and_many_misses_are_counted_by_class() -> None:
    assert "and 45 more" in " ".join(focus_words([HELD] * 50))
    assert "Missed: pit (7)." in " ".join(inspection_words([MISSING] * 7))


def test_an_episode_that_ended_worse_than_it_began_is_named() -> None:
    worse = episode(start_defocus_m=2.0 * H_M, residual_m=-4.0 * H_M, end="failed", reason="frame limit")
    assert "further out of focus" in " ".join(focus_words([worse]))


def test_a_clean_field_that_was_flagged_is_not_called_clean() -> None:
    told = " ".join(inspection_words([GOOD, field(FALSE, defects=())]))
    assert "flagged all the same" in told and "without a flag" not in told


def test_heights_are_judged_against_the_truth_at_the_maps_own_size() -> None:
    exact, coarse, wrong = agreement(GOOD), agreement(COARSE), agreement(field(height_m=-heights()))
    assert exact == pytest.approx((1.0, 0.0))
    assert coarse is not None and coarse[0] > 0.7
    assert wrong is not None and wrong[0] == pytest.approx(-1.0)
    assert agreement(LEVEL) is None and agreement(BLIND) is None
    assert "do not follow" in " ".join(inspection_words([field(height_m=-heights())]))


def test_finds_misses_and_false_alarms_carry_their_own_numbers() -> None:
    told = page(account([], [field(RIGHT, FALSE)]))
    for number in ("1", "F1", "M1"):
        assert f"<b>{number}</b>" in told and f">{number}</text>" in told


def test_of_many_fields_those_that_went_wrong_are_shown() -> None:
    fields = [GOOD] * 20 + [MISSING] + [GOOD] * 20
    assert 20 in most_telling_fields(fields) and len(most_telling_fields(fields)) == SHOWN
    assert f"{41 - SHOWN} more fields" in page(account([], fields))


def test_fields_keep_their_numbers_behind_one_that_failed() -> None:
    assert "M1 in field 2" in page(account([], [LOST, MISSING]))


def test_frames_in_a_row_share_a_label() -> None:
    assert runs([1, 4, 5, 6, 9, 10]) == "1, 4–6, 9–10"


# --- in a browser ---

LOOK = """
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, width = page.documentElement.clientWidth;
    const all = selector => [...page.querySelectorAll(selector)];
    const fetched = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
    return {
      width,
      wide: page.documentElement.scrollWidth,
      out: all("main *:not(svg *)").filter(e => e.getBoundingClientRect().right > width + 0.5).map(e => e.outerHTML),
      flat: all("main svg").filter(e => e.getBoundingClientRect().height < 5).length,
      fetched: fetched.filter(name => !name.startsWith("data:")),
    };
  });
  document.body.innerText = JSON.stringify(seen);
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_it_at_two_widths_without_a_request_and_nothing_runs_out(tmp_path: Path) -> None:
    # A headless window is never narrower than 500 px; a frame in it is.
    told = html.escape(page(FULL))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{told}"></iframe>' for width in (390, 1280))
    (tmp_path / "both.html").write_text(f"<!doctype html><body>{frames}<script>{LOOK}</script></body>")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
            "--hide-scrollbars", "--dump-dom", f"file://{tmp_path / 'both.html'}",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    body = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)
    assert body is not None
    for seen, width in zip(json.loads(html.unescape(body[1])), (390, 1280), strict=True):
        assert seen == {"width": width, "wide": width, "out": [], "flat": 0, "fetched": []}
