"""From a coarse start to the top of the likelihood: Gauss-Newton with the registration renewed on the way. Pure."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import Hypothesis
from agent.control.patchwise import Patchwise
from agent.control.search import TEMPER, Search
from agent.control.starts import Start
from agent.control.tilt import Field, Prior, plane

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Mode:
    """A maximum of the likelihood, in h and ln alpha, with its curvature."""

    theta: Real  # z, ax, ay [h], ln alpha factor, contrasts
    value: float
    covariance: Real
    shifts: Real
    pupil: str
    slope_h_per_px: tuple[float, float] | None = None  # of focus over the field; None: level as far as it can tell


def allow_for_errors(search: Search, start: Start) -> None:
    """The weights by which all starts are climbed from."""
    _use(search, start)
    factor = float(np.exp(start.stretch))
    search.scene.allow_for_errors(Hypothesis(start.z_h * search.h, alpha_factor=factor))


def climb(search: Search, start: Start) -> Mode:
    """Gauss-Newton on (z, ax, ay[, ln alpha]), the shifts renewed half-way."""
    theta = np.zeros(4 + search.gains)
    theta[0], theta[3] = start.z_h, start.stretch
    _use(search, start)
    for steps in (4, 6):
        theta = _newton(search, theta, steps=steps)
        search.scene.refine_shifts(search.at(theta))
    return _mode(search, theta)


def polished(search: Search, mode: Mode) -> Mode:
    """The best mode once more, with the magnification change decided."""
    _use(search, mode)
    scene, at = search.scene, search.at(mode.theta)
    if search.instrument.scale_per_m is None:
        scene.choose_scale(at, 1.0 / search.reference.working_distance_m)
    scene.refine_shifts(at)
    scene.allow_for_errors(at)
    return _mode(search, _newton(search, mode.theta, steps=6))


def again(search: Search, mode: Mode) -> Mode:
    """A rival's value by the weights that the best mode was judged by."""
    _use(search, mode)
    value = float(search.scene.likelihood([search.at(mode.theta)])[0])
    return replace(mode, value=value - TEMPER * search.surprise(mode.theta))


def tilted(search: Search, best: Mode) -> tuple[Mode, Patchwise]:
    """The best mode with a plane of focus over the field, where the patches ask for one; and what patches say.

    Its value stays what it is without: rivals were judged so.
    """
    _use(search, best)
    patchwise, at = Patchwise(search.scene), search.at(best.theta)
    field, gains = Field(patchwise, search.h, at.gains), best.theta[4:]
    found = plane(field, at, lambda theta: _belief(search, theta, gains), step=search.step[:4], temper=TEMPER)
    if found is None:
        return best, patchwise
    covariance = best.covariance
    if not search.gains:  # which are left as they were, with what they leave open
        covariance = np.zeros_like(covariance)
        covariance[np.ix_(search.free, search.free)] = found.covariance
    theta = np.append(found.theta, gains)
    return replace(best, theta=theta, covariance=covariance, slope_h_per_px=found.slope_h_per_px), patchwise


def _use(search: Search, found: Start | Mode) -> None:
    """Its pupil and its registration."""
    search.scene.set_pupil(found.pupil)
    search.scene.align(found.shifts)


def _belief(search: Search, theta: Real, gains: Real) -> Prior:
    """Of z, ax, ay and ln alpha, the contrasts as they are."""
    whole = np.append(theta, gains)
    sides = [search.sides(whole, i) for i in range(4)]
    slopes = [(search.surprise(above) - search.surprise(below)) / 2.0 for above, below in sides]
    free = tuple(i for i in search.free if i < 4)
    gradient = TEMPER * np.array(slopes) / search.step[:4]
    return Prior(TEMPER * search.surprise(whole), gradient, search.prior_curvature(whole)[:4], free)


def _mode(search: Search, theta: Real) -> Mode:
    value, _, curvature = _local(search, theta)
    free, scene = search.free, search.scene
    covariance = np.zeros((theta.size, theta.size))
    covariance[np.ix_(free, free)] = np.linalg.inv(curvature)
    return Mode(theta, value, covariance, scene.shifts.copy(), scene.column.pupil)


def _local(search: Search, theta: Real) -> tuple[float, Real, Real]:
    """Value, gradient by central differences, and the expected curvature (never negative) with the priors'."""
    free = search.free
    step = search.step[free]
    points = [theta, *(side for a in free for side in search.sides(theta, a))]
    heard, curvature = search.scene.around([search.at(point) for point in points], step)
    values = heard - TEMPER * np.array([search.surprise(point) for point in points])
    gradient = (values[1::2] - values[2::2]) / (2 * step)
    return float(values[0]), gradient, np.asarray(curvature + np.diag(search.prior_curvature(theta)[free]))


def _newton(search: Search, theta: Real, *, steps: int) -> Real:
    """Gauss-Newton with damping; a step that does not climb is shortened."""
    damping = 0.0
    value, gradient, curvature = _local(search, theta)
    for _ in range(steps):
        step = np.zeros(theta.size)
        damped = curvature + damping * np.diag(np.diag(curvature) + 1e-6)
        step[search.free] = np.linalg.solve(damped, gradient)
        bound = np.array([2.0 + 0.1 * abs(theta[0]), 1.5, 1.5, 0.15, *[0.3] * search.gains])
        step /= max(1.0, float(np.max(np.abs(step) / bound)))
        trial = theta + step
        there = _local(search, trial)
        if there[0] > value:
            theta, (value, gradient, curvature), damping = trial, there, damping / 4.0
            if np.abs(step).max() < 0.02:
                break
        elif damping > 100 or np.abs(step).max() < 0.01:
            break
        else:
            damping = max(4.0 * damping, 0.5)
    return theta
