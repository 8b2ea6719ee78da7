"""Element fractions measured at places of frames, from a CSV: text in, one row a candidate out. Pure.

Columns: `frame`, `x_px`, `y_px`, `session` where numbers repeat, and a column for each element that was measured, 0..1.
"""

import csv
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.messages import Box, Place
from engines.cascade_features import ELEMENTS

PLACE, SESSION = ("frame", "x_px", "y_px"), "session"
WHOLE = 1.005  # shares add up to at most 1, to the rounding of three digits


def read(text: str) -> tuple[Place, ...]:
    """In the order of their frames. Raises ValueError: which line, which column, which value."""
    table = csv.DictReader(text.splitlines(), skipinitialspace=True)
    names = tuple(table.fieldnames or ())
    missing = [name for name in PLACE if name not in names]
    if missing:
        raise ValueError(f"no column {missing[0]}; needed are {', '.join(PLACE)}")
    unknown = [name for name in names if name not in (*PLACE, SESSION, *ELEMENTS)]
    if unknown:
        raise ValueError(f"column {unknown[0]!r} is not known; elements are {', '.join(ELEMENTS)}")
    if not set(names) & set(ELEMENTS):
        raise ValueError(f"no column of an element; elements are {', '.join(ELEMENTS)}")
    return tuple(sorted(_places(table), key=_frame))


def _places(table: "csv.DictReader[str]") -> Iterator[Place]:
    for row in table:
        where = f"line {table.line_num}"
        shares = tuple(_number(row, name, where) if row.get(name) else 0.0 for name in ELEMENTS)
        if min(shares) < 0.0 or sum(shares) > WHOLE:
            raise ValueError(f"{where}: shares add up to {sum(shares):g}; expected 0..1 each, at most 1 together")
        frame, x_px, y_px = (_number(row, name, where) for name in PLACE)
        if not frame.is_integer():
            raise ValueError(f"{where}: frame = {row['frame']!r}; expected a whole number")
        if min(x_px, y_px) < 0.0:
            raise ValueError(f"{where}: the place {x_px:g}, {y_px:g} px lies out of any frame; expected 0 or more")
        yield Place(int(frame), row.get(SESSION) or None, x_px, y_px, shares)


def _number(row: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {name} = {row[name]!r}; expected a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{where}: {name} = {row[name]!r}; expected a finite number")
    return value


def of_frame(places: Sequence[Place], frame: int, session: str | None) -> tuple[Place, ...]:
    """Those of one frame; a place that names no session is of any. places: as `read` tells them."""
    first, last = bisect_left(places, frame, key=_frame), bisect_right(places, frame, key=_frame)
    return tuple(each for each in places[first:last] if each.session in (None, session))


def _frame(place: Place) -> int:
    return place.frame


def lost(places: Sequence[Place], shape: tuple[int, ...]) -> str:
    """What is wrong with the first that lies out of its frame of (h, w) pixels, or an empty text."""
    for each in places:
        if each.x_px >= shape[1] or each.y_px >= shape[0]:
            where = f"the place {each.x_px:g}, {each.y_px:g} px of frame {each.frame}"
            return f"{where} lies out of the frame of {shape[1]}x{shape[0]} pixels: mend the file"
    return ""


def of_boxes(places: Sequence[Place], boxes: Sequence[Box]) -> NDArray[np.float32]:
    """(n, elements) of each box, as the cascade takes them: the mean of the places in it, NaN where none lies there."""
    told = np.full((len(boxes), len(ELEMENTS)), np.nan, np.float32)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        inside = [each.shares for each in places if x0 <= each.x_px < x1 and y0 <= each.y_px < y1]
        if inside:
            told[number] = np.mean(inside, axis=0)
    return told
