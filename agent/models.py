"""The models as perception asks them: each is one of engines/, or a stand-in of the same signature."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.cascade import Beside, Judged, Sizes
from engines.readings import Defects, FocusReading, FoundDefect, Relief
from engines.scene import Levels, Scene


class FocusModel(Protocol):
    """engines.autofocus.Autofocus."""

    name: str

    def begin(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> Callable[[], FocusReading | None]: ...


class DepthModel(Protocol):
    """engines.depth.Depth."""

    name: str

    def begin(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None
    ) -> Callable[[], Relief | None]: ...


class DefectModel(Protocol):
    """engines.defects.DefectFinder."""

    name: str
    wants_reference: bool  # else it is not given one

    def begin(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
        threshold: float | None = None,
    ) -> Callable[[], Defects]: ...


class CascadeModel(Protocol):
    """engines.cascade.Cascade."""

    name: str

    def judge(
        self, image: NDArray[np.uint8], found: tuple[FoundDefect, ...], *, beside: Beside, sizes: Sizes | None
    ) -> tuple[Judged, ...]: ...
