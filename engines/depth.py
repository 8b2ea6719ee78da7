"""The depth model as a reading: a picture and what is known of it in, a height map in metres out; when it is due."""

import numpy as np
from numpy.typing import NDArray

from engines.built import lacks
from engines.load import Loaded
from engines.readings import DepthMap
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
        check_shape(image)
        if scene.pixel_size_m is None:
            return None
        told = condition(levels or levels_of(image), within(scene, TRAINED_PIXEL_M))
        out = self._engine.run(image, told)
        metres = np.float32(scene.pixel_size_m)
        return DepthMap(height_m=out["height_px"][0, 0] * metres, scale_m=out["scale_px"][0, 0] * metres)
