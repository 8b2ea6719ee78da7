"""What TensorRT says while it works, kept: its functions answer None and leave the reason to a log."""

import importlib
from collections import deque
from typing import Any

from engines.errors import BackendMissingError

KEPT = 8  # errors; the first one is usually the cause, the last one the consequence


def module(backend: str) -> Any:
    """tensorrt or tensorrt_rtx. Raises BackendMissingError."""
    again = f"install it: pip install 'beamside[{backend.replace('_', '-')}]'"
    try:
        found = importlib.import_module(backend)
    except Exception as error:  # their own code runs here: missing libraries, a driver that raises
        why = " ".join(str(error).split()) or type(error).__name__
        raise BackendMissingError(f"{backend} cannot be imported ({why}); {again}") from error
    if not hasattr(found, "__version__"):  # the empty folder that a removed package left
        raise BackendMissingError(f"{backend} is an empty package; {again}")
    return found


def listener(trt: Any) -> Any:
    """A logger of this module that keeps the errors in `.errors` and prints nothing."""

    class Listener(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, words: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(words.split()))

        def last(self) -> str:
            """The errors since they were last asked for, one line."""
            said = "; ".join(dict.fromkeys(self.errors)) or "it gives no reason"
            self.errors.clear()
            return said

    return Listener()
