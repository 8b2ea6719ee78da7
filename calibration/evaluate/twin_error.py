"""How far a render is from a simulated picture beyond the electrons' own noise: NRMSE, its doubt, and baselines."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.scenes import Recording, SceneError

Field = NDArray[np.float32]
Plane = NDArray[np.float64]

FANO = 1.63  # variance over mean of secondaries from flat silicon at 1 keV, by the Monte Carlo itself
BOX_PX = 5  # a side: averages 25 pixels, finer than any defect that counts
# Sums of the box's correlation with itself, in two dimensions: of its squares (how noise power wavers) and of itself.
SQUARES = (1.0 + 2.0 * sum((1.0 - k / BOX_PX) ** 2 for k in range(1, BOX_PX))) ** 2
SUM = float(BOX_PX**2)
SMOOTH_PX = 2.0  # of the gradient baseline: about what an edge's light spreads
FLAT = 1e-6  # relative spread of a render below which it is the rounding of float32, and gain means nothing
BY_CHANCE = 3.0  # sigma: a gain must be larger, or noise alone may have made it


@dataclass(frozen=True)
class Fit:
    """counts = gain * yield + offset."""

    gain: float
    offset: float

    def apply(self, render: Field) -> Field:
        """(h, w) float32, in counts."""
        return np.asarray(self.gain * render + self.offset, np.float32)


@dataclass(frozen=True)
class Error:
    """Shares of the picture's range, which is counts between the 1st and 99th percentile after the box."""

    nrmse: float
    low: float  # one sigma either side, by chance of the electrons alone
    high: float
    noise_floor: float  # what noise alone leaves, already taken off
    range_counts: float


@dataclass(frozen=True)
class Baselines:
    """NRMSE of what knows nothing of electrons, with gain and offset as free."""

    constant: float
    height: float
    gradient: float


def fitted(render: Field, counts: Field) -> Fit:
    """Least squares on the unboxed pixels; a render without contrast gets the mean."""
    t, m = render.astype(np.float64), counts.astype(np.float64)
    spread = t - t.mean()
    power = float(np.mean(spread**2))
    if power <= (FLAT * float(np.abs(t).max())) ** 2:
        return Fit(0.0, float(m.mean()))
    gain = float(np.mean(spread * m)) / power
    return Fit(gain, float(m.mean()) - gain * float(t.mean()))


def check_fit(fit: Fit, recording: Recording, render: Field, fano: float = FANO) -> None:
    """Raises SceneError where gain and offset hide that the render shows nothing of the scene, or its negative."""
    if float(np.ptp(recording.height_m)) == 0.0:
        raise SceneError(f"heights: every pixel is {recording.height_m.flat[0]:g} m; level ground is no test of a twin")
    if not np.isfinite([fit.gain, fit.offset]).all():
        raise SceneError(f"fit: gain {fit.gain:g}, offset {fit.offset:g}; the render is not finite")
    if fit.gain == 0.0:
        raise SceneError("fit: the render has one level everywhere and the picture has not; nothing was compared")
    sigma = gain_sigma(render, recording.counts, fano)
    if fit.gain <= BY_CHANCE * sigma:
        why = "the render is the picture's negative" if fit.gain < -BY_CHANCE * sigma else "no likeness beyond chance"
        raise SceneError(f"fit: gain {fit.gain:.3g} +- {sigma:.1g} counts; {why}: no score can be told")


def gain_sigma(render: Field, counts: Field, fano: float) -> float:
    """Of the fitted gain, by chance of the electrons alone; render not flat."""
    power = float(render.astype(np.float64).var()) * render.size
    return math.sqrt(fano * float(counts.mean(dtype=np.float64)) / power)


def scaled(render: Field, counts: Field) -> Fit:
    """Least squares without an offset: what is asked of a render whose contrast is right by itself."""
    t, m = render.astype(np.float64), counts.astype(np.float64)
    power = float(np.mean(t**2))
    return Fit(float(np.mean(t * m)) / power if power > 0.0 else 0.0, 0.0)


def error_of(render: Field, counts: Field, fano: float = FANO) -> Error:
    """render: in counts. sqrt(max(0, mean((T-M)^2) - F mean(M)/25)) / (p99-p1 of M), T and M after the box."""
    t, m = boxed(render), boxed(counts)
    low, high = np.percentile(m, (1.0, 99.0))
    span = max(float(high - low), 1e-9)
    noise = fano * float(m.mean()) / SUM
    excess = float(np.mean((t - m) ** 2)) - noise
    doubt = _doubt(excess, noise, m.size)
    low_high = (_root(excess - doubt) / span, _root(excess + doubt) / span)
    return Error(_root(excess) / span, *low_high, math.sqrt(noise) / span, float(high - low))


def baselines(recording: Recording, fano: float = FANO) -> Baselines:
    counts, height = recording.counts, recording.height_m
    slope_y, slope_x = np.gradient(height, recording.scene.pixel_size_m)
    steep = np.asarray(np.hypot(slope_x, slope_y), np.float32)
    gradient = np.asarray(cv2.GaussianBlur(steep, (0, 0), SMOOTH_PX, borderType=cv2.BORDER_REFLECT), np.float32)
    return Baselines(*(_free(each, counts, fano) for each in (np.zeros_like(counts), height, gradient)))


def boxed(field: Field) -> Plane:
    smooth = cv2.blur(field.astype(np.float64), (BOX_PX, BOX_PX), borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth, np.float64)


def _free(render: Field, counts: Field, fano: float) -> float:
    return error_of(fitted(render, counts).apply(render), counts, fano).nrmse


def _doubt(excess: float, noise: float, pixels: int) -> float:
    """One sigma of mean((T-M)^2): the boxed noise's own power, and its chance likeness to what the render misses."""
    own = 2.0 * noise**2 * SQUARES / pixels
    likeness = 4.0 * max(excess, 0.0) * noise * SUM / pixels  # at most: where the misses are smooth over the box
    return math.sqrt(own + likeness)


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))
