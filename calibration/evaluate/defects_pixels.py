"""Pictures of any number type as the models take them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset.outside import STRETCH_PERCENTILES


def eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """(h, w) of 8 bits as they are; of more, stretched between the percentiles that the agent takes."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = np.percentile(pixels, STRETCH_PERCENTILES)
    grey = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255.0 / max(float(high - low), 1e-6))
    return np.asarray(np.clip(grey + 0.5, 0, 255), np.uint8)
