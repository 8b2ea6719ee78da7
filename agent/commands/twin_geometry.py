"""What is known of the ground under a frame to fit to: heights from a folder, the design of its place, a line-space
from a file beside the frame, or one line-space for all."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.errors import BeamsideError, ImageError
from agent.messages import Optics

if TYPE_CHECKING:
    from calibration.fit.designed import Standing
    from calibration.fit.geometry import Geometry, Measures

HEIGHTS_NM = "_height_px_nm.npy"
SIDECARS = (".toml", ".json")
SIDECAR_KEYS = ("pitch_m", "cd_m", "height_m", "side_wall_deg", "rounding_m", "pixel_size_m")
NM = 1e-9

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Drawn:
    """Designs of the frames' own places, and what stands on them."""

    at: Path  # one picture, or a folder with one of each frame's name
    standing: "Standing"
    inverted: bool = False


@dataclass(frozen=True)
class Asked:
    """What the options say of every frame that nothing else is known of."""

    heights: Path | None = None
    measures: "Measures | None" = None
    drawn: "Drawn | None" = None
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


@dataclass(frozen=True)
class Beside:
    sidecar: dict[str, float]
    asked: Asked
    pixel_size_m: float


def geometry(picture: Picture, levels: NDArray[np.float32], cut: Window, of: Beside) -> "Geometry":
    from calibration.fit.align import aligned
    from calibration.fit.errors import FitError
    from calibration.fit.geometry import known

    measures = of.asked.measures
    try:
        if of.asked.heights is not None and (at := _heights_at(of.asked.heights, picture.path)) is not None:
            height_m = _heights(at, picture)
            return known(np.ascontiguousarray(height_m[cut]), pixel_size_m=of.pixel_size_m, exact=False)
        if of.asked.drawn is not None:
            return _of_design(picture, cut, of.asked.drawn, pixel_size_m=of.pixel_size_m)
        if any(key in of.sidecar for key in SIDECAR_KEYS[:3]):
            measures = _measures(of.sidecar)
        if measures is None:
            raise BeamsideError(_no_geometry(picture.path, of.asked.heights))
        return aligned(levels, measures, of.pixel_size_m)
    except FitError as error:
        raise BeamsideError(f"{picture.path}: {error}") from error


def _of_design(picture: Picture, cut: Window, drawn: Drawn, *, pixel_size_m: float) -> "Geometry":
    """The design is drawn to the frame's size: both show the same place."""
    from calibration.fit.designed import designed
    from calibration.twin import mask
    from calibration.twin.surface import SpecimenError

    path, (height, width) = picture.path, picture.pixels.shape[:2]
    at = drawn.at if drawn.at.is_file() else drawn.at / path.name
    try:
        design = mask.read(at, pixel_size_m=pixel_size_m, inverted=drawn.inverted)
    except SpecimenError as error:
        raise BeamsideError(f"{path}: {error}") from error
    cover = np.asarray(cv2.resize(design.cover, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    levels = np.asarray(picture.pixels, np.float32)
    return designed(levels, cover, window=cut, standing=drawn.standing, pixel_size_m=pixel_size_m)


def _no_geometry(path: Path, heights: Path | None) -> str:
    if heights is not None:
        return f"{path}: neither {path.stem}{HEIGHTS_NM} nor {path.stem}.npy in {heights}; add its heights"
    return f"{path}: nothing tells its geometry; give --heights, --design, --pitch-m and others, or {path.stem}.toml"


def _measures(sidecar: dict[str, float]) -> "Measures":
    from calibration.fit.errors import FitError
    from calibration.fit.geometry import Measures

    known = {key: value for key, value in sidecar.items() if key != "pixel_size_m"}
    missing = [key for key in SIDECAR_KEYS[:3] if key not in known]
    if missing:
        raise FitError(f"its line-space has no {missing[0]}; {', '.join(SIDECAR_KEYS[:3])} are needed")
    return Measures(**known)


def _heights_at(folder: Path, path: Path) -> Path | None:
    names = (path.stem + HEIGHTS_NM, path.stem + ".npy")
    found = (folder / name for name in (path.stem.removesuffix("_SE") + HEIGHTS_NM, *names))
    return next((each for each in found if each.is_file() and each.resolve() != path.resolve()), None)


def _heights(at: Path, picture: Picture) -> NDArray[np.float32]:
    heights, wanted = plane(at), picture.pixels.shape
    with_databar = wanted[0] + (picture.optics.databar_rows or 0)
    if heights.shape[1] != wanted[1] or heights.shape[0] not in (wanted[0], with_databar):
        told = "{1}x{0} px".format(*heights.shape)
        raise BeamsideError(f"{at}: {told}, but {picture.path.name} has {wanted[1]}x{wanted[0]} px; make them fit")
    scale = NM if at.name.endswith(HEIGHTS_NM) else 1.0
    return np.asarray(heights[: wanted[0]] * scale, np.float32)


def plane(path: Path) -> NDArray[np.float64]:
    try:
        read = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise ImageError(f"{path}: not an array as numpy.save writes it: {error}") from error
    if not isinstance(read, np.ndarray) or read.ndim != 2 or 0 in read.shape or read.dtype.kind not in "uif":
        raise ImageError(f"{path}: expected a plane of numbers (h, w)")
    return np.asarray(read, np.float64)


def sidecar_of(path: Path) -> dict[str, float]:
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
