"""Which models read a frame, what they are told, what becomes of their answers and of their failures."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control.dose import electrons_per_pixel
from agent.errors import EngineError
from agent.messages import Findings, Frame, Lane, Optics, Wanted
from agent.perceive import Perceiver
from agent.pixels import INSPECTED_PX, scene_of
from engines.cascade import Beside, Judged, Sizes
from engines.defects import SEEN
from engines.errors import DeviceLostError, InferenceError
from engines.outputs import check_finite
from engines.readings import Defects, FocusReading, FoundDefect, Relief
from engines.scene import Levels, Scene
from tests.fakes.models import Reads

RNG = np.random.default_rng(7)
SHAPE = (100, 150)  # pads to 128 x 160
NOISE = RNG.integers(20, 230, SHAPE, np.uint8)
GOOD = FocusReading(score=7.0, blur_px=1.0, blur_uncertainty_px=0.1, content=0.9)
INSPECT = Wanted(inspection=True)


class Sharp(Reads):
    """A focus model; raises or answers what it is given."""

    name = "sharp@1"

    def __init__(self, answer: FocusReading | Exception = GOOD) -> None:
        self.answer, self.images = answer, list[NDArray[np.uint8]]()

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading:
        self.images.append(image)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Ramp(Reads):
    """A depth model that sees a slope of one pixel size a column."""

    name = "ramp@2"

    def __init__(self, answer: float | Exception = 1.0) -> None:
        self.answer, self.images, self.told = answer, list[NDArray[np.uint8]](), list[tuple[Scene, Levels | None]]()

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> Relief | None:
        self.images.append(image)
        self.told.append((scene, levels))
        if isinstance(self.answer, Exception):
            raise self.answer
        if scene.pixel_size_m is None:
            return None
        columns = (np.arange(1, image.shape[1] + 1) * self.answer).astype(np.float32)
        self.height_px = np.tile(columns, (image.shape[0], 1))
        check_finite({"height_px": self.height_px})  # as each engine does
        return Relief(self.height_px, np.full(image.shape, 0.5, np.float32), scene.pixel_size_m)


class Finds(Reads):
    """A defect model that finds what it is given."""

    name = "finds@3"

    def __init__(self, *found: FoundDefect, error: Exception | None = None) -> None:
        self.found, self.error, self.images = found, error, list[NDArray[np.uint8]]()

    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> Defects:
        self.images.append(image)
        if self.error is not None:
            raise self.error
        return self.found


def pit(x: float, y: float, confidence: float = 0.9) -> FoundDefect:
    return FoundDefect("pit", confidence, (x - 4, y - 4, x + 4, y + 4))


def look(
    perceiver: Perceiver, wanted: Wanted = INSPECT, pixels: NDArray[Any] = NOISE, number: int = 1, **optics: Any
) -> Findings:
    told = Optics(**{"source": "electron/SE2", "pixel_size_m": 2e-9, **optics})
    return perceiver.look(Frame(number=number, pixels=pixels, optics=told, lane=Lane.INSPECT, received_ns=0), wanted)


# --- what is due ---


def test_all_three_read_a_frame_that_is_inspected_and_autofocus_alone_any_other() -> None:
    perceiver = Perceiver(Sharp(), Ramp(), Finds(pit(50, 50)))
    assert perceiver.models == ("sharp@1", "ramp@2", "finds@3")
    seen, passed = look(perceiver), look(perceiver, Wanted())
    assert seen.models == perceiver.models and seen.defects is not None and seen.depth is not None
    assert (passed.models, passed.defects, passed.depth, passed.score) == (("sharp@1",), None, None, 7.0)
    assert set(seen.took_s) == {"convert", "autofocus", "depth", "defects", "evidence"}
    assert set(passed.took_s) == {"convert", "autofocus", "evidence"}


class Judges:
    """A cascade that calls the first find no defect and the others small bridges."""

    name = "judges@4"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, list[tuple[NDArray[np.uint8], Beside, Sizes | None]]()
        self.found: tuple[FoundDefect, ...] = ()

    def judge(
        self, image: NDArray[np.uint8], found: tuple[FoundDefect, ...], *, beside: Beside, sizes: Sizes | None
    ) -> tuple[Judged, ...]:
        self.asked.append((image, beside, sizes))
        self.found = found
        if self.error is not None:
            raise self.error
        no, small = Judged("not_defect", ("not_defect",), (), None), ("defect", "small", "bridge")
        return (no, *(Judged("bridge", small, (), 16e-9) for _ in found[1:]))


def test_what_is_found_goes_down_the_cascade_on_the_picture_as_it_was_with_the_recipes_sizes() -> None:
    judges = Judges()
    perceiver = Perceiver(Sharp(), Ramp(), Finds(pit(50, 50), pit(80, 50, 0.8)), cascade=judges)
    seen = look(perceiver, Wanted(inspection=True, sizes_m=(10e-9, 40e-9)))
    assert [(each.name, each.path) for each in seen.defects or ()] == [("bridge", ("defect", "small", "bridge"))]
    ((image, beside, sizes),) = judges.asked
    assert image.shape == SHAPE and sizes == Sizes(10e-9, 40e-9)
    assert beside.relief is not None and beside.relief.height_px.shape == SHAPE
    assert beside.scene.pixel_size_m == 2e-9
    assert "judges@4" in perceiver.models and "cascade" in seen.took_s


def test_what_the_detector_saw_at_a_find_reaches_the_judge() -> None:
    judges, saw = Judges(), tuple(float(number) for number in range(SEEN))
    finds = Finds(FoundDefect("pit", 0.9, (46.0, 46.0, 54.0, 54.0), saw), pit(148, 50))
    look(Perceiver(None, None, finds, cascade=judges))
    assert [each.seen for each in judges.found] == [saw, ()]


def test_a_cascade_that_fails_is_named_and_one_without_finds_is_not_asked() -> None:
    judges = Judges(InferenceError("out of memory"))
    with pytest.raises(EngineError, match="judges@4: out of memory"):
        look(Perceiver(None, None, Finds(pit(50, 50)), cascade=judges))
    look(Perceiver(None, None, Finds(), cascade=judges))
    assert len(judges.asked) == 1


def test_one_conversion_and_one_padding_serve_all_three_and_levels_are_those_of_the_picture() -> None:
    sharp, ramp, finds = Sharp(), Ramp(), Finds()
    look(Perceiver(sharp, ramp, finds), pixels=NOISE.astype(np.uint16) * 256)
    (image,) = sharp.images
    assert image.shape == (128, 160) and image.dtype == np.uint8
    assert ramp.images[0] is image and finds.images[0] is image
    levels = ramp.told[0][1]
    assert levels is not None and levels.mean == pytest.approx(image[:100, :150].mean(), abs=1e-6)
    assert levels.spread == pytest.approx(image[:100, :150].std(), abs=1e-6)


@pytest.mark.parametrize("parts", [(None, Ramp(), None), (None, None, Finds()), (None, Ramp(), Finds()), (Sharp(),)])
def test_each_model_may_be_missing(parts: tuple[Any, ...]) -> None:
    seen = look(Perceiver(*parts))
    assert seen.models == tuple(part.name for part in parts if part is not None)
    assert (seen.unseen, seen.refused) == (None, None)


# --- what they are told ---


@pytest.mark.parametrize(
    ("header", "electrons"),
    [
        ({}, 62.415),
        ({"averaging": "none"}, 62.415),
        ({"averaging": "frame", "average_count": 4}, 249.66),
        ({"averaging": "line", "average_count": None}, None),
        ({"beam_current_a": None}, None),
        ({"beam_current_a": 0.0}, None),
        ({"dwell_time_s": None}, None),
    ],
)
def test_the_dose_is_current_by_dwell_by_scans(header: dict[str, Any], electrons: float | None) -> None:
    known = {"beam_current_a": 10e-12, "dwell_time_s": 1e-6, **header}
    told = electrons_per_pixel(Optics(**known))
    assert told == (None if electrons is None else pytest.approx(electrons, rel=1e-4))


def test_the_landing_energy_counts_before_the_accelerating_voltage() -> None:
    assert scene_of(Optics(accelerating_voltage_v=5000.0, landing_energy_ev=800.0)).accelerating_voltage_v == 800.0
    assert scene_of(Optics(accelerating_voltage_v=5000.0)).accelerating_voltage_v == 5000.0
    assert scene_of(Optics()) == Scene()


# --- what becomes of their answers ---


def test_a_map_is_cut_to_the_picture_and_scaled_by_the_certificate() -> None:
    seen = look(Perceiver(None, Ramp(), None), Wanted(inspection=True, height_scale=1.5))
    assert seen.depth is not None and seen.depth.height_m.shape == seen.depth.scale_m.shape == SHAPE
    assert seen.depth.height_m[7, 100] == pytest.approx(101 * 2e-9 * 1.5, rel=1e-5)
    assert seen.depth.scale_m[0, 0] == pytest.approx(1.5e-9, rel=1e-5)


def test_the_rows_of_a_databar_are_neither_read_nor_told() -> None:
    finds = Finds(pit(50, 50), pit(50, 95))
    seen = look(Perceiver(None, Ramp(), finds), databar_rows=20)
    assert finds.images[0].shape == (96, 160)
    assert seen.depth is not None and seen.depth.height_m.shape == (80, 150)
    assert seen.defects is not None and [defect.box_px[1] for defect in seen.defects] == [46]


def test_without_a_pixel_size_defects_are_told_without_heights() -> None:
    seen = look(Perceiver(Sharp(), Ramp(), Finds(pit(50, 50))), pixel_size_m=None)
    assert seen.depth is None and seen.defects is not None and seen.defects[0].height_m is None
    assert seen.models == ("sharp@1", "finds@3")


def test_heights_of_defects_are_those_of_the_map() -> None:
    seen = look(Perceiver(None, Ramp(), Finds(pit(50, 50))))
    assert seen.defects is not None and seen.defects[0].height_m == pytest.approx(0.0, abs=1e-9)  # a slope, no bump


@pytest.mark.parametrize("shape", [(32, 33), (64, 64), (40, 500)])
def test_pictures_of_any_size_are_inspected(shape: tuple[int, int]) -> None:
    picture = np.tile(NOISE, (5, 5))[: shape[0], : shape[1]]
    seen = look(Perceiver(None, Ramp(), Finds()), pixels=picture)
    assert seen.defects == () and seen.depth is not None and seen.depth.height_m.shape == shape


# --- what cannot be seen ---


def test_an_empty_picture_is_not_a_clean_one() -> None:
    perceiver = Perceiver(Sharp(), Ramp(), Finds())
    dark = look(perceiver, pixels=np.zeros(SHAPE, np.uint8))
    off = look(perceiver, blanked=True)
    nothing = look(perceiver, pixels=np.full(SHAPE, np.nan, np.float32))
    for seen, word in ((dark, "blank"), (off, "blanked"), (nothing, "blank")):
        assert seen.defects is None and seen.depth is None and seen.unseen is not None and word in seen.unseen
    assert look(perceiver, Wanted(), pixels=np.zeros(SHAPE, np.uint8)).unseen is None  # nobody asked


def test_a_picture_too_large_to_be_inspected_in_time_is_named_and_still_read_for_focus() -> None:
    huge = np.broadcast_to(NOISE[:1, :128], (INSPECTED_PX // 128 + 1, 128))
    seen = look(Perceiver(Sharp(), Ramp(), Finds()), pixels=huge)
    assert seen.score == 7.0 and seen.defects is None
    assert seen.unseen is not None and "send tiles" in seen.unseen


# --- failures ---

NAN = float("nan")
BROKEN: dict[str, tuple[Any, ...]] = {
    "autofocus, an error": (Sharp(InferenceError("no")), Ramp(), Finds()),
    "autofocus, no number": (Sharp(FocusReading(NAN, 1.0, 0.1, 0.9)), Ramp(), Finds()),
    "depth, an error": (Sharp(), Ramp(InferenceError("no")), Finds()),
    "depth, an overflow": (Sharp(), Ramp(OverflowError("no")), Finds()),
    "depth, no number": (Sharp(), Ramp(NAN), Finds()),
    "depth, an infinity": (Sharp(), Ramp(float("inf")), Finds()),
    "defects, an error": (Sharp(), Ramp(), Finds(error=InferenceError("no"))),
    "defects, no confidence": (Sharp(), Ramp(), Finds(pit(5, 5, NAN))),
    "defects, no box": (Sharp(), Ramp(), Finds(FoundDefect("pit", 0.5, (0.0, 0.0, NAN, 1.0)))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_failure_names_its_model_and_is_never_a_number(name: str) -> None:
    perceiver = Perceiver(*BROKEN[name])
    broken = {"autofocus": "sharp@1", "depth": "ramp@2", "defects": "finds@3"}[name.split(",")[0]]
    with pytest.raises(EngineError, match=broken):
        look(perceiver)
    assert perceiver.failures == 1


def test_failures_in_a_row_are_counted_by_model_whatever_the_others_answer() -> None:
    ramp = Ramp(InferenceError("no"))
    perceiver = Perceiver(Sharp(), ramp, Finds())
    for n in range(3):
        with pytest.raises(EngineError):
            look(perceiver, number=n)
        look(perceiver, Wanted(), number=100 + n)  # autofocus alone goes well in between
    assert perceiver.failures == 3
    ramp.answer = 1.0
    look(perceiver)
    assert perceiver.failures == 0


def test_the_padded_picture_is_shared_once_before_any_model_reads_it() -> None:
    shared: list[NDArray[np.uint8]] = []
    depth = Ramp()
    perceiver = Perceiver(Sharp(), depth, Finds(), share=shared.append)
    look(perceiver)
    assert len(shared) == 1
    assert shared[0] is depth.images[0]  # the very array, or each model would upload its own


def test_a_failed_upload_is_an_engine_error_and_is_forgotten_with_the_next_good_one() -> None:
    broken: list[Exception] = [InferenceError("the GPU is out of memory")]

    def share(image: NDArray[np.uint8]) -> None:
        if broken:
            raise broken.pop()

    perceiver = Perceiver(Sharp(), share=share)
    with pytest.raises(EngineError, match="out of memory"):
        look(perceiver, wanted=Wanted())
    assert perceiver.failures == 1
    look(perceiver, wanted=Wanted())
    assert perceiver.failures == 0


def test_a_lost_gpu_is_not_waited_for() -> None:
    perceiver = Perceiver(Sharp(DeviceLostError("the GPU has fallen off the bus")))
    with pytest.raises(EngineError, match="fallen off"):
        look(perceiver, wanted=Wanted())
    assert perceiver.failures > 5  # what the loop ends the process for


def test_a_shape_without_an_engine_is_told() -> None:
    perceiver = Perceiver(Sharp(), lacks=lambda shape: shape == (128, 160))
    assert look(perceiver, wanted=Wanted()).flags == ("shape_not_built",)
    assert look(Perceiver(Sharp()), wanted=Wanted()).flags == ()


@pytest.mark.parametrize("shape", [(1, 500), (31, 33), (20, 20)])
def test_a_picture_below_the_models_cells_is_not_called_clean(shape: tuple[int, int]) -> None:
    picture = np.tile(NOISE, (5, 5))[: shape[0], : shape[1]]
    seen = look(Perceiver(None, Ramp(), Finds()), pixels=picture)
    assert seen.defects is None and "too few to inspect" in (seen.unseen or "")


@pytest.mark.parametrize(
    ("said", "words"),
    [({"rows_valid": 40}, "partial"), ({"complete": False}, "partial"), ({"databar_rows": 100}, "databar_rows")],
)
def test_a_picture_that_is_not_all_there_is_not_called_clean(said: dict[str, Any], words: str) -> None:
    seen = look(Perceiver(Sharp(), Ramp(), Finds()), **said)
    assert seen.defects is None and seen.depth is None and words in (seen.unseen or "")


def test_of_a_picture_too_large_to_be_read_in_time_focus_is_read_in_the_middle() -> None:
    sharp = Sharp()
    picture = np.zeros((2400, 2700), np.uint8)
    picture[1000:1400, 1200:1500] = np.tile(NOISE, (4, 2))
    picture[::2] += 9  # not blank anywhere
    seen = look(Perceiver(sharp, Ramp(), Finds()), pixels=picture)
    assert [image.shape for image in sharp.images] == [(2048, 2048)]
    np.testing.assert_array_equal(sharp.images[0], picture[176:2224, 326:2374])
    assert seen.score == GOOD.score and seen.defects is None and "send tiles" in (seen.unseen or "")
