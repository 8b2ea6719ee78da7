"""A model that fails, answers with what is no number, or cannot be loaded again: never a zero in place of an answer."""

import itertools
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from agent.errors import EngineError
from agent.journal import FILE, read
from engines import manifest
from engines.errors import InferenceError
from engines.load import MODELS
from engines.readings import FocusReading
from tests.fakes.models import Reads
from tests.loop.harness import SHAPE, Agent, Process, Stream, said

GOOD = FocusReading(score=7.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)
DARK = np.random.default_rng(1).integers(20, 60, SHAPE).astype(np.uint8)


class Moody(Reads):
    """A model that does what stands next on its list, and then its best."""

    name = "moody@0"

    def __init__(self, *moods: Exception | FocusReading) -> None:
        self.moods = list(moods)

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading:
        mood = self.moods.pop(0) if self.moods else GOOD
        if isinstance(mood, Exception):
            raise mood
        return mood


FAILURES: dict[str, Exception | FocusReading] = {
    "an error of the runtime": InferenceError("out of memory"),
    "an overflow": OverflowError("math range error"),
    "a blur that is no number": FocusReading(7.0, float("nan"), 0.1, 0.9),
    "an infinite score": FocusReading(float("inf"), 1.0, 0.1, 0.9),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_on_a_live_frame_holds_until_the_next_good_reading(agent: Agent, name: str) -> None:
    agent.look_with(Moody(GOOD, FAILURES[name]))
    stream = Stream(agent.wire)
    stream.show()
    failed = stream.send()
    flag = agent.wire.until(said("flag", code="engine_error", state="raised"))
    assert (flag["frame"], flag["severity"]) == (failed, "error") and "moody@0" in flag["detail"]
    agent.wire.until(said("hold", state="begin", reason="engine_error"))
    assert stream.show()["score"] == 7.0
    agent.wire.until(said("hold", state="end", reason="engine_error"))
    assert not agent.wire.told("focus", frame=failed)
    assert agent.wire.status()["dropped"] == 0 and agent.wire.settled_books()["processed"] == 3


def test_a_frame_to_inspect_that_no_model_could_read_is_named(agent: Agent) -> None:
    agent.look_with(Moody(InferenceError("no"), GOOD))
    stream = Stream(agent.wire)
    failed = stream.send(inspect=True)
    flag = agent.wire.until(said("flag", code="uninspected", state="raised"))
    assert flag["frame"] == failed and "no" in flag["detail"]
    stream.show(inspect=True)  # any reading ends the condition, not only one of the lane that steers
    agent.wire.until(said("flag", code="engine_error", state="cleared"))


def test_what_the_stream_complained_of_is_told_although_the_model_failed(agent: Agent) -> None:
    agent.look_with(Moody(InferenceError("no")))
    stream = Stream(agent.wire)
    agent.wire.send([b"{", b""])
    stream.send()
    agent.wire.until(said("flag", code="engine_error", state="raised"))
    agent.wire.until(said("flag", code="malformed", state="raised"))


def test_four_failures_in_a_row_are_survived(agent: Agent) -> None:
    no = InferenceError("no")
    agent.look_with(Moody(no, no, no, no, GOOD, no, no, no, no, GOOD))
    stream = Stream(agent.wire)
    for _ in range(2):
        for _ in range(4):
            stream.send(inspect=True)
        stream.show(inspect=True)
    assert agent.alive


def test_the_fifth_failure_in_a_row_ends_the_process_after_a_hold(start: Callable[..., Agent], folder: Path) -> None:
    agent = start()
    agent.look_with(Moody(*[InferenceError("no")] * 5))
    stream = Stream(agent.wire)
    numbers = [stream.send(inspect=True) for _ in range(5)]
    assert isinstance(agent.ended(), EngineError)
    last = agent.wire.until(lambda told: told["topic"] == "hold" and told is agent.wire.heard[-1])
    assert (last["state"], last["reason"]) == ("begin", "engine_error")
    assert [flag["frame"] for flag in agent.wire.told("flag", code="uninspected")] == numbers
    assert read(folder / "state" / FILE)[-1]["event"] == last["event"]


# --- a real package, in a process of its own ---


def package(folder: Path, *, offset: float = 100.0) -> Path:
    """The shipped packages, but for an autofocus model that cannot judge pictures darker than `offset` on average."""
    shutil.copytree(MODELS, folder, dirs_exist_ok=True)
    model = _logarithm(offset)
    (folder / "autofocus" / manifest.MODEL_FILE).write_bytes(model)
    told = msgspec.json.decode((MODELS / "autofocus" / manifest.MANIFEST_FILE).read_bytes(), type=manifest.Manifest)
    manifest.write(folder / "autofocus", msgspec.structs.replace(told, sha256=manifest.digest(model)))
    return folder


def another_name(package: Path) -> None:
    """The same model under a new name: a package that can be told from the old one."""
    told = msgspec.json.decode((package / manifest.MANIFEST_FILE).read_bytes(), type=manifest.Manifest)
    manifest.write(package, msgspec.structs.replace(told, name=f"{told.name}-2"))


def _logarithm(offset: float) -> bytes:
    """Every output is ln(mean(image) - offset), times zero, plus a fair answer; the condition changes nothing."""
    answers = {"score": 6.0, "log_blur": 0.1, "log_blur_sigma": 0.2, "content": 0.8}
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, "h", "w"])
    condition = helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("ReduceSum", ["condition"], ["sum"], keepdims=0),
        helper.make_node("Constant", [], ["offset"], value_floats=[offset]),
        helper.make_node("Constant", [], ["zero"], value_floats=[0.0]),
        helper.make_node("Sub", ["mean", "offset"], ["less"]),
        helper.make_node("Log", ["less"], ["log"]),
        helper.make_node("Add", ["log", "sum"], ["both"]),
        helper.make_node("Mul", ["both", "zero"], ["nothing"]),
    ]
    for name, value in answers.items():
        nodes.append(helper.make_node("Constant", [], [f"{name} answer"], value_floats=[value]))
        nodes.append(helper.make_node("Add", ["nothing", f"{name} answer"], [name]))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in answers]
    graph = helper.make_graph(nodes, "logarithm", [image, condition], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_a_process_whose_model_answers_with_no_numbers_ends_for_a_fresh_one(
    launch: Callable[..., Process], folder: Path
) -> None:
    process = launch(BEAMSIDE_ENGINES__MODELS=str(package(folder / "models"))).start()
    stream = Stream(process.wire)
    assert stream.show()["score"] == 6.0
    for _ in range(5):
        stream.send(DARK, inspect=True)
    code, _, err = process.ended()
    assert code == 1
    assert err.splitlines()[-1].startswith("beamside: 5 failures of a model in a row")
    process.wire.until(said("hold", state="begin", reason="engine_error"))
    assert process.wire.heard[-1]["reason"] == "engine_error"


def test_a_reload_that_fails_leaves_the_old_model_in_service_and_one_that_works_replaces_it(
    launch: Callable[..., Process], folder: Path
) -> None:
    models = package(folder / "models")
    process = launch(BEAMSIDE_ENGINES__MODELS=str(models)).start()
    stream, wire = Stream(process.wire), process.wire
    old = stream.show(inspect=True)["models"]
    assert [name.split("@")[0] for name in old] == ["autofocus", "depth", "defects"]
    for task, broken in itertools.product(("autofocus", "depth", "defects"), ("cut", "empty")):
        model = models / task / manifest.MODEL_FILE
        good = model.read_bytes()
        model.write_bytes(good[:-7] if broken == "cut" else b"")
        assert wire.ask("reload")["ok"]
        process.popen.send_signal(signal.SIGHUP)
        for _ in range(8):  # the reload happens beside them, and a busy machine takes its time
            told = stream.show(inspect=True)
            assert (told["models"], told["score"]) == (old, 6.0)
        model.write_bytes(good)
    package(models, offset=90.0)
    another_name(models / "depth")
    another_name(models / "defects")
    process.popen.send_signal(signal.SIGHUP)
    new = wire.until(lambda told: told["topic"] == "status" and not set(told["models"]) & set(old))["models"]
    assert [name.split("@")[0] for name in new] == ["autofocus", "depth-2", "defects-2", "cascade"]
    assert stream.show(inspect=True)["models"] == new[:3]  # the cascade is asked where something was found
    process.popen.terminate()
    code, _, err = process.ended()
    assert code == 0 and err.count("reload refused, the old ones keep serving") >= 6
