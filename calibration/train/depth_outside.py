"""The depth model on scenes of an electron Monte Carlo it was never trained on: a folder in, figures by kind out.

The folder holds scenes.json, <name>_SE.png and <name>_height_px_nm.npy. Nothing here is used for training.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.depth_figures import correlation, smoothed
from engines.depth import Depth
from engines.scene import Scene, levels_of, padded


def outside(model: Depth, folder: Path) -> dict[str, dict[str, float]]:
    """Rows for the manifest; none where the folder holds no scenes."""
    listed = folder / "montecarlo" if (folder / "montecarlo").is_dir() else folder
    if not (listed / "scenes.json").exists():
        return {}
    scenes = json.loads((listed / "scenes.json").read_text())
    groups: dict[str, list[dict[str, float]]] = defaultdict(list)
    for scene in scenes:
        row = score(model, listed, scene)
        for name in ("all", _group(scene)):
            groups[name].append(row)
    return {f"montecarlo_{name}": _median(rows) for name, rows in groups.items()}


def score(model: Depth, folder: Path, scene: dict[str, Any]) -> dict[str, float]:
    """One scene: the map against the exact heights, as read and with its mean and scale free, intensity beside it."""
    image = np.asarray(cv2.imread(str(folder / f"{scene['name']}_SE.png"), cv2.IMREAD_GRAYSCALE), np.uint8)
    truth = np.load(folder / f"{scene['name']}_height_px_nm.npy").astype(np.float32)
    known = Scene(scene["pixel_size_m"], scene["electrons_per_pixel"], scene["accelerating_voltage_v"])
    read = model.read(padded(image), known, levels_of(image))
    assert read is not None  # the pixel size is known
    height, width = truth.shape
    said = read.height_m[:height, :width] * np.float32(1e9)
    bright = smoothed(image[None])[0]
    return {
        "correlation": correlation(said, truth),
        "intensity_correlation": correlation(bright, truth),
        "rmse_of_spread": _rmse(said, truth - np.percentile(truth, 1.0)) / float(truth.std()),
        "rmse_of_spread_mean_free": float((said - truth).std() / truth.std()),
    }


def _group(scene: dict[str, Any]) -> str:
    """topo_pits_b -> pits; lines_p080 -> lines; focus series by what they show."""
    parts = scene["name"].split("_")
    return parts[0] if parts[0] in ("lines", "holes") else "_".join(parts[:2])


def _median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {"n": float(len(rows))} | {name: float(np.median([row[name] for row in rows])) for name in rows[0]}


def _rmse(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))
