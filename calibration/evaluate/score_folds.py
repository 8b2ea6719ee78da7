"""What is left out of a training and asked afterwards: one kind of specimen, or one magnification. numpy only."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.train.data import Samples
from calibration.train.scenes import KINDS
from engines.autofocus import NEUTRAL_PIXEL_M

MAGNIFICATIONS = (500, 1000, 2000, 5000, 10000, 20000, 50000)
REFERENCE_WIDTH_M = 0.127  # of the picture that a magnification is told for
REFERENCE_PX = 1024  # across it

Mask = NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Fold:
    """Rows that a reader may learn from, and rows it is then asked about; none is in both, some are in neither."""

    by: Literal["specimen", "magnification"]
    name: str
    learnt: NDArray[np.intp]
    asked: NDArray[np.intp]


def folds(samples: Samples) -> list[Fold]:
    """A specimen and a magnification in turn, so that a bench that is stopped tells of both. Pictures of nothing are
    learnt from and never asked: they are easy, and of no kind."""
    pairs = zip_longest(_specimens(samples), _magnifications(samples))
    return [fold for pair in pairs for fold in pair if fold is not None]


def _specimens(samples: Samples) -> Iterator[Fold]:
    for number, name in enumerate(KINDS):
        asked = samples.kind == number
        yield Fold("specimen", name, np.nonzero(~asked)[0], np.nonzero(asked)[0])


def _magnifications(samples: Samples) -> Iterator[Fold]:
    bins, shown = bin_of(samples), samples.kind < len(KINDS)
    for number, magnification in enumerate(MAGNIFICATIONS):
        asked = bins == number
        yield Fold("magnification", named(magnification), np.nonzero(~asked)[0], np.nonzero(asked & shown)[0])


def named(magnification: int) -> str:
    return f"{magnification:,} x".replace(",", " ")


def pixel_size_m(magnification: float) -> float:
    return REFERENCE_WIDTH_M / REFERENCE_PX / magnification


def bin_of(samples: Samples) -> NDArray[np.intp]:
    """(n,): the nearest of the magnifications by the ratio of the pixel sizes."""
    own = np.log10([pixel_size_m(each) / NEUTRAL_PIXEL_M for each in MAGNIFICATIONS])
    return np.asarray(np.abs(samples.condition[:, :1] - own[None, :]).argmin(axis=1), np.intp)
