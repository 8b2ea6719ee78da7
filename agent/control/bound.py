"""The least sigma that any unbiased estimator could have of a set of frames: Cramer and Rao's bound. Pure.

Whitened samples of the frames are sqrt(P) h exp(-i k d) plus noise, P the object's power, unknown in every cell, h the
frames' transfers, d their shifts, unknown too. Along u = h/|h| the signal to noise is s = P |h|^2, and what the frames
tell of a parameter is the sum over samples of 2 s^2/(1+s) |du|^2. A shift changes the phase of u and the optics its
size, at right angles: so registration that is free costs nothing, and P, which leaves u where it is, costs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.instrument import Instrument
from agent.control.likelihood import DARK, Hypothesis, Scene
from agent.control.search import scene_of
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m

Real = NDArray[np.float64]
Transfers = Callable[[Hypothesis], Real]  # -> (frame, cell)

STEP_H = 0.05  # of the half depth of focus: differences
STEP_ALPHA = 0.01  # of its logarithm


@dataclass(frozen=True)
class Bound:
    """Of the last frame's setting; sigma_a_m of either component, their root mean square."""

    sigma_z_m: float
    sigma_a_m: float


def bound(
    evidence: Sequence[Evidence],
    instrument: Instrument,
    *,
    defocus_m: float,
    astigmatism_m: tuple[float, float] = (0.0, 0.0),
) -> Bound:
    """Of these very frames, whose object is read off them, at the true defocus and astigmatism of the last one.

    The angle is free within what the instrument says of it. Raises ValueError where it says nothing.
    """
    if instrument.alpha_rad is None:
        raise ValueError("a bound needs the convergence angle of the instrument")
    scene = scene_of(evidence, instrument)
    last = evidence[-1]
    h = half_depth_of_focus_m(last.pixel_size_m, instrument.alpha_rad, instrument.fw50_m)
    known = instrument.alpha_sigma_rad / instrument.alpha_rad
    at = Hypothesis(defocus_m, *astigmatism_m)
    heard = _heard(scene, at)
    return least_sigmas(heard, lambda there: scene.transfer([there])[0].astype(float), at, h=h, alpha_sigma=known)


def least_sigmas(heard: Real, transfers: Transfers, at: Hypothesis, *, h: float, alpha_sigma: float = 0.0) -> Bound:
    """heard: (cell,) samples * 2 s^2/(1+s) of each cell; alpha_sigma: relative, 0 where the angle is known."""
    moved = [(replace(at, z_m=at.z_m + d * STEP_H * h)) for d in (1, -1)]
    moved += [replace(at, ax_m=at.ax_m + d * STEP_H * h) for d in (1, -1)]
    moved += [replace(at, ay_m=at.ay_m + d * STEP_H * h) for d in (1, -1)]
    steps = [STEP_H, STEP_H, STEP_H]
    if alpha_sigma > 0.0:
        moved += [replace(at, alpha_factor=at.alpha_factor * float(np.exp(d * STEP_ALPHA))) for d in (1, -1)]
        steps.append(STEP_ALPHA)
    u = [_direction(transfers(each)) for each in moved]
    slopes = np.stack(
        [((a - b) / (2.0 * s) * np.sqrt(heard)).ravel() for a, b, s in zip(u[0::2], u[1::2], steps, strict=True)]
    )
    information = slopes @ slopes.T
    if alpha_sigma > 0.0:
        information[3, 3] += 1.0 / alpha_sigma**2
    covariance = np.linalg.inv(information + 1e-12 * np.eye(len(steps)))
    sigma_a = float(np.sqrt(0.5 * (covariance[1, 1] + covariance[2, 2])))
    return Bound(float(np.sqrt(covariance[0, 0])) * h, sigma_a * h)


def expected_sigma_m(
    scene: Scene, at: Hypothesis, *, way_m: float, h: float, sigma_m: float = 0.0, alpha_sigma: float = 0.0
) -> float:
    """Least sigma of defocus once a frame more is taken, as noisy as the last one, `way_m` further out than it.

    at: of the last frame, known to sigma_m: the mean of the logarithm over it and one sigma either side.
    """
    places = [replace(at, z_m=at.z_m + side * sigma_m) for side in ((0.0,) if sigma_m == 0.0 else (-1.0, 0.0, 1.0))]
    logs = [np.log(_with_one_more(scene, place, way_m, h=h, alpha_sigma=alpha_sigma)) for place in places]
    return float(np.exp(np.mean(logs)))


def _with_one_more(scene: Scene, at: Hypothesis, way_m: float, *, h: float, alpha_sigma: float) -> float:
    def transfers(there: Hypothesis) -> Real:
        last, alpha = scene.views[-1].stigmation_m, np.array([[scene.column.alpha_rad * there.alpha_factor]])
        z, ax, ay = (np.array([[value]]) for value in (there.z_m + way_m, there.ax_m + last[0], there.ay_m + last[1]))
        known = scene.transfer([there])[0].astype(float)
        return np.vstack([known, scene.transfer_at(z, ax, ay, alpha)[0].astype(float)])

    power, h2 = _power(scene, at), transfers(at) ** 2
    heard = told(power * h2.sum(axis=0), scene.weight[scene.active])
    return least_sigmas(heard, transfers, at, h=h, alpha_sigma=alpha_sigma).sigma_z_m


def told(signal: Real, samples: Real) -> Real:
    """What a cell of this signal to noise along u tells of a turn of u."""
    return np.asarray(samples * 2.0 * signal**2 / (1.0 + signal))


def _direction(h: Real) -> Real:
    return np.asarray(h / np.sqrt((h**2).sum(axis=0) + DARK))


def _power(scene: Scene, at: Hypothesis) -> Real:
    """The object's, in each cell, in units of the noise."""
    h2 = scene.transfer([at])[0].astype(float) ** 2
    return np.asarray(np.maximum((h2 * (scene.heard - 1.0)).sum(axis=0), 0.0) / ((h2**2).sum(axis=0) + DARK))


def _heard(scene: Scene, at: Hypothesis) -> Real:
    """Of each cell, by the power that its frames were heard with; what chance adds to a square is taken off."""
    h2 = scene.transfer([at])[0].astype(float) ** 2
    fourth = (h2**2).sum(axis=0) + DARK
    power = _power(scene, at)
    samples = scene.weight[scene.active]
    signal = power * h2.sum(axis=0)
    chance = (h2**2 * (1.0 + power * h2) ** 2).sum(axis=0) / fourth**2 * h2.sum(axis=0) ** 2 / samples
    return np.asarray(np.maximum(samples * 2.0 * (signal**2 - chance) / (1.0 + signal), 0.0))
