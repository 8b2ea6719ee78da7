"""`beamside events`: the journal, read beside a running agent or after it."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agent import journal
from agent.settings import load, state_dir

FOLLOW_S = 0.5  # between looks: a person reads slower than that
LONGEST = 96  # characters of detail in one row of the table


def events(
    since: Annotated[
        int | None, typer.Option(min=0, help="Only events numbered above this; default: the newest.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many (--follow: to begin with).")] = 50,
    follow: Annotated[bool, typer.Option(help="Go on with what is written from now on, until interrupted.")] = False,
    config: Annotated[Path | None, typer.Option(help="Configuration file, for its state directory.")] = None,
    folder: Annotated[Path | None, typer.Option("--state-dir", help="Where the journal lies.")] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON document; with --follow one a line, an event each.")
    ] = False,
) -> None:
    """Flags, holds, suggestions, acknowledgements and defects, as numbered in the journal."""
    path = (folder or state_dir(load(config))) / journal.FILE
    found = journal.read(path, since, limit)
    if follow:
        _follow(path, found, json_)
    elif json_:
        print(json.dumps({"events": found}))
    else:
        _table(found)


def _follow(path: Path, found: list[dict[str, Any]], as_json: bool) -> None:
    last = 0
    try:
        while True:
            for event in found:
                print(json.dumps(event) if as_json else "  ".join(_cells(event)), flush=True)
                last = event["event"]
            time.sleep(FOLLOW_S)
            found = journal.read(path, last)
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
    return (str(event["event"]), at, event["topic"], frame, event["mode"], _what(event["topic"], event["body"]))


def _what(topic: str, body: dict[str, Any]) -> str:
    """One line for people; the whole of it is in --json."""
    if topic == "flag":
        return f"{body['severity']} {body['code']} {body['state']} {body['detail']}".strip()[:LONGEST]
    if topic == "hold":
        return f"{body['state']} {body['reason']}"
    if topic == "ack":
        return f"{body['suggestion']} {body['outcome']}"
    if topic == "defects":
        return f"{body['count']} " + ", ".join(sorted({defect["class"] for defect in body["defects"]}))
    if topic == "suggestion":
        return f"{body['id']} {body['kind']} {_move(body)} {body['reason']}"[:LONGEST]
    return " ".join(f"{key}={value}" for key, value in body.items())[:LONGEST]


def _move(body: dict[str, Any]) -> str:
    delta = body.get("delta_working_distance_m")
    return "" if delta is None else f"working distance {delta * 1e6:+.2f} um"
