"""Sharpness measures as score readers: a number a picture, mapped to the score by the best monotone curve for each
magnification, fitted to the pictures that may be learnt from: more than those who use such measures give them."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from calibration.evaluate.score_folds import MAGNIFICATIONS, Fold, bin_of
from calibration.train.data import Samples
from calibration.train.figures import absolute_variance, laplacian_variance, spearman, tenengrad

FEWEST = 20  # pictures that a curve of its own is fitted to

Column = NDArray[np.float32]
Measure = Callable[[NDArray[np.uint8]], float]

MEASURES: dict[str, Measure] = {
    "absolute variance": absolute_variance,
    "Tenengrad": tenengrad,
    "Laplacian": laplacian_variance,
}


def measured(name: str, samples: Samples) -> Column:
    """(n,): the measure of each picture."""
    return np.array([MEASURES[name](image) for image in samples.image], np.float32)


def answers(sharp: Column, samples: Samples, fold: Fold) -> Column:
    """(len(fold.asked),): scores by the curve of the picture's magnification; of one left out, by its neighbours'."""
    bins = bin_of(samples)
    curves = {
        each: _curve(sharp, samples, fold.learnt[bins[fold.learnt] == each]) for each in range(len(MAGNIFICATIONS))
    }
    known = {each: curve for each, curve in curves.items() if curve is not None}
    if not known:  # a handful of pictures
        whole = _fitted(sharp[fold.learnt], samples.score[fold.learnt])
        return np.asarray(whole.predict(sharp[fold.asked]), np.float32)
    said = np.zeros(len(fold.asked), np.float32)
    for each in np.unique(bins[fold.asked]):
        here = bins[fold.asked] == each
        said[here] = np.mean([curve.predict(sharp[fold.asked[here]]) for curve in _near(known, int(each))], axis=0)
    return said


def _curve(sharp: Column, samples: Samples, rows: NDArray[np.intp]) -> IsotonicRegression | None:
    return None if len(rows) < FEWEST else _fitted(sharp[rows], samples.score[rows])


def _fitted(sharp: Column, score: Column) -> IsotonicRegression:
    """Rising or falling, whichever the pictures say: noise may make the blurred ones the rougher."""
    rising = spearman(sharp, score) >= 0.0
    return IsotonicRegression(y_min=0.0, y_max=10.0, increasing=rising, out_of_bounds="clip").fit(sharp, score)


def _near(known: dict[int, IsotonicRegression], number: int) -> list[IsotonicRegression]:
    """Its own curve, else those of the nearest magnification on either side."""
    if number in known:
        return [known[number]]
    below, above = [each for each in known if each < number], [each for each in known if each > number]
    return [known[each] for each in (*below[-1:], *above[:1])]
