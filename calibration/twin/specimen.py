"""What lies under the beam: name, shape, pixel size and seed in; a surface, or its emission in 0..1, out.

An emission map holds detail down to two or three pixels, so that a frame in focus is crisp and one out of focus is not.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from calibration.twin import natural
from calibration.twin.emission import SILICON_1KEV, Emission, render, sky_view
from calibration.twin.patterns import PATTERNS
from calibration.twin.roughness import field
from calibration.twin.sketch import Sketch, surface_of
from calibration.twin.surface import SpecimenError as SpecimenError
from calibration.twin.surface import Surface

Field = NDArray[np.float32]
Shape = tuple[int, int]

NAMES: tuple[str, ...] = (
    "line-space",
    "contact-holes",
    "tin-balls",
    "grains",
    "cells",
    "sparse",
    "flat",
    "fibres",
    "particles",
    "logic",
    "pillars",
    "manhattan",
    "tip-to-tip",
    "jogs",
)
TEXTURED: tuple[str, ...] = NAMES[:5]
FLAT_LEVEL = 0.4
PICTURE = 7  # a specimen of its own to the generator, beside the places of NAMES: no new name changes its crops
MEAN = 0.3  # of an emission map: room for edges five times as bright as the rest
RMS = (0.33, 0.5)  # of a map, over its mean: black level and gain as an operator sets them; the least for patterns only
MOST_GAIN = 4.0
# Patterns of which a frame of some hundred pixels holds several periods: one edge alone does not say where focus is.
PITCH_PX = (14.0, 60.0)
GRAIN = 0.05  # of the yield, rms: without it a perfect pattern says nothing along its own direction
COARSE_SKY_PX = 300  # pictures wider than this see their sky at half the resolution

DRAWN: dict[str, str] = {  # specimen to pattern
    "line-space": "lines",
    "contact-holes": "contacts",
    "logic": "logic",
    "pillars": "pillars",
    "manhattan": "manhattan",
    "tip-to-tip": "tip_to_tip",
    "jogs": "jogs",
}
GROWN: dict[str, Callable[..., Surface]] = {
    "tin-balls": natural.tin_balls,
    "grains": natural.grains,
    "cells": natural.cells,
    "sparse": natural.sparse,
    "fibres": natural.fibres,
    "particles": natural.particles,
}


def make(name: str, shape: Shape, *, pixel_size_m: float, seed: int, how: Emission = SILICON_1KEV) -> Field:
    """The named specimen's emission (h, w), about 0.3 in the mean; the same seed gives the same bytes."""
    return shown(surface(name, shape, pixel_size_m=pixel_size_m, seed=seed), how)


def shown(seen: Surface, how: Emission = SILICON_1KEV) -> Field:
    """(h, w) emission of a surface, as an operator would set gain and black level; about 0.3 in the mean."""
    if seen.kind == "flat":
        return np.full(seen.shape, FLAT_LEVEL, np.float32)
    signal = lit(seen, how)
    patterned = seen.kind in (*DRAWN.values(), "mask")
    return _exposed(signal, gain=_operators_gain(signal, least=RMS[0] if patterned else 0.0))


def surface(name: str, shape: Shape, *, pixel_size_m: float, seed: int) -> Surface:
    """Heights and material of what `make` shows. Heights are measured from their mean: focus is on average at 0.

    Raises SpecimenError for an unknown name.
    """
    if name not in NAMES:
        raise SpecimenError(f"unknown specimen {name!r}; known are {', '.join(NAMES)}, or an image file")
    if name == "flat":
        return Surface(np.zeros(shape, np.float32), None, pixel_size_m, "flat")
    rng = np.random.default_rng([seed, NAMES.index(name)])
    if name in GROWN:
        return _levelled(GROWN[name](shape, pixel_size_m=pixel_size_m, rng=rng))
    layout: Sketch = PATTERNS[DRAWN[name]](shape, pixel_size_m=pixel_size_m, rng=rng, pitch_px=PITCH_PX)
    grain = field(shape, size_px=1.0, rng=rng) + 0.7 * field(shape, size_px=2.5, rng=rng)
    return _levelled(surface_of(layout.with_material(np.asarray(1.0 + GRAIN * grain, np.float32))))


def lit(seen: Surface, how: Emission = SILICON_1KEV) -> Field:
    """(h, w) relative yield of a surface."""
    return render(seen.height_m, how, pixel_size_m=seen.pixel_size_m, sky=_sky(seen), material=seen.material)


def _operators_gain(signal: Field, *, least: float) -> float:
    rms = max(float(signal.std() / signal.mean()), 1e-9)
    return min(float(np.clip(rms, least, RMS[1])) / rms, MOST_GAIN)


def _exposed(signal: Field, *, gain: float) -> Field:
    """Brought to the common mean; gain: contrast about it."""
    relative = signal * np.float32(1.0 / signal.mean()) - 1.0
    return np.asarray(np.clip(MEAN * (1.0 + np.float32(gain) * relative), 0.0, 1.0), np.float32)


def _sky(seen: Surface) -> Field:
    h, w = seen.shape
    if max(h, w) <= COARSE_SKY_PX:
        return sky_view(seen.height_m, pixel_size_m=seen.pixel_size_m)
    half = cv2.resize(seen.height_m, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
    sky = sky_view(np.asarray(half, np.float32), pixel_size_m=2.0 * seen.pixel_size_m)
    return np.asarray(cv2.resize(sky, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def _levelled(seen: Surface) -> Surface:
    return replace(seen, height_m=seen.height_m - np.float32(seen.height_m.mean()))


def from_image(path_or_array: str | Path | NDArray[Any], shape: tuple[int, int], *, seed: int) -> Field:
    """Any picture as texture: a seeded crop, shrunk up to two times where it is big enough (that takes the file's own
    noise away), mirrored outwards where it is too small, stretched from its 0.5 to its 99.5 percentile."""
    picture = path_or_array if isinstance(path_or_array, np.ndarray) else _read(Path(path_or_array))
    grey = _grey(picture)
    shrink = min(grey.shape[0] / shape[0], grey.shape[1] / shape[1], 2.0)
    if shrink > 1.0:
        size = (max(round(grey.shape[1] / shrink), shape[1]), max(round(grey.shape[0] / shrink), shape[0]))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    rng = np.random.default_rng([seed, PICTURE])
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
