"""What the dense models are told beside the picture: levels, pixel size, dose, voltage. Physical numbers in, (8,) out.

The picture's own mean and spread travel here, and not as a reduction in the graph, so that a tile of a large picture is
read exactly as the same place of the whole.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

STRIDE_PX = 32  # heights and widths that reach a network are multiples of it
CONDITION = 8
NEUTRAL_PIXEL_M = 3e-9  # where the conditions are zero: the middle of what the twin's patterns are drawn with
NEUTRAL_ELECTRONS = 40.0
NEUTRAL_VOLTAGE_V = 1000.0
LEAST_SPREAD = 1.0  # grey levels: a blank picture stays blank instead of being stretched to full contrast


@dataclass(frozen=True)
class Scene:
    """Facts of one frame; None where unknown."""

    pixel_size_m: float | None = None
    electrons_per_pixel: float | None = None  # beam current * dwell time * averages / e
    accelerating_voltage_v: float | None = None


@dataclass(frozen=True)
class Levels:
    """Mean and standard deviation of a whole picture, grey levels."""

    mean: float
    spread: float


def levels_of(image: NDArray[np.uint8]) -> Levels:
    mean, spread = cv2.meanStdDev(image)
    return Levels(float(mean[0, 0]), float(spread[0, 0]))


def condition(levels: Levels, scene: Scene) -> NDArray[np.float32]:
    """(8,): mean / 255, spread / 255, then log10 of each fact over its neutral value and 1, or two zeros if unknown."""
    facts = (
        *_known(scene.pixel_size_m, NEUTRAL_PIXEL_M),
        *_known(scene.electrons_per_pixel, NEUTRAL_ELECTRONS),
        *_known(scene.accelerating_voltage_v, NEUTRAL_VOLTAGE_V),
    )
    return np.array([levels.mean / 255.0, max(levels.spread, LEAST_SPREAD) / 255.0, *facts], np.float32)


def within(scene: Scene, pixel_range_m: tuple[float, float]) -> Scene:
    """The scene with its pixel size moved to the nearer end of what a network was trained on."""
    if scene.pixel_size_m is None:
        return scene
    return replace(scene, pixel_size_m=min(max(scene.pixel_size_m, pixel_range_m[0]), pixel_range_m[1]))


def check_shape(image: NDArray[np.uint8]) -> None:
    """Raises ValueError: only padded pictures may reach a network."""
    height, width = image.shape
    if height % STRIDE_PX or width % STRIDE_PX:
        raise ValueError(f"a {height}x{width} picture reached the network; pad it to multiples of {STRIDE_PX}")


def _known(value: float | None, neutral: float) -> tuple[float, float]:
    if value is None or not math.isfinite(value) or value <= 0.0:
        return 0.0, 0.0
    return math.log10(value / neutral), 1.0


def padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirrored at the lower and right border to multiples of the models' stride."""
    down, right = -image.shape[0] % STRIDE_PX, -image.shape[1] % STRIDE_PX
    if not down and not right:
        return np.ascontiguousarray(image)
    mode = cv2.BORDER_REFLECT_101 if min(image.shape) > STRIDE_PX else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, mode), np.uint8)
