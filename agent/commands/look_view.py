"""One picture of a file as the models are shown it: pixels and their optics in, 8 bits, padding and doubts out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.messages import Frame, Lane, Optics
from agent.pixels import BLANK_LEVELS, SATURATED, eight_bits, picture, saturated_share, scene_of
from engines.scene import Levels, Scene, levels_of, padded

BAND_ROWS = 512  # counted at a time: a mask of a whole large picture would be as large again


@dataclass(frozen=True)
class View:
    """One picture, ready for the models."""

    frame: Frame
    levels: NDArray[np.uint8]  # (h, w) without the data bar
    padded: NDArray[np.uint8]  # (h', w') to the models' stride
    scene: Scene
    whole: Levels
    flags: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.levels.shape[0], self.levels.shape[1]

    @property
    def blank(self) -> bool:
        return "blank" in self.flags


def view_of(pixels: NDArray[Any], optics: Optics) -> View:
    """pixels (h, w) as the file has them -> what the models are shown and told."""
    frame = Frame(number=0, pixels=pixels, optics=optics, lane=Lane.INSPECT, received_ns=0)
    shown = picture(frame)
    levels = eight_bits(shown, optics)
    whole = levels_of(levels)
    flags = tuple(code for code, raised in _conditions(shown, whole, optics) if raised)
    return View(frame, levels, padded(levels), scene_of(optics), whole, flags)


def _conditions(shown: NDArray[Any], whole: Levels, optics: Optics) -> Iterator[tuple[str, bool]]:
    blank = whole.spread < BLANK_LEVELS
    yield "no_pixel_size", optics.pixel_size_m is None
    yield "blank", blank
    yield "saturated", not blank and _saturated(shown, optics) > SATURATED
    yield "not_electron", (optics.source or "").startswith("ion")
    yield "nonlinear", optics.gamma not in (None, 1.0)
    yield "averaging", optics.averaging == "recursive"


def _saturated(shown: NDArray[Any], optics: Optics) -> float:
    bands = (shown[top : top + BAND_ROWS] for top in range(0, len(shown), BAND_ROWS))
    return sum(saturated_share(band, optics) * len(band) for band in bands) / len(shown)
