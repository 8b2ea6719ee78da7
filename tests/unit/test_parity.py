"""The parity gate: what says the same passes, everything else is refused by name and figure."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import golden as golden_sets
from engines import manifest
from engines.errors import InferenceError, PackageError
from engines.golden import ODD_SHAPES, Golden, fitted, read_golden
from engines.load import MODELS
from engines.onnx import OnnxEngine
from engines.parity import Report, check

Outputs = dict[str, NDArray[Any]]
Change = Callable[[Outputs], None]
SIDE, PICTURES = 256, 4
BOXES = np.array([[[10, 10, 40, 40], [60, 60, 90, 90], [120, 120, 150, 150], [200, 200, 230, 230]]], np.float32)
CONFIDENCE = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)


def tiny(task: str) -> bytes:
    """A graph with the names of the task's model: a map of the picture itself, or answers that never change."""
    width = 2 if task == "autofocus" else 8
    ends = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, "h", "w"]),
        helper.make_tensor_value_info("condition", TensorProto.FLOAT, [1, width]),
    ]
    nodes, outputs, constants = GRAPHS[task]()
    graph = helper.make_graph(nodes, task, ends, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def _map(name: str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, None)


def depth_graph() -> tuple[list[Any], list[Any], list[Any]]:
    """height_px = grey level / 10, scale_px = grey level + 1."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "ten"], ["height_px"]),
        helper.make_node("Add", ["pixels", "one"], ["scale_px"]),
    ]
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in (("ten", 10.0), ("one", 1.0))]
    return nodes, [_map("height_px"), _map("scale_px")], constants


def autofocus_graph() -> tuple[list[Any], list[Any], list[Any]]:
    values = {"score": 6.0, "log_blur": 0.4, "log_blur_sigma": 0.2, "content": 0.9}
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in values]
    constants = [numpy_helper.from_array(np.array([v], np.float32), f"{name}_value") for name, v in values.items()]
    return nodes, [_map(name) for name in values], constants


def defects_graph() -> tuple[list[Any], list[Any], list[Any]]:
    values = {"confidence": CONFIDENCE, "class_index": np.array([[0, 1, 2, 3]], np.int32), "box_px": BOXES}
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in values]
    constants = [numpy_helper.from_array(value, f"{name}_value") for name, value in values.items()]
    kinds = {"class_index": TensorProto.INT32}
    return nodes, [_map(name, kinds.get(name, TensorProto.FLOAT)) for name in values], constants


GRAPHS: dict[str, Callable[[], tuple[list[Any], list[Any], list[Any]]]] = {
    "autofocus": autofocus_graph,
    "depth": depth_graph,
    "defects": defects_graph,
}


def a_set(task: str) -> Golden:
    model = tiny(task)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (PICTURES, SIDE, SIDE), np.uint8)
    image[:, 0, 0], image[:, 0, 5] = 0, 255  # every picture has the whole range, at kept pixels
    condition = np.full((PICTURES, 2 if task == "autofocus" else 8), 0.5, np.float32)
    engine = OnnxEngine(model)
    said = [{k: v.copy() for k, v in engine.run(i, c).items()} for i, c in zip(image, condition, strict=True)]
    stride = 5 if task == "depth" else 1
    outputs = {
        name: np.concatenate([each[name][..., ::stride, ::stride] if task == "depth" else each[name] for each in said])
        for name in engine.outputs
    }
    return Golden(f"{task}@00000000", task, 0.5, model, image, condition, outputs, stride)


def changed(golden: Golden, change: Change) -> Callable[[NDArray[np.uint8], NDArray[np.float32]], Outputs]:
    """An engine that says what the model says, but for the change."""
    engine = OnnxEngine(golden.model)

    def run(image: NDArray[np.uint8], condition: NDArray[np.float32]) -> Outputs:
        said = {name: value.copy() for name, value in engine.run(image, condition).items()}
        change(said)
        return said

    return run


def judged(task: str, change: Change, *, precision: str = "fp16") -> Report:
    golden = a_set(task)
    return check(changed(golden, change), golden, precision=precision)


def add(name: str, value: float) -> Change:
    def change(said: Outputs) -> None:
        said[name] += np.float32(value)

    return change


def put(name: str, place: tuple[int, ...], value: float) -> Change:
    def change(said: Outputs) -> None:
        said[name][place] = value

    return change


@pytest.mark.parametrize("task", sorted(GRAPHS))
def test_a_model_agrees_with_itself_at_its_own_and_at_odd_sizes(task: str) -> None:
    report = judged(task, lambda said: None)
    assert report.passed and report.failures == ()
    assert set(report.shapes) == {(SIDE, SIDE), *ODD_SHAPES}
    assert report.pictures == 2 * PICTURES


@pytest.mark.parametrize(("off", "passes"), [(0.04, True), (0.06, False)])
def test_a_score_may_differ_by_a_twentieth(off: float, passes: bool) -> None:
    report = judged("autofocus", add("score", off))
    assert report.passed is passes
    if not passes:
        assert "output score" in report.failures[0] and "0.06" in report.failures[0] and "0.05" in report.failures[0]


@pytest.mark.parametrize("name", ["log_blur", "log_blur_sigma", "content"])
def test_the_other_numbers_of_autofocus_are_held_too(name: str) -> None:
    assert not judged("autofocus", add(name, 0.07)).passed


@pytest.mark.parametrize(
    ("share", "precision", "passes"),
    [(0.0015, "fp16", True), (0.003, "fp16", False), (0.003, "int8", True), (0.012, "int8", False)],
)
def test_heights_may_differ_by_their_share_of_the_range(share: float, precision: str, passes: bool) -> None:
    def change(said: Outputs) -> None:
        said["height_px"][..., :50] += np.float32(share * 25.5)

    report = judged("depth", change, precision=precision)
    assert report.passed is passes
    assert passes or "output height_px: 99.9 % difference over range" in report.failures[0]


@pytest.mark.parametrize(("share", "passes"), [(0.009, True), (0.011, False)])
def test_no_single_pixel_may_be_off_by_five_times_as_much(share: float, passes: bool) -> None:
    def change(said: Outputs) -> None:
        said["height_px"][0, 0, 5, 10] += np.float32(share * 25.5)

    report = judged("depth", change)
    assert report.passed is passes
    assert passes or "output height_px: largest difference over range" in report.failures[0]


def test_a_scale_that_is_not_positive_is_refused() -> None:
    report = judged("depth", put("scale_px", (0, 0, 0, 0), -1.0))
    assert not report.passed and "scale_px" in report.failures[0]


def test_an_engine_that_is_wrong_at_another_size_only_is_refused() -> None:
    def change(said: Outputs) -> None:
        if said["height_px"].shape[-2:] != (SIDE, SIDE):
            said["height_px"][...] = 0.0

    report = judged("depth", change)
    assert not report.passed
    assert any(f"{h}x{w}" in report.failures[0] for h, w in ODD_SHAPES)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("one is missed", put("confidence", (0, 2), 0.4)),
        ("one is invented", put("confidence", (0, 3), 0.6)),
        ("one has another class", put("class_index", (0, 0), 5)),
        ("one box lies elsewhere", put("box_px", (0, 1, 2), 160.0)),
    ],
)
def test_defects_must_be_the_same(what: str, change: Change) -> None:
    report = judged("defects", change)
    assert not report.passed, what
    assert "share of the same defects" in report.failures[0] and "0.995" in report.failures[0]


def test_a_class_that_there_is_not_is_refused() -> None:
    report = judged("defects", put("class_index", (0, 0), 5000))
    assert not report.passed and any("class_index" in failure and "5000" in failure for failure in report.failures)


def test_a_box_that_moves_a_little_is_the_same_defect() -> None:
    assert judged("defects", add("box_px", 2.0)).passed


def test_a_list_that_is_full_says_nothing_of_weaker_defects() -> None:
    golden = a_set("defects")
    golden = replace(golden, threshold=0.05)  # all four are above it: a fifth may have been cut off
    report = check(changed(golden, put("class_index", (0, 3), 9)), golden, precision="fp16")
    assert report.passed


def test_a_set_without_a_defect_vouches_for_nothing() -> None:
    golden = replace(a_set("defects"), threshold=0.95)
    report = check(changed(golden, lambda said: None), golden, precision="fp16")
    assert not report.passed and "nothing was compared" in report.failures[0]


@pytest.mark.parametrize("task", sorted(GRAPHS))
def test_nan_a_missing_output_and_a_wrong_shape_are_named(task: str) -> None:
    name = {"autofocus": "content", "depth": "scale_px", "defects": "confidence"}[task]

    def nan(said: Outputs) -> None:
        said[name][...] = np.nan

    def missing(said: Outputs) -> None:
        del said[name]

    def short(said: Outputs) -> None:
        said[name] = said[name][..., :-1]

    for change, words in ((nan, "is not finite"), (missing, "is missing"), (short, "has shape")):
        report = judged(task, change)
        assert not report.passed
        assert report.failures[0].startswith(f"output {name} {words}")


def test_an_engine_that_raises_is_refused_with_its_words() -> None:
    def run(image: NDArray[np.uint8], condition: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
        raise InferenceError("the device is gone")

    report = check(run, a_set("depth"), precision="fp16")
    assert not report.passed and "the device is gone" in report.failures[0]


@pytest.mark.parametrize("task", sorted(GRAPHS))
def test_an_engine_of_one_shape_is_asked_that_shape_only(task: str) -> None:
    golden = a_set(task)
    seen = []
    same = changed(golden, lambda said: None)

    def run(image: NDArray[np.uint8], condition: NDArray[np.float32]) -> Outputs:
        seen.append(image.shape)
        return same(image, condition)

    report = check(run, golden, precision="fp16", shape=(320, 544))
    assert report.passed and set(seen) == {(320, 544)}
    assert len(seen) == PICTURES


def test_pictures_of_a_large_shape_differ_and_hold_many_crops() -> None:
    golden = a_set("depth")
    first, second = (case.image for case in list(golden.cases((2048, 3072)))[:2])
    assert not np.array_equal(first, second)
    assert np.array_equal(first[:SIDE, SIDE : 2 * SIDE], golden.image[1])


def test_a_crop_is_cut_and_mirrored_to_any_shape() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    whole = fitted(image, (2, 10))
    assert whole.shape == (2, 10)
    assert whole[0].tolist() == [0, 1, 2, 3, 3, 2, 1, 0, 0, 1]


def test_a_report_is_json() -> None:
    report = judged("depth", add("height_px", 1.0))
    again = msgspec.json.decode(report.json(), type=Report)
    assert again == report and not again.passed


# --- reading the set ---


@pytest.fixture
def package(tmp_path: Path) -> tuple[Path, manifest.Manifest, bytes]:
    """A package of the shipped autofocus model's manifest with a small golden set."""
    described, model = manifest.read(MODELS / "autofocus")
    engine = OnnxEngine(model)
    image = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE), np.uint8)
    told = np.zeros((2, 2), np.float32)
    said = [{k: v.copy() for k, v in engine.run(i, c).items()} for i, c in zip(image, told, strict=True)]
    outputs = {f"out_{name}": np.concatenate([each[name] for each in said]) for name in engine.outputs}
    facts = {"model": np.array(described.sha256), "image": image, "condition": told, "out_stride": np.int32(5)}
    np.savez_compressed(tmp_path / golden_sets.GOLDEN_FILE, **facts, **outputs)
    return tmp_path, vouching(described, tmp_path), model


def vouching(described: manifest.Manifest, folder: Path) -> manifest.Manifest:
    data = (folder / golden_sets.GOLDEN_FILE).read_bytes()
    return msgspec.structs.replace(described, golden_sha256=manifest.digest(data))


def test_the_shipped_model_passes_a_set_read_from_its_package(package: tuple[Path, manifest.Manifest, bytes]) -> None:
    folder, described, model = package
    golden = read_golden(folder, described, model)
    assert check(OnnxEngine(model).run, golden, precision="fp32").passed


def test_a_set_of_another_model_is_refused(package: tuple[Path, manifest.Manifest, bytes]) -> None:
    folder, described, model = package
    other = msgspec.structs.replace(described, sha256="0" * 64)
    with pytest.raises(PackageError, match="it was made with model"):
        read_golden(folder, other, model)


@pytest.mark.parametrize("junk", [None, b"", b"PK\x03\x04 not a set", b"text"])
def test_a_set_that_is_missing_or_junk_is_named(
    package: tuple[Path, manifest.Manifest, bytes], junk: bytes | None
) -> None:
    folder, described, model = package
    path = folder / golden_sets.GOLDEN_FILE
    if junk is None:
        path.unlink()
    else:
        path.write_bytes(junk)
        described = vouching(described, folder)
    with pytest.raises(PackageError, match=r"golden\.npz: .*beamside calibrate golden"):
        read_golden(folder, described, model)


def test_an_incomplete_set_is_refused(package: tuple[Path, manifest.Manifest, bytes]) -> None:
    folder, described, model = package
    path = folder / golden_sets.GOLDEN_FILE
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files if name != "out_score"}
    np.savez_compressed(path, **kept)
    with pytest.raises(PackageError, match="out_score"):
        read_golden(folder, vouching(described, folder), model)


def test_a_set_with_other_answers_is_refused_where_the_manifest_vouches_for_it(
    package: tuple[Path, manifest.Manifest, bytes],
) -> None:
    folder, described, model = package
    path = folder / golden_sets.GOLDEN_FILE
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files}
    np.savez_compressed(path, **kept | {"out_score": kept["out_score"] + 3.0})
    with pytest.raises(PackageError, match=r"golden\.npz: sha256 .* the set was changed; beamside calibrate golden"):
        read_golden(folder, described, model)
    # An older manifest names no set: the name of the model within it is all there is to go by.
    old = msgspec.structs.replace(described, golden_sha256=msgspec.UNSET)
    assert read_golden(folder, old, model).label == old.label
