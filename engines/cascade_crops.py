"""What the cascade sees of each candidate, at the frame's native resolution: a picture and boxes in, crops out.

The picture is never smoothed here: `shown` makes what people look at, and nothing is measured on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels; x1 and y1 exclusive

SIDE_PX = 64  # of a crop
WIDE_PX = 128  # of the surroundings, which are shrunk to a crop's size: two periods of most patterns
PLANES = 4  # of what the graph is shown: crop, its reference, surroundings, their reference
NOISE_TAPS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer, CVIU 64:300, 1996
NOISE_GAIN = 6.0  # of these taps on white noise, as a standard deviation
ONE_SIGMA = 1.4826  # standard deviation over median absolute deviation
SHOWN_STRENGTH = 0.9  # of the noise: pixels that differ by no more are averaged
PATCH_PX, SEARCHED_PX = 5, 15  # of the non-local means


@dataclass(frozen=True)
class Windows:
    """The surroundings of each candidate, mirrored at the picture's border."""

    frame: NDArray[np.uint8]  # (n, WIDE_PX, WIDE_PX)
    reference: NDArray[np.uint8]  # (n, WIDE_PX, WIDE_PX); the frame itself where there is none
    compared: bool  # is there a reference?
    box_px: NDArray[np.float32]  # (n, 4) x0, y0, x1, y1 within the window; it may be larger than that

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def crops(self) -> NDArray[np.uint8]:
        """(n, SIDE_PX, SIDE_PX) of the frame."""
        return self.frame[:, INNER, INNER]

    def planes(self) -> NDArray[np.uint8]:
        """(n, PLANES, SIDE_PX, SIDE_PX)."""
        told = np.empty((len(self), PLANES, SIDE_PX, SIDE_PX), np.uint8)
        for planes, frame, reference in zip(told, self.frame, self.reference, strict=True):
            planes[:] = frame[INNER, INNER], reference[INNER, INNER], _shrunk(frame), _shrunk(reference)
        return told


INNER = slice((WIDE_PX - SIDE_PX) // 2, (WIDE_PX + SIDE_PX) // 2)


def windows(image: NDArray[np.uint8], boxes: Sequence[Box], reference: NDArray[np.uint8] | None = None) -> Windows:
    """image, reference (h, w). Raises ValueError where they are not of one shape."""
    if reference is not None and reference.shape != image.shape:
        raise ValueError(f"a {reference.shape} reference of a {image.shape} picture: both must be of one shape")
    corners = [(_corner(x0 + x1), _corner(y0 + y1)) for x0, y0, x1, y1 in boxes]
    frame = _cut(image, corners)
    within = [np.subtract(box, (left, top, left, top)) for box, (left, top) in zip(boxes, corners, strict=True)]
    return Windows(
        frame=frame,
        reference=frame if reference is None else _cut(reference, corners),
        compared=reference is not None,
        box_px=np.asarray(within, np.float32).reshape(-1, 4),
    )


def shown(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The crop for people, (h, w): with less noise, by non-local means. Never measured on."""
    strength = SHOWN_STRENGTH * pixel_noise(crop.astype(np.float32))
    if strength < 1.0:
        return crop.copy()
    quiet = cv2.fastNlMeansDenoising(crop, None, strength, PATCH_PX, SEARCHED_PX)
    return np.asarray(quiet, np.uint8)


def pixel_noise(picture: NDArray[np.float32]) -> float:
    """Standard deviation of what differs from pixel to pixel; edges are few and hardly count."""
    rough = cv2.filter2D(picture, cv2.CV_32F, NOISE_TAPS, borderType=cv2.BORDER_REFLECT_101)
    return ONE_SIGMA / NOISE_GAIN * median(np.abs(rough[1:-1:2, 1:-1:2]))


def median(values: NDArray[np.float32]) -> float:
    """The upper one of an even number; a fifth of the time that numpy's takes on a crop."""
    flat = values.ravel()
    return float(np.partition(flat, flat.size // 2)[flat.size // 2])


def _corner(twice_the_middle: float) -> int:
    return round(twice_the_middle / 2.0) - WIDE_PX // 2


def _cut(picture: NDArray[np.uint8], corners: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    if not corners:
        return np.zeros((0, WIDE_PX, WIDE_PX), np.uint8)
    return np.stack([_window(picture, left, top) for left, top in corners])


def _window(picture: NDArray[np.uint8], left: int, top: int) -> NDArray[np.uint8]:
    height, width = picture.shape
    if left >= 0 and top >= 0 and left + WIDE_PX <= width and top + WIDE_PX <= height:
        return picture[top : top + WIDE_PX, left : left + WIDE_PX]  # six times as fast as by index
    return picture[np.ix_(_mirrored(top, height), _mirrored(left, width))]


def _mirrored(start: int, size: int) -> NDArray[np.intp]:
    """WIDE_PX rows or columns from `start` on; beyond an end they come back, the outermost not twice."""
    at = np.abs(np.arange(start, start + WIDE_PX)) % max(2 * size - 2, 1)
    return np.asarray(np.minimum(at, np.maximum(2 * size - 2 - at, 0)), np.intp)


def _shrunk(window: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(window, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
