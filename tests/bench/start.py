"""How long `beamside run` takes from the start of its process to READY, which it tells systemd once its first status
message is out; and how much of that is Python and its imports.

Every start finds the state folder that the one before it left, as after a restart by systemd.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic

STARTS = 7
START_S, END_S = 60.0, 20.0  # beyond these it does not start, or does not end
AGENT = (sys.executable, "-m", "agent", "run")
IMPORTS = (sys.executable, "-c", "import agent.__main__; print(flush=True)")  # how long it takes to end is left out
STAGES = {
    "imports": "Python, and `import agent.__main__`",
    "READY": "the whole: imports, configuration, three models, journal, sockets, first status",
}


def measure(starts: int = STARTS) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="beamside-bench-") as name:
        folder = Path(name)
        once: dict[str, Callable[[Path], float]] = {"imports": imports_s, "READY": ready_s}
        took: dict[str, list[float]] = {stage: [] for stage in STAGES}
        for _ in range(starts):
            for stage in STAGES:
                took[stage].append(once[stage](folder))
    return [_row(stage, seconds) for stage, seconds in took.items()]


def _row(stage: str, seconds: list[float]) -> dict[str, object]:
    return {
        "stage": stage,
        "what": STAGES[stage],
        "starts": len(seconds),
        "p50_s": median(seconds),
        "max_s": max(seconds),
    }


def imports_s(folder: Path) -> float:
    began = monotonic()
    with subprocess.Popen(IMPORTS, env=_environment(folder), stdout=subprocess.PIPE) as python:
        assert python.stdout is not None
        if python.stdout.read(1) != b"\n":
            raise ImportError("the agent cannot be imported: what it said stands on stderr")
        return monotonic() - began


def ready_s(folder: Path) -> float:
    """Raises TimeoutError, also when the process ended before it was ready: what it said stands on stderr."""
    address = folder / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        began = monotonic()
        agent = subprocess.Popen(AGENT, env=_environment(folder, NOTIFY_SOCKET=str(address)))
        try:
            return _ready_at(listener, began + START_S) - began
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(END_S)


def _ready_at(listener: socket.socket, end: float) -> float:
    while (left := end - monotonic()) > 0:
        listener.settimeout(left)
        if b"READY=1" in listener.recv(4096).split(b"\n"):
            return monotonic()
    raise TimeoutError(f"the agent was not ready within {START_S:g} s")


def _environment(folder: Path, **more: str) -> dict[str, str]:
    """State and sockets below `folder`, no configuration of an agent that serves on this machine, and no log."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAMSIDE_")}
    ours = {"STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder)}
    return {**kept, **ours, "BEAMSIDE_HEALTH__LOG_LEVEL": "error", **more}
