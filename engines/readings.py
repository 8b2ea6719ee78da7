"""What the models say of one frame, as named physical quantities. numpy only; no tensor leaves this package."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FocusReading:
    """One frame judged for focus. Where `content` is low, the blur is little more than a guess: see its uncertainty."""

    score: float  # 0 noise, white, black, featureless; 1 just recognisable; 10 perfect for this pixel size
    blur_px: float  # equivalent Gaussian sigma of the probe, geometric mean of the axes
    blur_uncertainty_px: float  # one standard deviation
    content: float  # 0..1: is there enough in the picture to judge
