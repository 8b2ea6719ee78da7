"""Every backend that this machine has: built, held against the float32 models, timed; one table; what was absent."""

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
from agent.commands.benching import TOGETHER, Bench
from agent.commands.building import TASKS, Workshop, absent, makers
from agent.commands.makers import Maker, Row, Shape
from engines import load, manifest
from engines.built import SHAPES
from engines.cuda import Device
from engines.errors import ModelError
from engines.timing import in_turns
from tests.gpu import eager

ON_GPU = ("tensorrt", "tensorrt_rtx", "onnxruntime_cuda")
PACKAGES = ("tensorrt", "tensorrt-rtx", "cuda-python", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")
RUNS = 300
AIMS_S = {(2048, 3072): 8e-3, (768, 1024): 2e-3}  # p99 of the three together, upload included, on an H200
AIM_TIMES_EAGER = 3.0
WIDE = 140  # columns, where there is no terminal to ask


@dataclass
class Results:
    """Everything that goes into the table."""

    machine: dict[str, str]
    built: list[Row] = field(default_factory=list)
    timed: list[Bench] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)  # what was not there, and why
    failed: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """0 also where there is no device; 1 where something that is there failed."""
    asked = _asked(arguments)
    found = load.device()
    results = Results(_machine(found), absent=_absent())
    if isinstance(found, Device):
        with tempfile.TemporaryDirectory() as folder:
            measure(results, _makers(Path(folder), results), runs=asked.runs)
    tell(results, Console(width=None if os.isatty(1) else WIDE))
    if asked.out is not None:
        keep(results, asked.out)
    return 1 if results.failed or any(row.failed for row in results.built) else 0


def measure(results: Results, backends: Iterable[Maker], *, runs: int, shapes: tuple[Shape, ...] = SHAPES) -> None:
    """Build, judge and time each; what fails is told and the next one follows."""
    for maker in backends:
        workshop = Workshop(load.MODELS, shapes, (maker,), named=True)
        with _told(results, maker.backend):
            results.built += workshop.make()
        with _told(results, maker.backend):
            results.timed += benching.measure(workshop, runs=runs)
    if "torch" not in results.absent:
        for shape in shapes:
            with _told(results, f"torch {shape[0]}x{shape[1]}"):
                results.timed += torch_rows(shape, runs=runs)


def torch_rows(shape: Shape, *, runs: int) -> list[Bench]:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    by_manner: dict[str, list[Callable[[], object]]] = {}
    rows = []
    for task in TASKS:
        reads = eager.readers(task, picture)
        took = in_turns(reads, runs)
        slow_s = took["fp32 eager"].p50_s
        for manner, read in reads.items():
            by_manner.setdefault(manner, []).append(read)
            rows.append(_torch_row(task, manner, shape, (took[manner].p50_s, took[manner].p99_s), slow_s=slow_s))
    for manner, reads_of in by_manner.items():
        whole = in_turns({"all": partial(_each, reads_of)}, runs)["all"]
        rows.append(_torch_row(TOGETHER, manner, shape, (whole.p50_s, whole.p99_s), slow_s=None))
    return rows


def _torch_row(model: str, manner: str, shape: Shape, took_s: tuple[float, float], *, slow_s: float | None) -> Bench:
    precision, _, how = manner.partition(" ")
    return Bench(
        model=model,
        backend=f"torch {how}",
        precision=precision,
        shape=shape,
        threads=1,
        p50_s=took_s[0],
        p99_s=took_s[1],
        ratio_to_torch_eager=None if slow_s is None else slow_s / took_s[0],
    )


def _each(reads: list[Callable[[], object]]) -> None:
    for read in reads:
        read()


@contextmanager
def _told(results: Results, what: str) -> Iterator[None]:
    """A backend that fails is a line of the results; torch has RuntimeErrors only."""
    try:
        yield
    except (ModelError, RuntimeError, OSError) as error:
        results.failed.append(f"{what}: {error}")


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
    if not results.timed and not results.built:
        console.print("nothing was measured", markup=False, highlight=False)
    else:
        console.print(table(results))
        for line in aims(results.timed):
            console.print(line, markup=False, highlight=False)
    for line in (*results.failed, *_errors(results.built)):
        console.print(f"failed: {line}", markup=False, highlight=False)


def table(results: Results) -> Table:
    heads = ("model", "backend", "precision", "shape", "parity", "p50 ms", "p99 ms", "times torch eager", "of floor")
    shown = Table(*heads, box=SIMPLE_HEAD, title="One reading, upload and outputs included")
    for row in sorted(results.timed, key=lambda each: (each.shape, each.model, each.p50_s)):
        ratio = "" if row.ratio_to_torch_eager is None else f"{row.ratio_to_torch_eager:.2f}"
        times = f"{1e3 * row.p50_s:.2f}", f"{1e3 * row.p99_s:.2f}"
        shape = f"{row.shape[0]}x{row.shape[1]}"
        share = f"{row.share_of_floor:.0%}" if isinstance(row.share_of_floor, float) else ""
        shown.add_row(row.model, row.backend, row.precision, shape, parity_of(row, results.built), *times, ratio, share)
    return shown


def parity_of(timed: Bench, built: list[Row]) -> str:
    """Of the engine that was timed; empty for torch and for three models at once."""
    for row in built:
        same = (row.model, row.backend, row.precision) == (timed.model, timed.backend, timed.precision)
        if same and row.shape in (None, timed.shape):
            return {True: "passed", False: "REFUSED", None: "not asked"}[row.passed]
    return ""


def aims(timed: list[Bench]) -> list[str]:
    """What was wanted of the fastest engines, and what came out."""
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
    return row.model == model and row.backend in ON_GPU and shape in (None, row.shape)


def _outcome(value: float | None, met: bool, unit: str, factor: float) -> str:
    if value is None:
        return "not measured"
    return f"{'met' if met else 'MISSED'}, {factor * value:.2f} {unit}"


def _errors(built: list[Row]) -> list[str]:
    return [f"{row.model} {row.precision} {row.shape} on {row.backend}: {row.error}" for row in built if row.error]


def keep(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
