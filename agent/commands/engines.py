"""`beamside engines ...`: builds what serves on this machine, holds it against the float32 models, measures it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent import settings as configuration
from agent.commands import bench_table, benching
from agent.commands.building import Workshop, absent, doubts, makers
from agent.commands.makers import USUAL, Effort, Row
from agent.errors import ConfigurationError, EngineError
from agent.settings import Settings
from engines.build import TIMEOUT_S
from engines.errors import BackendMissingError, CacheError, ModelError, PackageError
from engines.load import BACKENDS, MODELS

FOLDER = "engines"  # in the state folder
app = typer.Typer(help="The engines that run the models: build, list, verify, bench.", no_args_is_help=True)

Backend = Annotated[str, typer.Option(help=f"One of {', '.join(BACKENDS)}; without it all that are installed.")]
Config = Annotated[Path | None, typer.Option(help="TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
SIGNS = {True: "[green]passed[/]", False: "[red]refused[/]", None: "not asked"}  # the parity gate


@app.callback()
def engines() -> None:
    """Sub-commands only."""


@app.command()
def build(
    backend: Backend = "",
    config: Config = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds that one engine may take.", min=1)] = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Build what is missing and ask the parity gate where a device answers. An engine that fails it does not serve."""
    with _house_errors(), Bars() as bars:
        workshop = _workshop(configuration.load(config), backend, Effort(timeout_s, bars.under_way))
        rows = list(bars.followed(workshop.build(), len(workshop)))
    _end(rows, backend, as_json=as_json)


@app.command()
def verify(backend: Backend = "", config: Config = None, as_json: AsJson = False) -> None:
    """Ask the parity gate again of everything that was built; the reports are kept beside the engines."""
    with _house_errors(), Bars() as bars:
        workshop = _workshop(configuration.load(config), backend)
        rows = list(bars.followed(workshop.verify(), len(workshop)))
    _end(rows, backend, as_json=as_json)


@app.command("list")
def show(backend: Backend = "", config: Config = None, as_json: AsJson = False) -> None:
    """What is there, and what the parity gate said of it last."""
    settings = configuration.load(config)
    with _house_errors():
        rows = list(_workshop(settings, backend).list())
    _tell(rows, backend, as_json=as_json)


@app.command()
def bench(
    backend: Backend = "",
    config: Config = None,
    runs: Annotated[int, typer.Option(help="Readings of each.", min=2, max=10_000)] = 30,
    as_json: AsJson = False,
) -> None:
    """How long a reading takes, upload included; against torch eager where it is installed (times as fast)."""
    with _house_errors():
        workshop = _workshop(configuration.load(config), backend)
        benching.check_there(workshop)
        rows, failed = benching.sorted_out(benching.measure(workshop, runs=runs))
    if as_json:
        print(msgspec.json.encode({"rows": rows} | ({"failed": failed} if failed else {})).decode())
    else:
        Console().print(bench_table.table(rows))
        _tell_absent(backend)
    for each in failed:
        print(f"{each.what}: {each.why}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def folder_of(settings: Settings) -> Path:
    """Built engines, their parity reports and verdicts."""
    return configuration.state_dir(settings) / FOLDER


def _end(rows: list[Row], backend: str, *, as_json: bool) -> None:
    _tell(rows, backend, as_json=as_json)
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _workshop(settings: Settings, backend: str, effort: Effort = USUAL) -> Workshop:
    return Workshop(
        models=settings.engines.models or MODELS,
        shapes=settings.engines.shapes,
        makers=makers(backend, folder_of(settings), effort),
        named=bool(backend),
    )


@contextmanager
def _house_errors() -> Iterator[None]:
    try:
        yield
    except (PackageError, BackendMissingError, CacheError) as error:
        raise ConfigurationError(str(error)) from error
    except ModelError as error:
        raise EngineError(str(error)) from error


# --- for people ---


class Bars:
    """On stderr: how many engines are done, and how far the one that is being built is."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeElapsedColumn(),
        )
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=console.is_terminal)
        self._all = self._progress.add_task("engines", total=None)
        self._one = self._progress.add_task("", total=1.0, visible=False)

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._one, visible=False)
        self._progress.stop()

    def under_way(self, engine: str, share: float, phase: str) -> None:
        self._progress.update(self._one, completed=share, description=f"{engine}: {phase}", visible=True)

    def followed(self, rows: Iterator[Row], count: int) -> Iterator[Row]:
        self._progress.update(self._all, total=count)
        for row in rows:
            what = f"{row.model} {row.precision} on {row.backend}"
            self._progress.update(self._all, advance=1, description=what)
            self._progress.update(self._one, visible=False)
            yield row


def _tell(rows: list[Row], backend: str, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(rows).decode())
        return
    table = Table("model", "precision", "shape", "backend", "parity", "MB", "took s", box=SIMPLE_HEAD)
    for row in rows:
        shape = "any" if row.shape is None else f"{row.shape[0]}x{row.shape[1]}"
        size = "" if row.bytes is None else f"{row.bytes / 1e6:.1f}"
        took = "" if row.took_s is None else f"{row.took_s:.1f}"
        table.add_row(row.model, row.precision, shape, row.backend, _sign(row), size, took)
    Console().print(table)
    for row in rows:
        if row.error:
            print(f"{row.model} {row.precision} on {row.backend}: {row.error}", file=sys.stderr)
    _tell_absent(backend)


def _sign(row: Row) -> str:
    if row.ok:
        return SIGNS[row.passed]
    return "[red]not there[/]" if row.path is None else "[red]unusable[/]"


def _tell_absent(backend: str) -> None:
    asked = (backend,) if backend else BACKENDS
    for line in (*(f"{name}: {why}" for name, why in absent(asked).items()), *doubts(asked)):
        print(line, file=sys.stderr)
