"""A folder of simulated scenes with exact heights: scenes.json, <name>_SE.npy (counts), <name>_height_px_nm.npy.

What one scene lacks is told of that scene alone; only a list that cannot be read at all ends the whole.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

LIST = "scenes.json"
COUNTS, HEIGHTS = "_SE.npy", "_height_px_nm.npy"
NM = 1e-9
SMALLEST_PX = 16  # a side: the 5x5 box and the spectra need some ground
WIDEST = 0.25  # of the shorter side: a wider probe leaves nothing to compare
PIXELS_M = (1e-12, 1e-3)  # what is called a pixel size; outside it a unit went wrong
ROUND = 1e-3  # of sigma: axes that differ by less have no direction


class SceneError(Exception):
    """A folder or a scene that cannot be judged: what, where, which value, what to do."""


@dataclass(frozen=True)
class Scene:
    """What the list says of one scene."""

    name: str
    group: str
    pixel_size_m: float
    probe_sigma_m: tuple[float, float]  # major, minor axis of a Gaussian
    probe_angle_deg: float  # of the major axis, from +x towards +y, y down
    series: str | None = None
    repeat_of: str | None = None  # the same sample, other electrons
    fitted: bool | None = None  # were the constants fitted to it? None: nobody says

    @property
    def kind(self) -> str:
        """What it is counted with: its series where it belongs to one."""
        return self.series or self.group


@dataclass(frozen=True)
class Unread:
    """A scene that cannot be used, and why."""

    name: str
    error: str


@dataclass(frozen=True)
class Recording:
    """A scene with its arrays."""

    scene: Scene
    height_m: Field  # (h, w) up is positive
    counts: Field  # (h, w) secondary electrons a pixel, noise included


def listed(folder: Path) -> list[Scene | Unread]:
    """The scenes in the order of the list. Raises SceneError when there is no list, or nothing in it."""
    path = folder / LIST
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}; SCENES is a folder that holds {LIST} and the arrays") from error
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path}: not JSON: {error}") from error
    if not isinstance(entries, list):
        raise SceneError(f"{path}: expected a list of scenes, found {type(entries).__name__}")
    if not entries:
        raise SceneError(f"{path}: the list is empty; nothing to evaluate")
    return _once([_entry(number, entry) for number, entry in enumerate(entries, start=1)])


def load(folder: Path, scene: Scene) -> Recording:
    """Raises SceneError that names the file when an array is missing, broken or does not fit."""
    counts_at, heights_at = (folder / f"{scene.name}{ending}" for ending in (COUNTS, HEIGHTS))
    counts, height_nm = _array(counts_at), _array(heights_at)
    if counts.shape != height_nm.shape:
        told = " and ".join("x".join(map(str, a.shape)) for a in (counts, height_nm))
        raise SceneError(f"{counts_at.name} and {heights_at.name} do not fit: {told} px; both must have one shape")
    widest_m = WIDEST * min(counts.shape) * scene.pixel_size_m
    if scene.probe_sigma_m[0] > widest_m:
        raise SceneError(f"probe_sigma_m = {scene.probe_sigma_m[0]:g}; expected at most {widest_m:g} in this field")
    if counts.min() < 0.0:
        raise SceneError(f"{counts_at.name}: lowest value {counts.min():g}; counts of electrons are not below zero")
    if counts.min() == counts.max():
        raise SceneError(f"{counts_at.name}: every pixel is {counts.max():g}; a picture without contrast has no range")
    return Recording(scene, np.asarray(height_nm * NM, np.float32), np.asarray(counts, np.float32))


def _array(path: Path) -> NDArray[np.float64]:
    try:
        read = np.load(path, allow_pickle=False)
    except OSError as error:
        raise SceneError(f"{path.name}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise SceneError(f"{path.name}: not an array as numpy.save writes it: {error}") from error
    if not isinstance(read, np.ndarray) or read.ndim != 2 or read.dtype.kind not in "uif":
        raise SceneError(f"{path.name}: expected a plane of numbers [h, w], found {_shape_of(read)}")
    if min(read.shape) < SMALLEST_PX:
        raise SceneError(f"{path.name}: {_shape_of(read)}; at least {SMALLEST_PX} px a side are needed")
    values = read.astype(np.float64)
    wild = int(np.count_nonzero(~np.isfinite(values)))
    if wild:
        y, x = np.argwhere(~np.isfinite(values))[0]
        raise SceneError(f"{path.name}: {wild} values are not finite, the first at x {x}, y {y}: {values[y, x]}")
    return values


def _shape_of(read: Any) -> str:
    if not isinstance(read, np.ndarray):
        return "an archive"
    return f"{'x'.join(map(str, read.shape)) or 'a single'} {read.dtype}"


# --- the list ---


def _entry(number: int, entry: Any) -> Scene | Unread:
    if not isinstance(entry, dict):
        return Unread(f"#{number}", f"entry {number} of {LIST}: expected an object, found {type(entry).__name__}")
    name = entry.get("name")
    if not isinstance(name, str) or not _is_plain(name):
        return Unread(f"#{number}", f"entry {number} of {LIST}: name = {name!r}; expected a plain file name")
    try:
        return _scene(name, entry)
    except SceneError as error:
        return Unread(name, str(error))


def _is_plain(name: str) -> bool:
    """Files are read and renders written under it: it must not lead elsewhere."""
    return bool(name) and name != ".." and Path(name).name == name and not any(sign in name for sign in "\\\0")


def _scene(name: str, entry: dict[str, Any]) -> Scene:
    sigma = entry.get("probe_sigma_m")
    if not isinstance(sigma, list) or len(sigma) != 2:
        raise SceneError(f"probe_sigma_m = {sigma!r}; expected [major, minor] in metres")
    major, minor = (_number("probe_sigma_m", value) for value in sigma)
    pixel_size_m = _number("pixel_size_m", entry.get("pixel_size_m"))
    if not PIXELS_M[0] <= pixel_size_m <= PIXELS_M[1]:
        raise SceneError(f"pixel_size_m = {pixel_size_m:g}; expected metres, {PIXELS_M[0]:g} to {PIXELS_M[1]:g}")
    if not major >= minor >= 0.0:
        raise SceneError(f"probe_sigma_m = {sigma!r}; expected major >= minor >= 0")
    angle = entry.get("probe_angle_deg")
    if angle is None and major - minor <= ROUND * major:
        angle = 0.0  # a round probe has none
    series, repeat_of = (_text(entry.get(key)) for key in ("series", "repeat_of"))
    group = _text(entry.get("group")) or "other"
    fitted = entry.get("fitted")
    if not (fitted is None or isinstance(fitted, bool)):
        raise SceneError(f"fitted = {fitted!r}; expected true or false, or nothing")
    axes = (major, minor)
    return Scene(name, group, pixel_size_m, axes, _number("probe_angle_deg", angle), series, repeat_of, fitted)


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SceneError(f"{field} = {value!r}; expected a number")
    return float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _once(scenes: list[Scene | Unread]) -> list[Scene | Unread]:
    """A name that comes twice would write one render over the other."""
    seen: set[str] = set()
    told: list[Scene | Unread] = []
    for scene in scenes:
        twice = isinstance(scene, Scene) and scene.name in seen
        told.append(Unread(scene.name, f"{LIST} names this scene twice; names must differ") if twice else scene)
        seen.add(scene.name)
    return told
