"""Packages, backends and buffers: the right bytes or a sentence that says what is wrong."""

import shutil
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines import load, manifest
from engines.errors import BackendMissingError, InferenceError, PackageError
from engines.onnx import SHAPES_KEPT, OnnxEngine

CONDITION = np.zeros(2, np.float32)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    shutil.copytree(load.MODELS / "autofocus", tmp_path / "autofocus")
    return tmp_path


def logarithm_model() -> bytes:
    """score = ln(mean(image) - 1) + 0 * sum(condition): not a number for a black picture."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, "h", "w"])
    condition = helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, 2])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, [])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Sub", ["mean", "one"], ["less"]),
        helper.make_node("Log", ["less"], ["log"]),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("ReduceSum", ["condition"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["log", "nothing"], ["score"]),
    ]
    graph = helper.make_graph(nodes, "logarithm", [image, condition], [score])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_the_shipped_package_is_whole_and_says_what_it_is() -> None:
    loaded = load.load("autofocus")
    assert loaded.manifest.label == f"autofocus@{loaded.manifest.sha256[:8]}"
    assert loaded.manifest.opset == 18
    assert (load.MODELS / "autofocus" / "model.onnx").stat().st_size < 5_000_000
    assert loaded.manifest.metrics["held_out"]["n"] > 0
    assert {tensor.name for tensor in loaded.manifest.outputs} == set(loaded.manifest.training.labels) | {
        "log_blur_sigma"
    }


def test_one_changed_byte_of_the_model_is_refused(models: Path) -> None:
    path = models / "autofocus" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageError, match="sha256"):
        load.load("autofocus", models=models)


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json"])
def test_a_missing_file_is_named(models: Path, file: str) -> None:
    (models / "autofocus" / file).unlink()
    with pytest.raises(PackageError, match=f"{file}: missing"):
        load.load("autofocus", models=models)


def test_an_edited_manifest_is_refused(models: Path) -> None:
    path = models / "autofocus" / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"version": "', '"version": "9'))
    with pytest.raises(PackageError, match="edited"):
        load.load("autofocus", models=models)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "\xff"])
def test_a_manifest_that_is_none_is_refused(models: Path, text: str) -> None:
    (models / "autofocus" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(PackageError, match=r"manifest\.json: not a manifest"):
        load.load("autofocus", models=models)


def resealed(models: Path, **changes: object) -> None:
    package = models / "autofocus"
    found, _ = manifest.read(package)
    manifest.write(package, msgspec.structs.replace(found, **changes))


def test_a_package_for_another_task_is_refused(models: Path) -> None:
    resealed(models, task="depth")
    with pytest.raises(PackageError, match="for task 'depth'"):
        load.load("autofocus", models=models)


def test_a_package_of_a_later_format_is_refused(models: Path) -> None:
    resealed(models, format=2)
    with pytest.raises(PackageError, match="format 2"):
        load.load("autofocus", models=models)


def test_names_that_the_graph_does_not_have_are_refused(models: Path) -> None:
    found, _ = manifest.read(models / "autofocus")
    resealed(models, outputs=found.outputs[:2])
    with pytest.raises(PackageError, match="the graph has"):
        load.load("autofocus", models=models)


@pytest.mark.parametrize("junk", [b"", b"not a graph", bytes(range(256)) * 8])
def test_bytes_that_are_no_graph_are_refused(models: Path, junk: bytes) -> None:
    package = models / "autofocus"
    found, _ = manifest.read(package)
    (package / "model.onnx").write_bytes(junk)
    manifest.write(package, msgspec.structs.replace(found, sha256=manifest.digest(junk)))
    with pytest.raises(PackageError, match="ONNX Runtime refuses"):
        load.load("autofocus", models=models)


def test_auto_says_why_it_passed_the_better_backends_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    monkeypatch.setattr(load.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    name, reason = load.choose()
    assert name == "onnxruntime"
    assert "tensorrt: the package tensorrt is not installed" in reason
    assert "\n" not in reason


def test_an_installed_backend_without_a_device_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: object())
    monkeypatch.setattr(load, "_no_device", lambda: "there is no NVIDIA driver")
    assert load.choose()[0] == "onnxruntime"
    with pytest.raises(BackendMissingError, match="no NVIDIA driver"):
        load.choose("tensorrt_rtx")


def test_a_backend_asked_for_by_name_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda name: None)
    with pytest.raises(BackendMissingError, match="tensorrt was asked for"):
        load.load("autofocus", backend="tensorrt")
    assert load.choose("onnxruntime") == ("onnxruntime", "onnxruntime: asked for by name")


def test_an_unknown_backend_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(BackendMissingError, match="known are auto, tensorrt"):
        load.choose("openvino")


def test_numbers_that_are_not_finite_are_an_error_and_not_a_reading() -> None:
    engine = OnnxEngine(logarithm_model())
    assert engine.run(np.full((64, 64), 9, np.uint8), CONDITION)["score"] == pytest.approx(np.log(8.0), abs=1e-6)
    with pytest.raises(InferenceError, match="score"):
        engine.run(np.zeros((64, 64), np.uint8), CONDITION)
    assert engine.run(np.full((64, 64), 2, np.uint8), CONDITION)["score"] == pytest.approx(0.0, abs=1e-6)


def test_a_condition_of_another_length_is_an_error() -> None:
    engine = OnnxEngine(logarithm_model())
    with pytest.raises(InferenceError, match="cannot take"):
        engine.run(np.zeros((64, 64), np.uint8), np.zeros(3, np.float32))


def test_a_known_shape_allocates_nothing_that_stays() -> None:
    engine = load.load("autofocus").engine
    image = np.random.default_rng(1).integers(0, 256, (256, 320), np.uint8)
    first = engine.run(image, CONDITION)
    before = {name: value.ctypes.data for name, value in first.items()}
    tracemalloc.start()
    for _ in range(30):
        last = engine.run(image, CONDITION)
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {name: value.ctypes.data for name, value in last.items()} == before
    assert grown < 10_000
    assert peak < image.nbytes  # not even one copy of the picture


def test_a_new_picture_is_read_anew_in_bound_buffers() -> None:
    engine = OnnxEngine(logarithm_model())
    for level in (2, 5, 200):
        out = engine.run(np.full((32, 64), level, np.uint8), CONDITION)
        assert out["score"] == pytest.approx(np.log(level - 1.0), abs=1e-5)


def test_shapes_without_end_do_not_grow_the_engine_without_end() -> None:
    engine = OnnxEngine(logarithm_model())
    for step in range(3 * SHAPES_KEPT):
        engine.run(np.full((32, 32 + 32 * step), 9, np.uint8), CONDITION)
    assert len(engine._bound) == SHAPES_KEPT
