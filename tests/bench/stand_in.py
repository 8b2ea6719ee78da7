"""The agent in a process of its own, in observe mode, with a model that answers at once: what is left is overhead.

At SIGTERM it writes every duration of every stage as JSON. Usage: python -m tests.bench.stand_in FOLDER
"""

import json
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import monotonic_ns, perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent import settings as configuration
from agent.clock import SystemClock
from agent.commands import run as command
from agent.loop import Loop
from agent.messages import Decision, Frame, Mode, Status
from agent.perceive import Perceiver
from engines.readings import FocusReading

KEPT = "stages.json"
Kept = defaultdict[str, list[float]]


class Instant:
    """A focus model that costs nothing."""

    name = "instant@0"

    def begin(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> Callable[[], FocusReading]:
        return lambda: FocusReading(score=5.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)


def endpoints(folder: Path) -> dict[str, str]:
    return {name: f"ipc://{folder}/{name}.ipc" for name in ("frames", "advice", "commands")}


def settings(folder: Path) -> configuration.Settings:
    ends = {name: {"endpoint": end} for name, end in endpoints(folder).items()}
    return configuration.load(
        None, {**ends, "focus": {"mode": "observe"}, "state_dir": folder, "health": {"log_level": "warning"}}
    )


def assemble(folder: Path, stack: ExitStack) -> Loop:
    """The agent as `beamside run` has it, but for the model."""
    os.environ["RUNTIME_DIRECTORY"] = str(folder)
    status = Status(mode=Mode.OBSERVE, models=(Instant.name,))
    command.models = lambda _: (Perceiver(Instant()), status)
    return command.assemble(settings(folder), SystemClock(), stack)


def keep_all(loop: Loop) -> Kept:
    """Every stage's durations, s; `whole` is from the first byte's arrival in the process to the end of the turn."""
    kept: Kept = defaultdict(list)
    add, step, turn, tell = loop.health.add, loop.step, loop.turn, loop.reporter._tell
    at: list[int] = []
    began: list[int] = []

    def stepping(frame: Frame | None, *rest: Any, **more: Any) -> Decision:
        began.append(monotonic_ns())
        decision = step(frame, *rest, **more)
        if frame is not None:
            at.append(frame.received_ns)
            for stage, seconds in decision.took_s.items():
                kept[stage].append(seconds)
        return decision

    def turning() -> None:
        at.clear()
        began.clear()
        turn()
        ended = monotonic_ns()
        for received_ns in at:
            kept["whole"].append((ended - received_ns) / 1e9)
            kept["turn"].append((ended - began[0]) / 1e9)

    def adding(stage: str, seconds: float) -> None:
        kept[stage].append(seconds)
        add(stage, seconds)

    loop.health.add, loop.step, loop.turn = adding, stepping, turning
    loop.reporter._tell = timed(tell, kept["sender"])
    return kept


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def calling(*given: Any) -> Any:
        began = perf_counter()
        result = call(*given)
        seconds.append(perf_counter() - began)
        return result

    return calling


def main() -> None:
    folder = Path(sys.argv[1])
    with ExitStack() as stack:
        loop = assemble(folder, stack)
        kept = keep_all(loop)
        signal.signal(signal.SIGTERM, lambda *_: loop.stopping.set())
        command.serve(loop)
    (folder / KEPT).write_text(json.dumps(kept))


if __name__ == "__main__":
    threading.current_thread().name = "loop"
    main()
