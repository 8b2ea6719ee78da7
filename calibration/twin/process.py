"""From a design to what stands on the wafer: aerial image, edge roughness, side walls. Lengths in metres.

A design is coverage, 0..1 a pixel. Its aerial image is a Gaussian of 0.3 to 0.5 pitches (full width at half maximum: a
standard deviation of so much would leave nothing of a grating) and is cut at a threshold; +-10 % of the threshold is
what dose and focus do.
"""

from dataclasses import dataclass
from math import inf, log, radians, sqrt, tan

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin import matter
from calibration.twin.distance import signed_distance
from calibration.twin.roughness import Roughness
from calibration.twin.surface import SpecimenError

Field = NDArray[np.float32]

FWHM = 2.0 * sqrt(2.0 * log(2.0))  # of a Gaussian, in standard deviations
BLUR = (0.3, 0.5)  # pitches
DOSE = 0.1
LER_M, XI_M = (0.5e-9, 2.5e-9), (8e-9, 40e-9)  # of a resist edge
FINE_PITCH_M = 250e-9  # coarser patterns were made with coarser light: their roughness grows with the pitch
WALL_DEG = (78.0, 89.0)
ASPECT = (0.25, 2.2)  # height to gap: from flat to where a vertical beam sees no floor any more
HEIGHT_PX = (2.5, 64.0)
ROUND = 1e-9  # of a length: two halves may make a little more than the whole


@dataclass(frozen=True)
class Process:
    """One layer's making. Raises SpecimenError for what no process can make."""

    height_m: float
    side_wall_deg: float = 86.0  # 90 is vertical
    foot_m: float = 0.0  # radius of the fillet at the bottom of the wall
    top_m: float = 0.0  # radius of the rounded top edge
    rounding_m: float = 2e-9  # sigma that softens every corner
    blur: float = 0.4  # of the aerial image, full width at half maximum in pitches
    threshold: float = 0.5  # below 0.5 the material grows
    rough_sigma_m: float = 0.0
    rough_xi_m: float = 20e-9
    hurst: float = 0.7
    correlation: float = 0.0  # of facing edges
    film: str = "Si"
    ground: str = "Si"

    def __post_init__(self) -> None:
        _positive("height_m", self.height_m, "m")
        if not 0.0 < self.side_wall_deg <= 90.0:
            raise SpecimenError(
                f"side_wall_deg {self.side_wall_deg:g}: a wall past vertical hides its own foot; needs 0 < angle <= 90"
            )
        for name in ("foot_m", "top_m", "rounding_m", "blur", "rough_sigma_m"):
            if not 0.0 <= getattr(self, name) < inf:
                raise SpecimenError(f"{name} {getattr(self, name):g}: needs a finite value of 0 or more")
        _positive("rough_xi_m", self.rough_xi_m, "m")
        if not 0.0 < self.hurst <= 1.0:
            raise SpecimenError(f"hurst {self.hurst:g}: needs a value above 0, at most 1")
        if not -1.0 <= self.correlation <= 1.0:
            raise SpecimenError(f"correlation {self.correlation:g}: of facing edges, needs a value from -1 to 1")
        if not 0.0 < self.threshold < 1.0:
            raise SpecimenError(f"threshold {self.threshold:g}: of the aerial image, needs a value between 0 and 1")
        if self.foot_m + self.top_m > self.height_m * (1.0 + ROUND):
            raise SpecimenError(
                f"foot_m {self.foot_m:g} and top_m {self.top_m:g}: together no larger than the height of "
                f"{self.height_m:g} m, or the wall between them has none left"
            )
        matter.brightness(self.film)
        matter.brightness(self.ground)

    @property
    def run_m(self) -> float:
        """Of the wall, seen from above."""
        return self.height_m / tan(radians(self.side_wall_deg))

    def roughness(self, pixel_size_m: float) -> Roughness:
        sigma, xi = self.rough_sigma_m / pixel_size_m, max(self.rough_xi_m / pixel_size_m, 1.5)
        return Roughness(sigma, xi, self.hurst, self.correlation)


def draw_process(*, gap_px: float, pitch_px: float, pixel_size_m: float, rng: np.random.Generator) -> Process:
    """Any layer: gap_px is the space or the hole that must stay open."""
    height_px = float(np.clip(gap_px * np.exp(rng.uniform(*np.log(ASPECT))), *HEIGHT_PX))
    coarse = max(1.0, pitch_px * pixel_size_m / FINE_PITCH_M)
    sigma_px = min(float(rng.uniform(*LER_M)) * coarse / pixel_size_m, 0.035 * pitch_px)
    film, ground = matter.draw_stack(rng)
    room_px = min(0.3 * height_px, 0.15 * gap_px)
    return Process(
        height_m=height_px * pixel_size_m,
        side_wall_deg=float(rng.uniform(*WALL_DEG)),
        foot_m=room_px * pixel_size_m * (float(rng.uniform(0.2, 1.0)) if rng.random() < 0.3 else 0.0),
        top_m=room_px * pixel_size_m * (float(rng.uniform(0.2, 1.0)) if rng.random() < 0.4 else 0.0),
        rounding_m=float(rng.uniform(1e-9, 3e-9)),
        blur=float(rng.uniform(*BLUR)),
        threshold=0.5 * (1.0 + DOSE * float(rng.uniform(-1.0, 1.0))),
        rough_sigma_m=sigma_px * pixel_size_m,
        rough_xi_m=float(rng.uniform(*XI_M)) * coarse,
        hurst=float(rng.uniform(0.4, 0.9)),
        correlation=float(rng.uniform(-0.3, 0.6)),
        film=film,
        ground=ground,
    )


def printed(cover: Field, *, sigma_px: float, threshold: float = 0.5) -> Field:
    """(h, w) signed distance to the printed outline of a design, positive in the material."""
    return signed_distance(aerial(cover, sigma_px) - np.float32(threshold))


def aerial(cover: Field, sigma_px: float) -> Field:
    """The Gaussian image of a design. It is at least as wide as a pixel's own steps."""
    image = cv2.GaussianBlur(cover, (0, 0), max(sigma_px, 0.6), borderType=cv2.BORDER_REFLECT)
    return np.asarray(image, np.float32)


def _positive(name: str, value: float, unit: str) -> None:
    if not (np.isfinite(value) and value > 0.0):
        raise SpecimenError(f"{name} {value:g} {unit}: needs a positive number")
