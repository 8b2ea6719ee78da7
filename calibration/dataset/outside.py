"""Frames that nobody here drew: scenes of another simulator with their exact truth, real frames without any."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset.errors import DatasetError
from calibration.dataset.shards import Arrays
from engines.defects import CLASSES

SCENES = "scenes.json"
ALSO_CALLED = {  # what simulators call our classes
    "gap": "break",
    "shallow_contact": "closed_contact",
    "scummed_contact": "closed_contact",
    "bulge": "other",
}
WHITE_PERCENTILE = 99.7  # of counts without a level for white of their own
STRETCH_PERCENTILES = (0.1, 99.9)  # as the agent maps 16 bits and floats


@dataclass(frozen=True)
class Frame:
    """One frame from outside: a shard of its own, since no two need have the same size."""

    kind: str
    rows: Arrays  # of length 1


@dataclass(frozen=True)
class Picture:
    """A real frame as it was read."""

    name: str
    pixels: NDArray[Any]  # (h, w) uint8, uint16 or float32, without its data bar
    pixel_size_m: float | None


def montecarlo(folder: Path) -> Iterator[Frame]:
    """The scenes of a folder with scenes.json. Raises DatasetError naming the scene that cannot be used."""
    path = folder / SCENES
    try:
        scenes = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file; --montecarlo takes a folder with {SCENES} in it") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(scenes, list) or not scenes:
        raise DatasetError(f"{path}: a list of scenes is expected, and at least one in it")
    for number, scene in enumerate(scenes):
        try:
            yield Frame(str(scene["group"]), _scene_rows(folder, scene))
        except (KeyError, TypeError, IndexError) as error:
            raise DatasetError(
                f"{path}: scene {number} lacks {error}, or it is of another kind than expected"
            ) from error


def real(pictures: Iterator[Picture]) -> Iterator[Frame]:
    """uint8 as a model takes them, the pixel size where it is told."""
    for each in pictures:
        size_m = math.nan if each.pixel_size_m is None else each.pixel_size_m
        yield Frame(
            "real",
            {
                "image": _eight_bits(each.pixels)[None],
                "name": np.array([each.name]),
                "pixel_size_m": np.array([size_m], np.float32),
                "kind": np.zeros(1, np.uint8),
            },
        )


def _scene_rows(folder: Path, scene: dict[str, Any]) -> Arrays:
    name = str(scene["name"])
    counts = _array(folder / f"{name}_SE.npy", name)
    height_m = (_array(folder / f"{name}_height_px_nm.npy", name) * 1e-9).astype(np.float32)
    if counts.shape != height_m.shape or counts.ndim != 2:
        raise DatasetError(
            f"scene {name}: counts are {counts.shape} and heights {height_m.shape}; both must be one (h, w)"
        )
    if not np.isfinite(height_m).all():
        raise DatasetError(f"scene {name}: its heights are not all finite")
    white = float(scene.get("se_at_255") or np.percentile(counts, WHITE_PERCENTILE))
    image = np.clip(counts * (255.0 / max(white, 1e-6)) + 0.5, 0, 255).astype(np.uint8)
    facts = ("pixel_size_m", "electrons_per_pixel", "accelerating_voltage_v")
    return {
        "image": image[None],
        "counts": counts.astype(np.float32 if counts.dtype.kind == "f" else np.uint16)[None],
        "height_m": height_m[None],
        "name": np.array([name]),
        **{fact: np.array([float(scene[fact])], np.float32) for fact in facts},
        "probe_sigma_m": np.array([scene["probe_sigma_m"]], np.float32),
        "probe_angle_rad": np.array([math.radians(scene["probe_angle_deg"])], np.float32),
        **_defects(scene, name),
    }


def _defects(scene: dict[str, Any], name: str) -> Arrays:
    found = scene["defects"]
    numbers = [_class_of(defect["class"], name) for defect in found]
    visible = [defect["limit"] == "above" for defect in found]
    return {
        "box_px": np.array([defect["box_px"] for defect in found], np.float32).reshape(1, -1, 4),
        "label": np.array([numbers], np.int8).reshape(1, -1),
        "visible": np.array([visible], np.bool_).reshape(1, -1),
        "contrast_chi": np.array([[defect["contrast_chi_se"] for defect in found]], np.float32),
        "area_px": np.array([[defect["area_px"] for defect in found]], np.int32),
    }


def _class_of(said: str, name: str) -> int:
    ours = ALSO_CALLED.get(said, said)
    if ours not in CLASSES:
        raise DatasetError(f"scene {name}: class {said!r} is none of ours: {', '.join(CLASSES)}")
    return CLASSES.index(ours)


def _array(path: Path, name: str) -> NDArray[Any]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except FileNotFoundError as error:
        raise DatasetError(f"scene {name}: {path} is missing") from error
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"scene {name}: {path} cannot be read: {error}") from error


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    low, high = np.percentile(pixels, STRETCH_PERCENTILES)
    grey = (pixels.astype(np.float32) - low) * (255.0 / max(float(high - low), 1e-6))
    return np.asarray(np.clip(grey + 0.5, 0, 255), np.uint8)
