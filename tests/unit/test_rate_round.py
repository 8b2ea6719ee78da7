"""The table of ratings and a rater's round through the frames: nothing lost, nothing said twice, order by the seed."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.commands import rate_table
from agent.commands.rate_frames import Candidate
from agent.commands.rate_round import Book, Round, showings
from agent.commands.rate_table import COLUMNS, Rating
from agent.errors import BeamsideError, UsageError

HEADER = ",".join(COLUMNS)
SHA = "a" * 64


def rating(**changed: object) -> Rating:
    return replace(Rating("f/a.tif", SHA, "Ada", 7.5, "2026-01-02T03:04:05+00:00", 1.25, 1, False), **changed)


def candidates(count: int) -> list[Candidate]:
    return [Candidate(Path(f"{i}.png"), f"{i:064x}", (160, 200)) for i in range(count)]


def started(folder: Path, *, rater: str = "Ada", count: int = 10, share: float = 0.0) -> Round:
    shown = showings(candidates(count), rater, seed=1, repeat_share=share)
    return Round(shown, Book(folder / "r.csv", rater))


# --- the table ---


def test_a_rating_is_a_row_and_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.csv"
    rate_table.append(path, rating())
    assert path.read_text().splitlines() == [HEADER, f"f/a.tif,{SHA},Ada,7.5,2026-01-02T03:04:05+00:00,1.25,1,0"]
    assert rate_table.read(path) == [rating()]


def test_names_with_commas_and_bytes_that_are_no_text_survive(tmp_path: Path) -> None:
    odd = rating(path='lot 3, "b"/\udcff.tif', rater="Grüße, Ö")
    rate_table.append(tmp_path / "r.csv", odd)
    assert rate_table.read(tmp_path / "r.csv") == [odd]


def test_the_last_word_counts_and_can_be_taken_back(tmp_path: Path) -> None:
    for said in (
        rating(),
        rating(score=3.0),
        rating(rater="Bob"),
        rating(repeat=True),
        rating(rater="Bob", score=None),
    ):
        rate_table.append(tmp_path / "r.csv", said)
    assert rate_table.read(tmp_path / "r.csv") == [rating(score=3.0), rating(repeat=True)]


@pytest.mark.parametrize("torn", [f"f/b.tif,{SHA[:20]}", f"f/b.tif,{SHA},Ada,7,2026,1,2,", "f"])
def test_what_a_power_cut_left_of_a_row_is_no_rating_and_goes_with_the_next(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "r.csv"
    rate_table.append(path, rating())
    with path.open("a") as file:
        file.write(torn)
    assert rate_table.read(path) == [rating()]
    rate_table.append(path, rating(score=2.0))
    assert rate_table.read(path) == [rating(score=2.0)]
    assert len(path.read_text().splitlines()) == 3


def test_a_last_row_without_a_line_end_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rate_table.append(path, rating())
    path.write_text(path.read_text().rstrip("\n"))
    rate_table.append(path, rating(rater="Bob"))
    assert rate_table.read(path) == [rating(), rating(rater="Bob")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"a.tif,{SHA},Ada,11,2026,1,1,0", "line 3: score '11'; expected a number from 0 to 10"),
        (f"a.tif,{SHA},Ada,-1,2026,1,1,0", "line 3: score '-1'"),
        (f"a.tif,{SHA},Ada,nan,2026,1,1,0", "line 3: score 'nan'"),
        (f"a.tif,{SHA},Ada,seven,2026,1,1,0", "line 3: score 'seven'"),
        (f"a.tif,{SHA},Ada,7,2026,-1,1,0", "line 3: seconds '-1'; expected 0 or more"),
        (f"a.tif,{SHA},Ada,7,2026,1,x,0", "line 3: order 'x'"),
        (f"a.tif,{SHA},Ada,7,2026,1,1,yes", "line 3: repeat 'yes'"),
        (f"a.tif,{SHA},,7,2026,1,1,0", "line 3: rater ''"),
        ("a.tif,abc,Ada,7,2026,1,1,0", "line 3: sha256 'abc'"),
        ("a.tif,Ada,7", "line 3: row '3 cells'; expected 8"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_the_value(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "r.csv"
    rate_table.append(path, rating())
    with path.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(BeamsideError) as caught:
        rate_table.read(path)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_a_table_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("path,working_distance_m\na.tif,0.005\n")
    with pytest.raises(BeamsideError, match="line 1: columns path, working_distance_m; expected path, sha256"):
        started(tmp_path)
    assert path.read_text() == "path,working_distance_m\na.tif,0.005\n"


# --- the round ---


def play(rounds: Round, count: int) -> list[int]:
    """Rate the next ones with their own number's last digit."""
    seen = []
    for _ in range(count):
        item = rounds.place().item
        assert item is not None
        rounds.rate(item, float(item % 10), 1.0)
        seen.append(item)
    return seen


def test_the_order_follows_from_seed_and_rater_and_not_from_the_command_line() -> None:
    frames = candidates(30)
    order = showings(frames, "Ada", seed=1, repeat_share=0.2)
    assert order == showings(frames[::-1], "Ada", seed=1, repeat_share=0.2)
    assert order != showings(frames, "Bob", seed=1, repeat_share=0.2)
    assert order != showings(frames, "Ada", seed=2, repeat_share=0.2)


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (2, 0.5), (10, 0.1), (25, 0.2), (40, 0.5)])
def test_a_share_is_shown_again_much_later(count: int, share: float) -> None:
    order = showings(candidates(count), "Ada", seed=3, repeat_share=share)
    first = {each.frame.sha256: each.number for each in order if not each.repeat}
    again = [each for each in order if each.repeat]
    assert len(first) == count
    assert len(again) == min(round(share * count), count - max(round(0.4 * count), 1))
    assert all(each.number - first[each.frame.sha256] > 0.4 * count - 1.0 for each in again)
    assert [each.number for each in order] == list(range(1, len(order) + 1))


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole = play(started(tmp_path / "whole", share=0.3), 13)
    first = play(started(tmp_path, share=0.3), 5)
    again = started(tmp_path, share=0.3)
    assert again.place().done == 5
    assert first + play(again, 8) == whole
    assert again.place().item is None


def test_raters_are_kept_apart_in_one_table(tmp_path: Path) -> None:
    play(started(tmp_path), 4)
    bob = started(tmp_path, rater="Bob")
    assert bob.place().done == 0
    play(bob, 10)
    assert started(tmp_path).place().done == 4


def test_undo_takes_back_and_shows_the_frame_again(tmp_path: Path) -> None:
    rounds = started(tmp_path)
    first, second = play(rounds, 2)
    rounds.undo()
    assert (rounds.place().item, rounds.place().before) == (second, float(second % 10))
    rounds.undo()
    assert rounds.place().item == first
    assert rate_table.read(tmp_path / "r.csv") == []
    rounds.rate(first, 9.5, 2.0)
    assert [each.score for each in rate_table.read(tmp_path / "r.csv")] == [9.5]
    assert rounds.place().item == second
    rounds.undo()
    with pytest.raises(UsageError, match="nothing to take back"):
        rounds.undo()


def test_undo_reaches_what_was_said_before_a_restart(tmp_path: Path) -> None:
    *_, last = play(started(tmp_path), 3)
    again = started(tmp_path)
    again.undo()
    assert again.place().item == last


def test_a_skipped_frame_comes_again_with_the_next_start(tmp_path: Path) -> None:
    rounds = started(tmp_path)
    item = rounds.place().item
    assert item is not None
    rounds.skip(item)
    assert rounds.place().item != item
    assert rounds.place().skipped == 1
    rounds.undo()
    assert rounds.place().item == item
    rounds.skip(item)
    assert started(tmp_path).place().item == item


def test_only_what_is_shown_now_can_be_rated_and_only_from_0_to_10(tmp_path: Path) -> None:
    rounds = started(tmp_path)
    item, following = rounds.place().item, rounds.place().following
    assert item is not None and following is not None
    for bad in ((following, 5.0, 1.0), (item, 10.5, 1.0), (item, float("nan"), 1.0), (item, 5.0, -1.0), (99, 5.0, 1.0)):
        with pytest.raises(UsageError):
            rounds.rate(*bad)
    assert not (tmp_path / "r.csv").exists()


def test_a_rating_that_cannot_be_kept_does_not_count(tmp_path: Path) -> None:
    rounds = started(tmp_path)
    item = rounds.place().item
    assert item is not None
    (tmp_path / "r.csv").mkdir()
    with pytest.raises(BeamsideError, match="the rating cannot be written: Is a directory"):
        rounds.rate(item, 5.0, 1.0)
    assert rounds.place().item == item
    assert rounds.place().done == 0
