"""What a bench says to people: one row an engine, narrow enough for a terminal of 80 columns."""

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table

from agent.commands.benching import Bench

TITLE = "One reading, upload included; x torch: times as fast as torch eager"
FLOOR = "of floor: the network alone at the device's peak; the readings hold the transfers too"
HEADS = ("model", "backend", "as", "shape", "thr.", "parity", "p50 ms", "p99 ms", "x torch")
SAID = {True: "passed", False: "REFUSED", None: "-"}  # the parity gate; not asked yet


def table(rows: list[Bench]) -> Table:
    on_gpu = any(row.share_of_floor is not msgspec.UNSET for row in rows)
    heads = (*HEADS, *(("of floor", "graph") if on_gpu else ()))
    shown = Table(*heads, title=TITLE, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    shown.caption = FLOOR if on_gpu else None
    for row in rows:
        where = f"{row.shape[0]}x{row.shape[1]}", str(row.threads)
        times = f"{1e3 * row.p50_s:.1f}", f"{1e3 * row.p99_s:.1f}", ratio_of(row)
        more = (floor_of(row), graph_of(row)) if on_gpu else ()
        shown.add_row(row.model, row.backend, row.precision, *where, SAID[row.parity], *times, *more)
    return shown


def ratio_of(row: Bench) -> str:
    return "" if row.ratio_to_torch_eager is None else f"{row.ratio_to_torch_eager:.2f}"


def floor_of(row: Bench) -> str:
    return f"{row.share_of_floor:.0%}" if isinstance(row.share_of_floor, float) else ""


def graph_of(row: Bench) -> str:
    return {True: "yes", False: "NO"}[row.graph] if isinstance(row.graph, bool) else ""
