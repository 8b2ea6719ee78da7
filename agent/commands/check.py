"""`beamside check`: would `run` start? Configuration, keys, folders, models, certificate; sockets are left alone."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from agent import settings as configuration
from agent.commands import run as running
from agent.commands.recipe_references import drawn
from agent.commands.score_scales import described, read_score_scale
from agent.errors import BeamsideError, ConfigurationError
from agent.recipes import Shelf
from agent.settings import Settings
from agent.wire import curve
from agent.wire.sockets import beyond_loopback
from engines.autofocus import Autofocus
from engines.defects import TASK as DEFECTS
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.errors import PackageError
from engines.load import MODELS, Loaded
from engines.manifest import read as read_package

InService = Autofocus | Depth | DefectFinder

SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}


@dataclass(frozen=True)
class Row:
    """One thing that was looked at."""

    what: str
    result: str  # ok, warning, failed
    detail: str


def check(
    config: Annotated[Path | None, typer.Option(help="TOML file.")] = None,
    frames: Annotated[str, typer.Option(help="Endpoint of the frame stream.")] = "",
    advice: Annotated[str, typer.Option(help="Endpoint to publish advice on.")] = "",
    commands: Annotated[str, typer.Option(help="Endpoint to answer requests on.")] = "",
    certificate: Annotated[Path | None, typer.Option(help="The instrument's certificate.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Exit 0 when `beamside run` with the same options would start, else 78."""
    try:
        settings = configuration.load(config, running.told(frames, advice, commands, certificate))
        rows = [Row("configuration", "ok", str(config) if config else "defaults and environment"), *_look(settings)]
    except ConfigurationError as error:
        rows = [Row("configuration", "failed", str(error))]
    _tell(rows, as_json)
    if any(row.result == "failed" for row in rows):
        raise typer.Exit(ConfigurationError.exit_code)


def _look(settings: Settings) -> list[Row]:
    looks: list[tuple[str, Callable[[Settings], tuple[str, str]]]] = [
        ("endpoints", _endpoints),
        ("keys", _keys),
        ("state", _state),
        ("autofocus", partial(_model, "autofocus", Autofocus)),
        ("depth", partial(_model, "depth", Depth)),
        ("defects", partial(_model, "defects", DefectFinder)),
        ("certificate", _certificate),
        ("score scale", _score_scale),
        ("recipes", _recipes),
    ]
    return [_row(what, look, settings) for what, look in looks]


def _row(what: str, look: Callable[[Settings], tuple[str, str]], settings: Settings) -> Row:
    try:
        return Row(what, *look(settings))
    except BeamsideError as error:
        return Row(what, "failed", str(error))


def _endpoints(settings: Settings) -> tuple[str, str]:
    frames, advice, commands = configuration.endpoints(settings)
    for endpoint in (advice, commands):
        if beyond_loopback(endpoint) and settings.keys.secret is None:
            raise ConfigurationError(f"{endpoint} is beyond loopback and keys.secret is not set: see beamside keys")
    plain = beyond_loopback(frames) and settings.keys.secret is None
    if plain and not settings.frames.allow_plain_tcp:
        raise ConfigurationError(f"{frames} is plain TCP from another host: set frames.allow_plain_tcp, or keys")
    return ("warning" if plain else "ok"), f"frames {frames}, advice {advice}, commands {commands}"


def _keys(settings: Settings) -> tuple[str, str]:
    if settings.keys.secret is None:
        return "ok", "none: advice and commands stay on this machine"
    curve.load_secret(settings.keys.secret)
    if settings.keys.allowed is None:
        raise ConfigurationError("keys.allowed is not set: CURVE without an allow-list authenticates nobody")
    return "ok", f"{len(curve.load_allowed(settings.keys.allowed))} public keys may connect"


def _state(settings: Settings) -> tuple[str, str]:
    running.prepare_folders(settings)
    folder = configuration.state_dir(settings)
    if not os.access(folder, os.W_OK):
        return "warning", f"{folder} cannot be written: the agent would hold with journal_unavailable"
    return "ok", str(folder)


def _model(task: str, start: Callable[[Loaded], InService], settings: Settings) -> tuple[str, str]:
    built = running.engines_built(settings)
    model = running.reader(settings, task, start, built=built)
    return ("ok" if built.cache.distrusted is None else "warning"), f"{model.name} on {model.reason}"


def _certificate(settings: Settings) -> tuple[str, str]:
    if settings.focus.certificate is None:
        return "warning", "none: the convergence angle is measured with a bracket of three each time"
    known = running.read_certificate(settings)
    if known is None:
        return "warning", f"{settings.focus.certificate} has expired"
    heights = "none" if known.height_scale is None else f"{known.height_scale:.3g}"
    alpha = f"alpha {known.alpha_rad * 1e3:.2f} mrad"
    return "ok", f"{known.instrument}, {alpha}, height scale {heights}, until {known.expires}"


def _score_scale(settings: Settings) -> tuple[str, str]:
    scale = read_score_scale(settings)
    return "ok", "none: the model's own score is told" if scale is None else described(scale)


def _recipes(settings: Settings) -> tuple[str, str]:
    """A recipe that cannot be used, or not as it is written, stops no agent: the others serve."""
    known = Shelf(settings.recipes.folder, drawn).read(_defect_model(settings))
    doubts = [f"{name}: {each.doubt}" for name, each in known.recipes.items() if each.doubt]
    told = "; ".join([f"{len(known.recipes)} known", *known.refused.values(), *doubts])
    return ("warning" if known.refused or doubts else "ok"), told


def _defect_model(settings: Settings) -> str:
    """name@sha. Raises ConfigurationError."""
    try:
        return read_package((settings.engines.models or MODELS) / DEFECTS)[0].label
    except PackageError as error:
        raise ConfigurationError(str(error)) from error


def _tell(rows: list[Row], as_json: bool) -> None:
    if as_json:
        ok = all(row.result != "failed" for row in rows)
        print(json.dumps({"ok": ok, "checks": [vars(row) for row in rows]}))
        return
    table = Table("what", "result", "detail")
    for row in rows:
        table.add_row(row.what, SIGNS[row.result], row.detail)
    Console().print(table)
