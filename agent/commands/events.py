"""`beamside events`: the journal, read beside a running agent or after it; defects also as COCO and CSV."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from agent import journal
from agent.commands import export
from agent.commands.found import FoundFrame, defects, frames, place_told, size_told
from agent.crops import FOLDER
from agent.errors import UsageError
from agent.settings import load, state_dir

FOLLOW_S = 0.5  # between looks: a person reads slower than that
LONGEST = 96  # characters of detail in one row of the table
LISTED = 8  # defects of one frame that are listed one by one
AT_ONCE = 1000  # rows read at a time for an export


def events(
    since: Annotated[
        int | None, typer.Option(min=0, help="Only events numbered above this; default: the newest.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many (--follow: to begin with).")] = 50,
    topic: Annotated[str, typer.Option(help="Of this topic alone, such as defects.")] = "",
    follow: Annotated[bool, typer.Option(help="Go on with what is written from now on, until interrupted.")] = False,
    export_coco: Annotated[
        Path | None, typer.Option(help="Write all inspected frames (above --since) as COCO annotations.")
    ] = None,
    export_csv: Annotated[Path | None, typer.Option(help="Write all defects (above --since), one a line.")] = None,
    config: Annotated[Path | None, typer.Option(help="Configuration file, for its state directory.")] = None,
    folder: Annotated[Path | None, typer.Option("--state-dir", help="Where the journal lies.")] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON document; with --follow one a line, an event each.")
    ] = False,
) -> None:
    """Flags, holds, suggestions, acknowledgements and defects, as numbered in the journal."""
    path = (folder or state_dir(load(config))) / journal.FILE
    if export_coco is not None or export_csv is not None:
        if follow:
            raise UsageError("--follow goes on and an export ends: give one of them")
        _export(path, since or 0, coco=export_coco, table=export_csv, as_json=json_)
        return
    found = journal.read(path, since, limit, topic=topic or None)
    if follow:
        _follow(path, found, topic=topic or None, as_json=json_)
    elif json_:
        print(json.dumps({"events": found}))
    else:
        _table(found)


def _export(path: Path, since: int, *, coco: Path | None, table: Path | None, as_json: bool) -> None:
    found = list(frames(list(_all(path, since))))
    if coco is not None:
        told = msgspec.json.format(msgspec.json.encode(export.coco(found, crops=FOLDER)), indent=1)
        export.save(coco, told.decode() + "\n", "--export-coco")
    if table is not None:
        export.save(table, export.table(found), "--export-csv")
    count = sum(len(each.row.defects) for each in found)
    if as_json:
        print(json.dumps({"frames": len(found), "defects": count, "coco": _said(coco), "csv": _said(table)}))
    else:
        where = " and ".join(str(each) for each in (coco, table) if each is not None)
        print(f"{count} defects of {len(found)} frames in {where}; crops in {path.parent / FOLDER}")


def _said(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _all(path: Path, since: int) -> Iterator[dict[str, Any]]:
    """Every row of defects, however many there are."""
    while rows := journal.read(path, since, AT_ONCE, topic="defects"):
        yield from rows
        since = rows[-1]["event"]


def _follow(path: Path, found: list[dict[str, Any]], *, topic: str | None, as_json: bool) -> None:
    last = 0
    try:
        while True:
            for event in found:
                print(json.dumps(event) if as_json else "  ".join(_cells(event)), flush=True)
                last = event["event"]
            time.sleep(FOLLOW_S)
            found = journal.read(path, last, topic=topic)
    except KeyboardInterrupt:
        return


def _table(found: list[dict[str, Any]]) -> None:
    table = Table("event", "time", "topic", "frame", "mode", "what")
    for event in found:
        table.add_row(*_cells(event))
    Console().print(table)


def _cells(event: dict[str, Any]) -> tuple[str, ...]:
    at = datetime.fromtimestamp(event["wall_ns"] / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    frame = "" if event["frame"] is None else str(event["frame"])
    what = _found(event) if event["topic"] == "defects" else _what(event["topic"], event["body"])
    return (str(event["event"]), at, event["topic"], frame, event["mode"], what)


def _found(event: dict[str, Any]) -> str:
    """A line for the frame, and one for each of its surest defects."""
    (seen,) = frames([event])
    listed = [
        f"  {each.defect.name} {size_told(each.defect)} at {place_told(each.defect)}, sure {each.defect.confidence:.2f}"
        + (f", {FOLDER}/{each.crop}" if each.crop else "")
        for each in list(defects(seen))[:LISTED]
    ]
    more = seen.row.count - len(listed)
    return "\n".join([_frame(seen), *listed, *([f"  and {more} more"] if more else [])])


def _frame(seen: FoundFrame) -> str:
    row = seen.row
    words = [f"{row.count} {'defect' if row.count == 1 else 'defects'}"]
    words += [f"recipe {row.recipe}"] if row.recipe else []
    words += [f"left out {', '.join(f'{n} by {rule}' for rule, n in row.dropped.items())}"] if row.dropped else []
    return "; ".join(words)


def _what(topic: str, body: dict[str, Any]) -> str:
    """One line for people; the whole of it is in --json."""
    if topic == "flag":
        return f"{body['severity']} {body['code']} {body['state']} {body['detail']}".strip()[:LONGEST]
    if topic == "hold":
        return f"{body['state']} {body['reason']}"
    if topic == "ack":
        return f"{body['suggestion']} {body['outcome']}"
    if topic == "suggestion":
        return f"{body['id']} {body['kind']} {_move(body)} {body['reason']}"[:LONGEST]
    return " ".join(f"{key}={value}" for key, value in body.items())[:LONGEST]


def _move(body: dict[str, Any]) -> str:
    delta = body.get("delta_working_distance_m")
    return "" if delta is None else f"working distance {delta * 1e6:+.2f} um"
