"""The demo's picture and table: something to look at whatever became of the episodes."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from agent.commands.board import SHOWN, Board
from agent.commands.canvas import length, number, ticks
from agent.commands.picture import HEIGHT, WIDTH, draw, most_instructive
from calibration.twin.episode import Episode, Point
from calibration.twin.inspecting import Find, InspectedField, Word, match
from calibration.twin.inspection import InspectedFrame, TrueDefect
from calibration.twin.instrument import MicroscopeSettings

H_M = 1.03e-6
PIXELS = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)


def point(frame: int, true_m: float, **changes: Any) -> Point:
    told: dict[str, Any] = {
        "t_s": 0.4 * frame,
        "working_distance_m": 5e-3 + true_m,
        "evidence_frames": frame,
        "phase": "correcting",
        "score": 8.0,
        "defocus_m": true_m + 0.1e-6,
        "sigma_m": 0.2e-6,
    }
    return Point(frame=frame, true_defocus_m=true_m, **{**told, **changes})


def episode(**changes: Any) -> Episode:
    told: dict[str, Any] = {
        "seed": 1,
        "specimen": "tin-balls",
        "start_defocus_m": 7e-6,
        "residual_m": 0.1e-6,
        "moved_m": -6.9e-6,
        "half_depth_of_focus_m": H_M,
        "frames": 3,
        "end": "converged",
        "reason": "",
        "pixel_size_m": 10e-9,
        "track": (point(0, 7e-6, defocus_m=None, sigma_m=None, phase="probing"), point(1, 11e-6), point(2, 0.1e-6)),
        "first": PIXELS,
        "last": PIXELS,
    }
    return Episode(**{**told, **changes})


HELD = episode(end="held", reason="featureless", residual_m=7e-6, frames=1, track=(point(0, 7e-6, phase="held"),))
FAILED = episode(end="failed", reason="no heartbeat from the agent", frames=0, track=(), first=None, last=None)
DEAF = episode(track=tuple(point(i, 2e-6, score=None, phase=None, defocus_m=None) for i in range(40)))
EXACT = episode(residual_m=0.0, start_defocus_m=0.0, track=(point(0, 0.0, sigma_m=0.0),))


def drawn(episodes: list[Episode], folder: Path) -> NDArray[np.uint8]:
    draw(episodes, folder / "demo.png")
    picture = cv2.imread(str(folder / "demo.png"))
    assert picture is not None
    return np.asarray(picture, np.uint8)


@pytest.mark.parametrize(
    "episodes",
    [[], [episode()], [HELD], [FAILED], [DEAF], [EXACT], [episode(), HELD, FAILED, DEAF], [episode()] * 50],
    ids=["none", "one", "held", "no frames", "no scores", "nothing to do", "mixed", "fifty"],
)
def test_draws_a_page_whatever_became_of_the_episodes(episodes: list[Episode], tmp_path: Path) -> None:
    picture = drawn(episodes, tmp_path)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.min() < 60  # there is ink on it
    assert np.mean(np.all(picture == 255, axis=2)) > 0.3  # and room between


@pytest.mark.parametrize("shape", [(512, 512), (768, 1024), (100, 80), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shows_frames_of_any_size_and_depth(shape: tuple[int, int], dtype: type, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).uniform(0, 200, shape).astype(dtype)
    drawn([episode(first=pixels, last=pixels)], tmp_path)


def test_shows_the_longest_way_that_led_into_focus() -> None:
    short, long = episode(start_defocus_m=2e-6), episode(start_defocus_m=-9e-6)
    assert most_instructive([HELD, short, long, FAILED, replace(HELD, start_defocus_m=99e-6)]) is long
    assert most_instructive([FAILED, HELD]) is HELD


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        draw([episode()], tmp_path / "nowhere" / "demo.png")


def test_ticks_are_round_and_within_the_range() -> None:
    assert ticks(-2.3, 14.1) == [0.0, 5.0, 10.0]
    assert ticks(1, 4, most=15, least=1) == [1, 2, 3, 4]
    assert len(ticks(0.0, 1e-3)) <= 8


@pytest.mark.parametrize(
    ("metres", "like", "words"),
    [
        (1.03e-6, None, "1.03 µm"),
        (-94e-9, 1e-6, "−0.09 µm"),
        (65.1e-9, None, "65 nm"),
        (5e-3, None, "5.00 mm"),
        (0.0, 1e-6, "0.00 µm"),
    ],
)
def test_lengths_are_told_in_the_unit_that_suits(metres: float, like: float | None, words: str) -> None:
    assert length(metres, like) == words


def test_numbers_carry_the_decimals_of_their_step() -> None:
    assert number(-0.5, 0.5) == "−0.5"
    assert number(2.0, 2.0) == "2"


def shown(board: Board, width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(board.table())
    return console.export_text()


def test_the_table_follows_an_episode_while_it_runs() -> None:
    board = Board(2)
    assert "loading" in shown(board)
    board.begin(MicroscopeSettings(seed=4, specimen="grains"))
    assert "grains" in shown(board)
    board.point(point(1, 11e-6))
    words = shown(board)
    assert "correcting" in words and "+11.00" in words and "8.0" in words
    board.end(episode())
    assert "converged" in shown(board) and "1 of 2 done, 1 in focus" in shown(board)


def inspected(end: str = "inspected", reason: str = "") -> InspectedField:
    truth = (
        TrueDefect("pit", (4.0, 4.0, 12.0, 12.0), -2e-8, 4.0),
        TrueDefect("break", (40.0, 4.0, 50.0, 9.0), 0.0, 4.0),
    )
    found = (Find("pit", (4.0, 4.0, 12.0, 12.0), 0.9, None), Find("pit", (20.0, 40.0, 30.0, 50.0), 0.4, None))
    heights = np.zeros((64, 64), np.float32)
    shown = InspectedFrame("line-space", PIXELS[:64, :64], 2e-9, 40.0, 800.0, heights, truth)
    word = Word(end, reason, found, took_s={"defects": 0.2, "depth": 0.05}) if end == "inspected" else Word(end, reason)
    return InspectedField(6, shown, word, match(truth, word.found))


def test_the_fields_have_a_table_of_their_own_once_the_episodes_are_over() -> None:
    board = Board(1, fields=2)
    assert "defects" not in shown(board)
    board.end(episode())
    assert "Looking for defects" in shown(board) and "fresh fields" in shown(board)
    board.field(inspected())
    words = shown(board)
    assert "1 of 2 inspected, 1 of 2 defects found, 1 false alarm" in words
    assert re.search(r"6 +line-space +2 +1 +1 +1 +1 +0\.25 +inspected", words)


def test_a_field_that_failed_is_a_line_with_its_reason() -> None:
    board = Board(0, fields=1)
    board.field(inspected("failed", "no word within 15 s"))
    assert "failed: no word within 15 s" in shown(board)


def test_both_tables_fit_an_ordinary_terminal() -> None:
    board = Board(20, fields=20)
    for _ in range(20):
        board.end(episode())
        board.field(inspected())
    lines = shown(board, width=80).rstrip().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert any(line.rstrip().endswith("inspected") for line in lines)


def test_the_table_keeps_to_a_terminals_height_and_names_reasons() -> None:
    board = Board(99)
    for seed in range(60):
        board.end(replace(HELD, seed=seed))
    assert shown(board).count("held: featureless") == SHOWN
