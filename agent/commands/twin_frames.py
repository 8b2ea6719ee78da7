"""The frames that `beamside calibrate twin` fits to: pictures or counts, with the geometry that is beside them.

A frame of a Monte Carlo folder brings its heights, probe, voltage and material; else heights from a folder, a
line-space from a file beside the frame, or one line-space for all.
"""

import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.bridges.files import read_image
from agent.errors import BeamsideError, ImageError, UsageError
from agent.messages import Optics

if TYPE_CHECKING:
    from calibration.fit.geometry import Measures
    from calibration.fit.sample import Sample

SCENES, COUNTS, HEIGHTS_NM = "scenes.json", "_SE.npy", "_height_px_nm.npy"
SIDECARS = (".toml", ".json")
SIDECAR_KEYS = ("pitch_m", "cd_m", "height_m", "side_wall_deg", "rounding_m", "pixel_size_m")
VOLTAGES = ("landing_energy_ev", "accelerating_voltage_v")  # of a scene: what lands counts, where both are told
NM = 1e-9

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Asked:
    """What the options say of every frame that nothing else is known of."""

    heights: Path | None = None
    measures: "Measures | None" = None
    pixel_size_m: float | None = None
    black: float | None = None
    free_offset: bool = False  # for electrons too, which otherwise have none where there is no signal
    fit_probe: bool = False
    window_px: int = 256


@dataclass(frozen=True)
class Picture:
    """A frame as it was read: levels without the data bar."""

    path: Path
    pixels: NDArray[Any]  # (h, w)
    optics: Optics
    counts: bool


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

    picture, beside = _picture(path), _sidecar(path)
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
        geometry=_geometry(picture, levels, cut, _Beside(beside, asked, size)),
        counts=picture.counts,
        black=_black(asked, counts=picture.counts),
        voltage_v=picture.optics.landing_energy_ev or picture.optics.accelerating_voltage_v,
    )


def _black(asked: Asked, *, counts: bool) -> float | None:
    """A free offset leaves open how strong all contrasts are together: where black is known it is used."""
    if asked.black is not None or asked.free_offset:
        return asked.black
    return 0.0 if counts else None


@dataclass(frozen=True)
class _Beside:
    sidecar: dict[str, float]
    asked: Asked
    pixel_size_m: float


def _geometry(picture: Picture, levels: NDArray[np.float32], cut: Window, of: _Beside) -> Any:
    from calibration.fit.align import aligned
    from calibration.fit.errors import FitError
    from calibration.fit.geometry import known

    measures = of.asked.measures
    try:
        if of.asked.heights is not None and (at := _heights_at(of.asked.heights, picture.path)) is not None:
            height_m = _heights(at, picture)
            return known(np.ascontiguousarray(height_m[cut]), pixel_size_m=of.pixel_size_m, exact=False)
        if any(key in of.sidecar for key in SIDECAR_KEYS[:3]):
            measures = _measures(of.sidecar)
        if measures is None:
            raise BeamsideError(_no_geometry(picture.path, of.asked.heights))
        return aligned(levels, measures, of.pixel_size_m)
    except FitError as error:
        raise BeamsideError(f"{picture.path}: {error}") from error


def _no_geometry(path: Path, heights: Path | None) -> str:
    if heights is not None:
        return f"{path}: neither {path.stem}{HEIGHTS_NM} nor {path.stem}.npy in {heights}; add its heights"
    return f"{path}: nothing is known of its geometry; give --heights, --pitch-m and others, or {path.stem}.toml"


def _measures(sidecar: dict[str, float]) -> "Measures":
    from calibration.fit.errors import FitError
    from calibration.fit.geometry import Measures

    known = {key: value for key, value in sidecar.items() if key != "pixel_size_m"}
    missing = [key for key in SIDECAR_KEYS[:3] if key not in known]
    if missing:
        raise FitError(f"its line-space has no {missing[0]}; {', '.join(SIDECAR_KEYS[:3])} are needed")
    return Measures(**known)


def _picture(path: Path) -> Picture:
    if path.suffix.lower() == ".npy":
        return Picture(path, _plane(path), Optics(), counts=True)
    pixels, optics = read_image(path)
    rows = optics.databar_rows or 0
    return Picture(path, pixels[: pixels.shape[0] - rows], optics, counts=False)


def _heights_at(folder: Path, path: Path) -> Path | None:
    names = (path.stem + HEIGHTS_NM, path.stem + ".npy")
    found = (folder / name for name in (path.stem.removesuffix("_SE") + HEIGHTS_NM, *names))
    return next((each for each in found if each.is_file() and each.resolve() != path.resolve()), None)


def _heights(at: Path, picture: Picture) -> NDArray[np.float32]:
    plane, wanted = _plane(at), picture.pixels.shape
    if plane.shape[1] != wanted[1] or plane.shape[0] not in (wanted[0], wanted[0] + (picture.optics.databar_rows or 0)):
        told = "{1}x{0} px".format(*plane.shape)
        raise BeamsideError(f"{at}: {told}, but {picture.path.name} has {wanted[1]}x{wanted[0]} px; make them fit")
    scale = NM if at.name.endswith(HEIGHTS_NM) else 1.0
    return np.asarray(plane[: wanted[0]] * scale, np.float32)


def _plane(path: Path) -> NDArray[np.float64]:
    try:
        read = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise ImageError(f"{path}: not an array as numpy.save writes it: {error}") from error
    if not isinstance(read, np.ndarray) or read.ndim != 2 or 0 in read.shape or read.dtype.kind not in "uif":
        raise ImageError(f"{path}: expected a plane of numbers (h, w)")
    return np.asarray(read, np.float64)


def _sidecar(path: Path) -> dict[str, float]:
    """Numbers from <stem>.toml or <stem>.json beside the frame; empty without one."""
    at = next((path.with_suffix(end) for end in SIDECARS if path.with_suffix(end).is_file()), None)
    if at is None:
        return {}
    try:
        text = at.read_text(encoding="utf-8")
        raw = tomllib.loads(text) if at.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BeamsideError(f"{at}: cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise BeamsideError(f"{at}: expected names and numbers, found {type(raw).__name__}")
    for key, value in raw.items():
        if key not in SIDECAR_KEYS:
            raise BeamsideError(f"{at}: {key} is not known; known are {', '.join(SIDECAR_KEYS)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BeamsideError(f"{at}: {key} = {value!r}; expected a number, in metres or degrees")
    return {key: float(value) for key, value in raw.items()}


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
