"""Robust least squares over all frames at once: shared constants, and of each frame its gain, offset and place.

Rounds: the noise and the levels that cannot be noise are found from what the last round left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.fit.doubt import inflated
from calibration.fit.model import Model, Seen
from calibration.fit.noise import Noise, measured, smoothed
from calibration.fit.priors import Prior, usual
from calibration.fit.sample import Sample

Field = NDArray[np.float32]
Vector = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

STEPS = (8, 8, 12)  # of each round at most; the early ones find the noise
ENOUGH = 1e-5  # relative fall of the sum of squares below which a round ends
PULL = 0.3  # of one sigma for a prior's whole range: keeps constants without effect where they are, moves no other
# Neighbours that are wrong together by more sigma than this (a defect, dirt, an edge that is not where it was drawn)
# are trusted less, as in Charbonnier's loss. A box of 3x3 is asked: its mean is hardly skew, as single counts are.
TRUSTED, LOOK_PX = 4.0, 3


@dataclass(frozen=True)
class Solved:
    """shares: constants, 0..1 between their bounds; places: of each frame."""

    shares: Vector
    places: tuple[Vector, ...]
    models: tuple[Model, ...]
    noise: tuple[Noise, ...]
    seen: tuple[Seen, ...]
    information: Vector  # J^T J: constants first, then the places frame by frame
    inflation: float  # of the variance: more than 1 where the twin misses something

    @property
    def renders(self) -> int:
        return sum(model.renders for model in self.models)


@dataclass(frozen=True)
class Begin:
    """Where a search starts. None: places as the geometry has them."""

    shares: Vector
    places: tuple[Vector, ...] | None = None
    seen: tuple[Seen, ...] | None = None


def solve(
    samples: Sequence[Sample],
    free: tuple[Prior, ...],
    fixed: dict[str, float],
    *,
    begin: Begin,
    progress: Progress = lambda stage, done, of: None,
) -> Solved:
    """fixed: constants that are not free, by name."""
    models = [Model(sample, free, fixed, np.ones(sample.levels.shape)) for sample in samples]
    shares, places = begin.shares, begin.places or tuple(model.usual_places() for model in models)
    seen: tuple[Seen | None, ...] = begin.seen or (None,) * len(models)
    rounds = STEPS if begin.seen is None else STEPS[-1:]  # a search taken up again knows its noise
    for done, steps in enumerate(rounds):
        progress("fit", done, len(rounds))
        models = [_weighed(model, each) for model, each in zip(models, seen, strict=True)]
        shares, places = _search(models, Begin(shares, places), usual(free), steps)
        seen = tuple(model.seen(shares, at) for model, at in zip(models, places, strict=True))
    progress("fit", len(rounds), len(rounds))
    return _solved(models, shares, places)


def _solved(models: Sequence[Model], shares: Vector, places: tuple[Vector, ...]) -> Solved:
    """With the noise and the trust that the last round leaves."""
    seen = tuple(model.seen(shares, at) for model, at in zip(models, places, strict=True))
    weighed = tuple(_weighed(model, each) for model, each in zip(models, seen, strict=True))
    left = [(m.sample.levels - each.levels) * m.weight for m, each in zip(weighed, seen, strict=True)]
    return Solved(
        shares,
        places,
        models=weighed,
        noise=tuple(_noise(model.sample, each) for model, each in zip(weighed, seen, strict=True)),
        seen=seen,
        information=_information(weighed, shares, places),
        inflation=max(1.0, float(np.mean([inflated(each) for each in left]))),
    )


def _noise(sample: Sample, seen: Seen | None) -> Noise:
    signal = smoothed(sample.levels) if seen is None else seen.levels
    return measured(sample.levels, signal, sample.valid, counts=sample.counts)


def _weighed(model: Model, seen: Seen | None) -> Model:
    """One over sigma, less where neighbours are wrong together; 0 where a level does not count."""
    sample = model.sample
    signal = smoothed(sample.levels) if seen is None else seen.levels
    weight = np.where(sample.valid, 1.0 / np.sqrt(_noise(sample, seen).variance(signal)), 0.0)
    if seen is not None:
        off = np.asarray((sample.levels - seen.levels) * weight, np.float64)
        together = LOOK_PX * cv2.blur(off, (LOOK_PX, LOOK_PX), borderType=cv2.BORDER_REFLECT)
        weight = weight / np.sqrt(1.0 + (together / TRUSTED) ** 2) ** 0.5
    return replace(model, weight=weight)


def _search(models: Sequence[Model], begin: Begin, prior: Vector, steps: int) -> tuple[Vector, tuple[Vector, ...]]:
    """One call of the trust-region solver, bounds 0..1."""
    places = begin.places or ()
    begun = np.concatenate([begin.shares, *places])
    if begun.size == 0:
        return begin.shares, places
    count = begin.shares.size

    def left(x: Vector) -> Vector:
        parts = [m.residual(x[:count], at) for m, at in zip(models, _parted(models, x[count:]), strict=True)]
        return np.concatenate([*parts, PULL * (x[:count] - prior)])

    def slope(x: Vector) -> Vector:
        return _stacked(models, x[:count], _parted(models, x[count:]))

    inside = np.clip(begun, 1e-6, 1.0 - 1e-6)
    found = least_squares(left, inside, jac=slope, bounds=(0.0, 1.0), method="trf", max_nfev=steps, ftol=ENOUGH)
    x = np.asarray(found.x, np.float64)
    return x[:count], _parted(models, x[count:])


def _parted(models: Sequence[Model], x: Vector) -> tuple[Vector, ...]:
    """The places frame by frame."""
    ends = np.cumsum([model.places for model in models])[:-1]
    return tuple(np.asarray(part, np.float64) for part in np.split(x, ends))


def _stacked(models: Sequence[Model], shares: Vector, places: Sequence[Vector]) -> Vector:
    """(residuals + constants, constants + places of all): each frame's places move its own levels only."""
    count, total = shares.size, shares.size + sum(model.places for model in models)
    blocks, first = [], count
    for model, at in zip(models, places, strict=True):
        own = model.jacobian(shares, at)
        block = np.zeros((len(own), total))
        block[:, :count], block[:, first : first + model.places] = own[:, :count], own[:, count:]
        blocks.append(block)
        first += model.places
    return np.concatenate([*blocks, PULL * np.eye(count, total)])


def _information(models: Sequence[Model], shares: Vector, places: Sequence[Vector]) -> Vector:
    """Of the frames alone, without the pull of the priors."""
    slope = _stacked(models, shares, places)[: -shares.size or None]
    return np.asarray(slope.T @ slope, np.float64)
