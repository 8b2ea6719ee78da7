"""The depth model as a reading: a picture and what is known of it in, a height map in metres out; when it is due."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engines.begun import begun
from engines.built import lacks
from engines.load import Loaded
from engines.readings import DepthMap, Relief
from engines.scene import Levels, Scene, check_shape, condition, levels_of, within

TASK = "depth"
TRAINED_PIXEL_M = (0.8e-9, 100e-9)  # a pixel beyond it is told as its end: shapes are the same, edges no longer matter


class Depth:
    """Reads one frame at a time; raises InferenceError instead of answering with numbers that are none."""

    def __init__(self, loaded: Loaded) -> None:
        self._engine = loaded.engine
        self.name = loaded.manifest.label  # name@sha
        self.backend = loaded.engine.backend
        self.reason = loaded.reason

    def lacks(self, shape: tuple[int, ...]) -> bool:
        """Would a picture of this shape be read by a slower backend, for want of an engine?"""
        return lacks(self._engine, (shape[0], shape[1]))

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> DepthMap | None:
        """image (h, w) uint8, both multiples of 32. None without a pixel size: heights are read in pixels.

        levels: those of the whole picture, where `image` is a tile of it.
        """
        relief = self.begin(image, scene, levels)()
        return None if relief is None else relief.metres()

    def begin(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None
    ) -> Callable[[], Relief | None]:
        """As `read`, in two halves: other models may be begun before this one's answer is waited for.

        Nothing is allocated for a picture: what comes back is the engine's own.
        """
        check_shape(image)
        pixel_size_m = scene.pixel_size_m
        if pixel_size_m is None:
            return lambda: None
        told = condition(levels or levels_of(image), within(scene, TRAINED_PIXEL_M))
        finish = begun(self._engine, image, told)

        def relief() -> Relief:
            out = finish()
            return Relief(out["height_px"][0, 0], out["scale_px"][0, 0], pixel_size_m)

        return relief
