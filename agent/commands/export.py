"""Inspected frames of the journal as COCO annotations and as a spreadsheet; files are whole or not there."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.commands.found import FoundDefect, FoundFrame, defects
from agent.commands.report_html import write_page
from agent.errors import UsageError
from agent.messages import DEFECT_CLASSES

CATEGORY = {name: number for number, name in enumerate(DEFECT_CLASSES, 1)}  # COCO counts from 1
COLUMNS = (
    "event", "time", "session", "source", "frame", "lane", "recipe", "lot", "wafer", "die_x", "die_y", "number",
    "class", "path", "confidence", "size_m", "height_m", "x0_px", "y0_px", "x1_px", "y1_px", "stage_x_m", "stage_y_m",
    "pixel_size_m", "crop",
)  # fmt: skip


def coco(found: Sequence[FoundFrame], *, crops: str = "crops") -> dict[str, Any]:
    """Every inspected frame is an image, also a clean one; a frame whose size nobody noted has none (0, 0).

    The frames' own pictures were never kept: `file_name` is a name, `crop` of an annotation a file.
    """
    images, annotations = [], []
    for seen in found:
        height, width = seen.row.shape_px or (0, 0)
        images.append({
            "id": seen.event, "file_name": f"{seen.name}.png", "width": width, "height": height,
            "date_captured": seen.at.isoformat(), "recipe": seen.row.recipe, "pixel_size_m": seen.row.pixel_size_m,
        })  # fmt: skip
        annotations += [_annotation(each, crops) for each in defects(seen)]
    for number, each in enumerate(annotations, 1):
        each["id"] = number
    return {
        "info": {"description": "defects told by beamside", "version": "1.0"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": name, "supercategory": "defect"} for name, n in CATEGORY.items()],
    }


def _annotation(found: FoundDefect, crops: str) -> dict[str, Any]:
    x0, y0, x1, y1 = found.defect.box_px
    return {
        "image_id": found.frame.event,
        "category_id": CATEGORY[found.defect.name],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "segmentation": [],
        "iscrowd": 0,
        "score": found.defect.confidence,
        "path": list(found.defect.path),
        "size_m": found.defect.size_m,
        "crop": None if found.crop is None else f"{crops}/{found.crop}",
    }


def table(found: Sequence[FoundFrame]) -> str:
    """One line a defect, the names of the columns first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for seen in found:
        for each in defects(seen):
            writer.writerow(["" if value is None else value for value in _cells(each)])
    return out.getvalue()


def _cells(found: FoundDefect) -> tuple[object, ...]:
    seen, told, row = found.frame, found.defect, found.frame.row
    return (
        seen.event, seen.at.isoformat(), seen.session, seen.source, seen.frame, row.lane, row.recipe, row.lot,
        row.wafer, row.die_x, row.die_y, found.number, told.name, "/".join(told.path), told.confidence, told.size_m,
        told.height_m, *told.box_px, told.stage_x_m, told.stage_y_m, row.pixel_size_m, found.crop,
    )  # fmt: skip


def save(path: Path, text: str, option: str) -> None:
    """Whole or not there. Raises UsageError where nothing can be written."""
    try:
        write_page(text, path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}; name a file in a folder you may write to") from error
