"""The defect model on an electron Monte Carlo that nobody here made, with exact boxes: for the manifest's table only.

A folder as in the project's shared data: scenes.json, and <name>_SE.png for each scene.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.interval import wilson
from calibration.train.defects_figures import hits
from engines.defects import DefectFinder, overlap
from engines.readings import Defects
from engines.reference import self_reference
from engines.scene import Scene

SCENES = "scenes.json"
GROUPS = ("lines", "holes")
BORDER_PX = 3  # the simulation ends there: the outermost pixels are not what an instrument shows


@dataclass(frozen=True)
class Outcome:
    """One scene: what was there, what was found in it."""

    scene: dict[str, Any]
    found: Defects


def outside(finder: DefectFinder, folder: Path) -> dict[str, dict[str, float]]:
    """Rows of the table; none where the folder is not there."""
    if not (folder / SCENES).exists():
        return {}
    outcomes = list(read(finder, folder))
    return {"outside_montecarlo": row(outcomes), "outside_montecarlo_capture": by_class(outcomes)}


def read(finder: DefectFinder, folder: Path) -> list[Outcome]:
    """Every scene of lines and holes, as the finder's own threshold has it."""
    outcomes = []
    for scene in json.loads((folder / SCENES).read_text()):
        if scene["group"] in GROUPS:
            image = np.asarray(cv2.imread(str(folder / f"{scene['name']}_SE.png"), cv2.IMREAD_GRAYSCALE), np.uint8)
            facts = Scene(scene["pixel_size_m"], scene["electrons_per_pixel"], scene["accelerating_voltage_v"])
            found = finder.read(image, facts, reference=self_reference(image))
            outcomes.append(Outcome(scene, _inner(found, image)))
    return outcomes


def row(outcomes: list[Outcome]) -> dict[str, float]:
    """Capture of the defects that stand out, false alarms where there is no defect, class and box of the captured."""
    clear = [(each, defect) for each in outcomes for defect in each.scene["defects"] if defect["limit"] == "above"]
    captured = [(each, defect) for each, defect in clear if _finds(each, defect)]
    clean = [each for each in outcomes if each.scene["defect_free"]]
    others = [each for each in outcomes if not each.scene["defect_free"]]
    first = [(_finds(each, defect)[0], defect) for each, defect in captured]
    low, high = wilson(len(captured), len(clear))
    return {
        "scenes": float(len(outcomes)),
        "defects": float(len(clear)),
        "capture_rate": len(captured) / max(len(clear), 1),
        "capture_rate_low": low,
        "capture_rate_high": high,
        "false_alarms_per_clean_scene": sum(len(each.found) for each in clean) / max(len(clean), 1),
        "false_alarms_per_other_scene": sum(len(_false(each)) for each in others) / max(len(others), 1),
        "class_accuracy": float(np.mean([find.name == defect["class"] for find, defect in first])) if first else 0.0,
        "box_iou_median": float(np.median([overlap(f.box_px, _box(d)) for f, d in first])) if first else 0.0,
    }


def by_class(outcomes: list[Outcome]) -> dict[str, float]:
    """Capture rate of each class among the defects that stand out."""
    told: dict[str, list[bool]] = {}
    for each in outcomes:
        for defect in each.scene["defects"]:
            if defect["limit"] == "above":
                told.setdefault(defect["class"], []).append(bool(_finds(each, defect)))
    return {name: float(np.mean(hit)) for name, hit in sorted(told.items())}


def _finds(outcome: Outcome, defect: dict[str, Any]) -> Defects:
    return tuple(find for find in outcome.found if hits(find, _box(defect)))


def _false(outcome: Outcome) -> Defects:
    boxes = [_box(defect) for defect in outcome.scene["defects"]]
    return tuple(find for find in outcome.found if not any(hits(find, box) for box in boxes))


def _box(defect: dict[str, Any]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(side) for side in defect["box_px"])
    return x0, y0, x1, y1


def _inner(found: Defects, image: NDArray[np.uint8]) -> Defects:
    """Without what is centred on the border."""
    height, width = image.shape
    inside = []
    for find in found:
        x, y = (find.box_px[0] + find.box_px[2]) / 2, (find.box_px[1] + find.box_px[3]) / 2
        if BORDER_PX <= x <= width - BORDER_PX and BORDER_PX <= y <= height - BORDER_PX:
            inside.append(find)
    return tuple(inside)
