"""`beamside evaluate ...`: how good what we have is, against what others made, baselines side by side."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.commands.evaluate_blur import blur
from agent.commands.evaluate_defects import defects
from agent.commands.evaluate_focus import focus
from agent.commands.evaluate_score import score
from agent.commands.writing import made, whole, writing
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.commands.report_twin import Page
    from calibration.evaluate.scenes import Scene, Unread
    from calibration.evaluate.twin import Comparison, MeasuredFano, Row
    from calibration.evaluate.twin_summary import Summary
    from calibration.twin.emission import Emission

app = typer.Typer(help="Score tables, baselines side by side.", no_args_is_help=True)
app.command()(blur)
app.command()(defects)
app.command()(focus)
app.command()(score)

LEAST_FANO, MOST_FANO = 0.0, 100.0
SHIPPED = "silicon at 1 keV, as shipped"
SHOWN = 10  # worst scenes on the screen; JSON and page have all

Scenes = Annotated[
    Path, typer.Argument(help="Folder of scenes.json, NAME_SE.npy, NAME_height_px_nm.npy.", show_default=False)
]
RenderDir = Annotated[Path | None, typer.Option(help="Write each render as float32 NAME.npy here, in counts.")]
Report = Annotated[Path | None, typer.Option(help="Write a page of pictures here: twin.html.")]
ProfileFile = Annotated[Path | None, typer.Option(help="A tool's profile by `calibrate twin`; else silicon at 1 keV.")]


@dataclass(frozen=True)
class Account:
    """One evaluation, as it is told."""

    folder: str
    profile: str
    fano: float
    measured_fano: "MeasuredFano | None"  # None: no scene was simulated twice
    scenes: "tuple[Row | Unread, ...]"  # in the order of the list
    failed: int
    median_nrmse: float | None
    summary: "Summary | None"


@app.callback()
def evaluate() -> None:
    """Sub-commands only."""


@app.command()
def twin(
    scenes: Scenes,
    render_dir: RenderDir = None,
    report: Report = None,
    profile: ProfileFile = None,
    fano: Annotated[float, typer.Option(help="Variance over mean of the counts on flat ground.")] = 1.63,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Render scenes of a Monte Carlo from their heights; only gain and offset are fitted. Exit 1: a scene failed."""
    if not LEAST_FANO <= fano <= MOST_FANO:  # a NaN fails too
        raise UsageError(f"--fano {fano:g}: give a number from {LEAST_FANO:g} to {MOST_FANO:g}; 0 takes no noise off")
    (how, frames), listed = _emission(profile), _listed(scenes)
    for folder, option in ((render_dir, "--render-dir"), (report, "--report")):
        if folder is not None:
            made(folder, option)
    page = None if report is None else _page(report)
    rows: list[Row | Unread] = []
    for each in _followed(_split(listed, frames)):
        compared = _compared(scenes, each, how, fano=fano)
        rows.append(_kept(compared, render_dir, page))
    account = _account(scenes, profile, fano, listed=listed, rows=rows)
    if page is not None:
        with writing("--report"):
            page.finish(account)
    _tell(account, as_json=as_json)
    if account.failed:
        raise typer.Exit(1)


def _emission(profile: Path | None) -> "tuple[Emission, list[str] | None]":
    """The constants, and the frames they were fitted to; None: the shipped ones."""
    from calibration.twin.emission import SILICON_1KEV
    from calibration.twin.profile import ProfileError, load

    if profile is None:
        return SILICON_1KEV, None
    try:
        read = load(profile)
        return read.emission, [frame.name for frame in read.frames]
    except ProfileError as error:
        raise UsageError(f"--profile {error}") from error


def _listed(folder: Path) -> "list[Scene | Unread]":
    from calibration.evaluate.scenes import SceneError, listed

    try:
        return listed(folder)
    except SceneError as error:
        raise UsageError(str(error)) from error


def _split(scenes: "list[Scene | Unread]", frames: list[str] | None) -> "list[Scene | Unread]":
    from calibration.evaluate.twin_split import split

    return split(scenes, frames)


def _compared(folder: Path, scene: "Scene | Unread", how: "Emission", *, fano: float) -> "Comparison | Unread":
    from calibration.evaluate.scenes import SceneError, Unread, load
    from calibration.evaluate.twin import compare

    if isinstance(scene, Unread):
        return scene
    try:
        return compare(load(folder, scene), how, fano)
    except SceneError as error:
        return Unread(scene.name, str(error))


def _kept(compared: "Comparison | Unread", render_dir: Path | None, page: "Page | None") -> "Row | Unread":
    """Pictures and renders are written scene by scene: arrays of one scene only are held."""
    from calibration.evaluate.scenes import Unread
    from calibration.evaluate.twin import row

    if isinstance(compared, Unread):
        return compared
    if render_dir is not None:
        with writing("--render-dir"), whole(render_dir / f"{compared.recording.scene.name}.npy") as file:
            np.save(file, compared.twin, allow_pickle=False)
    if page is not None:
        with writing("--report"):
            page.add(compared)
    return row(compared)


def _account(
    folder: Path, profile: Path | None, fano: float, *, listed: "list[Scene | Unread]", rows: "list[Row | Unread]"
) -> Account:
    from calibration.evaluate.scenes import Scene
    from calibration.evaluate.twin import Row, measured_fano
    from calibration.evaluate.twin_summary import summary

    done = [each for each in rows if isinstance(each, Row)]
    totals = summary(done)
    return Account(
        folder=str(folder),
        profile=SHIPPED if profile is None else str(profile),
        fano=fano,
        measured_fano=measured_fano(folder, [each for each in listed if isinstance(each, Scene)]),
        scenes=tuple(rows),
        failed=len(rows) - len(done),
        median_nrmse=None if totals is None else totals.nrmse.median,
        summary=totals,
    )


# --- files ---


def _page(folder: Path) -> "Page":
    from agent.commands.report_twin import Page

    return Page(folder)


# --- what is told ---


def _followed(scenes: "list[Scene | Unread]") -> "Iterator[Scene | Unread]":
    """A bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        bar = bars.add_task("scenes", total=len(scenes))
        for scene in scenes:
            yield scene
            bars.advance(bar)


def _tell(account: Account, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(account).decode() + "\n")
        return
    from calibration.evaluate.scenes import Unread
    from calibration.evaluate.twin import Row

    if account.summary is not None:
        console = Console()
        console.print(_kinds(account.summary))
        console.print(_worst([each for each in account.scenes if isinstance(each, Row)]))
        for line in _words(account.summary):
            console.print(line, highlight=False, soft_wrap=True)
    for each in account.scenes:
        if isinstance(each, Unread):
            print(f"{each.name}: {each.error}", file=sys.stderr)


def _kinds(summary: "Summary") -> Table:
    table = Table("NRMSE, %", "n", "median", "quartiles", box=SIMPLE_HEAD)
    split = {"fitted to": summary.fitted, "never seen by the fit": summary.unfitted}
    known = {name: spread for name, spread in split.items() if spread is not None}
    for name, spread in {"all": summary.nrmse, **known, **summary.by_kind}.items():
        quartiles = f"{_percent(spread.lower_quartile)} to {_percent(spread.upper_quartile)}"
        table.add_row(name, str(spread.n), _percent(spread.median), quartiles)
    table.add_row("all, without offset", str(summary.nrmse.n), _percent(summary.median_nrmse_gain_only), "")
    for name in ("constant", "height", "gradient"):
        table.add_row(f"[dim]baseline: {name}[/]", "", _percent(getattr(summary.baselines, name)), "")
    return table


def _worst(rows: "Sequence[Row]") -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("worst scenes", no_wrap=True)
    for heading in ("NRMSE, %", "edge, px", "floors, %", "spectrum, dB"):
        table.add_column(heading, justify="right")
    for each in sorted(rows, key=lambda each: -each.nrmse)[:SHOWN]:
        edge = "" if each.edge_peak is None else f"{each.edge_peak.position_error_px:+.2f}"
        off = [abs(floor.relative_error) for floor in each.floors]
        table.add_row(
            each.name,
            f"{_percent(each.nrmse)} ±{_percent(0.5 * (each.nrmse_high - each.nrmse_low))}",
            edge,
            _percent(float(np.median(off))) if off else "",
            "" if each.spectrum_db is None else f"{each.spectrum_db:.1f}",
        )
    return table


def _words(summary: "Summary") -> Iterator[str]:
    if summary.edges is not None:
        edges = summary.edges
        yield (
            f"Edges: {edges.median_position_error_px:.2f} px off in the median, {edges.worst_position_error_px:.2f} at "
            f"worst ({edges.n} scenes); height over the Monte Carlo's {edges.median_height_ratio:.2f}."
        )
    if summary.floors is not None:
        floors = summary.floors
        yield (
            f"Floors: {_percent(floors.median_relative_error)} % off in the median, "
            f"{_percent(floors.rms_without_noise)} % rms beyond noise ({floors.n} floors)."
        )
    if summary.median_spectrum_db is not None:
        yield f"Spectrum: {summary.median_spectrum_db:.1f} dB off in the median, where there is signal above noise."


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f}"
