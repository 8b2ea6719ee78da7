"""The half-plane of a patch spectrum in cells that share one object power, and the samples in which one is heard.

Registration works on those samples alone: elsewhere there is nothing but noise, and that is most of the plane.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import atan2, cos, hypot, sin

import numpy as np
from numpy.typing import NDArray

from agent.control.spectra import PATCH_PX

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Complex = NDArray[np.complex64]

COLUMNS = PATCH_PX // 2 + 1
LOW_BINS = 2.0  # leakage of the mean and slow shading live below
HIGH_BINS = 116.0  # the noise is measured beyond
FINE_BINS = 40.0  # below it every sample is a cell of its own: wide discs ring there
CELL = 3  # above it 3 x 3 samples share one object power
COARSE_PX = 128  # the correlation that finds shifts needs no more than half the band
CLIMBS = 3  # Newton steps on the phases: from half a coarse pixel to a hundredth of a pixel
STILL_PX = 0.005  # a step this short is the last: it doubles the correct digits each time
# Of the groups that a coarse search by power alone hears: discs 60 px across still ring slower than this.
RINGS = np.r_[np.arange(2.0, 32.0, 1.5), np.arange(32.0, 128.0, 4.0)]
SECTORS = 12  # 15 degrees: astigmatism turns no faster
KX = 2 * np.pi * np.fft.rfftfreq(PATCH_PX)  # rad/px, by column
KY = 2 * np.pi * np.fft.fftfreq(PATCH_PX)  # by row


@dataclass(frozen=True)
class Cells:
    """The half-plane of a patch spectrum, sorted into cells."""

    order: NDArray[np.intp]  # flat samples, cell by cell
    starts: NDArray[np.intp]
    count: Real  # samples in each cell
    fx: Real  # cycles per pixel, mean of each cell
    fy: Real

    def mean(self, samples: Real32) -> Real:
        """(256, 129) -> of each cell."""
        return np.asarray(np.add.reduceat(samples.ravel()[self.order], self.starts) / self.count)


@lru_cache(maxsize=1)
def cells() -> Cells:
    by = np.fft.fftfreq(PATCH_PX, 1.0 / PATCH_PX)[:, None] * np.ones((1, COLUMNS))
    bx = np.ones((PATCH_PX, 1)) * np.arange(COLUMNS)[None, :]
    radius = np.hypot(bx, by)
    # The column bx = 0 holds each sample twice (k and -k): keep one half.
    used = (radius >= LOW_BINS) & (radius <= HIGH_BINS) & ~((bx == 0) & (by < 0))
    fine = radius < FINE_BINS
    key = np.where(
        fine,
        (by + 200) * 1000 + bx,
        1_000_000 + np.floor((by + 201) / CELL) * 1000 + np.floor(bx / CELL),
    )
    flat = np.flatnonzero(used.ravel())
    values, inverse = np.unique(key.ravel()[flat], return_inverse=True)
    order = flat[np.argsort(inverse, kind="stable")]
    count = np.bincount(inverse, minlength=values.size).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.intp)
    mean_x = np.add.reduceat(bx.ravel()[order], starts) / count / PATCH_PX
    mean_y = np.add.reduceat(by.ravel()[order], starts) / count / PATCH_PX
    return Cells(order, starts, count, mean_x, mean_y)


@dataclass(frozen=True)
class Groups:
    """Cells sorted into groups of like frequency and direction."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]

    def sum(self, values: Real | Real32) -> Real:
        """(..., cell) -> (..., group)"""
        return np.asarray(np.add.reduceat(values[..., self.order], self.starts, axis=-1), np.float64)


def gather(fx: Real, fy: Real) -> Groups:
    """Rings, and sectors of each about as long as the ring is wide, up to SECTORS in the half-plane."""
    radius = np.hypot(fx, fy) * PATCH_PX
    ring = np.searchsorted(RINGS, radius)
    sector = np.floor(np.arctan2(fy, fx) % np.pi * SECTORS / np.pi).astype(np.intp) % SECTORS
    key = ring * SECTORS + sector
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    return Groups(order, starts)


class Samples:
    """All samples of some cells, in the order of the cells. Arrays over samples are (..., s)."""

    def __init__(self, chosen: NDArray[np.intp]) -> None:
        grid = cells()
        count = grid.count[chosen].astype(np.intp)
        self.starts = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.intp)
        self.count = count.astype(np.float32)
        self.cell = np.repeat(np.arange(chosen.size), count)  # (s,) counted among the chosen ones
        first = np.repeat(grid.starts[chosen] - self.starts, count)
        self.flat = grid.order[first + np.arange(self.cell.size)]  # (s,) into the half-plane
        self.row, self.column = np.divmod(self.flat, COLUMNS)
        kx, ky = KX[self.column], KY[self.row]
        self.k = np.stack([kx, ky]).astype(np.float32)  # (2, s) rad/px
        self.kk = np.stack([kx * kx, kx * ky, ky * ky]).astype(np.float32)

    def of(self, plane: NDArray[np.complex64]) -> Complex:
        """(..., 256, 129) -> (..., s)"""
        return plane.reshape(*plane.shape[:-2], -1)[..., self.flat]

    def mean(self, values: Real32) -> Real32:
        """(..., s) -> (..., cell)"""
        return np.asarray(np.add.reduceat(values, self.starts, axis=-1) / self.count, np.float32)

    def turn(self, shift_px: NDArray[np.floating]) -> Complex:
        """exp(+i k d): undoes a displacement of d pixels."""
        along = np.exp(1j * float(shift_px[0]) * KX).astype(np.complex64)
        across = np.exp(1j * float(shift_px[1]) * KY).astype(np.complex64)
        turned: Complex = along.take(self.column)
        turned *= across.take(self.row)
        return turned

    def peak(self, product: Complex, reach_px: int) -> Real:
        """Displacement of the first frame against the second, to half a coarse pixel."""
        plane = np.zeros(PATCH_PX * COLUMNS, np.complex64)
        plane[self.flat] = product
        half = COARSE_PX // 2
        rows = np.r_[0:half, PATCH_PX - half : PATCH_PX]
        small = plane.reshape(PATCH_PX, COLUMNS)[rows, : half + 1]
        correlation = np.fft.irfft2(small, (COARSE_PX, COARSE_PX))
        step = PATCH_PX / COARSE_PX
        reach = int(reach_px / step)
        window = np.roll(correlation, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
        y, x = np.unravel_index(int(np.argmax(window)), window.shape)
        return np.array([(x - reach) * step, (y - reach) * step], float)

    def climb(self, product: Complex, start_px: Real) -> Real:
        """Climb sum Re(product exp(ikd)) from start; steps are bounded to a coarse pixel."""
        shift = start_px.copy()
        for _ in range(CLIMBS):
            turned = product * self.turn(shift)
            gradient = -(self.k @ turned.imag)
            step = _step(*(float(v) for v in gradient), *(float(v) for v in self.kk @ turned.real))
            shift = shift + np.clip(step, -2.0, 2.0)
            if hypot(*step) < STILL_PX:
                break
        return shift


def _step(gx: float, gy: float, xx: float, xy: float, yy: float) -> tuple[float, float]:
    """Newton's, along the axes of the curvature [[xx, xy], [xy, yy]], which is taken as positive."""
    middle, radius = (xx + yy) / 2.0, hypot((xx - yy) / 2.0, xy)
    angle = 0.5 * atan2(xy, (xx - yy) / 2.0)
    c, s = cos(angle), sin(angle)
    least = 1e-6 + 0.05 * (abs(middle) + radius)
    along = (c * gx + s * gy) / max(middle + radius, least)
    across = (c * gy - s * gx) / max(middle - radius, least)
    return c * along - s * across, s * along + c * across
