"""`beamside calibrate ...`: what is done before and between shifts. Needs the extra `calibrate`."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.commands.calibrate_dataset import dataset
from agent.commands.calibrate_focus import focus
from agent.commands.calibrate_rate import rate
from agent.commands.calibrate_recipe import recipe
from agent.commands.calibrate_twin import twin
from agent.errors import BeamsideError, EngineError
from engines.manifest import Manifest

app = typer.Typer(help="Train models and calibrate instruments (needs pip install beamside[calibrate]).")
train = typer.Typer(help="Train a model on the virtual microscope.")
app.add_typer(train, name="train")
app.command()(dataset)
app.command()(twin)
app.command()(focus)
app.command()(rate)
app.command()(recipe)

SHOWN = {  # columns of the table on the screen; the manifest holds more
    "autofocus": ("score_rmse", "score_spearman", "blur_median_relative_error", "blur_spearman", "content_auroc"),
    "depth": ("median_correlation", "p10_correlation", "median_rmse_of_spread", "median_rmse_nm", "coverage_68"),
    "defects": (
        "capture_rate",
        "capture_rate_low",
        "capture_rate_high",
        "capture_rate_at_0.01",
        "class_accuracy",
        "box_iou_median",
    ),
    "cascade": (
        "accuracy_end_to_end",
        "accuracy_end_to_end_low",
        "accuracy_end_to_end_high",
        "leaf_accuracy",
        "defect_auroc",
        "leaf_ece",
        "automatic_share_at_95_purity",
    ),
}

Minutes = Annotated[float, typer.Option(help="About how long two cores may take.", min=0.1, max=600)]
Seed = Annotated[int, typer.Option(help="The same seed and minutes give the same model.", min=0)]
Out = Annotated[Path, typer.Option(help="Models folder: the package is a folder of the model's name in it.")]
ValidateOn = Annotated[
    Path | None, typer.Option(help="Folder of pictures by other makers, for the manifest's table only.")
]
Start = Annotated[
    Path | None,
    typer.Option(help="Models folder: begin with the weights of the package in it, not from nothing."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")]


class Trainer(Protocol):
    """What a training module offers."""

    def plan_for(self, minutes: float, *, seed: int) -> Any: ...

    def run(
        self,
        plan: Any,
        *,
        out: Path,
        command: str,
        progress: Callable[[str, int, int], None],
        outside_data: Path | None,
        start: bytes | None,
    ) -> Manifest: ...


@app.callback()
def calibrate() -> None:
    """Sub-commands only."""


@train.callback()
def training() -> None:
    """Sub-commands only."""


@train.command()
def autofocus(
    minutes: Minutes = 25.0,
    seed: Seed = 1,
    out: Out = Path("out/models"),
    validate_on: ValidateOn = None,
    start: Start = None,
    as_json: AsJson = False,
) -> None:
    """Train the autofocus model; takes up where an interrupted training of the same plan stopped."""
    _need_torch()
    from calibration.train import autofocus as trainer

    written = _trained(trainer, "autofocus", minutes, seed=seed, out=out, validate_on=validate_on, start=start)
    _print(written, out=out, as_json=as_json)


@train.command()
def depth(
    minutes: Minutes = 40.0,
    seed: Seed = 1,
    out: Out = Path("out/models"),
    validate_on: ValidateOn = None,
    start: Start = None,
    as_json: AsJson = False,
) -> None:
    """Train the depth model; takes up where an interrupted training of the same plan stopped."""
    _need_torch()
    from calibration.train import depth as trainer

    written = _trained(trainer, "depth", minutes, seed=seed, out=out, validate_on=validate_on, start=start)
    _print(written, out=out, as_json=as_json)


@train.command()
def defects(
    minutes: Minutes = 40.0,
    seed: Seed = 1,
    out: Out = Path("out/models"),
    validate_on: ValidateOn = None,
    start: Start = None,
    as_json: AsJson = False,
) -> None:
    """Train the defect model; takes up where an interrupted training of the same plan stopped."""
    _need_torch()
    from calibration.train import defects as trainer

    written = _trained(trainer, "defects", minutes, seed=seed, out=out, validate_on=validate_on, start=start)
    _print(written, out=out, as_json=as_json)


@train.command()
def cascade(
    minutes: Minutes = 20.0,
    seed: Seed = 1,
    out: Out = Path("out/models"),
    as_json: AsJson = False,
) -> None:
    """Train what judges the defect model's finds; takes up where an interrupted training of the same plan stopped."""
    _need_torch()
    from calibration.train import cascade as trainer

    written = _trained(trainer, "cascade", minutes, seed=seed, out=out, validate_on=None, start=None)
    _print(written, out=out, as_json=as_json)


@app.command()
def golden(
    models: Annotated[
        Path | None, typer.Option(help="Models folder; without it the packages that came with beamside.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed and models give the same files.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write golden.npz beside each model: pictures, and what ONNX Runtime on the CPU says of them."""
    from calibration.golden import write_all
    from engines.errors import ModelError
    from engines.load import MODELS

    try:
        with _bars() as bars:
            written = write_all(models or MODELS, seed=seed, progress=_teller(bars))
    except ModelError as error:
        raise EngineError(str(error)) from error
    if as_json:
        sys.stdout.write(msgspec.json.encode(written).decode() + "\n")
        return
    table = Table("model", "crops", "defects", "kB", "file", title="golden sets")
    for each in written:
        drawn = "" if each.defects is None else str(each.defects)
        table.add_row(each.model, str(each.crops), drawn, f"{each.bytes / 1000:.0f}", each.path)
    Console().print(table)


def _need_torch() -> None:
    missing = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise BeamsideError(f"training needs {', '.join(missing)}: pip install 'beamside[calibrate]'")


def _trained(
    trainer: Trainer, task: str, minutes: float, *, seed: int, out: Path, validate_on: Path | None, start: Path | None
) -> Manifest:
    from calibration.train.begin import weights_of
    from engines.errors import ModelError

    command = f"beamside calibrate train {task} --minutes {minutes:g} --seed {seed}"
    if validate_on is not None:
        command += f" --validate-on {_travelling(validate_on)}"
    first = None
    try:
        if start is not None:
            command += f" --start {_travelling(start)}"
            first = weights_of(start, task)
        with _bars() as bars:
            plan, tell = trainer.plan_for(minutes, seed=seed), _teller(bars)
            return trainer.run(plan, out=out, command=command, progress=tell, outside_data=validate_on, start=first)
    except ModelError as error:
        raise EngineError(str(error)) from error


def _travelling(folder: Path) -> str:
    """A manifest travels: no folder of the machine it was made on goes along."""
    return folder.name if folder.is_absolute() else str(folder)


def _bars() -> Progress:
    columns = TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def _teller(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar for each stage, as the stages come."""
    tasks: dict[str, TaskID] = {}

    def tell(stage: str, done: int, of: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=of)
        bars.update(tasks[stage], completed=done)

    return tell


def _print(written: Manifest, *, out: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(written).decode() + "\n")
        return
    shown = SHOWN[written.task]
    table = Table("", *(figure.replace("_", " ") for figure in shown), title=f"{written.label} in {out}")
    for name, row in written.metrics.items():
        if shown[0] in row:
            told = (f"{row[figure]:.3f}" if figure in row else "" for figure in shown)
            table.add_row(name.replace("_", " "), *told)
    Console().print(table)
