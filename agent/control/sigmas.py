"""What the sigma of an answer is made of: what its frames leave open, what was taken as known, what the model errs by.

Pure. In squares of h, over (z, ax, ay).
"""

import numpy as np
from numpy.typing import NDArray

from agent.control.climbing import Mode
from agent.control.doubt import Fitted, of_angle, of_places
from agent.control.search import TEMPER, Search

Real = NDArray[np.float64]

# What a sigma is told by: with its noise coloured and its rows displaced as they are, a picture alike in all
# directions errs by less than the temper allows for. Where it runs one way, the little that does not decides between
# defocus and astigmatism, and is as much model error as signal: louder from that share on.
LOUD, ONE_WAY, ONE_WAY_POWER = 3.2, 0.10, 2.0
# A column that is not stigmated as was believed shows it only where the frames tell: what they leave open is as wide.
ASTIGMATISM_OPEN_H = 1.5
STRAYED = 2.0  # times its spread, by which an angle may be off without saying that something is wrong
# The likelihood counts model errors (pupil shape, drift within a frame, topography) as information; answers at high
# dose are no better than this share of h, whatever the curvature says.
SYSTEMATIC_H = 0.02
SYSTEMATIC_OF_Z = 0.015
# Focus between frames is surer than focus that is extrapolated to: of the second nearest frame's way to it, and, where
# that is many h, of its square.
SYSTEMATIC_OF_WAY, FAR_WAY_H = 0.008, 50.0


def covariance(search: Search, best: Mode, *, half_m: float) -> tuple[Real, float]:
    """(3, 3); and what z moves by, per relative error of an angle that was not fitted."""
    free, scene = search.free, search.scene
    points = [side for a in free for side in search.sides(best.theta, a)]
    fitted = Fitted(
        search.at(best.theta),
        [search.at(point) for point in points],
        search.step[free],
        best.covariance[np.ix_(free, free)],
        search.h,
    )
    angle = np.zeros(3)
    if not search.fit_alpha and search.instrument.alpha_sigma_rad > 0.0:
        angle = of_angle(scene, fitted)
    known = of_places(scene, fitted, [e.place_sigma_m for e in search.evidence])
    known += search.alpha_spread**2 * np.outer(angle, angle)
    owed = _owed_to_angle(search, best)
    known += np.outer(owed, owed)
    return _left_open(search, best) + known + _model_errors(search, best, half_m=half_m), abs(float(angle[0]))


def _owed_to_angle(search: Search, best: Mode) -> Real:
    """(3,) What the answer owes to an angle that was fitted far from its certificate: one of the two is wrong, or
    the model is, and nobody knows which."""
    strayed = abs(float(best.theta[3])) - STRAYED * search.alpha_spread
    if not search.fit_alpha or search.instrument.alpha_rad is None or strayed <= 0.0:
        return np.zeros(3)
    return np.asarray(strayed * best.covariance[:3, 3] / best.covariance[3, 3], np.float64)


def _left_open(search: Search, best: Mode) -> Real:
    """By the frames as loud as they may speak, with a belief in a stigmated column that is weaker than the one
    that chose the answer: (3, 3)."""
    free = search.free
    loud = LOUD * (1.0 + (search.scene.one_way() / ONE_WAY) ** ONE_WAY_POWER)
    believed = np.diag(search.prior_curvature(best.theta)[free])
    told = np.linalg.inv(best.covariance[np.ix_(free, free)]) - believed
    weaker = believed / TEMPER
    weaker[1, 1] = weaker[2, 2] = 1.0 / ASTIGMATISM_OPEN_H**2
    return np.asarray(np.linalg.inv(told / loud + weaker)[:3, :3], np.float64)


def _model_errors(search: Search, best: Mode, *, half_m: float) -> Real:
    """(3, 3)"""
    always = SYSTEMATIC_H * half_m / search.h + SYSTEMATIC_OF_Z * abs(float(best.theta[0]))
    return np.diag([always**2 + _error_of_way(search, best) ** 2, always**2, always**2])


def _error_of_way(search: Search, best: Mode) -> float:
    """What the model errs by over the way from the second nearest frame to focus."""
    ways = sorted(abs(float(best.theta[0]) + view.offset_m / search.h) for view in search.scene.views)
    return float(np.hypot(SYSTEMATIC_OF_WAY * ways[1], (ways[1] / FAR_WAY_H) ** 2))
