"""Drawings of the score's table: said against label for each fold, and the error of each reader by magnification."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.commands.canvas import Axes
from agent.commands.report_html import Drawing, figure, legend

if TYPE_CHECKING:
    from calibration.evaluate.score_cells import Cell
    from calibration.evaluate.score_figures import Figures, Row
    from calibration.train.data import Samples

SIDE = 300.0
WIDE = (900.0, 360.0)
MOST = 250  # marks in a scatter
LOOKS = (
    ("square", "f-soft", "s-soft"),
    ("triangle", "f-orange", "s-orange"),
    ("diamond", "f-sky", "s-sky"),
    ("circle", "f-green", "s-green"),
    ("circle", "f-blue", "s-blue"),
    ("square", "f-vermillion", "s-vermillion"),
    ("triangle", "f-ink", "s-ink"),
)  # of the readers, in their order


def scatter(cell: "Cell", samples: "Samples", told: "Figures") -> str:
    """What a reader said of a fold's pictures; where there are many, every so manyth."""
    assert cell.said is not None
    drawing = Drawing(SIDE, SIDE, f"{cell.fold.name}: score said against label", font=13.0)
    axes = Axes(34, 20, SIDE - 8, SIDE - 36, (0.0, 10.0), (0.0, 10.0))
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    drawing.line([axes.spot(0, 0), axes.spot(10, 10)], "s-soft dash", 1.5)
    label, said = samples.score[cell.fold.asked], cell.said
    for i in np.linspace(0, len(said) - 1, min(len(said), MOST)).round().astype(int):
        drawing.mark(axes.spot(float(label[i]), float(said[i])), "circle", "f-blue", 3.5)
    drawing.text((2, 12), "said", kind="f-soft", size=13.0)
    drawing.text((axes.right, SIDE - 4), "label", kind="f-soft", align="end", size=13.0)
    shown = f", {MOST} shown" if len(said) > MOST else ""
    rank = "" if told.spearman is None else f", Spearman with −|z|/h {told.spearman:.2f}"
    caption = f"{cell.fold.name}: RMSE {told.rmse:.2f}{rank}; {told.n} pictures of {told.scenes} scenes{shown}."
    return figure(str(drawing), caption)


def by_magnification(rows: "Sequence[Row]", legends: Mapping[str, str], *, limit: float) -> str:
    """RMSE on specimens left out, by the picture's magnification, a curve a reader. legends: by reader."""
    readers, names = list(dict.fromkeys(row.reader for row in rows)), list(dict.fromkeys(row.fold for row in rows))
    known = [row for row in rows if row.figures is not None]
    top = 1.1 * max(limit, *(row.figures.rmse_high for row in known if row.figures is not None))
    drawing = Drawing(*WIDE, "RMSE by magnification")
    axes = Axes(48, 26, WIDE[0] - 16, WIDE[1] - 46, (-0.5, len(names) - 0.5), (0.0, top))
    drawing.scale_y(axes)
    drawing.line([(axes.left, axes.y(limit)), (axes.right, axes.y(limit))], "s-vermillion dash", 1.5)
    for place, name in enumerate(names):
        drawing.text((axes.x(place), axes.bottom + 20), name, kind="f-soft", align="middle")
    for number, reader in enumerate(readers):
        shape, fill, stroke = LOOKS[number % len(LOOKS)]
        apart = (number - (len(readers) - 1) / 2.0) * 0.07  # intervals of readers stand beside one another
        own = [(names.index(row.fold) + apart, row.figures) for row in known if row.reader == reader]
        drawing.line([axes.spot(x, told.rmse) for x, told in own if told is not None], stroke, 1.5)
        for x, told in own:
            if told is not None:
                at = axes.spot(x, told.rmse)
                drawing.error_bar(at, axes.y(told.rmse_low), axes.y(told.rmse_high), stroke)
                drawing.mark(at, shape, fill, 5.0)
    drawing.text((2, 14), "RMSE, points", kind="f-soft")
    keys = [(LOOKS[i % len(LOOKS)][0], LOOKS[i % len(LOOKS)][1], legends[reader]) for i, reader in enumerate(readers)]
    caption = "Specimens left out, by the magnification of the picture; bars: 95 %, scenes drawn again."
    return figure(str(drawing) + legend(*keys, ("dashed", "s-vermillion", f"target, {limit:g}")), caption)
