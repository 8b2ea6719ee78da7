"""A GPU that vanishes, runs out of memory or answers with no numbers while frames come: hold, and never a number.

The device and TensorRT are stand-ins with injected faults; engine, readings, agent and sockets are real.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.errors import EngineError
from engines import manifest
from engines.autofocus import Autofocus
from engines.cuda import Cuda
from engines.load import MODELS, Loaded
from engines.trt import TrtEngine, Uploads
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import fake_tensorrt, plan_for
from tests.loop.harness import SHAPE, Agent, Process, Stream, said


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with fake_tensorrt(monkeypatch) as package:
        yield package


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


def on_gpu(agent: Agent, trt: Any, driver: FakeDriver) -> Stream:
    """The shipped autofocus model on the stand-in, and one frame that went well."""
    known, model = manifest.read(MODELS / "autofocus")
    cuda = Cuda(driver)
    engine = TrtEngine(plan_for(trt, model, SHAPE), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    agent.look_with(Autofocus(Loaded(engine, known, "a stand-in")))
    stream = Stream(agent.wire)
    assert stream.show()["score"] is not None
    return stream


FAULTS: dict[str, tuple[Callable[[Any, FakeDriver], None], str]] = {
    "out of memory": (lambda trt, driver: driver.fail.update(cuGraphLaunch=2), "out of memory"),
    "no numbers": (lambda trt, driver: setattr(trt.faults, "nan", True), "not finite"),
    "a fault of the link": (lambda trt, driver: driver.fail.update(cuMemcpyHtoDAsync=214), "the GPU is lost"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_holds_until_the_gpu_answers_again(agent: Agent, trt: Any, driver: FakeDriver, name: str) -> None:
    stream = on_gpu(agent, trt, driver)
    fault, words = FAULTS[name]
    fault(trt, driver)
    failed = stream.send()
    flag = agent.wire.until(said("flag", code="engine_error", state="raised"))
    assert flag["frame"] == failed and words in flag["detail"]
    agent.wire.until(said("hold", state="begin", reason="engine_error"))
    assert not agent.wire.told("focus", frame=failed) and not agent.wire.told("suggestion", frame=failed)
    if "lost" in words:  # a lost GPU comes back in a new process only
        assert isinstance(agent.ended(), EngineError)
        return
    driver.fail.clear()
    trt.faults.cure()
    assert stream.show()["score"] is not None
    agent.wire.until(said("hold", state="end", reason="engine_error"))


def test_a_gpu_that_is_lost_ends_the_process_after_a_hold_and_names_what_it_took(
    start: Callable[..., Agent], trt: Any, driver: FakeDriver
) -> None:
    agent = start()
    stream = on_gpu(agent, trt, driver)
    driver.fail.update(cuGraphLaunch=719, cuEventSynchronize=719)
    numbers = [stream.send(inspect=True) for _ in range(5)]
    assert isinstance(agent.ended(), EngineError)
    last = agent.wire.until(lambda told: told["topic"] == "hold" and told is agent.wire.heard[-1])
    assert (last["state"], last["reason"]) == ("begin", "engine_error")
    named = [flag["frame"] for flag in agent.wire.told("flag", code="uninspected")]
    assert named and named == numbers[: len(named)]  # the others are named when the process ends


def test_a_gpu_that_hangs_is_told_and_the_process_ends(launch: Callable[..., Process]) -> None:
    process = launch(sys.executable, "-m", "tests.loop.hung_gpu", BEAMSIDE_HEALTH__STEP_LIMIT_S="2.0").start()
    stream = Stream(process.wire)
    for _ in range(2):
        assert stream.show()["score"] is not None
    hung = stream.send()
    process.wire.until(said("hold", state="begin", reason="engine_hang"))
    assert process.ended()[0] == 70
    assert process.wire.heard[-1]["reason"] == "engine_hang" and not process.wire.told("focus", frame=hung)
