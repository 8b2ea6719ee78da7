"""A reload that takes long, or for ever: the old models go on reading, and the agent goes on telling how it is."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from agent.commands import run
from agent.health import Patience
from agent.perceive import Perceiver
from engines.readings import FocusReading
from tests.fakes.models import Reads
from tests.loop.harness import DEADLINE_S, SHAPE, Agent, Process, Stream, said

GPU_BACKENDS = {"autofocus": "tensorrt"}


class Named(Reads):
    """A model that can be told from another."""

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self, image: Any, pixel_size_m: float | None) -> FocusReading:
        return FocusReading(score=7.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)


class Slow:
    """Models that are there when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reading, self.go_on, self._models = threading.Event(), threading.Event(), run.models
        monkeypatch.setattr(run, "models", self.models)

    def models(self, settings: Any) -> Any:
        self.reading.set()
        assert self.go_on.wait(DEADLINE_S)
        _, facts = self._models(settings)
        new = Perceiver(Named("new@2"))
        return new, msgspec.structs.replace(facts, models=new.models, backends=GPU_BACKENDS)


@pytest.fixture
def slow(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """An agent that was asked to reload and is not through with it."""
    agent.look_with(Named("old@1"))
    made = Slow(monkeypatch)
    assert agent.wire.ask("reload")["ok"]
    assert made.reading.wait(DEADLINE_S)
    yield made
    made.go_on.set()


def test_frames_are_read_by_the_old_models_until_the_new_ones_are_there(agent: Agent, slow: Slow) -> None:
    stream = Stream(agent.wire)
    for inspect in (False, True, False, True):
        assert stream.show(inspect=inspect)["models"] == ["old@1"]
    assert agent.wire.status()["loop_age_s"] < DEADLINE_S / 2  # it turns
    slow.go_on.set()
    assert agent.loop.reload.wait(DEADLINE_S)
    agent.wire.status_when(lambda status: status["models"] == ["new@2"])
    assert stream.show(inspect=True)["models"] == ["new@2"]
    assert agent.wire.status()["backends"] == GPU_BACKENDS
    assert agent.wire.settled_books()["uninspected"] == 0


def test_a_reload_that_hangs_is_told_and_the_old_models_serve_on(agent: Agent, slow: Slow) -> None:
    stream = Stream(agent.wire)
    agent.clock.skip(61.0)
    flag = agent.wire.until(said("flag", code="engine_hang", state="raised"))
    assert flag["severity"] == "error" and "restart" in flag["detail"]
    assert stream.show()["models"] == ["old@1"]
    slow.go_on.set()
    agent.wire.until(said("flag", code="engine_hang", state="cleared"))
    agent.wire.status_when(lambda status: status["models"] == ["new@2"])


def test_how_long_a_frame_may_take_follows_its_shape_and_what_serves(
    agent: Agent, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "patience", lambda settings, facts: Patience(2e6, 3e6))
    stream, health = Stream(agent.wire), agent.loop.health
    stream.show()
    assert health.limit_s() == 1e6  # of the settings, in tests
    slow.go_on.set()
    agent.wire.status_when(lambda status: status["models"] == ["new@2"])
    stream.show()
    assert health.limit_s() == 2e6
    agent.loop.perceiver = Perceiver(Named("half@3"), lacks=lambda shape: shape == SHAPE)
    stream.show()
    assert health.limit_s() == 3e6
    agent.loop.perceiver = Perceiver(Named("all@4"), lacks=lambda shape: False)
    stream.show()
    assert health.limit_s() == 2e6


def test_a_process_ends_cleanly_in_the_midst_of_a_reload(launch: Callable[..., Process]) -> None:
    process = launch(sys.executable, "-m", "tests.loop.endless_reload").start()
    assert process.wire.ask("reload")["ok"]
    stream = Stream(process.wire)
    for _ in range(2):
        stream.show()
    process.popen.send_signal(signal.SIGTERM)
    process.wire.last_words()
    code, _, err = process.ended()
    assert (code, "terminate called" in err) == (0, False)
