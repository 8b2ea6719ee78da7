"""Building in a child process: whatever becomes of the child, one sentence, and nothing of it is left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from engines import build as building
from engines.build import build
from engines.errors import BackendMissingError, BuildError
from engines.load import MODELS

FAKES = Path(__file__).parents[1] / "fakes"
SHAPE = (128, 160)
MODEL = (MODELS / "autofocus" / "model.onnx").read_bytes()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The child finds the fake package `tensorrt`."""
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    return monkeypatch


def children() -> list[str]:
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if "engines.compiler" in line]


def graph(operator: str = "Identity", image: tuple[object, ...] = (1, 1, "h", "w"), name: str = "image") -> bytes:
    """One node on a cast picture."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, list(image)),
        helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 2]),
    ]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["pixels"], ["out"], name=f"the_{operator}"),
    ]
    made = helper.make_graph(nodes, "one", inputs, [out])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_a_plan_comes_back_and_progress_is_told(fake: pytest.MonkeyPatch) -> None:
    heard: list[tuple[float, str]] = []
    plan = build(
        MODEL,
        backend="tensorrt",
        recipe="fp32",
        shape=SHAPE,
        timeout_s=60.0,
        progress=lambda share, phase: heard.append((share, phase)),
    )
    assert plan.startswith(b"FAKEPLAN") and plan.endswith(MODEL)
    assert heard == [(0.5, "Building engine"), (1.0, "Building engine"), (1.0, "Building engine")]
    assert not children()


FATES = {
    "crash": "the builder died of SIGSEGV",
    "killed": "killed, most likely for memory; free some",
    "memory": "no room for the plan: out of memory",
    "refuse": "the builder gave up: Error Code 9: no kernel for this node",
    "null": "the builder does not start: CUDA initialization failure with error: 35",
}


@pytest.mark.parametrize("fate", FATES)
def test_the_end_of_a_child_is_told_in_one_sentence(fake: pytest.MonkeyPatch, fate: str) -> None:
    fake.setenv("FAKE_TENSORRT", fate)
    with pytest.raises(BuildError, match=FATES[fate]) as caught:
        build(MODEL, backend="tensorrt", recipe="fp32", shape=SHAPE, timeout_s=60.0)
    assert str(caught.value).startswith("tensorrt fp32 128x160: ") and "\n" not in str(caught.value)
    assert not children()


def test_a_build_that_takes_too_long_is_stopped(fake: pytest.MonkeyPatch) -> None:
    fake.setenv("FAKE_TENSORRT", "hang")
    with pytest.raises(BuildError, match="not built within 2 s and stopped; allow more with --timeout"):
        build(MODEL, backend="tensorrt", recipe="fp32", shape=SHAPE, timeout_s=2.0)
    assert not children()


def test_a_caller_that_is_interrupted_leaves_no_child(fake: pytest.MonkeyPatch) -> None:
    def interrupted(share: float, phase: str) -> None:
        raise KeyboardInterrupt

    fake.setenv("FAKE_TENSORRT", "hang")
    with pytest.raises(KeyboardInterrupt):
        build(MODEL, backend="tensorrt", recipe="fp32", shape=SHAPE, timeout_s=60.0, progress=interrupted)
    assert not children()


def test_a_child_that_never_starts_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.sys, "executable", "/bin/false")
    with pytest.raises(BuildError, match="ended with status 1: it left no word"):
        build(MODEL, backend="tensorrt", recipe="fp32", shape=SHAPE, timeout_s=60.0)


def test_a_backend_that_is_not_installed_is_missing_and_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(BackendMissingError, match=r"pip install 'beamside\[tensorrt\]'"):
        build(MODEL, backend="tensorrt", recipe="fp32", shape=SHAPE, timeout_s=60.0)


REFUSALS = {
    "no graph": (b"not a graph", "fp32", "MODEL_DESERIALIZE_FAILED: .*[Ff]ailed to parse"),
    "an operator": (graph("Det"), "fp32", r"operator Det of node 'the_Det' \(number \d\): UNSUPPORTED_NODE"),
    "another input": (graph(name="picture"), "fp32", "must have an input 'image' uint8 .* it has picture UINT8"),
    "one fixed shape": (graph(image=(1, 1, 64, 64)), "fp32", r"takes \(1, 1, 64, 64\) only and not \(1, 1, 128, 160\)"),
    "full precision as fp16": (MODEL, "fp16", "holds no HALF tensor: recipe fp16 needs the model's own fp16 twin"),
    "full precision as int8": (MODEL, "int8", "holds no INT8 tensor"),
    "a recipe of its own": (MODEL, "fp4", "recipe 'fp4' is unknown"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_model_that_cannot_be_built_is_refused_in_the_parsers_words(fake: pytest.MonkeyPatch, what: str) -> None:
    model, recipe, words = REFUSALS[what]
    with pytest.raises(BuildError, match=words):
        build(model, backend="tensorrt", recipe=recipe, shape=SHAPE, timeout_s=60.0)  # type: ignore[arg-type]


def test_the_parent_needs_no_tensorrt_and_no_torch() -> None:
    heavy = ("tensorrt_rtx", "torch", "onnx", "cuda")
    script = f"import sys, engines.build, engines.load; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "[]\n"
