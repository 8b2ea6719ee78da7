"""The table of ratings on disk: one row each, written at once and durably, never rewritten; the last word counts.

A row with an empty score takes back what the rater said of that frame before. Raters share a file and are kept apart.
"""

import csv
import fcntl
import io
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import BeamsideError

COLUMNS = ("path", "sha256", "rater", "score", "rated_utc", "seconds", "order", "repeat")
HEADER = ",".join(COLUMNS) + "\n"
SHA_DIGITS = 64
WORST, BEST = 0.0, 10.0


@dataclass(frozen=True)
class Rating:
    """A row. `repeat`: the frame's second showing, which tells how well a rater agrees with himself."""

    path: str  # relative to the table's folder where that is possible
    sha256: str  # of the pixels: a frame that was moved is still known
    rater: str
    score: float | None  # 0..10; None: taken back
    rated_utc: str
    seconds: float  # from the picture on the screen to the rating
    order: int  # as shown to this rater, from 1
    repeat: bool

    @property
    def key(self) -> tuple[str, str, bool]:
        return self.rater, self.sha256, self.repeat


def read(path: Path) -> list[Rating]:
    """What holds now, in the order it was said; none where there is no file. Raises BeamsideError naming the line."""
    standing: dict[tuple[str, str, bool], Rating] = {}
    for rating in _rows(path, _text(path)):
        standing.pop(rating.key, None)
        standing[rating.key] = rating
    return [rating for rating in standing.values() if rating.score is not None]


def append(path: Path, rating: Rating) -> None:
    """On the disk when this returns, as a whole row. Raises BeamsideError when it cannot be written."""
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(_cells(rating))
    try:
        _write(path, row.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise BeamsideError(f"{path}: the rating cannot be written: {error.strerror}") from error


def _cells(rating: Rating) -> tuple[str, ...]:
    score = "" if rating.score is None else f"{rating.score:g}"
    last = (rating.rated_utc, f"{rating.seconds:.2f}", str(rating.order), str(int(rating.repeat)))
    return (rating.path, rating.sha256, rating.rater, score, *last)


def _write(path: Path, row: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two raters may share a table
        file.seek(0)
        data = file.read()
        whole = _whole(data)
        if len(whole) != len(data):
            file.truncate(len(whole))
        if not whole:
            row = HEADER.encode() + row
        elif not whole.endswith(b"\n"):  # a person's editor leaves it off
            row = b"\n" + row
        file.write(row)
        file.flush()
        os.fsync(file.fileno())
    if not whole:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """A new file is there after a power cut only if its folder says so."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _whole(data: bytes) -> bytes:
    """Without what a power cut left of a last row: the page was never told that such a one was kept."""
    body, end, tail = data.rpartition(b"\n")
    cells = tail.split(b",")
    return data if len(cells) >= len(COLUMNS) and cells[-1] else body + end


def _text(path: Path) -> str:
    try:
        return _whole(path.read_bytes()).decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise BeamsideError(f"{path}: the ratings cannot be read: {error.strerror}") from error


def _rows(path: Path, text: str) -> Iterator[Rating]:
    table = csv.reader(io.StringIO(text))
    header = tuple(next(table, COLUMNS))
    if header != COLUMNS:
        raise BeamsideError(
            f"{path}, line 1: columns {', '.join(header)}; expected {', '.join(COLUMNS)}: give another file with "
            "--ratings"
        )
    try:
        for cells in table:
            if cells:
                yield _rating(path, table.line_num, cells)
    except csv.Error as error:
        raise BeamsideError(f"{path}, line {table.line_num}: {error}") from error


def _rating(path: Path, line: int, cells: list[str]) -> Rating:
    if len(cells) != len(COLUMNS):
        raise _wrong(path, line, "row", f"{len(cells)} cells", f"{len(COLUMNS)}")
    where, sha256, rater, score, rated_utc, seconds, order, repeat = cells
    if len(sha256) != SHA_DIGITS or set(sha256) - set("0123456789abcdef"):
        raise _wrong(path, line, "sha256", sha256, "64 hexadecimal digits")
    if not rater:
        raise _wrong(path, line, "rater", rater, "a name")
    if repeat not in ("0", "1"):
        raise _wrong(path, line, "repeat", repeat, "0 or 1")
    if not order.isdecimal():
        raise _wrong(path, line, "order", order, "a whole number")
    return Rating(
        path=where,
        sha256=sha256,
        rater=rater,
        score=None if score == "" else _number(path, line, "score", told=score, most=BEST),
        rated_utc=rated_utc,
        seconds=_number(path, line, "seconds", told=seconds, most=math.inf),
        order=int(order),
        repeat=repeat == "1",
    )


def _number(path: Path, line: int, column: str, *, told: str, most: float) -> float:
    try:
        value = float(told)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and WORST <= value <= most):
        raise _wrong(path, line, column, told, f"a number from 0 to {most:g}" if most < math.inf else "0 or more")
    return value


def _wrong(path: Path, line: int, column: str, told: str, expected: str) -> BeamsideError:
    return BeamsideError(f"{path}, line {line}: {column} {told!r}; expected {expected}: mend or remove the line")
