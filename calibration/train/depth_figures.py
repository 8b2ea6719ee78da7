"""Honest figures for a depth reader: its maps of held-out fields against the exact heights, baselines beside it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.depth_data import KINDS, Fields, above_lowest_px

Maps = NDArray[np.float32]  # (n, h, w) pixels of height

SMOOTH_PX = 1.5  # of the intensity baseline
COVER_68 = -math.log(1.0 - 0.68)  # Laplace: 68 % of errors lie within so many scales
LEAST_SPREAD_PX = 0.5  # a field flatter than this has no height to correlate with


@dataclass(frozen=True)
class Intensity:
    """Height = slope * smoothed brightness + offset, in the picture's own spreads; fitted on the training set."""

    slope: float
    offset: float

    @classmethod
    def fit(cls, training: Fields) -> "Intensity":
        x, y = smoothed(training.image)[:, ::5, ::5].ravel(), above_lowest_px(training.height_px)[:, ::5, ::5].ravel()
        slope, offset = np.polyfit(x, y, 1)
        return cls(float(slope), float(offset))

    def read(self, image: NDArray[np.uint8]) -> Maps:
        return np.asarray(self.slope * smoothed(image) + self.offset, np.float32)


def smoothed(image: NDArray[np.uint8]) -> Maps:
    """(n, h, w) brightness after a Gaussian, in standard deviations of each picture."""
    rows = [cv2.GaussianBlur(picture.astype(np.float32), (0, 0), SMOOTH_PX) for picture in image]
    return np.stack([(row - row.mean()) / max(float(row.std()), 1e-3) for row in rows])


def figures(fields: Fields, said_px: Maps, scale_px: Maps | None = None) -> dict[str, float]:
    """One row of the table: correlation and error by field, then the median over fields."""
    truth = above_lowest_px(fields.height_px)
    spread = truth.std(axis=(1, 2))
    error = np.sqrt(((said_px - truth) ** 2).mean(axis=(1, 2)))
    seen = spread >= LEAST_SPREAD_PX
    correlations = np.array([correlation(a, b) for a, b in zip(said_px[seen], truth[seen], strict=True)])
    row = {
        "n": float(len(fields)),
        "median_correlation": float(np.median(correlations)),
        "p10_correlation": float(np.quantile(correlations, 0.1)),
        "median_rmse_of_spread": float(np.median(error[seen] / spread[seen])),
        "median_rmse_nm": float(np.median(error * fields.pixel_size_m) * 1e9),
        "rmse_px": float(np.sqrt((error**2).mean())),
    }
    if scale_px is not None:
        row["coverage_68"] = float(np.mean(np.abs(said_px - truth) <= COVER_68 * scale_px))
    return row


def by_kind(fields: Fields, said_px: Maps) -> dict[str, float]:
    """Median correlation for each kind of relief; a kind of which every field here is level has none."""
    truth = above_lowest_px(fields.height_px)
    seen = truth.std(axis=(1, 2)) >= LEAST_SPREAD_PX
    pairs = zip(said_px[seen], truth[seen], strict=True)
    each, kind = np.array([correlation(a, b) for a, b in pairs]), fields.kind[seen]
    return {KINDS[k]: float(np.median(each[kind == k])) for k in np.unique(kind)}


def correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Pearson's; 0 where one side is constant."""
    x, y = a.ravel() - a.mean(dtype=np.float64), b.ravel() - b.mean(dtype=np.float64)
    norm = math.sqrt(float((x**2).sum()) * float((y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0.0 else 0.0
