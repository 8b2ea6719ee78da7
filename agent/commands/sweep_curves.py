"""What a focus calibration measured, as SVG: legs, play, stigmators, settling, shift and scale, with their fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import Axes, Spot
from agent.commands.report_html import Drawing, figure, legend
from agent.commands.sweep_figures import MS, UM, signed

if TYPE_CHECKING:
    from calibration.sweep.legs import Leg
    from calibration.sweep.run import Swept

Real = NDArray[np.float64]

SIZE = (500.0, 320.0)
SQUARE = (430.0, 430.0)
ROOM = 0.08  # of the range, beyond the outermost marks
UP, DOWN = ("triangle", "f-blue", "s-blue"), ("square", "f-vermillion", "s-vermillion")
TOO_WIDE = 0.5  # of the range: a bar this long says only that nothing is known


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    sigma: float


def legs(swept: "Swept") -> str:
    """Measured against commanded, both counted from focus as it is approached from below."""
    up, down = swept.legs
    rows = [(UP, _marks(up, up)), (DOWN, _marks(down, up))]
    play = swept.hysteresis_m * UM
    drawing, axes = _plot(
        [mark for _, marks in rows for mark in marks],
        ("commanded working distance from focus, µm", "measured defocus, µm"),
        label="Measured defocus against commanded working distance, both legs",
    )
    for (shape, fill, stroke), marks in rows:
        offset = 0.0 if shape == UP[0] else play
        _line(drawing, axes, (1.0, offset), stroke)
        _draw(drawing, axes, marks, (shape, fill, stroke))
    keys = legend(
        (UP[0], UP[1], f"upwards, {_rms(up)}"),
        (DOWN[0], DOWN[1], f"downwards, {_rms(down)}"),
        ("line", "s-soft", "each leg's fit"),
    )
    return figure(
        str(drawing) + keys,
        "Through focus. Each frame is placed by the other frames of its leg; bars are one standard deviation. "
        "Frames within 1.5 half depths of focus are left out: a picture hardly changes there.",
    )


def loop(swept: "Swept") -> str:
    """What is left when the commanded way is taken off: the two legs lie apart by the play."""
    up, down = swept.legs
    play = swept.hysteresis_m * UM
    h = swept.optic.half_depth_of_focus_m * UM
    rows = [(UP, _without_way(_marks(up, up)), 0.0), (DOWN, _without_way(_marks(down, up)), play)]
    drawing, axes = _plot(
        [mark for _, marks, _ in rows for mark in marks],
        ("commanded working distance from focus, µm", "measured minus commanded, µm"),
        label=f"Play of the working distance: {play:.2f} micrometres between the legs",
        least_y=1.2 * max(h, play),
    )
    drawing.box((axes.left, axes.y(play)), (axes.right, axes.y(0.0)), "band")
    for kind, marks, level in rows:
        _line(drawing, axes, (0.0, level), kind[2])
        _arrow(drawing, axes, level, kind)
        _draw(drawing, axes, marks, kind)
    keys = legend(
        (UP[0], UP[1], "upwards"),
        (DOWN[0], DOWN[1], "downwards"),
        ("band", "band", f"play: {play:.2f} ± {swept.hysteresis_sigma_m * UM:.2f} µm"),
    )
    return figure(
        str(drawing) + keys,
        "Play. The same frames without the commanded way: the band is what an approach from the other side costs.",
    )


def stigmators(swept: "Swept") -> str:
    found = swept.stigmation
    seen = [np.array(turn.found.astigmatism_m) * UM for turn in found.turns]
    origin = np.array(found.offset_m) * UM
    fitted = [origin + found.matrix_m @ np.array([turn.x, turn.y]) * UM for turn in found.turns]
    most = max(float(np.abs(np.array([*seen, *fitted])).max()), 1e-3) * 1.2
    drawing = Drawing(*SQUARE, "Astigmatism at each setting of the stigmators, in the plane of its two components")
    axes = Axes(58, 26, SQUARE[0] - 14, SQUARE[1] - 46, (-most, most), (-most, most))
    _frame(drawing, axes, ("astigmatism x, µm", "astigmatism y, µm"))
    for end, turn in zip(fitted, found.turns, strict=True):
        kind = UP if turn.x else DOWN
        _vector(drawing, axes, origin, end, kind[2])
        away = 24.0 if end[1] < origin[1] else -16.0
        x, y = axes.spot(float(end[0]), float(end[1]))
        told = signed(f"{'x' if turn.x else 'y'} {turn.x or turn.y:+.3f}")
        drawing.text((x, y + away), told, kind="f-soft", align="middle", size=12)
    for at, turn in zip(seen, found.turns, strict=True):
        kind = UP if turn.x else DOWN
        drawing.mark(axes.spot(float(at[0]), float(at[1])), kind[0], kind[1])
    drawing.mark(axes.spot(*(UM * a for a in swept.legs[0].found.astigmatism_m)), "circle", "f-ink")
    keys = legend(
        (UP[0], UP[1], "stigmator x turned"),
        (DOWN[0], DOWN[1], "stigmator y turned"),
        ("circle", "f-ink", "at the start's setting"),
        ("line", "s-soft", f"fit, {found.rms_m * UM:.3f} µm left"),
    )
    return figure(str(drawing) + keys, "Stigmators. Arrows: the fitted matrix; marks: what was measured.", "narrow")


def settling(swept: "Swept") -> str:
    s = swept.settling
    marks = [Mark(m.t_s * MS, m.z_m * UM, m.sigma_m * UM) for m in s.moments]
    drawing, axes = _plot(
        [Mark(0.0, s.from_m * UM, 0.0), Mark(0.0, s.to_m * UM, 0.0), *marks],
        ("time after the change, ms", "defocus, µm"),
        label=f"Defocus after a change of working distance: settled after {s.settle_s * MS:.0f} milliseconds",
    )
    low, high = ((s.settle_s + sign * s.sigma_s) * MS for sign in (-1.0, 1.0))
    drawing.box((axes.x(max(low, axes.x_range[0])), axes.top), (axes.x(high), axes.bottom), "band")
    way = [(0.0, s.from_m), (s.settle_s * MS, s.to_m), (axes.x_range[1], s.to_m)]
    drawing.line([axes.spot(t, z * UM) for t, z in way], "s-blue", 2.0)
    _draw(drawing, axes, marks, ("circle", "f-ink", "s-soft"))
    keys = legend(
        ("circle", "f-ink", "a band of rows"),
        ("line", "s-blue", f"fit, {s.rms_m * UM:.2f} µm left"),
        ("band", "band", f"settled: {s.settle_s * MS:.0f} ± {s.sigma_s * MS:.0f} ms"),
    )
    return figure(
        str(drawing) + keys,
        "Settling. Frames begun right after the change, read in bands of rows as they were scanned.",
    )


def shift(swept: "Swept") -> str:
    d = swept.displacement
    rows = [
        (kind, [Mark(way * UM, values[axis], 0.0) for way, *values in d.steps], d.per_m[axis] / UM)
        for axis, kind in enumerate((UP, DOWN))
    ]
    drawing, axes = _plot(
        [mark for _, marks, _ in rows for mark in marks],
        ("way of the lens from one frame to the next, µm", "displacement, px"),
        label="Displacement of the picture against the way of the lens",
        least_y=1.0,
    )
    for kind, marks, slope in rows:
        _line(drawing, axes, (slope, 0.0), kind[2])
        _draw(drawing, axes, marks, kind)
    keys = legend(
        (UP[0], UP[1], signed(f"along x: {d.per_m[0] / UM:+.3f} px/µm")),
        (DOWN[0], DOWN[1], signed(f"along y: {d.per_m[1] / UM:+.3f} px/µm")),
    )
    drift = float(np.hypot(*d.drift_px_s))
    return figure(
        str(drawing) + keys,
        f"Image shift. Drift ({drift:.2f} px/s) and the stigmators' part are taken off; {d.rms_px:.2f} px are left.",
    )


def scale(swept: "Swept") -> str:
    s = swept.scale
    marks = [Mark(way * UM, 100.0 * grown, 100.0 * sigma) for way, grown, sigma in s.points]
    drawing, axes = _plot(
        marks,
        ("way from the middle of the leg, µm", "growth of the picture, %"),
        label="Growth of the picture against the way of the working distance",
    )
    alone = 1.0 / swept.legs[0].in_focus_m
    _line(drawing, axes, (100.0 * alone / UM, 0.0), "s-soft dash")
    _line(drawing, axes, (100.0 * s.per_m / UM, 0.0), "s-blue")
    _draw(drawing, axes, marks, ("circle", "f-ink", "s-soft"))
    keys = legend(
        ("circle", "f-ink", "a frame against the middle one"),
        ("line", "s-blue", signed(f"fit: {100 * s.per_m / UM:+.4f} %/µm, {100 * s.rms:.4f} % left")),
        ("dashed", "s-soft", "1 / working distance"),
    )
    return figure(str(drawing) + keys, "Scale. How the picture grows when the working distance does.")


# --- the bricks ---


def _marks(leg: "Leg", reference: "Leg") -> list[Mark]:
    return [
        Mark((taken.at.working_distance_m - reference.in_focus_m) * UM, found.value * UM, found.sigma * UM)
        for taken, found, tells in zip(leg.taken, leg.placed, leg.telling, strict=True)
        if tells
    ]


def _without_way(marks: Sequence[Mark]) -> list[Mark]:
    return [Mark(mark.x, mark.y - mark.x, mark.sigma) for mark in marks]


def _rms(leg: "Leg") -> str:
    return f"{leg.rms_m * UM:.2f} µm left"


def _plot(marks: Sequence[Mark], names: tuple[str, str], *, label: str, least_y: float = 0.0) -> tuple[Drawing, Axes]:
    """An empty plot that has room for the marks and zero."""
    xs = [0.0, *(mark.x for mark in marks)]
    ends = [mark.y + sign * mark.sigma for mark in marks for sign in (-1.0, 1.0)]
    centres = [mark.y for mark in marks]
    reach = TOO_WIDE * max(max(centres) - min(centres), least_y, 1e-9)
    ys = [0.0, least_y, -0.3 * least_y, *(min(max(end, min(centres) - reach), max(centres) + reach) for end in ends)]
    drawing = Drawing(*SIZE, label)
    axes = Axes(62, 26, SIZE[0] - 12, SIZE[1] - 46, _wider(xs), _wider(ys))
    _frame(drawing, axes, names)
    return drawing, axes


def _frame(drawing: Drawing, axes: Axes, names: tuple[str, str]) -> None:
    drawing.scale_y(axes)
    drawing.scale_x(axes, most=7)
    for low, high in (
        ((0.0, axes.y_range[0]), (0.0, axes.y_range[1])),
        ((axes.x_range[0], 0.0), (axes.x_range[1], 0.0)),
    ):
        drawing.line([axes.spot(*low), axes.spot(*high)], "s-soft", 1.0)
    drawing.text((2, 14), names[1], kind="f-soft")
    drawing.text((axes.right, drawing.height - 6), names[0], kind="f-soft", align="end")


def _wider(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = ROOM * max(high - low, 1e-9)
    return low - room, high + room


def _draw(drawing: Drawing, axes: Axes, marks: Sequence[Mark], kind: tuple[str, str, str]) -> None:
    for mark in marks:
        at = axes.spot(mark.x, mark.y)
        if mark.sigma:
            drawing.error_bar(at, axes.y(mark.y - mark.sigma), axes.y(mark.y + mark.sigma), kind[2])
        drawing.mark(at, kind[0], kind[1])


def _line(drawing: Drawing, axes: Axes, line: tuple[float, float], stroke: str) -> None:
    """y = slope x + offset, as far as it stays in the plot."""
    slope, offset = line
    (left, right), (low, high) = axes.x_range, axes.y_range
    if slope:
        crossings = sorted(((low - offset) / slope, (high - offset) / slope))
        left, right = max(left, crossings[0]), min(right, crossings[1])
    drawing.line([axes.spot(x, slope * x + offset) for x in (left, right)], stroke, 1.8)


def _arrow(drawing: Drawing, axes: Axes, level: float, kind: tuple[str, str, str]) -> None:
    """Which way the leg was gone."""
    forward = kind is UP
    x, y = (axes.right - 6 if forward else axes.left + 6), axes.y(level)
    back = -12.0 if forward else 12.0
    drawing.fill([(x, y), (x + back, y - 6), (x + back, y + 6)], kind[1])


def _vector(drawing: Drawing, axes: Axes, start: Real, end: Real, stroke: str) -> None:
    a: Spot = axes.spot(float(start[0]), float(start[1]))
    b: Spot = axes.spot(float(end[0]), float(end[1]))
    drawing.line([a, b], stroke, 2.0)
    angle = float(np.arctan2(b[1] - a[1], b[0] - a[0]))
    for turn in (2.7, -2.7):
        drawing.line([b, (b[0] + 12 * np.cos(angle + turn), b[1] + 12 * np.sin(angle + turn))], stroke, 2.0)
