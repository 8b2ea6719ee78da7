"""The bricks of the demo's report: escaped words, tables, pictures as data URIs, drawings in SVG. Strings out.

Colours are classes (`s-` strokes, `f-` fills) that report.css gives the hues of Okabe and Ito.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import CORNERS, Axes, Spot, number, ticks
from agent.commands.writing import whole

FONT = 15.0  # px of a drawing's own, which are those of the screen where there is room
LETTER = 0.56  # of the font's size: how wide a letter is on average


def words(value: object) -> str:
    """Text that may stand anywhere on the page."""
    return escape(str(value), quote=True)


def document(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """A page of its own: no script, no address. style: beyond the house's."""
    styles = resources.files("agent.commands").joinpath("report.css").read_text(encoding="utf-8") + style
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(title)}</title><style>{styles}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def write_page(page: str, path: Path) -> None:
    """Whole or not at all. Raises OSError when it cannot be written."""
    with whole(path) as file:
        file.write(page.encode())


def section(name: str, title: str, *parts: str) -> str:
    return f'<section id="{name}"><h2>{words(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{_class(kind)}>{words(text)}</p>" if text else ""


def bullets(items: Iterable[str]) -> str:
    listed = "".join(f"<li>{words(item)}</li>" for item in items)
    return f"<ul>{listed}</ul>" if listed else ""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, left: int = 1) -> str:
    """Cells are markup already; the first of a row is its heading, the first `left` columns are set to the left."""
    head = "".join(f'<th scope="col"{_class("" if i < left else "n")}>{words(h)}</th>' for i, h in enumerate(headings))
    body = "".join(f"<tr>{_cells(row, left)}</tr>" for row in rows)
    caption = f"<caption>{words(caption)}</caption>"
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str], left: int) -> str:
    first = f'<th scope="row">{row[0]}</th>'
    return first + "".join(f"<td{_class('' if i < left else 'n')}>{cell}</td>" for i, cell in enumerate(row[1:], 1))


def both(first: str, second: str) -> str:
    """A value with a softer one below it."""
    return f'{words(first)}<span class="soft">{words(second)}</span>'


def figure(picture: str, caption: str, kind: str = "") -> str:
    """Caption: words."""
    return f"<figure{_class(kind)}>{picture}<figcaption>{words(caption)}</figcaption></figure>"


def grid(*parts: str) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'


def png(pixels: NDArray[np.uint8]) -> str:
    """A data URI."""
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise OSError(0, "OpenCV could not encode a picture of the report")
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def column(*parts: str) -> str:
    """Parts of a grid that stay below one another."""
    return f"<div>{''.join(parts)}</div>"


class Drawing:
    """An SVG of its own coordinates, x right, y down; as wide as its place allows, and told in words by `label`."""

    def __init__(self, width: float, height: float, label: str, *, font: float = FONT) -> None:
        self.width, self.height, self.label, self.font = width, height, label, font
        self._parts: list[str] = []

    def line(self, spots: Iterable[Spot], kind: str, thick: float = 1.0) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        self._parts.append(f'<polyline class="{kind}" fill="none" stroke-width="{thick:g}" points="{path}"/>')

    def fill(self, spots: Iterable[Spot], kind: str) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        self._parts.append(f'<polygon class="{kind}" points="{path}"/>')

    def box(self, low: Spot, high: Spot, kind: str, thick: float = 0.0) -> None:
        (x0, y0), (x1, y1) = low, high
        rest = f' fill="none" stroke-width="{thick:g}"' if thick else ""
        at = f'x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0.0):.1f}" height="{max(y1 - y0, 0.0):.1f}"'
        self._parts.append(f'<rect class="{kind}" {at}{rest}/>')

    def mark(self, at: Spot, shape: str, kind: str, radius: float = 5.0) -> None:
        """circle, square, triangle or diamond, with a white edge that keeps neighbours apart."""
        if shape == "circle":
            self._parts.append(f'<circle class="mark {kind}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}"/>')
            return
        spots = " ".join(f"{at[0] + radius * x:.1f},{at[1] + radius * y:.1f}" for x, y in CORNERS[shape])
        self._parts.append(f'<polygon class="mark {kind}" points="{spots}"/>')

    def text(self, at: Spot, told: str, *, kind: str = "f-ink", align: str = "start", size: float = 0.0) -> None:
        """`at`: the end of the baseline that `align` (start, middle, end) names."""
        where = f'x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{align}" font-size="{size or self.font:.1f}"'
        self._parts.append(f'<text class="{kind}" {where}>{words(told)}</text>')

    def picture(self, pixels: NDArray[np.uint8]) -> None:
        """Fills the drawing."""
        self.image(pixels, (self.width, self.height))

    def image(self, pixels: NDArray[np.uint8], size: Spot, *, at: Spot = (0.0, 0.0)) -> None:
        """(h, w) grey or (h, w, 3) blue, green, red, stretched to `size`: width, height."""
        where = f'x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}"'
        self._parts.append(f'<image href="{png(pixels)}" {where} preserveAspectRatio="none"/>')

    def error_bar(self, at: Spot, low_y: float, high_y: float, kind: str) -> None:
        x = at[0]
        for spots in ([(x, low_y), (x, high_y)], [(x - 5, low_y), (x + 5, low_y)], [(x - 5, high_y), (x + 5, high_y)]):
            self.line(spots, kind, 2.0)

    def scale_y(self, axes: Axes, most: int = 6) -> None:
        """Rules across with their numbers on the left."""
        values = ticks(*sorted(axes.y_range), most=most)
        for value in values:
            self.line([(axes.left, axes.y(value)), (axes.right, axes.y(value))], "s-rule")
            told = number(value, _step(values))
            self.text((axes.left - 7, axes.y(value) + 5), told, kind="f-soft", align="end")

    def scale_x(self, axes: Axes, *, most: int = 6, least: float = 0.0) -> None:
        values = ticks(*axes.x_range, most=most, least=least)
        for value in values:
            self.line([(axes.x(value), axes.bottom), (axes.x(value), axes.bottom + 4)], "s-soft")
            told = number(value, _step(values))
            self.text((axes.x(value), axes.bottom + 19), told, kind="f-soft", align="middle")

    def __str__(self) -> str:
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        return f'<svg {size} role="img" aria-label="{words(self.label)}">{"".join(self._parts)}</svg>'


def _step(values: Sequence[float]) -> float:
    return values[1] - values[0] if len(values) > 1 else 1.0


def legend(*entries: tuple[str, str, str]) -> str:
    """(shape, classes, words): marks, `line`, `dashed` or `band`, each beside what it means."""
    return f'<ul class="legend">{"".join(_entry(*entry) for entry in entries)}</ul>'


def _entry(shape: str, kind: str, told: str) -> str:
    key = Drawing(26, 16, told)
    if shape == "band":
        key.box((0, 1), (26, 15), kind)
    elif shape in ("line", "dashed"):
        key.line([(0, 8), (26, 8)], f"{kind} {'dash' if shape == 'dashed' else ''}", 2.5)
    elif shape in ("frame", "dashed-frame"):
        key.box((2, 2), (24, 14), f"{kind} {'dash' if shape == 'dashed-frame' else ''}", 2.5)
    else:
        key.mark((13, 8), shape, kind, 6.0)
    return f"<li>{str(key).replace('role=', 'width=26 height=16 role=', 1)}{words(told)}</li>"


def text_width(told: str, size: float) -> float:
    """About as wide as a screen draws it, px."""
    return LETTER * size * len(told)


def listed(values: Iterable[object], most: int = 6) -> str:
    """a, b and c; of very many the first, and how many more."""
    told = [str(value) for value in values]
    if len(told) > most:
        told = [*told[: most - 1], f"{len(told) - most + 1} more"]
    return told[0] if len(told) == 1 else ", ".join(told[:-1]) + " and " + told[-1] if told else ""
