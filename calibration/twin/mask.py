"""Designs from files: a binary picture of a known pixel size (a mask, a layout, a printed contour) into a sketch.

`read` gives a `Design`; `sketch_of` crops it, prints it with a process and gives what stands on the wafer.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.distance import signed_distance
from calibration.twin.process import FWHM, Process, aerial
from calibration.twin.roughness import roughened_outline
from calibration.twin.sketch import Sketch, standing
from calibration.twin.surface import SpecimenError

Field = NDArray[np.float32]

BETWEEN_SHARE = 0.02  # of the pixels may lie between black and white: drawings are smoothed at their edges
EXTREME = 0.05  # of the full range: so near to an end a pixel is black or white


@dataclass(frozen=True)
class Design:
    """What a layer should look like."""

    cover: Field  # (h, w) covered share of each pixel, 0..1: 1 where material is to stand
    pixel_size_m: float
    source: str

    @cached_property
    def width_px(self) -> float:
        """Twice the covered area over the length of the edges: the width of a long line."""
        return float(2.0 * self.cover.sum() / _edge_px(self.cover))

    @cached_property
    def pitch_px(self) -> float:
        """The local scale: width and space together where they alternate, three times the smaller where one is rare."""
        both = float(2.0 * self.cover.size / _edge_px(self.cover))
        return min(both, 3.0 * min(self.width_px, both - self.width_px))


def read(path: Path, *, pixel_size_m: float | None, inverted: bool = False) -> Design:
    """A picture file; white is material unless inverted. Raises SpecimenError for what is no design."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SpecimenError(f"design {path}: {error.strerror}") from error
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None:
        raise SpecimenError(f"design {path}: not a picture that can be read; PNG, TIFF or BMP are")
    return of_picture(np.asarray(picture), pixel_size_m=pixel_size_m, source=str(path), inverted=inverted)


def of_picture(
    picture: NDArray[Any], *, pixel_size_m: float | None, source: str = "picture", inverted: bool = False
) -> Design:
    """picture: (h, w) or (h, w, channels) of any type with two levels."""
    if pixel_size_m is None or not (np.isfinite(pixel_size_m) and pixel_size_m > 0.0):
        raise SpecimenError(
            f"design {source}: pixel size {pixel_size_m} m; a picture has no scale, give a positive one"
        )
    grey = picture[..., :3].astype(np.float32).mean(axis=2) if picture.ndim == 3 else picture.astype(np.float32)
    if grey.ndim != 2 or min(grey.shape) < 2 or not np.isfinite(grey).all():
        raise SpecimenError(f"design {source}: shape {picture.shape}; needs finite numbers in two dimensions")
    low, high = float(grey.min()), float(grey.max())
    if high <= low:
        raise SpecimenError(f"design {source}: empty, every pixel is {low:g}")
    cover = (grey - low) / (high - low)
    between = float(np.mean((cover > EXTREME) & (cover < 1.0 - EXTREME)))
    if between > BETWEEN_SHARE:
        raise SpecimenError(f"design {source}: not binary, {between:.0%} of its pixels are grey; cut it at a threshold")
    return Design(np.asarray(1.0 - cover if inverted else cover, np.float32), pixel_size_m, source)


def coarser(design: Design, factor: int) -> Design:
    """Pixels so many times as large, each with the covered share of those it is made of: a field prints faster."""
    if factor <= 1 or min(design.cover.shape) < 2 * factor:
        return design
    h, w = (side // factor * factor for side in design.cover.shape)
    blocks = design.cover[:h, :w].reshape(h // factor, factor, w // factor, factor)
    cover = np.asarray(blocks.mean(axis=(1, 3)), np.float32)
    return replace(design, cover=cover, pixel_size_m=factor * design.pixel_size_m)


def sketch_of(
    design: Design,
    shape: tuple[int, int],
    *,
    pixel_size_m: float,
    process: Process,
    rng: np.random.Generator,
) -> Sketch:
    """A field of the design, somewhere in it by the generator, printed and standing.

    Where the field is larger than the design, the design goes on as its own mirror image. process.blur counts in the
    design's own pitches; 0 takes the outline as it is. Raises SpecimenError where nothing or everything prints.
    """
    step = pixel_size_m / design.pixel_size_m  # design pixels to a pixel of the field
    room = [max(size - 1 - (count - 1) * step, 0.0) for size, count in zip(design.cover.shape, shape, strict=True)]
    top, left = (float(rng.uniform(0.0, free)) for free in room)
    cover, start = _cut(design.cover, (top, left), (shape[0] * step, shape[1] * step))
    image = aerial(cover, process.blur * design.pitch_px / FWHM) if process.blur > 0.0 else cover
    level = _sampled(image, shape, start, step) - np.float32(process.threshold)
    if not (level > 0).any() or not (level < 0).any():
        what = "nothing" if not (level > 0).any() else "everything"
        raise SpecimenError(f"design {design.source}: {what} of the field at ({left:.0f}, {top:.0f}) px prints")
    inside = roughened_outline(signed_distance(level), process.roughness(pixel_size_m), rng=rng)
    drawn = standing(inside, process, kind="mask", pitch=design.pitch_px / step, pixel_size_m=pixel_size_m)
    return replace(drawn, width=design.width_px / step)


def printed_outline(design: Design, *, sigma_px: float, threshold: float) -> Field:
    """(h, w) signed distance, in the design's pixels, to what a Gaussian image cut at a threshold prints."""
    return signed_distance(aerial(design.cover, sigma_px) - np.float32(threshold))


def edge_placement_px(made: Field, wanted: Field) -> NDArray[np.float32]:
    """How far each point of the wanted outline lies from the made one, px; positive: too much material.

    Both are signed distances, positive in material. (n,) for the n pixels along the wanted outline.
    """
    beside = np.abs(wanted) < 0.75
    return np.asarray((made - wanted)[beside], np.float32)


def _cut(cover: Field, at: tuple[float, float], size: tuple[float, float]) -> tuple[Field, tuple[float, float]]:
    """The part that is needed, with a margin for the blur; and where the field begins in it."""
    margin = int(0.1 * max(size)) + 64
    low = [int(start) - margin for start in at]
    high = [int(start + reach) + margin + 2 for start, reach in zip(at, size, strict=True)]
    rows, columns = (_folded(np.arange(a, b), n) for a, b, n in zip(low, high, cover.shape, strict=True))
    return np.ascontiguousarray(cover[rows][:, columns]), (at[0] - low[0], at[1] - low[1])


def _folded(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Indices that run back at either end."""
    back = np.mod(index, 2 * size)
    return np.asarray(np.minimum(back, 2 * size - 1 - back), np.intp)


def _sampled(image: Field, shape: tuple[int, int], start: tuple[float, float], step: float) -> Field:
    """image at start + step * (row, column), averaged over the step where that is longer than a pixel."""
    if step > 1.0:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.3 * step), np.float32)
    matrix = np.array([[step, 0.0, start[1]], [0.0, step, start[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (shape[1], shape[0]), flags=flags), np.float32)


def _edge_px(cover: Field) -> float:
    """Length of the edges: the total variation along both axes, the perimeter of Manhattan shapes."""
    along = float(np.abs(np.diff(cover, axis=0)).sum() + np.abs(np.diff(cover, axis=1)).sum())
    return max(along, 1.0)
