"""What the agent adds to its models: 1 MiB frames into a whole agent whose model answers at once, stage by stage.

At 100 frames a second, as a fast microscope sends them, the processor has other things in its caches by the time the
next frame comes; back to back (frames to inspect) it has not. Both are told.
"""

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import monotonic, monotonic_ns, sleep

import numpy as np
import zmq

from tests.bench import pipe
from tests.bench.stand_in import KEPT, endpoints

SHAPE = (1024, 1024)
RATE_HZ = 100.0
FRAMES, WARM_UP = 3000, 100
QUEUED = 200  # of the 256 that the inspection lane holds
STAGES = {
    "receive": "decode, books, hand-over to the loop",
    "convert": "levels, blank, saturated, frozen",
    "decide": "conditions, mode, what to say",
    "journal": "records to write (none here)",
    "send": "hand-over to the sender, health, snapshot",
    "turn": "all of these but receive, and what lies between",
    "whole": "arrival to end of turn",
    "sender": "the sender's own thread: envelope, JSON, PUB",
    "answered": "producer's send to its own receipt of the advice",
}


def measure(frames: int = FRAMES, queued: int = QUEUED) -> list[dict[str, object]]:
    paced, answered = _run(frames, RATE_HZ)
    paced["answered"] = answered
    flooded, _ = _run(queued, None)
    return [_row(stage, paced[stage][WARM_UP:], flooded.get(stage, [])) for stage in STAGES]


def _row(stage: str, paced: Sequence[float], flooded: Sequence[float]) -> dict[str, object]:
    waits = stage in ("receive", "whole", "answered")  # back to back these are mostly time in the queue
    return {
        "stage": stage,
        "what": STAGES[stage],
        "p50_us": 1e6 * float(np.percentile(paced, 50)),
        "p99_us": 1e6 * float(np.percentile(paced, 99)),
        "back_to_back_p50_us": None if waits or not flooded else 1e6 * float(np.percentile(flooded, 50)),
    }


def _run(frames: int, rate_hz: float | None) -> tuple[dict[str, list[float]], list[float]]:
    """Every stage's durations, and the way there and back; without a rate, all at once and to be inspected."""
    with tempfile.TemporaryDirectory(prefix="beamside-bench-") as name, zmq.Context() as context:
        folder = Path(name)
        ends = endpoints(folder)
        with (
            closing(pipe.Producer(context, ends["frames"])) as producer,
            closing(pipe.Ear(context, ends["advice"])) as ear,
            pipe.process("stand_in", name),
        ):
            producer.wait_for_subscriber()
            ear.wait_for("status")
            answered = _exchange(producer, ear, frames, rate_hz)
        return pipe.kept(folder, KEPT), answered


def _exchange(producer: pipe.Producer, ear: pipe.Ear, frames: int, rate_hz: float | None) -> list[float]:
    """Send all frames, and listen meanwhile: seconds from send to the word on each frame that got one."""
    sent_ns: list[int] = []
    with ThreadPoolExecutor(1) as listener:
        answers = listener.submit(_answers, ear, sent_ns, frames - 1)
        pictures, began = pipe.pictures(SHAPE, 16), monotonic()
        for number in range(frames):
            parts = [pipe.header(number, SHAPE, inspect=rate_hz is None), pictures[number % len(pictures)]]
            if rate_hz is not None:
                sleep(max(0.0, began + number / rate_hz - monotonic()))
            sent_ns.append(monotonic_ns())
            producer.send(parts)
        return answers.result()


def _answers(ear: pipe.Ear, sent_ns: list[int], last: int) -> list[float]:
    seconds = []
    while (heard := ear.hear(pipe.START_S)) is not None:
        told, heard_ns = heard
        if told["topic"] == "focus":
            seconds.append((heard_ns - sent_ns[told["frame"]]) / 1e9)
            if told["frame"] == last:
                break
    return seconds
