"""Did the lens go where it was told? A routine's frames in, the fault that explains them better than the read-backs do
out. Pure.

A lens that has always gone the other way is the mirror image of a sound one, and |A k| is the same under (z, a) ->
(-z, -a): focus is found all the same and spectra alone cannot tell. The magnification can, where a certificate says
how it follows the working distance. A lens that fails within a routine shows in the blur: the frame
after a move is not as sharp as the frames before it promised.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control.estimate import Estimate, Instrument, distinct
from agent.control.likelihood import Column, Hypothesis, Scene, View
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, wavelength_m

Real = NDArray[np.float64]
Places = Callable[[float], Real]

DEAD, INVERTED, CLIPPED = "actuator_dead", "actuator_inverted", "clipped"
SURPRISED_H, SURPRISED_SIGMAS = 0.7, 2.0  # off the promised focus: a miss worth an explanation
LONG_H = 2.0  # of h: a move that fell short by less may be play, or an angle a little wrong
SPEAKS = 120.0  # nats by which a fault must explain the frames better: a sound lens reaches 60
DEAD_SHARE, INVERTED_SHARE = 0.15, -0.5  # of a move that was really made: below the first none, below the second back
SOUND_SHARE = 0.85
SHARES = (-1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
STOPS = (0.05, 0.25, 0.5, 0.75)  # of the way from the first place to the outermost one on that side
REACH_H = 25.0  # focus is looked for as far beyond the outermost frames
ALPHA_WRONG = 0.47  # logarithm: a certificate's angle may be wrong by a third, and by no more before a lens is blamed
ALPHA_UNKNOWN = 2.0  # logarithm
ALPHA_GUESS_RAD = 5e-3
CLIMBS = 10
MIRRORED_NATS = 150.0  # by which the magnification must go the other way


@dataclass(frozen=True)
class Fault:
    """What the lens did instead. `place_m`: where it really stands, by the read-back's scale of the frames before."""

    code: str
    place_m: float


@dataclass(frozen=True)
class _Fit:
    """The best that one account of the lens can make of the frames."""

    value: float
    focus_h: float
    stretch: float
    share: float  # of the account: of the last move, or where the stop lies
    places_m: Real


def fault(
    evidence: Sequence[Evidence], before: Estimate | None, found: Estimate, *, instrument: Instrument
) -> Fault | None:
    """Why the newest frame is not where the frames before it promised, if the lens is to blame.

    before: the estimate that the move to the newest frame was made by; found: the one with the newest frame.
    """
    if len(distinct([e.working_distance_m for e in evidence])) < 3 or not _surprising(before, found):
        return None
    return _Accounts(evidence, before, instrument).verdict()


def doubt(evidence: Sequence[Evidence], found: Estimate, instrument: Instrument) -> Fault | None:
    """Before focus is called found: could the lens have done something else than it was told, and more likely?

    A lens that is mirrored stands where it is told to find focus, so that is where it may stay.
    """
    if mirrored(evidence, found, instrument):
        return Fault(INVERTED, evidence[-1].working_distance_m)
    if len(distinct([e.working_distance_m for e in evidence])) < 3:
        return None
    return _Accounts(evidence, found, instrument).verdict()


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
    as_told = _agreement(evidence, found, instrument, left=0.0)
    the_other_way = _agreement(evidence, found, instrument, left=-2.0 * scale)
    if the_other_way - as_told < MIRRORED_NATS:
        return False
    # A summit there, and not a slope that only passes: a column may keep its magnification, or change it by more.
    return the_other_way > max(_agreement(evidence, found, instrument, left=turn * scale) for turn in (-1.0, -3.0))


def _agreement(evidence: Sequence[Evidence], found: Estimate, instrument: Instrument, *, left: float) -> float:
    """Log likelihood of the estimate where this much magnification, per metre, is still left in the frames."""
    scene = _scene(_magnified(evidence, left), found.alpha_rad or ALPHA_GUESS_RAD, instrument)
    way = evidence[0].working_distance_m - found.working_distance_m
    at = Hypothesis((found.defocus_m or 0.0) + way, *(found.astigmatism_m or (0.0, 0.0)))
    scene.find_shifts(at)
    return float(scene.likelihood([at])[0])


def _magnified(evidence: Sequence[Evidence], left_per_m: float) -> list[Evidence]:
    home = evidence[0].working_distance_m
    return [msgspec.structs.replace(e, grown=e.grown + left_per_m * (e.working_distance_m - home)) for e in evidence]


class _Accounts:
    """The same frames, told by lenses with different faults; power alone is heard: it needs no registration."""

    def __init__(self, evidence: Sequence[Evidence], before: Estimate | None, instrument: Instrument) -> None:
        first = evidence[0]
        self.evidence, self.known = evidence, before if before is not None and before.answered else None
        alpha = instrument.alpha_rad or (self.known.alpha_rad if self.known else None) or ALPHA_GUESS_RAD
        self.h = half_depth_of_focus_m(first.pixel_size_m, alpha, instrument.fw50_m)
        self.told = np.array([e.working_distance_m for e in evidence])
        self.stretches = ALPHA_UNKNOWN if instrument.alpha_rad is None else ALPHA_WRONG
        self.astigmatism = (self.known.astigmatism_m if self.known else None) or (0.0, 0.0)
        self.scene = _scene(evidence, alpha, instrument, power_alone=True)
        self.views = list(self.scene.views)

    def verdict(self) -> Fault | None:
        """The likeliest fault, if the read-backs cannot be made to agree nearly as well."""
        told = self._best(lambda _: self.told, (1.0,))
        last, home = self.told[-1] - self.told[-2], self.told[0]
        low, high = self.told.min(), self.told.max()
        accounts = [
            self._best(lambda s: np.append(self.told[:-1], self.told[-2] + s * last), SHARES),
            # Where the first frame was taken the lens can be: it stood there.
            self._best(lambda s: np.minimum(self.told, home + max(s, 0.0) * (high - home)), STOPS),
            self._best(lambda s: np.maximum(self.told, home - max(s, 0.0) * (home - low)), STOPS),
        ]
        best = max(accounts, key=lambda fit: fit.value)
        missed = np.abs(best.places_m - self.told).max()
        if best.value - told.value < SPEAKS or missed < LONG_H * self.h:
            return None
        code = self._name(best, stopped=best is not accounts[0])
        if code == INVERTED:  # by as much as it was told: the fit is for the name, and less exact
            return Fault(code, float(self.told[-2] - last))
        return None if code is None else Fault(code, float(best.places_m[-1]))

    def _name(self, best: _Fit, *, stopped: bool) -> str | None:
        if stopped:
            dead = np.ptp(best.places_m) < DEAD_SHARE * np.ptp(self.told)
            return DEAD if dead else CLIPPED
        if best.share < INVERTED_SHARE:
            return INVERTED
        if best.share < DEAD_SHARE:
            return DEAD
        return CLIPPED if best.share < SOUND_SHARE else None

    def _best(self, places: Places, shares: Sequence[float]) -> _Fit:
        """Coarse over focus and share, then uphill with the angle free."""
        starts = [self._coarse(places, share) for share in shares]
        return max((self._climb(places, start) for start in _top(starts, 2)), key=lambda fit: fit.value)

    def _coarse(self, places: Places, share: float) -> _Fit:
        at = places(share)
        low, high = ((x - self.told[0]) / self.h for x in (at.min(), at.max()))
        outwards = np.cumsum(np.maximum(0.7, 0.08 * np.arange(0.0, 2.0 * REACH_H)))
        outwards = outwards[outwards < REACH_H]
        grid = np.concatenate([low - outwards[::-1], np.arange(low, high + 0.35, 0.7), high + outwards])
        values = self._values(at, [(float(focus), 0.0) for focus in grid])
        best = int(np.argmax(values))
        return _Fit(float(values[best]), float(grid[best]), 0.0, share, at)

    def _climb(self, places: Places, fit: _Fit) -> _Fit:
        """Steps along each axis, halved when none climbs."""
        step = np.array([0.5, 0.1, 0.12])  # focus in h, logarithm of the angle, share
        for _ in range(CLIMBS):
            around = [(fit.focus_h + s * step[0], fit.stretch) for s in (1, -1)]
            around += [(fit.focus_h, fit.stretch + s * step[1]) for s in (1, -1)]
            tried = [replace(fit, value=float(v), focus_h=f, stretch=a) for v, (f, a) in
                     zip(self._values(fit.places_m, around), around, strict=True)]  # fmt: skip
            for share in (fit.share + step[2], fit.share - step[2]):
                at = places(share)
                value = float(self._values(at, [(fit.focus_h, fit.stretch)])[0])
                tried.append(replace(fit, value=value, share=share, places_m=at))
            best = max(tried, key=lambda each: each.value)
            if best.value > fit.value:
                fit = best
            else:
                step /= 2.0
        return fit

    def _values(self, places_m: Real, points: Sequence[tuple[float, float]]) -> Real:
        """Log likelihood of (focus in h from the first frame's place, logarithm of the angle) with the lens there."""
        offsets = places_m - self.told[0]
        self.scene.views = [replace(v, offset_m=float(x)) for v, x in zip(self.views, offsets, strict=True)]
        ax, ay = self.astigmatism
        heard = self.scene.incoherent([Hypothesis(-f * self.h, ax, ay, float(np.exp(a))) for f, a in points])
        return np.where(np.abs([a for _, a in points]) <= self.stretches, heard, -np.inf)


def _top(fits: Sequence[_Fit], count: int) -> list[_Fit]:
    return sorted(fits, key=lambda fit: -fit.value)[:count]


def _scene(
    evidence: Sequence[Evidence], alpha_rad: float, instrument: Instrument, *, power_alone: bool = False
) -> Scene:
    """As the estimator builds it, its zero at the first frame."""
    first = evidence[0]
    wave = wavelength_m(first.landing_energy_ev) if first.landing_energy_ev else None
    coarse = wave is None or first.pixel_size_m > 2.0 * wave / alpha_rad
    column = Column(alpha_rad, first.pixel_size_m, first.pixel_size_y_m, wavelength_m=None if coarse else wave)
    quietest = min((e.noise for e in evidence), key=lambda noise: float(noise.mean()))
    matrix = np.asarray(instrument.stigmator_matrix_m or ((0.0, 0.0), (0.0, 0.0)))
    views = []
    for e in evidence:
        ax, ay = matrix @ (e.stigmator_x - first.stigmator_x, e.stigmator_y - first.stigmator_y)
        offset = e.working_distance_m - first.working_distance_m
        views.append(View(e.spectra, e.centres_px, quietest, offset, (float(ax), float(ay)), e.grown))
    return Scene(views, column, independent=first.independent, power_alone=power_alone)
