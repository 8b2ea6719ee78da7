"""Where a search for focus begins: a coarse grid of defocus and angle in, the few places worth a climb out. Pure.

First by the power of each frame alone, which needs no registration; then by all that the frames tell, with the shifts
of the likeliest few.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import Hypothesis, Scene
from agent.control.search import ALPHA_GRID_RAD, Search

Real = NDArray[np.float64]

REACH_H = 60.0  # the coarse search goes this far beyond the frames' own span, in half depths of focus
MODES = 5  # coarse maxima by power that are worth a registration each
SHIFT_SETS = 3  # distinct registrations that are worth a scan
SAME_SHIFT_PX = 1.0  # registrations closer than this meet when refined
ALPHA_COARSE = 0.25  # spread of the angle's logarithm after its grid
ALPHA_WELL_KNOWN = 0.06  # relative: one climb finds it then


@dataclass(frozen=True, eq=False)
class Start:
    """A coarse hypothesis and the registration it was found with."""

    z_h: float
    stretch: float  # logarithm of the angle against the assumed one
    shifts: Real
    pupil: str


def with_coarse_angle(search: Search) -> Search:
    """By the power of each frame: the blur variance is a parabola in working distance."""
    scene = search.scene
    assumed = scene.column.alpha_rad
    best = (-np.inf, assumed)
    for alpha in ALPHA_GRID_RAD:
        h, factor = search.half_depth_m(alpha), alpha / assumed
        hypotheses = [Hypothesis(z * h, alpha_factor=factor) for z in grid(scene, h)]
        best = max(best, (float(scene.incoherent(hypotheses).max()), float(alpha)))
    scene.column = replace(scene.column, alpha_rad=best[1])
    return replace(search, h=search.half_depth_m(best[1]))


def starts(search: Search) -> list[Start]:
    """The best coarse hypotheses: shifts from the likeliest by power alone, then all of them with those shifts."""
    scene, h = search.scene, search.h
    places = grid(scene, h)
    power = scene.incoherent(_hypotheses(places, h, stretch=0.0))
    sets = _shift_sets(scene, [Hypothesis(places[i] * h) for i in _peaks(power)[:MODES]])
    found: list[tuple[float, Start]] = []
    for pupil in _pupils(scene):
        scene.set_pupil(pupil)
        for stretch in _alpha_stretches(search):
            values = scene.likelihoods(_hypotheses(places, h, stretch=stretch), sets)
            found += [
                (float(row[i]), Start(float(places[i] * np.exp(-stretch)), stretch, shifts, pupil))
                for shifts, row in zip(sets, values, strict=True)
                for i in _peaks(row)[:3]
            ]
    return _worth_climbing([start for _, start in sorted(found, key=lambda f: -f[0])])


def grid(scene: Scene, h: float) -> Real:
    """Hypotheses of z in h: even near any frame's focus, sparser far out."""
    offsets = np.array([view.offset_m for view in scene.views]) / h
    low, high = -offsets.max() - REACH_H, -offsets.min() + REACH_H
    inner = np.arange(-offsets.max() - 6.0, -offsets.min() + 6.0, 1.0)
    steps = np.cumsum(np.maximum(1.0, 0.06 * np.arange(0.0, 60.0)))
    outer = np.concatenate([inner[0] - steps[::-1], inner, inner[-1] + steps])
    return np.asarray(outer[(outer >= low) & (outer <= high)])


def _hypotheses(places: Real, h: float, *, stretch: float) -> list[Hypothesis]:
    """The grid's blurs with another angle: a larger angle makes them at a smaller defocus."""
    factor = float(np.exp(stretch))
    return [Hypothesis(z * h / factor, alpha_factor=factor) for z in places]


def _alpha_stretches(search: Search) -> tuple[float, ...]:
    """Logarithms of the angle, against the assumed one, from which to climb."""
    known = search.instrument.alpha_rad
    if not search.fit_alpha:
        return (0.0,)
    spread = ALPHA_COARSE if known is None else search.instrument.alpha_sigma_rad / known
    return (0.0,) if spread < ALPHA_WELL_KNOWN else tuple(spread * t for t in (-1.5, -0.75, 0.0, 0.75, 1.5))


def _pupils(scene: Scene) -> tuple[str, ...]:
    """How the beam fills its angles is read off the frames too: columns differ, a wrong one costs whole h."""
    return ("disc",) if scene.column.wavelength_m is not None else ("disc", "gaussian")


def _shift_sets(scene: Scene, hypotheses: list[Hypothesis]) -> list[Real]:
    sets: list[Real] = []
    for hypothesis in hypotheses:
        scene.find_shifts(hypothesis)
        if all(np.abs(scene.shifts - other).max() > SAME_SHIFT_PX for other in sets):
            sets.append(scene.shifts.copy())
    return sets[:SHIFT_SETS]


def _worth_climbing(ranked: list[Start]) -> list[Start]:
    """The best, the best with the other pupil and with other angles wherever they lie, and the best elsewhere."""
    best = ranked[0]
    chosen = [best, *[start for start in ranked if start.pupil != best.pupil][:1]]
    for stretch in {start.stretch for start in ranked} - {best.stretch}:
        chosen += [start for start in ranked if start.stretch == stretch][:1]
    chosen += [start for start in ranked if abs(start.z_h - best.z_h) > 1.5 and start not in chosen][:1]
    return chosen


def _peaks(values: Real) -> list[int]:
    """Local maxima, highest first."""
    padded = np.concatenate([[-np.inf], values, [-np.inf]])
    at = np.flatnonzero((values >= padded[:-2]) & (values >= padded[2:]))
    return [int(i) for i in at[np.argsort(-values[at])]]
