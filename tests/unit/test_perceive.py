"""What is refused as evidence, and how pictures of any depth become 8 bits: samples where exactness is not needed."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.messages import SOURCES, Findings, Frame, Lane, Optics, Wanted
from agent.perceive import Perceiver
from agent.pixels import SAMPLED_ROWS, eight_bits, mean_and_spread, saturated_share, some_rows

RNG = np.random.default_rng(5)
NOISE = RNG.integers(20, 230, (512, 640), np.uint8)


def look(perceiver: Perceiver, number: int, pixels: NDArray[Any], **optics: Any) -> Findings:
    told = Optics(**{"source": "electron/SE2", **optics})
    frame = Frame(number=number, pixels=pixels, optics=told, lane=Lane.LIVE, received_ns=0)
    return perceiver.look(frame, Wanted())


def test_the_same_pixels_under_another_number_are_frozen() -> None:
    perceiver = Perceiver(None)
    assert look(perceiver, 1, NOISE).refused is None
    assert look(perceiver, 2, NOISE.copy()).refused == "frozen"
    assert look(perceiver, 3, NOISE.copy()).refused == "frozen"


def test_a_frame_sent_twice_is_not_frozen() -> None:
    perceiver = Perceiver(None)
    look(perceiver, 1, NOISE)
    assert look(perceiver, 1, NOISE.copy()).refused is None


@pytest.mark.parametrize("where", [(0, 0), (256, 3), (511, 639)])
def test_one_changed_pixel_is_a_new_picture(where: tuple[int, int]) -> None:
    perceiver = Perceiver(None)
    changed = NOISE.copy()
    changed[where] ^= 1
    look(perceiver, 1, NOISE)
    assert look(perceiver, 2, changed).refused is None


def test_each_source_is_compared_with_its_own_last_picture_and_few_are_remembered() -> None:
    perceiver = Perceiver(None)
    look(perceiver, 1, NOISE)
    assert look(perceiver, 2, NOISE, source="electron/BSE").refused is None
    assert look(perceiver, 3, NOISE).refused == "frozen"
    for i in range(3 * SOURCES):
        look(perceiver, 4 + i, NOISE, source=f"invented/{i}")
    assert len(perceiver._last) == SOURCES


def test_a_picture_of_another_size_or_depth_is_not_frozen() -> None:
    perceiver = Perceiver(None)
    look(perceiver, 1, NOISE)
    assert look(perceiver, 2, NOISE[:, :600]).refused is None
    assert look(perceiver, 3, NOISE[:, :600].astype(np.uint16)).refused is None


def test_blank_saturated_and_not_finite_pictures_are_refused() -> None:
    burnt = NOISE.copy()
    burnt[RNG.random(NOISE.shape) < 0.3] = 255
    broken = NOISE.astype(np.float32)
    broken[400, 77] = np.nan
    assert look(Perceiver(None), 1, np.full((64, 64), 100, np.uint8)).refused == "blank"
    assert look(Perceiver(None), 1, burnt).refused == "saturated"
    assert look(Perceiver(None), 1, broken).refused == "inconsistent"


@pytest.mark.parametrize("pitch", [2, 3, 8, 13, 32, 100])
def test_line_patterns_of_any_pitch_do_not_deceive_the_sampled_rows(pitch: int) -> None:
    rows = np.arange(1024) % pitch < max(pitch // 2, 1)
    picture = np.where(rows[:, None], 255, 60).astype(np.uint8) * np.ones((1, 64), np.uint8)
    some = some_rows(picture)
    assert len(some) <= SAMPLED_ROWS
    assert saturated_share(some, Optics()) == pytest.approx(rows.mean(), abs=0.1)
    assert mean_and_spread(some)[1] == pytest.approx(picture.std(), rel=0.1)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_are_stretched_from_tail_to_tail(dtype: type) -> None:
    deep = np.clip(RNG.normal(3000.0, 400.0, (700, 900)), 0, 60_000).astype(dtype)
    deep[5, 5] = 60_000
    low, high = np.percentile(deep, (0.1, 99.9))
    expected = np.clip((deep - low) * 255.0 / (high - low), 0, 255)
    assert np.abs(eight_bits(deep, Optics()) - expected).max() < 5  # the tails are placed by a sample
    assert np.abs(eight_bits(deep, Optics(inverted=True)) - (255 - expected)).max() < 5


def test_numbers_that_are_none_and_numbers_too_large_stay_within_8_bits() -> None:
    picture = RNG.normal(0.0, 1e-9, (256, 256)).astype(np.float32)
    picture[0, :5] = (np.nan, np.inf, -np.inf, 1e30, -1e30)
    assert eight_bits(picture, Optics())[0, :5].tolist() == [0, 255, 0, 255, 0]
    assert eight_bits(np.full((64, 64), np.nan, np.float32), Optics()).max() == 0
    assert eight_bits(np.full((64, 64), 7, np.uint16), Optics()).max() == 0
