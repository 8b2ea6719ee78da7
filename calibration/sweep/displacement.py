"""What a change of focus or stigmators does to the picture's place and size, with drift taken off."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calibration.sweep.errors import RefusedError
from calibration.sweep.instrument import Taken
from calibration.sweep.legs import Leg
from calibration.sweep.measure import Optic, Seen, evidence_of, pair
from calibration.sweep.stigmators import Stigmation

OFF_CENTRE_PX = 5.0  # a picture that grows moves by how far its detail lies from the middle, on the whole
FLOOR_PX = 0.03  # no displacement is read better than this
PAUSE = 8.0  # of the usual time between frames: drift is not followed over a longer one
OUTLIER = 4.0  # sigma
VOUCHED_PX = 1.5  # rms of the fit
PLACED_PX = 0.015  # how far off the pictures of one scene put a patch, all alike
LEAST_CHI = 0.1  # of the scale's points: few of them may agree better by chance than they should
RESOLVED = 4.0  # sigma: a scale is told from none
UNRESOLVED = 0.4  # of what a working distance alone would bring: a doubt this large says nothing

Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spot:
    """A frame with where its lens is: within the play of what it was told."""

    seen: Seen
    taken: Taken
    lens_m: float
    units: tuple[float, float]  # stigmators from the start's

    @property
    def t_s(self) -> float:
        o = self.taken.optics
        return ((o.t_start_ns or 0) + (o.t_end_ns or 0)) / 2e9


@dataclass(frozen=True, eq=False)
class Displacement:
    """Pixels per metre of working distance and per stigmator unit, rows x and y of the picture; pixels per second."""

    per_m: tuple[float, float]
    per_m_sigma: tuple[float, float]
    per_unit: Real  # (2, 2): rows x and y, columns stigmator x and y
    per_unit_sigma: Real
    drift_px_s: tuple[float, float]
    rms_px: float
    steps: tuple[
        tuple[float, float, float], ...
    ]  # of each pair that was fitted: lens way [m], x and y px without the rest


@dataclass(frozen=True, eq=False)
class Scale:
    """How the picture grows with the working distance."""

    per_m: float
    sigma_per_m: float
    rms: float
    points: tuple[tuple[float, float, float], ...]  # way from the leg's middle [m], growth, sigma
    resolved: bool


def spots(legs: Sequence[Leg], stigmation: Stigmation, hysteresis_m: float, *, scale_per_m: float) -> list[Spot]:
    """All frames with a known focus in the order in which they were taken, their growth undone."""
    rows = [(each, taken, (0.0, 0.0)) for leg in legs for each, taken in zip(leg.seen, leg.taken, strict=True)]
    for turn in stigmation.turns:
        rows += [(each, taken, (turn.x, turn.y)) for each, taken in zip(turn.seen, turn.taken, strict=True)]
    found = [
        Spot(_shrunk(each, taken, scale_per_m), taken, _lens(taken, hysteresis_m), units) for each, taken, units in rows
    ]
    return sorted(found, key=lambda spot: spot.t_s)


def _shrunk(seen: Seen, taken: Taken, scale_per_m: float) -> Seen:
    return replace(seen, evidence=evidence_of(taken, seen.evidence.frame, grown=scale_per_m * seen.z_m))


def _lens(taken: Taken, hysteresis_m: float) -> float:
    return taken.at.working_distance_m - 0.5 * taken.side * hysteresis_m


def read_displacement(found: Sequence[Spot], optic: Optic, in_focus_m: float) -> Displacement:
    """From each frame to the next, so that only the drift between two counts. Raises RefusedError on a poor fit."""
    times = np.diff([spot.t_s for spot in found])
    usual = float(np.median(times))
    close = [(a, b) for a, b in pairwise(found) if b.t_s - a.t_s <= PAUSE * usual]
    pairs = [pair(a.seen, b.seen, optic, most_grown=0.0) for a, b in close]
    design = np.array([_differences(a, b) for a, b in close])
    moved = np.array([each.displacement_px for each in pairs])
    sigma = np.hypot([each.sigma_px for each in pairs], FLOOR_PX)
    kept = np.ones(len(pairs), bool)
    for _ in range(2):
        coefficients, spread, off = _weighted(design[kept], moved[kept], sigma[kept])
        scatter = 1.4826 * float(np.median(np.abs(off))) + FLOOR_PX
        kept &= np.abs(moved - design @ coefficients).max(axis=1) <= OUTLIER * scatter * np.maximum(
            sigma / np.median(sigma), 1.0
        )
    coefficients, spread, off = _weighted(design[kept], moved[kept], sigma[kept])
    rms = float(np.sqrt(np.mean(off**2)))
    if rms > VOUCHED_PX or kept.sum() < len(kept) / 2:
        raise RefusedError(
            f"the picture does not move in step with the knobs: {rms:.1f} px are left of the fit, {kept.sum()} of "
            f"{len(kept)} pairs of frames agree; let stage and specimen come to rest"
        )
    own = moved[kept] - np.delete(design[kept], 1, axis=1) @ np.delete(coefficients, 1, axis=0)
    steps = [(float(way), float(x), float(y)) for way, (x, y) in zip(design[kept][:, 1] * 1e-6, own, strict=True)]
    return Displacement(
        per_m=_axes(1e6 * coefficients[1]),
        per_m_sigma=_axes(np.hypot(1e6 * spread[1], OFF_CENTRE_PX / in_focus_m)),
        per_unit=coefficients[2:].T,
        per_unit_sigma=spread[2:].T,
        drift_px_s=_axes(coefficients[0]),
        rms_px=rms,
        steps=tuple(steps),
    )


def _differences(a: Spot, b: Spot) -> tuple[float, float, float, float]:
    """Seconds, micrometres, units of x and of y."""
    return (b.t_s - a.t_s, 1e6 * (b.lens_m - a.lens_m), b.units[0] - a.units[0], b.units[1] - a.units[1])


def _weighted(design: Real, values: Real, sigma: Real) -> tuple[Real, Real, Real]:
    """Coefficients, their sigma by what is left, and what is left."""
    weight = 1.0 / sigma[:, None]
    coefficients = np.linalg.lstsq(design * weight, values * weight, rcond=None)[0]
    off = values - design @ coefficients
    left = max(len(design) - design.shape[1], 1)
    chi = np.maximum(((off * weight) ** 2).sum(axis=0) / left, 0.1)
    covariance = np.linalg.pinv((design * weight).T @ (design * weight))
    spread = np.sqrt(np.diag(covariance))[:, None] * np.sqrt(chi)[None, :]
    return np.asarray(coefficients), np.asarray(spread), np.asarray(off)


def read_scale(legs: Sequence[Leg], optic: Optic) -> Scale:
    """Each frame of a leg against the one in its middle, twice.

    A patch moves as its detail does, which is seldom centred in it: that counts in the growth that is left only, so
    what the first pass finds is undone before the second.
    """
    alone = 1.0 / legs[0].in_focus_m
    per_m, points = optic.scale_per_m, np.empty((0, 3))
    for some, reach in ((legs[:1], 2.0), (legs, 0.5))[1 if per_m else 0 :]:
        points = np.array(
            [_grown(leg, i, optic, undone_per_m=per_m, reach_per_m=reach * alone) for leg in some for i in _others(leg)]
        )
        way, grown, sigma = points.T
        per_m = float((way * grown / sigma**2).sum() / (way**2 / sigma**2).sum())
    off = grown - per_m * way
    chi = max(float(((off / sigma) ** 2).sum()) / (len(way) - 1), LEAST_CHI)
    arm_px = float(np.hypot(*legs[0].seen[0].evidence.centres_px.T).mean())
    shared = PLACED_PX / max(arm_px, 1.0) / float(np.abs(way).max())
    doubt = float(np.hypot(np.sqrt(chi / (way**2 / sigma**2).sum()), shared))
    rows = tuple((float(a), float(b), float(c)) for a, b, c in points)
    return Scale(per_m, doubt, float(np.sqrt(np.mean(off**2))), rows, doubt <= UNRESOLVED * alone)


def _others(leg: Leg) -> list[int]:
    return [i for i in range(len(leg.seen)) if i != len(leg.seen) // 2]


def _grown(
    leg: Leg, index: int, optic: Optic, *, undone_per_m: float, reach_per_m: float
) -> tuple[float, float, float]:
    """Way from the leg's middle, growth on it, one sigma."""
    centre = len(leg.seen) // 2
    way = leg.seen[index].z_m - leg.seen[centre].z_m
    middle = replace(leg.seen[centre], evidence=evidence_of(leg.taken[centre], centre))
    shrunk = replace(leg.seen[index], evidence=evidence_of(leg.taken[index], index, grown=undone_per_m * way))
    found = pair(middle, shrunk, optic, most_grown=reach_per_m * abs(way)).magnified
    return way, undone_per_m * way + found.value, found.sigma


def inverted(scale: Scale, in_focus_m: float) -> bool:
    """Does the picture shrink by what a working distance alone would let it grow?"""
    sure = scale.per_m < -RESOLVED * scale.sigma_per_m
    return sure and 0.5 < -scale.per_m * in_focus_m < 1.5


def _axes(pair_of: Real) -> tuple[float, float]:
    return float(pair_of[0]), float(pair_of[1])
