"""A contact sheet of a dataset: examples of every family with their truth drawn in. A folder in, a BGR picture out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands import heatmap
from agent.commands.canvas import GREEN, INK, PAPER, RULE, SOFT, Canvas, Spot
from agent.commands.overlay import COLOURS, said
from agent.commands.plate import unit_of
from calibration.dataset import index, read
from calibration.dataset.index import Index, Shard, Split
from calibration.dataset.shards import Arrays

CELL = 256  # side of an example as it is shown
MARGIN, GAP = 28, 18
HEAD, WORDS = 84, 62  # title; two lines below each example
SECTION = 40  # a split's name
COLUMNS = 6  # examples in a row, half as many where heights stand beside each
ROWS = {"train": 2}  # of a split's examples; 1 of the others


@dataclass(frozen=True)
class Example:
    kind: str
    row: Arrays  # one frame, without its first axis


def draw(folder: Path) -> NDArray[np.uint8]:
    """(h, w, 3) blue, green, red. Raises DatasetError where a shard cannot be read."""
    held = index.read(folder)
    wide = 2 if held.identity.task == "depth" else 1
    columns = COLUMNS // wide
    examples = [(split, chosen(held, folder, split.name, columns * ROWS.get(split.name, 1))) for split in held.splits]
    bands = [_band(split, few, columns, held.classes, wide) for split, few in examples if few]
    return np.vstack([_heading(held, _width(columns, wide)), *bands])


def chosen(held: Index, folder: Path, split: str, most: int) -> list[Example]:
    """Families in turns, each geometry once; a few shards of the split are read."""
    names = held.split(split).kinds
    seen: dict[int, list[Arrays]] = {}
    geometries: set[tuple[int, ...]] = set()
    for shard in _some(held, split, most):
        rows = read.load(folder, shard)
        for place, kind in enumerate(rows["kind"]):
            row = {name: array[place] for name, array in rows.items()}
            geometry = tuple(int(word) for word in row.get("geometry", (len(geometries),)))
            if geometry not in geometries or names[int(kind)] not in {names[key] for key in seen}:
                seen.setdefault(int(kind), []).append(row)
            geometries.add(geometry)
    turns = range(max((len(rows) for rows in seen.values()), default=0))
    found = [
        Example(names[kind], seen[kind][turn]) for turn in turns for kind in sorted(seen) if turn < len(seen[kind])
    ]
    return found[:most]


def _some(held: Index, split: str, most: int) -> list[Shard]:
    """Evenly spread over the split, as many as it takes where each holds one frame."""
    own = [each for each in held.shards if each.split == split]
    if not own:
        return []
    wanted = min(len(own), 2 * most if own[0].frames == 1 else 1)
    return [own[i * len(own) // wanted] for i in range(wanted)]


# --- the page ---


def _width(columns: int, wide: int) -> int:
    return 2 * MARGIN + columns * (wide * CELL + GAP) - GAP


def _heading(held: Index, width: int) -> NDArray[np.uint8]:
    page = Canvas(width, HEAD)
    names = {"autofocus": "Focus", "depth": "Heights", "defects": "Defects"}
    title = f"{names.get(held.identity.task, held.identity.task)}: examples of a dataset with their truth"
    page.text((MARGIN, 40), title, size=24, weight=600)
    note = f"{held.count} frames, seed {held.identity.seed}. {LEGENDS.get(held.identity.task, '')}"
    page.text((MARGIN, 68), note, size=15, colour=SOFT)
    return page.image


def _band(split: Split, few: list[Example], columns: int, classes: tuple[str, ...], wide: int) -> NDArray[np.uint8]:
    """One split: its name, and its examples in rows."""
    rows = -(-len(few) // columns)
    page = Canvas(_width(columns, wide), SECTION + rows * (CELL + WORDS))
    used = page.text((MARGIN, 27), split.name, size=18, weight=600)
    many = "1 frame" if split.frames == 1 else f"{split.frames} frames"
    page.text((MARGIN + used + 12, 27), f"{many}: {split.purpose}", size=15, colour=SOFT)
    for number, each in enumerate(few):
        x, y = number % columns * (wide * CELL + GAP), number // columns * (CELL + WORDS)
        _cell(page, (MARGIN + x, SECTION + y), each, classes, beside=wide == 2)
    return page.image


LEGENDS = {
    "autofocus": "Blur: sigma of the probe, px. Score: 10 in focus, 0 nothing to see.",
    "depth": "Right of each frame its exact heights, dark low to light high, and their span.",
    "defects": "Boxes: exact defects; a thin one: nobody could know that it is there.",
}


def _cell(page: Canvas, at: Spot, each: Example, classes: tuple[str, ...], *, beside: bool) -> None:
    """beside: its exact heights to the right of the frame, where there are any."""
    picture, (x, y) = np.asarray(each.row["image"], np.uint8), at
    page.picture(at, np.asarray(fitted(picture), np.uint8))
    _rim(page, at)
    if "box_px" in each.row:
        _boxes(page, at, each.row, CELL / min(picture.shape), classes)
    relief = heights(each) if beside else None
    if relief is not None:
        _relief(page, (x + CELL, y), relief)
    page.text((x, y + CELL + 19), each.kind, size=15, weight=500)
    if "score" in each.row:
        page.text((x + CELL, y + CELL + 19), f"score {each.row['score']:.1f}", size=14, align="right")
    page.text((x, y + CELL + 40), facts(each), size=14, colour=SOFT)


def _rim(page: Canvas, at: Spot) -> None:
    """A white frame must not run into the page."""
    (x, y), end = at, CELL - 1.0
    page.line([(x, y), (x + end, y), (x + end, y + end), (x, y + end), (x, y)], RULE)


def _relief(page: Canvas, at: Spot, height_m: NDArray[np.float32]) -> None:
    span = heatmap.span_of(height_m, None)
    x, y = round(at[0]), round(at[1])
    page.image[y : y + CELL, x : x + CELL] = heatmap.coloured(np.asarray(fitted(height_m), np.float32), span)
    name, scale = unit_of(span[1] - span[0])
    words = f"{(span[1] - span[0]) / scale:.3g} {name} from low to high"
    page.text((x + CELL, y + CELL + 19), words, size=14, colour=SOFT, align="right")


def fitted(picture: NDArray[Any]) -> NDArray[Any]:
    """The middle square of a picture at the cell's size."""
    side = min(picture.shape)
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    square = np.ascontiguousarray(picture[top : top + side, left : left + side])
    how = cv2.INTER_AREA if side >= CELL else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(square, (CELL, CELL), interpolation=how))


def heights(each: Example) -> NDArray[np.float32] | None:
    """(h, w) metres; None where the frame has no exact heights."""
    row = each.row
    if "height_px" in row:
        return np.asarray(row["height_px"].astype(np.float32) * row["pixel_size_m"], np.float32)
    relief = row.get("height_m")
    return np.asarray(relief, np.float32) if relief is not None and relief.ndim == 2 else None


def facts(each: Example) -> str:
    """One line of truth in numbers."""
    row, told = each.row, []
    if "blur_px" in row:
        told = [f"blur {row['blur_px']:.2g} px", f"SNR {row['snr']:.2g}"]
    elif "label" in row:
        count = int((row["label"] >= 0).sum())
        told = ["no defect" if count == 0 else "1 defect" if count == 1 else f"{count} defects"]
    size_m = float(row["pixel_size_m"])
    told.append(f"{size_m * 1e9:.3g} nm/px" if np.isfinite(size_m) else "pixel size not told")
    return ", ".join(told)


def _boxes(page: Canvas, at: Spot, row: Arrays, times: float, classes: tuple[str, ...]) -> None:
    for box, label, clear in zip(row["box_px"], row["label"], row["visible"], strict=True):
        if label < 0:
            continue
        x0, y0, x1, y1 = (float(side) for side in box)
        low = _within(at, x0 * times - 3.0, y0 * times - 3.0)
        high = _within(at, x1 * times + 3.0, y1 * times + 3.0)
        name = classes[int(label)]
        corners = [low, (high[0], low[1]), high, (low[0], high[1]), low]
        page.line(corners, INK, 3 if clear else 2)
        page.line(corners, COLOURS.get(name, GREEN), 2 if clear else 1)
        _tag(page, at, (low, high), said(name))


def _tag(page: Canvas, at: Spot, box: tuple[Spot, Spot], words: str) -> None:
    """The class above its box, or below where the cell ends."""
    (left, top), (_, bottom) = box
    width = page.width(words, size=12) + 6
    x = min(max(left, at[0]), at[0] + CELL - width)
    y = top - 16 if top - 16 >= at[1] else min(bottom + 1, at[1] + CELL - 15)
    page.box((x, y), (x + width, y + 15), PAPER, 0.85)
    page.text((x + 3, y + 12), words, size=12)


def _within(at: Spot, x: float, y: float) -> Spot:
    return at[0] + min(max(x, 1.0), CELL - 2.0), at[1] + min(max(y, 1.0), CELL - 2.0)
