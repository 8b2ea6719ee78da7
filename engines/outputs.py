"""Checks on what a model answers, the same for every backend."""

import math
from typing import Any

from numpy.typing import NDArray

from engines.errors import InferenceError


def check_finite(outputs: dict[str, NDArray[Any]]) -> None:
    """Raises InferenceError that names the output."""
    for name, array in outputs.items():
        # A sum is finite only where every term is; unlike isfinite().all() it allocates nothing.
        if array.dtype.kind == "f" and not math.isfinite(float(array.sum())):
            raise InferenceError(f"output {name} of the model is not finite")
