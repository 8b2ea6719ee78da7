"""Many episodes on several processes, in the order of their numbers whatever ran when. Same seed, same rows."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass

from calibration.evaluate.focus_episode import run
from calibration.evaluate.focus_faults import FAULTS
from calibration.evaluate.focus_grid import draw
from calibration.evaluate.focus_method import Method
from calibration.evaluate.focus_rows import Row

Maker = Callable[[], Method]  # by name, in each process: a model does not travel
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 2  # episodes a process may have waiting: no more are lost when the time is over

SPAWN = multiprocessing.get_context("spawn")  # a fork would take over threads and locks of the libraries

_made: dict[Maker, Method] = {}  # of this process


@dataclass(frozen=True)
class Task:
    """One episode of one method, to be drawn where it runs."""

    number: int
    maker: Maker
    seed: int
    specimens: tuple[str, ...] = ()
    fault: str = ""  # of FAULTS


def one(task: Task) -> Row:
    """In any process."""
    if task.maker not in _made:
        _made[task.maker] = task.maker()
    return run(draw(task.number, seed=task.seed, specimens=task.specimens), _made[task.maker], FAULTS[task.fault])


def several(
    tasks: Sequence[Task], *, jobs: int, until_s: float | None = None, done: Callable[[Row], None] = lambda _: None
) -> list[Row]:
    """The rows of the first tasks that were finished when the time was over: none of them is skipped.

    until_s: of time.monotonic(); what was begun by then is waited for.
    """
    rows: dict[int, Row] = {}
    for place, row in _as_they_end(tasks, jobs=jobs, until_s=until_s):
        rows[place] = row
        done(row)
    whole = next((place for place in range(len(tasks)) if place not in rows), len(tasks))
    return [rows[place] for place in range(whole)]


def _as_they_end(tasks: Sequence[Task], *, jobs: int, until_s: float | None) -> Iterator[tuple[int, Row]]:
    # A child even where there is one job: threads of a library change last digits, and with them now and then an end.
    with _one_thread_each(), ProcessPoolExecutor(jobs, SPAWN, _deaf) as pool:
        waiting: dict[Future[Row], int] = {}
        left = iter(enumerate(tasks))
        try:
            while True:
                while len(waiting) < AHEAD * jobs and not _over(until_s) and (new := next(left, None)) is not None:
                    waiting[pool.submit(one, new[1])] = new[0]
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _deaf() -> None:
    """Ctrl-C is the first process's affair: it lets the others finish what they have begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _over(until_s: float | None) -> bool:
    return until_s is not None and time.monotonic() >= until_s


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The libraries of the processes that are started now: as many threads as processes and no more."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
