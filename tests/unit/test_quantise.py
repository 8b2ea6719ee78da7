"""Twins in fewer bits: the same borders, other insides, and only those that the gate passes are named."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from agent.__main__ import calibrate  # with all its commands
from agent.errors import EngineError
from calibration import golden, quantise, variants
from calibration.train import data
from engines import manifest
from engines.errors import PackageError
from engines.golden import read_golden
from engines.load import MODELS
from engines.onnx import OnnxEngine
from engines.parity import Report, check

TASKS = ("autofocus", "depth", "defects")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Sets of eight crops, each drawn once; how fast a twin is does not matter here. The shipped sets stay whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "CROPS", 8)
        patch.setitem(golden.DRAW, "autofocus", lru_cache(golden.autofocus_crops))
        patch.setattr(variants, "TIMED_SHAPE", (192, 256))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The autofocus package with a golden set."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(MODELS / "autofocus", folder / "autofocus")
    golden.write(folder / "autofocus", seed=3)
    return folder


@pytest.fixture(scope="module")
def made(models: Path) -> list[variants.Made]:
    return variants.write(models / "autofocus", seed=3)


def convolution(weight: float, *, kind: str = "Conv") -> bytes:
    """score = mean of one 1x1 convolution."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, "h", "w"])
    condition = helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 2])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], name="cast", to=TensorProto.FLOAT),
        helper.make_node(kind, ["pixels", "weight"], ["after"], name="inner"),
        helper.make_node("ReduceMean", ["after"], ["mean"], name="mean", keepdims=0),
        helper.make_node("ReduceSum", ["condition"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["score"], name="score"),
    ]
    constant = numpy_helper.from_array(np.full((1, 1, 1, 1), weight, np.float32), "weight")
    graph = helper.make_graph(nodes, "one", [image, condition], [score], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def types_of(model: bytes) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}


@pytest.mark.parametrize("task", TASKS)
def test_a_half_twin_has_the_borders_of_its_model_and_float16_in_every_convolution(task: str) -> None:
    model = (MODELS / task / "model.onnx").read_bytes()
    twin = quantise.half(model)
    assert len(twin) < 0.65 * len(model)
    before, after = onnx.load_from_string(model).graph, onnx.load_from_string(twin).graph
    assert [(x.name, x.type) for x in before.input] == [(x.name, x.type) for x in after.input]
    assert [(x.name, x.type) for x in before.output] == [(x.name, x.type) for x in after.output]
    types = types_of(twin)
    for node in after.node:
        if node.op_type == "Conv":
            assert {types[name] for name in (node.input[0], *node.output)} == {TensorProto.FLOAT16}, node.name
        if node.op_type in ("ReduceMean", "Exp", "Log", "TopK", "Gemm"):  # sums and exponents stay float32
            assert types.get(node.input[0], TensorProto.FLOAT) == TensorProto.FLOAT, node.name


def test_a_half_twin_computes_what_its_model_computes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    told = np.zeros(2, np.float32)
    model = convolution(0.25)
    full, half = (float(OnnxEngine(m).run(image, told)["score"]) for m in (model, quantise.half(model)))
    assert full == pytest.approx(0.25 * image.mean(), rel=1e-5)
    assert half == pytest.approx(full, rel=2e-3) and half != 0.0


def test_a_weight_beyond_float16_is_named() -> None:
    with pytest.raises(ValueError, match=r"weight weight reaches 7e\+04, beyond float16"):
        quantise.half(convolution(7e4))


def test_a_graph_without_a_convolution_has_no_half_twin() -> None:
    with pytest.raises(ValueError, match="no convolution"):
        quantise.half(convolution(0.25, kind="Mul"))


def test_an_eight_bit_twin_has_signed_weights_by_channel_and_unsigned_activations() -> None:
    model = (MODELS / "autofocus" / "model.onnx").read_bytes()
    drawn = data.small(1, seed=5)
    twin = onnx.load_from_string(quantise.eight_bit(model, drawn.image[:4], drawn.condition[:4])).graph
    constants = {each.name: numpy_helper.to_array(each) for each in twin.initializer}
    activations = [node for node in twin.node if node.op_type == "QuantizeLinear"]
    assert activations and all(constants[node.input[2]].dtype == np.uint8 for node in activations)
    weights = [each for each in constants.values() if each.dtype == np.int8 and each.ndim == 4]
    assert len(weights) == sum(node.op_type == "Conv" for node in twin.node)
    nothing = np.empty(0)
    scales = [
        constants[node.input[1]].shape
        for node in twin.node
        if node.op_type == "DequantizeLinear" and constants.get(node.input[0], nothing).ndim == 4
    ]
    assert sorted(scales) == sorted((len(weight),) for weight in weights)


def test_kept_twins_are_named_in_the_sealed_manifest_and_pass_the_gate(models: Path, made: list[variants.Made]) -> None:
    package = models / "autofocus"
    described, model = manifest.read(package)  # the seal holds
    assert {each.precision for each in made if each.kept} == set(described.twins)
    assert "fp16" in described.twins
    for precision in described.twins:
        twin = manifest.read_twin(package, described, precision)
        assert check(OnnxEngine(twin).run, read_golden(package, described, model), precision=precision).passed


def test_a_twin_that_passes_the_golden_set_only_is_not_kept(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "autofocus"
    shutil.copytree(models / "autofocus", package)
    asked: list[int] = []

    def passes_once(run: Any, golden: Any, *, precision: str) -> Report:
        asked.append(len(golden.image))
        first = replace(golden, image=golden.image[:1], condition=golden.condition[:1])
        report = check(run, first, precision=precision)
        return (
            report if len(asked) % 2 else msgspec.structs.replace(report, passed=False, failures=("beyond its range",))
        )

    monkeypatch.setattr(variants, "check", passes_once)
    monkeypatch.setattr(variants, "eight_bit", lambda model, image, condition: quantise.half(model))
    rows = variants.write(package, seed=3)
    assert [(each.kept, each.why) for each in rows] == [(False, "beyond its range")] * 2
    assert asked[1] == golden.CROPS * variants.FURTHER_SETS


def test_what_is_not_kept_leaves_no_file_and_says_why(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "autofocus"
    shutil.copytree(models / "autofocus", package)

    def refused(run: Any, golden: Any, *, precision: str) -> Report:
        return msgspec.structs.replace(
            check(run, golden, precision=precision), passed=False, failures=("score is off",)
        )

    monkeypatch.setattr(variants, "check", refused)
    monkeypatch.setattr(variants, "FURTHER_SETS", 1)
    monkeypatch.setattr(variants, "RANGE_SETS", 1)
    monkeypatch.setattr(variants, "eight_bit", lambda model, image, condition: quantise.half(model))
    rows = variants.write(package, seed=3)
    assert [(each.kept, each.why) for each in rows] == [(False, "score is off")] * 2
    assert sorted(path.name for path in package.glob("*.onnx")) == ["model.onnx"]
    assert manifest.read(package)[0].twins == {}


def test_one_changed_byte_of_a_twin_is_refused(models: Path, made: list[variants.Made], tmp_path: Path) -> None:
    package = tmp_path / "autofocus"
    shutil.copytree(models / "autofocus", package)
    path = package / "model.fp16.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"model\.fp16\.onnx: sha256"):
        manifest.read_twin(package, manifest.read(package)[0], "fp16")


def test_a_twin_that_the_manifest_does_not_name_does_not_exist(tmp_path: Path) -> None:
    described = msgspec.structs.replace(manifest.read(MODELS / "autofocus")[0], variants=msgspec.UNSET)
    with pytest.raises(PackageError, match="no int8 twin; beamside calibrate variants"):
        manifest.read_twin(tmp_path, described, "int8")


def test_a_folder_without_packages_is_told(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no model package"):
        variants.write_all(tmp_path, seed=1, progress=lambda *_: None)


def test_the_command_tells_what_was_kept_and_why_not(
    made: list[variants.Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "write_all", lambda models, *, seed, progress: made)
    answer = CliRunner().invoke(calibrate, ["variants", "--json"])
    assert answer.exit_code == 0
    rows = json.loads(answer.stdout)
    assert [(row["precision"], row["kept"]) for row in rows] == [(each.precision, each.kept) for each in made]
    assert all(row["parity"]["figures"] for row in rows)
    table = CliRunner().invoke(calibrate, ["variants"])
    assert table.exit_code == 0 and "fp16" in table.stdout


def test_the_command_names_a_folder_without_packages(tmp_path: Path) -> None:
    answer = CliRunner().invoke(calibrate, ["variants", "--models", str(tmp_path)])
    assert isinstance(answer.exception, EngineError) and "no model package" in str(answer.exception)


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_twins_pass_the_gate(task: str) -> None:
    package = MODELS / task
    described, model = manifest.read(package)
    if not described.twins:
        pytest.skip(f"the {task} package names no twins yet: beamside calibrate golden, then variants")
    golden_set = read_golden(package, described, model)
    for precision in described.twins:
        twin = manifest.read_twin(package, described, precision)
        report = check(OnnxEngine(twin).run, golden_set, precision=precision)
        assert report.passed, report.failures


def test_no_twin_lies_beside_a_model_without_being_named() -> None:
    for task in TASKS:
        described, _ = manifest.read(MODELS / task)
        there = {path.name for path in (MODELS / task).glob("model.*.onnx")}
        assert there == {manifest.twin_file(precision) for precision in described.twins}


def test_the_shipped_models_are_small_enough_for_git() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 20_000_000
