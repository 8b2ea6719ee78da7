"""Rows of the focus bench in, figures out: known answers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.evaluate.focus_figures import (
    abstention,
    at_line_focus,
    auroc,
    counted,
    falsely,
    figures,
    strata,
)
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_rows import Row, Said
from calibration.evaluate.focus_targets import Target, targets

GOOD = Row(
    method="m", number=0, fault=None, specimen="grains", textured=True, stratum=1, snr=1.8, h_m=1e-6,
    pixel_size_m=10e-9, alpha_rad=5e-3, start_h=-8.0, start_astigmatism_h=0.2, hysteresis_h=0.1,
    end=End.CONVERGED, reason="", residual_h=0.1, astigmatism_h=0.1, moved_h=0.0, frames=3, scans=4,
    electrons=1e6, seconds=2.0, moves=2, wrong_moves=0, said=(Said(2, -8.0, 0.5, -8.2), Said(3, 0.1, 0.1, 0.15)),
    took_ms=(50.0, 100.0), method_s=0.2, twin_s=0.4,
)  # fmt: skip
HELD = replace(GOOD, number=1, end=End.HELD, reason="featureless", residual_h=-8.0, said=())


def several(row: Row, count: int) -> list[Row]:
    return [replace(row, number=row.number + i) for i in range(count)]


def test_wilson_intervals_are_those_of_the_tables() -> None:
    none, half = counted(0, 10), counted(5, 10)
    assert (none.low, none.high) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.2775, abs=1e-3))
    assert (half.low, half.high) == (pytest.approx(0.2366, abs=1e-3), pytest.approx(0.7634, abs=1e-3))
    assert counted(0, 0).value is None


def test_ends_and_residuals_are_counted() -> None:
    told = figures([*several(GOOD, 3), HELD])
    assert (told.n, told.converged.k, told.held.k, told.failed.k) == (4, 3, 1, 0)
    assert told.within_h.k == 3 and told.reasons == {"featureless": 1}
    assert told.residual_h is not None and told.residual_converged_h is not None
    assert told.residual_h.p95 > 5.0 > 0.2 > told.residual_converged_h.p95
    assert told.took_ms is not None and told.took_ms.n == 8 and told.took_ms.p50 == pytest.approx(75.0)


def test_a_claim_is_false_by_defocus_and_by_astigmatism() -> None:
    assert falsely(replace(GOOD, residual_h=-1.2)) and falsely(replace(GOOD, astigmatism_h=1.1))
    assert not falsely(GOOD) and not falsely(replace(HELD, residual_h=-8.0))


def test_worse_is_against_what_would_have_been_without_the_method() -> None:
    stage = replace(GOOD, start_h=2.0, moved_h=5.0, residual_h=6.0)
    assert stage.worse_h == pytest.approx(-1.0), "the stage moved it to 7 h"
    assert figures([replace(GOOD, start_h=0.1, residual_h=0.4)]).worse.k == 1
    assert figures([replace(GOOD, start_h=0.1, residual_h=0.3)]).worse.k == 0


def test_a_line_focus_is_one_sharp_axis() -> None:
    assert at_line_focus(replace(GOOD, residual_h=-1.9, astigmatism_h=2.0))
    assert not at_line_focus(replace(GOOD, residual_h=0.1, astigmatism_h=2.0))
    assert not at_line_focus(replace(GOOD, residual_h=0.2, astigmatism_h=0.2))


def test_gaussian_errors_are_covered_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    said = tuple(Said(2, float(z), 0.5, 0.0) for z in 0.5 * rng.standard_normal(4000))
    told = figures([replace(GOOD, said=said)]).defocus
    assert told.within_68.value == pytest.approx(0.683, abs=0.02)
    assert told.within_95.value == pytest.approx(0.95, abs=0.01)


def test_both_components_of_astigmatism_are_covered_or_not() -> None:
    both = Said(2, 0.0, 1.0, 0.0, (1.0, 0.0), 0.4, (0.0, 0.0))
    told = figures([replace(GOOD, said=(both,))]).astigmatism
    assert (told.within_68.k, told.within_68.n) == (1, 2)


# --- abstention ---


def test_auroc_of_perfect_useless_and_missing_scores() -> None:
    assert auroc([3.0, math.inf], [1.0, 2.0]) == 1.0
    assert auroc([1.0, 2.0], [1.0, 2.0]) == 0.5
    assert auroc([], [1.0]) is None


def test_holding_on_the_flat_and_answering_on_the_textured_is_perfect() -> None:
    flat = replace(HELD, specimen="flat", textured=False)
    told = abstention([*several(GOOD, 5), flat])
    assert (told.textured.k, told.featureless.k, told.auroc) == (0, 1, 1.0)


def test_a_wrong_answer_that_it_trusts_counts_against_it() -> None:
    wrong = replace(GOOD, said=(Said(3, 0.0, 0.01, 4.0),), residual_h=4.0)
    assert abstention([*several(GOOD, 5), wrong]).auroc == 0.0


# --- targets ---


def named(rows: list[Row]) -> dict[str, Target]:
    return {each.name: each for each in targets(rows)}


def test_targets_are_met_and_missed_by_how_much() -> None:
    told = named([*several(GOOD, 9), replace(GOOD, number=50, residual_h=3.0)])
    median = told["residual, median, SNR 1.3 and above, all textured"]
    assert median.met and median.measured == "0.10 h" and median.n == 10
    false = told["false converged"]
    assert false.met is False and false.by == "9.0 points" and false.measured.startswith("10.0 %")
    assert told["residual, median, SNR 0.64, all textured"].met is None, "nothing was measured"
    assert told["ends worse, textured"].met


def test_frames_count_only_where_it_ends_in_focus() -> None:
    name = "in focus in 3 frames from 12 h"
    assert named(several(GOOD, 4))[name].met
    assert named([*several(GOOD, 4), replace(GOOD, number=9, frames=4)])[name].met is False
    assert named([*several(GOOD, 4), replace(HELD, number=9)])[name].met is False


def test_play_of_the_lens_is_no_estimators_fault() -> None:
    loose = several(replace(GOOD, residual_h=0.2, hysteresis_h=0.44), 5)
    assert named(loose)["residual, median, SNR 1.3 and above, all textured"].asked == "<= 0.22 h"


def test_too_wide_an_interval_misses_as_one_too_narrow_does() -> None:
    wide = replace(GOOD, said=tuple(Said(2, 0.0, 1.0, 0.0) for _ in range(50)))
    assert named([wide])["68 % intervals of defocus"].met is False


def test_every_textured_row_is_in_one_stratum_of_each_kind() -> None:
    rows = [
        *several(GOOD, 3),
        replace(GOOD, number=7, snr=0.64, stratum=3),
        replace(HELD, specimen="flat", textured=False),
    ]
    found = strata(rows)
    for by in ("start", "snr", "astigmatism", "pixel"):
        assert sum(map(len, found[by].values())) == 4
    assert list(found["snr"]) == ["SNR 0.64", "SNR 1.8"]
    assert list(found["specimen"]) == ["grains", "flat"]
