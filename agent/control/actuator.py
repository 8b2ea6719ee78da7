"""Did the lens go where it was told? A routine's frames in, the fault that explains them better than the read-backs do
out. Pure.

A lens that has always gone the other way is the mirror image of a sound one, and |A k| is the same under (z, a) ->
(-z, -a): focus is found all the same and spectra alone cannot tell. The magnification can, where a certificate says
how it follows the working distance. A lens that fails within a routine shows in the blur: the frame
after a move is not as sharp as the frames before it promised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.control.accounts import Account, Fit, Lens, Search
from agent.control.estimate import Estimate, Instrument, distinct
from agent.control.likelihood import Column, Hypothesis, Scene, View
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, wavelength_m

Real = NDArray[np.float64]

DEAD, INVERTED, CLIPPED = "actuator_dead", "actuator_inverted", "clipped"
SURPRISED_H, SURPRISED_SIGMAS = 0.7, 2.0  # off the promised focus: a miss worth an explanation
LONG_H = 2.0  # of h: a move that fell short by less may be play, or an angle a little wrong
LAST_MOVE = "last move"
HINTS = 30.0  # nats, by groups of cells, below which no account of a fault is worth another look
SPEAKS = 120.0  # nats by which a fault must explain the frames better: a sound lens reaches 60
DEAD_SHARE, INVERTED_SHARE = 0.15, -0.5  # of a move that was really made: below the first none, below the second back
SOUND_SHARE = 0.85
SHARES = (-1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
SHARE_BOUNDS = (-1.5, 1.1)  # no lens goes back by more than it was told, or further than it was told, but by its play
STOPS = (0.05, 0.25, 0.5, 0.75)  # of the way from the first place to the outermost one on that side
ALPHA_WRONG = 0.47  # logarithm: a certificate's angle may be wrong by a third, and by no more before a lens is blamed
ALPHA_UNKNOWN = 2.0  # logarithm
ALPHA_GUESS_RAD = 5e-3
MIRRORED_NATS = 150.0  # by which the magnification must go the other way


@dataclass(frozen=True)
class Fault:
    """What the lens did instead. `place_m`: where it really stands, by the read-back's scale of the frames before."""

    code: str
    place_m: float


def fault(
    evidence: Sequence[Evidence], before: Estimate | None, found: Estimate, *, instrument: Instrument
) -> Fault | None:
    """Why the newest frame is not where the frames before it promised, if the lens is to blame.

    before: the estimate that the move to the newest frame was made by; found: the one with the newest frame.
    """
    if len(distinct([e.working_distance_m for e in evidence])) < 3 or not _surprising(before, found):
        return None
    return _explained(evidence, _lens(evidence, before, instrument, of=evidence[-2]))


def doubt(evidence: Sequence[Evidence], found: Estimate, instrument: Instrument) -> Fault | None:
    """Before focus is called found: could the lens have done something else than it was told, and more likely?

    A lens that is mirrored stands where it is told to find focus, so that is where it may stay.
    """
    if mirrored(evidence, found, instrument):
        return Fault(INVERTED, evidence[-1].working_distance_m)
    if len(distinct([e.working_distance_m for e in evidence])) < 3:
        return None
    return _explained(evidence, _lens(evidence, found, instrument, of=evidence[-1]))


def _surprising(before: Estimate | None, found: Estimate) -> bool:
    """Is focus now believed to lie elsewhere than it was, or nowhere?"""
    if found.reason is not None:
        return found.reason in (DEAD, "ambiguous", "featureless")
    was = None if before is None else before.in_focus_working_distance_m
    now, h = found.in_focus_working_distance_m, found.half_depth_of_focus_m
    if before is None or was is None or now is None or h is None:
        return False
    sigma = float(np.hypot(before.sigma_m or 0.0, found.sigma_m or 0.0))
    return abs(now - was) > max(SURPRISED_H * h, SURPRISED_SIGMAS * sigma)


def way_back_m(home_m: float, newest: Evidence, found: Fault) -> float:
    """What to command so that the lens comes back to where it was at `home_m`, even if it goes the other way now."""
    return newest.working_distance_m + found.place_m - home_m if found.code == INVERTED else home_m


def mirrored(evidence: Sequence[Evidence], found: Estimate, instrument: Instrument) -> bool:
    """Does the picture shrink where the certificate says that it grows? Then the lens goes the other way.

    The evidence has been brought to one magnification as if the lens had done as it was told.
    """
    scale = instrument.scale_per_m or 0.0
    if not scale or not found.answered:
        return False
    scene = _scene(evidence, found.alpha_rad or ALPHA_GUESS_RAD, instrument)
    way = evidence[0].working_distance_m - found.working_distance_m
    first = _at_first(found.astigmatism_m, evidence[-1], evidence[0], instrument)
    at = Hypothesis((found.defocus_m or 0.0) + way, *first)
    as_told = _agreement(scene, at, 0.0)
    the_other_way = _agreement(scene, at, -2.0 * scale)
    if the_other_way - as_told < MIRRORED_NATS:
        return False
    # A summit there, and not a slope that only passes: a column may keep its magnification, or change it by more.
    return the_other_way > max(_agreement(scene, at, turn * scale) for turn in (-1.0, -3.0))


def _agreement(scene: Scene, at: Hypothesis, left_per_m: float) -> float:
    """Log likelihood where this much magnification, per metre, is still left in the frames."""
    scene.set_scale(left_per_m)
    scene.find_shifts(at)
    return float(scene.likelihood([at])[0])


def _explained(evidence: Sequence[Evidence], lens: Lens) -> Fault | None:
    """The likeliest fault, if the read-backs cannot be made to agree nearly as well."""
    told_m = np.array([e.working_distance_m for e in evidence])
    search = Search(lens, _accounts(told_m))
    told, *others = search.roughly()
    best = max(others, key=_value)
    if best.value - told.value < HINTS or _missed(best, told_m) < 0.5 * LONG_H * lens.h:
        return None
    told, *others = search.exactly([told, *(fit for fit in others if fit.value > best.value - SPEAKS)])
    best = max(others, key=_value)
    if best.value - told.value < SPEAKS or _missed(best, told_m) < LONG_H * lens.h:
        return None
    code = _name(best, told_m)
    if code == INVERTED:  # by as much as it was told: the fit is for the name, and less exact
        return Fault(code, float(2.0 * told_m[-2] - told_m[-1]))
    return None if code is None else Fault(code, float(best.places_m[-1]))


def _value(fit: Fit) -> float:
    return fit.value


def _missed(fit: Fit, told_m: Real) -> float:
    return float(np.abs(fit.places_m - told_m).max())


def _lens(evidence: Sequence[Evidence], before: Estimate | None, instrument: Instrument, *, of: Evidence) -> Lens:
    """Power alone is heard: it needs no registration. of: the frame whose astigmatism `before` tells."""
    first = evidence[0]
    known = before if before is not None and before.answered else None
    alpha = instrument.alpha_rad or (known.alpha_rad if known else None) or ALPHA_GUESS_RAD
    return Lens(
        scene=_scene(evidence, alpha, instrument, power_alone=True),
        home_m=first.working_distance_m,
        h=half_depth_of_focus_m(first.pixel_size_m, alpha, instrument.fw50_m),
        astigmatism_m=_at_first(known.astigmatism_m, of, first, instrument) if known else (0.0, 0.0),
        stretches=ALPHA_UNKNOWN if instrument.alpha_rad is None else ALPHA_WRONG,
    )


def _at_first(
    astigmatism_m: tuple[float, float] | None, of: Evidence, first: Evidence, instrument: Instrument
) -> tuple[float, float]:
    """What the first frame had of it: the stigmators may have been turned since."""
    added = _added(of, first, instrument)
    ax, ay = astigmatism_m or added
    return ax - added[0], ay - added[1]


def _added(e: Evidence, first: Evidence, instrument: Instrument) -> tuple[float, float]:
    """Astigmatism that the stigmators put on since the first frame."""
    matrix = np.asarray(instrument.stigmator_matrix_m or ((0.0, 0.0), (0.0, 0.0)))
    ax, ay = matrix @ (e.stigmator_x - first.stigmator_x, e.stigmator_y - first.stigmator_y)
    return float(ax), float(ay)


def _accounts(told_m: Real) -> list[Account]:
    """A sound lens, and those that made less, or the opposite, of the last move, or ended at a stop on either side."""
    home, before, last = told_m[0], told_m[-2], told_m[-1] - told_m[-2]
    low, high = told_m.min(), told_m.max()
    return [
        Account("as told", lambda _: told_m, (0.5,)),
        Account(LAST_MOVE, lambda s: np.append(told_m[:-1], before + s * last), SHARES, SHARE_BOUNDS),
        # Where the first frame was taken the lens can be: it stood there.
        Account("stop above", lambda s: np.minimum(told_m, home + s * (high - home)), STOPS),
        Account("stop below", lambda s: np.maximum(told_m, home - s * (home - low)), STOPS),
    ]


def _name(best: Fit, told_m: Real) -> str | None:
    if best.account.name != LAST_MOVE:
        dead = np.ptp(best.places_m) < DEAD_SHARE * np.ptp(told_m)
        return DEAD if dead else CLIPPED
    if best.share < INVERTED_SHARE:
        return INVERTED
    if best.share < DEAD_SHARE:
        return DEAD
    return CLIPPED if best.share < SOUND_SHARE else None


def _scene(
    evidence: Sequence[Evidence], alpha_rad: float, instrument: Instrument, *, power_alone: bool = False
) -> Scene:
    """As the estimator builds it, its zero at the first frame."""
    first = evidence[0]
    wave = wavelength_m(first.landing_energy_ev) if first.landing_energy_ev else None
    coarse = wave is None or first.pixel_size_m > 2.0 * wave / alpha_rad
    column = Column(alpha_rad, first.pixel_size_m, first.pixel_size_y_m, wavelength_m=None if coarse else wave)
    quietest = min((e.noise for e in evidence), key=lambda noise: float(noise.mean()))
    views = []
    for e in evidence:
        offset = e.working_distance_m - first.working_distance_m
        views.append(View(e.spectra, e.centres_px, quietest, offset, _added(e, first, instrument), e.grown))
    return Scene(views, column, independent=first.independent, power_alone=power_alone)
