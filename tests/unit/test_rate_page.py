"""The rating page in a real browser: keys say numbers, pictures stand pixel for pixel, the end shows the scale.

Chromium is spoken to by its DevTools protocol over two pipes, so nothing more is needed than the browser itself.
"""

import base64
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent.commands import rate_table
from agent.commands.calibrate_rate import Fitter, Places
from agent.commands.rate_fit import Judge, Wanted
from agent.commands.rate_frames import Frames, digest, gathered
from agent.commands.rate_round import Book, Round, showings
from agent.commands.rate_server import Desk, RateServer
from engines.score_scale import ScoreScale
from tests.unit.test_rate_frames import SIDE, picture, quiet, through_focus

DEADLINE_S = 60.0
WINDOW = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
READY = "state !== null && (state.item === null || (shown !== null && !busy && performance.now() - shown > LEAST_MS))"


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, folder: Path) -> None:
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (theirs_in, theirs_out)]  # out of the way of 3 and 4
        line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{high[0]} 4>&{high[1]}; exec "$@"', "sh", *line, f"--user-data-dir={folder}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=high,
        )
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        self._read, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Emulation.setDeviceMetricsOverride", **WINDOW)

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answer()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _answer(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            got = os.read(self._from, 1 << 20)
            assert got, "the browser has ended"
            self._read += got
        one, self._read = self._read.split(b"\0", 1)
        told: dict[str, Any] = json.loads(one)
        return told

    def ask(self, script: str) -> Any:
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Also while a page is being loaded, which knows no names yet."""
        ends = time.monotonic() + DEADLINE_S
        while self.ask(f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()") is not True:
            assert time.monotonic() < ends, script
            time.sleep(0.02)

    def press(self, key: str, code: str = "", *, shift: bool = False) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, modifiers=8 if shift else 0)

    def screen(self) -> Any:
        """(800, 1280, 3) as it is seen."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(DEADLINE_S)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return gathered(through_focus(tmp_path_factory.mktemp("rated"), 12), quiet)


@pytest.fixture
def page(browser: Browser, frames: Frames, tmp_path: Path) -> Iterator[RateServer]:
    """Open, with the first frame on the screen."""
    book, places = Book(tmp_path / "r.csv", "Ada"), Places(tmp_path / "s.json", tmp_path / "r.csv")
    fit = Fitter(places, frames, lambda: Wanted(("Ada",)), Judge.loaded(None))
    rounds = Round(showings(frames.candidates, "Ada", seed=1, repeat_share=0.0), book)
    server = RateServer(Desk(rounds, fit, out=str(places.out)), 0)
    server.start()
    browser.call("Page.navigate", url=server.url)
    browser.until(READY)
    yield server
    server.stop()


def kept(folder: Path) -> list[float | None]:
    return [each.score for each in rate_table.read(folder / "r.csv")]


def test_every_score_is_a_key_ten_too_and_halves_with_shift_or_arrows(
    browser: Browser, page: RateServer, tmp_path: Path
) -> None:
    presses = [("7", "Digit7", False), ("t", "KeyT", False), ("&", "Digit6", True), ("é", "Digit2", False)]
    for key, code, shift in presses:
        browser.press(key, code, shift=shift)
        browser.until(f"state.done === {presses.index((key, code, shift)) + 1} && {READY}")
    assert kept(tmp_path) == [7.0, 10.0, 6.5, 2.0]
    browser.press("1", "Digit1")  # a one waits for a nought
    browser.press("0", "Digit0")
    browser.until(f"state.done === 5 && {READY}")
    browser.press("1", "Digit1")
    browser.until(f"state.done === 6 && {READY}")
    for _ in range(3):
        browser.press("ArrowRight", "ArrowRight")
    browser.press("Enter", "Enter")
    browser.until(f"state.done === 7 && {READY}")
    assert kept(tmp_path)[4:] == [10.0, 1.0, 6.5]
    browser.ask("document.querySelector('[data-score=\"3\"]').click()")
    browser.until(f"state.done === 8 && {READY}")
    assert kept(tmp_path)[7:] == [3.0]


def test_undo_and_skip_are_keys_and_enter_alone_says_nothing(
    browser: Browser, page: RateServer, tmp_path: Path
) -> None:
    first = browser.ask("state.item")
    browser.press("Enter", "Enter")
    browser.press("8", "Digit8")
    browser.until(f"state.item !== {first} && {READY}")
    browser.press("u", "KeyU")
    browser.until(f"state.item === {first} && {READY}")
    assert "taken back, was 8" in browser.ask("document.getElementById('last').textContent")
    assert kept(tmp_path) == []
    browser.press("s", "KeyS")
    browser.until(f"state.skipped === 1 && state.item !== {first} && {READY}")
    assert browser.ask("document.getElementById('count').textContent") == "0 of 12 rated"


def test_a_key_meant_for_the_frame_before_is_not_taken_for_the_next(
    browser: Browser, page: RateServer, tmp_path: Path
) -> None:
    browser.ask("for (const key of '888') document.dispatchEvent(new KeyboardEvent('keydown', { key }))")
    browser.until(f"state.done === 1 && {READY}")
    assert kept(tmp_path) == [8.0]


def test_a_small_frame_stands_in_whole_pixels_and_dark_ground_around_it(
    browser: Browser, page: RateServer, frames: Frames
) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", **WINDOW)
    seen = browser.screen()
    zoom = 4  # 776 px have room for four of 160
    box = browser.ask("(({ left, top, width }) => [left, top, width])(frame.getBoundingClientRect())")
    left, top, width = (round(each) for each in box)
    assert width == zoom * SIDE
    shown = seen[top : top + width, left : left + width, 0]
    assert np.array_equal(shown, np.kron(shown[::zoom, ::zoom], np.ones((zoom, zoom), np.uint8)))
    assert digest(np.ascontiguousarray(shown[::zoom, ::zoom])) in {each.sha256 for each in frames.candidates}
    assert seen[:, :left].max() < 20


def test_a_whole_round_ends_in_a_scale_and_a_page_that_shows_it(
    browser: Browser, page: RateServer, frames: Frames, tmp_path: Path
) -> None:
    sharpest_first = {each.sha256: number for number, each in enumerate(frames.candidates)}
    order = showings(frames.candidates, "Ada", seed=1, repeat_share=0.0)
    for done, showing in enumerate(order, start=1):
        score = 9 - round(0.8 * sharpest_first[showing.frame.sha256])
        browser.press(str(score), f"Digit{score}")
        browser.until(f"state.done === {done} && {READY}")
    assert browser.ask("document.getElementById('end').checkVisibility()")
    browser.press("Enter", "Enter")
    browser.until("location.pathname.endsWith('/result') && document.readyState === 'complete'")
    assert "The score scale of Ada" in browser.ask("document.body.innerText")
    assert browser.ask("document.querySelectorAll('svg .mark.f-sky').length") == 12 + 1  # and the legend's
    assert ScoreScale.load(tmp_path / "s.json").frames == 12
    browser.ask("document.getElementById('close').click()")
    assert page.desk.over.wait(DEADLINE_S)


def test_too_few_ratings_are_told_on_the_page_and_rating_goes_on(
    browser: Browser, page: RateServer, tmp_path: Path
) -> None:
    browser.press("e", "KeyE")
    browser.until("document.getElementById('notice').textContent.includes('10 at least')")
    browser.press("5", "Digit5")
    browser.until(f"state.done === 1 && {READY}")
    assert browser.ask("document.getElementById('notice').hidden")
    assert kept(tmp_path) == [5.0]


def test_a_frame_that_went_away_can_be_left_out(browser: Browser, page: RateServer, frames: Frames) -> None:
    order = showings(frames.candidates, "Ada", seed=1, repeat_share=0.0)
    victim = order[2].frame.path
    before = victim.read_bytes()
    try:
        cv2.imwrite(str(victim), picture(5.0, seed=77))
        browser.press("5", "Digit5")
        browser.until(f"state.done === 1 && {READY}")
        browser.press("5", "Digit5")
        browser.until("document.getElementById('notice').textContent.includes('no longer be read')")
        browser.press("7", "Digit7")  # of nothing that is on the screen
        browser.press("s", "KeyS")
        browser.until(f"state.skipped === 1 && state.done === 2 && {READY}")
        assert browser.ask("document.getElementById('notice').hidden")
    finally:
        victim.write_bytes(before)


def test_the_page_says_when_the_command_has_ended(browser: Browser, page: RateServer) -> None:
    page.stop()
    browser.press("5", "Digit5")
    browser.until("document.getElementById('notice').textContent.includes('The command has ended')")
