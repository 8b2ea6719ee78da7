"""`beamside engines`: rows of what was built and judged, one document on stdout, exit codes by cause."""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.commands import benching, building, yardstick
from agent.commands import makers as making
from agent.commands.engines import Bars, app
from agent.commands.makers import Job, OnnxMaker, Opened
from agent.errors import BeamsideError, ConfigurationError
from calibration import golden, quantise
from engines import admit, load, manifest
from engines.cuda import Cuda, Device
from engines.errors import InferenceError, PackageError
from engines.manifest import Manifest
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import FAKES, fake_tensorrt

DEVICE = Device(name="NVIDIA H200", compute_capability="9.0", sm_count=132, driver="580.65 cuda 13000")
COLUMNS = {"model", "precision", "shape", "backend", "ok", "parity", "path", "bytes", "took_s", "error"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: autofocus with golden set and both twins; a half one stands for INT8, for it passes for sure."""
    import msgspec

    folder = tmp_path_factory.mktemp("whole")
    package = folder / "autofocus"
    shutil.copytree(load.MODELS / "autofocus", package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "CROPS", 4)  # each command below asks all of them again
        golden.write(package, seed=3)
    described, model = manifest.read(package)
    twins = dict.fromkeys(("fp16", "int8"), quantise.half(model))
    for precision, twin in twins.items():
        (package / manifest.twin_file(precision)).write_bytes(twin)
    named = {precision: manifest.digest(twin) for precision, twin in twins.items()}
    manifest.write(package, msgspec.structs.replace(described, variants=named))
    return folder


@pytest.fixture
def models(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder in service, with an empty state folder and one small shape."""
    folder = tmp_path / "models"
    shutil.copytree(whole, folder)
    monkeypatch.setenv("BEAMSIDE_ENGINES__MODELS", str(folder))
    monkeypatch.setenv("BEAMSIDE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("BEAMSIDE_ENGINES__SHAPES", "[[192, 256]]")
    return folder


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def rows_of(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
    answer = asked(*arguments, "--json")
    assert answer.exit_code == code, answer.output
    document = json.loads(answer.stdout)
    return list(document["rows"] if isinstance(document, dict) else document)


def test_build_on_the_cpu_judges_float32_and_int8_and_offers_no_fp16(models: Path) -> None:
    rows = rows_of("build", "--backend", "onnxruntime")
    assert [(row["model"], row["precision"], row["parity"]) for row in rows] == [
        ("autofocus", "fp32", True),
        ("autofocus", "int8", True),
    ]
    for row in rows:
        assert set(row) == COLUMNS
        assert row["ok"] and row["error"] is None and row["shape"] is None and row["took_s"] > 0.0
        assert Path(row["path"]).stat().st_size == row["bytes"]


def test_verify_tells_the_figures_of_the_task(models: Path) -> None:
    for row in rows_of("verify", "--backend", "onnxruntime"):
        report = row["parity"]
        assert report["task"] == "autofocus" and report["passed"] and report["failures"] == []
        score = next(figure for figure in report["figures"] if figure["output"] == "score")
        assert 0.0 <= score["value"] <= score["limit"] == 0.05
        assert len(report["shapes"]) > 1  # not only the golden set's own


def test_list_tells_what_the_gate_said_last(models: Path) -> None:
    assert {row["parity"] for row in rows_of("list", "--backend", "onnxruntime")} == {None}
    rows_of("build", "--backend", "onnxruntime")
    assert {row["parity"] for row in rows_of("list", "--backend", "onnxruntime")} == {True}


def test_an_int8_twin_serves_only_after_it_passed_on_this_machine(models: Path, tmp_path: Path) -> None:
    package, here = models / "autofocus", admit.on_cpu(tmp_path / "state" / "engines")
    described, model = manifest.read(package)
    before = admit.admitted(package, described, model, here)
    assert before.precision == "fp32" and "beamside engines build" in before.why
    rows_of("build", "--backend", "onnxruntime")
    after = admit.admitted(package, described, model, here)
    assert after.precision == "int8" and manifest.digest(after.model) == described.twins["int8"]
    elsewhere = admit.Here(here.backend, "another processor", here.folder)
    assert admit.admitted(package, described, model, elsewhere).precision == "fp32"


def test_a_refused_twin_does_not_serve_and_build_exits_with_1(models: Path, tmp_path: Path) -> None:
    wrong(models / "autofocus", "int8")
    rows = rows_of("build", "--backend", "onnxruntime", code=1)
    refused = next(row for row in rows if row["precision"] == "int8")
    assert refused["ok"] and refused["parity"] is False
    assert "output score: largest difference" in refused["error"] and "the limit is 0.05" in refused["error"]
    described, model = manifest.read(models / "autofocus")
    served = admit.admitted(models / "autofocus", described, model, admit.on_cpu(tmp_path / "state" / "engines"))
    assert served.precision == "fp32" and "did not pass" in served.why


def wrong(package: Path, precision: str) -> None:
    """Put a twin in place that computes something else, properly named and sealed."""
    import msgspec
    import onnx

    described, model = manifest.read(package)
    graph = onnx.load_from_string(model)
    weight = next(each for each in graph.graph.initializer if each.name == "head.4.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(0.5), weight.name))
    twin = graph.SerializeToString()
    (package / manifest.twin_file(precision)).write_bytes(twin)
    named = described.twins | {precision: manifest.digest(twin)}
    manifest.write(package, msgspec.structs.replace(described, variants=named))


def test_without_a_golden_set_nothing_passes_and_the_row_says_what_to_do(models: Path) -> None:
    (models / "autofocus" / "golden.npz").unlink()
    for row in rows_of("build", "--backend", "onnxruntime", code=1):
        assert row["ok"] and row["parity"] is None and "beamside calibrate golden" in row["error"]


def test_a_damaged_verdict_is_no_verdict(models: Path, tmp_path: Path) -> None:
    rows_of("build", "--backend", "onnxruntime")
    kept = list((tmp_path / "state" / "engines").glob("*.verdict"))
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:-5])
    assert {row["parity"] for row in rows_of("list", "--backend", "onnxruntime")} == {None}


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime_cuda", "abacus"])
def test_a_backend_that_is_missing_is_a_configuration_error(models: Path, backend: str) -> None:
    if backend in ("tensorrt", "onnxruntime_cuda") and load.why_not(backend) is None:
        pytest.skip(f"{backend} serves here")
    if backend == "tensorrt" and find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    answer = asked("build", "--backend", backend, "--json")
    assert isinstance(answer.exception, ConfigurationError) and answer.exception.exit_code == 78
    assert backend in str(answer.exception) and answer.stdout == ""


def test_a_changed_model_is_a_configuration_error(models: Path) -> None:
    path = models / "autofocus" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    answer = asked("verify", "--backend", "onnxruntime")
    assert isinstance(answer.exception, BeamsideError) and "sha256" in str(answer.exception)


def test_a_state_folder_that_cannot_be_written_is_told(models: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    row = rows_of("build", "--backend", "onnxruntime", code=1)[0]
    assert row["parity"] is None and "make the folder writable" in row["error"]


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.skipif(load.why_not("tensorrt_rtx") is None, reason="a device answers here: tests/gpu/run asks it")
def test_plans_built_without_a_device_are_there_but_were_not_asked(models: Path) -> None:
    rows = rows_of("build", "--backend", "tensorrt_rtx")
    assert [(row["precision"], row["shape"]) for row in rows] == [("fp32", [192, 256]), ("fp16", [192, 256])]
    for row in rows:
        assert row["ok"] and row["parity"] is None and Path(row["path"]).stat().st_size == row["bytes"]
    again = rows_of("build", "--backend", "tensorrt_rtx")
    assert [row["path"] for row in again] == [row["path"] for row in rows]
    assert max(row["took_s"] for row in again) < min(row["took_s"] for row in rows)  # found, not built
    assert [row["parity"] for row in rows_of("verify", "--backend", "tensorrt_rtx")] == [None, None]
    answer = asked("bench", "--backend", "tensorrt_rtx", "--json")
    assert isinstance(answer.exception, ConfigurationError) and answer.stdout == ""
    assert "tensorrt_rtx was asked for, but" in str(answer.exception) and "driver" in str(answer.exception)
    damage_one(again, models)


def damage_one(rows: list[dict[str, Any]], models: Path) -> None:
    """One changed byte, then a plan cut short: told without a device too, and built again."""
    plan = Path(rows[0]["path"])
    whole = plan.read_bytes()
    for spoiled in (bytes([whole[0] ^ 1]) + whole[1:], whole[:1000]):
        plan.write_bytes(spoiled)
        for command, code in (("verify", 1), ("list", 0)):
            told = rows_of(command, "--backend", "tensorrt_rtx", code=code)
            assert [row["ok"] for row in told] == [False, True]
            assert "damaged: beamside engines build" in told[0]["error"]
    assert "unusable" in asked("list", "--backend", "tensorrt_rtx").stdout
    assert all(row["ok"] for row in rows_of("build", "--backend", "tensorrt_rtx"))
    assert all(row["ok"] for row in rows_of("verify", "--backend", "tensorrt_rtx"))


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_verify_of_what_was_never_built_says_so(models: Path) -> None:
    for row in rows_of("verify", "--backend", "tensorrt_rtx", code=1):
        assert not row["ok"] and "beamside engines build" in row["error"]


def test_bench_rows_have_the_columns_of_the_design(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "CPU_SHAPE", (192, 256))
    rows = rows_of("bench", "--backend", "onnxruntime", "--runs", "2")
    assert [(row["model"], row["precision"]) for row in rows] == [("autofocus", "fp32"), ("autofocus", "int8")]
    for row in rows:
        assert set(row) == {
            *("model", "backend", "precision", "shape", "threads", "p50_s", "p99_s", "ratio_to_torch_eager", "parity")
        }
        assert row["parity"] is None  # the gate was not asked yet
        assert row["threads"] == 1 and row["shape"] == [192, 256] and 0.0 < row["p50_s"] <= row["p99_s"]
        assert row["ratio_to_torch_eager"] > 0.0


def test_without_torch_the_ratio_is_null(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "CPU_SHAPE", (192, 256))
    monkeypatch.setattr(yardstick, "TORCH", "no_such_torch")
    rows = rows_of("bench", "--backend", "onnxruntime", "--runs", "2")
    assert {row["ratio_to_torch_eager"] for row in rows} == {None}


def test_bench_measures_the_rest_where_one_engine_fails(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "CPU_SHAPE", (192, 256))
    monkeypatch.setattr(yardstick, "TORCH", "no_such_torch")
    opened = OnnxMaker.open

    def open_all_but_int8(maker: OnnxMaker, job: Job, threads: int = 1) -> Opened:
        if job.precision == "int8":
            raise InferenceError("out of memory")
        return opened(maker, job, threads)

    monkeypatch.setattr(OnnxMaker, "open", open_all_but_int8)
    answer = asked("bench", "--backend", "onnxruntime", "--runs", "2", "--json")
    document = json.loads(answer.stdout)
    assert answer.exit_code == 1 and [row["precision"] for row in document["rows"]] == ["fp32"]
    (failed,) = document["failed"]
    assert failed == {"what": "autofocus int8 on onnxruntime at 192x256", "why": "out of memory"}
    assert "out of memory" in answer.stderr


# --- a builder that is there and broken, slow or hanging ---


@pytest.mark.parametrize(
    "raised", ['ImportError("libnvinfer.so.10: cannot open")', 'RuntimeError("no driver here")', ""]
)
def test_a_builder_that_cannot_be_imported_is_absent_unless_it_was_asked_for(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str
) -> None:
    if find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    broken = tmp_path / "site" / "tensorrt"
    broken.mkdir(parents=True)
    if raised:
        (broken / "__init__.py").write_text(f"raise {raised}\n")
    monkeypatch.syspath_prepend(str(broken.parent))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    words = raised.split('"')[1] if raised else "an empty package"
    answer = asked("list")
    assert answer.exit_code == 0 and "autofocus" in answer.stdout
    assert "tensorrt: tensorrt " in answer.stderr and words in answer.stderr
    named = asked("list", "--backend", "tensorrt")
    assert isinstance(named.exception, ConfigurationError) and words in str(named.exception)
    sys.modules.pop("tensorrt", None)


@pytest.fixture
def fake_builder(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The fake tensorrt in this process and in its children; no device."""
    monkeypatch.setattr(load, "device", lambda: "there is no NVIDIA driver")
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    with fake_tensorrt(monkeypatch):
        yield monkeypatch


def test_a_build_is_given_its_time_and_tells_how_far_it_is(fake_builder: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float, str]] = []
    fake_builder.setattr(Bars, "under_way", lambda self, *told: heard.append(told))
    assert [row["ok"] for row in rows_of("build", "--backend", "tensorrt")] == [True, True]
    assert ("autofocus fp32 192x256", 0.5, "Building engine") in heard
    fake_builder.setenv("FAKE_TENSORRT", "hang")
    fake_builder.setenv("BEAMSIDE_ENGINES__SHAPES", "[[160, 192]]")
    for row in rows_of("build", "--backend", "tensorrt", "--timeout", "1", code=1):
        assert not row["ok"] and "not built within 1 s and stopped; allow more with --timeout" in row["error"]


@pytest.fixture
def fake_gpu(fake_builder: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """That builder, and a device that answers."""
    driver = Cuda(FakeDriver())
    fake_builder.setattr(load, "device", lambda: DEVICE)
    fake_builder.setattr(load, "why_not", lambda name: None if name in ("tensorrt", "onnxruntime") else "not here")
    fake_builder.setattr(making, "Cuda", lambda: driver)
    fake_builder.setattr(yardstick, "TORCH", "no_such_torch")
    return fake_builder


def test_with_a_device_plans_are_judged_kernels_kept_and_bench_says_what_may_serve(
    fake_gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trt = sys.modules["tensorrt"]
    trt.compiler.on = True
    rows = rows_of("build", "--backend", "tensorrt")
    assert [(row["precision"], row["parity"]) for row in rows] == [("fp32", True), ("fp16", True)]
    assert len(list((tmp_path / "state" / "engines").glob("*.kernels"))) == 2
    compiled = trt.compiler.times
    for refused in (False, True):
        trt.faults.refuse_capture = refused
        rows = rows_of("bench", "--backend", "tensorrt", "--runs", "2")
        assert [(row["parity"], row["graph"]) for row in rows] == [(True, not refused)] * 2
    assert trt.compiler.times == compiled == 2
    fake_gpu.setenv("BEAMSIDE_ENGINES__SHAPES", "[[160, 192]]")
    answer = asked("bench", "--backend", "tensorrt", "--runs", "2", "--json")
    assert answer.exit_code == 1 and "beamside engines build" in json.loads(answer.stdout)["failed"][0]["why"]


def test_a_folder_that_others_can_write_is_refused_by_every_command(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "engines"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    answer = asked("build", "--backend", "onnxruntime")
    assert isinstance(answer.exception, ConfigurationError) and "others can write here" in str(answer.exception)


def test_tables_for_people_name_what_is_absent(models: Path) -> None:
    answer = asked("list")
    assert answer.exit_code == 0 and "autofocus" in answer.stdout and "not asked" in answer.stdout
    for name, why in building.absent().items():
        assert f"{name}: {why}" in answer.stderr


def test_a_folder_without_packages_is_told(tmp_path: Path) -> None:
    workshop = building.Workshop(tmp_path, (), (OnnxMaker(admit.on_cpu(tmp_path)),), named=True)
    with pytest.raises(PackageError, match="no model package"):
        list(workshop.build())


def test_a_manifest_without_twins_keeps_its_old_seal(tmp_path: Path) -> None:
    shutil.copytree(load.MODELS / "autofocus", tmp_path / "autofocus")
    described: Manifest = manifest.read(tmp_path / "autofocus")[0]
    manifest.write(tmp_path / "autofocus", described)
    assert manifest.read(tmp_path / "autofocus")[0] == described
