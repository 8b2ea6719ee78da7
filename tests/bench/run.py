"""`make bench`: how fast the agent is on this machine, as tables; with --json PATH, as numbers too.

Nothing is asserted: a time is a fact about a machine and its load, which are told beside it.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import zmq
from rich.console import Console
from rich.table import Table

from tests.bench import estimator, focus, inspection, models, overhead, start, throughput

Rows = list[dict[str, object]]
PIPED = 120  # columns, where there is no terminal to ask
CPU_INFO = Path("/proc/cpuinfo")


def machine() -> dict[str, object]:
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "python": platform.python_version(),
        "beamside": importlib.metadata.version("beamside"),
        "numpy": np.__version__,
        "pyzmq": f"{zmq.__version__} (libzmq {zmq.zmq_version()})",
        "opencv": cv2.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _cpu_lines() -> list[str]:
    return CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []


def load_average() -> list[float]:
    return [round(value, 2) for value in os.getloadavg()]


# --- tables ---


def overhead_table(rows: Rows) -> Table:
    aim = "aim, idle: p50 of the whole 150, p99 1000; back to back: the same work with warm caches"
    table = _table("Agent overhead beyond the models, 1 MiB frames at 100/s, µs", aim)
    for heading in ("p50", "p99", "back to back, p50"):
        table.add_column(heading, justify="right")
    table.add_column("what it is")
    for row in rows:
        table.add_row(
            str(row["stage"]),
            _number(row["p50_us"]),
            _number(row["p99_us"]),
            _number(row["back_to_back_p50_us"]),
            str(row["what"]),
        )
    return table


def throughput_table(rows: Rows) -> Table:
    table = _table("Frames into the agent against a bare pyzmq subscriber", "aim: 0.85 at 1 MiB and above")
    for heading in ("agent, 1/s", "bare, 1/s", "ratio, median", "lowest", "highest", "quartiles"):
        table.add_column(heading, justify="right")
    for row in rows:
        names = ("agent_per_s", "raw_per_s")
        quartiles = f"{_number(row['ratio_q25'], 2)} to {_number(row['ratio_q75'], 2)}"
        ratios = [_number(row[name], 2) for name in ("ratio", "ratio_low", "ratio_high")]
        table.add_row(str(row["size"]), *(_number(row[name]) for name in names), *ratios, quartiles)
    return table


def estimator_table(rows: Rows) -> Table:
    table = _table("Focus estimate from ready spectra, one thread, ms", "aim: p99 150 on one core")
    for heading in ("frames", "p50", "p99", "processor time, p50"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [_number(row[name]) for name in ("p50_ms", "p99_ms", "cpu_p50_ms")]
        table.add_row(_shape(row), str(row["frames"]), *times)
    return table


def models_table(rows: Rows) -> Table:
    eager = "torch eager with random weights (time does not depend on them), inference mode, the faster of two layouts"
    aim = "aim: the three together 300 ms at 768x1024"
    table = _table("Models on ONNX Runtime against torch eager, in turns, ms", f"{models.missing() or eager}; {aim}")
    for heading in ("shape", "threads", "p50", "p99", "torch p50", "torch p99", "times as fast", "layout"):
        table.add_column(heading, justify="right")
    for row in rows:
        names = ("p50_ms", "p99_ms", "torch_p50_ms", "torch_p99_ms")
        times = [_number(row.get(name), 1) for name in names]
        layout = str(row["torch"]) if "torch_p50_ms" in row else ""
        ratio = _number(row.get("ratio_to_torch_eager"), 2)
        table.add_row(str(row["model"]), _shape(row), str(row["threads"]), *times, ratio, layout)
    return table


def inspection_table(rows: Rows) -> Table:
    aim = "aim: p99 of the frame 100 on two cores; nuisances: each find looked at again, and crops cut out"
    table = _table("One frame to inspect: detector, reference, cascade, ms", aim)
    table.add_column("stage")
    for heading in ("shape", "threads", "finds", "p50", "p99", "processor time, p50"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [_number(row.get(name), 1) for name in ("p50_ms", "p99_ms", "cpu_p50_ms")]
        counts = [str(row[name]) for name in ("threads", "finds")]
        table.add_row(str(row["models"]), str(row["stage"]), _shape(row), *counts, *times)
    return table


def start_table(rows: Rows) -> Table:
    table = _table("Process start of `beamside run` to READY, s", "aim: 1.5 on a CPU")
    for heading in ("starts", "p50", "max"):
        table.add_column(heading, justify="right")
    table.add_column("what it is")
    for row in rows:
        times = [_number(row[name], 2) for name in ("p50_s", "max_s")]
        table.add_row(str(row["stage"]), str(row["starts"]), *times, str(row["what"]))
    return table


def focus_table(rows: Rows) -> Table:
    table = _table("Closed focus loop on the virtual microscope, asked and measured", str(rows[0]["what"]))
    for heading in ("asked", "measured", "", "by", "n"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*(str(row[name]) for name in ("name", "asked", "measured", "met", "by", "n")))
    return table


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("")
    return table


def _number(value: object, decimals: int = 0) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, (int, float)) else ""


def _shape(row: dict[str, object]) -> str:
    sides = row["shape"]
    return "x".join(str(side) for side in sides) if isinstance(sides, list) else str(sides)


# --- the run ---

Part = tuple[Callable[[bool], Rows], Callable[[Rows], Table]]
PARTS: dict[str, Part] = {
    "overhead": (lambda quick: overhead.measure(500 if quick else overhead.FRAMES), overhead_table),
    "throughput": (lambda quick: throughput.measure(3 if quick else throughput.REPETITIONS), throughput_table),
    "estimator": (lambda quick: estimator.measure(1 if quick else estimator.REPEATS), estimator_table),
    "start": (lambda quick: start.measure(3 if quick else start.STARTS), start_table),
    "focus": (lambda quick: focus.measure(16 if quick else focus.EPISODES), focus_table),
    "models": (lambda quick: models.measure(10 if quick else models.RUNS), models_table),
    "inspection": (lambda quick: inspection.measure(10 if quick else inspection.RUNS), inspection_table),
}


def parts(other: Path | None) -> dict[str, Part]:
    """other: a models folder that is inspected with beside the shipped one."""
    if other is None:
        return PARTS
    both = lambda quick: inspection.measure(10 if quick else inspection.RUNS, other)  # noqa: E731 - as the others
    return PARTS | {"inspection": (both, inspection_table)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the numbers there as well")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given several times")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="of packages to inspect with, beside the shipped")
    given = parser.parse_args()
    if given.models is not None and not given.models.is_dir():
        parser.error(f"--models {given.models}: no such folder")
    console, progress = Console(), Console(stderr=True)
    if not console.is_terminal:
        console = Console(width=PIPED)
    told: dict[str, object] = {"machine": machine()}
    console.print(*(f"{name}: {value}" for name, value in machine().items()), sep="\n", highlight=False)
    for name in given.only or PARTS:
        measure, table = parts(given.models)[name]
        before = load_average()
        with progress.status(f"measuring {name}"):
            rows = measure(given.quick)
        told[name] = {"load_before": before, "load_after": load_average(), "rows": rows}
        console.print("", table(rows), f"load average before {before}, after {load_average()}", highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
