"""How long each engine takes for a reading on this machine, upload included; against torch eager where it is installed.

torch runs the networks with random weights, for its time does not depend on them, and is given the faster of its two
memory layouts. On a CPU each has one thread and all take turns, so that other load befalls all alike.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from agent.commands import floor
from agent.commands.building import Workshop
from agent.commands.makers import THREADS, Job, Maker, Opened, Shape
from engines import autofocus, defects, depth
from engines.autofocus import condition as autofocus_condition
from engines.scene import Scene, condition, levels_of
from engines.timing import Took, in_turns
from engines.trt import TrtEngine

CPU_SHAPE = (768, 1024)
PIXEL_SIZE_M = 3e-9
SCENE = Scene(pixel_size_m=PIXEL_SIZE_M, electrons_per_pixel=40.0, accelerating_voltage_v=1000.0)
TOGETHER = "three together"
TORCH = "torch"

Picture = NDArray[np.uint8]
Read = Callable[[], object]


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    model: str
    backend: str
    precision: str
    shape: Shape
    threads: int
    p50_s: float
    p99_s: float
    ratio_to_torch_eager: float | None  # times as fast; None: torch is not installed, or the row is of three models
    share_of_floor: float | msgspec.UnsetType | None = msgspec.UNSET  # on a GPU: the least time thinkable over the p50


def measure(workshop: Workshop, *, runs: int) -> list[Bench]:
    """Every engine that is there and whose device answers. Raises ModelError."""
    rows: list[Bench] = []
    for maker in workshop.makers:
        if maker.device() is None:
            for shape in (CPU_SHAPE,) if maker.backend == "onnxruntime" else workshop.shapes:
                rows += _of(maker, list(_there(workshop, maker, shape)), shape, runs=runs)
    return rows


def _there(workshop: Workshop, maker: Maker, shape: Shape) -> Iterator[Job]:
    for job in workshop.jobs(maker):
        if job.shape in (None, shape) and maker.found(job) is not None:
            yield job


def _of(maker: Maker, jobs: list[Job], shape: Shape, *, runs: int) -> list[Bench]:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    threads = 1 if maker.backend == "onnxruntime" else THREADS
    rows: list[Bench] = []
    tasks = list(dict.fromkeys(job.manifest.task for job in jobs))
    for task in tasks:
        of_task = [job for job in jobs if job.manifest.task == task]
        rows += _one_model(maker, of_task, picture, threads=threads, runs=runs)
    for precision in dict.fromkeys(job.precision for job in jobs):
        same = [job for job in jobs if job.precision == precision]
        if len(same) == len(tasks) > 1:
            rows.append(_together(maker, same, picture, runs=runs))
    return rows


def _shape(picture: Picture) -> Shape:
    return picture.shape[0], picture.shape[1]


def _one_model(maker: Maker, jobs: list[Job], picture: Picture, *, threads: int, runs: int) -> list[Bench]:
    task = jobs[0].manifest.task
    told = condition_of(task, picture)
    reads: dict[str, Read] = {job.precision: partial(maker.open(job, threads).run, picture, told) for job in jobs}
    eager = torch_readers(task, picture, cuda=maker.backend != "onnxruntime")
    took = in_turns(reads | eager, runs)
    rows = [_row(job, maker, _shape(picture), took=took[job.precision], threads=threads) for job in jobs]
    if maker.backend != "onnxruntime":
        rows = [_beside_floor(row, job) for row, job in zip(rows, jobs, strict=True)]
    if not eager:
        return rows
    best_s = min(took[name].p50_s for name in eager)
    return [msgspec.structs.replace(row, ratio_to_torch_eager=best_s / row.p50_s) for row in rows]


def _beside_floor(row: Bench, job: Job) -> Bench:
    floor_s = floor.floor_s(job.onnx, row.shape, row.precision, floor.peak())
    return msgspec.structs.replace(row, share_of_floor=None if floor_s is None else floor_s / row.p50_s)


def _together(maker: Maker, jobs: list[Job], picture: Picture, *, runs: int) -> Bench:
    """As the agent reads a frame: one upload, all models."""
    engines = [(maker.open(job), condition_of(job.manifest.task, picture)) for job in jobs]
    took = in_turns({"all": partial(read_all, engines, picture)}, runs)["all"]
    return msgspec.structs.replace(_row(jobs[0], maker, _shape(picture), took=took, threads=THREADS), model=TOGETHER)


def read_all(engines: list[tuple[Opened, NDArray[np.float32]]], picture: Picture) -> None:
    """Engines with streams of their own run side by side; the others one after the other."""
    started: list[TrtEngine] = []
    image = None
    for engine, told in engines:
        if isinstance(engine, TrtEngine):
            image = engine.upload(picture) if image is None else image
            engine.start(image, told)
            started.append(engine)
        else:
            engine.run(picture, told)
    for engine in started:
        engine.finish()


def _row(job: Job, maker: Maker, shape: Shape, *, took: Took, threads: int) -> Bench:
    return Bench(
        model=job.manifest.name,
        backend=maker.backend,
        precision=job.precision,
        shape=shape,
        threads=threads,
        p50_s=took.p50_s,
        p99_s=took.p99_s,
        ratio_to_torch_eager=None,
    )


def condition_of(task: str, picture: Picture) -> NDArray[np.float32]:
    return autofocus_condition(PIXEL_SIZE_M) if task == autofocus.TASK else condition(levels_of(picture), SCENE)


# --- torch ---


def torch_readers(task: str, picture: Picture, *, cuda: bool) -> dict[str, Read]:
    """torch eager in both layouts, inference mode, upload included; empty where torch or its device is missing."""
    if find_spec(TORCH) is None:
        return {}
    import torch

    if cuda and not torch.cuda.is_available():
        return {}
    torch.set_num_threads(1)
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    device = "cuda" if cuda else "cpu"
    told = torch.from_numpy(condition_of(task, picture))[None].to(device)
    return {
        layout: _eager(network(task).to(device=device, memory_format=form), picture, told, form)
        for layout, form in formats.items()
    }


def _eager(net: Any, picture: Picture, told: Any, form: Any) -> Read:
    import torch

    def read() -> object:
        with torch.inference_mode():
            image = torch.from_numpy(picture)[None, None].to(told.device).contiguous(memory_format=form)
            return [output.cpu() for output in net(image, told)]

    return read


def network(task: str) -> Any:
    """With random weights."""
    from calibration.networks.autofocus import AutofocusNet
    from calibration.networks.defects import DefectNet
    from calibration.networks.depth import DepthNet

    return {autofocus.TASK: AutofocusNet, depth.TASK: DepthNet, defects.TASK: DefectNet}[task]().eval()


# --- for people ---


def table(rows: list[Bench]) -> Table:
    heads = ("model", "backend", "precision", "shape", "threads", "p50 ms", "p99 ms", "x torch eager")
    shown = Table(*heads, box=SIMPLE_HEAD, title="One reading, upload included")
    for row in rows:
        ratio = "" if row.ratio_to_torch_eager is None else f"{row.ratio_to_torch_eager:.2f}"
        shape = f"{row.shape[0]}x{row.shape[1]}"
        times = f"{1e3 * row.p50_s:.1f}", f"{1e3 * row.p99_s:.1f}"
        shown.add_row(row.model, row.backend, row.precision, shape, str(row.threads), *times, ratio)
    return shown
