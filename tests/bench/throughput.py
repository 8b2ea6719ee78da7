"""How fast frames go into the agent, as a share of what a bare pyzmq subscriber takes, in turns in the same run.

Both receive in a process of their own, over ipc, from the same producer. The agent goes on looking at the newest
frame all the while, as it does in service.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic_ns

import zmq

from tests.bench import pipe
from tests.bench.stand_in import endpoints

SIDES_PX = {"64 KiB": (256, 256), "1 MiB": (1024, 1024), "8 MiB": (2048, 4096)}
BYTES = 1 << 28  # sent in each turn: a tenth of a second, and many turns, because a machine has other things to do
REPETITIONS = 25


@dataclass(frozen=True)
class Pipe:
    """One receiver: where its producer sends, and what waits until the last frame was taken."""

    producer: pipe.Producer
    last_taken_ns: Callable[[int], int]


def measure(repetitions: int = REPETITIONS, total: int = BYTES) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="beamside-bench-") as folder:
        return _measure(Path(folder), repetitions, total)


def _measure(folder: Path, repetitions: int, total: int) -> list[dict[str, object]]:
    ends = endpoints(folder)
    context: pipe.Context = zmq.Context()
    raw_end, done_end = f"ipc://{folder}/raw.ipc", f"ipc://{folder}/done.ipc"
    done = context.socket(zmq.PULL)
    done.bind(done_end)
    ours, bare = pipe.Producer(context, ends["frames"]), pipe.Producer(context, raw_end)
    ear = pipe.Ear(context, ends["advice"])
    with pipe.process("stand_in", str(folder)), pipe.process("raw", raw_end, done_end):
        for producer in (ours, bare):
            producer.wait_for_subscriber()
        ear.wait_for("status")
        agent = Pipe(ours, lambda number: ear.wait_for("focus", number))
        raw = Pipe(bare, lambda _: _taken(done))
        rows = [_compare(name, shape, agent, raw, repetitions, total) for name, shape in SIDES_PX.items()]
    for socket in (ours, bare, ear, done):
        socket.close()
    context.term()
    return rows


def _taken(done: "zmq.Socket[bytes]") -> int:
    if not done.poll(round(pipe.START_S * 1000)):
        raise TimeoutError("the bare subscriber did not get its last frame")
    done.recv()
    return monotonic_ns()


def _compare(
    name: str, shape: tuple[int, int], agent: Pipe, raw: Pipe, repetitions: int, total: int
) -> dict[str, object]:
    count = max(16, total // (shape[0] * shape[1]))
    pictures = pipe.pictures(shape, 4)
    rates: dict[str, list[float]] = {"agent": [], "raw": []}
    for turn in range(repetitions + 1):
        for side, each in (("agent", agent), ("raw", raw)) if turn % 2 else (("raw", raw), ("agent", agent)):
            rate = _send(each, shape, pictures, count)
            if turn:  # the first one warms up
                rates[side].append(rate)
    ratios = sorted(a / r for a, r in zip(rates["agent"], rates["raw"], strict=True))
    return {
        "size": name,
        "frames": count,
        "agent_per_s": median(rates["agent"]),
        "raw_per_s": median(rates["raw"]),
        "ratio": median(ratios),
        "ratio_low": ratios[0],
        "ratio_q25": ratios[len(ratios) // 4],
        "ratio_q75": ratios[-1 - len(ratios) // 4],
        "ratio_high": ratios[-1],
    }


def _send(into: Pipe, shape: tuple[int, int], pictures: list[bytes], count: int) -> float:
    """Frames a second, from the first send to the last one taken."""
    headers = [pipe.header(i, shape) for i in range(count - 1)] + [pipe.header(count - 1, shape, inspect=True)]
    began_ns = monotonic_ns()
    for number, told in enumerate(headers):
        into.producer.send([told, pictures[number % len(pictures)]])
    return count / ((into.last_taken_ns(count - 1) - began_ns) / 1e9)
