"""`beamside calibrate ...`: what is done before and between shifts. Needs the extra `calibrate`."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.errors import BeamsideError
from engines.manifest import Manifest

app = typer.Typer(help="Train models and calibrate instruments (needs pip install beamside[calibrate]).")
train = typer.Typer(help="Train a model on the virtual microscope.")
app.add_typer(train, name="train")

SHOWN = ("score_rmse", "score_spearman", "blur_median_relative_error", "blur_spearman", "content_auroc")


@app.callback()
def calibrate() -> None:
    """Sub-commands only."""


@train.callback()
def training() -> None:
    """Sub-commands only."""


@train.command()
def autofocus(
    minutes: Annotated[float, typer.Option(help="About how long two cores may take.", min=0.1, max=600)] = 25.0,
    seed: Annotated[int, typer.Option(help="The same seed and minutes give the same model.", min=0)] = 1,
    out: Annotated[Path, typer.Option(help="Models folder: the package is autofocus in it.")] = Path("out/models"),
    validate_on: Annotated[
        Path | None, typer.Option(help="Folder of pictures by other makers, for the manifest's table only.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Train the autofocus model; takes up where an interrupted training of the same plan stopped."""
    missing = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise BeamsideError(f"training needs {', '.join(missing)}: pip install 'beamside[calibrate]'")
    from calibration.train import autofocus as trainer

    command = f"beamside calibrate train autofocus --minutes {minutes:g} --seed {seed}"
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=of)
            bars.update(tasks[stage], completed=done)

        plan = trainer.plan_for(minutes, seed=seed)
        written = trainer.run(plan, out=out, command=command, progress=tell, outside_data=validate_on)
    _print(written, out=out, as_json=as_json)


def _bars() -> Progress:
    columns = TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def _print(written: Manifest, *, out: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(written).decode() + "\n")
        return
    table = Table("", *(figure.replace("_", " ") for figure in SHOWN), title=f"{written.label} in {out}")
    for name, row in written.metrics.items():
        if "score_rmse" in row:
            table.add_row(name.replace("_", " "), *(f"{row[figure]:.3f}" for figure in SHOWN))
    Console().print(table)
