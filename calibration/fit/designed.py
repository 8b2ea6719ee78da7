"""A frame whose design is known: a drawn outline in, heights that stand on it out, as far off it as the process was.

What a fit may move: where the frame lies, how far the exposure blurred the drawing (corners round, necks thicken), by
how much all edges lie outside of what that prints, and how bright the ground is (another material).
"""

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.fit.errors import FitError
from calibration.fit.geometry import STEEPEST_DEG, Free, Relief
from calibration.twin.distance import signed_distance
from calibration.twin.emission import sky_view

Field = NDArray[np.float32]

SHIFT_PX = 8.0  # about where correlation has the frame
FARTHEST_SHARE = 0.1  # of the frame's shorter side: farther beside its design it is of another place
BIAS_PX = 8.0
BLUR_PX = (0.5, 16.0, 3.0)  # sigma: least, most, usual
MARGIN_PX = 48  # around the window, so that the blur has what it needs
GROUND = (0.2, 3.0)  # relative yield of the ground
LIKENESS = 0.3  # of frame and design; less is another place, another scale, or upside down


@dataclass(frozen=True)
class Standing:
    """What stands on the outline. Raises FitError where that cannot be."""

    height_m: float
    side_wall_deg: float = 88.0
    rounding_m: float = 2e-9  # sigma of the rounded edges

    def __post_init__(self) -> None:
        if not (np.isfinite(self.height_m) and self.height_m > 0.0):
            raise FitError(f"height_m = {self.height_m:g}; expected a length above zero, in metres")
        if not 0.0 < self.side_wall_deg <= 90.0:
            raise FitError(f"side_wall_deg = {self.side_wall_deg:g}; expected 0 .. 90")

    @property
    def run_m(self) -> float:
        """Of a wall, seen from above."""
        return self.height_m / math.tan(math.radians(min(self.side_wall_deg, STEEPEST_DEG)))


@dataclass
class Designed:
    """cover: drawn share of each pixel on the frame's grid; window: the part of it that is fitted."""

    cover: Field
    window: tuple[slice, slice]
    standing: Standing
    pixel_size_m: float
    shift_px: tuple[float, float] = (0.0, 0.0)  # where the frame lies, about which it may move
    kind: str = "design"
    _kept: tuple[tuple[float, float], Field, Field] | None = field(default=None, repr=False)

    @property
    def free(self) -> tuple[Free, ...]:
        x, y = self.shift_px
        return (
            Free("shift_x_px", x, x - SHIFT_PX, x + SHIFT_PX),
            Free("shift_y_px", y, y - SHIFT_PX, y + SHIFT_PX),
            Free("bias_px", 0.0, -BIAS_PX, BIAS_PX),
            Free("blur_px", BLUR_PX[2], *BLUR_PX[:2]),
            Free("ground_yield", 1.0, *GROUND),
        )

    def relief(self, at: NDArray[np.float64]) -> Relief:
        x, y, bias_px, blur_px, ground = (float(value) for value in at)
        height, sky = self._stands(bias_px, blur_px)
        share = height / np.float32(self.standing.height_m)
        material = np.asarray(ground + (1.0 - ground) * share, np.float32)
        return Relief(height, sky, (x, y), material)

    def _stands(self, bias_px: float, blur_px: float) -> tuple[Field, Field]:
        """Heights and sky view; the last ones are kept, most steps of a fit leave the edges alone."""
        if self._kept is None or self._kept[0] != (bias_px, blur_px):
            height = self._height(bias_px, blur_px)
            self._kept = ((bias_px, blur_px), height, sky_view(height, pixel_size_m=self.pixel_size_m))
        return self._kept[1], self._kept[2]

    def _height(self, bias_px: float, blur_px: float) -> Field:
        outline = outline_px(self.cover, blur_px)[self.window]
        run_px = max(self.standing.run_m / self.pixel_size_m, 1e-3)
        share = np.clip((outline + np.float32(bias_px)) / np.float32(run_px) + 0.5, 0.0, 1.0)
        height = np.asarray(share * self.standing.height_m, np.float32)
        sigma = self.standing.rounding_m / self.pixel_size_m
        if sigma < 0.2:
            return height
        return np.asarray(cv2.GaussianBlur(height, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def outline_px(cover: Field, blur_px: float) -> Field:
    """(h, w) signed distance to the edges that a blurred exposure prints, positive where material is to stand."""
    exposed = cv2.GaussianBlur(cover, (0, 0), blur_px, borderType=cv2.BORDER_REFLECT)
    return signed_distance(np.asarray(exposed - 0.5, np.float32))


def designed(
    levels: Field, cover: Field, *, window: tuple[slice, slice], standing: Standing, pixel_size_m: float
) -> Designed:
    """levels: (h, w) the whole frame; cover: the drawn share of each of its pixels; window: the part that is fitted.

    Raises FitError where frame and design do not look alike, or where no edge lies in the window.
    """
    shift = _shift_px(levels, cover)
    around = tuple(
        slice(max(part.start - MARGIN_PX, 0), min(part.stop + MARGIN_PX, size))
        for part, size in zip(window, cover.shape, strict=True)
    )
    inner = tuple(
        slice(part.start - wide.start, part.stop - wide.start) for part, wide in zip(window, around, strict=True)
    )
    part = np.ascontiguousarray(cover[around])
    if float(np.ptp(part[inner])) < 0.5:
        raise FitError("no edge of the design lies in the fitted window; make --window-px larger")
    return Designed(part, (inner[0], inner[1]), standing, pixel_size_m, shift)


def _shift_px(levels: Field, cover: Field) -> tuple[float, float]:
    """Of the frame against its design, by phase correlation of both after the same smoothing; x, y."""
    smooth = [cv2.GaussianBlur(np.asarray(each, np.float32), (0, 0), 4.0) for each in (cover, levels)]
    window = cv2.createHanningWindow((levels.shape[1], levels.shape[0]), cv2.CV_32F)
    drawn, seen = (np.asarray((each - each.mean()) / max(float(each.std()), 1e-9), np.float32) for each in smooth)
    (x, y), _ = cv2.phaseCorrelate(drawn, seen, window)
    limit = FARTHEST_SHARE * min(levels.shape)
    if math.hypot(x, y) > limit:
        raise FitError(f"the frame lies {math.hypot(x, y):.0f} px beside its design, at most {limit:.0f} can be right")
    moved = cv2.warpAffine(drawn, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]), (drawn.shape[1], drawn.shape[0]))
    likeness = float(np.corrcoef(moved.ravel(), seen.ravel())[0, 1])
    if likeness < LIKENESS:
        raise FitError(
            f"frame and design are alike by {likeness:+.2f}, {LIKENESS:g} is needed: another place or scale, or "
            "material where the design has none (--design-inverted)"
        )
    return float(x), float(y)
