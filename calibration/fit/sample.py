"""One frame as the fit takes it: levels, which of them count, and what lies beneath."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.fit.errors import FitError
from calibration.fit.geometry import Geometry
from calibration.twin.matter import MATERIALS
from calibration.twin.profile import Spot

Field = NDArray[np.float32]

MOST_PIXELS = 1_500_000  # 58 frames of 160x160: the Jacobian then takes some 300 MB
CLIP_PX = 5  # a side of the box around a clipped level
RIM_PX = 6  # of a cut-out: what lies beyond it was there for the sky and the probe, and is mirrored here


@dataclass(frozen=True)
class Sample:
    """levels: electrons where `counts`, else grey levels of a linear detector chain."""

    name: str
    sha256: str
    levels: Field  # (h, w)
    valid: NDArray[np.bool_]  # (h, w) False: clipped, or too near the border of a cut-out
    pixel_size_m: float
    geometry: Geometry
    counts: bool = False
    black: float | None = None  # level without signal; None: to be found, as an offset
    spot: Spot | None = None  # None: to be found
    voltage_v: float | None = None
    material: str | None = None  # of all that is seen, a name of `matter.MATERIALS`; None: counts as silicon

    @property
    def brightness(self) -> float:
        """Relative yield of flat ground: one material everywhere is a factor on the gain."""
        return MATERIALS[self.material or "Si"].brightness


def valid_of(levels: NDArray[Any], *, cut_out: bool) -> NDArray[np.bool_]:
    """(h, w) far from any level at an end of an integer's range, where the digitiser clips.

    The neighbours of a clipped level go too: what noise happened to keep just below the end is too dark on average.
    """
    valid = np.ones(levels.shape, np.bool_)
    if levels.dtype.kind == "u":
        clipped = ((levels == 0) | (levels == np.iinfo(levels.dtype).max)).astype(np.uint8)
        valid = cv2.dilate(clipped, np.ones((CLIP_PX, CLIP_PX), np.uint8)) == 0
    if cut_out:
        valid[:RIM_PX] = valid[-RIM_PX:] = valid[:, :RIM_PX] = valid[:, -RIM_PX:] = False
    return valid


def check(samples: list[Sample], parameters: int) -> None:
    """Raises FitError where there is nothing to fit, or less of it than constants."""
    if not samples:
        raise FitError("no frames: give at least one with known or assumed geometry")
    for each in samples:
        if not np.isfinite(each.levels).all():
            raise FitError(f"{each.name}: {int((~np.isfinite(each.levels)).sum())} levels are not finite numbers")
        if each.voltage_v is not None and not (np.isfinite(each.voltage_v) and each.voltage_v > 0.0):
            raise FitError(f"{each.name}: accelerating voltage {each.voltage_v:g} V; expected a number above zero")
        if each.material is not None and each.material not in MATERIALS:
            raise FitError(f"{each.name}: material {each.material!r}; expected one of {', '.join(MATERIALS)}")
    pixels = sum(int(each.valid.sum()) for each in samples)
    wanted = parameters + sum(2 + len(each.geometry.free) for each in samples)
    if pixels > MOST_PIXELS:
        raise FitError(f"{pixels} pixels in all, more than {MOST_PIXELS}: a handful of frames tells as much")
    if pixels <= wanted:
        raise FitError(f"{pixels} usable pixels in all for {wanted} unknowns: give larger frames, or more of them")
