"""Secondary electrons of a relief: height and material in, relative yield out (flat silicon = 1), seen from above.

Four things make the picture: the slope under the beam, edges through which the cascade escapes sideways, what stands
beside and swallows, and the share of the sky that is seen. A fifth, slower: electrons that backscatter before they
count. The sky view costs most and depends on the shape alone: keep it when only the rest is drawn again.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

AZIMUTHS = 16
NEAR_PX = 10  # one step a pixel so far; beyond, each step is longer than the last by
STRIDE = 1.14
RINGS, SPOKES = 4, 8  # places around each pixel where its sides are looked at


class EmissionError(ValueError):
    """A constant that no material has."""


@dataclass(frozen=True)
class Emission:
    """How a material and a detector turn shape into signal. Raises EmissionError for impossible constants.

    The constants as they stand are a least-squares fit, with a gain and no offset, to every second scene of an electron
    Monte Carlo of silicon at 1 keV (Nebula, 51 scenes of lines, holes, pits, pillars, steps, rough ground); the others
    are met as well. With an offset the fit is as good and the contrast three times too small.
    """

    exponent: float = 0.9  # n: yield goes as (1/cos of the slope)^n
    steepest: float = 1.63  # limit of 1/cos: a beam that grazes a wall leaves it again
    side: float = 2.2  # what an edge adds where all of its side is open
    side_length_m: float = 8.7e-9  # how far from an edge electrons still come out of its side: the mean
    side_height_m: float = 6.7e-9  # fall of the ground that opens half of the side
    swallow: float = 1.0  # what ground that rises all round takes away, beyond the sky view
    swallow_height_m: float = 18.5e-9  # rise of the ground that does half of it
    shadow: float = 0.33  # g: power of the sky view
    floor: float = 0.0  # what still comes out of an endless hole
    indirect: float = 0.0  # share of secondaries made by backscattered electrons
    range_m: float = 32e-9  # how far those come from: `range_m(voltage)`
    asymmetry: float = 0.0  # detector to the right (positive) or left: brightness per unit slope

    def __post_init__(self) -> None:
        for name, (least, most) in POSSIBLE.items():
            value = getattr(self, name)
            if not least <= value <= most:  # a NaN fails too
                raise EmissionError(f"emission: {name} is {value}, it must lie in {least:g} .. {most:g}")


POSSIBLE = {
    "exponent": (0.0, 4.0),
    "steepest": (1.0, 100.0),
    "side": (0.0, 20.0),
    "side_length_m": (1e-10, 1e-5),
    "side_height_m": (1e-10, 1e-5),
    "swallow": (0.0, 1.0),
    "swallow_height_m": (1e-10, 1e-5),
    "shadow": (0.0, 4.0),
    "floor": (0.0, 1.0),
    "indirect": (0.0, 1.0),
    "range_m": (0.0, 1e-3),
    "asymmetry": (-2.0, 2.0),
}


def render(
    height_m: Field,
    how: Emission,
    *,
    pixel_size_m: float,
    sky: Field,
    material: Field | None = None,
    backscatter: Field | None = None,
) -> Field:
    """(h, w) relative yield. sky: `sky_view` of the same relief.

    material: relative yield of what lies there; backscatter: its coefficient relative to the plain's. None: 1.
    """
    slope_y, slope_x = np.gradient(height_m, pixel_size_m)
    lean = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    open_side, walled = sides(height_m, how, pixel_size_m=pixel_size_m)
    bright = np.minimum(lean, how.steepest) ** how.exponent + how.side * open_side
    if how.asymmetry:
        bright *= 1.0 - how.asymmetry * np.clip(slope_x / lean, -1.0, 1.0)
    bright *= 1.0 - how.swallow * walled
    bright *= how.floor + (1.0 - how.floor) * sky**how.shadow
    if material is not None:
        bright *= material
    if how.indirect == 0.0:
        return np.asarray(bright, np.float32)
    far = _smooth(np.asarray(bright, np.float32), how.range_m / 3.0 / pixel_size_m)
    if backscatter is not None:
        far = far * backscatter
    return np.asarray((1.0 - how.indirect) * bright + how.indirect * far, np.float32)


def sides(height_m: Field, how: Emission, *, pixel_size_m: float) -> tuple[Field, Field]:
    """(h, w) each, 0 on a plain .. 1: how far the ground around falls off, and how far it rises.

    A cascade that starts a depth below the surface and a way d from an edge comes out of the side with a chance that
    falls as exp(-d / side_length). Rings around each pixel stand for equal parts of that chance.
    """
    relief = np.asarray(height_m, np.float32)
    down, up = np.zeros_like(relief), np.zeros_like(relief)
    fall, rise = np.float32(how.side_height_m), np.float32(how.swallow_height_m)
    for dx, dy in _places(how.side_length_m / pixel_size_m):
        drop = relief - _shifted(relief, dx, dy)
        below = np.maximum(drop, 0.0)
        down += below / (below + fall)
        if how.swallow:
            above = below - drop
            up += above / (above + rise)
    count = np.float32(RINGS * SPOKES)
    return down / count, up / count


def _places(length_px: float) -> list[tuple[float, float]]:
    """dx, dy: the middles of equal parts of an exponential of that mean, in turn between the spokes and beside them."""
    chances = (np.arange(RINGS) + 0.5) / RINGS
    places = []
    for ring, away in enumerate(-length_px * np.log(1.0 - chances)):
        turns = 2.0 * np.pi * (np.arange(SPOKES) + 0.25 + 0.5 * (ring % 2)) / SPOKES
        places += [(float(away * np.cos(turn)), float(away * np.sin(turn))) for turn in turns]
    return places


SILICON_1KEV = Emission()


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
