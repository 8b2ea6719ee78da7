"""One sweep as a command runs it: a work folder that outlives an interruption, signals, and what is said at the end."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agent.errors import BeamsideError, UsageError
from calibration.certificate import Certificate, Limits

if TYPE_CHECKING:
    from calibration.sweep.recording import Recording
    from calibration.sweep.run import Swept
    from calibration.sweep.virtual import VirtualColumn


class TerminatedError(BeamsideError):
    """SIGTERM or SIGHUP."""


@dataclass(frozen=True)
class Asked:
    """A sweep as it was asked for; `identity` is what must be the same when an interrupted one goes on."""

    identity: Mapping[str, object]
    limits: Limits
    dose_frames: int
    out: Path
    previous: Certificate | None  # of the same instrument


def calibrated(column: "VirtualColumn", asked: Asked, *, resume: bool) -> "Swept":
    """The sweep with its work folder: kept where it was interrupted, gone where it has its answer."""
    from calibration.sweep.drive import Driver
    from calibration.sweep.errors import InterruptedSweepError, OtherSweepError, RefusedError
    from calibration.sweep.instrument import envelope_of
    from calibration.sweep.run import sweep

    try:
        recording = _recording(column, asked, resume=resume)
    except OtherSweepError as error:
        raise UsageError(str(error)) from error
    driver = Driver(column, envelope_of(asked.limits), recording, dose_frames=asked.dose_frames)
    kept = f"the start settings are restored; {_way_on(asked)}"
    try:
        with _terminated(), _Bar(recording.shots) as bar:
            swept = sweep(driver, previous=asked.previous, tell=bar.tell)
    except KeyboardInterrupt:
        print(f"beamside: interrupted; {kept}", file=sys.stderr)
        raise typer.Exit(130) from None
    except TerminatedError as error:
        raise BeamsideError(f"{error}; {kept}") from error
    except InterruptedSweepError as error:
        raise BeamsideError(f"{error}; {kept if driver.restored else _way_on(asked)}") from error
    except RefusedError as error:
        recording.discard()
        raise BeamsideError(f"no certificate: {error}; the start settings are restored") from error
    except OtherSweepError as error:
        raise BeamsideError(str(error)) from error
    recording.discard()
    return swept


def _way_on(asked: Asked) -> str:
    from calibration.sweep.recording import folder_of

    return f"what was measured is in {folder_of(asked.out)}: the same command with --resume goes on"


def _recording(column: "VirtualColumn", asked: Asked, *, resume: bool) -> "Recording":
    from calibration.sweep.recording import PLAN, Recording, folder_of

    folder = folder_of(asked.out)
    there = (folder / PLAN).exists()
    if there and not resume:
        raise UsageError(f"{folder}: an interrupted sweep is there: go on with --resume, or delete it to begin anew")
    try:
        if not there:
            return Recording.begin(folder, asked.identity, column.read())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from error
    recording = Recording.again(folder, asked.identity)
    column.catch_up(*recording.taken())
    return recording


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM and a closed terminal end the sweep as Ctrl-C does: by way of the start settings."""

    def leave(number: int, _: object) -> None:
        raise TerminatedError(f"ended by {signal.Signals(number).name}")

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """What is being done, and how many frames it took so far, on stderr."""

    def __init__(self, recorded: int) -> None:
        console = Console(stderr=True)
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self._bars = Progress(*columns, console=console, transient=True)
        self._recorded = recorded
        self._task = self._bars.add_task("begin", total=None)

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, stage: str, frames: int) -> None:
        again = f" ({self._recorded} shots were there)" if self._recorded else ""
        self._bars.update(self._task, description=f"{stage}, {frames} frames{again}")
