"""Secondary electrons of a relief: height and material in, relative yield out (flat silicon = 1), seen from above.

Four things make the picture: the slope under the beam, edges through which the cascade escapes sideways, what stands
beside and swallows, and the share of the sky that is seen. A fifth, slower: electrons that backscatter before they
count. The sky view costs most and depends on the shape alone: keep it when only the rest is drawn again.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Part = tuple[tuple[int, int], float]  # a whole step dx, dy, and its part of the chance

AZIMUTHS = 16
NEAR_PX = 10  # one step a pixel so far; beyond, each step is longer than the last by
STRIDE = 1.14
FINE = 2048  # places that stand for the ground around a pixel, before they are shared out
MOST_STEPS = 64  # pixels around each one whose heights are looked at
LEAST_PART = 2e-4  # of the chance: what is less is left out
REFERENCE_V = 1000.0  # of the constants in `Emission`
WIDEST_PX = 6.0  # side length: wider is a slow shade, which the share of backscattered electrons stands for
TABULATED = 1.1  # ratio of neighbouring lengths
GOLDEN_ANGLE = np.pi * (3.0 - np.sqrt(5.0))  # turns of it leave no direction out


class EmissionError(ValueError):
    """A constant that no material has."""


@dataclass(frozen=True)
class Emission:
    """How a material and a detector turn shape into signal. Raises EmissionError for impossible constants.

    The constants as they stand are a least-squares fit, with a gain and no offset, to every second scene of an electron
    Monte Carlo of silicon at 1 keV (Nebula, 51 scenes of lines, holes, pits, pillars, steps, rough ground); the others
    are met as well. With an offset the fit is as good and the contrast three times too small.
    """

    exponent: float = 0.99  # n: yield goes as (1/cos of the slope)^n
    steepest: float = 1.65  # limit of 1/cos: a beam that grazes a wall leaves it again
    side: float = 2.5  # what an edge adds where all of its side is open
    side_length_m: float = 8.2e-9  # how far from an edge electrons still come out of its side: the mean
    side_height_m: float = 5.9e-9  # fall of the ground that opens half of the side
    swallow: float = 1.0  # what ground that rises all round takes away, beyond the sky view
    swallow_height_m: float = 12.7e-9  # rise of the ground that does half of it
    shadow: float = 0.324  # g: power of the sky view
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
    "asymmetry": (-1.0, 1.0),
}


def render(
    height_m: Field,
    how: Emission,
    *,
    pixel_size_m: float,
    sky: Field,
    material: Field | None = None,
    backscatter: Field | None = None,
    smooth: bool = False,
) -> Field:
    """(h, w) relative yield. sky: `sky_view` of the same relief.

    material: relative yield of what lies there; backscatter: its coefficient relative to the plain's. None: 1.
    smooth: as `sides` takes it.
    """
    slope_y, slope_x = np.gradient(height_m, pixel_size_m)
    lean = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    open_side, walled = sides(height_m, how, pixel_size_m=pixel_size_m, smooth=smooth)
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


def sides(height_m: Field, how: Emission, *, pixel_size_m: float, smooth: bool = False) -> tuple[Field, Field]:
    """(h, w) each, 0 on a plain .. 1: how far the ground around falls off, and how far it rises.

    A cascade that starts a depth below the surface and a way d from an edge comes out of the side with a chance that
    falls as exp(-d / side_length). The pixels around stand for their parts of that chance, so that a wall is as bright
    in all whatever the pixels' size: where they are coarse, their neighbours' part is small.
    smooth: in the side's length too, for a fit; at up to twice the cost.
    """
    relief = np.asarray(height_m, np.float32)
    down, up = np.zeros_like(relief), np.zeros_like(relief)
    fall, rise = np.float32(how.side_height_m), np.float32(how.swallow_height_m)
    length_px = how.side_length_m / pixel_size_m
    parts = _between(length_px) if smooth else _parts(length_px)
    reach = max((max(abs(dx), abs(dy)) for (dx, dy), _ in parts), default=0)
    around = cv2.copyMakeBorder(relief, reach, reach, reach, reach, cv2.BORDER_REFLECT)
    h, w = relief.shape
    drop, beyond, share = (np.empty_like(relief) for _ in range(3))  # 64 times over: nothing is allocated inside
    for (dx, dy), part in parts:
        np.subtract(relief, around[reach + dy : reach + dy + h, reach + dx : reach + dx + w], out=drop)
        np.maximum(drop, 0.0, out=beyond)
        down += _opened(beyond, fall, np.float32(part), share)
        if how.swallow:
            np.subtract(beyond, drop, out=beyond)
            up += _opened(beyond, rise, np.float32(part), share)
    return down, up


def _opened(step: Field, half: np.float32, part: np.float32, out: Field) -> Field:
    """part * step / (step + half), in `out`."""
    np.add(step, half, out=out)
    np.divide(step, out, out=out)
    return np.multiply(out, part, out=out)


@lru_cache(maxsize=64)
def _parts(length_px: float) -> tuple[Part, ...]:
    """((dx, dy), part): whole steps and their parts of a round exponential of that mean; opposite steps weigh alike.

    Fine places are shared out between the four pixels around each. Where that makes too many steps, as many coarser
    places each go to their nearest pixel.
    """
    parts = _shared(_places(length_px, FINE))
    if len(parts) > MOST_STEPS:
        away = np.rint(_places(length_px, MOST_STEPS)).astype(int)
        parts = {}
        for dx, dy in away.tolist():
            parts[dx, dy] = parts.get((dx, dy), 0.0) + 1.0 / len(away)
    return tuple(parts.items())


def _between(length_px: float) -> tuple[Part, ...]:
    """Those of two tabulated lengths, mixed: whole steps alone jump as the length grows."""
    power = float(np.log(length_px) / np.log(TABULATED))
    below = int(np.floor(power))
    mixed: dict[tuple[int, int], float] = {}
    for which, weight in ((below, below + 1 - power), (below + 1, power - below)):
        for step, part in _parts(TABULATED**which):
            mixed[step] = mixed.get(step, 0.0) + weight * part
    return tuple(mixed.items())


def _shared(places: NDArray[np.float64]) -> dict[tuple[int, int], float]:
    parts: dict[tuple[int, int], float] = {}
    whole = np.floor(places).astype(int)
    for (x, y), (right, below) in zip(whole.tolist(), (places - whole).tolist(), strict=True):
        for dx, across in ((0, 1.0 - right), (1, right)):
            for dy, down in ((0, 1.0 - below), (1, below)):
                parts[x + dx, y + dy] = parts.get((x + dx, y + dy), 0.0) + across * down / len(places)
    return {step: part for step, part in parts.items() if step != (0, 0) and part > LEAST_PART}


def _places(length_px: float, count: int) -> NDArray[np.float64]:
    """(count, 2) dx, dy: the middles of equal parts of the exponential along a spiral, each with its opposite."""
    turn = np.arange(count // 2)
    away = -length_px * np.log(1.0 - (turn + 0.5) / (count // 2))
    angle = GOLDEN_ANGLE * turn
    half = np.stack([away * np.cos(angle), away * np.sin(angle)], axis=1)
    return np.asarray(np.concatenate([half, -half]))


SILICON_1KEV = Emission()


def at_voltage(how: Emission, voltage_v: float, *, pixel_size_m: float) -> Emission:
    """The same at another voltage: what an edge lights up grows with the range of the electrons, to WIDEST_PX at most.

    Below 1 kV it stays: secondaries come from no less deep. Raises EmissionError for a voltage that is none.
    """
    if not 0.0 < voltage_v < np.inf:
        raise EmissionError(f"emission: {voltage_v} V is no accelerating voltage")
    grown = range_m(voltage_v) / range_m(REFERENCE_V)
    by = max(min(grown, WIDEST_PX * pixel_size_m / how.side_length_m), 1.0)
    return replace(
        how,
        side_length_m=how.side_length_m * by,
        side_height_m=how.side_height_m * by,
        swallow_height_m=how.swallow_height_m * by,
        range_m=range_m(voltage_v),
    )


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
