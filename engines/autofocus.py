"""The autofocus model as a reading: a picture and its pixel size in, score, blur and content out; each live frame."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.begun import begun
from engines.built import lacks
from engines.errors import InferenceError
from engines.load import Loaded
from engines.readings import FocusReading
from engines.scene import check_shape

TASK = "autofocus"
SMALLEST_PX = 128  # below it the picture is too small for the network's coarsest stage to mean anything
NEUTRAL_PIXEL_M = 25e-9  # middle of the trained 2..250 nm, where the condition is zero


class Autofocus:
    """Reads one frame at a time; raises InferenceError instead of answering with numbers that are none."""

    def __init__(self, loaded: Loaded) -> None:
        self._engine = loaded.engine
        self.name = loaded.manifest.label  # name@sha
        self.backend = loaded.engine.backend
        self.reason = loaded.reason

    def lacks(self, shape: tuple[int, ...]) -> bool:
        """Would a picture of this shape be read by a slower backend, for want of an engine?"""
        return lacks(self._engine, (shape[0], shape[1]))

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None:
        """image (h, w) uint8, both multiples of 32. None where the picture is too small to judge."""
        return self.begin(image, pixel_size_m)()

    def begin(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> Callable[[], FocusReading | None]:
        """As `read`, in two halves: other models may be begun before this one's answer is waited for."""
        check_shape(image)
        if min(image.shape) < SMALLEST_PX:
            return lambda: None
        finish = begun(self._engine, image, condition(pixel_size_m))

        def judged() -> FocusReading:
            out = finish()
            return reading(
                score=float(out["score"][0]),
                log_blur=float(out["log_blur"][0]),
                log_blur_sigma=float(out["log_blur_sigma"][0]),
                content=float(out["content"][0]),
            )

        return judged


def condition(pixel_size_m: float | None) -> NDArray[np.float32]:
    """(2,): log10(pixel size / 25 nm) and 1 where it is known; zeros where it is not."""
    if pixel_size_m is None or not pixel_size_m > 0.0 or not math.isfinite(pixel_size_m):
        return np.zeros(2, np.float32)
    return np.array([math.log10(pixel_size_m / NEUTRAL_PIXEL_M), 1.0], np.float32)


def reading(*, score: float, log_blur: float, log_blur_sigma: float, content: float) -> FocusReading:
    """The network's numbers in physical units. The log-normal's spread becomes half the width of its 68 % interval."""
    if log_blur_sigma <= 0.0:
        raise InferenceError(f"output log_blur_sigma is {log_blur_sigma}, not a standard deviation")
    blur_px = math.exp(log_blur)
    return FocusReading(
        score=min(max(score, 0.0), 10.0),
        blur_px=blur_px,
        blur_uncertainty_px=blur_px * math.sinh(log_blur_sigma),
        content=min(max(content, 0.0), 1.0),
    )
