"""What the models say of one frame, as named physical quantities. numpy only; no tensor leaves this package."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JUDGEABLE = 0.3  # content below which a reading says more about the picture than about focus or defects


@dataclass(frozen=True)
class FocusReading:
    """One frame judged for focus. Where `content` is low, the blur is little more than a guess: see its uncertainty."""

    score: float  # 0 noise, white, black, featureless; 1 just recognisable; 10 perfect for this pixel size
    blur_px: float  # equivalent Gaussian sigma of the probe, geometric mean of the axes
    blur_uncertainty_px: float  # one standard deviation
    content: float  # 0..1: is there enough in the picture to judge


@dataclass(frozen=True)
class DepthMap:
    """Heights of one frame, up from the field's lowest plateau. They are metres as the twin has them: a certificate
    vouches for an instrument's own scale, this reading does not."""

    height_m: NDArray[np.float32]  # (h, w)
    scale_m: NDArray[np.float32]  # (h, w) Laplace scale: half of all errors are below 0.69 of it


@dataclass(frozen=True)
class FoundDefect:
    """One defect in one frame."""

    name: str  # one of engines.defects.CLASSES
    confidence: float  # 0..1
    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1; x1 and y1 exclusive


Defects = tuple[FoundDefect, ...]  # the most confident first
