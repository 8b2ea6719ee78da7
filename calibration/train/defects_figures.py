"""Honest figures for a defect finder: what it found in held-out pictures against the truth, a baseline beside it.

A defect is captured when a find's centre lies in its box, grown by a cell of the network. What nobody can see is
neither a capture nor a false alarm. Rates are to frames of 512 x 512 pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.interval import wilson
from calibration.train.defects_data import Fields
from calibration.twin.contrast import VISIBLE
from engines.defects import CLASSES, defects_of, overlap
from engines.onnx import OnnxEngine
from engines.readings import Defects, FoundDefect

FRAME_PX = 512 * 512
LEAST = 0.02  # confidence below which no threshold will lie
GROWN_PX = 4.0
LEAST_PITCH, LEAST_SIDE_PX = 0.5, 6.0  # side of a square of the defect's area
RATES = {"": 0.1, "_at_0.01": 0.01}  # suffix of a figure -> false alarms a frame
SHIFTS = (-2, -1, 1, 2)  # periods
SMOOTHED_PX = 1.5
USUAL = 99.0  # percentile of the differences that a clean picture has anyway
SPOT_PX = 9  # of the baseline's maxima, and its boxes


@dataclass(frozen=True)
class Matched:
    """The finds of one picture above a threshold, told apart."""

    pairs: tuple[tuple[int, FoundDefect], ...]  # row of the truth, find
    false: Defects
    again: Defects  # a second word on a defect already found


def finds(model: bytes, fields: Fields, reference: str = "own") -> list[Defects]:
    """What the exported file finds in each picture, through the engine and the clean-up that will serve it.

    reference: the column of Fields that it compares with, if it compares; `image` is none.
    """
    engine = OnnxEngine(model, threads=2)
    found = []
    beside = getattr(fields, reference)
    for image, other, condition in zip(fields.image, beside, fields.condition, strict=True):
        out = engine.run(np.stack([image, other]) if engine.channels > 1 else image, condition)
        found.append(defects_of(out["confidence"][0], out["class_index"][0], out["box_px"][0], LEAST, image.shape))
    return found


def threshold(clean: Sequence[Defects], *, pixels: int, rate: float) -> float:
    """The confidence that pictures without a defect pass `rate` times a frame. pixels: of all of them."""
    allowed = int(rate * pixels / FRAME_PX)
    said = sorted((find.confidence for each in clean for find in each), reverse=True)
    return said[allowed] + 1e-6 if len(said) > allowed else LEAST


def figures(fields: Fields, found: Sequence[Defects], thresholds: dict[str, float]) -> dict[str, float]:
    """One row of the table. thresholds: by suffix, as RATES."""
    large = sized(fields)
    row = {
        "frames": float(fields.image.size / FRAME_PX),
        "defects": float(fields.visible.sum()),
        "sized": float(large.sum()),
    }
    for suffix, least in thresholds.items():
        told = matches(fields, found, least)
        captured, seen = sum(len(each.pairs) for each in told), int(fields.visible.sum())
        low, high = wilson(captured, seen)
        row |= {
            f"capture_rate{suffix}": captured / max(seen, 1),
            f"capture_rate_low{suffix}": low,
            f"capture_rate_high{suffix}": high,
            f"capture_rate_sized{suffix}": taken(fields, told, large),
            f"false_alarms_per_frame{suffix}": sum(len(each.false) for each in told) / row["frames"],
        }
    return row | quality(fields, matches(fields, found, thresholds[""]))


def sized(fields: Fields) -> NDArray[np.bool_]:
    """(n, MOST): those a recipe would ask for: visible, and as large as half the pitch or LEAST_SIDE_PX."""
    large = (fields.pitch_share >= LEAST_PITCH) | (np.sqrt(fields.area_px) >= LEAST_SIDE_PX)
    return np.asarray(fields.visible & large, np.bool_)


def taken(fields: Fields, told: Sequence[Matched], asked: NDArray[np.bool_]) -> float:
    """Share of the defects asked for that were captured."""
    captured = sum(int(asked[number, row]) for number, each in enumerate(told) for row, _ in each.pairs)
    return captured / max(int(asked.sum()), 1)


def quality(fields: Fields, told: Sequence[Matched]) -> dict[str, float]:
    """Class and box of what was captured, and how far off the count of a picture is."""
    named, boxes, counts = [], [], []
    for number, each in enumerate(told):
        for row, find in each.pairs:
            named.append(CLASSES[fields.label[number, row]] == find.name)
            boxes.append(overlap(find.box_px, _box(fields, number, row)))
        counted = len(each.pairs) + len(each.false) + len(each.again)
        counts.append(abs(counted - int(fields.visible[number].sum())))
    return {
        "class_accuracy": float(np.mean(named)) if named else 0.0,
        "box_iou_median": float(np.median(boxes)) if boxes else 0.0,
        "count_error_mean": float(np.mean(counts)),
    }


def by_class(fields: Fields, found: Sequence[Defects], least: float) -> dict[str, float]:
    """Capture rate of each class."""
    captured, there = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for number, each in enumerate(matches(fields, found, least)):
        np.add.at(there, fields.label[number][fields.visible[number]], 1)
        np.add.at(captured, [fields.label[number, row] for row, _ in each.pairs], 1)
    return {name: float(captured[i] / there[i]) for i, name in enumerate(CLASSES) if there[i]}


def by_contrast(fields: Fields, found: Sequence[Defects], least: float) -> dict[str, float]:
    """Capture rate by the signal to noise of the matched filter: how near to what can be known at all."""
    hit = np.zeros_like(fields.visible)
    for number, each in enumerate(matches(fields, found, least)):
        hit[number, [row for row, _ in each.pairs]] = True
    rows = {}
    for low, high in ((VISIBLE, 20.0), (20.0, 50.0), (50.0, 150.0), (150.0, np.inf)):
        within = fields.visible & (fields.matched >= low) & (fields.matched < high)
        if within.any():
            rows[f"matched_{low:g}_to_{high:g}"] = float(hit[within].mean())
    return rows


def matches(fields: Fields, found: Sequence[Defects], least: float) -> list[Matched]:
    return [match(fields, number, each, least) for number, each in enumerate(found)]


def match(fields: Fields, number: int, found: Defects, least: float) -> Matched:
    """The most confident find takes the nearest defect that it hits."""
    used = np.nonzero(fields.label[number] >= 0)[0]
    taken: set[int] = set()
    pairs, false, again = [], [], []
    for find in found:
        if find.confidence < least:
            break
        hit = [int(row) for row in used if hits(find, _box(fields, number, int(row)))]
        free = [row for row in hit if fields.visible[number, row] and row not in taken]
        if free:
            best = max(free, key=lambda row: overlap(find.box_px, _box(fields, number, row)))
            taken.add(best)
            pairs.append((best, find))
        elif any(row in taken for row in hit):
            again.append(find)
        elif not hit:
            false.append(find)
    return Matched(tuple(pairs), tuple(false), tuple(again))


def hits(find: FoundDefect, box: tuple[float, float, float, float]) -> bool:
    """Is the find's centre in the box, grown by a cell?"""
    x, y = (find.box_px[0] + find.box_px[2]) / 2, (find.box_px[1] + find.box_px[3]) / 2
    return box[0] - GROWN_PX <= x <= box[2] + GROWN_PX and box[1] - GROWN_PX <= y <= box[3] + GROWN_PX


def self_reference(fields: Fields) -> list[Defects]:
    """The baseline: each picture against the median of its own copies, moved by one and two true periods.

    It is told the period exactly, which its users must measure; a picture without a period is left alone.
    """
    return [
        tuple(_outliers(image, period)) if np.any(period) else ()
        for image, period in zip(fields.image, fields.period_px, strict=True)
    ]


def _outliers(image: NDArray[np.uint8], period: NDArray[np.float32]) -> Iterator[FoundDefect]:
    picture = np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), SMOOTHED_PX), np.float32)
    size = (image.shape[1], image.shape[0])
    copies = []
    for times in SHIFTS:
        move = np.array([[1.0, 0.0, times * period[0]], [0.0, 1.0, times * period[1]]], np.float32)
        # What comes in from outside is unknown: the median goes without it.
        copies.append(cv2.warpAffine(picture, move, size, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan))
    known = np.isfinite(copies).any(axis=0)
    reference = np.where(known, np.nanmedian(np.where(known, copies, 0.0), axis=0), picture)
    off = np.abs(picture - reference).astype(np.float32)
    off /= max(float(np.percentile(off, USUAL)), 1e-3)  # rough edges differ too: a defect has to differ more
    summit = (cv2.dilate(off, np.ones((SPOT_PX, SPOT_PX), np.uint8)) == off) & (off > 0.5)
    places = np.argwhere(summit)
    half = SPOT_PX / 2
    for y, x in places[np.argsort(-off[summit])]:
        box = (float(x - half), float(y - half), float(x + half), float(y + half))
        yield FoundDefect(CLASSES[-1], float(off[y, x]), box)


def _box(fields: Fields, number: int, row: int) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(side) for side in fields.box_px[number, row])
    return x0, y0, x1, y1
