"""Defocus and astigmatism from a handful of frames at known settings, with a sigma, or the reason there is none.

Pure: evidence and the column in, an estimate out. One frame cannot give the sign; two at distinct working distances
can; three give the convergence angle too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np

from agent.control.climbing import Mode, again, allow_for_errors, climb, polished, tilted
from agent.control.doubt import widest
from agent.control.instrument import Instrument, distinct
from agent.control.likelihood import Hypothesis, Scene
from agent.control.outliers import MOST, odd, only
from agent.control.patchwise import Patchwise
from agent.control.search import TEMPER, Search, begun
from agent.control.sigmas import covariance
from agent.control.starts import starts, with_coarse_angle
from agent.control.stuck import stuck, unmoved
from agent.messages import Evidence

TIMES_ASKED = 2  # again, at most, without the patches that do not go with the others
SIGNAL_NATS = 400.0  # by which an object must speak: noise alone reaches 120, a faint texture 5,000
FEW_CELLS = 12  # cells of the spectrum with an object in them, below which there is nothing to compare
WRONG_SIDE = 0.02  # posterior share on the other side of focus that is too much to answer
APART_H = 0.5  # of h: maxima closer than this are one


@dataclass(frozen=True)
class Estimate:
    """Where focus is. Values belong to `working_distance_m` and its stigmators; None where abstained."""

    working_distance_m: float
    defocus_m: float | None
    sigma_m: float | None
    astigmatism_m: tuple[float, float] | None
    sigma_astigmatism_m: float | None
    p_wrong_direction: float | None
    alpha_rad: float | None
    half_depth_of_focus_m: float | None
    reason: str | None = None  # why it abstained, of the closed list
    frames: tuple[int, ...] = ()
    slope: tuple[float, float] | None = None  # m of defocus per m along x and y; None: level as far as it can tell
    patches_used: float = 1.0  # share of the field's patches; the others did not go with them
    # Of z and astigmatism together, in the direction that the frames tell least of.
    sigma_total_m: float | None = None
    # What defocus moves by, per relative error of an angle that was not fitted; 0 where it was.
    angle_m: float = 0.0

    @property
    def answered(self) -> bool:
        return self.reason is None

    @property
    def in_focus_working_distance_m(self) -> float | None:
        return None if self.defocus_m is None else self.working_distance_m - self.defocus_m


@dataclass(frozen=True)
class Solved:
    """What an estimate stands on: the scene as it was registered and weighed, and the best account of it."""

    scene: Scene
    at: Hypothesis  # of the last frame
    h: float
    patchwise: Patchwise
    slope_h_per_px: tuple[float, float]
    patches: tuple[int, ...] = ()  # of the field, that were used


def estimate(evidence: Sequence[Evidence], instrument: Instrument) -> Estimate:
    """The best account of all frames together, for the setting of the last one.

    All evidence must be of one scene and one pixel size; the caller sees to it.
    """
    return solved(evidence, instrument)[0]


def solved(evidence: Sequence[Evidence], instrument: Instrument) -> tuple[Estimate, Solved | None]:
    """`estimate`, and what it stands on; None where there was nothing to search.

    Parts of the field that do not go with the others are left out, and the others are asked again.
    """
    reason = _too_few(evidence, instrument)
    if reason is not None:
        return _abstain(evidence, reason), None
    found, known = _searched(evidence, instrument)
    count = len(evidence[0].spectra)
    patches = np.arange(count)
    for _ in range(TIMES_ASKED):
        if known is None or found.reason == "featureless":
            break
        left = odd(known.patchwise, known.at, most=int(MOST * count) - (count - patches.size))
        if not left:
            break
        patches = np.delete(patches, left)
        found, known = _searched(only(evidence, patches), instrument)
    if known is None:
        return found, None
    return replace(found, patches_used=patches.size / count), replace(known, patches=tuple(int(p) for p in patches))


def _too_few(evidence: Sequence[Evidence], instrument: Instrument) -> str | None:
    """Why so many working distances cannot tell."""
    places = len(distinct([e.working_distance_m for e in evidence]))
    if places < 2:
        return "sign_unknown"
    return "uncalibrated" if instrument.alpha_rad is None and places < 3 else None


def _abstain(evidence: Sequence[Evidence], reason: str) -> Estimate:
    frames, where = tuple(e.frame for e in evidence), evidence[-1].working_distance_m
    return Estimate(where, None, None, None, None, None, None, None, reason, frames)


def _searched(evidence: Sequence[Evidence], instrument: Instrument) -> tuple[Estimate, Solved | None]:
    """Coarse grid, registration of the best modes, Newton on each, the verdict."""
    search = begun(evidence, instrument)
    scene = search.scene
    if scene.active.size < FEW_CELLS:
        return _abstain(evidence, "featureless"), None
    if instrument.alpha_rad is None:
        search = with_coarse_angle(search)
    scene.set_scale(instrument.scale_per_m or 0.0)
    begin = starts(search)
    allow_for_errors(search, begin[0])
    modes = sorted((climb(search, start) for start in begin), key=lambda mode: -mode.value)
    level = polished(search, modes[0])
    rivals = [again(search, mode) for mode in modes[1:]]
    best, patchwise = tilted(search, level)
    known = Solved(scene, search.at(best.theta), search.h, patchwise, best.slope_h_per_px or (0.0, 0.0))
    return _verdict(search, best, rivals), known


def _verdict(search: Search, best: Mode, rivals: Sequence[Mode]) -> Estimate:
    """What is answered, and whether."""
    z, ax, ay = (float(x) * search.h for x in best.theta[:3])
    alpha = search.scene.column.alpha_rad * float(np.exp(best.theta[3]))
    half = search.half_depth_m(alpha)
    weights = _weights(best, rivals)
    spread = sum(w * (m.theta[0] - best.theta[0]) ** 2 for w, m in zip(weights, rivals, strict=True))
    doubt, angle = covariance(search, best, half_m=half)
    doubt += np.diag([spread, 0.0, 0.0])
    sigma = search.h * float(np.sqrt(doubt[0, 0]))
    sigma_a = search.h * float(np.sqrt(0.5 * (doubt[1, 1] + doubt[2, 2])))
    other_side = sum(w for w, m in zip(weights, rivals, strict=True) if m.theta[0] * best.theta[0] < 0)
    p_wrong = min(1.0, 0.5 * erfc(abs(z) / (sigma * sqrt(2.0))) + other_side)
    if best.value < SIGNAL_NATS:
        return _abstain(search.evidence, "featureless")
    if other_side > WRONG_SIDE or sigma > 1.5 * half + 0.1 * abs(z):
        return _abstain(search.evidence, "ambiguous")
    if _dead(search, best):
        return _abstain(search.evidence, "actuator_dead")
    frames, where = tuple(e.frame for e in search.evidence), search.reference.working_distance_m
    found = Estimate(where, z, sigma, (ax, ay), sigma_a, p_wrong, alpha, half, None, frames)
    found = replace(found, sigma_total_m=search.h * widest(doubt), angle_m=search.h * angle)
    return found if best.slope_h_per_px is None else replace(found, slope=_slope(search, best.slope_h_per_px))


def _weights(best: Mode, rivals: Sequence[Mode]) -> list[float]:
    """Posterior share of each rival maximum, tempered as the variances are."""
    odds = [float(np.exp(min((rival.value - best.value) / TEMPER, 0.0))) for rival in rivals]
    apart = [abs(rival.theta[0] - best.theta[0]) > APART_H for rival in rivals]
    odds = [o if far else 0.0 for o, far in zip(odds, apart, strict=True)]
    return [o / (1.0 + sum(odds)) for o in odds]


def _dead(search: Search, best: Mode) -> bool:
    """Two working distances cannot tell."""
    bracketed = len(distinct([e.working_distance_m for e in search.evidence])) > 2
    return bracketed and (unmoved(search, best) or stuck(search, best))


def _slope(search: Search, h_per_px: tuple[float, float]) -> tuple[float, float]:
    first = search.reference
    return h_per_px[0] * search.h / first.pixel_size_m, h_per_px[1] * search.h / first.pixel_size_y_m
