"""Frames of a dataset: unshifted ones are the training's, each shifted set differs in what its name says."""

from typing import Any

import numpy as np
import pytest

from calibration.dataset import rows_autofocus, rows_defects, rows_depth, shifted, sources
from calibration.dataset.columns import UNDESCRIBED, columns_of
from calibration.dataset.sources import Source
from calibration.dataset.splits import NONE, Shift
from calibration.optics import half_depth_of_focus_m, probe_fw50_m
from calibration.train import data, defects_data, depth_data, labels, picture
from calibration.train.develop import Look
from calibration.twin import scan
from calibration.twin.scan import electrons_for_snr
from calibration.twin.sketch import PITCH_PX
from engines.scene import NEUTRAL_PIXEL_M

Field = shifted.Field
CHARGING, MATERIAL, STRETCH, HALF = (
    Shift(charging=True),
    Shift(material=True),
    Shift(stretch=True),
    Shift(half_dose=True),
)


def first_patterned(seed: int, shift: Shift) -> int:
    """A geometry for defects that has any."""
    return next(i for i in range(50) if (rows_defects.rows(i, seed, shift)["label"] >= 0).any())


# --- the training's own ---


def test_unshifted_frames_are_the_trainings_to_the_byte() -> None:
    recipe = defects_data.Recipe(5, maps=True)
    for number in range(2):
        pairs = (
            (rows_autofocus.rows(number, 5, NONE), data.samples_of(number, seed=5)),
            (rows_depth.rows(number, 5, NONE), depth_data.fields_of(number, seed=5)),
            (rows_defects.rows(number, 5, NONE), defects_data.fields_of(number, recipe=recipe)),
        )
        for ours, trained in pairs:
            assert set(trained) <= set(ours)
            for name, column in trained.items():
                assert ours[name].dtype == column.dtype
                np.testing.assert_array_equal(ours[name], column, err_msg=name)


def test_a_shift_of_the_look_leaves_depths_reliefs_as_training_has_them() -> None:
    for shift in (HALF, MATERIAL, CHARGING):
        ours, trained = rows_depth.rows(2, 4, shift), depth_data.fields_of(2, seed=4)
        np.testing.assert_array_equal(ours["height_px"], trained["height_px"])
        assert not np.array_equal(ours["image"], trained["image"])


# --- the truth beside a frame ---


@pytest.mark.parametrize("shift", [NONE, CHARGING])
def test_the_probe_beside_an_autofocus_frame_is_the_one_that_drew_it(shift: Shift) -> None:
    rows = rows_autofocus.rows(1, 3, shift)
    for row in range(len(rows["image"])):
        facts = {name: float(rows[name][row]) for name in rows if rows[name].ndim == 1}
        names = ("pixel_size_m", "alpha_rad", "energy_ev", "z_m", "ax_m", "ay_m")
        probe = labels.Probe(*(facts[name] for name in names))
        fw50_m = probe_fw50_m(probe.alpha_rad, probe.energy_ev)
        half_m = half_depth_of_focus_m(probe.pixel_size_m, probe.alpha_rad, fw50_m)
        assert abs(facts["z_m"]) / half_m == pytest.approx(facts["defocus_h"], rel=1e-5)
        assert labels.blur_px(probe) == pytest.approx(facts["blur_px"], rel=1e-3)
        assert facts["log_blur"] == pytest.approx(np.log(facts["blur_px"]), abs=1e-5)
    assert len(set(rows["z_m"])) == data.BLURS


def test_z_has_both_signs_and_astigmatism_both_axes() -> None:
    rng = np.random.default_rng(2)
    probes = [rows_autofocus.truth(data.draw_probe(rng)) for _ in range(60)]
    for name in ("z_m", "ax_m", "ay_m"):
        values = [each[name] for each in probes]
        assert min(values) < 0.0 < max(values)


def test_defects_have_their_exact_pixel_size_where_the_header_leaves_it_out() -> None:
    told, untold = 0, 0
    for number in range(9):
        rows = rows_defects.rows(number, 6, NONE)
        for row, size_m in enumerate(rows["pixel_size_m"]):
            if rows["kind"][row] == defects_data.KINDS.index("empty"):
                assert np.isnan(size_m)
            elif rows["condition"][row, 3] > 0.5:
                said = NEUTRAL_PIXEL_M * 10.0 ** float(rows["condition"][row, 2])
                assert size_m == pytest.approx(said, rel=1e-5)
                told += 1
            else:
                assert 0.8e-9 <= size_m <= 8e-9
                untold += 1
        assert len(set(rows["pixel_size_m"][~np.isnan(rows["pixel_size_m"])])) <= 1  # one specimen
    assert told >= 5 and untold >= 1


@pytest.mark.parametrize("task", sources.TASKS)
def test_every_column_is_described(task: str) -> None:
    rows = Source(task, "train", 2).rows(0)
    assert rows is not None
    assert [each.name for each in columns_of(rows) if (each.unit, each.meaning) == UNDESCRIBED] == []


# --- charging ---


@pytest.mark.parametrize("make", [rows_autofocus.rows, rows_depth.rows, rows_defects.rows])
def test_double_charging_acts_on_the_signal_before_any_electron_is_counted(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, float]] = []
    real_tail, real_expose = scan.charging_tail, scan.expose

    def charged(signal: Field, *, strength: float, length_px: float) -> Field:
        events.append(("tail", strength))
        return real_tail(signal, strength=strength, length_px=length_px)

    def exposed(signal: Field, **how: Any) -> Field:
        events.append(("expose", 0.0))
        return real_expose(signal, **how)

    monkeypatch.setattr(scan, "charging_tail", charged)
    monkeypatch.setattr(scan, "expose", exposed)
    number = next(i for i in range(9) if _is_drawn(make, i))
    events.clear()
    rows = make(number, 7, CHARGING)
    names = [name for name, _ in events]
    assert names == ["tail", "expose"] * (len(names) // 2)
    taken = len(rows["image"]) * (2 if "golden" in rows else 1)  # another die stands beside each picture of a design
    assert len(names) == 2 * taken
    strengths = [strength for name, strength in events if name == "tail"]
    assert all(picture.STRONGEST_TAIL <= abs(each) <= 2.0 * picture.STRONGEST_TAIL for each in strengths)
    assert rows["image"].dtype == np.uint8


def _is_drawn(make: Any, number: int) -> bool:
    """Empty pictures show nothing that could charge."""
    return make is not rows_defects.rows or not np.isnan(make(number, 7, CHARGING)["pixel_size_m"]).any()


def test_tails_of_the_set_are_twice_the_trained_ones_and_of_both_signs() -> None:
    rng = np.random.default_rng(3)
    drawn = np.array([shifted.tail(rng) for _ in range(200)])
    assert np.abs(drawn).min() >= 0.4 and np.abs(drawn).max() <= 0.8
    assert np.abs(drawn).max() > 0.75 and (drawn < 0).any() and (drawn > 0).any()


def test_a_picture_that_must_have_a_tail_drags_it_behind_what_is_bright() -> None:
    bar = np.full((64, 256), 0.3, np.float32)
    bar[:, 100:110] = 1.0

    def behind(tail: float | None) -> float:
        """Mean right behind the bar against right before it, over many seeds."""
        seen = [picture.disturb(bar, np.random.default_rng(seed), tail=tail) for seed in range(40)]
        return float(np.mean([(z[:, 116:124].mean() - z[:, 86:94].mean()) for z in seen]))

    assert behind(0.6) > behind(None) + 0.01
    assert behind(-0.6) < behind(None) - 0.01


# --- dose ---


def test_half_the_electrons_come_from_a_contrast_larger_by_root_two() -> None:
    field = np.random.default_rng(1).uniform(0.2, 0.9, (64, 64)).astype(np.float32)
    exposed = shifted.contrasted(field, np.sqrt(2.0))
    assert electrons_for_snr(exposed, 2.0) == pytest.approx(0.5 * electrons_for_snr(field, 2.0), rel=1e-4)


def test_half_the_dose_is_half_the_electrons_of_the_same_look(monkeypatch: pytest.MonkeyPatch) -> None:
    doses: list[float] = []
    real = rows_depth.develop

    def noted(height_m: Field, look: Look, **more: Any) -> Any:
        doses.append(look.electrons_per_pixel)
        return real(height_m, look, **more)

    monkeypatch.setattr(rows_depth, "develop", noted)
    monkeypatch.setattr(depth_data, "develop", noted)
    rows_depth.rows(1, 4, NONE)
    rows_depth.rows(1, 4, HALF)
    assert doses[depth_data.LOOKS] == pytest.approx(0.5 * doses[0])


# --- material ---


def test_strange_materials_lie_beyond_the_trained_yields() -> None:
    steps = np.repeat(np.array([0.0, 50e-9], np.float32), 32)[None].repeat(64, axis=0)
    maps = [shifted.strange(steps, np.random.default_rng(seed)).over(steps) for seed in range(40)]
    tops, floors = [float(each[0, -1]) for each in maps], [float(each[0, 0]) for each in maps]
    assert all(top > 1.6 or top < 0.7 for top in tops)
    assert min(tops) < 0.7 and max(tops) > 1.6
    assert floors == [1.0] * 40


def test_defects_of_the_material_set_lie_in_a_yield_that_no_training_has(monkeypatch: pytest.MonkeyPatch) -> None:
    number, seen = first_patterned(8, MATERIAL), []
    real = defects_data.develop

    def noted(height_m: Field, look: Look, **more: Any) -> Any:
        seen.append((height_m, more["material"]))
        return real(height_m, look, **more)

    monkeypatch.setattr(defects_data, "develop", noted)
    rows_defects.rows(number, 8, MATERIAL)
    strange = list(seen)
    seen.clear()
    rows_defects.rows(number, 8, NONE)  # the same specimen, as trained
    for (height_m, ours), (_, trained) in zip(strange[:1], seen[:1], strict=True):
        plain = np.ones_like(ours) if trained is None else trained
        low, high = np.percentile(height_m, (2.0, 98.0))
        ratio = (ours / plain)[height_m > high - 0.05 * (high - low)].mean() / (ours / plain)[
            height_m < low + 0.05 * (high - low)
        ].mean()
        assert ratio > 1.8 / 1.6 or ratio < 0.55 / 0.7


def test_a_defect_and_its_reference_have_the_same_strange_material(monkeypatch: pytest.MonkeyPatch) -> None:
    number, coats = first_patterned(8, MATERIAL), []
    real = defects_data.contrast

    def noted(window: Any, look: Look, *, field: Any, clean: Any) -> Any:
        same = field.height_m == clean.height_m
        alike = np.isclose(field.material[same], clean.material[same], rtol=0.01)
        coats.append(alike.mean() > 0.95)  # all but what a defect is made of where it has no height
        return real(window, look, field=field, clean=clean)

    monkeypatch.setattr(defects_data, "contrast", noted)
    rows_defects.rows(number, 8, MATERIAL)
    assert coats and all(coats)


# --- pitch ---


def test_an_unseen_pitch_is_drawn_and_lies_beyond_the_trained_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float]] = []
    real = rows_depth.surface_of

    def noted(sketch: Any) -> Any:
        drawn.append((sketch.kind, sketch.pitch))
        return real(sketch)

    monkeypatch.setattr(rows_depth, "surface_of", noted)
    rng = np.random.default_rng(11)
    kinds = {rows_depth.relief(STRETCH, rng)[1] for _ in range(40)}
    assert kinds == set(rows_depth.PITCHED)
    pitches = np.array([pitch for _, pitch in drawn])
    assert ((pitches < PITCH_PX[0]) | (pitches > PITCH_PX[1])).all()
    assert (pitches < PITCH_PX[0]).any() and (pitches > PITCH_PX[1]).any()
    assert pitches.max() <= depth_data.SIDE  # a picture holds a whole pitch


def test_lines_of_an_unseen_pitch_are_as_far_apart_in_the_heights_that_are_the_truth() -> None:
    for number in range(60):
        rng = np.random.default_rng([number, 1])
        seen, kind = rows_depth.relief(STRETCH, rng)
        if kind != "lines":
            continue
        across = seen.height_m - seen.height_m.mean()
        power = np.abs(np.fft.fft2(across)) ** 2
        fy, fx = np.unravel_index(int(power[:, 1:129].argmax()), (256, 128))
        strongest_px = 256.0 / np.hypot(min(fy, 256 - fy), fx + 1)
        if strongest_px < 20.0:  # fine ones: many to a picture, so that the spectrum tells
            assert strongest_px < PITCH_PX[0] + 0.5
            return
    pytest.fail("no fine lines among sixty reliefs")
