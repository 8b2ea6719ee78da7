"""Which backend serves, and why: only where a device answers, only engines of this very model that passed the gate."""

import ctypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from engines import admit, built, cuda, durable, load, manifest
from engines.built import Built, lacks
from engines.cache import Builder, Cache, facts
from engines.cuda import Cuda, Device
from engines.errors import BackendMissingError, PackageError
from engines.onnx import OnnxEngine
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import fake_tensorrt, plan_for

SHAPES = ((128, 160), (160, 128))
DEVICE = Device(name="NVIDIA H200", compute_capability="9.0", sm_count=132, driver="580.65 cuda 13000")
CONDITION = np.array([0.1, 1.0], np.float32)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A machine with the fake tensorrt and a device."""
    monkeypatch.setattr(load, "device", lambda: DEVICE)
    monkeypatch.setattr(load, "_has", lambda name: name in ("tensorrt", "cuda"))
    with fake_tensorrt(monkeypatch) as package:
        yield package


@pytest.fixture
def models(tmp_path: Path) -> Path:
    shutil.copytree(load.MODELS / "autofocus", tmp_path / "models" / "autofocus")
    return tmp_path / "models"


class Machine:
    """Models, a cache and a device."""

    def __init__(self, trt: Any, models: Path, folder: Path) -> None:
        self.trt, self.models, self.driver = trt, models, FakeDriver()
        self.cache = Cache(folder)
        self.built = Built(self.cache, shapes=SHAPES, open_device=lambda: Cuda(self.driver))

    def keep(
        self,
        shape: tuple[int, int],
        *,
        passed: bool | None,
        device: Device = DEVICE,
        recipe: str = "fp32",
        model: bytes | None = None,
    ) -> str:
        """As `engines build` and `engines verify` would."""
        known, full = manifest.read(self.models / "autofocus")
        model = model or full
        builder = Builder(module="tensorrt", version=self.trt.__version__)
        entry = facts(known.name, model, builder=builder, device=device, variant=(recipe, shape))
        self.cache.put(plan_for(self.trt, model, shape), entry)
        if passed is not None:
            self.cache.keep_report(entry.key, b"{}", passed=passed)
        return entry.key

    def load(self, backend: str = "auto") -> load.Loaded:
        return load.load("autofocus", models=self.models, backend=backend, threads=1, built=self.built)


@pytest.fixture
def machine(trt: Any, models: Path, tmp_path: Path) -> Machine:
    return Machine(trt, models, tmp_path / "engines")


def test_an_engine_that_passed_serves_and_the_reason_says_which(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    loaded = machine.load()
    assert loaded.engine.backend == "tensorrt"
    assert loaded.reason.startswith("tensorrt: 128x160 fp32; not 160x128: not built for this model and machine")
    assert "\n" not in loaded.reason
    assert machine.load("tensorrt").reason.endswith("asked for by name")


def test_a_shape_without_an_engine_runs_on_onnx_runtime_and_is_known_to(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    engine, reference = machine.load().engine, load.load("autofocus", backend="onnxruntime", threads=1).engine
    launches = machine.driver.calls["cuGraphLaunch"]
    for shape, here in ((SHAPES[0], 1), (SHAPES[1], 1), ((128, 128), 1)):
        image = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
        score = engine.run(image, CONDITION)["score"].copy()
        assert score == pytest.approx(reference.run(image, CONDITION)["score"], abs=1e-3)
        assert lacks(engine, shape) is (shape != SHAPES[0])
        assert machine.driver.calls["cuGraphLaunch"] - launches == here
    assert not lacks(reference, SHAPES[1])


def test_models_loaded_with_one_built_share_each_upload(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    engines = [machine.load().engine for _ in range(3)]
    image = np.random.default_rng(2).integers(0, 256, SHAPES[0], np.uint8)
    before = machine.driver.calls["cuMemcpyHtoDAsync"]
    machine.built.share(image)
    assert len({engine.run(image, CONDITION)["log_blur"].tobytes() for engine in engines}) == 1
    assert machine.driver.calls["cuMemcpyHtoDAsync"] == before + 1


def test_nothing_is_shared_where_no_engine_serves(machine: Machine) -> None:
    machine.built.share(np.zeros(SHAPES[0], np.uint8))
    assert not machine.driver.calls


NOT_SERVED = {
    "never built": ({}, "not built for this model and machine: beamside engines build"),
    "never compared": ({"passed": None}, "never compared with the float32 model: beamside engines verify"),
    "refused by the gate": ({"passed": False}, "fp32 failed the parity gate"),
    "of another device": (
        {"passed": True, "device": msgspec.structs.replace(DEVICE, sm_count=66)},
        "not built for this model and machine",
    ),
}


@pytest.mark.parametrize("what", NOT_SERVED)
def test_an_engine_that_may_not_serve_is_passed_over_with_its_reason(machine: Machine, what: str) -> None:
    kept, words = NOT_SERVED[what]
    if kept:
        machine.keep(SHAPES[0], **kept)  # type: ignore[arg-type]
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and words in loaded.reason
    with pytest.raises(BackendMissingError, match=f"tensorrt was asked for, but autofocus@.*{words}"):
        machine.load("tensorrt")


def test_one_changed_byte_of_the_model_and_the_old_engine_no_longer_serves(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    assert machine.load().engine.backend == "tensorrt"
    package = machine.models / "autofocus"
    known, model = manifest.read(package)
    changed = bytearray(model)
    place = model.index(b"\x3f", len(model) // 2)  # within the weights
    changed[place] ^= 1
    (package / "model.onnx").write_bytes(changed)
    with pytest.raises(PackageError, match="sha256"):
        machine.load()
    manifest.write(package, msgspec.structs.replace(known, sha256=manifest.digest(bytes(changed))))
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "not built for this model" in loaded.reason


def test_a_damaged_plan_is_removed_and_the_next_backend_serves(machine: Machine) -> None:
    key = machine.keep(SHAPES[0], passed=True)
    entry = machine.cache.entry(key)
    assert entry is not None
    data = bytearray(entry.path.read_bytes())
    data[999] ^= 1
    entry.path.write_bytes(data)
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "damaged and is removed" in loaded.reason
    assert machine.cache.entry(key) is None


def test_a_plan_that_the_runtime_refuses_does_not_stop_the_agent(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    machine.trt.faults.no_context = True
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "no execution context" in loaded.reason


@pytest.mark.parametrize(("call", "code"), [("cuInit", 999), ("cuMemAlloc", 2), ("cuMemcpyHtoDAsync", 700)])
def test_a_device_that_fails_at_the_start_is_passed_over(machine: Machine, call: str, code: int) -> None:
    machine.keep(SHAPES[0], passed=True)
    machine.driver.fail[call] = code
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and call in loaded.reason
    with pytest.raises(BackendMissingError, match=call):
        machine.load("tensorrt")


def test_without_a_folder_of_engines_the_reason_says_so(machine: Machine) -> None:
    loaded = load.load("autofocus", models=machine.models, threads=1)
    assert loaded.engine.backend == "onnxruntime" and "no folder of built engines was named" in loaded.reason


def test_onnx_runtime_serves_an_eight_bit_twin_only_where_the_gate_passed_it(machine: Machine) -> None:
    package = machine.models / "autofocus"
    known, model = manifest.read(package)
    twin_bytes = renamed(model)  # any model will do: the gate's word is what counts
    (package / "model.int8.onnx").write_bytes(twin_bytes)
    manifest.write(package, msgspec.structs.replace(known, variants={"int8": manifest.digest(twin_bytes)}))
    twin, _ = manifest.read(package)
    here = admit.on_cpu(machine.cache.folder)
    told = []
    for verdict in (None, False, True):
        if verdict is not None:
            admit.keep_verdict(here, twin, "int8", report=b"{}", passed=verdict)
        loaded = machine.load("onnxruntime")
        told.append((loaded.engine.precision, loaded.reason))  # type: ignore[attr-defined]
    assert [precision for precision, _ in told] == ["fp32", "fp32", "int8"]
    assert ["not yet checked" in told[0][1], "did not pass" in told[1][1], "int8, passed" in told[2][1]] == [True] * 3


def test_onnx_runtime_on_a_gpu_serves_only_what_the_gate_passed_there(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnCuda:
        """An engine of the same signature; the provider itself needs a GPU."""

        def __init__(self, model: bytes, *, threads: int = 2, cuda: bool = False, precision: str = "fp32") -> None:
            self.real, self.read = OnnxEngine(model, threads=threads), []
            self.inputs, self.outputs, self.declared = self.real.inputs, self.real.outputs, self.real.declared
            self.backend, self.precision = "onnxruntime_cuda" if cuda else "onnxruntime", precision

        def run(self, image: Any, condition: Any) -> Any:
            self.read.append(image.shape)
            return self.real.run(image, condition)

    monkeypatch.setattr(load, "why_not", lambda name: None if name.startswith("onnxruntime") else "not here")
    monkeypatch.setattr(load, "OnnxEngine", OnCuda)
    known, _ = manifest.read(machine.models / "autofocus")
    here = admit.on_cuda(machine.cache.folder, f"{DEVICE.name} {DEVICE.driver}")
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "never compared" in loaded.reason
    with pytest.raises(BackendMissingError, match="never compared"):
        machine.load("onnxruntime_cuda")
    for passed, backend in ((False, "onnxruntime"), (True, "onnxruntime_cuda")):
        admit.keep_verdict(here, known, "fp32", report=b"{}", passed=passed)
        engine = machine.load().engine
        assert engine.backend == backend
    # Kernels are chosen and memory is taken before the first frame of each shape.
    assert set(SHAPES) <= set(engine.read)  # type: ignore[attr-defined]


def renamed(model: bytes) -> bytes:
    """The same network in other bytes."""
    graph = onnx.load_from_string(model)
    graph.doc_string = "another file"
    return bytes(graph.SerializeToString())


# --- what the gate refused, and where nothing is believed ---


def test_float32_that_the_gate_refused_on_this_processor_does_not_serve(machine: Machine) -> None:
    known, _ = manifest.read(machine.models / "autofocus")
    here = admit.on_cpu(machine.cache.folder)
    admit.keep_verdict(here, known, "fp32", report=b"{}", passed=False)
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(BackendMissingError, match=r"fp32 failed the parity gate on this processor.*engines verify"):
            machine.load(backend)
    admit.keep_verdict(here, known, "fp32", report=b"{}", passed=True)
    assert machine.load().engine.backend == "onnxruntime"


def test_a_folder_that_others_can_write_is_passed_over_and_the_reason_says_so(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    machine.cache.folder.chmod(0o777)
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "a plan is code" in loaded.reason
    with pytest.raises(BackendMissingError, match="others can write here"):
        machine.load("tensorrt")


def test_without_a_gpu_such_a_folder_stops_nobody(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "why_not", lambda name: None if name == "onnxruntime" else "not here")
    known, _ = manifest.read(machine.models / "autofocus")
    admit.keep_verdict(admit.on_cpu(machine.cache.folder), known, "fp32", report=b"{}", passed=False)
    machine.cache.folder.chmod(0o775)
    loaded = machine.load()  # the verdict may be anybody's word
    assert loaded.engine.backend == "onnxruntime" and "no verdict is believed" in loaded.reason


def test_verdicts_leave_no_debris(machine: Machine) -> None:
    known, _ = manifest.read(machine.models / "autofocus")
    machine.cache.folder.mkdir()
    for name in ("onnxruntime-0.verdict.4711", "onnxruntime-0.verdict.partial"):  # of writers that were killed
        (machine.cache.folder / name).write_bytes(b"{")
    kept = admit.keep_verdict(admit.on_cpu(machine.cache.folder), known, "fp32", report=b"{}", passed=True)
    assert {path.name for path in machine.cache.folder.iterdir()} == {kept.name, durable.LOCK}


# --- packages that are sealed and yet cannot be read ---


def sealed(machine: Machine, spoil: Callable[[Any], None]) -> None:
    """A graph that was changed, and a manifest that vouches for it."""
    package = machine.models / "autofocus"
    known, model = manifest.read(package)
    graph = onnx.load_from_string(model)
    spoil(graph.graph)
    data = graph.SerializeToString()
    (package / "model.onnx").write_bytes(data)
    manifest.write(package, msgspec.structs.replace(known, sha256=manifest.digest(data)))


def fix_the_size(graph: Any) -> None:
    for dim in graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
        dim.dim_value = 512


def take_sixteen_bits(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16


def shorten_the_condition(graph: Any) -> None:
    graph.input[1].type.tensor_type.shape.dim[1].dim_value = 3


def lose_a_number(graph: Any) -> None:
    weight = next(each for each in graph.initializer if each.name == "head.4.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))


def answer_twice(graph: Any) -> None:
    """The score as (2,), where the manifest says (1,)."""
    name = graph.output[0].name
    for node in graph.node:
        for place, output in enumerate(node.output):
            if output == name:
                node.output[place] = "once"
    graph.node.append(onnx.helper.make_node("Concat", ["once", "once"], [name], axis=0))
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


SEALED: dict[str, tuple[Callable[[Any], None], str]] = {
    "one fixed size": (fix_the_size, r"image is uint8 \(1, 1, free, free\), the graph has uint8 \(1, 1, 512, 512\)"),
    "sixteen bits": (take_sixteen_bits, r"image is uint8 .*, the graph has uint16"),
    "another condition": (shorten_the_condition, r"condition is float32 \(1, 2\), the graph has float32 \(1, 3\)"),
    "weights that are no numbers": (lose_a_number, r"cannot read a picture: output .* is not finite"),
    "another answer": (answer_twice, r"score is float32 \(1\), the graph answers with float32 \(2,\)"),
}


@pytest.mark.parametrize("what", SEALED)
def test_a_sealed_package_that_cannot_be_read_never_comes_into_service(machine: Machine, what: str) -> None:
    spoil, words = SEALED[what]
    sealed(machine, spoil)
    for backend in ("auto", "onnxruntime"):
        with pytest.raises(PackageError, match=f"models/autofocus: .*{words}"):
            machine.load(backend)


def test_an_engine_that_answers_without_numbers_is_passed_over_at_the_start(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    machine.trt.faults.nan = True
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "cannot read a picture" in loaded.reason
    with pytest.raises(BackendMissingError, match=r"tensorrt was asked for, but .*not finite"):
        machine.load("tensorrt")


def test_a_run_time_whose_factory_fails_is_passed_over(machine: Machine) -> None:
    machine.keep(SHAPES[0], passed=True)
    machine.trt.faults.null_runtime = True
    loaded = machine.load()
    assert loaded.engine.backend == "onnxruntime" and "the run-time does not start" in loaded.reason


def test_a_damaged_fast_engine_leaves_the_whole_slow_one_in_service(machine: Machine) -> None:
    package = machine.models / "autofocus"
    known, model = manifest.read(package)
    (package / "model.fp16.onnx").write_bytes(renamed(model))
    manifest.write(package, msgspec.structs.replace(known, variants={"fp16": manifest.digest(renamed(model))}))
    machine.keep(SHAPES[0], passed=True)
    fast = machine.keep(SHAPES[0], passed=True, recipe="fp16", model=renamed(model))
    assert "128x160 fp16" in machine.load().reason
    entry = machine.cache.entry(fast)
    assert entry is not None
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    assert "128x160 fp32" in machine.load().reason


def test_what_a_start_compiles_is_spared_at_the_next_one(machine: Machine) -> None:
    key = machine.keep(SHAPES[0], passed=True)
    machine.trt.compiler.on = True
    for _ in range(2):
        assert machine.load().engine.backend == "tensorrt" and machine.trt.compiler.times == 1
    path = machine.cache.folder / f"{key}.kernels"
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        assert machine.load().engine.backend == "tensorrt" and machine.trt.compiler.times == 2


def test_a_device_that_a_backend_does_not_list_is_a_doubt_and_no_reason(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = type("ComputeCapability", (), {"__members__": {"NONE": 0, "SM89": 89, "SM120": 120}})
    rtx = type("tensorrt_rtx", (), {"__version__": "1.7.1", "ComputeCapability": listed})
    monkeypatch.setattr(load, "module", lambda name: rtx)
    assert load.doubt("tensorrt_rtx") == "tensorrt_rtx 1.7.1 does not list compute capability 9.0"
    assert load.doubt("tensorrt") is None
    monkeypatch.setattr(load, "_has", lambda name: True)
    assert load.why_not("tensorrt_rtx") is None  # it is tried
    assert "does not list compute capability 9.0" in machine.load().reason
    monkeypatch.setattr(load, "device", lambda: msgspec.structs.replace(DEVICE, compute_capability="12.0"))
    assert load.doubt("tensorrt_rtx") is None


# --- the order ---


def test_the_order_of_backends_is_the_documented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "why_not", lambda name: None)
    started: list[str] = []

    def refusing(name: str) -> Any:
        def start(job: Any) -> Any:
            started.append(name)
            if name != "onnxruntime":
                raise built.NotBuiltError("not here")
            return on_cpu(job)

        return start

    on_cpu = load.START["onnxruntime"]
    monkeypatch.setattr(load, "START", {name: refusing(name) for name in load.BACKENDS})
    loaded = load.load("autofocus", threads=1)
    assert started == ["tensorrt", "tensorrt_rtx", "onnxruntime_cuda", "onnxruntime"]
    assert loaded.reason.count("not here") == 3


# --- is there a device ---


class Library:
    """libcuda.so.1 as ctypes sees it: functions that answer an error value."""

    def __init__(self, **answers: int) -> None:
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            code = self.answers.get(name, 0)
            values = {"cuDeviceGetCount": self.answers.get("count", 1), "cuDriverGetVersion": 13000}
            target = getattr(arguments[0], "_obj", arguments[0]) if arguments else None
            if name in values:
                target.value = values[name]
            elif name == "cuDeviceGetAttribute":
                target.value = {16: 132, 75: 9, 76: 0}[arguments[1]]
            elif name == "cuDeviceGetName":
                target.value = b"NVIDIA H200"
            return code

        return call


def test_a_device_is_described_by_what_engines_depend_on() -> None:
    found = cuda.probe(lambda name: Library())
    assert isinstance(found, Device)
    assert (found.name, found.compute_capability, found.sm_count) == ("NVIDIA H200", "9.0", 132)
    assert found.driver.endswith("cuda 13000")


def raising(error: Exception) -> Any:
    def open_library(name: str) -> Any:
        raise error

    return open_library


class RaisingLibrary:
    def cuInit(self, flags: int) -> int:
        raise RuntimeError("driver and library version mismatch")


DRIVERS = {
    "none": (raising(OSError("cannot open shared object file")), "there is no NVIDIA driver"),
    "an error value": (lambda name: Library(cuInit=999), "does not answer: cuInit.*999"),
    "an error value later": (lambda name: Library(cuDeviceGetName=46), "does not answer: cuDeviceGetName.*46"),
    "no device": (lambda name: Library(count=0), "finds no device"),
    "one that raises": (lambda name: RaisingLibrary(), "cannot be asked: driver and library version mismatch"),
    "no driver at all": (lambda name: ctypes.CDLL(None), "cannot be asked: .*cuInit"),
}


@pytest.mark.parametrize("what", DRIVERS)
def test_every_way_to_have_no_device_is_one_reason(what: str) -> None:
    open_library, words = DRIVERS[what]
    reason = cuda.probe(open_library)
    assert isinstance(reason, str) and "\n" not in reason
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)
