"""Drawings of a defect evaluation: capture against false alarms, against size, signal and contrast."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.canvas import Axes
from agent.commands.report_html import Drawing, figure, legend

if TYPE_CHECKING:
    from calibration.evaluate.defects_account import Curve, MethodRow
    from calibration.evaluate.defects_leaves import Bin

SIZE = (500.0, 320.0)
RATES = (0.001, 10.0)  # false alarms a frame; fewer are drawn at the edge
KINDS = ("s-blue", "s-vermillion", "s-orange", "s-sky", "s-ink", "s-soft")
SHAPES = ("circle", "square", "diamond", "triangle", "circle", "square")
MARKS = ("f-blue", "f-vermillion", "f-orange", "f-sky", "f-ink", "f-soft")


def capture_curves(curves: "Sequence[Curve]", title: str) -> str:
    """One line a method: at which false alarms which share is found."""
    drawing = Drawing(*SIZE, f"{title}: capture rate against false alarms a frame")
    axes = Axes(50, 26, SIZE[0] - 20, SIZE[1] - 44, (math.log10(RATES[0]), math.log10(RATES[1])), (0.0, 100.0))
    drawing.scale_y(axes)
    for decade in range(-3, 2):
        x = axes.x(float(decade))
        drawing.line([(x, axes.top), (x, axes.bottom)], "s-rule")
        drawing.text((x, axes.bottom + 19), f"{10.0**decade:g}", kind="f-soft", align="middle")
    keys = []
    for curve, kind in zip(curves, KINDS, strict=False):
        drawing.line(_steps(curve, axes), kind, 2.2)
        keys.append(("line", kind, curve.method))
    drawing.text((2, 14), "captured, %", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 4), "false alarms a frame of 512 × 512", kind="f-soft", align="end")
    where = "clean frames" if curves and curves[0].in_clean_frames else "frames with defects, away from them"
    caption = f"{title}: all visible defects; false alarms counted in {where}. None at all is drawn at the left edge."
    return figure(str(drawing) + legend(*keys), caption)


def _steps(curve: "Curve", axes: Axes) -> list[tuple[float, float]]:
    """A staircase within the axes: each false alarm is a step to the right."""
    spots: list[tuple[float, float]] = []
    for each in curve.spots:
        if each.false_alarms_per_frame > RATES[1]:
            break
        x = axes.x(math.log10(max(each.false_alarms_per_frame, RATES[0])))
        y = axes.y(100.0 * each.captured)
        if spots:
            spots.append((x, spots[-1][1]))
        spots.append((x, y))
    return spots


def capture_bins(methods: "Sequence[MethodRow]", of: str, axis: str) -> str:
    """of: by_size, by_signal or by_contrast. Shares with their Wilson intervals, a mark a method; empty without any."""
    told = [(each.name, getattr(each.naming, of)) for each in methods if each.naming is not None]
    told = [(name, bins) for name, bins in told if bins][: len(MARKS)]
    if not told:
        return ""
    edges = sorted({(each.low, each.high or math.inf) for _, bins in told for each in bins})
    drawing = Drawing(*SIZE, f"Capture rate by {axis}")
    axes = Axes(50, 26, SIZE[0] - 20, SIZE[1] - 44, (0.0, float(len(edges))), (0.0, 100.0))
    drawing.scale_y(axes)
    for i, (low, high) in enumerate(edges):
        drawing.text(
            (axes.x(i + 0.5), axes.bottom + 19), range_words(low, high), kind="f-soft", align="middle", size=12
        )
    keys = []
    for number, (name, bins) in enumerate(told):
        offset = 0.5 + 0.16 * (number - (len(told) - 1) / 2)
        _marks(drawing, axes, [(edges.index((b.low, b.high or math.inf)) + offset, b) for b in bins], number=number)
        keys.append((SHAPES[number], MARKS[number], name))
    drawing.text((2, 14), "captured, %", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 4), axis, kind="f-soft", align="end")
    first = ", ".join(str(b.captured.n) for b in told[0][1])
    return figure(
        str(drawing) + legend(*keys), f"By {axis}; 95 % intervals. Defects in each bin, {told[0][0]}: {first}."
    )


def _marks(drawing: Drawing, axes: Axes, bins: "Sequence[tuple[float, Bin]]", *, number: int) -> None:
    for x, each in bins:
        share = each.captured
        if share.value is not None and share.low is not None and share.high is not None:
            at = axes.spot(x, 100.0 * share.value)
            drawing.error_bar(at, axes.y(100.0 * share.low), axes.y(100.0 * share.high), KINDS[number])
            drawing.mark(at, SHAPES[number], MARKS[number], 5.0)


def range_words(low: float, high: float) -> str:
    if math.isinf(high):
        return f"≥ {low:g}"
    return f"< {high:g}" if low == 0.0 else f"{low:g}–{high:g}"
