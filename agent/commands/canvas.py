"""A page to draw on: text, lines, marks and axes in pixels, with OpenCV alone (the run-time install has no plotting).

Colours are those of Okabe and Ito, told apart by everybody; shapes differ wherever colours carry meaning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]  # blue, green, red, as OpenCV has it
Spot = tuple[float, float]  # x right, y down, px

INK, SOFT, FAINT, RULE, PAPER = (45, 40, 38), (110, 104, 100), (170, 165, 160), (226, 222, 219), (255, 255, 255)
BLUE, SKY, GREEN = (178, 114, 0), (233, 180, 86), (115, 158, 0)
ORANGE, VERMILLION, PURPLE = (0, 159, 230), (0, 94, 213), (167, 121, 204)

SUBPIXEL = 4  # bits of a pixel that lines and marks are placed to
TRUE_TYPE = hasattr(cv2, "FontFace")  # since OpenCV 5; before that strokes, and no Greek
PLAIN = {"µ": "u", "σ": "sigma", "±": "+-", "−": "-", "×": "x", "·": "-", "–": "-", "→": "->", "≤": "<="}
STROKE_SCALE = 1 / 28.0  # of OpenCV's stroke font, for a letter height as the other font has


class Canvas:
    """A white page of pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.image = np.full((height, width, 3), 255, np.uint8)  # (h, w, 3) blue, green, red
        self._font = cv2.FontFace("sans") if TRUE_TYPE else None

    def text(
        self, at: Spot, words: str, *, size: int = 16, weight: int = 400, colour: Colour = INK, align: str = "left"
    ) -> int:
        """`at`: end of the baseline that `align` (left, middle, right) names. Returns the width."""
        width = self.width(words, size=size, weight=weight)
        x = round(at[0] - {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * width)
        where = (x, round(at[1]))
        if self._font is not None:
            cv2.putText(self.image, words, where, colour, self._font, size, weight)
        else:
            thick = 2 if weight > 500 else 1
            face, scale = cv2.FONT_HERSHEY_SIMPLEX, size * STROKE_SCALE
            cv2.putText(self.image, _plain(words), where, face, scale, colour, thick, cv2.LINE_AA)
        return width

    def width(self, words: str, *, size: int = 16, weight: int = 400) -> int:
        if self._font is not None:
            box: Sequence[int] = cv2.getTextSize((0, 0), words, (0, 0), self._font, size, weight)
            return int(box[2])
        (width, _), _ = cv2.getTextSize(_plain(words), cv2.FONT_HERSHEY_SIMPLEX, size * STROKE_SCALE, 1)
        return int(width)

    def line(self, spots: Sequence[Spot], colour: Colour, thickness: int = 1) -> None:
        cv2.polylines(self.image, [_fixed(spots)], False, colour, thickness, cv2.LINE_AA, SUBPIXEL)

    def fill(self, spots: Sequence[Spot], colour: Colour, opacity: float = 1.0) -> None:
        over = self.image.copy()
        cv2.fillPoly(over, [_fixed(spots)], colour, cv2.LINE_AA, SUBPIXEL)
        cv2.addWeighted(over, opacity, self.image, 1.0 - opacity, 0.0, dst=self.image)

    def box(self, low: Spot, high: Spot, colour: Colour, opacity: float = 1.0) -> None:
        self.fill([low, (high[0], low[1]), high, (low[0], high[1])], colour, opacity)

    def mark(self, at: Spot, shape: str, colour: Colour, *, radius: float = 6.0) -> None:
        """circle, ring, square, triangle or diamond, with a white edge that keeps neighbours apart."""
        if shape in ("circle", "ring"):
            self._disc(at, radius + 1.0, PAPER)
            self._disc(at, radius, colour)
            if shape == "ring":
                self._disc(at, radius - 2.0, PAPER)
            return
        for size, shade in ((radius + 1.0, PAPER), (radius, colour)):
            corners = [(at[0] + size * x, at[1] + size * y) for x, y in CORNERS[shape]]
            cv2.fillPoly(self.image, [_fixed(corners)], shade, cv2.LINE_AA, SUBPIXEL)

    def picture(self, at: Spot, grey: NDArray[np.uint8]) -> None:
        x, y = round(at[0]), round(at[1])
        self.image[y : y + grey.shape[0], x : x + grey.shape[1]] = grey[..., None]

    def _disc(self, at: Spot, radius: float, colour: Colour) -> None:
        x, y = _fixed([at])[0]
        cv2.circle(self.image, (int(x), int(y)), round(radius * 2**SUBPIXEL), colour, -1, cv2.LINE_AA, SUBPIXEL)


CORNERS: dict[str, list[Spot]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
    "diamond": [(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)],
}


@dataclass(frozen=True)
class Axes:
    """A rectangle of the page (left, top, right, bottom) and the numbers it stands for."""

    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]  # at the bottom, at the top
    log_y: bool = False

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high, at = *self.y_range, min(max(value, min(self.y_range)), max(self.y_range))
        if self.log_y:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.bottom - (self.bottom - self.top) * (at - low) / (high - low)

    def spot(self, x: float, y: float) -> Spot:
        return self.x(x), self.y(y)


def ticks(low: float, high: float, *, most: int = 7, least: float = 0.0) -> list[float]:
    """Round numbers within the range: steps of 1, 2 or 5 times a power of ten, not below `least`."""
    step = next(s for s in _round_steps((high - low) / most) if (high - low) / s <= most)
    step = max(step, least)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_steps(least: float) -> list[float]:
    decade = 10.0 ** math.floor(math.log10(max(least, 1e-12)))
    return [decade * factor for factor in (1.0, 2.0, 5.0, 10.0, 20.0)]


def number(value: float, step: float = 1.0) -> str:
    """As many decimals as the step asks for, with a minus sign that is one."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value + 0.0:.{decimals}f}".replace("-", "−")


def length(metres: float, like: float | None = None) -> str:
    """In nm, µm or mm, whichever suits `like` (a length), to a hundredth of it."""
    size = abs(like if like is not None else metres)
    unit, scale = ("mm", 1e3) if size >= 1e-3 else ("µm", 1e6) if size >= 1e-7 else ("nm", 1e9)
    decimals = min(max(0, 2 - math.floor(math.log10(max(size * scale, 1e-9)))), 2) if unit != "nm" else 0
    return f"{metres * scale + 0.0:.{decimals}f} {unit}".replace("-", "−")


def _between(a: Spot, b: Spot, t: float) -> Spot:
    return a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])


def _fixed(spots: Sequence[Spot]) -> NDArray[Any]:
    return np.asarray(np.round(np.asarray(spots, np.float64) * 2**SUBPIXEL), np.int32)


def _plain(words: str) -> str:
    return "".join(PLAIN.get(letter, letter) for letter in words)
