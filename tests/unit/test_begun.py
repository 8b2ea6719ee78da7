"""The three models on one frame: all begun before the first is waited for, one upload, nothing allocated for a map."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.errors import EngineError
from agent.messages import Findings, Frame, Lane, Optics, Wanted
from agent.perceive import Perceiver
from agent.pixels import INSPECTED_PX, shape_shown
from engines import manifest
from engines.autofocus import Autofocus
from engines.begun import together
from engines.built import ShapedEngine
from engines.cuda import Cuda
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.errors import InferenceError
from engines.load import MODELS, Loaded
from engines.onnx import OnnxEngine
from engines.outputs import check_finite
from engines.readings import FoundDefect
from engines.scene import Levels, Scene, padded
from engines.trt import TrtEngine, Uploads
from tests.fakes.driver import FakeDriver
from tests.fakes.machine import fake_tensorrt, plan_for
from tests.fakes.models import Reads

SHAPE = (128, 160)
TASKS = ("autofocus", "depth", "defects")
PICTURE = np.random.default_rng(7).integers(20, 230, SHAPE, np.uint8)
OPTICS = Optics(source="electron/SE2", pixel_size_m=2e-9)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with fake_tensorrt(monkeypatch) as package:
        yield package


def processor(task: str) -> OnnxEngine:
    return OnnxEngine((MODELS / task / "model.onnx").read_bytes(), threads=1)


class Machine:
    """The shipped models on the stand-in GPU, and what they do, in its order."""

    def __init__(self, trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = FakeDriver()
        self.cuda, self.done = Cuda(self.driver), list[tuple[str, str]]()
        self.uploads = Uploads(self.cuda)
        self.engines = {task: self._engine(trt, task) for task in TASKS}
        names = {id(engine): task for task, engine in self.engines.items()}
        for step in ("start", "finish"):
            monkeypatch.setattr(TrtEngine, step, self._written_down(step, getattr(TrtEngine, step), names))

    def _engine(self, trt: Any, task: str) -> TrtEngine:
        plan = plan_for(trt, (MODELS / task / "model.onnx").read_bytes(), SHAPE)
        return TrtEngine(plan, backend="tensorrt", cuda=self.cuda, uploads=self.uploads)

    def _written_down(self, step: str, really: Any, names: dict[int, str]) -> Any:
        def does(engine: TrtEngine, *told: Any) -> Any:
            self.done.append((step, names[id(engine)]))
            return really(engine, *told)

        return does

    def loaded(self, task: str) -> Loaded:
        shaped = ShapedEngine({SHAPE: self.engines[task]}, processor(task))
        return Loaded(shaped, manifest.read(MODELS / task)[0], "a stand-in")


@pytest.fixture
def machine(trt: Any, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(trt, monkeypatch)


def perceiver(loaded: dict[str, Loaded], **more: Any) -> Perceiver:
    return Perceiver(
        *(made(loaded[task]) for made, task in zip((Autofocus, Depth, DefectFinder), TASKS, strict=True)), **more
    )


def look(by: Perceiver, number: int = 1, pixels: NDArray[np.uint8] = PICTURE) -> Findings:
    frame = Frame(number=number, pixels=pixels, optics=OPTICS, lane=Lane.INSPECT, received_ns=0)
    return by.look(frame, Wanted(inspection=True))


def test_all_models_are_begun_before_the_first_is_waited_for(machine: Machine) -> None:
    look(perceiver({task: machine.loaded(task) for task in TASKS}))
    assert machine.done == [*(("start", task) for task in TASKS), *(("finish", task) for task in TASKS)]


def test_side_by_side_they_answer_as_one_after_the_other_with_one_upload_of_the_picture(machine: Machine) -> None:
    on_gpu = perceiver({task: machine.loaded(task) for task in TASKS}, share=machine.uploads.share)
    look(on_gpu, 1, PICTURE[::-1].copy())
    sent = machine.driver.calls["cuMemcpyHtoDAsync"]
    seen = look(on_gpu, 2)
    manifests = {task: manifest.read(MODELS / task)[0] for task in TASKS}
    beside = manifests["defects"].channels > 1  # a model that compares has a buffer of its own, for frame and reference
    assert machine.driver.calls["cuMemcpyHtoDAsync"] - sent == 1 + beside  # conditions are part of the graphs
    plain = look(perceiver({task: Loaded(processor(task), manifests[task], "") for task in TASKS}))
    assert seen.score == pytest.approx(plain.score, abs=1e-3) and seen.models == plain.models
    assert seen.depth is not None and plain.depth is not None
    np.testing.assert_allclose(seen.depth.height_m, plain.depth.height_m, atol=1e-12)
    assert seen.defects is not None and plain.defects is not None
    assert [each.name for each in seen.defects] == [each.name for each in plain.defects]


def test_a_picture_of_another_shape_is_read_by_the_other_backend(machine: Machine) -> None:
    by = perceiver({task: machine.loaded(task) for task in TASKS})
    seen = look(by, pixels=np.tile(PICTURE, (2, 1)))
    assert machine.done == [] and seen.models == by.models


def test_what_was_begun_beside_a_failure_does_not_spoil_the_next_frame(machine: Machine, trt: Any) -> None:
    by = perceiver({task: machine.loaded(task) for task in TASKS})
    good = look(by, 1)
    trt.faults.nan = True
    with pytest.raises(EngineError, match=r"autofocus.*not finite"):
        look(by, 2, PICTURE[::-1].copy())
    assert machine.done[-4:] == [*(("start", task) for task in TASKS), ("finish", "autofocus")]
    trt.faults.cure()
    again = look(by, 3)
    assert again.score == pytest.approx(good.score) and again.depth is not None and good.depth is not None
    np.testing.assert_array_equal(again.depth.height_m, good.depth.height_m)
    assert by.failures == 0


def test_together_begins_all_and_answers_in_order() -> None:
    done: list[str] = []

    def start(name: str) -> Any:
        done.append(f"begin {name}")
        return lambda: done.append(f"end {name}") or name

    assert together([lambda: start("a"), lambda: start("b")]) == ["a", "b"]
    assert done == ["begin a", "begin b", "end a", "end b"]


# --- host work ---


class Still:
    """An engine whose answer is there already: what a reading costs beside it is the host's."""

    backend, inputs, outputs = "still", ("image", "condition"), ("height_px", "scale_px")

    def __init__(self, shape: tuple[int, int]) -> None:
        ramp = np.linspace(0.0, 30.0, shape[1], dtype=np.float32)
        self.answer = {name: np.tile(ramp, (1, 1, shape[0], 1)) for name in self.outputs}

    def run(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        check_finite(self.answer)
        return self.answer


class One(Reads):
    """A defect in the middle of the picture."""

    name = "one@1"

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> tuple[FoundDefect, ...]:
        return (FoundDefect("pit", 0.9, (300.0, 200.0, 320.0, 220.0)),)


@pytest.fixture(scope="module")
def depth() -> Depth:
    return Depth(Loaded(Still((768, 1024)), manifest.read(MODELS / "depth")[0], "a stand-in"))


LARGE = np.random.default_rng(3).integers(20, 230, (768, 1024), np.uint8)


def test_a_frame_whose_map_nobody_wants_allocates_a_fraction_of_the_map(depth: Depth) -> None:
    by = Perceiver(None, depth, One(), maps=False)
    look(by, 1, LARGE)
    other = LARGE[::-1].copy()  # the same picture twice is compared pixel by pixel
    tracemalloc.start()
    try:
        seen = look(by, 2, other)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LARGE.size * 4 / 8  # a map of float32 has 3 MiB
    assert seen.depth is None and seen.defects is not None and seen.defects[0].height_m is not None
    assert depth.name in seen.models


def test_a_map_that_is_wanted_is_kept_in_metres_whatever_the_engine_answers_next(depth: Depth) -> None:
    by = Perceiver(None, depth, None, maps=True)
    seen = look(by, 1, LARGE)
    assert seen.depth is not None
    first = seen.depth.height_m.copy()
    depth._engine.answer["height_px"] *= 2.0  # type: ignore[attr-defined]
    try:
        np.testing.assert_array_equal(seen.depth.height_m, first)
        assert first[0, -1] == pytest.approx(30.0 * 2e-9)
    finally:
        depth._engine.answer["height_px"] /= 2.0  # type: ignore[attr-defined]


def test_a_relief_in_metres_is_what_read_answers_and_knows_the_certificates_factor(depth: Depth) -> None:
    scene = Scene(pixel_size_m=2e-9)
    relief, read = depth.begin(LARGE, scene)(), depth.read(LARGE, scene)
    assert relief is not None and read is not None and depth.begin(LARGE, Scene())() is None
    assert np.shares_memory(relief.height_px, depth._engine.answer["height_px"])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(relief.metres().height_m, read.height_m)
    half = relief.within((100, 200), 1.5)
    assert half.height_px.shape == (100, 200) and half.unit_m == pytest.approx(3e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(1, 1, 64, 96), (1, 100, 4), (1,)])
def test_one_number_that_is_none_is_found_wherever_it_stands(shape: tuple[int, ...], bad: float) -> None:
    largest = np.full(shape, np.finfo(np.float32).max, np.float32)
    check_finite({"heights": largest})  # their sum is beyond float32
    for place in (0, largest.size // 2, -1):
        spoilt = largest.copy()
        spoilt.flat[place] = bad
        with pytest.raises(InferenceError, match="heights"):
            check_finite({"heights": spoilt})
    check_finite({"index": np.zeros(3, np.int32), "none": np.zeros((0, 4), np.float32)})


@pytest.mark.parametrize("shape", [(100, 150), (128, 160), (1, 31), (2048, 3072), (2400, 2700), (1000, 7000)])
def test_the_shape_that_models_are_shown_is_known_beforehand(shape: tuple[int, int]) -> None:
    shown: list[tuple[int, ...]] = []
    by = Perceiver(
        None,
        Depth(Loaded(Still((32, 32)), manifest.read(MODELS / "depth")[0], "")),
        lacks=lambda s: bool(shown.append(s)),
    )
    frame = Frame(
        number=1,
        pixels=np.tile(PICTURE, (20, 45))[: shape[0], : shape[1]],
        optics=OPTICS,
        lane=Lane.LIVE,
        received_ns=0,
    )
    by.lacks(frame)
    by.look(frame, Wanted())
    assert shown == [shape_shown(shape)] * 2
    assert (shape[0] * shape[1] > INSPECTED_PX) == (shown[0] != padded(frame.pixels).shape)
