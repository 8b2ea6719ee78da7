"""Ratings against scores: the curve against a library's regression, its errors, and what makes no scale."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression

from calibration.rating import RatingError, fit, repeat_sigma, rising, spearman

Values = NDArray[np.float64]


def bench(n: int, sigma: float = 1.0, seed: int = 1) -> tuple[Values, Values, Values]:
    """Scores, the ratings of an operator who is stricter than the model, in half points, and equal weights."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.5, 9.5, n)
    said = np.clip(np.round(2.0 * (strict(scores) + rng.normal(0.0, sigma, n))) / 2.0, 0.0, 10.0)
    return scores, said, np.ones(n)


def strict(scores: Values) -> Values:
    return np.asarray(10.0 * (scores / 10.0) ** 1.7)


def test_each_pool_has_the_value_of_the_isotonic_regression() -> None:
    scores, said, weights = bench(80)
    weights[::3] = 2.0
    curve = rising(scores, said, weights)
    theirs = IsotonicRegression().fit(scores, said, sample_weight=weights)
    inner = curve.scores[2:-1]  # between (0, 0), the lowest score, and the highest
    assert len(inner) > 5
    np.testing.assert_allclose(curve(inner), theirs.predict(inner), atol=1e-9)


def test_the_curve_is_nearer_to_the_truth_than_the_plain_regression() -> None:
    ours, theirs = [], []
    for seed in range(40):
        scores, said, weights = bench(30, seed=seed)
        at = np.linspace(scores.min(), scores.max(), 100)
        plain = IsotonicRegression().fit(scores, said)
        ours.append(np.sqrt(np.mean((rising(scores, said, weights)(at) - strict(at)) ** 2)))
        theirs.append(np.sqrt(np.mean((plain.predict(at) - strict(at)) ** 2)))
    assert np.mean(ours) < 0.9 * np.mean(theirs)


def test_knots_rise_and_equal_scores_share_one() -> None:
    scores = np.array([3.0, 3.0, 3.0, 5.0, 6.0, 6.0, 8.0])
    curve = rising(scores, np.array([1.0, 2.0, 3.0, 2.5, 7.0, 6.0, 6.5]), np.ones(7))
    assert (np.diff(curve.scores) > 0.0).all()
    assert (np.diff(curve.ratings) >= 0.0).all()
    assert curve(np.array([3.0, 0.0]))[0] == pytest.approx(2.0)


def test_nothing_is_0_on_both_scales_and_above_the_last_frame_nothing_is_promised() -> None:
    scores, said, weights = bench(30)
    curve = rising(scores, said, weights)
    assert curve(np.array([0.0]))[0] == 0.0
    assert curve(np.array([10.0]))[0] == curve(scores.max()[None])[0]


def test_blank_frames_that_were_rated_outrank_that_definition() -> None:
    curve = rising(np.array([0.0, 4.0, 8.0]), np.array([1.0, 5.0, 9.0]), np.ones(3))
    assert curve(np.array([0.0]))[0] == 1.0


def test_the_error_left_out_is_that_of_frames_never_seen() -> None:
    told, fresh = [], []
    new_scores, new_said, _ = bench(4000, seed=99)
    for seed in range(20):
        found = fit(*bench(40, seed=seed))
        assert found.error_after < found.error_left_out < found.error_before
        told.append(found.error_left_out)
        fresh.append(np.sqrt(np.mean((new_said - found.curve(new_scores)) ** 2)))
    assert np.mean(told) == pytest.approx(np.mean(fresh), rel=0.05)


def test_a_frame_with_three_raters_counts_three_times() -> None:
    scores, said = np.array([2.0, 5.0, 5.0, 8.0]), np.array([2.0, 4.0, 8.0, 9.0])
    curve = rising(scores, said, np.array([1.0, 3.0, 1.0, 1.0]))
    assert curve(np.array([5.0]))[0] == pytest.approx((3.0 * 4.0 + 8.0) / 4.0)


def test_rank_correlation_with_ties_is_the_librarys() -> None:
    scores, said, _ = bench(50)
    assert spearman(scores, np.round(said)) == pytest.approx(spearmanr(scores, np.round(said)).statistic)
    assert spearman(scores, np.full(50, 3.0)) == 0.0


def test_repeats_tell_the_spread_of_one_rating() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(5.0, 0.7, (2, 4000))
    assert repeat_sigma(first, second) == pytest.approx(0.7, rel=0.05)
    assert repeat_sigma(np.empty(0), np.empty(0)) is None


@pytest.mark.parametrize(
    ("scores", "said", "why"),
    [
        (np.arange(9.0), np.arange(9.0), "9 distinct frames are rated, 10 at least"),
        (np.arange(12.0) / 1.2, np.full(12, 5.0), "the ratings only go from 5 to 5"),
        (np.linspace(7.0, 7.3, 12), np.linspace(0.0, 9.0, 12), "the model's scores only go from 7 to 7.3"),
        (np.arange(12.0) / 1.2, 10.0 - np.arange(12.0) / 1.2, "rank correlation -1.00"),
        (np.empty(0), np.empty(0), "0 distinct frames are rated"),
    ],
)
def test_what_makes_no_scale_is_said(scores: Values, said: Values, why: str) -> None:
    with pytest.raises(RatingError, match=why):
        fit(scores, said, np.ones(len(scores)))
