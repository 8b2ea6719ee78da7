"""Roughness: its spectrum, its finite window, the correlation of edges, on lines and on any outline."""

from math import pi, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.twin.distance import disc
from calibration.twin.roughness import Roughness, edges, line_edges, matern_pair, psd, roughened_outline
from calibration.twin.surface import SpecimenError

ROUGH = Roughness(1.5, 10.0, 0.65)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def periodogram(records: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    length = records.shape[1]
    window = np.hanning(length)
    power = np.abs(np.fft.rfft(records * window, axis=1)) ** 2 / (window**2).sum()
    return np.fft.rfftfreq(length), power.mean(axis=0)


def test_the_spectrum_integrates_to_the_variance() -> None:
    f = np.linspace(-40.0, 40.0, 4_000_001)
    assert np.sum(psd(f, ROUGH)) * (f[1] - f[0]) == pytest.approx(1.5**2, rel=0.01)


def test_edges_have_the_spectrum_of_palasantzas() -> None:
    f, power = periodogram(edges(600, 1024, sigma_px=1.5, xi_px=10.0, hurst=0.65, rng=rng()))
    band = (f > 0.005) & (f < 0.25)
    decibel = 10.0 * np.log10(power[band] / psd(f[band], ROUGH))
    assert abs(decibel.mean()) < 0.2
    assert np.abs(decibel).max() < 1.5


def test_a_window_of_512_nm_measures_1_43_for_1_5() -> None:
    """s^2 - PSD(0) / L, the mean within the window taken off: the estimator's bias, not the generator's."""
    rough = Roughness(1.5, 20.0, 0.65)
    records = edges(2000, 512, sigma_px=1.5, xi_px=20.0, hurst=0.65, rng=rng(2))
    within = sqrt(float(records.var(axis=1).mean()))
    assert within == pytest.approx(sqrt(1.5**2 - psd(np.zeros(1), rough)[0] / 512), abs=0.01)
    assert within == pytest.approx(1.43, abs=0.01)
    assert records.std() == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("c", [-0.3, 0.0, 0.6, 1.0])
def test_the_width_of_a_line_is_as_rough_as_its_edges_and_their_correlation_say(c: float) -> None:
    record = line_edges(300, 1024, Roughness(1.2, 8.0, 0.7, c), rng=rng(3))
    left, right = record[::2].astype(float), record[1::2].astype(float)
    found = float((left * right).mean() / (left.std() * right.std()))
    assert found == pytest.approx(c, abs=0.03)
    lwr2 = left.var() + right.var() - 2.0 * found * left.std() * right.std()
    assert (right - left).var() == pytest.approx(lwr2, rel=0.01, abs=2e-3)
    assert (right - left).var() == pytest.approx(2.0 * 1.2**2 * (1.0 - c), rel=0.05, abs=1e-6)
    assert right.std() == pytest.approx(1.2, rel=0.03)


def test_every_straight_cut_of_a_plane_field_is_an_edge() -> None:
    one, two = matern_pair((700, 700), ROUGH, rng=rng(4))
    for cuts in (one, one.T, two):
        f, power = periodogram(np.asarray(cuts, np.float64))
        band = (f > 0.01) & (f < 0.25)
        decibel = 10.0 * np.log10(power[band] / psd(f[band], ROUGH))
        assert abs(decibel.mean()) < 0.5
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.1


def _crossings(inside: NDArray[np.float32], column: int) -> NDArray[np.floating]:
    """(h,) where each row changes sign near the column."""
    near = inside[:, column - 15 : column + 16].astype(float)
    first = np.argmax(near[:, :-1] * near[:, 1:] <= 0, axis=1)
    a, b = (np.take_along_axis(near, (first + k)[:, None], axis=1)[:, 0] for k in (0, 1))
    return column - 15 + first + a / (a - b)


def test_a_straight_outline_gets_the_rms_and_the_spectrum_asked_for() -> None:
    x = np.tile(np.arange(480, dtype=np.float32), (800, 1))
    inside = np.abs(x % 160 - 80) - 40  # edges every 80 px, far apart
    rough = roughened_outline(np.asarray(inside, np.float32), ROUGH, rng=rng(5))
    records = np.stack([_crossings(rough, column) - column for column in (40, 120, 200, 280, 360, 440)])
    assert records.std() == pytest.approx(1.5, rel=0.12)
    f, power = periodogram(records)
    band = (f > 0.01) & (f < 0.12)
    assert abs(10.0 * np.log10(power[band] / psd(f[band], ROUGH)).mean()) < 1.0


@pytest.mark.parametrize(("c", "low", "high"), [(-1.0, -1.0, -0.6), (0.0, -0.35, 0.35), (1.0, 0.6, 1.0)])
def test_edges_close_together_wander_as_their_correlation_says(c: float, low: float, high: float) -> None:
    x = np.tile(np.arange(64, dtype=np.float32), (900, 1))
    inside = np.asarray(6.0 - np.abs(x - 32.0), np.float32)
    found = []
    for seed in range(3):
        rough = roughened_outline(inside, Roughness(0.8, 40.0, 0.8, c), rng=rng(seed)).astype(float)
        left = 26.0 - rough[:, 26]  # to first order: the distance there is how far the edge has moved out
        right = 38.0 + rough[:, 38]
        found.append(float(np.corrcoef(left, right)[0, 1]))
    assert low <= np.mean(found) <= high


def test_a_hole_gets_a_closed_rough_outline() -> None:
    radii = []
    for seed in range(40):
        rough = roughened_outline(disc((96, 96), 48.0, 48.0, 25.0), Roughness(1.0, 6.0, 0.7), rng=rng(seed))
        turn = np.arange(128) * 2 * pi / 128
        at = np.round(48.0 + 25.0 * np.stack([np.sin(turn), np.cos(turn)])).astype(int)
        radii.append(rough[at[0], at[1]])  # zero on the ideal circle, but for rounding to pixels
    moved = np.array(radii)
    clean = disc((96, 96), 48.0, 48.0, 25.0)[at[0], at[1]]
    assert (moved - clean).std() == pytest.approx(1.0, rel=0.1)
    steps = np.abs(np.diff(np.concatenate([moved, moved[:, :1]], axis=1), axis=1))
    assert steps[:, -1].mean() < 1.5 * steps.mean()  # no jump where the turn closes


def test_impossible_roughness_is_refused_and_the_same_seed_gives_the_same_bytes() -> None:
    for wrong in ({"sigma_px": -1.0}, {"xi_px": 0.0}, {"hurst": 1.5}, {"correlation": 2.0}, {"sigma_px": float("nan")}):
        with pytest.raises(SpecimenError, match="roughness"):
            Roughness(**({"sigma_px": 1.0, "xi_px": 5.0} | wrong))
    inside = disc((64, 64), 30.0, 30.0, 14.0)
    one, two, other = (roughened_outline(inside, ROUGH, rng=rng(seed)) for seed in (7, 7, 8))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
