"""Work given to engines before any answer is waited for: engines with streams of their own then run side by side.

An engine that cannot work on its own is asked when its answer is wanted: nothing is lost, and nothing is in the way.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.built import Engine, ShapedEngine
from engines.channels import size_of
from engines.trt import TrtEngine

T = TypeVar("T")
AnyEngine = Engine | TrtEngine
Outputs = dict[str, NDArray[Any]]


def begun(engine: AnyEngine, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> Callable[[], Outputs]:
    """Start one reading; call what comes back for its outputs, valid until the engine's next. Raises InferenceError.

    image (h, w) or (c, h, w) must not change meanwhile.
    """
    serving = engine.at(size_of(image)) if isinstance(engine, ShapedEngine) else engine
    if not isinstance(serving, TrtEngine):
        return partial(serving.run, image, condition)
    serving.start(serving.upload(image), condition)
    return serving.finish


def together(starts: Iterable[Callable[[], Callable[[], T]]]) -> list[T]:
    """All are begun before the first answer is waited for; the answers in the order of the starts."""
    waiting = [start() for start in starts]
    return [finish() for finish in waiting]
