"""Small sets of pictures with known defects: lines in noise, dark squares on them, all three kinds of folder."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calibration.dataset import build, shards
from calibration.dataset.plan import Order
from calibration.dataset.splits import Shift
from engines.defects import CLASSES
from engines.scene import Scene, condition, levels_of

SIDE, SPOT_PX, PITCH_PX = 128, 8, 16
KINDS = ("lines", "natural")
SCENE = Scene(3e-9, 40.0, 1000.0)
PIT = CLASSES.index("pit")


def lines(seed: int, *spots: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lines of one pitch in noise, a black square at each spot (x, y of its corner)."""
    rng, x = np.random.default_rng(seed), np.arange(SIDE)
    pattern = 120.0 + 50.0 * np.sin(2.0 * np.pi * x / PITCH_PX) + rng.normal(0.0, 6.0, (SIDE, SIDE))
    for left, top in spots:
        pattern[top : top + SPOT_PX, left : left + SPOT_PX] = 0.0
    return np.asarray(np.clip(pattern, 0, 255), np.uint8)


def scene(name: str, **more: Any) -> dict[str, Any]:
    known = {"group": "lines", "pixel_size_m": 3e-9, "electrons_per_pixel": 40, "accelerating_voltage_v": 1000}
    return {"name": name, **known, "defects": [], "defect_free": False, **more}


def defect(x: int, y: int, **more: Any) -> dict[str, Any]:
    box = [x, y, x + SPOT_PX, y + SPOT_PX]
    return {"class": "pit", "box_px": box, "area_px": 64, "contrast_chi_se": 50.0, "limit": "above", **more}


def save(folder: Path, name: str, *spots: tuple[int, int], seed: int = 0) -> None:
    cv2.imwrite(str(folder / f"{name}_SE.png"), lines(seed, *spots))


def scenes(folder: Path, clean: int = 4) -> Path:
    """Two scenes with a pit each, one with a void that nobody can find, clean ones, a reference die of the first."""
    folder.mkdir()
    listed = [
        scene("one", defects=[defect(48, 64)]),
        scene("two", defects=[defect(80, 32), defect(16, 96, **{"class": "void"})]),  # the void was never drawn
        scene("one_ref", defect_free=True, reference_of="one"),
        *(scene(f"clean{i}", defect_free=True) for i in range(clean)),
    ]
    (folder / "scenes.json").write_text(json.dumps(listed))
    save(folder, "one", (48, 64), seed=1)
    save(folder, "two", (80, 32), seed=2)
    for number, each in enumerate(listed[2:], 3):
        save(folder, str(each["name"]), seed=number)
    return folder


def pictures(folder: Path) -> Path:
    """Two pictures with YOLO boxes, the second without any."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "images/a.png"), lines(1, (48, 64), (16, 16)))
    cv2.imwrite(str(folder / "images/b.png"), lines(2))
    share = SPOT_PX / SIDE
    rows = [f"0 {(x + SPOT_PX / 2) / SIDE} {(y + SPOT_PX / 2) / SIDE} {share} {share}" for x, y in ((48, 64), (16, 16))]
    (folder / "labels/a.txt").write_text("\n".join(rows) + "\n")
    (folder / "labels/b.txt").write_text("")
    return folder


def drawn(number: int, seed: int, shift: Shift) -> shards.Arrays:
    """Two looks at one specimen: every third without a defect, every sixth without a layout."""
    dirty = number % 3 > 0
    spots = ((48, 64),) if dirty else ()
    image = np.stack([lines(1000 * seed + 2 * number + look, *spots) for look in range(2)])
    clean = np.stack([lines(2000 * seed + 2 * number + look) for look in range(2)])
    label, box = np.full((2, 3), -1, np.int8), np.zeros((2, 3, 4), np.float32)
    if dirty:
        label[:, 0], box[:, 0] = PIT, (48, 64, 48 + SPOT_PX, 64 + SPOT_PX)
    used = label >= 0
    return {
        "image": image,
        "golden": clean if dirty else image,
        "condition": np.stack([condition(levels_of(each), SCENE) for each in image]),
        "box_px": box,
        "label": label,
        "visible": used,
        "matched": np.where(used, 40.0, 0.0).astype(np.float32),
        "to_noise": np.where(used, 9.0, 0.0).astype(np.float32),
        "area_px": np.where(used, 64, 0).astype(np.int32),
        "pitch_share": np.where(used, 0.5, 0.0).astype(np.float32),
        "pixel_size_m": np.full(2, 3e-9, np.float32),
        "kind": np.full(2, int(number % 6 == 0), np.uint8),
    }


def dataset(folder: Path, count: int = 48, splits: tuple[str, ...] = ("train", "test")) -> Path:
    """`drawn` has to stand for the defects' generator: TASKS["defects"] = Task(drawn, KINDS, ...)."""
    order = Order("defects", count, 5, splits)
    build.build(order, folder, workers=1, force=False, progress=lambda done, of: None)
    return folder
