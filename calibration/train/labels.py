"""What the autofocus model is taught to say, as formulas of the physics that made each picture. numpy only.

Blur: the probe's equivalent Gaussian sigma in pixels, defocus, astigmatism and in-focus floor together, geometric
mean of the axes. Content: how well blur could be told from this very spectrum and noise. Score: blur against the
resolution element, log-shaped, times content.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.optics import floor_transfer, half_depth_of_focus_m, probe_fw50_m, probe_transfer, wavelength_m

BLUR_RANGE_PX = (0.3, 40.0)  # a pixel's own box has sigma 0.29: below it blur leaves no trace
GAUSSIAN_LEVEL = float(np.exp(-0.5))  # of the transfer, where k = 1/sigma; a disc's sigma comes out 5 % above alpha z/2
JUST_RECOGNISABLE = 32.0  # resolution elements of blur at which 1 is given: a 512 px frame then has ~8 blobs across
CONTENT_HALF = 50.0  # Fisher information of ln blur at content 1/2: at best 14 % known, in truth a few times worse
DISC_TAIL = 3.0  # 2 J1(q)/q falls as q^-1.5, its square as q^-3
CONTENT_SIDE_PX = 256  # the information is counted per area of this side, so that a larger frame says the same
SHADING_CYCLES = 3.0  # in that side: slower than that is shading or charging, not a specimen in focus
ELEMENT_SIGMA = 0.5  # a resolution element's own Gaussian sigma, in elements
PERFECT_H = 0.5  # half depths of focus up to which 10 is given


@dataclass(frozen=True)
class Probe:
    """What drew one picture. z > 0: focused below the surface."""

    pixel_size_m: float
    alpha_rad: float
    energy_ev: float
    z_m: float
    ax_m: float
    ay_m: float

    @property
    def astigmatism_m(self) -> float:
        return float(np.hypot(self.ax_m, self.ay_m))

    @property
    def waves(self) -> bool:
        """Below two diffraction lengths a pixel the geometric disc damps far too much."""
        return self.pixel_size_m < 2.0 * wavelength_m(self.energy_ev) / self.alpha_rad

    @property
    def floor_m(self) -> float:
        """FW50 that a transfer still needs: diffraction is in the wave transfer already."""
        return probe_fw50_m(self.alpha_rad, self.energy_ev, diffraction=not self.waves)

    @property
    def half_depth_m(self) -> float:
        """h_eff."""
        d0 = probe_fw50_m(self.alpha_rad, self.energy_ev)
        return half_depth_of_focus_m(self.pixel_size_m, self.alpha_rad, d0)


def blur_px(probe: Probe) -> float:
    """Sigma of the Gaussian whose transfer reaches exp(-1/2) where the probe's does; geometric mean of both axes."""
    axis = 0.5 * float(np.arctan2(probe.ay_m, probe.ax_m))
    sigmas = [_axis_sigma_px(probe, axis), _axis_sigma_px(probe, axis + np.pi / 2)]
    return float(np.clip(np.sqrt(sigmas[0] * sigmas[1]), *BLUR_RANGE_PX))


def _axis_sigma_px(probe: Probe, angle_rad: float) -> float:
    sigma_px = np.geomspace(100.0, 0.02, 240)
    k = 1.0 / (sigma_px * probe.pixel_size_m)
    kx, ky = k * np.cos(angle_rad), k * np.sin(angle_rad)
    ideal = probe_transfer(
        kx,
        ky,
        z_m=probe.z_m,
        ax_m=probe.ax_m,
        ay_m=probe.ay_m,
        alpha_rad=probe.alpha_rad,
        wavelength_m=wavelength_m(probe.energy_ev) if probe.waves else None,
    )
    below = np.nonzero(ideal * floor_transfer(k, probe.floor_m) < GAUSSIAN_LEVEL)[0]
    return float(sigma_px[below[0]]) if below.size else float(sigma_px[-1])


def sharpness(probe: Probe) -> float:
    """1..10 from blur alone: 10 up to half a half-depth of focus, 1 at 32 resolution elements of blur, log between.

    The wider axis counts: a line focus is not sharp.
    """
    # At |z| + |a| = h_eff the disc is one resolution element wide: an equivalent sigma of a quarter of it.
    worst = 0.25 * (abs(probe.z_m) + probe.astigmatism_m) / probe.half_depth_m
    best = np.hypot(ELEMENT_SIGMA, 0.25 * PERFECT_H)
    fall = np.log(np.hypot(ELEMENT_SIGMA, worst) / best) / np.log(JUST_RECOGNISABLE / best)
    return float(10.0 - 9.0 * np.clip(fall, 0.0, 1.0))


def content(signal: NDArray[np.float32], *, noise_variance: float, sigma_px: float) -> float:
    """0..1: J / (J + 50), J the Fisher information that this noise-free picture, in noise, carries about ln blur.

    J = 1/2 sum over k of (d ln(S + N) / d ln sigma)^2 with d ln S / d ln sigma = -2 sigma^2 k^2, at most the 3 of a
    disc's tail; sigma as the pixel shows it. Featureless, drowned and merely shaded pictures all come out near 0.
    signal: (n, n), grey levels.
    """
    n = signal.shape[0]
    taper = np.outer(_window(n), _window(n))
    transform = np.fft.rfft2(_level(signal) * taper)
    power = _smooth(np.asarray(np.abs(transform) ** 2 / float((taper**2).sum()), np.float32))
    kx, ky = 2 * np.pi * np.fft.rfftfreq(n), 2 * np.pi * np.fft.fftfreq(n)
    k2 = kx[None, :] ** 2 + ky[:, None] ** 2
    shown2 = sigma_px**2 + ELEMENT_SIGMA**2
    slope = np.minimum(2.0 * shown2 * k2, DISC_TAIL) * power / (power + noise_variance)
    slope[k2 < (2 * np.pi * SHADING_CYCLES / CONTENT_SIDE_PX) ** 2] = 0.0
    information = float((slope**2).sum() - 0.5 * (slope[:, 0] ** 2).sum())  # 1/2 over the plane = the half-plane
    information *= (CONTENT_SIDE_PX / n) ** 2
    return float(information / (information + CONTENT_HALF))


def _level(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without mean and tilt, which would leak from the window's edge into every frequency."""
    n = signal.shape[0]
    x = np.linspace(-1.0, 1.0, n, dtype=np.float32)
    norm = n * float((x**2).sum())
    flat = signal - signal.mean()
    tilt_x, tilt_y = float((flat * x).sum()) / norm, float((flat * x[:, None]).sum()) / norm
    return np.asarray(flat - tilt_x * x - tilt_y * x[:, None], np.float32)


def _window(n: int) -> NDArray[np.float32]:
    """Flat with an eighth of cosine at each end: what lies near the frame's edge counts too."""
    ramp = np.hanning(n // 4)[: n // 8]
    return np.concatenate([ramp, np.ones(n - 2 * ramp.size), ramp[::-1]]).astype(np.float32)


def _smooth(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """3x3 mean: one periodogram sample is no spectrum."""
    rows = power + np.roll(power, 1, axis=0) + np.roll(power, -1, axis=0)
    edge = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return np.asarray((edge[:, :-2] + edge[:, 1:-1] + edge[:, 2:]) / 9.0, np.float32)
