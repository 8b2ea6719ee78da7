"""`beamside calibrate rate`: an operator rates frames on a small local page; out comes his own scale of the score.

Ratings are kept in a table, one row at once for each; the scale is a small JSON file that `focus.score_scale` names.
"""

import getpass
import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.commands import rate_table
from agent.commands.look import PIXEL_SIZES_M
from agent.commands.looking import printable
from agent.commands.rate_fit import Judge, Result, Wanted, fitted, raters_of
from agent.commands.rate_frames import Frames, LeftOut, found_again, gathered
from agent.commands.rate_page import sentences
from agent.commands.rate_round import Book, Round, showings
from agent.commands.rate_server import Desk, RateServer
from agent.errors import BeamsideError, UsageError
from engines.score_scale import ScoreScale

WAKE_S = 0.5
LONGEST_NAME = 60
MOST_REPEATED = 0.5  # of the frames: more would only tire
NOTHING = Frames((), ())


class Account(msgspec.Struct, frozen=True):
    """The JSON document."""

    out: str
    ratings: str
    scale: ScoreScale
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Places:
    """The files of one scale."""

    out: Path
    table: Path


@dataclass(frozen=True)
class Fitter:
    """Makes the scale of what is in the table by now, and writes it."""

    places: Places
    given: Frames
    wanted: Callable[[], Wanted]
    judge: Judge

    def __call__(self, progress: Callable[[int, int], None]) -> Result:
        """Raises BeamsideError where there is no scale."""
        wanted, ratings = self.wanted(), rate_table.read(self.places.table)
        here = {each.sha256 for each in self.given.candidates}
        folder = self.places.table.resolve().parent
        # By its picture a frame is one, whoever rated it under which path.
        others = {each.sha256: folder / each.path for each in ratings if each.rater in wanted.raters}
        elsewhere = found_again([(sha, path) for sha, path in others.items() if sha not in here], lambda *_: None)
        frames = (*self.given.candidates, *elsewhere.candidates)
        result = fitted(ratings, frames, wanted, judge=self.judge, progress=progress)
        result = replace(result, left_out=(*elsewhere.left_out, *result.left_out))
        _saved(result.scale, self.places.out)
        return result


def rate(
    frames: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FRAMES...", help="Pictures, or folders of them; with --fit-only those of the table."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The scale.")] = Path("score-scale.json"),
    ratings: Annotated[
        Path | None, typer.Option(help="Table of ratings, gone on with; else <out's stem>.ratings.csv.")
    ] = None,
    rater: Annotated[str | None, typer.Option(help="Who rates; else the login name.")] = None,
    together: Annotated[bool, typer.Option("--together", help="Fit all raters of the table.")] = False,
    fit_only: Annotated[bool, typer.Option("--fit-only", help="No page: fit the ratings that are there.")] = False,
    repeat_share: Annotated[float, typer.Option(help="Of the frames shown twice, 0 to 0.5.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the order; the same one goes on with a round.", min=0)] = 1,
    pixel_size_m: Annotated[float | None, typer.Option(help="Of all files, whatever they say; metres.")] = None,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Let the scale serve other autofocus models too.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Of the page, on this machine only; 0: any free one.", min=0, max=65535)
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only tell the page's address.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print scale and files left out as JSON.")] = False,
) -> None:
    """Experts rate frames from 0 to 10 on a local page; the model's score is mapped to theirs. Exit 1: no scale."""
    places = Places(out, ratings or out.with_name(f"{out.stem}.ratings.csv"))
    _check(places, pixel_size_m, repeat_share)
    given = _gathered(frames or [], needed=not fit_only)
    judge = Judge.loaded(pixel_size_m)
    if fit_only:
        asked = None if rater is None else _name(rater)
        result = _fit_now(places, given, judge, asked, together=together, any_model=any_model)
    else:
        book = Book(places.table, _name(rater or _login()))
        fit = Fitter(places, given, lambda: _mine(book, together, any_model), judge)
        rounds = Round(showings(given.candidates, book.rater, seed=seed, repeat_share=repeat_share), book)
        result = _on_the_page(Desk(rounds, fit, out=str(out.resolve())), places, port, browser=not no_browser)
    _name_left_out(result.left_out)
    _tell(result, places, given, as_json=as_json)


def _fit_now(
    places: Places, given: Frames, judge: Judge, rater: str | None, *, together: bool, any_model: bool
) -> Result:
    names = raters_of(rate_table.read(places.table), rater, together=together, table=places.table)
    with _bar("scores") as tell:
        return Fitter(places, given, lambda: Wanted(names, any_model), judge)(tell)


def _mine(book: Book, together: bool, any_model: bool) -> Wanted:
    """The rater's own ratings, or everybody's, as the table has them now."""
    known = {each.rater for each in rate_table.read(book.table)} if together else set()
    return Wanted(tuple(sorted(known | {book.rater})), any_model)


def _on_the_page(desk: Desk, places: Places, port: int, *, browser: bool) -> Result:
    """Until the page or Ctrl-C ends it. Raises BeamsideError where no scale came of it."""
    server = RateServer(desk, port)
    server.start()
    try:
        print(f"beamside: rate at {server.url} (Ctrl-C ends; every rating is kept)", file=sys.stderr, flush=True)
        if browser and not webbrowser.open(server.url):
            print("beamside: no browser could be opened here: open that address yourself", file=sys.stderr)
        while not desk.over.wait(WAKE_S):
            pass  # a signal that another thread was given is seen only where this one wakes
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        server.stop()
    if desk.result is None:
        raise BeamsideError(f"no scale was fitted; ratings are kept in {places.table}, the same command goes on there")
    return desk.result


# --- what is given ---


def _check(places: Places, pixel_size_m: float | None, repeat_share: float) -> None:
    """Now, and not after an hour of rating."""
    low, high = PIXEL_SIZES_M
    if pixel_size_m is not None and not low <= pixel_size_m <= high:  # a NaN fails too
        raise UsageError(f"--pixel-size-m {pixel_size_m:g}: expected {low:g} to {high:g}")
    if not 0.0 <= repeat_share <= MOST_REPEATED:
        raise UsageError(f"--repeat-share {repeat_share:g}: expected 0 to {MOST_REPEATED:g}")
    if places.out.resolve() == places.table.resolve():
        raise UsageError(f"--out and --ratings are both {places.out}: give two files")
    for option, path in (("--out", places.out), ("--ratings", places.table)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{option} {path}: its folder cannot be made: {error.strerror}") from error
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UsageError(f"{option} {path}: cannot be written; give a file in a folder of yours")


def _gathered(given: Sequence[Path], *, needed: bool) -> Frames:
    if not given:
        if needed:
            raise UsageError("no FRAMES: give pictures or folders of them, or --fit-only with --ratings")
        return NOTHING
    with _bar("frames") as tell:
        frames = gathered(given, tell)
    _name_left_out(frames.left_out)
    return frames


def _name_left_out(files: Sequence[LeftOut]) -> None:
    for each in files:
        print(f"beamside: {printable(each.path)}: left out: {printable(each.error)}", file=sys.stderr)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return "rater"


def _name(rater: str) -> str:
    name = rater.strip()
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UsageError(f"--rater {rater!r}: expected a name of at most {LONGEST_NAME} letters, without line breaks")
    return name


def _saved(scale: ScoreScale, path: Path) -> None:
    try:
        scale.save(path)
    except OSError as error:
        raise BeamsideError(f"--out {path}: the scale cannot be written: {error.strerror}") from error


# --- what is told ---


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """On stderr."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, of: bars.update(task, completed=done, total=of)


def _tell(result: Result, places: Places, given: Frames, *, as_json: bool) -> None:
    if as_json:
        left_out = (*given.left_out, *result.left_out)
        account = Account(str(places.out), str(places.table), result.scale, left_out)
        sys.stdout.write(msgspec.json.encode(account).decode() + "\n")
        return
    scale, console = result.scale, Console()
    table = Table("model's score", "rating", title=f"score scale in {places.out}", box=SIMPLE_HEAD)
    for x, y in scale.knots:
        table.add_row(f"{x:.2f}", f"{y:.2f}")
    console.print(table)
    for rater in scale.raters:
        spread = "" if rater.repeat_sigma is None else f", a single rating to ±{rater.repeat_sigma:.1f}"
        console.print(f"{rater.name}: {rater.frames} frames, {rater.repeats} twice{spread}", markup=False)
    console.print(
        f"{scale.frames} frames, rank correlation {scale.spearman:.2f}; off by ±{scale.error_before:.1f} points "
        f"without the scale, ±{scale.error_left_out:.1f} with it on a frame it never saw",
        highlight=False,
        soft_wrap=True,
    )
    for sentence, _ in sentences(result):
        console.print(sentence, highlight=False, soft_wrap=True)
