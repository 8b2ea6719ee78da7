"""`beamside evaluate focus`: the closed focus loop on many virtual specimens, its answers beside the truth."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.commands.focus_account import Asked, Measured, account
from agent.commands.writing import made, write
from agent.errors import UsageError

if TYPE_CHECKING:
    from calibration.evaluate.focus_rows import Row
    from calibration.evaluate.focus_run import Task

AGENTS_SHARE, BEFORE_FAULTS = 0.6, 0.8  # of the time there is, where there is more to do than the agent's episodes
MINUTES = 29.0  # with what was begun by then: half an hour, in which nobody is told nothing
LATE = "no time was left for it"


def focus(
    episodes: Annotated[int, typer.Option(help="How many; from 50 on every stratum is met.")] = 200,
    specimen: Annotated[
        list[str] | None,
        typer.Option(help="A specimen's name, may be given several times. Default: textured, 1 in 8 flat or sparse."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and number: the same episodes.")] = 1,
    baselines: Annotated[bool, typer.Option("--baselines", help="Others on the same seeds, the first 200.")] = False,
    faults: Annotated[bool, typer.Option("--faults", help="20 episodes for each of 19 faults.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Stop then, and tell of what was done.")] = MINUTES,
    report: Annotated[Path | None, typer.Option(help="Write a page here: focus.html.")] = None,
    episodes_json: Annotated[Path | None, typer.Option(help="Write a row an episode here, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """The closed focus loop on the virtual microscope: residuals, coverage, abstention, targets met or missed."""
    asked = Asked(
        episodes=_positive(episodes), seed=seed, specimens=_known(specimen or []), jobs=jobs or os.cpu_count() or 1,
        minutes=minutes, baselines=baselines, faults=faults,
    )  # fmt: skip
    page = None if report is None else report / "focus.html"
    for path, option in ((page, "--report"), (episodes_json, "--episodes-json")):
        if path is not None:
            made(path.parent, option)
    measured = measure(asked)
    told = account(asked, measured)
    if episodes_json is not None:
        write(msgspec.json.encode(measured.rows) + b"\n", episodes_json, "--episodes-json")
    if page is not None:
        from agent.commands.focus_page import page as drawn

        write(drawn(told, measured.agent).encode(), page, "--report")
    if as_json:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    else:
        from agent.commands.focus_table import tell

        tell(told)


def _positive(episodes: int) -> int:
    if episodes < 1:
        raise UsageError(f"--episodes {episodes}: at least 1 is needed, 50 to meet every stratum")
    return episodes


def _known(specimens: list[str]) -> tuple[str, ...]:
    from calibration.twin.specimen import NAMES

    unknown = [name for name in specimens if name not in NAMES]
    if unknown:
        raise UsageError(f"--specimen {unknown[0]}: no specimen of that name; known are {', '.join(NAMES)}")
    return tuple(specimens)


# --- the episodes ---


def measure(asked: Asked) -> Measured:
    """The agent first, then the baselines, then the faults; what no time is left for is left out."""
    began, load = time.monotonic(), os.getloadavg()[0]
    more = asked.baselines or asked.faults
    agent = _agents(asked, _deadline(asked, began, AGENTS_SHARE if more else 1.0))
    compared = _baselines(asked, len(agent), _deadline(asked, began, BEFORE_FAULTS if asked.faults else 1.0))
    faulty = _faulty(asked, _deadline(asked, began, 1.0))
    took_s = time.monotonic() - began
    return Measured(agent=agent, compared=compared, faulty=faulty, took_s=took_s, load=load)


def _deadline(asked: Asked, began_s: float, share: float) -> float | None:
    return None if asked.minutes is None else began_s + 60.0 * asked.minutes * share


def _agents(asked: Asked, until_s: float | None) -> "list[Row]":
    from agent.commands.focus_agent import made
    from calibration.evaluate.focus_run import Task

    tasks = [Task(number, made, asked.seed, asked.specimens) for number in range(asked.episodes)]
    return _followed("agent", tasks, asked, until_s)


def _baselines(asked: Asked, done: int, until_s: float | None) -> "dict[str, list[Row] | str]":
    """On the agent's first episodes, all on the same; or why not."""
    from calibration.evaluate.focus_baselines import BASELINES, MOST_EPISODES
    from calibration.evaluate.focus_run import Task

    if not asked.baselines:
        return {}
    here = [each for each in BASELINES if not each.missing()]
    numbers = range(min(done, MOST_EPISODES))
    tasks = [Task(number, each.make, asked.seed, asked.specimens) for number in numbers for each in here]
    rows = _followed("baselines", tasks, asked, until_s)
    whole = len(rows) - len(rows) % max(len(here), 1)  # a number that only some have seen compares nothing
    found = {each.name: [row for row in rows[:whole] if row.method == each.name] or LATE for each in here}
    return {each.name: each.missing() or found[each.name] for each in BASELINES}


def _faulty(asked: Asked, until_s: float | None) -> "dict[str, list[Row]]":
    """By fault; the first is none."""
    from agent.commands.focus_agent import made
    from calibration.evaluate.focus_faults import FAULTS, numbers
    from calibration.evaluate.focus_run import Task

    if not asked.faults:
        return {}
    tasks = [
        Task(number, made, asked.seed, asked.specimens, fault)
        for number in numbers(asked.seed, asked.specimens)
        for fault in FAULTS
    ]
    rows = _followed("faults", tasks, asked, until_s)
    return {fault: [row for row in rows if (row.fault or "") == fault] for fault in FAULTS}


def _followed(what: str, tasks: "list[Task]", asked: Asked, until_s: float | None) -> "list[Row]":
    from calibration.evaluate.focus_run import several

    with _bar(what, len(tasks)) as done:
        return several(tasks, jobs=min(asked.jobs, max(len(tasks), 1)), until_s=until_s, done=done)


@contextmanager
def _bar(what: str, total: int) -> "Iterator[Callable[[Row], None]]":
    """On stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda _: bars.advance(bar)
