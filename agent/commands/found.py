"""Defects of the journal, one a row: what a list for people, a spreadsheet and a COCO file all begin with."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from agent.crops import FOLDER
from agent.journal import DefectsRow
from agent.messages import Defect

Event = dict[str, Any]  # a row as agent.journal.read gives it


@dataclass(frozen=True)
class FoundFrame:
    """One inspected frame."""

    event: int
    wall_ns: int
    frame: int | None
    session: str | None
    source: str | None
    row: DefectsRow

    @property
    def name(self) -> str:
        """Of the frame, for nobody kept its picture: the same in all exports, unlike that of any other."""
        return f"{self.session or 'session'}-{self.frame if self.frame is not None else self.event}"

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.wall_ns / 1e9, UTC)


@dataclass(frozen=True)
class FoundDefect:
    """One of its defects."""

    frame: FoundFrame
    number: int  # in the frame, from 0
    defect: Defect
    crop: str | None  # file name; it may be gone, for the oldest make room

    def picture(self, state: Path) -> Path | None:
        """The crop's file, if it is still there."""
        path = None if self.crop is None else state / FOLDER / self.crop
        return path if path is not None and path.is_file() else None


def frames(events: list[Event]) -> Iterator[FoundFrame]:
    """Those that were inspected, defects or none."""
    for each in events:
        if each["topic"] == "defects":
            row = msgspec.convert(each["body"], DefectsRow)
            about = (each["event"], each["wall_ns"], each["frame"], each["session"], each["source"])
            yield FoundFrame(*about, row)


def defects(seen: FoundFrame) -> Iterator[FoundDefect]:
    for number, each in enumerate(seen.row.defects):
        crops = seen.row.crops
        yield FoundDefect(seen, number, each, crops[number] if number < len(crops) else None)


def size_told(defect: Defect) -> str:
    """For people: nanometres where the pixel size was known, else pixels."""
    if defect.size_m is not None:
        return f"{defect.size_m * 1e9:.0f} nm"
    x0, y0, x1, y1 = defect.box_px
    return f"{max(x1 - x0, y1 - y0):.0f} px"


def place_told(defect: Defect) -> str:
    """The middle of its box, and the stage position that centres it."""
    x0, y0, x1, y1 = defect.box_px
    place = f"({(x0 + x1) / 2:.0f}, {(y0 + y1) / 2:.0f}) px"
    if defect.stage_x_m is None or defect.stage_y_m is None:
        return place
    return f"{place}, stage ({defect.stage_x_m * 1e3:.4f}, {defect.stage_y_m * 1e3:.4f}) mm"
