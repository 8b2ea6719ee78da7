"""How much blurrier one frame is than another of the same field: two pictures in, the added probe out, in pixels.

Frame = T reference, whatever the field: T a Gaussian probe with astigmatism, a gain and a shift. The likelihood has the
field profiled out, |B - T A|^2 / (noise of B + |T|^2 noise of A) in each frequency, so that noise biases nothing. The
axes and their angle come with a standard deviation: a field of lines tells little of the blur along the lines.
"""

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.twin.probe import frequencies

Array = NDArray[np.float64]

CORNER = 2.8  # rad/px: beyond it a frame holds noise and little else
FINEST = 2.0  # rad/px: nearer to the pixel's own limit a sampled probe is no longer the formula's
NEAR, WIDE = 3, 9  # frequencies a side: smeared together by the window; enough to know signal from noise
CLEAR = 1.5  # of the reference's noise: where less stands around there is nothing to compare, only noise to be fitted
STRONG = 5.0  # of the noise: what no average over noise reaches
EULER = 0.5772  # the mean logarithm of noise's power lies so much below the logarithm of its mean
MODEL_ERROR = (
    0.02  # of the transfer: no window, no field's edge and no digitisation is perfect, however strong the signal
)
# Neighbouring frequencies are not independent under a Hann window, 1.944^2 / 2 of the variance; the other factor 2 is
# what sampled and cut-off probes cost: with both, errors over the ARTIMAGEN frames are as large as was said of them.
SPREAD = 3.78
SHARPER = 1.0  # exponent: no frame passes a frequency more than e times better than its reference
STARTS_PX = (0.4, 0.8, 1.5, 3.0, 6.0, 12.0)  # the fit begins at the one that fits best
TOLERANCE, TRIES = 1e-4, 80  # of the fit
AT_LEAST_SIDE_PX = 64
FEWEST = 50  # frequencies that six numbers are fitted to


class RelativeBlurError(ValueError):
    """Two pictures that cannot be compared."""


@dataclass(frozen=True)
class RelativeBlur:
    """The probe that turns the reference into the frame: a Gaussian, image axes x right, y down."""

    major_px: float  # sigma
    minor_px: float  # 0 where noise makes the frame look sharper than the reference along that axis
    angle_rad: float  # of the major axis, from +x towards +y, 0 to pi
    uncertainty_px: float  # of sigma_px, one standard deviation
    angle_uncertainty_rad: float  # infinite where the probe is round
    gain: float  # of the frame over the reference
    shift_px: tuple[float, float]  # x, y
    misfit: float  # rms residual over what the noise explains: 1 where both frames are of one field

    @property
    def sigma_px(self) -> float:
        """Root mean square of the axes: its square is the variance added, on average over directions."""
        return float(np.hypot(self.major_px, self.minor_px) / np.sqrt(2.0))


@dataclass(frozen=True)
class _Spectra:
    """Both pictures' frequencies below FINEST, (n,) each, and the noise's power in them."""

    kx: Array  # rad/px
    ky: Array
    frame: NDArray[np.complex128]
    reference: NDArray[np.complex128]
    noise: tuple[float, float]  # frame, reference
    model: Array  # power that the transfer's own error may leave


def relative_blur(frame: NDArray[np.generic], reference: NDArray[np.generic]) -> RelativeBlur:
    """Both (h, w), any grey levels, the same field; the reference is the sharper one."""
    seen = _spectra(_checked(frame, "frame"), _checked(reference, "reference", frame.shape))
    starts = [np.array([sigma**2, 0.0, 0.0, 1.0, 0.0, 0.0]) for sigma in STARTS_PX]
    start = min(starts, key=lambda p: float((_residual(seen, p) ** 2).sum()))
    best = least_squares(
        partial(_residual, seen), start, jac=partial(_slopes, seen), method="lm",
        ftol=TOLERANCE, xtol=TOLERANCE, max_nfev=TRIES,
    )  # fmt: skip
    misfit = float(np.sqrt(2.0 * best.cost / len(seen.kx)))
    return _told(best.x, SPREAD * np.linalg.pinv(best.jac.T @ best.jac)[:3, :3], misfit)


def _told(p: Array, covariance: Array, misfit: float) -> RelativeBlur:
    """p: mean, half difference and cross-term of the variances in x and y (px^2), gain, shift; covariance of three."""
    mean, plus, cross, gain, dx, dy = (float(value) for value in p)
    half = float(np.hypot(plus, cross))  # of the difference between the axes' variances
    around = 0.5 * np.array([0.0, -cross, plus]) / max(half, 1e-9) ** 2
    sigma = float(np.sqrt(max(mean, 0.0)))
    return RelativeBlur(
        major_px=float(np.sqrt(max(mean + half, 0.0))),
        minor_px=float(np.sqrt(max(mean - half, 0.0))),
        angle_rad=0.5 * float(np.arctan2(cross, plus)) % np.pi,
        uncertainty_px=float(np.sqrt(covariance[0, 0])) / (2.0 * max(sigma, STARTS_PX[0])),
        angle_uncertainty_rad=float(np.sqrt(around @ covariance @ around)) if half > 0.0 else float("inf"),
        gain=gain,
        shift_px=(dx, dy),
        misfit=misfit,
    )


def _checked(picture: NDArray[np.generic], name: str, shape: tuple[int, ...] | None = None) -> Array:
    if picture.ndim != 2 or min(picture.shape) < AT_LEAST_SIDE_PX:
        raise RelativeBlurError(f"{name} of shape {picture.shape}: (h, w) of {AT_LEAST_SIDE_PX} or more is needed")
    if shape is not None and picture.shape != shape:
        raise RelativeBlurError(f"{name} of shape {picture.shape}, frame of shape {shape}: one field, one shape")
    values = np.asarray(picture, np.float64)
    if not np.isfinite(values).all() or float(np.ptp(values)) == 0.0:
        raise RelativeBlurError(f"{name}: blank, or not finite; nothing can be compared")
    return values


def _spectra(frame: Array, reference: Array) -> _Spectra:
    h, w = frame.shape
    window = np.outer(np.hanning(h), np.hanning(w))
    b, a = (np.fft.rfft2((p - p.mean()) * window) for p in (frame, reference))
    kx, ky = (np.broadcast_to(k, a.shape) for k in frequencies((h, w), 1.0))
    k = np.hypot(kx, ky)
    noise_b, noise_a = (float((np.abs(s[k > CORNER]) ** 2).mean()) for s in (b, a))
    power = np.abs(a) ** 2 + 1e-12
    near = _box(power, NEAR)
    # Geometric mean of many: a frequency's own power would choose lucky noise, a plain mean a harmonic's neighbours.
    around = np.exp(_box(np.log(power), WIDE) + EULER)
    if np.count_nonzero(around > STRONG * noise_a) < FEWEST:
        raise RelativeBlurError("reference: nothing stands out of its noise; average more frames")
    fine = (around > CLEAR * noise_a) & (k < FINEST) & (k > 0.0)
    return _Spectra(kx[fine], ky[fine], b[fine], a[fine], (noise_b, noise_a), MODEL_ERROR**2 * near[fine])


def _box(plane: Array, side: int) -> Array:
    return np.asarray(cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT), np.float64)


def _model(seen: _Spectra, p: Array) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The transfer (n,), and its derivatives (n, 6) by the parameters as in `_told`."""
    mean, plus, cross, gain, dx, dy = p
    kx, ky = seen.kx, seen.ky
    by_mean, by_plus, by_cross = -0.5 * (kx**2 + ky**2), -0.5 * (kx**2 - ky**2), -kx * ky
    damping = np.minimum(mean * by_mean + plus * by_plus + cross * by_cross, SHARPER)
    unit = np.exp(damping - 1j * (kx * dx + ky * dy))
    moved = gain * unit
    slopes = [by_mean * moved, by_plus * moved, by_cross * moved, unit, -1j * kx * moved, -1j * ky * moved]
    return moved, np.stack(slopes, axis=1)


def _residual(seen: _Spectra, p: Array) -> Array:
    """(B - T A) / sqrt(its variance): the likelihood with the field profiled out."""
    passed, _ = _model(seen, p)
    error = (seen.frame - passed * seen.reference) / np.sqrt(_variance(seen, passed))
    return np.concatenate([error.real, error.imag])


def _slopes(seen: _Spectra, p: Array) -> Array:
    passed, slopes = _model(seen, p)
    variance = _variance(seen, passed)[:, None]
    error = (seen.frame - passed * seen.reference)[:, None]
    growth = 2.0 * seen.noise[1] * (passed.conj()[:, None] * slopes).real
    total = -slopes * seen.reference[:, None] / np.sqrt(variance) - 0.5 * error * growth / variance**1.5
    return np.concatenate([total.real, total.imag])


def _variance(seen: _Spectra, passed: NDArray[np.complex128]) -> Array:
    noise_b, noise_a = seen.noise
    return np.asarray(noise_b + np.abs(passed) ** 2 * noise_a + seen.model, np.float64)
