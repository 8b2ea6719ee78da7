"""A box of the defect model in, a defect with height and place on the stage out. Pure; what is not known is None.

Picture axes: x right, y down. Stage axes: x right and y up on a picture scanned without rotation; scan rotation turns
the picture counter-clockwise on the screen. The place told is the stage position at which the defect is centred.
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agent.messages import Box, Defect, Frame, Optics
from engines.readings import Defects, FoundDefect

CENTRAL = 0.5  # of a box's sides: its outer part shows the flanks and what lies around
RING = 0.5  # of a box's larger side: the width of the surroundings a height is told from
RING_PX = (4.0, 32.0)  # ... within these: enough pixels for a median, and still the neighbourhood
LEAST_SHARE = 0.25  # of the ring inside the picture: less of it says nothing of the surroundings
FILLS = ("bridge", "microbridge", "missing_contact", "closed_contact")  # a gap, whose floor is seen beside it
FLOOR, NEIGHBOURHOOD = 5.0, 2.5  # percentile of what lies within so many sides of the box: the next gap or hole
LACKS = ("break", "necking", "merged_contact")  # material that stands around
TOPS = 85.0  # percentile of the ring: where a sixth of it is material, that is the top
LEVEL_RAD = 0.02  # a tilt below it shortens the picture by 2e-4; above it a pixel is no longer a length on the stage

Heights = NDArray[np.float32]  # (h, w) metres


def within(found: Defects, shape: tuple[int, ...]) -> Defects:
    """Boxes cut to the picture, without the mirror images of defects that were found in its padding."""
    height, width = shape
    return tuple(
        replace(each, box_px=(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))))
        for each in found
        for x0, y0, x1, y1 in (each.box_px,)
        if 0.0 < x0 + x1 < 2.0 * width and 0.0 < y0 + y1 < 2.0 * height
    )


def placed(found: FoundDefect, height_m: Heights | None, frame: Frame) -> Defect:
    """One find, with all that is known of it."""
    x_m, y_m = stage_position(found.box_px, frame) or (None, None)
    return Defect(
        name=found.name,
        path=("defect", found.name),
        box_px=found.box_px,
        confidence=found.confidence,
        height_m=None if height_m is None else height_above_surroundings(found.box_px, height_m, found.name),
        stage_x_m=x_m,
        stage_y_m=y_m,
    )


def height_above_surroundings(box_px: Box, height_m: Heights, name: str = "") -> float | None:
    """Median height in the middle of the box above that of a ring around it; None where the picture cuts the ring.

    On a pattern the ring shows tops and floors: a class that fills a gap is told above the floor of the gaps around,
    one that lacks material below the tops; any other against the median.
    """
    x0, y0, x1, y1 = box_px
    width = min(max(RING * max(x1 - x0, y1 - y0), RING_PX[0]), RING_PX[1])
    outer = _grown(box_px, width)
    rows, columns = _cut(outer, height_m.shape)
    around = height_m[rows, columns].copy()
    inner_rows, inner_columns = _cut(box_px, height_m.shape)
    around[_within(inner_rows, rows), _within(inner_columns, columns)] = np.nan
    ring = around[np.isfinite(around)]
    if ring.size < LEAST_SHARE * ((outer[2] - outer[0]) * (outer[3] - outer[1]) - (x1 - x0) * (y1 - y0)):
        return None
    margin_x, margin_y = (x1 - x0) * (1.0 - CENTRAL) / 2.0, (y1 - y0) * (1.0 - CENTRAL) / 2.0
    middle = height_m[_cut((x0 + margin_x, y0 + margin_y, x1 - margin_x, y1 - margin_y), height_m.shape)]
    if name in FILLS:
        wide = height_m[_cut(_grown(box_px, NEIGHBOURHOOD * max(x1 - x0, y1 - y0)), height_m.shape)]
        return float(np.median(middle) - np.percentile(wide, FLOOR))
    return float(np.median(middle) - np.percentile(ring, TOPS if name in LACKS else 50.0))


def stage_position(box_px: Box, frame: Frame) -> tuple[float, float] | None:
    """Where the stage must stand for the middle of the box to be the middle of the scan, metres."""
    o = frame.optics
    if o.stage_x_m is None or o.stage_y_m is None or o.pixel_size_m is None or o.scan_rotation_rad is None:
        return None
    if not _stands_still(o):
        return None
    rows = frame.pixels.shape[0] - (o.databar_rows or 0)
    right_m = ((box_px[0] + box_px[2]) - frame.pixels.shape[1]) / 2.0 * o.pixel_size_m
    up_m = (rows - (box_px[1] + box_px[3])) / 2.0 * (o.pixel_size_y_m or o.pixel_size_m)
    cos, sin = math.cos(o.scan_rotation_rad), math.sin(o.scan_rotation_rad)
    # What the screen shows is turned by +rotation: back by as much.
    return o.stage_x_m + cos * right_m + sin * up_m, o.stage_y_m - sin * right_m + cos * up_m


def _stands_still(o: Optics) -> bool:
    """Is the middle of the picture where the stage says, and a pixel a length on it? A shifted beam's axes, a cut-out's
    place in the full scan and a tilted surface are told by no header well enough."""
    shifted = bool(o.beam_shift_x_m) or bool(o.beam_shift_y_m)
    tilted = o.stage_tilt_rad is not None and abs(o.stage_tilt_rad) > LEVEL_RAD
    return not (o.stage_moving or shifted or tilted or o.roi_px is not None)


def _grown(box: Box, by: float) -> Box:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def _cut(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the whole pixels in a box, at least one of each."""
    left, top = min(max(math.floor(box[0]), 0), shape[1] - 1), min(max(math.floor(box[1]), 0), shape[0] - 1)
    right, bottom = min(math.ceil(box[2]), shape[1]), min(math.ceil(box[3]), shape[0])
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)
