"""A defect model that is given a reference beside the frame: its package, tiles, plans, golden set and twins."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from agent.commands import benching, yardstick
from agent.commands.building import Workshop
from agent.commands.makers import OnnxMaker
from calibration import golden as golden_sets
from calibration.quantise import eight_bit, half
from engines import admit, manifest
from engines.compiler import fix_shape
from engines.cuda import Cuda
from engines.defects import DefectFinder
from engines.errors import BuildError, InferenceError, PackageError
from engines.golden import ODD_SHAPES, Golden, read_golden
from engines.load import MODELS, Loaded, load
from engines.onnx import OnnxEngine
from engines.parity import check
from engines.scene import Levels, Scene, condition, levels_of
from engines.tiles import Whole, joined, read_defects, tiles
from engines.trt import TrtEngine, Uploads
from tests.fakes import compares
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import fake_tensorrt, plan_for

SHAPE = (128, 160)
SCENE = Scene(pixel_size_m=3e-9)
RNG = np.random.default_rng(11)
NOISE = RNG.integers(90, 160, SHAPE, np.uint8)


def spoilt(image: NDArray[np.uint8], *places: tuple[int, int]) -> NDArray[np.uint8]:
    """With a bright cell at each x, y, multiples of eight."""
    out = image.copy()
    for x, y in places:
        out[y : y + 8, x : x + 8] = 250
    return out


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compares.package(tmp_path_factory.mktemp("models")).parent


@pytest.fixture(scope="module")
def loaded(models: Path) -> Loaded:
    return load("defects", models=models, backend="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def finder(loaded: Loaded) -> DefectFinder:
    return DefectFinder(loaded)


# --- the package and its reading ---


def test_the_number_of_channels_is_the_manifests(finder: DefectFinder, loaded: Loaded) -> None:
    assert finder.wants_reference and loaded.manifest.channels == 2
    shipped = manifest.read(MODELS / "autofocus")[0]
    assert shipped.channels == 1


def test_what_differs_from_the_reference_is_found_at_its_place(finder: DefectFinder) -> None:
    frame = spoilt(NOISE, (40, 24), (120, 96))
    found = finder.read(frame, SCENE, reference=NOISE)
    assert {each.box_px for each in found} == {(40.0, 24.0, 48.0, 32.0), (120.0, 96.0, 128.0, 104.0)}


def test_without_a_reference_the_frame_is_its_own_and_nothing_differs(finder: DefectFinder, loaded: Loaded) -> None:
    frame = spoilt(NOISE, (40, 24))
    assert finder.read(frame, SCENE) == ()
    told = condition(levels_of(frame), SCENE)
    alone = {name: value.copy() for name, value in loaded.engine.run(frame, told).items()}
    for name, value in loaded.engine.run(np.stack([frame, frame]), told).items():
        np.testing.assert_array_equal(value, alone[name])


def test_the_first_frame_of_a_shape_is_read_as_every_later_one(models: Path) -> None:
    frame, reference = spoilt(NOISE, (40, 24)), NOISE
    fresh = DefectFinder(load("defects", models=models, backend="onnxruntime", threads=1))
    first = fresh.read(frame, SCENE, reference=reference)
    fresh.read(NOISE[::-1].copy(), SCENE)
    assert fresh.read(frame, SCENE, reference=reference) == first != ()


class Beholds:
    """An engine that remembers what it was shown."""

    backend, inputs, outputs = "beholds", ("image", "condition"), ("confidence", "class_index", "box_px")

    def __init__(self) -> None:
        self.shown: list[NDArray[np.uint8]] = []

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        self.shown.append(image)
        return {
            "confidence": np.zeros((1, 1), np.float32),
            "class_index": np.zeros((1, 1), np.int32),
            "box_px": np.zeros((1, 1, 4), np.float32),
        }


def test_a_model_of_one_channel_takes_no_notice_of_a_reference() -> None:
    engine = Beholds()
    plain = DefectFinder(Loaded(engine, compares.described(b"", channels=1), "a stand-in"))
    assert not plain.wants_reference and plain.read(NOISE, SCENE, reference=spoilt(NOISE, (40, 24))) == ()
    (shown,) = engine.shown
    assert shown is NOISE


def test_an_engine_of_one_channel_refuses_two() -> None:
    frame = spoilt(NOISE, (40, 24))
    data = (MODELS / "depth" / "model.onnx").read_bytes()
    plain = manifest.read(MODELS / "depth")[0]
    assert OnnxEngine(data).channels == plain.channels == 1
    with pytest.raises(InferenceError, match=r"\(2, 128, 160\) picture"):
        OnnxEngine(data).run(np.stack([frame, NOISE]), condition(levels_of(frame), SCENE))


def test_three_channels_and_a_reference_of_another_shape_are_refused(finder: DefectFinder, loaded: Loaded) -> None:
    with pytest.raises(InferenceError, match=r"\(3, 128, 160\) picture"):
        loaded.engine.run(np.stack([NOISE] * 3), condition(levels_of(NOISE), SCENE))
    with pytest.raises(ValueError, match="padded alike"):
        finder.read(NOISE, SCENE, reference=NOISE[:96])


def test_a_picture_smaller_than_the_graph_takes_is_mirrored_out_with_its_reference(finder: DefectFinder) -> None:
    small = NOISE[:32, :32]
    found = finder.read(spoilt(small, (8, 16)), SCENE, reference=small)
    assert (8.0, 16.0, 16.0, 24.0) in {each.box_px for each in found}


def test_a_manifest_that_says_one_channel_of_a_graph_of_two_is_refused(tmp_path: Path) -> None:
    compares.package(tmp_path, channels=1)
    with pytest.raises(PackageError, match=r"says that image is uint8 \(1, 1, free, free\).*\(1, 2, free, free\)"):
        load("defects", models=tmp_path, backend="onnxruntime")


# --- tiles ---


def test_a_tile_with_its_reference_is_read_as_the_same_place_of_the_whole(finder: DefectFinder) -> None:
    reference = np.random.default_rng(2).integers(90, 160, (640, 992), np.uint8)
    places = [(int(x) * 8, int(y) * 8) for x, y in np.random.default_rng(3).integers(1, 78, (14, 2))]
    image = spoilt(reference, *places)
    levels = levels_of(image)
    whole = finder.read(image, SCENE, levels, reference=reference)
    parts = tiles(image.shape, largest_px=1, side_px=480)
    found = [
        each for tile in parts for each in read_defects(finder, Whole(image, SCENE, levels), tile, tile.of(reference))
    ]
    assert len(parts) > 2 and len(whole) >= 10
    assert {(each.name, each.box_px) for each in joined(found)} == {(each.name, each.box_px) for each in whole}
    assert sorted(each.confidence for each in joined(found)) == pytest.approx(sorted(e.confidence for e in whole))


# --- plans, on a stand-in device ---


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with fake_tensorrt(monkeypatch) as package:
        yield package


def test_a_plan_reads_frame_and_reference_as_onnx_runtime_does(trt: Any, loaded: Loaded) -> None:
    cuda = Cuda(FakeDriver())
    plan = plan_for(trt, compares.model(), SHAPE)
    engine = TrtEngine(plan, backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    assert (engine.shape, engine.channels) == (SHAPE, 2)
    frame = spoilt(NOISE, (40, 24))
    told = condition(levels_of(frame), SCENE)
    for picture in (np.stack([frame, NOISE]), frame, np.stack([NOISE, frame])):
        expected = {name: value.copy() for name, value in loaded.engine.run(picture, told).items()}
        for name, value in engine.run(picture, told).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5)


def test_models_of_one_channel_go_on_sharing_their_upload_beside_one_that_compares(trt: Any) -> None:
    driver = FakeDriver()
    cuda = Cuda(driver)
    uploads = Uploads(cuda)
    plans = [plan_for(trt, (MODELS / "autofocus" / "model.onnx").read_bytes(), SHAPE)] * 2
    alone = [TrtEngine(plan, backend="tensorrt", cuda=cuda, uploads=uploads) for plan in plans]
    beside = TrtEngine(plan_for(trt, compares.model(), SHAPE), backend="tensorrt", cuda=cuda, uploads=uploads)
    frame, focus = spoilt(NOISE, (40, 24)), np.array([0.1, 1.0], np.float32)
    expected = alone[0].run(frame, focus)["score"].copy()
    sent, held = driver.calls["cuMemcpyHtoDAsync"], driver.bytes_held
    uploads.share(frame)
    scores = [engine.run(frame, focus)["score"].copy() for engine in alone]
    found = beside.run(np.stack([frame, NOISE]), condition(levels_of(frame), SCENE))["confidence"].copy()
    scores.append(alone[0].run(frame, focus)["score"].copy())
    assert driver.calls["cuMemcpyHtoDAsync"] - sent == 2 and driver.bytes_held == held
    assert all(score == expected for score in scores) and found[0, 0] > 0.5


def test_a_builder_takes_one_channel_or_two(trt: Any) -> None:
    graph = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> three (uint8[1, 3, h, w] image, float[1, 8] condition) '
        "=> (float[1, 3, h, w] grey) { grey = Cast <to = 1> (image) }"
    )
    network = trt.Network()
    assert trt.OnnxParser(network, trt.ILogger()).parse(graph.SerializeToString())
    with pytest.raises(BuildError, match=r"uint8 \[1, 1 or 2, h, w\].*\(1, 3, -1, -1\)"):
        fix_shape(trt, network, SHAPE)


# --- its golden set ---


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = compares.package(tmp_path_factory.mktemp("golden"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden_sets, "CROPS", 5)
        golden_sets.write(folder, seed=4)
    return folder


def read(package: Path) -> Golden:
    return read_golden(package, *manifest.read(package))


def test_a_golden_set_holds_the_references_and_some_crops_stand_alone(package: Path) -> None:
    image = read(package).image
    assert image.shape == (5, 2, golden_sets.SIDE, golden_sets.SIDE)
    same = [bool((crop[0] == crop[1]).all()) for crop in image]
    assert same[-1] and not all(same)


def test_the_gate_passes_the_model_itself_at_odd_sizes_and_at_a_large_one(package: Path) -> None:
    golden = read(package)
    run = OnnxEngine(golden.model).run
    report = check(run, golden, precision="fp32")
    assert report.passed and set(ODD_SHAPES) <= set(report.shapes), report.failures
    assert {case.image.shape[0] for case in golden.cases()} == {2}
    large = check(run, golden, precision="fp32", shape=(384, 512))
    assert large.passed and large.shapes == ((384, 512),), large.failures


def test_the_gate_refuses_an_engine_that_takes_no_notice_of_the_reference(package: Path) -> None:
    golden = read(package)
    engine = OnnxEngine(golden.model)
    report = check(lambda image, told: engine.run(image[0], told), golden, precision="fp32")
    assert not report.passed and "same defects" in report.failures[0]


def test_a_set_without_references_does_not_belong_to_a_model_that_compares(package: Path) -> None:
    described, data = manifest.read(package)
    path = package / golden_sets.GOLDEN_FILE
    with np.load(path) as kept:
        arrays = {name: kept[name] for name in kept.files}
    other = package.parent / "other"
    other.mkdir()
    np.savez(other / golden_sets.GOLDEN_FILE, **{**arrays, "image": arrays["image"][:, 0]})
    unbound = msgspec.structs.replace(described, golden_sha256=msgspec.UNSET)
    with pytest.raises(PackageError, match=r"its pictures are \(256, 256\), those of the model have 2 channels"):
        read_golden(other, unbound, data)


def test_twins_in_fewer_bits_are_made_of_two_channels_too(package: Path) -> None:
    golden = read(package)
    twin = half(golden.model)
    assert check(OnnxEngine(twin).run, golden, precision="fp16").passed
    smaller = eight_bit(golden.model, golden.image, golden.condition)
    said = OnnxEngine(smaller).run(golden.image[0], golden.condition[0])
    assert said["confidence"].shape == (1, compares.BEST) and OnnxEngine(smaller).channels == 2


def test_the_levels_that_a_model_is_told_are_those_of_the_frame_and_not_of_its_reference(package: Path) -> None:
    for case in read(package).cases((192, 320)):
        told = Levels(float(case.condition[0]) * 255.0, float(case.condition[1]) * 255.0)
        assert told.mean == pytest.approx(case.image[0].mean(), abs=1e-3)
        assert told.spread == pytest.approx(max(case.image[0].std(), 1.0), abs=1e-3)


# --- how long it takes ---


def test_a_bench_gives_it_a_picture_with_a_reference(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benching, "CPU_SHAPE", SHAPE)
    seen: list[tuple[int, ...]] = []

    def nothing(task: str, picture: NDArray[np.uint8], *, cuda: bool) -> dict[str, Any]:
        seen.append(picture.shape)
        return {}

    monkeypatch.setattr(benching, "torch_readers", nothing)
    workshop = Workshop(models, (SHAPE,), (OnnxMaker(admit.on_cpu(tmp_path)),), named=False)
    rows, failed = benching.sorted_out(benching.measure(workshop, runs=1))
    assert failed == [] and [(row.model, row.precision) for row in rows] == [("compares", "fp32")]
    assert seen == [(2, *SHAPE)]


def test_models_that_are_timed_together_get_as_many_channels_as_each_takes(trt: Any) -> None:
    driver = FakeDriver()
    cuda = Cuda(driver)
    uploads = Uploads(cuda)
    focus, told = np.array([0.1, 1.0], np.float32), condition(levels_of(NOISE), SCENE)
    plan = plan_for(trt, (MODELS / "autofocus" / "model.onnx").read_bytes(), SHAPE)
    alone = [TrtEngine(plan, backend="tensorrt", cuda=cuda, uploads=uploads) for _ in range(2)]
    beside = TrtEngine(plan_for(trt, compares.model(), SHAPE), backend="tensorrt", cuda=cuda, uploads=uploads)
    place = benching.Place(OnnxMaker(admit.on_cpu(Path())), SHAPE, 1, InferenceError)
    before = driver.calls["cuMemcpyHtoDAsync"]
    benching.read_all([(alone[0], focus), (alone[1], focus), (beside, told)], place.shown)
    assert driver.calls["cuMemcpyHtoDAsync"] - before == 2


def test_torch_is_given_as_many_channels_as_the_network_takes() -> None:
    picture = NOISE[:64, :64].copy()
    assert yardstick.tensor_of("depth", picture).shape == (1, 1, 64, 64)
    for shown in (picture, np.stack([picture, picture])):
        reads = yardstick.torch_readers("defects", shown, cuda=False)
        assert len(list(reads["contiguous"]())) == 4
