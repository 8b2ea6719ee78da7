"""One rater's round through the frames: what is shown next, what was said, what is taken back. Knows no socket.

The order is random and follows from the seed, the rater and the frames, so that a round goes on where it stopped. Some
frames come a second time, much later: what a rater says then tells how well he agrees with himself.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from agent.commands import rate_table
from agent.commands.rate_frames import Candidate
from agent.commands.rate_table import Rating
from agent.errors import UsageError

APART = 0.4  # of the frames lie between the two showings of one, at least: long enough to forget what was said
LONGEST_S = 86400.0  # a day before one picture is no time that was taken


@dataclass(frozen=True)
class Showing:
    """A frame's turn."""

    number: int  # in the order of the round, from 1
    frame: Candidate
    repeat: bool

    @property
    def key(self) -> tuple[str, bool]:
        return self.frame.sha256, self.repeat


@dataclass(frozen=True)
class Place:
    """Where the round stands, as the page is told it. `item`: None at the end of the round."""

    item: int | None
    following: int | None  # the next one after it, for the page to fetch ahead
    width: int
    height: int
    done: int  # rated showings
    skipped: int
    total: int
    before: float | None  # what was said of this frame before it was taken back


@dataclass(frozen=True)
class Book:
    """Where ratings are kept, and whose they are."""

    table: Path
    rater: str


class Round:
    """Every change is on the disk before it counts. One thread at a time."""

    def __init__(self, showings: Sequence[Showing], book: Book) -> None:
        self._book = book
        self._showings = {each.number: each for each in showings}
        by_key = {each.key: each.number for each in showings}
        mine = [each for each in rate_table.read(book.table) if each.rater == book.rater]
        known = {(each.sha256, each.repeat): each for each in mine}
        self._said = {by_key[key]: rating for key, rating in known.items() if key in by_key}
        self._past = list(self._said)  # showings rated or skipped, the last one last
        self._skipped: set[int] = set()
        self._taken_back: dict[int, float] = {}

    def place(self) -> Place:
        item, following = ([*self._open(), None, None])[:2]
        height, width = (0, 0) if item is None else self._showings[item].frame.shape
        before = None if item is None else self._taken_back.get(item)
        done, skipped = len(self._said), len(self._skipped)
        return Place(item, following, width, height, done, skipped, len(self._showings), before)

    def frame(self, item: int) -> Candidate:
        """Raises UsageError where there is no such showing."""
        if item not in self._showings:
            raise UsageError(f"no frame {item} in this round")
        return self._showings[item].frame

    def rate(self, item: int, score: float, seconds: float) -> None:
        """Raises UsageError for what cannot be, BeamsideError where it cannot be kept."""
        showing = self._showing_now(item)
        if not rate_table.WORST <= score <= rate_table.BEST:
            raise UsageError(f"score {score:g}: expected 0 to 10")
        if not 0.0 <= seconds <= LONGEST_S:
            raise UsageError(f"seconds {seconds:g}: expected 0 to {LONGEST_S:g}")
        rating = Rating(
            path=_beside(showing.frame.path, self._book.table),
            sha256=showing.frame.sha256,
            rater=self._book.rater,
            score=score,
            rated_utc=_now(),
            seconds=seconds,
            order=item,
            repeat=showing.repeat,
        )
        rate_table.append(self._book.table, rating)
        self._said[item] = rating
        self._past.append(item)

    def skip(self, item: int) -> None:
        """Left out until the next start."""
        self._showing_now(item)
        self._skipped.add(item)
        self._past.append(item)

    def undo(self) -> None:
        """Back to the showing before; what was said of it is taken back. Raises UsageError at the beginning."""
        if not self._past:
            raise UsageError("nothing was said yet: there is nothing to take back")
        item = self._past[-1]
        rating = self._said.get(item)
        if rating is not None and rating.score is not None:
            rate_table.append(self._book.table, replace(rating, score=None, rated_utc=_now()))
            self._taken_back[item] = rating.score
            del self._said[item]
        self._skipped.discard(item)
        self._past.pop()

    def _showing_now(self, item: int) -> Showing:
        """The page may be an old one, or open twice: only what it shows now can be rated."""
        now = self.place().item
        if item != now:
            raise UsageError(f"frame {item} is not the one to rate now ({now}): the page was reloaded")
        return self._showings[item]

    def _open(self) -> list[int]:
        """What was just taken back comes first; then the order of the round."""
        left = [number for number in self._showings if number not in self._said and number not in self._skipped]
        again = [number for number in self._taken_back if number in left]
        return [*reversed(again), *(number for number in left if number not in again)]


def showings(frames: Sequence[Candidate], rater: str, *, seed: int, repeat_share: float) -> list[Showing]:
    """All frames once in random order, and a share of them again."""
    words = hashlib.sha256(f"{seed} {rater}".encode("utf-8", "surrogateescape")).digest()
    rng = np.random.default_rng(list(words))
    ordered = sorted(frames, key=lambda each: each.sha256)  # the order on the command line must not matter
    order = [(ordered[i], False) for i in rng.permutation(len(ordered))]
    apart = max(round(APART * len(order)), 1)
    first = len(order) - apart  # those early enough to be shown again
    again = round(repeat_share * len(order))
    chosen = sorted(rng.permutation(first)[:again].tolist()) if again else []
    # From the last one backwards: what is put in behind does not move what stands before.
    for at in reversed(chosen):
        order.insert(int(rng.integers(at + apart + 1, len(order) + 1)), (order[at][0], True))
    return [Showing(number, frame, repeat) for number, (frame, repeat) in enumerate(order, start=1)]


def _beside(path: Path, table: Path) -> str:
    """Relative to the table's folder: both may move together."""
    return os.path.relpath(path.resolve(), table.resolve().parent)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
