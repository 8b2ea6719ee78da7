"""How well the frames know each constant: standard deviations by the Jacobian, and which are not determined at all."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.fit.priors import NO_MORE_THAN_CHANCE

Vector = NDArray[np.float64]

RIDGE = 1e-9  # on the information: a constant without effect gets a doubt of 3e4 ranges instead of a singular matrix
TOGETHER = 0.95  # correlation from which two constants are told only together
BOX_PX = 5  # a side; over it misfit adds up and noise does not
LEAST_POWER = 1e-30


@dataclass(frozen=True)
class Doubt:
    """Over the columns asked about, in their order; in shares of the ranges."""

    sigma: Vector  # (n,)
    correlation: Vector  # (n, n)


def doubt(information: Vector, inflation: float = 1.0) -> Doubt:
    """information: (n, n) J^T J of whitened residuals. inflation: of the variance, for what is misfit and not noise."""
    ridge = RIDGE * np.eye(len(information))
    covariance = np.linalg.inv(np.asarray(information, np.float64) + ridge) * inflation
    sigma = np.sqrt(np.maximum(np.diag(covariance), LEAST_POWER))
    return Doubt(sigma, np.asarray(covariance / np.outer(sigma, sigma), np.float64))


def undetermined(information: Vector, constants: int, *, inflation: float) -> list[int]:
    """Which of the first `constants` columns the frames leave with more doubt than their bounds already did.

    One at a time, the least known first: of two that are only known together, keeping one determines the other.
    """
    left = list(range(len(information)))
    gone: list[int] = []
    while True:
        sigma = doubt(information[np.ix_(left, left)], inflation).sigma
        open_ones = [(float(s), k) for s, k in zip(sigma, left, strict=True) if k < constants]
        worst = max(open_ones, default=(0.0, -1))
        if worst[0] <= NO_MORE_THAN_CHANCE:
            return gone
        left.remove(worst[1])
        gone.append(worst[1])


def inflated(left: Vector) -> float:
    """left: (h, w) residuals over sigma, 0 where none. Power of a box's mean over what white noise would have there.

    Misfit is alike in neighbours, so that pixels tell less than as many throws; 1 where there is only noise.
    """
    smooth = cv2.blur(np.asarray(left, np.float64), (BOX_PX, BOX_PX), borderType=cv2.BORDER_REFLECT)
    inner = np.asarray(smooth[BOX_PX // 2 : -(BOX_PX // 2), BOX_PX // 2 : -(BOX_PX // 2)], np.float64)
    return float(np.mean(inner**2)) * BOX_PX**2


def pairs(of: Doubt, constants: int) -> list[tuple[int, int, float]]:
    """Columns that are told only together, strongest first."""
    found = [
        (i, k, float(of.correlation[i, k]))
        for i in range(constants)
        for k in range(i + 1, constants)
        if abs(of.correlation[i, k]) > TOGETHER
    ]
    return sorted(found, key=lambda pair: -abs(pair[2]))
