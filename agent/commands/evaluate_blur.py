"""`beamside evaluate blur`: blur relative to the sharpest frame of a sample, against frames of known blur."""

import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.errors import UsageError

if TYPE_CHECKING:
    from calibration.evaluate.blur_table import Read, Unread


@dataclass(frozen=True)
class Account:
    """One evaluation, as it is told."""

    folder: str
    frames: "tuple[Read | Unread, ...]"
    failed: int
    target: float


def blur(
    folder: Annotated[Path, typer.Argument(help="Folder of frames and their truth.csv.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Blur and astigmatism relative to the sharpest frame of each sample, beside the truth. Exit 1: a frame failed."""
    from calibration.evaluate.blur_table import TARGET, BlurTableError, Unread, compared, listed, reference_of

    try:
        frames = listed(folder)
    except BlurTableError as error:
        raise UsageError(str(error)) from error
    pairs = [(each, reference_of(each, frames)) for each in frames]
    rows = tuple(compared(folder, each, sharpest) for each, sharpest in pairs if sharpest is not None)
    account = Account(str(folder), rows, sum(isinstance(each, Unread) for each in rows), TARGET)
    if as_json:
        sys.stdout.write(msgspec.json.encode(account).decode() + "\n")
    else:
        _tell(account)
    if account.failed:
        raise typer.Exit(1)


def _tell(account: Account) -> None:
    from calibration.evaluate.blur_table import Read

    read = [each for each in account.frames if isinstance(each, Read)]
    table = Table("sample", "dose", "sigma, px", "n", "off, %", "worst, %", "axis off, deg", box=SIMPLE_HEAD)

    def group(each: "Read") -> tuple[str, float, float]:
        return each.kind, each.dose, each.sigma_px

    for (kind, dose, sigma), many in groupby(sorted(read, key=group), key=group):
        rows = list(many)
        off = np.abs([each.relative_error for each in rows])
        axes = [abs(each.axis_error_deg) for each in rows if each.axis_error_deg is not None]
        table.add_row(
            kind, f"{dose:g}", f"{sigma:g}", str(len(rows)), f"{100 * np.median(off):.1f}", f"{100 * off.max():.1f}",
            f"{max(axes):.1f} ({len(axes)})" if axes else "",
        )  # fmt: skip
    Console().print(table)
    met = np.mean([abs(each.relative_error) <= account.target for each in read]) if read else 0.0
    print(
        f"{met:.0%} of {len(read)} frames within {account.target:.0%} of the added blur; axes: the worst, and how many."
    )
    for each in account.frames:
        if not isinstance(each, Read):
            print(f"{each.file}: {each.error}", file=sys.stderr)
