"""The beam's shape: an emission map and the optics in, the blurred map out. Nothing wraps round into the frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.optics import FW50_PER_SIGMA, floor_transfer, probe_transfer, wavelength_m

Field = NDArray[np.float32]


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
) -> Field:
    """The map seen by the probe, same shape. With a wavelength, the floor leaves diffraction out."""
    radius = alpha_rad * (abs(z_m) + float(np.hypot(ax_m, ay_m))) + 4.0 * fw50_m / FW50_PER_SIGMA
    margin = int(np.ceil(radius / pixel_size_m)) + 8
    h, w = emission.shape
    padded = mirror_pad(emission, margin)
    kx, ky = frequencies(padded.shape, pixel_size_m)
    transfer = transfer_of(
        kx, ky, z_m=z_m, ax_m=ax_m, ay_m=ay_m, alpha_rad=alpha_rad, fw50_m=fw50_m, wavelength_m=wavelength_m
    )
    image = np.fft.irfft2(np.fft.rfft2(padded) * transfer, s=padded.shape)
    return np.asarray(image[margin : margin + h, margin : margin + w], np.float32)


def transfer_of(
    kx: NDArray[np.float64],
    ky: NDArray[np.float64],
    *,
    z_m: float,
    ax_m: float,
    ay_m: float,
    alpha_rad: float,
    fw50_m: float,
    wavelength_m: float | None,
) -> Field:
    """Defocus, astigmatism and floor together."""
    ideal = probe_transfer(kx, ky, z_m=z_m, ax_m=ax_m, ay_m=ay_m, alpha_rad=alpha_rad, wavelength_m=wavelength_m)
    return np.asarray(ideal * floor_transfer(np.hypot(kx, ky), fw50_m), np.float32)


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
