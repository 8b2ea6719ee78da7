"""A height map as people read it: the frame, its heights in colours with a colour bar, and a cut through both.

Pure: heights and a picture in, a BGR picture out. The map's own numbers are never touched.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import INK, PAPER, RULE, SOFT, VERMILLION, Axes, Canvas, Spot, number
from agent.commands.plate import LINE_PX, Plate, fitted, round_ticks, scale_bar, told, unit_of, wrapped

MAP = cv2.COLORMAP_VIRIDIS  # even steps to the eye, dark to light in grey print too
LEAST_PX, MOST_PX = 460, 640  # longest side of either picture as it is shown
MARGIN, BETWEEN = 28, 24
HEAD = 84  # title, note, names of the pictures
BAR_WIDE, BAR_ROOM = 18, 92  # the colour bar, and with its numbers
CUT_HIGH = 190  # of the chart below
TAILS = 0.5  # per cent at either end that the colours do not tell apart, lest one wild pixel take them all
FLATTEST = 0.1  # of a pixel: heights within it get one colour instead of a rainbow of noise
LONGEST_CUT = 1024  # samples: more would run into one another in the chart; the middle of a longer one is shown
EDGE = 16  # this part of each side is passed over for the cut: at a border a model sees half of what it needs
NEARLY = 0.97  # of the most relief: lines within it tell as much
NOT_CALIBRATED = "Metres as the model was trained: no certificate vouches for this scale."
CALIBRATED = "Metres by the instrument's certificate."


@dataclass(frozen=True)
class Cut:
    """One row or one column of the map, or as much of it as a chart can tell."""

    along_x: bool
    index: int
    height_m: NDArray[np.float32]  # (n,)
    start: int = 0  # where along its row or column it begins


@dataclass(frozen=True)
class Layout:
    """Where things stand on the page; left and top of each picture, and the page's size."""

    frame: Spot
    relief: Spot
    chart: tuple[float, float, float, float]  # left, top, right, bottom
    size: tuple[int, int]  # width, height


def draw(
    height_m: NDArray[np.float32], picture: NDArray[np.uint8], pixel_size_m: float | None, calibrated: bool
) -> NDArray[np.uint8]:
    """height_m, picture (h, w) -> (h', w', 3) blue, green, red. Heights that are not finite stay white."""
    frame = fitted(picture, least=LEAST_PX, most=MOST_PX)
    relief = fitted(np.asarray(height_m, np.float32), least=LEAST_PX, most=MOST_PX)
    span, cut, layout = span_of(relief.image, pixel_size_m), most_telling(height_m), _layout(frame)
    page = Canvas(*layout.size)
    _heading(page, layout, calibrated)
    page.picture(layout.frame, frame.image)
    _paint(page, layout.relief, coloured(relief.image, span))
    _colour_bar(page, layout, frame, span)
    for at in (layout.frame, layout.relief):
        _mark_cut(page, at, frame, cut)
    bar = (layout.frame[0], layout.frame[1] + frame.image.shape[0] + 40)
    room = 0.6 * frame.image.shape[1]
    scale_bar(page, bar, pixel_size_m=pixel_size_m, times=frame.times, room_px=max(room, 60.0))
    _chart(page, layout, cut, span, pixel_size_m)
    return page.image


# --- what is shown ---


def span_of(height_m: NDArray[np.float32], pixel_size_m: float | None) -> tuple[float, float]:
    """Lowest and highest height that the colours tell, metres."""
    known = height_m[np.isfinite(height_m)]
    if not known.size:
        return 0.0, 1e-9
    low, high = (float(x) for x in np.percentile(known, (TAILS, 100.0 - TAILS)))
    least = FLATTEST * (pixel_size_m or 1e-9)
    if high - low < least:
        low, high = (low + high - least) / 2.0, (low + high + least) / 2.0
    return low, high


def coloured(height_m: NDArray[np.float32], span: tuple[float, float]) -> NDArray[np.uint8]:
    """(h, w) metres -> (h, w, 3) blue, green, red; white where unknown."""
    share = (height_m - np.float32(span[0])) / np.float32(span[1] - span[0])
    known = np.isfinite(share)
    levels = (np.clip(np.where(known, share, 0.0), 0.0, 1.0) * 255.0).round().astype(np.uint8)
    shown = np.asarray(cv2.applyColorMap(levels, MAP), np.uint8)
    shown[~known] = PAPER
    return shown


def most_telling(height_m: NDArray[np.float32]) -> Cut:
    """The row or column with the most relief in it: across the lines, through the contacts."""
    down, right = height_m.shape[0] // EDGE, height_m.shape[1] // EDGE
    inner = height_m[down : height_m.shape[0] - down, right : height_m.shape[1] - right]
    rows, columns = (_relief(inner, axis) for axis in (1, 0))
    along_x = float(np.median(rows)) >= float(np.median(columns))  # one row along an edge has relief too
    index = down + _middle_of_best(rows) if along_x else right + _middle_of_best(columns)
    line = height_m[index] if along_x else height_m[:, index]
    start = max(0, (len(line) - LONGEST_CUT) // 2)
    return Cut(along_x, index, np.asarray(line[start : start + LONGEST_CUT], np.float32), start)


def _relief(height_m: NDArray[np.float32], axis: int) -> NDArray[Any]:
    known = np.where(np.isfinite(height_m), height_m, 0.0)
    return np.asarray(known.std(axis=axis, dtype=np.float64))


def _middle_of_best(relief: NDArray[Any]) -> int:
    """The middle of a stretch of lines that are nearly as good as the best; of the stretch nearest to the centre."""
    good = np.flatnonzero(relief >= NEARLY * relief.max())
    stretches = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
    middles = np.array([stretch[len(stretch) // 2] for stretch in stretches])
    return int(middles[np.argmin(np.abs(middles - len(relief) / 2.0))])


# --- the page ---


def _layout(frame: Plate) -> Layout:
    height, width = frame.image.shape
    top, below = float(HEAD), float(HEAD + height)
    relief = MARGIN + width + BETWEEN
    right = relief + width + BAR_ROOM
    page = max(right + MARGIN, 760)
    chart = (MARGIN + 62.0, below + 96.0, page - MARGIN, below + 96.0 + CUT_HIGH)
    return Layout((MARGIN, top), (relief, top), chart, (round(page), round(chart[3] + 62)))


def _heading(page: Canvas, layout: Layout, calibrated: bool) -> None:
    page.text((MARGIN, 34), "Height above the field's lowest plateau", size=20, weight=600)
    note = CALIBRATED if calibrated else NOT_CALIBRATED
    page.text((MARGIN, 34 + LINE_PX + 2), wrapped(page, note, layout.size[0])[0], colour=SOFT, size=15)


def _paint(page: Canvas, at: Spot, shown: NDArray[np.uint8]) -> None:
    x, y = round(at[0]), round(at[1])
    page.image[y : y + shown.shape[0], x : x + shown.shape[1]] = shown


def _colour_bar(page: Canvas, layout: Layout, frame: Plate, span: tuple[float, float]) -> None:
    height, width = frame.image.shape
    high = max(height, 120)
    left, top = layout.relief[0] + width + 14, layout.relief[1]
    ramp = np.linspace(span[1], span[0], high, dtype=np.float32)[:, None].repeat(BAR_WIDE, axis=1)
    _paint(page, (left, top), coloured(ramp, span))
    name, scale = unit_of(max(abs(span[0]), abs(span[1])))
    axes = Axes(left, top, left + BAR_WIDE, top + high, (0.0, 1.0), span)
    marks = round_ticks(*span, most=max(2, min(8, high // 40)))
    for tick in marks:
        y = axes.y(tick)
        page.line([(left + BAR_WIDE, y), (left + BAR_WIDE + 5, y)], SOFT)
        page.text((left + BAR_WIDE + 9, y + 5), _told(tick, marks, scale), size=14, colour=SOFT)
    page.text((left, top - 9), name, size=14, colour=SOFT)


def _mark_cut(page: Canvas, at: Spot, frame: Plate, cut: Cut) -> None:
    height, width = frame.image.shape
    place, first = (cut.index + 0.5) * frame.times, cut.start * frame.times
    last = min(first + len(cut.height_m) * frame.times, float(width if cut.along_x else height)) - 1.0
    ends = [(first, place), (last, place)] if cut.along_x else [(place, first), (place, last)]
    spots = [(at[0] + x, at[1] + y) for x, y in ends]
    page.line(spots, PAPER, 4)
    page.line(spots, VERMILLION, 2)


def _chart(page: Canvas, layout: Layout, cut: Cut, span: tuple[float, float], pixel_size_m: float | None) -> None:
    left, top, right, bottom = layout.chart
    step_m = pixel_size_m or 1.0
    extent = max(len(cut.height_m), 2) * step_m
    low, high = _room(cut.height_m, span)
    axes = Axes(left, top, right, bottom, (0.0, extent), (low, high))
    name, scale = unit_of(max(abs(low), abs(high)))
    marks = round_ticks(low, high, most=5)
    for tick in marks:
        page.line([(left, axes.y(tick)), (right, axes.y(tick))], RULE)
        page.text((left - 8, axes.y(tick) + 5), _told(tick, marks, scale), size=14, colour=SOFT, align="right")
    spots = [axes.spot((i + 0.5) * step_m, float(z)) for i, z in enumerate(cut.height_m) if np.isfinite(z)]
    if len(spots) > 1:
        page.line(spots, VERMILLION, 2)
    words = f"Cut {_where(cut, pixel_size_m)}, height in {name}"
    page.text((left - 62, top - 12), words, size=15, weight=500, colour=INK)
    _ruler(page, axes, extent, pixel_size_m is not None)


def _where(cut: Cut, pixel_size_m: float | None) -> str:
    edge = "top" if cut.along_x else "left"
    if pixel_size_m is None:
        return f"{cut.index} px from the {edge}"
    return f"{told((cut.index + 0.5) * pixel_size_m)} from the {edge}"


def _ruler(page: Canvas, axes: Axes, extent: float, in_metres: bool) -> None:
    name, scale = unit_of(extent) if in_metres else ("px", 1.0)
    marks = round_ticks(0.0, extent, most=8)
    for tick in marks:
        page.line([(axes.x(tick), axes.bottom), (axes.x(tick), axes.bottom + 5)], SOFT)
        words = _told(tick, marks, scale)
        page.text((axes.x(tick), axes.bottom + 22), words, size=14, colour=SOFT, align="middle")
    page.text((axes.right, axes.bottom + 44), f"along the cut, {name}", size=14, colour=SOFT, align="right")


def _room(height_m: NDArray[np.float32], span: tuple[float, float]) -> tuple[float, float]:
    """The chart holds the whole cut, also beyond where the colours end."""
    known = height_m[np.isfinite(height_m)]
    low, high = min(span[0], float(known.min(initial=span[0]))), max(span[1], float(known.max(initial=span[1])))
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _told(value: float, marks: list[float], scale: float) -> str:
    step = (marks[1] - marks[0]) / scale if len(marks) > 1 else 1.0
    return number(value / scale, step)
