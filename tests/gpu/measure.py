"""Every backend that this machine has: built, held against the float32 models, timed; one table; what was absent."""

import argparse
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.commands import benching
from agent.commands.bench_table import FLOOR, SAID, floor_of, graph_of, ratio_of
from agent.commands.benching import TOGETHER, Bench
from agent.commands.building import TASKS, Workshop, absent, doubts, makers
from agent.commands.makers import Maker, Row, Shape
from agent.commands.yardstick import Picture, Read
from engines import load, manifest
from engines.built import SHAPES
from engines.cuda import Device
from engines.timing import Took, in_turns
from tests.gpu import eager

ON_GPU = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
PACKAGES = ("tensorrt", "tensorrt-rtx", "cuda-python", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")
RUNS = 300
AIMS_S = {(2048, 3072): 8e-3, (768, 1024): 2e-3}  # p99 of the three together, upload included, on an H200
AIM_TIMES_EAGER = 3.0
TITLE = "One reading, upload and outputs included; x torch: times as fast as torch eager"
WIDE = 140  # columns, where there is no terminal to ask


@dataclass
class Results:
    """Everything that goes into the table."""

    machine: dict[str, str]
    built: list[Row] = field(default_factory=list)
    timed: list[Bench] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # what was not there, and why
    doubts: list[str] = field(default_factory=list)  # of what was there and may not work on this device
    failed: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """0 also where there is no device; 1 where something that is there failed."""
    asked = _asked(arguments)
    found = load.device()
    results = Results(_machine(found), absent=_absent(), doubts=doubts(ON_GPU))
    if isinstance(found, Device):
        with tempfile.TemporaryDirectory() as folder:
            measure(results, _makers(Path(folder), results), runs=asked.runs, out=asked.out)
    tell(results, Console(width=None if os.isatty(1) else WIDE))
    keep(results, asked.out)
    return 1 if results.failed or any(row.failed for row in results.built) else 0


def measure(
    results: Results,
    backends: Iterable[Maker],
    *,
    runs: int,
    shapes: tuple[Shape, ...] = SHAPES,
    out: Path | None = None,
) -> None:
    """Build, judge and time each; what fails is told and the next one follows. Kept after every step."""
    for maker in backends:
        workshop = Workshop(load.MODELS, shapes, (maker,), named=True)
        with _told(results, maker.backend):
            for _, job in workshop.all():
                with _told(results, f"{job.manifest.name} {job.precision} {job.shape} on {maker.backend}"):
                    results.built.append(workshop.made(maker, job))
                keep(results, out)
        with _told(results, maker.backend):
            for found in benching.measure(workshop, runs=runs, survive=Exception):
                if isinstance(found, Bench):
                    results.timed.append(found)
                else:
                    results.failed.append(f"{found.what}: {found.why}")
                keep(results, out)
    for shape in shapes if "torch" not in results.absent else ():
        torch_rows(results, shape, runs=runs)
        keep(results, out)


def torch_rows(results: Results, shape: Shape, *, runs: int) -> None:
    """Each manner of each model by itself, so that one that fails costs no other; then the three models."""
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    by_manner: dict[str, list[Read]] = {}
    for task in TASKS:
        with _told(results, f"torch {task} at {shape[0]}x{shape[1]}"):
            reads = _torch_reads(results, task, picture)
            took = in_turns(reads, runs)
            slow_s = took[eager.EAGER].p50_s if eager.EAGER in took else None
            for manner, read in reads.items():
                by_manner.setdefault(manner, []).append(read)
                results.timed.append(_torch_row(task, manner, shape, took[manner], slow_s=slow_s))
    for manner, reads_of in by_manner.items():
        if len(reads_of) == len(TASKS):
            with _told(results, f"torch {manner}, {TOGETHER} at {shape[0]}x{shape[1]}"):
                whole = in_turns({"all": partial(_each, reads_of)}, runs)["all"]
                results.timed.append(_torch_row(TOGETHER, manner, shape, whole, slow_s=None))


def _torch_reads(results: Results, task: str, picture: Picture) -> dict[str, Read]:
    """By manner, each after its first reading."""
    reads: dict[str, Read] = {}
    for manner, make in eager.makers(task, picture).items():
        with _told(results, f"torch {manner}, {task} at {picture.shape[0]}x{picture.shape[1]}"):
            read = make()
            read()
            reads[manner] = read
    return reads


def _torch_row(model: str, manner: str, shape: Shape, took: Took, *, slow_s: float | None) -> Bench:
    precision, _, how = manner.partition(" ")
    return Bench(
        model=model,
        backend=f"torch {how}",
        precision=precision,
        shape=shape,
        threads=1,
        p50_s=took.p50_s,
        p99_s=took.p99_s,
        ratio_to_torch_eager=None if slow_s is None else slow_s / took.p50_s,
    )


def _each(reads: list[Read]) -> None:
    for read in reads:
        read()


@contextmanager
def _told(results: Results, what: str) -> Iterator[None]:
    """Whatever fails is a line of the results: bindings raise what they like, and the machine is rarely at hand."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        results.failed.append(f"{what}: {type(error).__name__}: {error}")


# --- what is here ---


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/gpu/run", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="readings of each")
    parser.add_argument("--out", type=Path, default=None, help="folder for results.json")
    return parser.parse_args(arguments)


def _makers(folder: Path, results: Results) -> list[Maker]:
    found: list[Maker] = []
    for name in ON_GPU:
        if name not in results.absent:
            with _told(results, name):
                found += makers(name, folder)
    return found


def _absent() -> dict[str, str]:
    found = absent(ON_GPU)
    why = eager.missing()
    return found if why is None else found | {"torch": why}


def _machine(found: Device | str) -> dict[str, str]:
    if isinstance(found, Device):
        gpu = f"{found.name}, compute capability {found.compute_capability}, {found.sm_count} SM, driver {found.driver}"
    else:
        gpu = f"no device answers: {found}"
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    models = ", ".join(manifest.read(load.MODELS / task)[0].label for task in TASKS)
    return {
        "GPU": gpu,
        "system": system,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "packages": ", ".join(f"{name} {known}" for name in PACKAGES if (known := _version(name))),
        "models": models,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- for people ---


def tell(results: Results, console: Console) -> None:
    for name, fact in results.machine.items():
        console.print(f"{name}: {fact}", markup=False, highlight=False)
    for name, why in results.absent.items():
        console.print(f"absent: {name}: {why}", markup=False, highlight=False)
    for doubt in results.doubts:
        console.print(f"doubt: {doubt}; it is tried all the same", markup=False, highlight=False)
    if not results.timed and not results.built:
        console.print("nothing was measured", markup=False, highlight=False)
    else:
        console.print(table(results))
        for line in aims(results.timed):
            console.print(line, markup=False, highlight=False)
    for line in (*results.failed, *_errors(results.built)):
        console.print(f"failed: {line}", markup=False, highlight=False)


def table(results: Results) -> Table:
    heads = ("model", "backend", "precision", "shape", "parity", "p50 ms", "p99 ms", "x torch", "of floor", "graph")
    shown = Table(*heads, box=SIMPLE_HEAD, title=TITLE, caption=FLOOR)
    for row in sorted(results.timed, key=lambda each: (each.shape, each.model, each.p50_s)):
        times = f"{1e3 * row.p50_s:.2f}", f"{1e3 * row.p99_s:.2f}"
        shape = f"{row.shape[0]}x{row.shape[1]}"
        parity = SAID[row.parity] if row.backend in ON_GPU else ""
        cells = (row.model, row.backend, row.precision, shape, parity, *times)
        shown.add_row(*cells, ratio_of(row), floor_of(row), graph_of(row))
    return shown


def aims(timed: list[Bench]) -> list[str]:
    """What was wanted of the fastest engines that the gate passed, and what came out."""
    lines = []
    for shape, aim_s in AIMS_S.items():
        best = min((row.p99_s for row in timed if _ours(row, TOGETHER, shape)), default=None)
        what = f"three models at {shape[0]}x{shape[1]}: p99 at most {1e3 * aim_s:g} ms on an H200"
        lines.append(f"{what}: {_outcome(best, best is not None and best <= aim_s, 'ms', 1e3)}")
    for task in TASKS:
        ratios = [row.ratio_to_torch_eager for row in timed if _ours(row, task, None) and row.ratio_to_torch_eager]
        least = min(ratios, default=None)
        what = f"{task}: at least {AIM_TIMES_EAGER:g} times torch eager, at every shape and precision"
        lines.append(f"{what}: {_outcome(least, least is not None and least >= AIM_TIMES_EAGER, 'times', 1.0)}")
    return lines


def _ours(row: Bench, model: str, shape: Shape | None) -> bool:
    """An engine that may not serve meets no aim."""
    return row.model == model and row.backend in ON_GPU and row.parity is True and shape in (None, row.shape)


def _outcome(value: float | None, met: bool, unit: str, factor: float) -> str:
    if value is None:
        return "not measured"
    return f"{'met' if met else 'MISSED'}, {factor * value:.2f} {unit}"


def _errors(built: list[Row]) -> list[str]:
    return [f"{row.model} {row.precision} {row.shape} on {row.backend}: {row.error}" for row in built if row.error]


def keep(results: Results, folder: Path | None) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
