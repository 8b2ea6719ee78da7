"""One admitted frame in, what it says about focus out: patch spectra of the original pixels, at one magnification."""

from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control.spectra import PATCH_PX, patch_spectra, resampled
from agent.messages import Evidence, Frame, Wanted

COARSER = 4  # times as large pixels, for frames that are far out of focus
SMALLEST_COARSE_PX = 96  # of its sides: less holds too little of so wide a blur
SCALE_PX = 0.5  # displacement within a patch from which a magnification change must be undone before the transform


def take_evidence(frame: Frame, pixels: NDArray[Any], wanted: Wanted) -> Evidence | None:
    """Patch spectra of one admitted frame; None where its header lacks what evidence needs."""
    o = frame.optics
    if o.pixel_size_m is None or o.working_distance_m is None or o.t_start_ns is None or min(pixels.shape) < 64:
        return None
    grown = _grown(o.working_distance_m, wanted)
    patches = patch_spectra(pixels)
    noise = patches.noise  # of the picture as it came: resampling takes from the noise's highest frequencies
    if float(noise.min()) <= 0.0:
        return None
    if abs(grown) * PATCH_PX / 2.0 > SCALE_PX:
        pixels, grown = resampled(pixels, 1.0 + grown), 0.0
        patches = patch_spectra(pixels)
    fine = Evidence(
        frame=frame.number,
        session=o.session,
        source=frame.source,
        optics_epoch=o.optics_epoch,
        scene_epoch=o.scene_epoch,
        t_start_ns=o.t_start_ns,
        working_distance_m=o.working_distance_m,
        stigmator_x=o.stigmator_x or 0.0,
        stigmator_y=o.stigmator_y or 0.0,
        pixel_size_m=o.pixel_size_m,
        pixel_size_y_m=o.pixel_size_y_m or o.pixel_size_m,
        semi_convergence_angle_rad=o.semi_convergence_angle_rad,
        landing_energy_ev=o.landing_energy_ev or o.accelerating_voltage_v,
        frame_time_s=o.frame_time_s,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=noise,
        independent=patches.independent,
        averages=1,
        grown=grown,
    )
    return msgspec.structs.replace(fine, coarse=coarser(fine, pixels))


def coarser(fine: Evidence, pixels: NDArray[Any]) -> Evidence | None:
    """The same at a quarter of the resolution, where a disc of a hundred pixels is one of twenty-five."""
    height, width = (side // COARSER for side in pixels.shape)
    if min(height, width) < SMALLEST_COARSE_PX:
        return None
    whole = pixels[: height * COARSER, : width * COARSER].astype(np.float32)
    patches = patch_spectra(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    if float(patches.noise.min()) <= 0.0:
        return None
    return msgspec.structs.replace(
        fine,
        pixel_size_m=COARSER * fine.pixel_size_m,
        pixel_size_y_m=COARSER * fine.pixel_size_y_m,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=patches.noise,
        independent=patches.independent,
    )


def _grown(working_distance_m: float, wanted: Wanted) -> float:
    """By how much the picture is larger than at the reference working distance, as the certificate has it."""
    if wanted.reference_working_distance_m is None:
        return 0.0
    return wanted.scale_per_m * (working_distance_m - wanted.reference_working_distance_m)
