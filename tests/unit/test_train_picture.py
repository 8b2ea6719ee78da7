"""Nuisances drawn for training: what each may change, and what it must leave alone."""

import numpy as np
import pytest

from calibration.train.picture import bent, disturb, lag, mains

RNG = np.random.default_rng


def signal() -> np.ndarray:
    return (0.4 + 0.1 * RNG(1).standard_normal((96, 96))).clip(0.05, 1.0).astype(np.float32)


def test_the_same_generator_gives_the_same_bytes_and_every_nuisance_turns_up() -> None:
    given = signal()
    drawn = [disturb(given, RNG(seed)) for seed in range(200)]
    again = [disturb(given, RNG(seed)) for seed in range(200)]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))
    untouched = np.mean([np.array_equal(each, given) for each in drawn])
    # 0.8 no tail, 0.85 no halo, 0.75 no jitter, 0.88 no hum, 0.85 no gamma.
    assert untouched == pytest.approx(0.8 * 0.85 * 0.75 * 0.88 * 0.85, abs=0.1)
    assert all(np.isfinite(each).all() and each.dtype == np.float32 for each in drawn)


def test_gamma_bends_tones_and_keeps_black_and_the_brightest() -> None:
    given = np.array([[0.0, 0.25, 1.0]], np.float32)
    assert bent(given, 2.0) == pytest.approx(np.array([[0.0, 0.5, 1.0]]), abs=1e-6)
    assert bent(given, 1.0) == pytest.approx(given)


def test_hum_is_a_sine_of_the_rows_within_its_range() -> None:
    sizes = [float(np.abs(mains(4000, RNG(seed))).max()) for seed in range(40)]
    assert min(sizes) > 0.09 and max(sizes) <= 0.6


def test_a_recursive_average_correlates_noise_along_the_frame_and_leaves_the_signal() -> None:
    steady = np.zeros((256, 256), np.float32)
    along = across = 0
    for seed in range(120):
        noise = RNG(1000 + seed).standard_normal((256, 256)).astype(np.float32)
        counts, left = lag(steady, noise, RNG(seed))
        assert np.array_equal(counts, left)
        down = float((left[1:] * left[:-1]).mean() / left.var())
        right = float((left[:, 1:] * left[:, :-1]).mean() / left.var())
        along, across = along + (down > 0.03), across + (right > 0.03)
    assert 4 <= along <= 22 and 8 <= across <= 34  # a tenth of them, and a fifth less the shortest lags
