"""The shifted test sets: each differs from the training in what its name says, and by as much."""

from typing import Any

import numpy as np
import pytest

from calibration.dataset import shifted
from calibration.dataset.sources import Source
from calibration.dataset.splits import Shift
from calibration.train import depth_data
from calibration.train.depth_data import above_lowest_px
from calibration.train.develop import Look
from calibration.twin.scan import electrons_for_snr
from engines.scene import Scene, condition, levels_of


def test_half_the_electrons_come_from_a_contrast_larger_by_root_two() -> None:
    field = np.random.default_rng(1).uniform(0.2, 0.9, (64, 64)).astype(np.float32)
    exposed = shifted._contrasted(field, np.sqrt(2.0))
    assert electrons_for_snr(exposed, 2.0) == pytest.approx(0.5 * electrons_for_snr(field, 2.0), rel=1e-4)


def test_half_the_dose_is_half_the_electrons_of_the_same_look(monkeypatch: pytest.MonkeyPatch) -> None:
    flat, doses, real = np.zeros((64, 64), np.float32), [], shifted.develop

    def noted(height_m: shifted.Field, look: Look, **more: Any) -> Any:
        doses.append(look.electrons_per_pixel)
        return real(height_m, look, **more)

    monkeypatch.setattr(shifted, "develop", noted)
    for shift in (Shift(), Shift(half_dose=True)):
        shifted._depth_look(flat, np.ones_like(flat), 3e-9, shift, np.random.default_rng(4))
    assert doses[1] == pytest.approx(0.5 * doses[0])


def test_strange_materials_lie_beyond_the_trained_yields() -> None:
    steps = np.repeat(np.array([0.0, 50e-9], np.float32), 32)[None].repeat(64, axis=0)
    tops = [float(shifted.strange(steps, np.random.default_rng(seed))[0, -1]) for seed in range(40)]
    floors = [float(shifted.strange(steps, np.random.default_rng(seed))[0, 0]) for seed in range(5)]
    assert all(top > 1.6 or top < 0.7 for top in tops)
    assert min(tops) < 0.7 and max(tops) > 1.6
    assert floors == [1.0] * 5


def test_an_enlarged_relief_keeps_its_slopes() -> None:
    x = np.arange(200, dtype=np.float32)
    waves = (3.0 * np.sin(2 * np.pi * x / 20.0))[None].repeat(200, axis=0).astype(np.float32)
    wide = shifted.enlarged(waves, 2.5)
    spectrum = np.abs(np.fft.rfft(wide[100] - wide[100].mean()))
    assert wide.shape == waves.shape
    assert 200 / int(spectrum.argmax()) == pytest.approx(50.0)  # px: the period, 2.5 times 20
    assert np.ptp(wide) == pytest.approx(2.5 * np.ptp(waves), rel=0.02)
    before, after = (np.abs(np.gradient(z[:, 20:-20], axis=1)).max() for z in (waves, wide))
    assert after == pytest.approx(before, rel=0.03)


def test_a_charged_frame_drags_a_tail_and_tells_its_new_levels() -> None:
    image = np.full((1, 64, 256), 60, np.uint8)
    image[:, :, 100:110] = 180
    rows = {"image": image, "condition": condition(levels_of(image[0]), Scene(3e-9))[None]}
    charged = shifted.charged(rows, np.random.default_rng(3))
    tail = charged["image"][0, 32].astype(float) - image[0, 32]
    assert abs(tail[112] - tail[99]) > 4.0  # grey levels right behind the bright bar against right before it
    assert abs(tail[240] - tail[99]) < abs(tail[112] - tail[99])
    assert charged["condition"][0, :2] == pytest.approx(condition(levels_of(charged["image"][0]), Scene())[:2])
    assert charged["condition"][0, 2:].tolist() == rows["condition"][0, 2:].tolist()


def test_shifted_reliefs_are_the_generators_own() -> None:
    source = Source("depth", "shifted-half-dose", 4)
    rows = source.rows(2)
    own = depth_data.fields_of(2, seed=source.generator_seed)
    assert rows is not None
    assert np.array_equal(above_lowest_px(rows["height_px"]), above_lowest_px(own["height_px"]))
    assert not np.array_equal(rows["image"], own["image"])
