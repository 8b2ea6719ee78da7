"""How far an answer may be off: what its own frames leave open, and what was taken as known and may be wrong. Pure.

In h and squares of h, over (z, ax, ay). Something that is off by e moves the place where the likelihood is largest by
H^-1 H' e: H the curvature in what was fitted, H' the mixed one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import Hypothesis, Scene

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]

PLACE_STEP_H, ANGLE_STEP = 0.05, 0.01  # of finite differences; the angle's by its logarithm
DIRECTIONS = 36  # in which a total defocus is looked at: every 5 degrees


@dataclass(frozen=True)
class Fitted:
    """An answer with what was fitted around it: pairs of hypotheses at +-step of each parameter, z, ax, ay first."""

    at: Hypothesis
    pairs: Sequence[Hypothesis]
    steps: Real
    covariance: Real  # inverse curvature, what was believed of the parameters included
    h: float


def of_angle(scene: Scene, fitted: Fitted) -> Real:
    """(3,) What the answer moves by, in h, per unit of the logarithm of an angle that was not fitted."""
    factors = (np.exp(side * ANGLE_STEP) * fitted.at.alpha_factor for side in (1.0, -1.0))
    z, ax, ay, gains = fitted.at.z_m, fitted.at.ax_m, fitted.at.ay_m, fitted.at.gains
    pair = scene.transfer([Hypothesis(z, ax, ay, float(factor), gains) for factor in factors])
    return _moved(scene, fitted, [pair], [ANGLE_STEP])[:, 0]


def of_places(scene: Scene, fitted: Fitted, sigmas_m: Sequence[float]) -> Real:
    """(3, 3) Covariance that frames bring whose lens may have stood elsewhere; sigmas_m: of each frame.

    Frames at one place are off together. The answer is for where the lens stood at the last of them.
    """
    together = _together(scene, sigmas_m)
    if not together:
        return np.zeros((3, 3))
    step_m = PLACE_STEP_H * fitted.h
    pairs = [
        np.concatenate([scene.elsewhere(frames, side * step_m).transfer([fitted.at]) for side in (1.0, -1.0)])
        for frames, _ in together
    ]
    leaning = _moved(scene, fitted, pairs, [PLACE_STEP_H] * len(pairs))
    leaning[0] -= [float(scene.n - 1 in frames) for frames, _ in together]
    scaled = leaning * np.array([sigma_m / fitted.h for _, sigma_m in together])
    return np.asarray(scaled @ scaled.T, np.float64)


def widest(covariance: Real) -> float:
    """Sigma of the total defocus, z and astigmatism together, in the direction that the frames tell least of."""
    angles = np.arange(DIRECTIONS) * 2.0 * np.pi / DIRECTIONS
    along = np.stack([np.ones(DIRECTIONS), np.cos(angles), np.sin(angles)])
    return float(np.sqrt(np.einsum("id,ij,jd->d", along, covariance, along).max()))


def _together(scene: Scene, sigmas_m: Sequence[float]) -> list[tuple[list[int], float]]:
    """Frames whose place is in doubt, those of one place together."""
    places: dict[tuple[float, float], list[int]] = {}
    for frame, (view, sigma_m) in enumerate(zip(scene.views, sigmas_m, strict=True)):
        if sigma_m > 0.0:
            places.setdefault((view.offset_m, sigma_m), []).append(frame)
    return [(frames, sigma_m) for (_, sigma_m), frames in places.items()]


def _moved(scene: Scene, fitted: Fitted, pairs: Sequence[Real32], steps: Sequence[float]) -> Real:
    """(3, nuisance)"""
    shown = np.concatenate([scene.transfer(fitted.pairs), *pairs])
    information = scene.information(shown, np.concatenate([fitted.steps, steps]))
    known = len(fitted.steps)
    return np.asarray((fitted.covariance @ information[:known, known:])[:3], np.float64)
