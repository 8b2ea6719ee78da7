"""What lies under the beam of one frame: heights that are known, or a line-space of assumed measures.

Both answer with heights and sky view on the frame's grid; what a fit may move about them is `free`.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.fit.errors import FitError
from calibration.twin.emission import sky_view

Field = NDArray[np.float32]

FINE = 4  # samples a pixel of a line's cross section
PERIODS = 5  # of the template; its middle one is read, so that the sky's horizon is never a mirror's
ROWS = 3
SHIFT_PX = 3.0  # so far heights measured elsewhere may lie beside the frame
TURN_RAD = 0.05  # so far from where the spectrum has it a line-space may turn
STEEPEST_DEG = 89.9  # a wall of 90 degrees has no width on any grid


@dataclass(frozen=True)
class Free:
    """Something about where the frame lies: its name with the unit, and how far from `usual` it may go."""

    name: str
    usual: float
    low: float
    high: float


@dataclass(frozen=True)
class Relief:
    height_m: Field  # (h, w)
    sky: Field  # (h, w)
    shift_px: tuple[float, float] = (0.0, 0.0)  # x, y: to be moved after the probe
    material: Field | None = None  # (h, w) relative yield; None: 1


class Geometry(Protocol):
    """free: in the order in which `relief` takes their values."""

    @property
    def kind(self) -> str: ...

    @property
    def free(self) -> tuple[Free, ...]: ...

    def relief(self, at: NDArray[np.float64]) -> Relief: ...


@dataclass(frozen=True)
class Known:
    """Heights on the frame's grid. kind: scene (exact) or heights (measured: they may lie some pixels beside)."""

    height_m: Field
    sky: Field
    kind: str = "scene"

    @property
    def free(self) -> tuple[Free, ...]:
        if self.kind == "scene":
            return ()
        return tuple(Free(name, 0.0, -SHIFT_PX, SHIFT_PX) for name in ("shift_x_px", "shift_y_px"))

    def relief(self, at: NDArray[np.float64]) -> Relief:
        return Relief(self.height_m, self.sky, (float(at[0]), float(at[1])) if at.size else (0.0, 0.0))


def known(height_m: Field, *, pixel_size_m: float, exact: bool) -> Known:
    """exact: the grid is the frame's own."""
    if not np.isfinite(height_m).all():
        count = int((~np.isfinite(height_m)).sum())
        raise FitError(f"{count} of the heights are not finite numbers; fill or cut them out")
    sky = sky_view(height_m, pixel_size_m=pixel_size_m)
    return Known(np.asarray(height_m, np.float32), sky, "scene" if exact else "heights")


@dataclass(frozen=True)
class Measures:
    """A line-space as it was made. Raises FitError where that cannot be."""

    pitch_m: float
    cd_m: float  # of the line, half way up
    height_m: float
    side_wall_deg: float = 88.0
    rounding_m: float = 2e-9  # sigma of the rounded corners

    def __post_init__(self) -> None:
        for name in ("pitch_m", "cd_m", "height_m"):
            _require(_above_zero(getattr(self, name)), name, getattr(self, name), "a length above zero, in metres")
        _require(self.cd_m < self.pitch_m, "cd_m", self.cd_m, f"less than the pitch, {self.pitch_m:g} m")
        upright = 0.0 < self.side_wall_deg <= 90.0
        _require(upright, "side_wall_deg", self.side_wall_deg, "0 .. 90: what overhangs is not seen from above")
        _require(0.0 <= self.rounding_m < self.pitch_m, "rounding_m", self.rounding_m, "0 up to less than the pitch")
        room = min(self.cd_m, self.pitch_m - self.cd_m)
        steep = math.degrees(math.atan2(self.height_m, room))
        _require(self.run_m <= room, "side_wall_deg", self.side_wall_deg, f"{steep:.1f} or more: walls meet otherwise")

    @property
    def run_m(self) -> float:
        """Of one wall, seen from above."""
        return self.height_m / math.tan(math.radians(min(self.side_wall_deg, STEEPEST_DEG)))


@dataclass(frozen=True)
class Lines:
    """A line-space on a frame of `shape`; angle: of the way across the lines, from +x towards +y, y down."""

    measures: Measures
    shape: tuple[int, int]
    pixel_size_m: float
    angle_rad: float  # about which it may turn
    phase_px: float = 0.0  # where along the way across, from the frame's centre, a line has its middle
    kind: str = "lines"
    template: tuple[Field, Field] = field(init=False, repr=False)  # height [m] and sky of one period, FINE a pixel

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", _template(self.measures, self.pixel_size_m))

    @property
    def pitch_px(self) -> float:
        return self.measures.pitch_m / self.pixel_size_m

    @property
    def free(self) -> tuple[Free, ...]:
        half, a = 0.5 * self.pitch_px, self.angle_rad
        return (
            Free("phase_px", self.phase_px, self.phase_px - half, self.phase_px + half),
            Free("angle_rad", a, a - TURN_RAD, a + TURN_RAD),
        )

    def relief(self, at: NDArray[np.float64]) -> Relief:
        place = self.across_px(float(at[1])) - at[0]
        height, sky = (self._along(each, place) for each in self.template)
        return Relief(height, sky)

    def across_px(self, angle_rad: float) -> NDArray[np.float64]:
        """(h, w) way across the lines from the frame's centre."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]].astype(np.float64)
        x, y = x - 0.5 * (self.shape[1] - 1), y - 0.5 * (self.shape[0] - 1)
        return np.asarray(np.cos(angle_rad) * x + np.sin(angle_rad) * y, np.float64)

    def _along(self, period: Field, place: NDArray[np.float64]) -> Field:
        grid = (np.arange(period.size) + 0.5) / period.size * self.pitch_px
        return np.asarray(np.interp(place, grid - 0.5 * self.pitch_px, period, period=self.pitch_px), np.float32)


def _template(measures: Measures, pixel_size_m: float) -> tuple[Field, Field]:
    """One period, a line in its middle: heights and sky view by the same code as every relief."""
    samples = max(round(measures.pitch_m / pixel_size_m * FINE), 16)
    step_m = measures.pitch_m / samples
    across = (np.arange(samples) + 0.5) * step_m - 0.5 * measures.pitch_m
    inside = 0.5 * measures.cd_m - np.abs(across)
    one = measures.height_m * np.clip(inside / max(measures.run_m, 1e-3 * step_m) + 0.5, 0.0, 1.0)
    many = np.tile(np.asarray(one, np.float32), (ROWS, PERIODS))
    sigma = measures.rounding_m / step_m
    smooth = cv2.GaussianBlur(many, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma >= 0.2 else many
    sky = sky_view(np.asarray(smooth, np.float32), pixel_size_m=step_m)
    middle = np.s_[ROWS // 2, PERIODS // 2 * samples : (PERIODS // 2 + 1) * samples]
    return np.asarray(smooth[middle], np.float32), np.asarray(sky[middle], np.float32)


def _above_zero(value: float) -> bool:
    return bool(np.isfinite(value)) and value > 0.0


def _require(ok: bool, name: str, value: float, expected: str) -> None:
    if not ok:
        raise FitError(f"{name} = {value:g}; expected {expected}")
