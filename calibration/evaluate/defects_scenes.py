"""Scenes of another simulator as pictures with truth: scenes.json and <name>_SE.png, clean twins and reference dies."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset.outside import ALSO_CALLED
from calibration.dataset.outside import Picture as Read
from calibration.evaluate.defects_pixels import eight_bits
from calibration.evaluate.defects_truth import (
    LEAST_PX,
    LEAST_SNR,
    Box,
    Case,
    Picture,
    PictureSet,
    Reader,
    SetError,
    Split,
    TrueDefect,
    checked,
)
from calibration.evaluate.scenes import LIST, PIXELS_M
from calibration.train.defects_outside import BORDER_PX
from engines.defects import CLASSES
from engines.scene import Scene

ENDING = "_SE.png"
UNKNOWN = "unknown"  # a defect of no class that anybody taught
ABOVE, BELOW = "above", "below"
SPLITS = {  # group -> split
    "lines": "lines and contacts",
    "holes": "lines and contacts",
    "focus": "focus series",
}
PURPOSES = {"lines and contacts": "another simulator, in focus", "focus series": "the same, other probes"}
OTHER = "other scenes"

Entry = Mapping[str, Any]


def open_scenes(folder: Path, reader: Reader) -> PictureSet:
    """Raises SetError for a list that contradicts itself, lacks something, or names files that are not there."""
    path = folder / LIST
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SetError(f"{path}: not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise SetError(f"{path}: a list of scenes is expected, and at least one in it")
    scenes = [_entry(number, each) for number, each in enumerate(entries, 1)]
    _check_names(path, scenes)
    told = [each for each in scenes if _labelled(each)]
    if not told:
        raise SetError(f"{path}: no scene has a defect or is told to be defect_free; nothing to evaluate")
    for each in told:
        _check_file(folder, str(each["name"]))
    names = list(dict.fromkeys(_split(each) for each in told))
    splits = tuple(Split(name, PURPOSES.get(name, "another simulator")) for name in names)
    notes = [f"what is centred within {BORDER_PX} px of a scene's edge is not looked at: the simulation ends there"]
    if len(told) < len(scenes):
        notes.append(f"{len(scenes) - len(told)} scenes without a defect that are not told to be defect_free: left out")
    return PictureSet(folder, "scenes", splits, len(told), partial(_pictures, folder, told, reader), tuple(notes))


def _pictures(folder: Path, scenes: list[Entry], reader: Reader) -> Iterator[Picture]:
    dies = {str(each["reference_of"]): str(each["name"]) for each in scenes if each.get("reference_of")}
    for each in scenes:
        name = str(each["name"])
        image = _pixels(folder, name, reader)
        die = dies.get(name) or dies.get(str(each.get("twin_of")))  # a clean twin has the design of its scene
        golden = None if die is None else _pixels(folder, die, reader)
        if golden is not None and golden.shape != image.shape:
            raise SetError(f"{folder}: {die} is the reference of {name} and of another size")
        yield Picture(checked(_case(each, image)), image, golden)


def _pixels(folder: Path, name: str, reader: Reader) -> NDArray[np.uint8]:
    read: Read = reader(folder / f"{name}{ENDING}")
    return eight_bits(read.pixels)


def _case(entry: Entry, image: NDArray[np.uint8]) -> Case:
    size_m = _number(entry, "pixel_size_m")
    if size_m is None or not PIXELS_M[0] <= size_m <= PIXELS_M[1]:
        raise SetError(f"scene {entry['name']}: pixel_size_m = {size_m}; metres are expected")
    return Case(
        key=str(entry["name"]),
        split=_split(entry),
        specimen=str(entry.get("repeat_of") or entry.get("twin_of") or entry["name"]),
        shape=(image.shape[0], image.shape[1]),
        scene=Scene(size_m, _number(entry, "electrons_per_pixel"), _number(entry, "accelerating_voltage_v")),
        truth=tuple(_defect(entry, each, size_m) for each in entry["defects"]),
        pixel_size_m=size_m,
        border_px=BORDER_PX,
    )


# --- one entry ---


def _entry(number: int, entry: Any) -> Entry:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        raise SetError(f"{LIST}: entry {number}: an object with a name is expected")
    name = entry["name"]
    if Path(name).name != name or "\0" in name:
        raise SetError(f"{LIST}: entry {number}: name = {name!r}; a plain file name is expected")
    defects, clean = entry.get("defects"), entry.get("defect_free", False)
    if not isinstance(defects, list) or not isinstance(clean, bool):
        raise SetError(f"scene {name}: `defects` (a list) and `defect_free` (true or false) are expected")
    if clean and defects:
        raise SetError(f"scene {name}: told to be defect_free, and {len(defects)} defects are listed: mend one of them")
    return entry


def _check_names(path: Path, scenes: list[Entry]) -> None:
    names = Counter(str(each["name"]) for each in scenes)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise SetError(f"{path}: {twice[0]} is listed {names[twice[0]]} times; names must differ")
    for each in scenes:
        for word in ("reference_of", "twin_of", "repeat_of"):
            other = each.get(word)
            if other is not None and other not in names:
                raise SetError(f"{path}: {each['name']} is {word} {other}, and no scene has this name")
        if (each.get("reference_of") or each.get("twin_of")) and each["defects"]:
            raise SetError(f"{path}: {each['name']} is a reference, and {len(each['defects'])} defects are in it")


def _check_file(folder: Path, name: str) -> None:
    if not (folder / f"{name}{ENDING}").is_file():
        raise SetError(f"{folder / name}{ENDING}: missing, and {LIST} names it")


def _labelled(entry: Entry) -> bool:
    return bool(entry["defects"]) or bool(entry.get("defect_free"))


def _split(entry: Entry) -> str:
    return SPLITS.get(str(entry.get("group")), OTHER)


def _defect(entry: Entry, defect: Any, pixel_size_m: float) -> TrueDefect:
    name, limit = entry["name"], defect.get("limit") if isinstance(defect, dict) else None
    if not isinstance(defect, dict) or limit not in (None, ABOVE, BELOW):
        raise SetError(f"scene {name}: limit = {limit!r} of a defect; {ABOVE} or {BELOW} is expected")
    matched, area = _number(defect, "contrast_chi_se"), _number(defect, "area_px")
    if limit == ABOVE and matched is not None and matched < LEAST_SNR:
        raise SetError(
            f"scene {name}: a {defect.get('class')} is told to be {ABOVE} the limit with contrast_chi_se {matched:g}; "
            f"at least {LEAST_SNR:g} is expected: mend one of the two"
        )
    clear = limit == ABOVE or (limit is None and (matched is None or matched >= LEAST_SNR))
    large = area is None or area >= LEAST_PX
    return TrueDefect(
        name=_class(defect.get("class"), str(name)),
        box_px=_box(defect.get("box_px"), str(name)),
        visible=clear and large,
        area_px=area,
        pitch_share=_pitch_share(entry, area, pixel_size_m),
        matched=matched,
    )


def _class(said: Any, name: str) -> str:
    ours = ALSO_CALLED.get(str(said), str(said))
    if ours not in (*CLASSES, UNKNOWN):
        known = ", ".join((*CLASSES, UNKNOWN))
        raise SetError(f"scene {name}: class {said!r} is none of ours: {known}")
    return ours


def _box(box: Any, name: str) -> Box:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        raise SetError(f"scene {name}: box_px = {box!r}; [x0, y0, x1, y1] in pixels is expected")
    x0, y0, x1, y1 = (float(side) for side in box)
    return x0, y0, x1, y1


def _pitch_share(entry: Entry, area_px: float | None, pixel_size_m: float) -> float | None:
    geometry = entry.get("geometry")
    pitch_nm = _number(geometry, "pitch_nm") if isinstance(geometry, dict) else None
    if not pitch_nm or area_px is None:
        return None
    return math.sqrt(area_px) * pixel_size_m * 1e9 / pitch_nm


def _number(entry: Entry, field: str) -> float | None:
    value = entry.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SetError(f"scene {entry.get('name', '')}: {field} = {value!r}; a number is expected")
    return float(value)
