"""One noun for everything under the beam: heights and what they are made of, on one grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


class SpecimenError(Exception):
    """A specimen that cannot be: unknown, unreadable, or of impossible measures."""


@dataclass(frozen=True)
class Surface:
    """Patterned or natural. Heights point towards the gun; their zero is the kind's own."""

    height_m: Field  # (h, w)
    material: Field | None  # (h, w) relative yield of what lies on top, silicon = 1; None: 1 everywhere
    pixel_size_m: float
    kind: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.height_m.shape[0], self.height_m.shape[1]


def metres(height_px: Field, pixel_size_m: float) -> Field:
    return np.asarray(height_px * np.float32(pixel_size_m), np.float32)
