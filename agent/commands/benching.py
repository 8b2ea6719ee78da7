"""How long each engine takes for a reading on this machine, upload included; against torch eager where it is installed.

torch runs the networks with random weights, for its time does not depend on them, and is given the faster of its two
memory layouts and whole float32, as ours has. On a CPU each has one thread and all take turns, so that other load
befalls all alike. What fails is a line of its own; the rest is measured all the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.commands import floor
from agent.commands.building import TASKS, Workshop
from agent.commands.makers import THREADS, Job, Maker, Opened, Shape
from agent.commands.yardstick import Picture, Read, condition_of, torch_readers
from engines.errors import BackendMissingError, ModelError
from engines.timing import Took, in_turns
from engines.trt import DeviceImage, TrtEngine

CPU_SHAPE = (768, 1024)
TOGETHER = "three together"
UNSET = msgspec.UNSET
NOT_BUILT = "not built for this model and machine: beamside engines build"


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
    parity: bool | None = None  # what the gate said last, of three models of all; None: not asked, or torch
    share_of_floor: float | msgspec.UnsetType | None = msgspec.UNSET  # on a GPU: the least time thinkable over the p50
    graph: bool | msgspec.UnsetType = msgspec.UNSET  # of a built engine: is a frame one launch of a CUDA graph


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Candidate:
    """An engine that is there, and what the gate said of it."""

    job: Job
    parity: bool | None

    @property
    def what(self) -> str:
        return f"{self.job.manifest.name} {self.job.precision}"


@dataclass(frozen=True)
class Place:
    """One backend at one shape; failures of the kind `survive` are told and not raised."""

    maker: Maker
    shape: Shape
    runs: int
    survive: type[Exception]

    @cached_property
    def picture(self) -> Picture:
        return np.random.default_rng(0).integers(0, 256, self.shape, np.uint8)

    @cached_property
    def compared(self) -> Picture:
        """With its reference, for the models that take one."""
        return np.stack([self.picture, self.picture])

    def shown(self, channels: int) -> Picture:
        return self.picture if channels == 1 else self.compared

    @property
    def on_gpu(self) -> bool:
        return self.maker.backend != "onnxruntime"

    @property
    def threads(self) -> int:
        return THREADS if self.on_gpu else 1

    def failed(self, what: str, error: Exception | str) -> Failure:
        height, width = self.shape
        why = str(error) or type(error).__name__
        return Failure(what=f"{what} on {self.maker.backend} at {height}x{width}", why=why)


Measured = Bench | Failure


def check_there(workshop: Workshop) -> None:
    """Raises BackendMissingError where the backend that was asked for has no device."""
    for maker in workshop.makers if workshop.named else ():
        why = maker.device()
        if why is not None:
            raise BackendMissingError(f"backend {maker.backend} was asked for, but {why}: nothing can be measured")


def measure(workshop: Workshop, *, runs: int, survive: type[Exception] = ModelError) -> Iterator[Measured]:
    """Every engine that is there and whose device answers, as soon as it is known. Raises PackageError."""
    for maker in workshop.makers:
        if maker.device() is None:
            for shape in (CPU_SHAPE,) if maker.backend == "onnxruntime" else workshop.shapes:
                yield from _at(workshop, Place(maker, shape, runs, survive))


def sorted_out(measured: Iterable[Measured]) -> tuple[list[Bench], list[Failure]]:
    rows, failed = [], []
    for each in measured:
        if isinstance(each, Bench):
            rows.append(each)
        else:
            failed.append(each)
    return rows, failed


def _at(workshop: Workshop, place: Place) -> Iterator[Measured]:
    found = list(_there(workshop, place))
    yield from (each for each in found if isinstance(each, Failure))
    candidates = [each for each in found if isinstance(each, Candidate)]
    tasks = list(dict.fromkeys(each.job.manifest.task for each in candidates))
    read: list[Candidate] = []
    for task in tasks:
        for row in _one_model(place, [each for each in candidates if each.job.manifest.task == task]):
            yield row
            read += [
                each for each in candidates if isinstance(row, Bench) and each.what == f"{row.model} {row.precision}"
            ]
    for precision in dict.fromkeys(each.job.precision for each in read):
        same = [each for each in read if each.job.precision == precision]
        if len(same) == len(TASKS):
            yield _together(place, same)


def _there(workshop: Workshop, place: Place) -> Iterator[Candidate | Failure]:
    for job in workshop.jobs(place.maker):
        if job.shape not in (None, place.shape):
            continue
        row = place.maker.found(job)
        if row is not None and row.ok:
            yield Candidate(job, row.passed)
        elif row is not None or workshop.named:
            why = NOT_BUILT if row is None else row.error
            yield place.failed(f"{job.manifest.name} {job.precision}", why or "unusable")


def _one_model(place: Place, candidates: list[Candidate]) -> Iterator[Measured]:
    """All precisions and torch in turns; what fails at its first reading takes no part."""
    manifest = candidates[0].job.manifest
    task, picture = manifest.task, place.shown(manifest.channels)
    told = condition_of(task, picture)
    engines, unread = _first_readings(place, candidates, picture=picture, told=told)
    eager, unread_torch = _first_of_torch(place, task, picture=picture) if engines else ({}, [])
    yield from (*unread, *unread_torch)
    ours: dict[str, Read] = {precision: partial(each.run, picture, told) for precision, each in engines.items()}
    try:
        took = in_turns(ours | eager, place.runs)
    except (place.survive, RuntimeError) as error:
        yield place.failed(task, error)
        return
    best_s = min((took[layout].p50_s for layout in eager), default=None)
    for each in candidates:
        if each.job.precision in engines:
            row = _row(place, each, took[each.job.precision], engines[each.job.precision])
            yield msgspec.structs.replace(row, ratio_to_torch_eager=None if best_s is None else best_s / row.p50_s)


def _first_readings(
    place: Place, candidates: list[Candidate], *, picture: Picture, told: NDArray[np.float32]
) -> tuple[dict[str, Opened], list[Failure]]:
    """By precision; and what failed."""
    engines: dict[str, Opened] = {}
    failed = []
    for each in candidates:
        try:
            engine = place.maker.open(each.job, place.threads)
            engine.run(picture, told)
            engines[each.job.precision] = engine
        except place.survive as error:
            failed.append(place.failed(each.what, error))
    return engines, failed


def _first_of_torch(place: Place, task: str, *, picture: Picture) -> tuple[dict[str, Read], list[Failure]]:
    """By layout; and why there is none."""
    try:
        eager = torch_readers(task, picture, cuda=place.on_gpu)
        for read in eager.values():
            read()
    except (place.survive, RuntimeError) as error:  # torch has no other errors
        return {}, [place.failed(f"torch {task}", error)]
    return eager, []


def _together(place: Place, candidates: list[Candidate]) -> Measured:
    """As the agent reads a frame: one upload, all models, and one more for a model that is given a reference too.

    Passed is what is of passed engines alone.
    """
    picture = place.picture
    try:
        engines = [
            (place.maker.open(each.job, THREADS), condition_of(each.job.manifest.task, picture)) for each in candidates
        ]
        took = in_turns({"all": partial(read_all, engines, place.shown)}, place.runs)["all"]
    except place.survive as error:
        return place.failed(f"{TOGETHER} {candidates[0].job.precision}", error)
    said = {each.parity for each in candidates}
    parity = False if False in said else None if None in said else True
    return Bench(
        model=TOGETHER,
        backend=place.maker.backend,
        precision=candidates[0].job.precision,
        shape=place.shape,
        threads=THREADS,
        p50_s=took.p50_s,
        p99_s=took.p99_s,
        ratio_to_torch_eager=None,
        parity=parity,
        graph=all(engine.captured for engine, _ in engines if isinstance(engine, TrtEngine))
        if _plans(engines)
        else UNSET,
    )


def _plans(engines: list[tuple[Opened, NDArray[np.float32]]]) -> bool:
    return any(isinstance(engine, TrtEngine) for engine, _ in engines)


def read_all(engines: list[tuple[Opened, NDArray[np.float32]]], shown: Callable[[int], Picture]) -> None:
    """Engines with streams of their own run side by side; the others one after the other. shown: by channels."""
    started: list[TrtEngine] = []
    images: dict[int, DeviceImage] = {}
    for engine, told in engines:
        picture = shown(engine.channels)
        if isinstance(engine, TrtEngine):
            if engine.channels not in images:
                images[engine.channels] = engine.upload(picture)
            engine.start(images[engine.channels], told)
            started.append(engine)
        else:
            engine.run(picture, told)
    for engine in started:
        engine.finish()


def _row(place: Place, candidate: Candidate, took: Took, engine: Opened) -> Bench:
    job = candidate.job
    row = Bench(
        model=job.manifest.name,
        backend=place.maker.backend,
        precision=job.precision,
        shape=place.shape,
        threads=place.threads,
        p50_s=took.p50_s,
        p99_s=took.p99_s,
        ratio_to_torch_eager=None,
        parity=candidate.parity,
        graph=engine.captured if isinstance(engine, TrtEngine) else UNSET,
    )
    if not place.on_gpu:
        return row
    floor_s = floor.floor_s(job.onnx, row.shape, row.precision, floor.peak())
    return msgspec.structs.replace(row, share_of_floor=None if floor_s is None else floor_s / row.p50_s)
