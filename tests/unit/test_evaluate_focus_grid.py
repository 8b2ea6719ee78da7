"""The focus bench's cases: a stratified sample whatever its size, and what goes wrong on purpose."""

from collections import Counter

import numpy as np
import pytest

from calibration.evaluate.focus_faults import (
    EPISODES,
    FAULTS,
    behind,
    doubled,
    late,
    lossy,
    numbers,
    shuffled,
    torn,
)
from calibration.evaluate.focus_grid import (
    ALPHA_SIGMA,
    FEATURELESS,
    MOST_ASTIGMATISM_H,
    NEAR,
    REACH,
    SNRS,
    STIGMATED_H,
    WORKING_DISTANCE_M,
    Case,
    draw,
)
from calibration.twin.instrument import draw as drawn
from calibration.twin.script import Parts, StreamFilter
from calibration.twin.specimen import TEXTURED


def cases(count: int, seed: int) -> list[Case]:
    return [draw(number, seed=seed) for number in range(count)]


@pytest.mark.parametrize("seed", [1, 77])
def test_fifty_cases_meet_every_stratum(seed: int) -> None:
    found = cases(50, seed)
    textured = [case for case in found if case.textured]
    cells = {(case.stratum, case.snr) for case in textured}
    assert cells == {(stratum, snr) for stratum in range(len(NEAR) - 1) for snr in SNRS}
    for stratum in range(len(NEAR) - 1):
        here = [case for case in textured if case.stratum == stratum]
        assert {case.defocus_h > 0 for case in here} == {True, False}
        assert all(NEAR[stratum] <= abs(case.defocus_h) <= NEAR[stratum + 1] for case in here)
    assert {case.astigmatism_h > STIGMATED_H for case in textured} == {True, False}
    assert set(TEXTURED) | set(FEATURELESS) == {case.specimen for case in found}
    assert {case.latency_s > 0.0 for case in found} == {True, False}


def test_sixty_four_textured_cases_are_every_combination_once() -> None:
    textured = [case for case in cases(73, 5) if case.textured]
    counts = Counter(
        (case.stratum, case.snr, case.defocus_h > 0, case.astigmatism_h > STIGMATED_H) for case in textured
    )
    assert len(counts) == len(textured) == 64


def test_a_case_is_the_same_whoever_draws_it() -> None:
    assert draw(17, seed=3) == draw(17, seed=3)
    assert draw(17, seed=3) != draw(17, seed=4)
    assert len({case.settings.seed for case in cases(20, 1)}) == 20


def test_every_case_is_within_reach_of_its_column() -> None:
    for case in cases(40, 2):
        settings, true = case.settings, drawn(case.settings)
        assert abs(true.start_defocus_m) <= REACH * WORKING_DISTANCE_M * (1 + 1e-9)
        assert true.start_defocus_m / case.h_m == pytest.approx(case.defocus_h)
        assert np.hypot(*true.astigmatism_m) / case.h_m == pytest.approx(case.astigmatism_h)
        assert case.astigmatism_h <= MOST_ASTIGMATISM_H
        knobs = np.linalg.solve(np.asarray(settings.stigmator_matrix_m), true.astigmatism_m)
        assert np.abs(knobs).max() < 1.0, "the stigmators can undo it"
        assert settings.hysteresis_m <= 0.5 * case.h_m
        assert 2e-9 <= settings.pixel_size_m <= 100e-9 and 2e-3 <= settings.alpha_rad <= 10e-3
        assert abs(case.alpha_error) <= 0.1


def test_certificates_are_off_by_as_much_as_they_say() -> None:
    errors = np.array([case.alpha_error for case in cases(120, 3)])
    assert 0.7 < np.sqrt(np.mean(errors**2)) / ALPHA_SIGMA < 1.3


def test_named_specimens_are_looked_at_in_turn() -> None:
    found = [draw(number, seed=1, specimens=("logic", "flat")) for number in range(4)]
    assert [case.specimen for case in found] == ["logic", "flat"] * 2
    assert [case.textured for case in found] == [True, False] * 2


# --- faults ---


def test_faults_are_tried_on_the_same_specimens_near_enough() -> None:
    chosen = [draw(number, seed=1) for number in numbers(1)]
    assert len(chosen) == EPISODES
    assert all(case.textured and abs(case.defocus_h) <= 30.0 for case in chosen)
    assert len(numbers(1, ("flat",))) == EPISODES, "who names a specimen gets it"


def through(stream: StreamFilter, count: int = 5) -> list[list[tuple[bytes, bytes]]]:
    """What becomes of `count` messages, header h0 with pixels p0 and so on."""
    return [[_bytes(parts) for parts in stream(i, (b"h%d" % i, b"p%d" % i))] for i in range(count)]


def _bytes(parts: Parts) -> tuple[bytes, bytes]:
    return bytes(parts[0]), bytes(parts[1])


def names(messages: list[list[tuple[bytes, bytes]]]) -> list[str]:
    return [" ".join((header + pixels).decode() for header, pixels in several) for several in messages]


def test_streams_lose_repeat_and_mix_frames() -> None:
    assert names(through(late(), 3)) == ["h0p0", "h1p1 h0p0", "h2p2 h1p1"]
    assert names(through(behind(), 3)) == ["h0p0", "h1p0", "h2p1"]
    assert names(through(lossy())) == ["h0p0", "", "h2p2", "h3p3", ""]
    assert names(through(doubled(), 2)) == ["h0p0 h0p0", "h1p1 h1p1"]
    assert names(through(shuffled())) == ["h0p0", "", "h2p2 h1p1", "h3p3", ""]
    assert names(through(torn(), 2)) == ["h0p0", "h1p"]


def test_filters_of_two_episodes_share_no_frame() -> None:
    fault = FAULTS["stale pixels"]
    assert through(fault.stream(), 2) == through(fault.stream(), 2)


def test_certificates_and_columns_are_wrong_as_named() -> None:
    from calibration.twin.instrument import MicroscopeSettings
    from calibration.twin.microscope import VirtualMicroscope

    true = VirtualMicroscope(MicroscopeSettings(specimen="flat", shape=(64, 64))).certificate()
    assert FAULTS["alpha 30 % low"].certificate(true).alpha_rad == pytest.approx(0.7 * true.alpha_rad)
    flipped = FAULTS["flipped stigmator"].certificate(true)
    before, after = (each.stigmator_to_astigmatism_m(1.0, 0.0) for each in (true, flipped))
    assert after == (-before[0], -before[1])
    assert flipped.stigmator_to_astigmatism_m(0.0, 1.0) == true.stigmator_to_astigmatism_m(0.0, 1.0)
    settings = MicroscopeSettings()
    assert all(fault.settings(settings) is not None for fault in FAULTS.values())
