"""Walls of a height map, and the signal across them: how high, how wide and where an edge shines, twin and truth."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Plane = NDArray[np.float64]

STEEP = 1.0  # of central differences: a wall is steeper than 45 degrees
AROUND_PX = 5  # how far top and bottom of a wall are looked for
JUMP = 1 / 3  # of that step within one pixel either side: a hillside of rough ground rises more slowly
LEAST_STEP = 0.1  # of the scene's range of heights: less is roughness on something larger
LEAST_WALL_PX = 40  # pixels along walls: fewer do not make a mean
REACH_PX = 10  # of the profile, either side
LEAST_BIN_PX = 20  # pixels at one distance
BORDER_PX = 3  # simulated scenes end there: a line's end just inside shines as no edge does
BY_CHANCE = 3.0  # sigma: a peak must stand out by more
LEAST_CONTRAST = 0.05  # of the plateau: below it "relative to contrast" divides by nothing


@dataclass(frozen=True)
class Walls:
    """Pixels of a height map by where they lie at the nearest wall."""

    distance_px: Field  # (h, w) positive above the wall, negative below; NaN where both are as near
    lower: Mask  # (h, w) last pixels below a wall
    upper: Mask  # (h, w) first pixels above it
    top_px: Field  # (h, w) highest within AROUND_PX, in pixels of height
    middle_px: Field  # (h, w) half way between highest and lowest there


@dataclass(frozen=True)
class Profile:
    """Mean signal against distance from the wall."""

    distance_px: Plane  # (n,) steps of one
    signal: Plane  # (n,) counts
    pixels: NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class Peak:
    """Light of an edge. Counts, but for what the names say."""

    position_px: float  # positive: above the wall
    position_sigma_px: float  # by chance of the electrons
    height: float  # above the plateau
    width_px: float | None  # full width at half of `height`; None where a side does not fall that far
    plateau: float
    floor: float
    height_of_contrast: float | None  # height over plateau minus floor; None where these are alike


@dataclass(frozen=True)
class EdgePeaks:
    """The twin's edges against the truth's."""

    wall_px: int
    position_error_px: float  # twin minus Monte Carlo
    position_sigma_px: float  # of it, by chance of the electrons
    width_error_px: float | None
    height_ratio: float  # twin over Monte Carlo
    twin: Peak
    monte_carlo: Peak


def walls_of(height_px: Field) -> Walls | None:
    """height_px: in pixels. None where there are no walls to speak of."""
    around = np.ones((2 * AROUND_PX + 1,) * 2, np.uint8)
    top, bottom = (np.asarray(f(height_px, around), np.float32) for f in (cv2.dilate, cv2.erode))
    jump = cv2.morphologyEx(height_px, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    slope_y, slope_x = np.gradient(height_px)
    wall = (np.hypot(slope_x, slope_y) >= STEEP) & (top - bottom >= LEAST_STEP * np.ptp(height_px))
    wall &= jump >= JUMP * (top - bottom)
    middle = np.asarray(0.5 * (top + bottom), np.float32)
    high = height_px > middle
    upper, lower = _beside(high & wall, ~high & wall), _beside(~high & wall, high & wall)
    if min(upper.sum(), lower.sum()) < LEAST_WALL_PX:
        return None
    return Walls(_signed(upper, lower), lower, upper, top, middle)


def profile(signal: Field, walls: Walls) -> Profile:
    """signal (h, w), averaged along all walls; as far as every step has enough pixels."""
    inner = np.s_[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    distance, values = walls.distance_px[inner].ravel(), signal[inner].ravel()
    near = np.abs(distance) < REACH_PX  # NaN is not
    bins = np.floor(distance[near] + REACH_PX).astype(np.int64)
    pixels = np.bincount(bins, minlength=2 * REACH_PX)
    sums = np.bincount(bins, weights=values[near].astype(np.float64), minlength=2 * REACH_PX)
    used = _together(pixels >= LEAST_BIN_PX)
    centres = np.arange(2 * REACH_PX, dtype=np.float64) - REACH_PX + 0.5
    return Profile(centres[used], np.asarray(sums[used] / pixels[used], np.float64), pixels[used])


def peak(across: Profile, fano: float = 0.0) -> Peak | None:
    """None where nothing stands above the plateau by more than chance (fano: variance over mean; 0: no noise)."""
    signal, at = across.signal, int(np.argmax(across.signal)) if across.signal.size else 0
    if not 0 < at < len(signal) - 2 or across.distance_px[0] > -1.0 or across.distance_px[-1] < 1.0:
        return None
    plateau, floor = float(signal[-2:].mean()), float(signal[:2].mean())
    shift, highest = _vertex(*signal[at - 1 : at + 2])
    height = highest - plateau
    chance = math.sqrt(fano * max(signal[at], 0.0) / across.pixels[at])
    if height <= max(BY_CHANCE * chance, 1e-9 * abs(plateau)):
        return None
    contrast = plateau - floor
    relative = height / contrast if abs(contrast) > LEAST_CONTRAST * abs(plateau) else None
    width = _width(signal, at, plateau + 0.5 * height)
    bend = float(2.0 * signal[at] - signal[at - 1] - signal[at + 1])
    wavers = chance / (math.sqrt(2.0) * bend) if bend > 0.0 else math.inf
    doubt = min(wavers, float(REACH_PX))  # a flat top may lie anywhere
    return Peak(float(across.distance_px[at]) + shift, doubt, height, width, plateau, floor, relative)


def compared(twin: Profile, truth: Profile, *, walls: Walls, fano: float) -> EdgePeaks | None:
    ours, theirs = peak(twin), peak(truth, fano)
    if ours is None or theirs is None:
        return None
    widths = None if ours.width_px is None or theirs.width_px is None else ours.width_px - theirs.width_px
    off = ours.position_px - theirs.position_px
    ratio, wall_px = ours.height / theirs.height, int(walls.upper.sum())
    return EdgePeaks(wall_px, off, theirs.position_sigma_px, widths, ratio, ours, theirs)


def _beside(these: Mask, those: Mask) -> Mask:
    cross = np.asarray(cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return np.asarray(these & (cv2.dilate(those.astype(np.uint8), cross) > 0))


def _signed(upper: Mask, lower: Mask) -> Field:
    """The wall stands half a pixel from the first pixel of either side."""
    above, below = (
        cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for mask in (upper, lower)
    )
    signed = np.where(above < below, above + 0.5, -(below + 0.5))
    return np.asarray(np.where(above == below, np.nan, signed), np.float32)


def _together(used: Mask) -> Mask:
    """Only what hangs together around the wall itself."""
    middle = len(used) // 2
    ends = np.flatnonzero(~used)
    first = int(ends[ends < middle].max(initial=-1)) + 1
    last = int(ends[ends >= middle].min(initial=len(used)))
    kept = np.zeros_like(used)
    kept[first:last] = True
    return kept


def _vertex(left: float, middle: float, right: float) -> tuple[float, float]:
    """Place (from the middle) and height of the parabola through three points a step apart, the middle the highest."""
    bend = left - 2.0 * middle + right
    if bend >= 0.0:
        return 0.0, float(middle)
    place = 0.5 * (left - right) / bend
    return float(place), float(middle - 0.25 * (left - right) * place)


def _width(signal: Plane, at: int, half: float) -> float | None:
    """Between the crossings of `half` on either side, straight lines between the steps."""
    ends = [_crossing(signal[at::way], half) for way in (-1, 1)]
    return None if None in ends else float(sum(end for end in ends if end is not None))


def _crossing(falling: Plane, half: float) -> float | None:
    """Steps from the first value to where the curve first falls to `half`."""
    below = np.flatnonzero(falling <= half)
    if not below.size or below[0] == 0:
        return None
    i = int(below[0])
    return i - 1 + float((falling[i - 1] - half) / (falling[i - 1] - falling[i]))
