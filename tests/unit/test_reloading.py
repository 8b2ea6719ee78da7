"""Reading everything again beside the frames: never waited for, handed over whole, refused or late in plain words."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agent.clock import ManualClock
from agent.commands import run
from agent.commands.reloading import Reloader
from agent.errors import ConfigurationError, EngineError
from agent.health import Health, Notifier, Patience
from agent.loop import Service
from agent.messages import Mode, Status
from agent.perceive import Perceiver
from agent.settings import load
from tests.wire.streams import eventually

FACTS = Status(mode=Mode.OBSERVE, models=("new@1",))


def service(facts: Status = FACTS) -> Service:
    settings = load(None, {})
    return Service(Perceiver(None), run.terms(settings), facts, run.patience(settings, facts))


class Rig:
    """A reloader whose reading waits for the test, and then does what stands next on its list."""

    def __init__(self, *ends: Service | Exception) -> None:
        self.ends, self.go_on, self.began = list(ends), threading.Event(), 0
        self.clock = ManualClock()
        self.reloader = Reloader(self._read, Health(Notifier(None), self.clock), clock=self.clock, limit_s=60.0)

    def _read(self) -> Service:
        self.began += 1
        assert self.go_on.wait(20.0)
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def taken(self) -> Service | None:
        self.go_on.set()
        assert self.reloader.wait(20.0)
        return self.reloader.take()


@pytest.fixture
def rig() -> Callable[..., Rig]:
    return Rig


def test_nothing_is_read_before_it_is_asked_for(rig: Callable[..., Rig]) -> None:
    made = rig()
    assert made.reloader.take() is None and made.reloader.wait(0.0) and made.began == 0


def test_the_new_ones_are_handed_over_once_and_nobody_waits_for_them(rig: Callable[..., Rig]) -> None:
    new = service()
    made = rig(new)
    made.reloader.ask()
    assert [made.reloader.take() for _ in range(3)] == [None] * 3
    assert not made.reloader.wait(0.0)
    assert made.taken() is new
    assert made.reloader.take() is None and made.reloader.flags() == ()


def test_what_is_asked_for_meanwhile_is_read_afterwards_and_once(rig: Callable[..., Rig]) -> None:
    old, new = service(), service()
    made = rig(old, new)
    made.reloader.ask()
    made.reloader.take()
    made.reloader.ask()
    made.reloader.ask()
    assert eventually(lambda: made.began == 1)
    assert made.taken() is old  # and the second attempt begins
    assert made.taken() is new
    assert made.taken() is None and made.began == 2


@pytest.mark.parametrize("error", [ConfigurationError("the model is cut"), ValueError("the model is cut")])
def test_a_refusal_and_what_nobody_foresaw_leave_the_old_ones_in_service(
    rig: Callable[..., Rig], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    made = rig(error, service())
    made.reloader.ask()
    made.reloader.take()
    assert made.taken() is None
    assert "reload refused, the old ones keep serving" in caplog.text and "the model is cut" in caplog.text
    made.reloader.ask()
    made.reloader.take()
    assert made.taken() is not None


def test_an_attempt_that_does_not_come_back_is_told_once_and_cleared_when_it_does(
    rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture
) -> None:
    new = service()
    made = rig(new)
    made.reloader.ask()
    made.reloader.take()
    made.clock.advance(59.0)
    assert made.reloader.take() is None and made.reloader.flags() == ()
    made.clock.advance(2.0)
    assert made.reloader.take() is None and made.reloader.take() is None
    (flag,) = made.reloader.flags()
    assert (flag.code, flag.state, flag.severity) == ("engine_hang", "raised", "error") and "60 s" in flag.detail
    assert made.reloader.flags() == ()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert made.taken() is new
    assert [(flag.code, flag.state) for flag in made.reloader.flags()] == [("engine_hang", "cleared")]


# --- leaving ---


@pytest.mark.parametrize(("error", "code"), [(None, 0), (EngineError("5 failures"), 1)])
def test_a_process_leaves_a_reload_that_hangs_behind(
    rig: Callable[..., Rig],
    error: EngineError | None,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    left: list[int] = []
    monkeypatch.setattr(run.os, "_exit", left.append)
    monkeypatch.setattr(run, "LEAVE_S", 0.01)
    made = rig(service())
    loop: Any = type("Loop", (), {"reload": made.reloader})()
    run.leave(loop, error)
    assert left == []  # nothing was under way
    made.reloader.ask()
    made.reloader.take()
    run.leave(loop, error)
    assert left == [code] and capsys.readouterr().err == ("" if error is None else "beamside: 5 failures\n")
    made.taken()


# --- patience ---

GPU = {"autofocus": "tensorrt", "depth": "tensorrt", "defects": "onnxruntime_cuda"}


def test_a_gpu_has_two_seconds_and_whatever_may_run_on_the_processor_ten() -> None:
    settings = load(None, {})
    facts = Status(mode=Mode.OBSERVE, backends=GPU)
    assert run.patience(settings, facts) == Patience(usual_s=2.0, slow_s=10.0)
    mixed = Status(mode=Mode.OBSERVE, backends={**GPU, "depth": "onnxruntime"})
    assert run.patience(settings, mixed) == Patience(usual_s=10.0, slow_s=10.0)
    told = load(None, {"health": {"step_limit_s": 5.0}})
    assert run.patience(told, facts) == Patience(usual_s=5.0, slow_s=5.0)
