"""A frame with its defects drawn in: boxes, class names and confidences, below it a scale bar and what was found.

Pure: a picture and boxes in, a BGR picture out. The strip below is a data bar of our own: nothing hides the specimen
but the boxes themselves.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import FAINT, GREEN, INK, ORANGE, PAPER, PURPLE, SKY, SOFT, VERMILLION, Canvas, Colour, Spot
from agent.commands.plate import LINE_PX, Plate, fitted, paragraph, scale_bar, wrapped
from agent.messages import Defect

LEAST_PX, MOST_PX = 640, 1600  # longest side of the picture as it is shown
NARROWEST_PX = 520  # of the page: the strip below needs the room
MARGIN = 14
GAP_PX = 4.0  # between a defect and its box, so that the line does not cover what it points at
SMALLEST_BOX_PX = 12.0  # as shown: in a picture shown at a tenth a defect would vanish behind its own line
DASH_PX = 6.0
CHIP_PX = 14  # size of the letters beside a box
CHIP_HIGH = 20
LEVEL_PX = 12  # size of the letters that say what each level of a cascade said
LEVELS_HIGH = 17
MOST_LEVELS = 12  # defects whose levels are written: in a picture with more there is no room
MOST_NAMES = 300  # no picture has room for more: the surest ones are tried

COLOURS: dict[str, Colour] = {  # by what is wrong; the name stands beside every box
    **dict.fromkeys(("bridge", "microbridge", "residue", "particle"), VERMILLION),  # too much
    **dict.fromkeys(("break", "necking", "pit", "void", "scratch"), SKY),  # too little
    **dict.fromkeys(("missing_contact", "closed_contact", "merged_contact"), ORANGE),
    "collapse": PURPLE,
    "other": GREEN,
}

LEVEL_WORDS = {"unsized": "known"}  # of the level of kinds, where no recipe says what is large

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


class Named(Protocol):
    """A defect with a place."""

    @property
    def name(self) -> str: ...
    @property
    def box_px(self) -> Box: ...


class Found(Named, Protocol):
    """What a model says: engines.readings.FoundDefect, agent.messages.Defect."""

    @property
    def confidence(self) -> float: ...


@dataclass(frozen=True)
class Chip:
    """The words beside a box, and where they may stand (as shown)."""

    words: str
    colour: Colour
    width: float
    box: Box
    levels: str = ""  # below the words

    @property
    def high(self) -> float:
        return CHIP_HIGH + (LEVELS_HIGH if self.levels else 0)


def draw(
    picture: NDArray[np.uint8],
    defects: Sequence[Found],
    pixel_size_m: float | None,
    *,
    caption: str = "",
    expected: Sequence[Named] = (),
) -> NDArray[np.uint8]:
    """picture (h, w) uint8 -> (h', w', 3) blue, green, red.

    expected: what was really there, where that is known; dashed.
    """
    plate = fitted(picture, least=LEAST_PX, most=MOST_PX)
    page = Canvas(max(plate.image.shape[1], NARROWEST_PX), plate.image.shape[0])
    page.picture((0, 0), plate.image)
    for each in expected:
        _dashed(page, _shown(plate, each.box_px, gap=2.5 * GAP_PX))
    room = len(defects) <= MOST_LEVELS
    chips = [_framed(page, plate, each, levels=room) for each in reversed(defects)][::-1]  # the surest ends on top
    left_out = _place(page, chips)
    notes = [_counted(defects), _dashes(expected), f"{left_out} names left out for want of room" if left_out else ""]
    strip = _strip(page.image.shape[1], plate.times, pixel_size_m, (". ".join(filter(None, notes)), caption))
    return np.vstack([page.image, strip])


# --- boxes ---


def _shown(plate: Plate, box: Box, *, gap: float = GAP_PX) -> Box:
    """The box as it is drawn: a little outside of what it holds, and never too small to see."""
    (x0, y0), (x1, y1) = plate.spot(box[0], box[1]), plate.spot(box[2], box[3])
    wide, high = (max(a, SMALLEST_BOX_PX) / 2.0 + gap for a in (x1 - x0, y1 - y0))
    x, y = (x0 + x1) / 2.0, (y0 + y1) / 2.0
    height, width = plate.image.shape
    return max(x - wide, 1.0), max(y - high, 1.0), min(x + wide, width - 2.0), min(y + high, height - 2.0)


def _framed(page: Canvas, plate: Plate, found: Found, *, levels: bool) -> Chip:
    box, colour = _shown(plate, found.box_px), COLOURS.get(found.name, GREEN)
    around = _corners(box)
    page.line([*around, around[0]], INK, 4)  # a dark edge, lest the colour drown in a bright picture
    page.line([*around, around[0]], colour, 2)
    words, below = f"{path_said(found)} {found.confidence:.2f}", levels_said(found) if levels else ""
    width = max(page.width(words, size=CHIP_PX), page.width(below, size=LEVEL_PX) if below else 0.0)
    return Chip(words, colour, width + 12.0, box, below)


def _dashed(page: Canvas, box: Box) -> None:
    around = _corners(box)
    for a, b in zip(around, [*around[1:], around[0]], strict=True):
        page.line([a, b], INK, 3)
        for start, end in _dashes_between(a, b):
            page.line([start, end], PAPER, 2)


def _dashes_between(a: Spot, b: Spot) -> Iterable[tuple[Spot, Spot]]:
    count = max(1, round(max(abs(b[0] - a[0]), abs(b[1] - a[1])) / (2.0 * DASH_PX)))
    for i in range(count):
        first, last = i / count, (i + 0.5) / count
        yield _between(a, b, first), _between(a, b, last)


def _between(a: Spot, b: Spot, t: float) -> Spot:
    return a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])


def _corners(box: Box) -> list[Spot]:
    return [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]


# --- names ---


def said(name: str) -> str:
    """A class as people write it."""
    return name.replace("_", " ")


def path_said(found: Named) -> str:
    """Down the tree: large bridge."""
    return said(" ".join(found.path[1:]) if isinstance(found, Defect) and found.path[1:] else found.name)


def levels_said(found: Named) -> str:
    """What each level of a cascade said and how sure it was; empty where there was none."""
    levels = found.levels if isinstance(found, Defect) else ()
    return " > ".join(f"{said(LEVEL_WORDS.get(each.said, each.said))} {each.probability:.2f}" for each in levels)


def _place(page: Canvas, chips: Sequence[Chip]) -> int:
    """Write every name where it covers no other name and, if that can be, no other box. -> how many found no room."""
    taken: list[Box] = []
    boxes = [chip.box for chip in chips]
    for chip in chips[:MOST_NAMES]:
        places = [place for place in _places(chip, page) if not any(_meet(place, other) for other in taken)]
        clear = (place for place in places if not any(_meet(place, box) for box in boxes if box != chip.box))
        place = next(clear, None) or next(iter(places), None)
        if place is not None:
            taken.append(place)
            _write(page, chip, place)
    return len(chips) - len(taken)


def _places(chip: Chip, page: Canvas) -> list[Box]:
    """Above, below, right, left of the box; then inside it."""
    x0, y0, x1, y1 = chip.box
    corners = [
        (x0, y0 - chip.high - 2),
        (x0, y1 + 2),
        (x1 + 3, y0),
        (x0 - chip.width - 3, y0),
        (x1 - chip.width, y0 - chip.high - 2),
        (x1 - chip.width, y1 + 2),
        (x0 + 3, y0 + 3),
    ]
    height, width = page.image.shape[:2]
    places = [(x, y, x + chip.width, y + chip.high) for x, y in corners]
    return [place for place in places if place[0] >= 0 and place[1] >= 0 and place[2] <= width and place[3] <= height]


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _write(page: Canvas, chip: Chip, place: Box) -> None:
    low, high = (round(place[0]), round(place[1])), (round(place[2]), round(place[3]))
    cv2.rectangle(page.image, low, (high[0] - 1, high[1] - 1), PAPER, -1)
    cv2.rectangle(page.image, low, (low[0] + 3, high[1] - 1), chip.colour, -1)
    page.text((place[0] + 8, place[1] + 15), chip.words, size=CHIP_PX)
    if chip.levels:
        page.text((place[0] + 8, place[1] + CHIP_HIGH + 12), chip.levels, size=LEVEL_PX, colour=SOFT)


# --- the strip below ---


def _strip(width: int, times: float, pixel_size_m: float | None, words: tuple[str, str]) -> NDArray[np.uint8]:
    room = 0.25 * width
    page = Canvas(width, 1)  # to measure on
    used = scale_bar(page, (0, 0), pixel_size_m=pixel_size_m, times=times, room_px=room)
    column = MARGIN + max(used, room) + 2 * MARGIN
    inks = zip(words, (INK, SOFT), strict=True)
    lines = [(line, ink) for each, ink in inks for line in wrapped(page, each, width - column - MARGIN)]
    page = Canvas(width, max(56, 2 * MARGIN + LINE_PX * len(lines) - 2))
    page.line([(0, 0), (width, 0)], FAINT, 2)  # a white picture must not run into the page
    scale_bar(page, (MARGIN, 40), pixel_size_m=pixel_size_m, times=times, room_px=room)
    paragraph(page, (column, MARGIN + 14), lines)
    return page.image


def _counted(defects: Sequence[Found]) -> str:
    if not defects:
        return "No defects found"
    by_class = Counter(said(each.name) for each in defects).most_common()
    many = "1 defect" if len(defects) == 1 else f"{len(defects)} defects"
    return f"{many}: {', '.join(f'{count} {name}' for name, count in by_class)}"


def _dashes(expected: Sequence[Named]) -> str:
    return f"Dashed: what is really there, {len(expected)}" if expected else ""
