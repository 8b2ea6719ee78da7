"""A stand-in's part for a model that works on no device of its own: it is asked when its answer is wanted."""

from collections.abc import Callable
from functools import partial
from typing import Any


class Reads:
    """Give it `read`, and it can be begun as the readings of engines/ can."""

    read: Callable[..., Any]
    wants_reference = False  # of a defect model: it compares

    def begin(self, *told: Any, **more: Any) -> Callable[[], Any]:
        return partial(self.read, *told, **{name: value for name, value in more.items() if value is not None})
