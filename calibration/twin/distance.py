"""Signed distances in pixels, positive inside: of a disc, and of the zero contour of any level function."""

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

FAR_PX = 1e3  # the distance where there is no edge in the picture
NEAR_PX = 1.1  # so near the contour the level function itself tells the distance
SIDEWAYS_PX = 2.0


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> Field:
    """Signed distance to a circle, positive within."""
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.asarray(radius - np.hypot(xx - np.float32(x), yy - np.float32(y)), np.float32)


def signed_distance(level: Field) -> Field:
    """(h, w) distance to where `level` is zero, positive where it is; good to a few hundredths of a pixel.

    Beside the contour it is level / |slope|; every other pixel measures to the foot of its nearest such neighbour.
    """
    slope_y, slope_x = (np.asarray(slope, np.float32) for slope in np.gradient(level))
    steep = np.maximum(np.hypot(slope_x, slope_y), 1e-6)
    near = _beside_contour(level) & (np.abs(level) < NEAR_PX * steep)
    if not near.any():
        return np.where(level > 0, np.float32(FAR_PX), np.float32(-FAR_PX))
    rows, columns = np.nonzero(near)
    local = level[near] / steep[near]
    normal_x, normal_y = slope_x[near] / steep[near], slope_y[near] / steep[near]
    which = _nearest(near, rows, columns)
    y, x = np.mgrid[: level.shape[0], : level.shape[1]].astype(np.float32)
    dx, dy = x - (columns - local * normal_x)[which], y - (rows - local * normal_y)[which]
    away = np.hypot(dx, dy)
    along = np.abs(dx * normal_x[which] + dy * normal_y[which])
    straight = away**2 - along**2 < SIDEWAYS_PX**2  # the true foot is a little beside: measure along its normal
    far = np.where(straight, along, away)
    distance = np.where(level > 0, far, -far)
    distance[near] = local
    return np.asarray(distance, np.float32)


def _nearest(near: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.intp]:
    """(h, w) which of the pixels at rows, columns is nearest."""
    blank = np.where(near, 0, 255).astype(np.uint8)
    label = cv2.distanceTransformWithLabels(blank, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    of_label = np.zeros(int(label.max()) + 1, np.intp)
    of_label[label[rows, columns]] = np.arange(rows.size)
    return np.asarray(of_label[label], np.intp)


def _beside_contour(level: Field) -> NDArray[np.bool_]:
    """Pixels with a neighbour on the other side."""
    inside = (level > 0).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.dilate(inside, kernel) != cv2.erode(inside, kernel), np.bool_)
