"""`beamside evaluate score`: score readers on specimens and magnifications that they did not learn from."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from agent.commands.report_html import write_page
from agent.commands.score_account import Account, Asked, account
from agent.commands.writing import made, writing
from agent.errors import BeamsideError, EngineError, UsageError

if TYPE_CHECKING:
    from calibration.evaluate.score_cells import Measured, Reader

LEAST = 120  # pictures: one scene of each kind
NEEDED = ("torch", "sklearn", "onnx")


def score(
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Stop then, and tell of what was done; run again to go on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and number: the same pictures and networks.")] = 1,
    pictures: Annotated[int, typer.Option(help="Learnt from and asked about, rounded up to whole scenes.")] = 9600,
    work: Annotated[Path, typer.Option(help="Pictures, checkpoints and answers are kept here.")] = Path("out/score"),
    report: Annotated[Path | None, typer.Option(help="Write a page here: score.html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Our network, ResNets and sharpness measures on specimens and magnifications left out of their training."""
    if pictures < 1:
        raise UsageError(f"--pictures {pictures}: {LEAST} at least are drawn, one scene of each kind of specimen")
    for folder, option in ((work, "--work"), (report, "--report")):
        if folder is not None:
            made(folder, option)
    told, measured = measure(pictures, seed=seed, minutes=minutes, work=work)
    if report is not None:
        from agent.commands.score_page import page

        with writing("--report"):
            write_page(page(told, measured), report / "score.html")
    if as_json:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    else:
        from agent.commands.score_table import tell

        tell(told)


def measure(pictures: int, *, seed: int, minutes: float | None, work: Path) -> "tuple[Account, Measured]":
    """Draw, teach, ask; as far as the time goes."""
    _need_torch()
    from calibration.dataset.errors import DatasetError
    from calibration.evaluate import score_cells
    from calibration.evaluate.score_clock import Deadline
    from calibration.evaluate.score_pictures import rounded

    began_s = time.monotonic()
    name, sha256, reader = _shipped()
    bench = score_cells.Bench(pictures=rounded(pictures), seed=seed, model=sha256)
    deadline = Deadline(None if minutes is None else began_s + 60.0 * minutes)
    try:
        with writing("--work"), _teller() as tell:
            measured = score_cells.measure(bench, reader, work=work, deadline=deadline, progress=tell)
    except DatasetError as error:
        raise BeamsideError(f"--work {work}: {error}") from error
    asked = Asked(pictures=bench.pictures, seed=seed, minutes=minutes)
    return account(asked, measured, model=name, work=str(work), began_s=began_s), measured


def _need_torch() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BeamsideError(f"the table needs {', '.join(missing)}: pip install 'beamside[calibrate]'")


def _shipped() -> "tuple[str, str, Reader]":
    """The package beside the code: name, checksum, and what it says of a picture."""
    from engines.autofocus import TASK
    from engines.errors import ModelError
    from engines.load import load

    try:
        loaded = load(TASK, backend="onnxruntime")
    except ModelError as error:
        raise EngineError(str(error)) from error

    def read(image: NDArray[np.uint8], condition: NDArray[np.float32]) -> float:
        return float(loaded.engine.run(image, condition)["score"][0])

    return loaded.manifest.label, loaded.manifest.sha256, read


@contextmanager
def _teller() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for each stage, as the stages come."""
    columns = TextColumn("{task.description:>17}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=of)
            bars.update(tasks[stage], completed=done)

        yield tell
