"""Floors of pits, holes and spaces: what comes out of them against how deep they are, twin and truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.twin_edges import BORDER_PX, Mask, Walls

Field = NDArray[np.float32]

LEVEL = 0.5  # slope below which ground counts as level
FROM_WALL_PX = 2.0  # of the wall's own light stays out
LEAST_PX = 12  # pixels of a floor: fewer are all noise
ENCLOSED = 0.8  # of the walls around a floor that it must lie below


@dataclass(frozen=True)
class Floor:
    """One level region below its walls."""

    depth_m: float  # below the top of its walls
    width_m: float  # twice the way from its middle to the nearest wall
    area_px: int
    twin: float  # mean counts
    monte_carlo: float
    relative_error: float  # twin over Monte Carlo, minus one
    sigma: float  # of it, by chance of the electrons


@dataclass(frozen=True)
class Pictures:
    """Both in counts; heights in pixels."""

    twin: Field  # (h, w)
    monte_carlo: Field  # (h, w)
    height_px: Field  # (h, w)


def floors(pictures: Pictures, walls: Walls, *, pixel_size_m: float, fano: float) -> tuple[Floor, ...]:
    """Deepest last."""
    count, labels = _level_regions(pictures.height_px)
    regions = (labels == label for label in range(1, count))
    found = (_floor(region, pictures, walls, pixel_size_m=pixel_size_m, fano=fano) for region in regions)
    return tuple(sorted((floor for floor in found if floor is not None), key=lambda floor: floor.depth_m))


def rank_correlation(values: Sequence[float], others: Sequence[float]) -> float | None:
    """Spearman's, ties shared; None where one side is all alike or there are fewer than three."""
    a, b = (_ranks(np.asarray(each, np.float64)) for each in (values, others))
    norm = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return None if len(a) < 3 or norm == 0.0 else float((a * b).sum()) / norm


def _level_regions(height_px: Field) -> tuple[int, NDArray[np.int32]]:
    slope_y, slope_x = np.gradient(height_px)
    level = np.asarray(np.hypot(slope_x, slope_y) < LEVEL, np.uint8)
    count, labels = cv2.connectedComponents(level, connectivity=4)
    return int(count), np.asarray(labels, np.int32)


def _floor(region: Mask, pictures: Pictures, walls: Walls, *, pixel_size_m: float, fano: float) -> Floor | None:
    inside = region & (walls.distance_px <= -FROM_WALL_PX) & _inner(region.shape)
    area = int(inside.sum())
    if area < LEAST_PX:
        return None
    ground_px = float(np.median(pictures.height_px[region]))
    around = np.asarray(cv2.dilate(region.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    beside = around & (walls.lower | walls.upper)
    if not beside.any() or np.mean(walls.middle_px[beside] > ground_px) < ENCLOSED:
        return None
    twin, truth = (float(each[inside].mean(dtype=np.float64)) for each in (pictures.twin, pictures.monte_carlo))
    if truth <= 0.0:
        return None
    depth_px = float(np.median(walls.top_px[beside])) - ground_px
    width_px = -2.0 * float(walls.distance_px[inside].min())
    sigma = math.sqrt(fano * truth / area) / truth
    return Floor(depth_px * pixel_size_m, width_px * pixel_size_m, area, twin, truth, twin / truth - 1.0, sigma)


def _inner(shape: tuple[int, ...]) -> Mask:
    inner = np.zeros(shape, np.bool_)
    inner[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX] = True
    return inner


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks about their mean."""
    _, place, often = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(often) - 0.5 * (often - 1))[place]
    return np.asarray(ranks - ranks.mean(), np.float64)
