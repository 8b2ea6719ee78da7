"""A stand-in's part for a model that works on no device of its own: it is asked when its answer is wanted."""

from collections.abc import Callable
from functools import partial
from typing import Any


class Reads:
    """Give it `read`, and it can be begun as the readings of engines/ can."""

    read: Callable[..., Any]

    def begin(self, *told: Any) -> Callable[[], Any]:
        return partial(self.read, *told)
