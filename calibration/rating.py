"""Ratings against the model's scores: a rising curve through them, and how far it may be believed. numpy only.

Isotonic regression by pooling adjacent violators, in its centred form (Oron and Flournoy, Statistics in
Biopharmaceutical Research 9, 2017): each pool stands at its mean score, and the curve runs straight between pools.
So it rises wherever ratings rise, where the plain form has steps that hide a change of focus.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LEAST_FRAMES = 10  # distinct ones: with fewer a pool holds next to nothing
LEAST_RATED = 1.0  # points from the lowest rating to the highest
LEAST_SCORED = 0.5  # the same of the model's scores
LEAST_SPEARMAN = 0.3  # below it a rising curve is not what the ratings say
SAME = 1e-6  # points: knots nearer than this are one


class RatingError(Exception):
    """Ratings that no scale can be made of, and why."""


@dataclass(frozen=True)
class Curve:
    """Knots of a rising curve: scores strictly, ratings not falling."""

    scores: Values
    ratings: Values

    def __call__(self, scores: Values) -> Values:
        """Straight between knots, constant beyond them."""
        return np.asarray(np.interp(scores, self.scores, self.ratings), np.float64)


@dataclass(frozen=True)
class Fit:
    """A curve and its errors, root mean square in points of 0..10, over distinct frames."""

    curve: Curve
    spearman: float
    error_before: float  # of the model's score as it is
    error_left_out: float  # of the curve through all other frames
    error_after: float  # of the curve through all frames


def fit(scores: Values, ratings: Values, weights: Values) -> Fit:
    """All (n,), one entry a distinct frame; weight: how many raters its rating is the mean of. Raises RatingError."""
    _check(scores, ratings)
    rank = spearman(scores, ratings)
    if not rank > LEAST_SPEARMAN:
        raise RatingError(
            f"the ratings do not rise with the model's score: rank correlation {rank:.2f}, more than {LEAST_SPEARMAN} "
            "is needed; was the scale read the wrong way round (10 is perfect), or do the frames differ in other "
            "things than focus?"
        )
    curve = rising(scores, ratings, weights)
    return Fit(
        curve=curve,
        spearman=rank,
        error_before=_rms(ratings - scores, weights),
        error_left_out=_rms(ratings - _left_out(scores, ratings, weights), weights),
        error_after=_rms(ratings - curve(scores), weights),
    )


def _check(scores: Values, ratings: Values) -> None:
    if len(scores) < LEAST_FRAMES:
        raise RatingError(f"{len(scores)} distinct frames are rated, {LEAST_FRAMES} at least are needed: rate more")
    for what, values, least in (("ratings", ratings, LEAST_RATED), ("model's scores", scores, LEAST_SCORED)):
        if np.ptp(values) < least:
            raise RatingError(
                f"the {what} only go from {values.min():.2g} to {values.max():.2g}, {least:g} apart at least is "
                "needed: rate frames from blurred to sharp"
            )


def rising(scores: Values, ratings: Values, weights: Values) -> Curve:
    """The curve. A score of 0 (noise, white, black) is 0 by the definition of both scales unless such were rated."""
    x, pooled = _pooled(scores, ratings, weights)
    ends = [(float(scores.min()), float(pooled[0])), (float(scores.max()), float(pooled[-1]))]
    if scores.min() > SAME:
        ends.insert(0, (0.0, 0.0))
    known = sorted({*ends, *zip(x.tolist(), pooled.tolist(), strict=True)})
    kept = [known[0]]
    for knot in known[1:]:
        if knot[0] - kept[-1][0] > SAME:
            kept.append(knot)
    return Curve(*(np.clip(np.array(each, np.float64), 0.0, 10.0) for each in zip(*kept, strict=True)))


def _pooled(scores: Values, ratings: Values, weights: Values) -> tuple[Values, Values]:
    """Mean score and mean rating of each pool; the latter is the isotonic regression's value there."""
    pools: list[tuple[float, float, float]] = []  # weight, mean score, mean rating
    for i in np.lexsort((ratings, scores)):
        pools.append((float(weights[i]), float(scores[i]), float(ratings[i])))
        while len(pools) > 1 and (pools[-2][2] >= pools[-1][2] or pools[-1][1] - pools[-2][1] <= SAME):
            (w0, x0, y0), (w1, x1, y1) = pools[-2:]
            w = w0 + w1
            pools[-2:] = [(w, (w0 * x0 + w1 * x1) / w, (w0 * y0 + w1 * y1) / w)]
    table = np.array(pools, np.float64)
    return table[:, 1], table[:, 2]


def _left_out(scores: Values, ratings: Values, weights: Values) -> Values:
    """Each frame told by the curve through the others."""
    told = np.empty_like(scores)
    for i in range(len(scores)):
        rest = np.arange(len(scores)) != i
        told[i] = rising(scores[rest], ratings[rest], weights[rest])(scores[i : i + 1])[0]
    return told


def spearman(a: Values, b: Values) -> float:
    """Rank correlation, equal values sharing their rank; 0 where one of the two is constant."""
    ranks = [_ranks(each) - (len(each) - 1) / 2.0 for each in (a, b)]
    norm = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / norm if norm > 0.0 else 0.0


def _ranks(values: Values) -> Values:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return np.asarray((last - (counts - 1) / 2.0)[which], np.float64)


def repeat_sigma(first: Values, second: Values) -> float | None:
    """One standard deviation of a single rating, from frames rated twice: differences spread by root two more."""
    return float(np.sqrt(np.mean((first - second) ** 2) / 2.0)) if len(first) else None


def _rms(errors: Values, weights: Values) -> float:
    return float(np.sqrt(np.average(errors**2, weights=weights)))
