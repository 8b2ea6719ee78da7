"""The road from the twin to a defect package, driven for seconds: pictures, targets, learning, export, scores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.interval import wilson
from calibration.networks.defects import BEST, CHANNELS, STRIDE_PX, DefectNet, Maps, peaks
from calibration.train import defects, defects_data, defects_figures, defects_learn, export
from calibration.train.cycle import Cycle
from calibration.train.defects_data import KINDS, MOST, MOST_NUISANCES, Fields, Recipe
from calibration.train.defects_describe import DEFECTS
from calibration.train.defects_outside import Outcome, by_class, outside, row
from calibration.train.defects_specimens import WIDEST_PX, layout, period_of
from calibration.twin.inspection import inspected_frame
from calibration.twin.nuisances import LARGEST_TEAR_PX, Tear
from engines.defects import CLASSES, SEEN, THRESHOLD, WORKING_POINT, DefectFinder
from engines.load import load
from engines.manifest import MODEL_FILE
from engines.onnx import OnnxEngine
from engines.readings import Defects, FoundDefect
from engines.reference import self_reference as own_reference
from engines.scene import CONDITION, Scene

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LAYOUTS = Recipe(5, kinds=("lines", "contacts"), clean=0.0)


@pytest.fixture(scope="module")
def few() -> Fields:
    return defects_data.small(12, LAYOUTS)


def silent(stage: str, done: int, of: int) -> None:
    assert 0 <= done <= of


def one_defect(box: tuple[float, float, float, float], *, visible: bool = True, frames: int = 1) -> Fields:
    """Blank 512 x 512 frames; a bridge in the first."""
    label, seen = np.full((frames, MOST), -1, np.int8), np.zeros((frames, MOST), np.bool_)
    boxes = np.zeros((frames, MOST, 4), np.float32)
    label[0, 0], seen[0, 0], boxes[0, 0] = CLASSES.index("bridge"), visible, box
    return Fields(
        image=np.zeros((frames, 512, 512), np.uint8),
        golden=np.zeros((frames, 512, 512), np.uint8),
        own=np.zeros((frames, 512, 512), np.uint8),
        condition=np.zeros((frames, CONDITION), np.float32),
        box_px=boxes,
        label=label,
        visible=seen,
        matched=np.where(seen, 30.0, 0.0).astype(np.float32),
        period_px=np.zeros((frames, 2), np.float32),
        kind=np.zeros(frames, np.uint8),
        height_m=np.zeros((frames, MOST), np.float32),
        area_px=np.zeros((frames, MOST), np.int32),
        pitch_share=np.zeros((frames, MOST), np.float32),
        to_noise=np.zeros((frames, MOST), np.float32),
        drowned=np.zeros((frames, MOST), np.bool_),
        nuisance=np.full((frames, MOST_NUISANCES), -1, np.int8),
        nuisance_px=np.zeros((frames, MOST_NUISANCES, 4), np.float32),
    )


def find(x: float, y: float, confidence: float = 0.9, name: str = "bridge") -> FoundDefect:
    return FoundDefect(name, confidence, (x - 5, y - 5, x + 5, y + 5))


def test_the_same_recipe_and_specimen_give_the_same_bytes() -> None:
    one, two, other = (defects_data.fields_of(index, recipe=LAYOUTS) for index in (4, 4, 5))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["image"], other["image"])


def test_pictures_hold_defects_within_their_frame_and_clean_ones_none(few: Fields) -> None:
    used = few.label >= 0
    assert used.any(axis=1).mean() > 0.8
    boxes = few.box_px[used]
    assert (boxes[:, 2] > boxes[:, 0]).all()
    assert (boxes[:, 3] > boxes[:, 1]).all()
    assert boxes.min() >= -LARGEST_TEAR_PX
    assert boxes.max() <= defects_data.SIDE + LARGEST_TEAR_PX
    assert not (few.visible & ~used).any()
    clean = defects_data.small(3, replace(LAYOUTS, clean=1.0))
    assert (clean.label == -1).all()


def test_a_mixed_training_set_is_about_a_third_clean() -> None:
    kinds = np.array(list(defects_data.SHARES.values()))
    strange = sum(defects_data.SHARES[kind] for kind in ("relief", "natural", "empty"))
    assert kinds.sum() == pytest.approx(1.0)
    assert 0.25 < strange + (1 - strange) * defects_data.CLEAN_SHARE < 0.4


def test_less_dose_makes_fewer_defects_visible() -> None:
    full, faint = (defects_data.fields_of(3, recipe=replace(LAYOUTS, dose=dose)) for dose in (1.0, 0.01))
    there = full["visible"][0]
    assert there.any()
    assert not faint["visible"][0].all()
    np.testing.assert_allclose(faint["matched"][0][there], 0.1 * full["matched"][0][there], rtol=1e-4)


def test_a_stretched_layout_has_a_pitch_that_training_never_has() -> None:
    drawn = layout("lines", replace(LAYOUTS, stretch=1.5), pixel_size_m=3e-9, rng=np.random.default_rng(1))
    assert drawn.shape == (256, 256)
    assert WIDEST_PX < drawn.pitch < 1.2 * WIDEST_PX
    across = drawn.across - drawn.across.mean()
    slope = np.hypot(np.gradient(across, axis=1)[100, 100], np.gradient(across, axis=0)[100, 100])
    assert slope == pytest.approx(1.0, abs=0.02)


def test_a_drift_tear_moves_pictures_and_boxes_alike() -> None:
    field = np.zeros((40, 40), np.float32)
    field[20:24, 10:14] = 1.0
    for tear in (Tear(30, 3), Tear(5, 3), Tear(5, -2), Tear(22, 3)):
        moved = tear.torn(field)
        x0, y0, x1, y1 = tear.torn_box((10, 20, 14, 24))
        assert moved[y0:y1, x0:x1].sum() == field.sum()
        rows, columns = np.nonzero(moved)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
def test_every_kind_is_drawn_and_what_is_no_layout_has_no_defect(kind: str) -> None:
    rows = defects_data.fields_of(2, recipe=Recipe(11, kinds=(kind,), clean=0.0, maps=True))
    assert rows["image"].shape == (2, 256, 256)
    assert (rows["kind"] == KINDS.index(kind)).all()
    used = rows["label"] >= 0
    if kind in ("relief", "natural"):
        assert not used.any()
    assert np.isfinite(rows["surface_m"]).all()
    for mask, label, box, area in zip(rows["mask"], rows["label"], rows["box_px"], rows["area_px"], strict=True):
        for number in np.nonzero(label >= 0)[0]:
            ys, xs = np.nonzero(mask == number + 1)
            x0, y0, x1, y1 = box[number]
            assert x0 <= xs.min() <= xs.max() < x1
            assert y0 <= ys.min() <= ys.max() < y1
            assert len(xs) >= 0.8 * area[number]  # a tear may have pushed some of it out of the picture


def test_only_arrays_have_a_period() -> None:
    rng = np.random.default_rng(3)
    for kind in ("lines", "contacts", "pillars", "logic", "manhattan"):
        drawn = layout(kind, LAYOUTS, pixel_size_m=3e-9, rng=rng)
        expected = drawn.pitch if drawn.lattice is not None else 0.0
        assert np.hypot(*period_of(drawn)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_picture_takes_its_boxes_along(turns: int, mirrored: bool) -> None:
    image = np.zeros((32, 32), np.uint8)
    image[4:9, 10:22] = 255
    box = np.array([[10, 4, 22, 9]], np.float32)
    seen, moved = defects_learn.turned(image, box, turns=turns, mirrored=mirrored)
    x0, y0, x1, y1 = (int(side) for side in moved[0])
    assert seen[y0:y1, x0:x1].all()
    assert seen.sum() == image.sum()
    assert (x1 - x0) * (y1 - y0) == 60


def test_what_is_taught_is_what_the_graph_reads_back() -> None:
    box = np.array([[40.0, 60.0, 70.0, 72.0], [100.0, 90.0, 104.0, 93.0]], np.float32)
    label = np.array([CLASSES.index("bridge"), CLASSES.index("particle")], np.int8)
    heat, asked, shape, _, judged = defects_learn.targets_of(box, label, np.array([True, True]), 160)
    there = torch.logit(torch.from_numpy(heat)[None], eps=1e-6)
    maps = Maps(there, torch.from_numpy(asked)[None], torch.from_numpy(shape)[None], there)
    confidence, index, read, seen = peaks(maps)
    torch.testing.assert_close(torch.sigmoid(seen[..., 0]), confidence)
    assert judged.all()
    assert asked.sum(axis=(1, 2)).sum() == pytest.approx(2.0)
    assert confidence[0, 1] > 0.99
    assert confidence[0, 2] < 0.01
    assert {CLASSES[int(i)] for i in index[0, :2]} == {"bridge", "particle"}
    for found in read[0, :2].numpy():
        truth = box[np.argmin(np.abs(box[:, 0] - found[0]))]
        # No box is taught narrower than a cell.
        assert np.abs(found - truth).max() <= STRIDE_PX / 2


def test_a_defect_that_nobody_can_see_is_neither_asked_for_nor_forbidden() -> None:
    box, label = np.array([[40.0, 60.0, 70.0, 72.0]], np.float32), np.array([2], np.int8)
    heat, asked, _, weight, judged = defects_learn.targets_of(box, label, np.array([False]), 160)
    assert not heat.any()
    assert not asked.any()
    assert not weight.any()
    assert not judged[0, 15:18, 10:17].any()
    assert judged[0, :10].all()


def test_a_defect_of_two_likely_classes_is_no_less_sure() -> None:
    there, heat = torch.full((1, 1, 16, 16), -20.0), torch.zeros(1, len(CLASSES), 16, 16)
    there[0, 0, 5, 6], heat[0, 2, 5, 6], heat[0, 3, 5, 6] = 3.0, 4.0, 4.1
    confidence, index, *_ = peaks(Maps(there, heat, torch.zeros(1, 4, 16, 16), there))
    assert float(confidence[0, 0]) == pytest.approx(1.0 / (1.0 + np.exp(-3.0)), abs=1e-6)
    assert int(index[0, 0]) == 3


def test_learning_reduces_the_loss(few: Fields) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = DefectNet()
    cycle = Cycle(network, {}, steps=30, learning_rate=defects_learn.LEARNING_RATE)
    image, condition, targets = defects_learn.batch(few, np.arange(4), rng=np.random.default_rng(0), crop=96)
    values = [cycle.step(defects_learn.loss(network.raw(image, condition), targets)) for _ in range(30)]
    assert np.mean(values[-3:]) < 0.5 * np.mean(values[:3])


def test_an_interrupted_training_goes_on_to_the_same_weights(few: Fields, tmp_path: Path) -> None:
    some = Fields(**{name: getattr(few, name)[:16] for name in Fields.__annotations__})
    plan = defects_learn.Plan(seed=3, pictures=16, held_out=0, epochs=3, coarse_epochs=3)
    straight = defects_learn.train(some, plan, checkpoint=tmp_path / "straight.pt", progress=silent)

    def stop(stage: str, done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        defects_learn.train(some, plan, checkpoint=tmp_path / "broken.pt", progress=stop)
    resumed = defects_learn.train(some, plan, checkpoint=tmp_path / "broken.pt", progress=silent)
    for one, two in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[DefectNet, bytes]:
    torch.set_num_threads(1)
    torch.manual_seed(4)
    network = DefectNet()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():  # features of a usual size, as after a training
        network.raw(torch.randint(0, 256, (2, 2, 96, 96), dtype=torch.uint8), torch.full((2, CONDITION), 0.3))
    network.eval()
    last = network.objectness[-1]
    assert isinstance(last, torch.nn.Conv2d)
    torch.nn.init.normal_(last.weight, std=0.5)  # peaks of every confidence
    path = tmp_path_factory.mktemp("exported") / MODEL_FILE
    export.to_onnx(network, path, condition=CONDITION, outputs=DEFECTS.output_names, channels=CHANNELS)
    return network, path.read_bytes()


@pytest.mark.parametrize("shape", [(128, 320), (288, 256)])
def test_the_graph_says_what_torch_says_at_sizes_that_were_not_the_exports(
    exported: tuple[DefectNet, bytes], shape: tuple[int, int]
) -> None:
    network, model = exported
    image = np.random.default_rng(0).integers(0, 256, (CHANNELS, *shape), np.uint8)
    condition = np.array([0.5, 0.3, 0.1, 1.0, 0.0, 0.0, 0.2, 1.0], np.float32)
    said = OnnxEngine(model).run(image, condition)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None], torch.from_numpy(condition)[None])
    assert said["confidence"].shape == (1, BEST)
    np.testing.assert_allclose(said["confidence"], expected[0].numpy(), atol=1e-4)
    clear = np.abs(np.diff(said["confidence"][0], prepend=2.0, append=-1.0))
    alone = (clear[:-1] > 1e-3) & (clear[1:] > 1e-3)  # peaks as high as one another may change places
    assert alone.sum() > 3
    np.testing.assert_array_equal(said["class_index"][0][alone], expected[1][0].numpy()[alone])
    np.testing.assert_allclose(said["box_px"][0][alone], expected[2][0].numpy()[alone], atol=5e-3)
    np.testing.assert_allclose(said["seen"][0][alone], expected[3][0].numpy()[alone], atol=5e-3)
    assert said["seen"].shape == (1, BEST, SEEN)


def test_a_model_file_stays_below_five_megabytes(exported: tuple[DefectNet, bytes]) -> None:
    assert len(exported[1]) < 5_000_000


def test_a_find_captures_the_defect_whose_box_it_is_centred_in() -> None:
    fields = one_defect((100, 100, 130, 112))
    told = defects_figures.match(fields, 0, (find(115, 106), find(116, 108, 0.8), find(300, 300, 0.7)), 0.1)
    assert [pair[0] for pair in told.pairs] == [0]
    assert len(told.again) == 1
    assert len(told.false) == 1
    assert defects_figures.match(fields, 0, (find(115, 106),), 0.95).pairs == ()


def test_an_invisible_defect_is_neither_a_capture_nor_a_false_alarm() -> None:
    told = defects_figures.match(one_defect((100, 100, 130, 112), visible=False), 0, (find(115, 106),), 0.1)
    assert (told.pairs, told.false, told.again) == ((), (), ())


def test_the_threshold_lets_a_tenth_of_a_false_alarm_a_frame_through() -> None:
    clean: list[Defects] = [(find(9, 9, 0.5 + 0.001 * number),) for number in range(40)]
    least = defects_figures.threshold(clean, pixels=40 * 512 * 512, rate=0.1)
    assert sum(each[0].confidence >= least for each in clean) == 4
    assert defects_figures.threshold([(), ()], pixels=2 * 512 * 512, rate=0.1) == defects_figures.LEAST


def test_figures_of_a_finder_that_knows_everything_and_of_one_that_knows_nothing() -> None:
    fields = one_defect((110, 101, 120, 111), frames=2)
    thresholds = {"": 0.5, "_at_0.01": 0.8}
    perfect = defects_figures.figures(fields, [(find(115, 106),), ()], thresholds)
    assert perfect["capture_rate"] == perfect["class_accuracy"] == 1.0
    assert perfect["box_iou_median"] == pytest.approx(1.0)
    assert perfect["false_alarms_per_frame"] == perfect["count_error_mean"] == 0.0
    wild = defects_figures.figures(fields, [(find(300, 300, 0.7),), (find(9, 9, 0.9),)], thresholds)
    assert wild["capture_rate"] == 0.0
    assert wild["false_alarms_per_frame"] == 1.0
    assert wild["false_alarms_per_frame_at_0.01"] == 0.5


def test_a_defect_is_large_that_fills_half_the_pitch_or_six_pixels() -> None:
    fields = one_defect((100, 100, 130, 112))
    for area, share, large in ((35, 0.4, False), (36, 0.4, True), (9, 0.5, True)):
        fields.area_px[0, 0], fields.pitch_share[0, 0] = area, share
        assert defects_figures.sized(fields)[0, 0] == large


def test_crops_are_shown_with_their_own_reference_with_another_die_and_with_none(few: Fields) -> None:
    """And each is turned with its picture: what differs lies where the defect is."""
    fields = replace(few, own=few.image + np.uint8(1), golden=few.image + np.uint8(2))
    rows = np.zeros(200, np.intp)
    image, _, _ = defects_learn.batch(fields, rows, rng=np.random.default_rng(1), crop=96)
    off = np.unique((image[:, 1] - image[:, 0]).reshape(len(rows), -1), axis=1)
    assert off.shape == (200, 1)
    shares = [float((off == kind).mean()) for kind in (0, 1, 2)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.1)


def test_wilsons_interval_of_known_answers() -> None:
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.490, abs=1e-3)
    assert high == pytest.approx(0.943, abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_baseline_finds_a_bright_spot_on_a_periodic_picture() -> None:
    y, x = np.mgrid[:128, :128]
    image = np.asarray(120 + 60 * np.sin(2 * np.pi * x / 16) + (np.hypot(x - 60, y - 70) < 4) * 60, np.uint8)
    fields = replace(one_defect((56, 66, 65, 75)), image=image[None], period_px=np.array([[16.0, 0.0]], np.float32))
    found = defects_figures.self_reference(fields)[0]
    assert defects_figures.hits(found[0], (56, 66, 65, 75))


def test_a_plan_becomes_a_package_that_loads_and_leaves_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exported: tuple[DefectNet, bytes]
) -> None:
    def here(count: int, recipe: Recipe, *, folder: Path, progress: Callable[[int], None]) -> Fields:
        folder.mkdir(parents=True, exist_ok=True)
        progress(count)
        return defects_data.small(-(-count // defects_data.LOOKS), recipe)

    def write(network: DefectNet, path: Path, **more: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(exported[1])

    monkeypatch.setattr(defects_data, "generate", here)
    monkeypatch.setattr(export, "to_onnx", write)
    plan = defects_learn.Plan(seed=2, pictures=16, held_out=4, epochs=1, coarse_epochs=1)
    written = defects.run(plan, out=tmp_path, command="a test", progress=silent)
    loaded = load("defects", models=tmp_path, backend="onnxruntime")
    assert loaded.manifest == written
    assert DefectFinder(loaded).threshold == written.metrics[WORKING_POINT][THRESHOLD]
    assert {"held_out", "held_out_another_die", "clean_no_reference", "half_dose", "baseline_self_reference"} <= set(
        written.metrics
    )
    assert all(name in written.outputs[1].meaning for name in CLASSES)
    assert [p.name for p in tmp_path.iterdir()] == ["defects"]


def test_monte_carlo_defects_that_stand_out_count_and_the_others_do_not() -> None:
    above = {"class": "bridge", "box_px": [100, 100, 130, 112], "limit": "above"}
    below = {"class": "pit", "box_px": [20, 20, 26, 26], "limit": "below"}
    dirty = Outcome({"defects": [above, below], "defect_free": False}, (find(115, 106), find(23, 23)))
    clean = Outcome({"defects": [], "defect_free": True}, (find(50, 50),))
    told = row([dirty, clean])
    assert told["defects"] == told["capture_rate"] == told["class_accuracy"] == 1.0
    assert told["false_alarms_per_other_scene"] == 0.0
    assert told["false_alarms_per_clean_scene"] == 1.0
    assert by_class([dirty, clean]) == {"bridge": 1.0}


@pytest.mark.skipif(not (SHARED / "montecarlo").exists(), reason="the shared data folder is not beside this checkout")
def test_the_shipped_model_finds_most_of_what_stands_out_in_another_simulators_pictures() -> None:
    finder = DefectFinder(load("defects", backend="onnxruntime"))
    told = outside(finder, SHARED / "montecarlo")["outside_montecarlo"]
    assert told["capture_rate"] > 0.6
    assert told["false_alarms_per_clean_scene"] < 0.5


def test_the_shipped_model_finds_most_of_the_clear_defects_of_an_inspected_field() -> None:
    finder = DefectFinder(load("defects", backend="onnxruntime"))
    there, captured = 0, 0
    for seed in range(32):
        frame = inspected_frame(("line-space", "contact-holes")[seed % 2], (256, 256), seed=seed, defects=3)
        scene, beside = Scene(frame.pixel_size_m, frame.electrons_per_pixel), own_reference(frame.pixels)
        found = finder.read(frame.pixels, scene, reference=beside)
        clear = [defect for defect in frame.defects if defect.name in ("bridge", "break", "missing_contact")]
        there += len(clear)
        captured += sum(any(defects_figures.hits(find, defect.box_px) for find in found) for defect in clear)
    assert there >= 10
    assert captured >= 0.6 * there
