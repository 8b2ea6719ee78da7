"""The beam's shape: an emission map and the optics in, the blurred map out. Nothing wraps round into the frame."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.optics import FW50_PER_SIGMA, displacement, floor_transfer, probe_transfer, wavelength_m

Field = NDArray[np.float32]

SKIRT_WIDTH = 3.0  # of the in-focus sigma: what is scattered in the column and by the aperture's edge
DIFFRACTION_FW50 = 0.54  # of wavelength / alpha (Barth & Kruit 1996)


class ProbeError(ValueError):
    """A probe that no column can make."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The beam but for its focus. With a wavelength, `fw50_m` leaves diffraction out: the waves bring their own."""

    alpha_rad: float
    fw50_m: float = 0.0  # in focus
    wavelength_m: float | None = None
    skirt: float = 0.0  # share of the current in a skirt SKIRT_WIDTH times as wide as the focused probe
    gaussian: bool = False  # a Gaussian of the disc's variance instead of the disc

    def __post_init__(self) -> None:
        if not (np.isfinite(self.alpha_rad) and self.alpha_rad > 0.0):
            raise ProbeError(
                f"semi-convergence angle {self.alpha_rad:g} rad: above 0 is needed, 2e-3 to 15e-3 is usual"
            )
        if not (np.isfinite(self.fw50_m) and self.fw50_m >= 0.0):
            raise ProbeError(f"in-focus probe {self.fw50_m:g} m: 0 or more is needed")
        if not 0.0 <= self.skirt <= 1.0:
            raise ProbeError(f"skirt {self.skirt:g}: a share of the current from 0 to 1 is needed, 0.1 is usual")
        if self.wavelength_m is not None and self.gaussian:
            raise ProbeError("a probe is a Gaussian or a wave: give the wavelength or gaussian=True, not both")


def blur(
    emission: Field,
    *,
    pixel_size_m: float,
    z_m: float,
    ax_m: float = 0.0,
    ay_m: float = 0.0,
    alpha_rad: float,
    fw50_m: float = 0.0,
    wavelength_m: float | None = None,
    skirt: float = 0.0,
) -> Field:
    """The map seen by the probe, same shape. With a wavelength, the floor leaves diffraction out."""
    probe = Probe(alpha_rad=alpha_rad, fw50_m=fw50_m, wavelength_m=wavelength_m, skirt=skirt)
    margin = reach_px(probe, abs(z_m) + float(np.hypot(ax_m, ay_m)), pixel_size_m=pixel_size_m)
    h, w = emission.shape
    padded = mirror_pad(emission, margin)
    kx, ky = frequencies(padded.shape, pixel_size_m)
    transfer = transfer_of(kx, ky, z_m=z_m, ax_m=ax_m, ay_m=ay_m, probe=probe)
    image = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)
    return np.asarray(image[margin : margin + h, margin : margin + w], np.float32)


def reach_px(probe: Probe, defocus_m: float, *, pixel_size_m: float) -> int:
    """How far from its centre the beam still finds something."""
    wide = SKIRT_WIDTH if probe.skirt > 0.0 else 1.0
    radius = probe.alpha_rad * defocus_m + 4.0 * wide * probe.fw50_m / FW50_PER_SIGMA
    return int(np.ceil(radius / pixel_size_m)) + 8


def transfer_of(
    kx: NDArray[np.float64],
    ky: NDArray[np.float64],
    *,
    z_m: float,
    ax_m: float,
    ay_m: float,
    probe: Probe,
) -> Field:
    """Defocus, astigmatism and floor together."""
    if probe.gaussian:
        ux, uy = displacement(kx, ky, z_m, ax_m, ay_m)
        ideal = np.exp(-(probe.alpha_rad**2) * (ux**2 + uy**2) / 8.0)
    else:
        ideal = probe_transfer(
            kx, ky, z_m=z_m, ax_m=ax_m, ay_m=ay_m, alpha_rad=probe.alpha_rad, wavelength_m=probe.wavelength_m
        )
    return np.asarray(ideal * floor_of(np.hypot(kx, ky), probe), np.float32)


def floor_of(k: NDArray[np.float64], probe: Probe) -> NDArray[np.float64]:
    """The in-focus probe's Gaussian, and its skirt."""
    core = floor_transfer(k, probe.fw50_m)
    if probe.skirt == 0.0:
        return core
    # The skirt is wider than the whole focused probe: what the waves bring of themselves is no part of this factor.
    waves = DIFFRACTION_FW50 * (probe.wavelength_m or 0.0) / probe.alpha_rad
    wide = float(np.sqrt(SKIRT_WIDTH**2 * probe.fw50_m**2 + (SKIRT_WIDTH**2 - 1.0) * waves**2))
    return np.asarray((1.0 - probe.skirt) * core + probe.skirt * floor_transfer(k, wide), np.float64)


def frequencies(shape: tuple[int, ...], pixel_size_m: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """kx (1, w // 2 + 1) and ky (h, 1) of the half plane, rad/m."""
    kx = np.asarray(2.0 * np.pi * np.fft.rfftfreq(shape[1], pixel_size_m)[None, :], np.float64)
    ky = np.asarray(2.0 * np.pi * np.fft.fftfreq(shape[0], pixel_size_m)[:, None], np.float64)
    return kx, ky


def needs_waves(pixel_size_m: float, alpha_rad: float, energy_ev: float) -> bool:
    """Below two diffraction lengths a pixel the geometric disc damps far too much."""
    return pixel_size_m < 2.0 * wavelength_m(energy_ev) / alpha_rad


def mirror_pad(image: Field, margin: int) -> Field:
    """Mirrored by at least `margin` on every side, up to a size that transforms fast; the picture starts at margin."""
    h, w = image.shape
    bottom = fast_size(h + 2 * margin) - h - margin
    right = fast_size(w + 2 * margin) - w - margin
    return np.asarray(cv2.copyMakeBorder(image, margin, bottom, margin, right, cv2.BORDER_REFLECT_101), np.float32)


def fast_size(size: int) -> int:
    """The next even length with factors 2, 3 and 5 only."""
    return 2 * int(cv2.getOptimalDFTSize((size + 1) // 2))
