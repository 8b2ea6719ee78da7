"""Pictures of one channel or two: (h, w), a frame alone, or (c, h, w), the frame first and its reference second.

The reference is what the frame would show without a defect, in its own grey levels. Where a model that compares is
given a frame alone, the frame is its own reference: nothing differs from it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.errors import InferenceError

KNOWN = (1, 2)  # channels that a package may ask for

Shape = tuple[int, int]


def size_of(image: NDArray[np.uint8]) -> Shape:
    """Height and width."""
    return image.shape[-2], image.shape[-1]


def frame_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(h, w): without its reference."""
    return image if image.ndim == 2 else image[0]


def shape_of(channels: int, size: Shape) -> tuple[int, ...]:
    """(h, w) of one channel, (c, h, w) of more."""
    return size if channels == 1 else (channels, *size)


def check_channels(image: NDArray[np.uint8], channels: int) -> None:
    """A frame alone fits any model, more channels only one that has as many. Raises InferenceError."""
    if image.ndim != 2 and (image.ndim != 3 or image.shape[0] != channels):
        raise InferenceError(f"a {image.shape} picture reached a model of (h, w) or ({channels}, h, w) pictures")


def each_channel(image: NDArray[np.uint8], make: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The same done to the frame and to its reference."""
    return make(image) if image.ndim == 2 else np.stack([make(channel) for channel in image])
