"""A frame's picture at the size it is shown, and its scale bar: what overlays and heat maps have in common."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
from numpy.typing import NDArray

from agent.commands.canvas import INK, Canvas, Colour, Spot, ticks

NAMES = (("m", 1.0), ("mm", 1e-3), ("µm", 1e-6), ("nm", 1e-9))
LINE_PX = 21  # from one line of text to the next
TEXT_PX = 15


@dataclass(frozen=True)
class Plate:
    """A picture as it is shown. `times`: shown pixels for one of its own, the same both ways."""

    image: NDArray[Any]  # (h, w) as the picture's
    times: float

    def spot(self, x_px: float, y_px: float) -> Spot:
        return x_px * self.times, y_px * self.times


def fitted(picture: NDArray[Any], *, least: int, most: int) -> Plate:
    """Small pictures enlarged by a whole number: pixels stay pixels. Large ones reduced by their mean."""
    longest = max(picture.shape)
    if longest > most:
        times = most / longest
        size = max(1, round(picture.shape[1] * times)), max(1, round(picture.shape[0] * times))
        return Plate(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), times)
    whole = max(1, min(math.ceil(least / longest), most // longest))
    return Plate(picture.repeat(whole, axis=0).repeat(whole, axis=1), float(whole))


def scale_bar(page: Canvas, at: Spot, *, pixel_size_m: float | None, times: float, room_px: float) -> float:
    """A bar of a round length, `at` its left end, and words above it; in pixels without a pixel size. -> its width."""
    unit = pixel_size_m if pixel_size_m else 1.0
    long = round_below(room_px / times * unit)
    width_px = long / unit * times
    (x, y), words = at, told(long) if pixel_size_m else f"{long:g} px (pixel size unknown)"
    page.box((x, y - 5), (x + width_px, y), INK)
    for end in (x, x + width_px - 2):
        page.box((end, y - 9), (end + 2, y + 4), INK)
    return max(width_px, float(page.text((x, y - 15), words, size=TEXT_PX, weight=500)))


def round_below(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not above `value`."""
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * next(factor for factor in (5.0, 2.0, 1.0) if factor * decade <= value * (1.0 + 1e-9))


def told(metres: float) -> str:
    """A round length in the unit that gives it the fewest digits before the point."""
    name, scale = unit_of(metres)
    return f"{metres / scale:.3g} {name}"


def unit_of(metres: float) -> tuple[str, float]:
    """m, mm, µm or nm with its size, so that at least one stands before the point."""
    return next((each for each in NAMES if abs(metres) >= each[1] * (1.0 - 1e-9)), NAMES[-1])


def round_ticks(low: float, high: float, *, most: int) -> list[float]:
    """Ticks of a length in metres; `ticks` is for numbers of ordinary size."""
    scale = 10.0 ** math.floor(math.log10(max(high - low, 1e-300)))
    return [tick * scale for tick in ticks(low / scale, high / scale, most=most)]


def wrapped(page: Canvas, words: str, width_px: float, *, size: int = TEXT_PX) -> list[str]:
    """Lines no wider than `width_px`, broken between words, or within one that is too long for a line."""
    lines: list[str] = []
    for word in (piece for whole in words.split() for piece in _pieces(page, whole, width_px, size)):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and page.width(longer, size=size) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _pieces(page: Canvas, word: str, width_px: float, size: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and page.width(pieces[-1] + letter, size=size) > width_px:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def paragraph(page: Canvas, at: Spot, lines: Sequence[tuple[str, Colour]], *, size: int = TEXT_PX) -> None:
    for i, (line, colour) in enumerate(lines):
        page.text((at[0], at[1] + i * LINE_PX), line, size=size, colour=colour)
