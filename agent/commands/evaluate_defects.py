"""`beamside evaluate defects SET...`: capture, names and counts of the defect models on pictures with known defects."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.bridges.files import read_image
from agent.commands.writing import made, write
from agent.errors import EngineError, UsageError
from engines.cascade import TASK as CASCADE
from engines.cascade import load_cascade
from engines.defects import TASK, DefectFinder
from engines.depth import TASK as DEPTH
from engines.depth import Depth
from engines.errors import InferenceError, ModelError
from engines.load import MODELS, load
from engines.manifest import MANIFEST_FILE, Manifest
from engines.manifest import read as read_manifest

if TYPE_CHECKING:
    from calibration.dataset.outside import Picture
    from calibration.evaluate.defects_account import Evaluation
    from calibration.evaluate.defects_methods import Method, Tree
    from calibration.evaluate.defects_run import Ran
    from calibration.evaluate.defects_truth import PictureSet

PAGE = "defects.html"


@dataclass(frozen=True)
class Machine:
    """What the times belong to."""

    processor: str
    threads: int
    load_before: float  # average of a minute
    load_after: float
    took_s: float
    date: str


@dataclass(frozen=True)
class Account:
    """One evaluation, as it is told."""

    evaluation: "Evaluation"
    machine: Machine


@dataclass(frozen=True)
class Loaded:
    """The packages under test."""

    finder: DefectFinder
    thresholds: dict[float, float]  # false alarms a frame -> the package's own
    seed: int  # that the package was trained with
    tree: "Tree | None"  # None: no cascade in the models folder
    cascade: Manifest | None

    @property
    def names(self) -> tuple[str, ...]:
        """name@sha of each."""
        cascade = () if self.tree is None else (self.tree.cascade.name,)
        depth = () if self.tree is None or self.tree.depth is None else (self.tree.depth.name,)
        return (self.finder.name, *cascade, *depth)


def defects(
    sets: Annotated[list[Path], typer.Argument(metavar="SET...", help="Datasets, scenes, pictures with YOLO boxes.")],
    report: Annotated[Path | None, typer.Option(help="Write a page here: defects.html.")] = None,
    package: Annotated[Path | None, typer.Option(help="Models folder; else beamside's own.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of the models.")] = 2,
    repeats: Annotated[int, typer.Option(min=2, help="Frames that are timed, of each size.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Defects found, named and counted: capture at fixed false alarms, mAP, purity, baselines, times."""
    page = None if report is None else report / PAGE
    if page is not None:
        made(page.parent, "--report")
    began, load_before = time.monotonic(), os.getloadavg()[0]
    loaded, opened = _loaded(package, threads), _opened(sets)
    ran = [_ran(each, _methods(loaded)) for each in opened]
    evaluation = _evaluation(loaded, ran, repeats)
    account = Account(evaluation, _machine(threads, load_before, time.monotonic() - began))
    if page is not None:
        from agent.commands.report_defects import page as drawn

        write(drawn(account, ran).encode(), page, "--report")
    if as_json:
        sys.stdout.write(msgspec.json.encode(account).decode() + "\n")
    else:
        from agent.commands.report_defects_table import tell

        tell(account)


# --- what is needed ---


def _loaded(package: Path | None, threads: int) -> Loaded:
    """package: a models folder, or the defect package in it."""
    from calibration.evaluate.defects_package import thresholds_of

    folder = package
    if package is not None and (package / MANIFEST_FILE).is_file():
        folder = package.resolve().parent
        if package.resolve().name != TASK:
            raise UsageError(f"--package {package}: give the models folder that holds {TASK}/, or that very folder")
    try:
        loaded = load(TASK, models=folder, backend="onnxruntime", threads=threads)
        tree, said = _tree(folder, threads)
        seed = loaded.manifest.training.seed
        return Loaded(DefectFinder(loaded), thresholds_of(loaded.manifest), seed, tree, said)
    except ModelError as error:
        raise EngineError(str(error)) from error


def _tree(folder: Path | None, threads: int) -> "tuple[Tree | None, Manifest | None]":
    """The cascade beside the detector; heights from the depth model there, else from beamside's own."""
    from calibration.evaluate.defects_methods import Tree

    cascade = load_cascade(folder)
    if cascade is None:
        return None, None
    models = folder or MODELS
    with_depth = models if (models / DEPTH).is_dir() else MODELS
    depth = load(DEPTH, models=with_depth, backend="onnxruntime", threads=threads)
    return Tree(cascade, Depth(depth)), read_manifest(models / CASCADE)[0]


def _opened(folders: list[Path]) -> "list[PictureSet]":
    from calibration.evaluate.defects_sets import open_set
    from calibration.evaluate.defects_truth import SetError

    try:
        return [open_set(folder, read_picture) for folder in folders]
    except SetError as error:
        raise UsageError(str(error)) from error


def read_picture(path: Path) -> "Picture":
    from calibration.dataset.outside import Picture

    pixels, optics = read_image(path)
    return Picture(path.name, pixels, optics.pixel_size_m)


def _methods(loaded: Loaded) -> "tuple[Method, ...]":
    from calibration.evaluate.defects_methods import methods

    return methods(loaded.finder, loaded.thresholds, loaded.tree)


# --- the work ---


def _ran(of: "PictureSet", methods: "tuple[Method, ...]") -> "Ran":
    from calibration.evaluate.defects_run import run
    from calibration.evaluate.defects_truth import SetError

    try:
        with _bar(of.folder.name, of.count) as done:
            return run(of, methods, done)
    except SetError as error:
        raise UsageError(str(error)) from error
    except InferenceError as error:
        raise EngineError(f"{of.folder}: {error}") from error


def _evaluation(loaded: Loaded, ran: "list[Ran]", repeats: int) -> "Evaluation":
    from calibration.evaluate.defects_account import Evaluation
    from calibration.evaluate.defects_latency import latencies, shapes_of
    from calibration.evaluate.defects_package import ablation, seen_in_training, unknown
    from calibration.evaluate.defects_run import set_row
    from calibration.evaluate.defects_targets import targets

    sets = tuple(set_row(each, seen_in_training(each.of, loaded.seed)) for each in ran)
    shapes = shapes_of([case.shape for each in ran for case in each.cases])
    taken = latencies(loaded.finder, loaded.tree, shapes, repeats=repeats)
    strange = unknown(loaded.cascade)
    return Evaluation(
        models=loaded.names,
        sets=sets,
        unknown=strange,
        ablation=ablation(loaded.cascade),
        latency=taken,
        targets=targets(sets, taken, strange),
    )


def _machine(threads: int, load_before: float, took_s: float) -> Machine:
    from agent.commands.report_facts import machine

    date = datetime.now(UTC).isoformat(timespec="minutes")
    return Machine(machine(), threads, load_before, os.getloadavg()[0], took_s, date)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """On stderr."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=console.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda: bars.advance(bar)
