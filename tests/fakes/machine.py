"""A machine with the fake package `tensorrt`, and plans for it without a child process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.compiler import fix_shape

FAKES = Path(__file__).parent


@contextmanager
def fake_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake under the real one's name, without faults at the beginning and at the end."""
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    import tensorrt

    try:
        yield tensorrt
    finally:
        tensorrt.faults.cure()
        tensorrt.compiler.on, tensorrt.compiler.times = False, 0
        sys.modules.pop("tensorrt", None)


def plan_for(trt: Any, model: bytes, shape: tuple[int, int], **changes: str) -> bytes:
    """changes: version, of the builder."""
    network = trt.Network()
    assert trt.OnnxParser(network, trt.ILogger()).parse(model)
    fix_shape(trt, network, shape)
    return bytes(trt.plan_of(network, **changes))
