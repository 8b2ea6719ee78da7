"""`beamside engines ...`: builds what serves on this machine, holds it against the float32 models, measures it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent import settings as configuration
from agent.commands import benching
from agent.commands.building import Workshop, absent, makers
from agent.commands.makers import Row
from agent.errors import ConfigurationError, EngineError
from agent.settings import Settings
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
def build(backend: Backend = "", config: Config = None, as_json: AsJson = False) -> None:
    """Build what is missing and ask the parity gate where a device answers. An engine that fails it does not serve."""
    _act(Workshop.build, backend, config, as_json=as_json)


@app.command()
def verify(backend: Backend = "", config: Config = None, as_json: AsJson = False) -> None:
    """Ask the parity gate again of everything that was built; the reports are kept beside the engines."""
    _act(Workshop.verify, backend, config, as_json=as_json)


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
        rows = benching.measure(_workshop(configuration.load(config), backend), runs=runs)
    if as_json:
        print(msgspec.json.encode({"rows": rows}).decode())
        return
    Console().print(benching.table(rows))
    _tell_absent(backend)


def folder_of(settings: Settings) -> Path:
    """Built engines, their parity reports and verdicts."""
    return configuration.state_dir(settings) / FOLDER


def _act(action: Callable[[Workshop], Iterator[Row]], backend: str, config: Path | None, *, as_json: bool) -> None:
    rows = _rows(action, backend, config)
    _tell(rows, backend, as_json=as_json)
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _rows(action: Callable[[Workshop], Iterator[Row]], backend: str, config: Path | None) -> list[Row]:
    settings = configuration.load(config)
    with _house_errors():
        workshop = _workshop(settings, backend)
        return list(_followed(action(workshop), len(workshop)))


def _workshop(settings: Settings, backend: str) -> Workshop:
    return Workshop(
        models=settings.engines.models or MODELS,
        shapes=settings.engines.shapes,
        makers=makers(backend, folder_of(settings)),
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


def _followed(rows: Iterator[Row], count: int) -> Iterator[Row]:
    """A bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        bar = bars.add_task("engines", total=count)
        for row in rows:
            bars.update(bar, advance=1, description=f"{row.model} {row.precision} on {row.backend}")
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
    return SIGNS[row.passed] if row.ok else "[red]not there[/]"


def _tell_absent(backend: str) -> None:
    for name, why in absent((backend,) if backend else BACKENDS).items():
        print(f"{name}: {why}", file=sys.stderr)
