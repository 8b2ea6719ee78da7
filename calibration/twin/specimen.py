"""What lies under the beam: name, shape, pixel size and seed in; an emission map (h, w) float32 in 0..1 out.

A map holds detail down to two or three pixels, so that a frame in focus is crisp and one out of focus is not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from calibration.twin import layout, texture

Field = NDArray[np.float32]

NAMES: tuple[str, ...] = ("line-space", "contact-holes", "tin-balls", "grains", "cells", "sparse", "flat")
TEXTURED: tuple[str, ...] = NAMES[:5]
FLAT_LEVEL = 0.4

RENDERERS: dict[str, Callable[..., Field]] = {
    "line-space": layout.line_space,
    "contact-holes": layout.contact_holes,
    "tin-balls": texture.tin_balls,
    "grains": texture.grains,
    "cells": texture.cells,
    "sparse": texture.sparse,
}


class SpecimenError(Exception):
    """The specimen's name is unknown, or its picture cannot be read."""


def make(name: str, shape: tuple[int, int], *, pixel_size_m: float, seed: int) -> Field:
    """The named specimen's emission; the same seed gives the same bytes."""
    if name == "flat":
        return np.full(shape, FLAT_LEVEL, np.float32)
    if name not in RENDERERS:
        raise SpecimenError(f"unknown specimen {name!r}; known are {', '.join(NAMES)}, or an image file")
    rng = np.random.default_rng([seed, NAMES.index(name)])
    return RENDERERS[name](shape, pixel_size_m=pixel_size_m, rng=rng)


def from_image(path_or_array: str | Path | NDArray[Any], shape: tuple[int, int], *, seed: int) -> Field:
    """Any picture as texture: a seeded crop, shrunk up to two times where it is big enough (that takes the file's own
    noise away), mirrored outwards where it is too small, stretched from its 0.5 to its 99.5 percentile."""
    picture = path_or_array if isinstance(path_or_array, np.ndarray) else _read(Path(path_or_array))
    grey = _grey(picture)
    shrink = min(grey.shape[0] / shape[0], grey.shape[1] / shape[1], 2.0)
    if shrink > 1.0:
        size = (max(round(grey.shape[1] / shrink), shape[1]), max(round(grey.shape[0] / shrink), shape[0]))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    rng = np.random.default_rng([seed, len(NAMES)])
    top = int(rng.integers(0, max(grey.shape[0] - shape[0], 0) + 1))
    left = int(rng.integers(0, max(grey.shape[1] - shape[1], 0) + 1))
    cut = window(grey, top, left, shape=shape)
    low, high = np.percentile(cut, [0.5, 99.5])
    if high <= low:  # all but a few pixels are alike
        low, high = float(cut.min()), float(cut.max())
    if high <= low:
        return np.full(shape, FLAT_LEVEL, np.float32)
    return np.asarray(0.05 + 0.9 * np.clip((cut - low) / (high - low), 0.0, 1.0), np.float32)


def window(plane: Field, top: int, left: int, *, shape: tuple[int, int]) -> Field:
    """A rectangle of the plane, which goes on for ever as its own mirror image."""
    rows = _fold(np.arange(top, top + shape[0]), plane.shape[0])
    columns = _fold(np.arange(left, left + shape[1]), plane.shape[1])
    return np.ascontiguousarray(plane[rows][:, columns])


def _fold(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    period = max(2 * size - 2, 1)
    folded = np.mod(index, period)
    return np.minimum(folded, period - folded) if size > 1 else np.zeros_like(index)


def _read(path: Path) -> NDArray[Any]:
    """Decoded by content, never by suffix; 8 or 16 bit, grey or colour."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SpecimenError(f"specimen {path}: {error.strerror}") from error
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is not None:
        return np.asarray(picture)
    try:
        return np.asarray(tifffile.imread(path))
    except (tifffile.TiffFileError, ValueError) as error:
        raise SpecimenError(f"specimen {path}: not a picture that can be read ({error})") from error


def _grey(picture: NDArray[Any]) -> Field:
    if picture.ndim == 3 and picture.shape[2] in (3, 4):
        return np.asarray(picture[..., :3].astype(np.float32).mean(axis=2), np.float32)
    if picture.ndim == 3:
        return np.asarray(picture[0], np.float32)
    if picture.ndim != 2:
        raise SpecimenError(f"a specimen's picture has two dimensions, this one has shape {picture.shape}")
    return np.asarray(picture, np.float32)
