"""What TensorRT-RTX compiles of a plan on the device it meets, to be kept for the next start: bytes in, bytes out.

Without it every start compiles anew, for seconds. `tensorrt` compiles when it builds and has nothing to keep. Names of
tensorrt_rtx 1.1 and later; a run-time without them, or one that refuses what was kept, compiles as before.
"""

from typing import Any


class Kernels:
    """Of one engine."""

    def __init__(self, engine: Any, kept: bytes | None) -> None:
        """engine: ICudaEngine. kept: what `compiled` gave in an earlier process."""
        self._config, self._cache = _parts(engine)
        self.known = kept is not None and self._cache is not None and bool(self._cache.deserialize(kept))

    def context(self, engine: Any) -> Any:
        """An IExecutionContext that compiles only what is not known; None where the run-time refuses."""
        if self._cache is None:
            return engine.create_execution_context()
        self._config.set_runtime_cache(self._cache)
        return engine.create_execution_context(self._config)

    def compiled(self) -> bytes | None:
        """After the first run: what is worth keeping. None where nothing new is."""
        if self._cache is None or self.known:
            return None
        said = self._cache.serialize()
        return bytes(memoryview(said)) or None if said is not None else None


def _parts(engine: Any) -> tuple[Any, Any]:
    """A configuration and its cache; (None, None) where there are none."""
    make = getattr(engine, "create_runtime_config", None)
    config: Any = None if make is None else make()
    if config is None or not hasattr(config, "create_runtime_cache"):  # tensorrt has configurations too, for memory
        return None, None
    return config, config.create_runtime_cache()
