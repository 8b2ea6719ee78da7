"""What the models say of one frame, as named physical quantities. numpy only; no tensor leaves this package."""

from dataclasses import dataclass, field

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
class Relief:
    """Heights where the engine left them: its own arrays, good until its next reading. `metres` is to be kept."""

    height_px: NDArray[np.float32]  # (h, w) as the network tells them
    scale_px: NDArray[np.float32]  # (h, w)
    unit_m: float  # what one of these numbers is: the pixel size, times what a certificate found

    def within(self, shape: tuple[int, ...], factor: float = 1.0) -> "Relief":
        """The upper left (h, w) of it, each height `factor` times as high."""
        rows, columns = shape
        return Relief(self.height_px[:rows, :columns], self.scale_px[:rows, :columns], self.unit_m * factor)

    def metres(self) -> DepthMap:
        """Arrays of its own."""
        unit_m = np.float32(self.unit_m)
        return DepthMap(height_m=self.height_px * unit_m, scale_m=self.scale_px * unit_m)


@dataclass(frozen=True)
class FoundDefect:
    """One defect in one frame."""

    name: str  # one of engines.defects.CLASSES
    confidence: float  # 0..1
    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1; x1 and y1 exclusive
    seen: tuple[float, ...] = field(default=(), repr=False)  # by the network at its place, SEEN numbers; none: unknown


Defects = tuple[FoundDefect, ...]  # the most confident first
