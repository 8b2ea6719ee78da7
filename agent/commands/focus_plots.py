"""Three drawings of a focus bench: what is left by where it began, frames to focus, and whether to trust a sigma."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from agent.commands.canvas import Axes
from agent.commands.report_html import Drawing, figure, legend

if TYPE_CHECKING:
    from calibration.evaluate.focus_rows import Row

SIZE = (500.0, 340.0)
LEAST_H, MOST_H = 0.01, 150.0  # of what is left; less is drawn at the edge
DECADES = (0.01, 0.1, 1.0, 10.0, 100.0)
MARKS = {
    0.64: ("circle", "f-vermillion"),
    1.3: ("square", "f-orange"),
    1.8: ("diamond", "f-sky"),
    4.0: ("triangle", "f-blue"),
}
LONGEST = 14  # frames; more stand in the last column


def residuals(rows: "Sequence[Row]") -> str:
    """Each textured episode: how far from focus it began and ended, by signal."""
    from calibration.evaluate.focus_grid import NEAR
    from calibration.evaluate.focus_method import End

    drawing = Drawing(*SIZE, "What is left of the defocus, against the defocus at the start, half depths of focus")
    axes = Axes(58, 26, SIZE[0] - 20, SIZE[1] - 44, (0.0, NEAR[-1]), (LEAST_H, MOST_H), log_y=True)
    drawing.box((axes.left, axes.y(0.5)), (axes.right, axes.bottom), "band")
    for value in DECADES:
        drawing.line([(axes.left, axes.y(value)), (axes.right, axes.y(value))], "s-rule")
        drawing.text((axes.left - 7, axes.y(value) + 5), f"{value:g}", kind="f-soft", align="end")
    drawing.line([(axes.left, axes.y(1.0)), (axes.right, axes.y(1.0))], "s-vermillion dash", 1.5)
    drawing.scale_x(axes)
    for row in rows:
        shape, kind = MARKS.get(row.snr, ("circle", "f-soft"))
        kind = kind if row.end is End.CONVERGED else "f-soft"
        left = min(max(abs(row.residual_h), LEAST_H), MOST_H)
        drawing.mark(axes.spot(min(abs(row.start_h), NEAR[-1]), left), shape, kind, 5.0)
    drawing.text((2, 14), "left, h", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), "start, h", kind="f-soft", align="end")
    known = [(shape, kind, f"SNR {snr:g}") for snr, (shape, kind) in MARKS.items() if any(r.snr == snr for r in rows)]
    keys = legend(
        *known,
        ("circle", "f-soft", "grey, of any shape: given up, back where it began"),
        ("dashed", "s-vermillion", "1 h"),
        ("band", "band", "within 0.5 h"),
    )
    return figure(str(drawing) + keys, "Every textured episode, by the signal-to-noise ratio of its pixels.")


def frames(rows: "Sequence[Row]") -> str:
    """How many frames of evidence a converged episode took."""
    from calibration.evaluate.focus_figures import falsely
    from calibration.evaluate.focus_method import End

    ended = [row for row in rows if row.end is End.CONVERGED]
    good, false = (
        np.bincount([min(row.frames, LONGEST) for row in ended if falsely(row) is wrong], minlength=LONGEST + 1)
        for wrong in (False, True)
    )
    top = 1.12 * max(int((good + false).max()), 1)
    axes = Axes(44, 26, SIZE[0] - 20, SIZE[1] - 44, (0.5, LONGEST + 0.5), (0.0, top))
    drawing = Drawing(*SIZE, "Frames to focus, how many episodes took how many")
    drawing.scale_y(axes)
    drawing.scale_x(axes, most=LONGEST, least=1.0)
    for i in range(1, LONGEST + 1):
        low, high = axes.x(i - 0.42), axes.x(i + 0.42)
        drawing.box((low, axes.y(float(good[i]))), (high, axes.bottom), "f-blue")
        if false[i]:
            drawing.box((low, axes.y(float(good[i] + false[i]))), (high, axes.y(float(good[i]))), "f-vermillion")
    drawing.text((2, 14), "episodes", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), f"frames; {LONGEST}: so many or more", kind="f-soft", align="end")
    keys = legend(("square", "f-blue", "in focus"), ("square", "f-vermillion", "said so and was not"))
    return figure(str(drawing) + keys, "Frames used as evidence until `converged`, the verifying one included.")


def coverage(rows: "Sequence[Row]") -> str:
    """How often the truth lay within an interval, against how often it should."""
    from calibration.evaluate.focus_figures import astigmatism_off

    said = [each for row in rows for each in row.said]
    drawing = Drawing(*SIZE, "Coverage of the intervals of defocus and astigmatism")
    axes = Axes(58, 26, SIZE[0] - 20, SIZE[1] - 44, (0.0, 100.0), (0.0, 100.0))
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    drawing.line([axes.spot(0, 0), axes.spot(100, 100)], "s-soft dash", 1.5)
    curves = (
        ("s-blue", "s-blue", [each.off for each in said]),
        ("s-vermillion", "s-vermillion", [off for each in said for off in astigmatism_off(each)]),
    )
    for kind, _, off in curves:
        if off:
            drawing.line([axes.spot(*spot) for spot in _curve(off)], kind, 2.5)
    drawing.text((2, 14), "truth inside, %", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), "interval, %", kind="f-soft", align="end")
    keys = legend(
        ("line", "s-blue", f"defocus, {len(said)} estimates"),
        ("line", "s-vermillion", "astigmatism, both components"),
        ("dashed", "s-soft", "as it should be"),
    )
    caption = "Above the diagonal sigmas are too large, below it they promise too much."
    return figure(str(drawing) + keys, caption)


def _curve(off: Sequence[float]) -> list[tuple[float, float]]:
    """(nominal, observed) in percent."""
    known, normal = np.sort(np.abs(off)), NormalDist()
    nominal = np.arange(0.0, 100.0, 2.0)
    limits = [normal.inv_cdf(0.5 + each / 200.0) for each in nominal]
    seen = np.searchsorted(known, limits, side="right") / len(known)
    return [(float(x), 100.0 * float(y)) for x, y in zip(nominal, seen, strict=True)]
