"""`beamside calibrate variants`: the models in fewer bits, made, judged and kept beside them. Needs the extra."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from agent.errors import BeamsideError, EngineError


def variants(
    models: Annotated[
        Path | None, typer.Option(help="Models folder; without it the packages that came with beamside.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the pictures that tell the ranges of the INT8 twins.", min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Write FP16 and INT8 twins beside each model: those that pass the parity gate, INT8 only where it is faster."""
    if find_spec("onnx") is None:
        raise BeamsideError("variants need onnx: pip install 'beamside[calibrate]'")
    from calibration.variants import write_all
    from engines.errors import ModelError
    from engines.load import MODELS

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)
    ) as bars:
        bar = bars.add_task("variants", total=None)
        try:
            made = write_all(
                models or MODELS, seed=seed, progress=lambda _, done, of: bars.update(bar, completed=done, total=of)
            )
        except ModelError as error:
            raise EngineError(str(error)) from error
    if as_json:
        print(msgspec.json.encode(made).decode())
        return
    table = Table("model", "precision", "kept", "kB", "times float32", "why", title="variants")
    for each in made:
        faster = f"{each.p50_float32_s / each.p50_s:.2f}" if each.p50_s and each.p50_float32_s else ""
        kept = "[green]yes[/]" if each.kept else "no"
        table.add_row(each.model, each.precision, kept, f"{each.bytes / 1000:.0f}", faster, escape(each.why))
    Console().print(table)
