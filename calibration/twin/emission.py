"""Secondary electrons of a relief: height and material in, relative yield out (flat silicon = 1), seen from above.

Topographic yield, light at convex edges, shadow in what lies low, and electrons that backscatter before they count.
The sky view costs nearly all the time and depends on the shape alone: keep it when only the rest is drawn again.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

STEEPEST = 6.0  # of 1/cos: an electron that grazes a wall leaves as many secondaries as one at 80 degrees
AZIMUTHS = 16
NEAR_PX = 10  # one step a pixel so far; beyond, each step is longer than the last by
STRIDE = 1.14


@dataclass(frozen=True)
class Emission:
    """How a material and a detector turn shape into signal. Lengths in metres; symbols as in the twin's physics."""

    exponent: float = 1.0  # n: yield goes as (1/cos of the slope)^n, 0.8..1.2
    bloom: float = 0.35  # e: light of a convex edge
    bloom_length_m: float = 6e-9  # lambda: 3..8 nm
    bloom_height_m: float = 6e-9  # sd: height against its surroundings that lights the edge fully
    shadow: float = 0.6  # g: power of the sky view
    floor: float = 0.12  # eta_b: what still comes out of an endless hole
    indirect: float = 0.15  # share of secondaries made by backscattered electrons
    range_m: float = 32e-9  # how far those come from: `range_m(voltage)`
    asymmetry: float = 0.0  # detector to the right (positive) or left: brightness per unit slope


def render(height_m: Field, how: Emission, *, pixel_size_m: float, sky: Field, material: Field | None = None) -> Field:
    """(h, w) relative yield. sky: `sky_view` of the same relief; material: relative yield of what lies there."""
    slope_y, slope_x = np.gradient(height_m, pixel_size_m)
    lean = np.minimum(np.sqrt(1.0 + slope_x**2 + slope_y**2), STEEPEST)
    bright = lean**how.exponent
    around = _smooth(height_m, how.bloom_length_m / pixel_size_m)
    bright *= 1.0 + how.bloom * np.clip((height_m - around) / how.bloom_height_m, -1.0, 1.0)
    if how.asymmetry:
        bright *= 1.0 - how.asymmetry * np.clip(slope_x / lean, -1.0, 1.0)
    bright *= how.floor + (1.0 - how.floor) * sky**how.shadow
    if material is not None:
        bright *= material
    far = _smooth(np.asarray(bright, np.float32), how.range_m / 3.0 / pixel_size_m)
    return np.asarray((1.0 - how.indirect) * bright + how.indirect * far, np.float32)


def sky_view(height_m: Field, *, pixel_size_m: float, azimuths: int = AZIMUTHS) -> Field:
    """(h, w) mean over azimuth of cos^2(elevation of the horizon): 1 on a plain, 0 at the bottom of an endless hole.

    Exact for a horizontal emitter of Lambert's law: r^2 / (r^2 + h^2) in the middle of a round hole,
    (sin p1 + sin p2) / 2 in an endless trench. The picture goes on as its own mirror.
    """
    relief = np.asarray(height_m / pixel_size_m, np.float32)  # in pixels, so that slopes are numbers
    distances = _distances(float(relief.max() - relief.min()), max(relief.shape))
    total = np.zeros_like(relief)
    for turn in range(azimuths):
        angle = 2.0 * np.pi * (turn + 0.5) / azimuths
        steepest = np.zeros_like(relief)
        for distance, counted in distances:
            seen = _shifted(relief, distance * np.cos(angle), distance * np.sin(angle))
            seen -= relief
            seen *= np.float32(1.0 / counted)
            np.maximum(steepest, seen, out=steepest)
        total += 1.0 / (1.0 + steepest**2)
    return total / np.float32(azimuths)


def range_m(voltage_v: float, *, atomic_weight: float = 28.1, number: float = 14.0, density: float = 2.33) -> float:
    """Kanaya and Okayama's electron range, metres; density in g/cm^3. Silicon by default."""
    return float(0.0276e-6 * atomic_weight * (voltage_v / 1e3) ** 1.67 / (number**0.889 * density))


def _distances(range_px: float, size_px: int) -> list[tuple[float, float]]:
    """Where the horizon is looked for, and the distance that counts.

    Beyond five times the range of heights it is below 12 degrees.
    A wall that is first met at one step stands half a step before it on average; a slope next to the pixel does not.
    """
    end = min(max(5.0 * range_px, 2.0), float(size_px))
    steps = [float(step) for step in range(1, int(min(end, NEAR_PX)) + 1)]
    while steps[-1] * STRIDE < end:
        steps.append(steps[-1] * STRIDE)
    gaps = np.diff([0.0, *steps])
    return [(step, step - 0.5 * gap * (1.0 - 1.0 / step)) for step, gap in zip(steps, gaps, strict=True)]


def _shifted(field: Field, dx: float, dy: float) -> Field:
    """field at (x + dx, y + dy), linear between pixels."""
    matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]], np.float32)
    size = (field.shape[1], field.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(field, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32)


def _smooth(field: Field, sigma_px: float) -> Field:
    if sigma_px < 0.2:  # a kernel of one pixel
        return field
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)
