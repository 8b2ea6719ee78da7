"""A scene's heights and probe in, what the twin says a detector would have counted: noiseless, in relative yield."""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.scenes import ROUND, Recording, Scene
from calibration.twin.emission import Emission, render, sky_view

Field = NDArray[np.float32]

REACH = 4.0  # sigma: beyond lie 6e-5 of a Gaussian
POINT_PX = 0.2  # sigma below which a pixel's neighbours get less than 4e-6


def rendered(recording: Recording, how: Emission) -> Field:
    """(h, w) relative yield; the picture goes on as its own mirror, as the simulated ones do."""
    pixel_size_m = recording.scene.pixel_size_m
    sky = sky_view(recording.height_m, pixel_size_m=pixel_size_m)
    emitted = render(recording.height_m, how, pixel_size_m=pixel_size_m, sky=sky)
    return through_probe(emitted, recording.scene)


def through_probe(emitted: Field, scene: Scene) -> Field:
    """The yield under a Gaussian spot of the scene's axes."""
    major, minor = (sigma / scene.pixel_size_m for sigma in scene.probe_sigma_m)
    if major < POINT_PX:
        return emitted
    if major - minor <= ROUND * major:
        return np.asarray(cv2.GaussianBlur(emitted, (0, 0), major, borderType=cv2.BORDER_REFLECT), np.float32)
    kernel = _kernel(major, max(minor, POINT_PX), np.deg2rad(scene.probe_angle_deg))
    return np.asarray(cv2.filter2D(emitted, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def _kernel(major_px: float, minor_px: float, angle_rad: float) -> Field:
    reach = int(np.ceil(REACH * major_px))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float64)
    along, across = x * np.cos(angle_rad) + y * np.sin(angle_rad), y * np.cos(angle_rad) - x * np.sin(angle_rad)
    spot = np.exp(-0.5 * ((along / major_px) ** 2 + (across / minor_px) ** 2))
    return np.asarray(spot / spot.sum(), np.float32)
