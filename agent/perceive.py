"""A frame in, findings out: crop the databar, convert to 8 bits, pad, run the models that are due, take the evidence.

The focus evidence is taken from the original pixels; models see 8 bits. One conversion serves all models.
"""

from time import perf_counter
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.spectra import PATCH_PX, patch_spectra
from agent.errors import EngineError
from agent.messages import Evidence, Findings, Frame, Optics, Wanted
from engines.errors import InferenceError
from engines.readings import FocusReading

STRIDE_PX = 32  # heights and widths of what a model sees are multiples of it
SATURATED = 0.2  # share of pixels at an end of the scale from which levels no longer tell contrast
BLANK_LEVELS = 1.5  # standard deviation, grey levels of 255, below which there is no picture
SCALE_PX = 0.5  # displacement within a patch from which a magnification change must be undone before the transform


class FocusModel(Protocol):
    """engines.autofocus.Autofocus, or a stand-in of the same signature."""

    name: str

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None: ...


class Perceiver:
    """Owns the models. `look` raises EngineError when one of them fails."""

    def __init__(self, autofocus: FocusModel | None) -> None:
        self.autofocus = autofocus
        self._last: dict[str, tuple[int, int]] = {}  # source -> (frame number, hash): frozen pictures come twice

    @property
    def models(self) -> tuple[str, ...]:
        return (self.autofocus.name,) if self.autofocus else ()

    def look(self, frame: Frame, wanted: Wanted) -> Findings:
        """Everything that is due on this frame."""
        began = perf_counter()
        pixels = picture(frame)
        levels = eight_bits(pixels, frame.optics)
        refused = self._refused(frame, pixels, levels)
        converted = perf_counter()
        reading = self._read(levels, frame.optics) if refused != "blank" else None
        read = perf_counter()
        evidence = take_evidence(frame, pixels, wanted) if wanted.evidence and refused is None else None
        took = {"convert": converted - began, "autofocus": read - converted, "evidence": perf_counter() - read}
        return Findings(
            score=reading.score if reading else (0.0 if refused == "blank" else None),
            blur_px=reading.blur_px if reading else None,
            blur_uncertainty_px=reading.blur_uncertainty_px if reading else None,
            content=reading.content if reading else None,
            evidence=evidence,
            refused=refused,
            mean_level=float(levels.mean()) / 255.0,
            models=self.models if reading else (),
            took_s=took,
        )

    def _read(self, levels: NDArray[np.uint8], optics: Optics) -> FocusReading | None:
        if self.autofocus is None:
            return None
        try:
            return self.autofocus.read(padded(levels), optics.pixel_size_m)
        except InferenceError as error:
            raise EngineError(f"{self.autofocus.name}: {error}") from error

    def _refused(self, frame: Frame, pixels: NDArray[Any], levels: NDArray[np.uint8]) -> str | None:
        """Why these pixels are no evidence, or None."""
        if not np.isfinite(pixels).all():
            return "inconsistent"
        if float(levels.std()) < BLANK_LEVELS:
            return "blank"
        if saturated_share(pixels, frame.optics) > SATURATED:
            return "saturated"
        seen = (frame.number, hash(pixels.tobytes()))
        before = self._last.get(frame.source)
        self._last[frame.source] = seen
        return "frozen" if before is not None and before[1] == seen[1] and before[0] != seen[0] else None


def picture(frame: Frame) -> NDArray[Any]:
    """The rows that show the specimen: without the databar, and without rows a partial scan did not reach."""
    rows = frame.pixels.shape[0] - (frame.optics.databar_rows or 0)
    if frame.optics.rows_valid is not None:
        rows = min(rows, frame.optics.rows_valid)
    return frame.pixels[: max(rows, 1)]


def eight_bits(pixels: NDArray[Any], optics: Optics) -> NDArray[np.uint8]:
    """16 bits and floats by their 0.1 and 99.9 percentiles; 8 bits as they are; inverted pictures turned back."""
    if pixels.dtype == np.uint8:
        levels = pixels
    else:
        low, high = np.nanpercentile(pixels[:: _step(pixels), :: _step(pixels)], (0.1, 99.9))
        stretched = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-12))
        levels = np.nan_to_num(np.clip(stretched, 0.0, 255.0)).astype(np.uint8)
    return np.asarray(cv2.bitwise_not(levels), np.uint8) if optics.inverted else levels


def _step(pixels: NDArray[Any]) -> int:
    # A quarter of a million samples place a percentile to a hundredth of a per cent.
    return max(1, int(np.sqrt(pixels.size / 250_000)))


def padded(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reflected at the lower and right border to multiples of the models' stride."""
    down, right = -levels.shape[0] % STRIDE_PX, -levels.shape[1] % STRIDE_PX
    if not down and not right:
        return np.ascontiguousarray(levels)
    mode = cv2.BORDER_REFLECT_101 if min(levels.shape) > STRIDE_PX else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(levels, 0, down, 0, right, mode), np.uint8)


def saturated_share(pixels: NDArray[Any], optics: Optics) -> float:
    """Share of pixels at either end of the scale; float pictures have none unless the header tells it."""
    top = optics.full_scale
    if top is None and pixels.dtype != np.float32:
        bits = optics.bits_significant or pixels.dtype.itemsize * 8
        top = float(2**bits - 1)
    if top is None:
        return 0.0
    sample = pixels[:: _step(pixels), :: _step(pixels)]
    return float(np.mean((sample >= top) | (sample <= 0)))


def take_evidence(frame: Frame, pixels: NDArray[Any], wanted: Wanted) -> Evidence | None:
    """Patch spectra of one admitted frame; None where its header lacks what evidence needs."""
    o = frame.optics
    if o.pixel_size_m is None or o.working_distance_m is None or o.t_start_ns is None or min(pixels.shape) < 64:
        return None
    grown = _grown(o.working_distance_m, wanted)
    patches = patch_spectra(pixels)
    noise = patches.noise  # of the picture as it came: resampling takes from the noise's highest frequencies
    if noise <= 0.0:
        return None
    if abs(grown) * PATCH_PX / 2.0 > SCALE_PX:
        patches, grown = patch_spectra(_resampled(pixels, 1.0 + grown)), 0.0
    return Evidence(
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


def _grown(working_distance_m: float, wanted: Wanted) -> float:
    """By how much the picture is larger than at the reference working distance, as the certificate has it."""
    if wanted.reference_working_distance_m is None:
        return 0.0
    return wanted.scale_per_m * (working_distance_m - wanted.reference_working_distance_m)


def _resampled(pixels: NDArray[Any], magnified: float) -> NDArray[np.float32]:
    """The picture `magnified` times smaller about its centre, at the same size."""
    height, width = pixels.shape
    centre = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    matrix = np.hstack([np.eye(2) * magnified, (centre * (1.0 - magnified))[:, None]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    image = pixels.astype(np.float32)
    moved = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)
