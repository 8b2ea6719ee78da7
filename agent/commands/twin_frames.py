"""The frames that `beamside calibrate twin` fits to: pictures or counts, with the geometry that is beside them.

A frame of a Monte Carlo folder brings its heights, probe, voltage and material; else heights from a folder, the
design of its place, a line-space from a file beside the frame, or one line-space for all.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.bridges.files import read_image
from agent.commands.twin_geometry import Asked, Beside, Picture, Window, geometry, plane, sidecar_of
from agent.errors import BeamsideError, UsageError
from agent.messages import Optics

if TYPE_CHECKING:
    from calibration.fit.sample import Sample

SCENES, COUNTS = "scenes.json", "_SE.npy"
VOLTAGES = ("landing_energy_ev", "accelerating_voltage_v")  # of a scene: what lands counts, where both are told


def samples_in(paths: list[Path], asked: Asked) -> "list[Sample]":
    """In the order given; a folder with scenes.json is all its scenes. Raises BeamsideError for the first bad one."""
    if not paths:
        raise UsageError("no frames: give some pictures with known or assumed geometry")
    found = [sample for path in paths for sample in _of(path, asked)]
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice: each frame counts once")
    return found


def _of(path: Path, asked: Asked) -> "list[Sample]":
    if path.is_dir():
        return _scenes(path, None, asked)
    if path.name.endswith(COUNTS) and (path.parent / SCENES).is_file() and asked.heights is None:
        return _scenes(path.parent, path.name.removesuffix(COUNTS), asked)
    return [_frame(path, asked)]


# --- Monte Carlo ---


def _scenes(folder: Path, name: str | None, asked: Asked) -> "list[Sample]":
    from calibration.evaluate.scenes import Scene, SceneError, listed

    try:
        entries = [each for each in listed(folder) if name is None or each.name == name]
        if not entries:
            raise BeamsideError(f"{folder / SCENES} does not list {name}; add it, or give its heights by --heights")
        bad = next((each for each in entries if not isinstance(each, Scene)), None)
        if bad is not None:
            raise BeamsideError(f"{folder / SCENES}: {bad.name}: {getattr(bad, 'error', 'cannot be read')}")
        facts = _facts(folder)
        scenes = [each for each in entries if isinstance(each, Scene)]
        return [_scene(folder, each, facts[each.name], asked) for each in scenes]
    except SceneError as error:
        raise BeamsideError(str(error)) from error


@dataclass(frozen=True)
class _Facts:
    """What the list says of a scene's beam and specimen, beside what every scene must have; None: nothing."""

    voltage_v: float | None
    material: str | None


def _facts(folder: Path) -> dict[str, _Facts]:
    """By scene; the list was read before and is one."""
    entries = json.loads((folder / SCENES).read_text(encoding="utf-8"))
    named = [each for each in entries if isinstance(each, dict) and isinstance(each.get("name"), str)]
    return {each["name"]: _Facts(_voltage_v(folder, each), _material(folder, each)) for each in named}


def _voltage_v(folder: Path, entry: dict[str, Any]) -> float | None:
    name, value = next(((name, entry[name]) for name in VOLTAGES if entry.get(name) is not None), ("", None))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        where = f"{folder / SCENES}: {entry['name']}"
        raise BeamsideError(f"{where}: {name} = {value!r}; expected volts, a number above zero")
    return float(value)


def _material(folder: Path, entry: dict[str, Any]) -> str | None:
    from calibration.twin.matter import MATERIALS

    value = entry.get("material")
    if value is None or value in MATERIALS:
        return value
    where = f"{folder / SCENES}: {entry['name']}"
    raise BeamsideError(f"{where}: material = {value!r}; expected one of {', '.join(MATERIALS)}, or none (silicon)")


def _scene(folder: Path, scene: Any, facts: _Facts, asked: Asked) -> "Sample":
    from calibration.evaluate.scenes import load
    from calibration.fit.geometry import known
    from calibration.fit.sample import Sample
    from calibration.twin.profile import Spot

    read = load(folder, scene)
    major, minor = scene.probe_sigma_m
    spot = Spot(major, minor, math.radians(scene.probe_angle_deg))
    return Sample(
        name=scene.name,
        sha256=_sha256(folder / f"{scene.name}{COUNTS}"),
        levels=read.counts,
        valid=np.ones(read.counts.shape, np.bool_),
        pixel_size_m=scene.pixel_size_m,
        geometry=known(read.height_m, pixel_size_m=scene.pixel_size_m, exact=True),
        counts=True,
        black=_black(asked, counts=True),
        spot=None if asked.fit_probe else spot,
        voltage_v=facts.voltage_v,
        material=facts.material,
    )


# --- pictures and counts ---


def _frame(path: Path, asked: Asked) -> "Sample":
    from calibration.fit.sample import Sample, valid_of

    picture, beside = _picture(path), sidecar_of(path)
    size = _pixel_size(picture, beside, asked)
    cut = _middle(picture.pixels.shape, asked.window_px)
    pixels = np.ascontiguousarray(picture.pixels[cut])
    levels = np.asarray(pixels, np.float32)
    return Sample(
        name=path.stem,
        sha256=_sha256(path),
        levels=levels,
        valid=valid_of(pixels if not picture.counts else levels, cut_out=pixels.shape != picture.pixels.shape),
        pixel_size_m=size,
        geometry=geometry(picture, levels, cut, Beside(beside, asked, size)),
        counts=picture.counts,
        black=_black(asked, counts=picture.counts),
        voltage_v=picture.optics.landing_energy_ev or picture.optics.accelerating_voltage_v,
    )


def _black(asked: Asked, *, counts: bool) -> float | None:
    """A free offset leaves open how strong all contrasts are together: where black is known it is used."""
    if asked.black is not None or asked.free_offset:
        return asked.black
    return 0.0 if counts else None


def _picture(path: Path) -> Picture:
    if path.suffix.lower() == ".npy":
        return Picture(path, plane(path), Optics(), counts=True)
    pixels, optics = read_image(path)
    rows = optics.databar_rows or 0
    return Picture(path, pixels[: pixels.shape[0] - rows], optics, counts=False)


def _pixel_size(picture: Picture, sidecar: dict[str, float], asked: Asked) -> float:
    size = asked.pixel_size_m or sidecar.get("pixel_size_m") or picture.optics.pixel_size_m
    if size is None:
        raise BeamsideError(f"{picture.path}: says nothing of its pixel size; give --pixel-size-m")
    if not (math.isfinite(size) and 0.0 < size < 1.0):
        raise BeamsideError(f"{picture.path}: pixel size {size:g} m; expected a length above zero, in metres")
    return size


def _middle(shape: tuple[int, ...], longest: int) -> Window:
    """All of a small frame, the middle of a large one: more pixels tell no more about a handful of constants."""
    spans = []
    for side in shape[:2]:
        first = max((side - longest) // 2, 0)
        spans.append(slice(first, first + min(side, longest)))
    return spans[0], spans[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
