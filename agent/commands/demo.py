"""`beamside demo`: a virtual SEM and the agent, two processes over real sockets: focus, inspection, a report."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from agent.commands.board import Board
from agent.commands.specimens import (
    CellOption,
    InvertedOption,
    LayerOption,
    LayoutOptions,
    ProfileOption,
    ScaleOption,
    profile_settings,
    specimen_errors,
    specimen_settings,
)
from agent.errors import BeamsideError, UsageError

if TYPE_CHECKING:
    from agent.commands.report_page import Account
    from calibration.twin.controller import Controller
    from calibration.twin.episode import Episode, Point
    from calibration.twin.inspecting import InspectedField
    from calibration.twin.instrument import MicroscopeSettings

START_S = 30.0  # until the agent has its models and its first status is out, on a loaded machine
STOP_S = 5.0
STATUS_S = 2.5  # a heartbeat comes every second: for one that counts the last frame too
REPORT = Path("beamside-demo")


def demo(
    episodes: Annotated[int, typer.Option(min=1, help="How many times to focus.")] = 5,
    specimen: Annotated[
        str,
        typer.Option(help="A specimen's name, an image or a layout (GDSII, OASIS, mask); default: the textured ones."),
    ] = "",
    layout_scale_nm: ScaleOption = None,
    layout_layer: LayerOption = "",
    layout_cell: CellOption = "",
    layout_inverted: InvertedOption = False,
    profile: ProfileOption = None,
    start_defocus_m: Annotated[float | None, typer.Option(help="Metres; default: within 12 half depths.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode; the next ones count up.")] = 1,
    snr: Annotated[float, typer.Option(min=0.01, max=100, help="Per pixel, in focus.")] = 1.8,
    alpha_error: Annotated[float, typer.Option(min=-0.9, max=9, help="Of the certificate, on purpose.")] = 0.0,
    fields: Annotated[int, typer.Option(min=0, max=200, help="How many fields to inspect afterwards; 0: none.")] = 4,
    report: Annotated[Path | None, typer.Option(help="Folder for the report; with --json only when given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Watch the loop close on a virtual microscope. Exit 0 when all episodes ran, whatever their ends."""
    from calibration.twin.episode import plan

    layout = LayoutOptions(layout_scale_nm, layout_layer, layout_cell, layout_inverted)
    if not specimen and layout.given:
        raise UsageError(f"{layout.given[0]}: of which layout? give its file with --specimen")
    given = profile_settings(profile) | (specimen_settings(specimen, layout) if specimen else {})
    plans = plan(episodes, seed=seed, snr=snr, start_defocus_m=start_defocus_m, **given)
    folder = report if report is not None else (None if as_json else REPORT)
    board, console = Board(len(plans), fields), Console(stderr=as_json)
    with (
        _orderly_end(),
        Live(board.table(), console=console, refresh_per_second=8, transient=as_json) as live,
        tempfile.TemporaryDirectory(prefix="beamside-demo-") as scratch,
        _session(Path(scratch), plans[0], alpha_error) as controller,
    ):
        done = [_run(controller, settings, board, live) for settings in plans]
        inspected = _inspect(controller, fields, seed=seed, board=board, live=live)
        account = _account(controller, done, inspected=inspected, snr=snr, alpha_error=alpha_error)
    if not console.is_terminal and not as_json:
        console.print()  # Live leaves a pipe without its last line's end
    if folder is not None:
        _report(account, folder)
    if as_json:
        told = {"episodes": [each.told() for each in done], "inspection": [each.told() for each in inspected]}
        print(json.dumps(told))


@contextmanager
def _orderly_end() -> Iterator[None]:
    """A closed terminal or a SIGTERM ends the agent too, not this process alone."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _session(scratch: Path, first: "MicroscopeSettings", alpha_error: float) -> "Iterator[Controller]":
    """The agent in a process of its own, the microscope here; both end whatever happens."""
    from calibration.twin.controller import Controller
    from calibration.twin.link import Link
    from calibration.twin.microscope import VirtualMicroscope

    ends = [f"ipc://{scratch}/{name}.ipc" for name in ("frames", "advice", "commands")]
    with specimen_errors():
        scope = VirtualMicroscope(first)
    scope.certificate(alpha_error=alpha_error).save(scratch / "certificate.json")
    link = Link(*ends)
    with (scratch / "agent.log").open("w") as log:
        agent = subprocess.Popen(_command(ends, scratch), env=_environment(scratch), stdout=log, stderr=log)
        try:
            controller = Controller(link, scope, lockstep=True)
            if not controller.wait_for_agent(START_S):
                raise BeamsideError(f"the agent did not start: {(scratch / 'agent.log').read_text()[-2000:]}")
            yield controller
        finally:
            link.close()
            _stop(agent)


def _command(ends: list[str], scratch: Path) -> list[str]:
    options = [f"--{name}={end}" for name, end in zip(("frames", "advice", "commands"), ends, strict=True)]
    return [sys.executable, "-m", "agent", "run", *options, f"--certificate={scratch / 'certificate.json'}"]


def _environment(scratch: Path) -> dict[str, str]:
    """The agent's own temporary state, and none of the configuration of an agent that runs beside it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BEAMSIDE_")}
    own = {"STATE_DIRECTORY": str(scratch / "state"), "RUNTIME_DIRECTORY": str(scratch)}
    return {**inherited, **own, "BEAMSIDE_DEPTH__PUBLISH": "true"}


def _stop(agent: "subprocess.Popen[bytes]") -> None:
    agent.send_signal(signal.SIGTERM)
    try:
        agent.wait(STOP_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()


def _run(controller: "Controller", settings: "MicroscopeSettings", board: Board, live: Live) -> "Episode":
    """One episode, shown while it runs."""
    from calibration.twin.episode import run_episode

    def seen(point: "Point") -> None:
        board.point(point)
        live.update(board.table())

    board.begin(settings)
    live.update(board.table())
    with specimen_errors():
        episode = run_episode(controller, settings, on_frame=seen)
    board.end(episode)
    live.update(board.table())
    return episode


def _inspect(controller: "Controller", fields: int, *, seed: int, board: Board, live: Live) -> "list[InspectedField]":
    """The inspection episode, shown while it runs."""
    if not fields:
        return []
    from calibration.twin.inspecting import plan_fields, run_inspection

    def seen(inspected: "InspectedField") -> None:
        board.field(inspected)
        live.update(board.table())

    return run_inspection(controller, plan_fields(fields, seed=seed), on_field=seen)


def _account(
    controller: "Controller",
    done: "list[Episode]",
    *,
    inspected: "list[InspectedField]",
    snr: float,
    alpha_error: float,
) -> "Account":
    """What the report is made of, taken while the agent lives: its next status counts every frame."""
    from agent.commands.report_facts import machine
    from agent.commands.report_page import Account

    before = controller.heard
    controller.listen(lambda: controller.heard is not before, STATUS_S)
    return Account(
        episodes=done,
        fields=inspected,
        certificate=controller.scope.certificate(alpha_error=alpha_error),
        made=datetime.now(UTC),
        machine=machine(),
        status=controller.heard,
        snr=snr,
        alpha_error=alpha_error,
    )


def _report(account: "Account", folder: Path) -> None:
    """One picture of the focus episodes, and one page for people on all of it."""
    from agent.commands.picture import draw
    from agent.commands.report_page import write

    picture, page = folder / "demo.png", folder / "demo.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw(account.episodes, picture)
        write(account, page)
    except OSError as error:
        raise BeamsideError(f"cannot write the report to {folder}: {error.strerror}") from error
    print(f"picture: {picture}\nreport: {page}", file=sys.stderr)
