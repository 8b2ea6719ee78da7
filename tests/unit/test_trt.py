"""A plan in service on a stand-in device: the right picture, the right numbers, one upload, nothing left behind."""

import gc
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.cuda import Cuda
from engines.errors import BackendMissingError, CudaError, DeviceLostError, InferenceError, PlanError
from engines.load import MODELS
from engines.onnx import OnnxEngine
from engines.trt import TrtEngine, Uploads
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import fake_tensorrt, plan_for

SHAPE = (128, 160)
CONDITION = np.array([0.1, 1.0], np.float32)
MODEL = (MODELS / "autofocus" / "model.onnx").read_bytes()


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with fake_tensorrt(monkeypatch) as package:
        yield package


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


def plan(trt: Any, **changes: str) -> bytes:
    return plan_for(trt, MODEL, SHAPE, **changes)


@pytest.fixture
def engine(trt: Any, driver: FakeDriver) -> TrtEngine:
    cuda = Cuda(driver)
    return TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))


def pictures(count: int, shape: tuple[int, int] = SHAPE) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(7)
    return [random.integers(0, 256, shape, np.uint8) for _ in range(count)]


def test_each_picture_is_read_as_onnx_runtime_reads_it(engine: TrtEngine) -> None:
    reference = OnnxEngine(MODEL, threads=1)
    assert (engine.inputs, set(engine.outputs), engine.shape) == (reference.inputs, set(reference.outputs), SHAPE)
    for image in pictures(3):
        said = {name: value.copy() for name, value in reference.run(image, CONDITION).items()}
        heard = engine.run(image, CONDITION)
        for name, value in said.items():
            np.testing.assert_allclose(heard[name], value, rtol=1e-4, atol=1e-4)


def test_a_frame_is_one_upload_and_one_launch_and_allocates_nothing(engine: TrtEngine, driver: FakeDriver) -> None:
    image = pictures(1)[0]
    engine.run(image, CONDITION)
    held, before = driver.bytes_held, driver.calls.copy()
    addresses = {name: value.ctypes.data for name, value in engine.run(image, CONDITION).items()}
    spent = driver.calls - before
    assert (spent["cuMemcpyHtoDAsync"], spent["cuGraphLaunch"]) == (1, 1)
    assert not spent["cuMemAlloc"] + spent["cuMemHostAlloc"] + spent["cuStreamCreate"] + spent["cuEventCreate"]
    assert {name: value.ctypes.data for name, value in engine.run(image, CONDITION).items()} == addresses
    assert driver.bytes_held == held


def test_memory_stays_flat_over_many_frames(engine: TrtEngine) -> None:
    image = pictures(1)[0]
    engine.run(image, CONDITION)
    frames = 200
    tracemalloc.start()
    for _ in range(10):
        engine.run(image, CONDITION)
    settled, _ = tracemalloc.get_traced_memory()
    for _ in range(frames):
        engine.run(image, CONDITION)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown - settled < 100 * frames  # a buffer of the smallest output would be more


def test_models_that_share_their_uploads_send_a_picture_once(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads, whole = Uploads(cuda), plan(trt)
    three = [TrtEngine(whole, backend="tensorrt", cuda=cuda, uploads=uploads) for _ in range(3)]
    first, second = pictures(2)
    before = driver.calls["cuMemcpyHtoDAsync"]
    uploads.share(first)
    answers = [engine.run(first, CONDITION)["score"].copy() for engine in three]
    assert driver.calls["cuMemcpyHtoDAsync"] == before + 1
    assert len({answer.tobytes() for answer in answers}) == 1
    three[0].run(second, CONDITION)  # a tile of the same shape takes the place of the shared picture
    assert three[1].run(first, CONDITION)["score"].tobytes() == answers[0].tobytes()
    assert driver.calls["cuMemcpyHtoDAsync"] == before + 3


def test_three_models_started_together_each_answer_for_their_own_picture(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads, whole = Uploads(cuda), plan(trt)
    a, b = (TrtEngine(whole, backend="tensorrt", cuda=cuda, uploads=uploads) for _ in range(2))
    first, second = pictures(2)
    alone = [a.run(image, CONDITION)["log_blur"].copy() for image in (first, second)]
    a.start(a.upload(first), CONDITION)
    b.start(b.upload(second), CONDITION)  # the upload has to wait until `a` has read its picture
    together = [engine.finish()["log_blur"].copy() for engine in (a, b)]
    np.testing.assert_array_equal(together, alone)
    assert alone[0] != alone[1]


def test_another_thread_may_take_the_engine_over(engine: TrtEngine) -> None:
    image, heard = pictures(1)[0], []
    expected = engine.run(image, CONDITION)["score"].copy()
    thread = threading.Thread(target=lambda: heard.append(engine.run(image, CONDITION)["score"].copy()))
    thread.start()
    thread.join(timeout=20.0)
    assert heard == [expected]


def test_an_engine_that_cannot_be_captured_is_queued_each_time_and_says_why(
    trt: Any, driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    trt.faults.refuse_capture = True
    cuda = Cuda(driver)
    engine = TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    image = pictures(1)[0]
    assert not engine.captured
    assert "no CUDA graph" in caplog.text and "tensorrt failed on a (128, 160) frame" in caplog.text
    expected = OnnxEngine(MODEL, threads=1).run(image, CONDITION)["log_blur"]
    assert engine.run(image, CONDITION)["log_blur"] == pytest.approx(expected, abs=1e-4)
    assert not driver.calls["cuGraphLaunch"]


def test_engines_swapped_200_times_leave_nothing_on_the_device(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads, whole, image = Uploads(cuda), plan_for(trt, MODEL, (128, 128)), pictures(1, (128, 128))[0]
    kept = TrtEngine(whole, backend="tensorrt", cuda=cuda, uploads=uploads)
    held, objects = driver.bytes_held, driver.objects
    for turn in range(200):
        if turn % 2:
            with pytest.raises(PlanError):
                TrtEngine(whole[:-turn], backend="tensorrt", cuda=cuda, uploads=uploads)
        elif turn % 20 == 0:  # a session of ONNX Runtime each time would make this a slow test
            TrtEngine(whole, backend="tensorrt", cuda=cuda, uploads=uploads).run(image, CONDITION)
    gc.collect()
    assert (driver.bytes_held, driver.objects) == (held, objects)
    kept.run(image, CONDITION)


def test_outputs_that_are_still_looked_at_are_not_freed_with_their_engine(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    engine = TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    score = engine.run(pictures(1)[0], CONDITION)["score"][:1]
    del engine
    gc.collect()
    assert score.ctypes.data in driver.memory


# --- what goes wrong ---


@pytest.mark.parametrize("call", ["cuGraphLaunch", "cuEventSynchronize", "cuMemcpyHtoDAsync", "cuCtxSetCurrent"])
def test_a_device_that_vanishes_is_told_apart_from_a_frame_that_failed(
    engine: TrtEngine, driver: FakeDriver, call: str
) -> None:
    image = pictures(1)[0]
    driver.fail[call] = 700
    with pytest.raises(DeviceLostError, match=rf"{call}.*illegal memory access.*start anew"):
        engine.run(image, CONDITION)
    driver.fail = {call: 2}
    with pytest.raises(InferenceError, match=r"out of memory.*close what else uses the GPU") as caught:
        engine.run(image, CONDITION)
    assert not isinstance(caught.value, DeviceLostError)
    driver.fail = {}
    engine.run(image, CONDITION)


def test_numbers_that_are_not_finite_are_an_error(engine: TrtEngine, trt: Any) -> None:
    trt.faults.nan = True
    with pytest.raises(InferenceError, match="not finite"):
        engine.run(pictures(1)[0], CONDITION)
    trt.faults.nan = False
    assert np.isfinite(engine.run(pictures(1)[0], CONDITION)["score"]).all()


def test_a_run_that_tensorrt_refuses_is_an_error(trt: Any, driver: FakeDriver) -> None:
    trt.faults.refuse_capture = True
    cuda = Cuda(driver)
    engine = TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))
    trt.faults.refuse_run = True
    with pytest.raises(InferenceError, match="tensorrt failed on a"):
        engine.run(pictures(1)[0], CONDITION)


def test_a_device_without_room_for_an_engine_says_so(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads = Uploads(cuda)
    driver.fail["cuMemAlloc"] = 2
    with pytest.raises(CudaError, match="out of memory"):
        TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=uploads)
    driver.fail = {}
    trt.faults.no_context = True
    with pytest.raises(PlanError, match="no execution context"):
        TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=uploads)


def test_a_plan_of_another_version_is_refused_with_both_versions(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    with pytest.raises(PlanError, match=r"made by 10\.1\.0, this is 10\.99\.0"):
        TrtEngine(plan(trt, version="10.1.0"), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))


def test_a_run_time_that_does_not_start_is_one_sentence(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    trt.faults.null_runtime = True
    with pytest.raises(PlanError, match="tensorrt: the run-time does not start: CUDA initialization failure"):
        TrtEngine(plan(trt), backend="tensorrt", cuda=cuda, uploads=Uploads(cuda))


def test_what_the_run_time_compiles_is_told_once_and_spared_at_the_next_start(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads, whole = Uploads(cuda), plan(trt)

    def started(kernels: bytes | None) -> bytes | None:
        return TrtEngine(whole, backend="tensorrt", cuda=cuda, uploads=uploads, kernels=kernels).compiled()

    assert started(None) is None  # tensorrt has nothing to compile at a start
    trt.compiler.on = True
    kept = started(None)
    assert kept is not None and trt.compiler.times == 1
    assert started(kept) is None and trt.compiler.times == 1
    assert started(kept[:-1]) == kept and trt.compiler.times == 2  # refused: compiled anew


@pytest.mark.soak
def test_a_hundred_truncated_plans_are_never_loaded(trt: Any, driver: FakeDriver) -> None:
    cuda = Cuda(driver)
    uploads, whole = Uploads(cuda), plan(trt)
    for offset in np.random.default_rng(3).integers(0, len(whole), 100):
        with pytest.raises(PlanError, match="the plan is refused"):
            TrtEngine(whole[:offset], backend="tensorrt", cuda=cuda, uploads=uploads)


def test_another_shape_or_condition_is_an_error_and_not_a_crash(engine: TrtEngine) -> None:
    with pytest.raises(InferenceError, match=r"\(64, 64\).*\(128, 160\)"):
        engine.run(np.zeros((64, 64), np.uint8), CONDITION)
    with pytest.raises(InferenceError, match=r"condition has shape \(8,\)"):
        engine.run(pictures(1)[0], np.zeros(8, np.float32))


def test_no_bindings_and_no_driver_are_one_sentence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(BackendMissingError, match="cuda-python is not installed"):
        Cuda()

    class Raising:
        def cuInit(self, flags: int) -> None:
            raise RuntimeError("Ensure the NVIDIA display driver is installed.")

    with pytest.raises(CudaError, match="NVIDIA display driver"):
        Cuda(Raising())


def test_the_real_bindings_have_every_call_that_is_made(driver: FakeDriver) -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    calls = [name for name in vars(FakeDriver) if name.startswith("cu")]
    assert len(calls) > 20
    assert [name for name in calls if not hasattr(real, name)] == []
    assert real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL == 1
