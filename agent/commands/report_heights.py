"""The heights of an inspected field: the map in colours, a cut through it beside the truth, and how well they agree."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import Axes, number
from agent.commands.heatmap import Cut, coloured, most_telling, span_of
from agent.commands.plate import round_ticks, unit_of
from agent.commands.report_html import Drawing, figure, legend, paragraph

if TYPE_CHECKING:
    from calibration.twin.inspecting import InspectedField

BAR, BAR_ROOM = 18.0, 86.0  # px of 512: the colour bar of a height map, and with its numbers
CUT_SIZE = (500.0, 250.0)
SMOOTHEST = 1e-12  # m: a map or a truth flatter than that has no correlation


def heights(each: "InspectedField") -> list[str]:
    """The map in colours, and a cut through it beside the truth; words where no map came."""
    read = each.word.height_m
    if read is None:
        return [paragraph("The agent sent no height map of this field.", "soft")]
    cut = most_telling(read)
    return [_relief(each, read, cut), _cut(each, read, cut)]


def _relief(each: "InspectedField", read: NDArray[np.float32], cut: Cut) -> str:
    height, width = read.shape
    font = width / 28
    room = BAR_ROOM / 512 * width
    span = span_of(read, each.shown.pixel_size_m)
    name, _ = unit_of(max(map(abs, span)))
    drawing = Drawing(width + room, height, f"Height map of the field, {_range(span)}", font=font)
    drawing.image(coloured(read, span), (width, height))
    place = cut.index + 0.5
    ends = [(0.0, place), (width, place)] if cut.along_x else [(place, 0.0), (place, height)]
    drawing.line(ends, "s-paper", width / 140)
    drawing.line(ends, "s-vermillion", width / 300)
    _colour_bar(drawing, (width + 0.16 * room, 1.6 * font, height - 0.5 * font), span)
    vouched = "by the instrument's certificate" if each.word.calibrated else "as the model was trained, not calibrated"
    caption = f"Height read by the agent, {name} ({vouched}), above the field's lowest plateau. {agreement_words(each)}"
    return figure(str(drawing), caption)


def _range(span: tuple[float, float]) -> str:
    return f"{signed_nm(span[0])} to {signed_nm(span[1])}"


def _colour_bar(drawing: Drawing, at: tuple[float, float, float], span: tuple[float, float]) -> None:
    """at: left, top, bottom."""
    left, top, bottom = at
    wide = BAR / 512 * drawing.height
    name, scale = unit_of(max(map(abs, span)))
    ramp = np.linspace(span[1], span[0], 64, dtype=np.float32)[:, None].repeat(2, axis=1)
    drawing.image(coloured(ramp, span), (wide, bottom - top), at=(left, top))
    axes = Axes(left, top, left + wide, bottom, (0.0, 1.0), span)
    marks = round_ticks(*span, most=7)
    for tick in marks:
        drawing.line([(left + wide, axes.y(tick)), (left + 1.3 * wide, axes.y(tick))], "s-soft")
        step = (marks[1] - marks[0]) / scale if len(marks) > 1 else 1.0
        at_text = (left + 1.5 * wide, axes.y(tick) + 0.35 * drawing.font)
        drawing.text(at_text, number(tick / scale, step), kind="f-soft", size=0.9 * drawing.font)
    drawing.text((left, top - 0.5 * drawing.font), name, kind="f-soft", size=0.9 * drawing.font)


def _cut(each: "InspectedField", read: NDArray[np.float32], cut: Cut) -> str:
    """What was read along one row or column, and what is there."""
    true = _like(each.shown.height_m, read)
    line = true[cut.index] if cut.along_x else true[:, cut.index]
    step = each.shown.pixel_size_m * each.shown.height_m.shape[1] / read.shape[1]
    low, high = float(min(line.min(), cut.height_m.min())), float(max(line.max(), cut.height_m.max()))
    room = max(0.08 * (high - low), 0.1 * each.shown.pixel_size_m)
    name, scale = unit_of(max(abs(low), abs(high)))
    across, by = unit_of(step * len(line))
    axes = Axes(
        58,
        26,
        CUT_SIZE[0] - 12,
        CUT_SIZE[1] - 44,
        (0.0, step * len(line) / by),
        ((low - room) / scale, (high + room) / scale),
    )
    way = "row" if cut.along_x else "column"
    drawing = Drawing(*CUT_SIZE, f"Height along {way} {cut.index}: true and as read by the agent")
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    for values, kind in ((line, "s-blue dash"), (cut.height_m, "s-vermillion")):
        drawing.line([axes.spot((k + 0.5) * step / by, float(z) / scale) for k, z in enumerate(values)], kind, 1.8)
    drawing.text((2, 14), f"height, {name}", kind="f-soft")
    drawing.text((axes.right, CUT_SIZE[1] - 6), f"along {way} {cut.index}, {across}", kind="f-soft", align="end")
    keys = legend(("line", "s-vermillion", "read by the agent"), ("dashed", "s-blue", "true"))
    return figure(str(drawing) + keys, "A cut along the line in the map.")


def agreement(each: "InspectedField") -> tuple[float, float] | None:
    """(correlation with the true heights, root mean square error in metres); None without a map or relief."""
    read = each.word.height_m
    if read is None or not each.inspected:
        return None
    true = _like(each.shown.height_m, read)
    if float(true.std()) < SMOOTHEST or float(read.std()) < SMOOTHEST:
        return None
    error = read - true
    return float(np.corrcoef(true.ravel(), read.ravel())[0, 1]), float(np.sqrt(np.mean(error.astype(np.float64) ** 2)))


def agreement_words(each: "InspectedField") -> str:
    known = agreement(each)
    if known is None:
        return ""
    depth = float(np.ptp(each.shown.height_m))
    return f"Against the truth: correlation {known[0]:.2f}, error {told_nm(known[1])} rms of {told_nm(depth)} relief."


def told_nm(metres: float) -> str:
    return f"{metres * 1e9:.1f} nm" if metres < 9.95e-9 else f"{metres * 1e9:.0f} nm"


def _like(heights: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """At the size of the other map, where networks are coarser than frames."""
    if heights.shape == other.shape:
        return heights
    return np.asarray(cv2.resize(heights, other.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def signed_nm(metres: float) -> str:
    return f"{metres * 1e9:+.0f} nm".replace("-", "−")
