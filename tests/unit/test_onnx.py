"""ONNX Runtime: one run a frame, also the first of a shape; CUDA or an error, never the CPU in its name.

No machine with CUDA took part: what is asked of its provider is checked on a session that is played.
"""

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from engines.errors import BackendMissingError
from engines.load import MODELS
from engines.onnx import CPU_PROVIDER, CUDA_PROVIDER, OnnxEngine

MODEL = (MODELS / "autofocus" / "model.onnx").read_bytes()
TOLD = np.zeros(2, np.float32)


class Counted:
    """A session that counts how often it computes, and claims the providers it is told to."""

    def __init__(self, session: Any, providers: list[str] | None = None) -> None:
        self._session, self._providers = session, providers
        self.calls: Counter[str] = Counter()

    def run(self, *arguments: Any) -> Any:
        self.calls["run"] += 1
        return self._session.run(*arguments)

    def run_with_iobinding(self, *arguments: Any) -> Any:
        self.calls["bound"] += 1
        return self._session.run_with_iobinding(*arguments)

    def get_providers(self) -> list[str]:
        return self._providers or list(self._session.get_providers())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def picture(seed: int, shape: tuple[int, int] = (128, 160)) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_every_frame_is_computed_once_the_first_of_a_shape_too(monkeypatch: pytest.MonkeyPatch) -> None:
    start = ort.InferenceSession
    monkeypatch.setattr(ort, "InferenceSession", lambda *a, **k: Counted(start(*a, **k)))
    engine = OnnxEngine(MODEL)
    for shape in ((128, 160), (160, 128)):
        for seed in range(3):
            engine.run(picture(seed, shape), TOLD)
    assert engine._session.calls == {"run": 2, "bound": 4}


def test_the_first_and_a_later_frame_of_a_shape_are_read_alike() -> None:
    engine = OnnxEngine(MODEL)
    first = {name: value.copy() for name, value in engine.run(picture(1), TOLD).items()}
    engine.run(picture(2), TOLD)
    again = engine.run(picture(1), TOLD)
    assert {name: float(value[0]) for name, value in again.items()} == pytest.approx(
        {name: float(value[0]) for name, value in first.items()}, abs=1e-5
    )


def test_the_answer_does_not_hang_on_the_callers_picture() -> None:
    engine = OnnxEngine(MODEL)
    image = picture(1)
    engine.run(image, TOLD)
    kept = image.copy()
    engine.run(picture(2), TOLD)
    assert np.array_equal(image, kept)  # the engine's buffer is its own


def test_cuda_without_its_provider_is_missing_and_not_the_cpu() -> None:
    if CUDA_PROVIDER in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(BackendMissingError, match="onnxruntime-gpu"):
        OnnxEngine(MODEL, cuda=True)


def played(monkeypatch: pytest.MonkeyPatch, providers: list[str]) -> list[Any]:
    """ONNX Runtime claims CUDA, its sessions claim `providers` and compute on the CPU; what they were asked for."""
    start, asked = ort.InferenceSession, []

    def session(model: bytes, options: Any, *, providers: list[Any]) -> Counted:
        asked.append(providers)
        return Counted(start(model, options, providers=[CPU_PROVIDER]), claimed)

    claimed = providers
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    monkeypatch.setattr(ort, "InferenceSession", session)
    return asked


def test_a_session_that_fell_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, [CPU_PROVIDER])
    with pytest.raises(BackendMissingError, match="cannot start it"):
        OnnxEngine(MODEL, cuda=True)


def test_cuda_gets_a_bounded_arena_and_whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = played(monkeypatch, [CUDA_PROVIDER, CPU_PROVIDER])
    engine = OnnxEngine(MODEL, cuda=True)
    (name, options), fallback = asked[0]
    assert (name, fallback) == (CUDA_PROVIDER, CPU_PROVIDER)
    assert int(options["gpu_mem_limit"]) > 0 and options["arena_extend_strategy"] == "kSameAsRequested"
    assert options["use_tf32"] == "0"
    assert engine.backend == "onnxruntime_cuda" and engine.providers[0] == CUDA_PROVIDER
    assert engine.run(picture(1), TOLD)["score"].shape == (1,)


def test_the_cpu_engine_says_what_it_is() -> None:
    engine = OnnxEngine(MODEL, precision="fp32")
    assert (engine.backend, engine.precision, engine.providers) == ("onnxruntime", "fp32", (CPU_PROVIDER,))
