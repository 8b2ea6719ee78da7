"""Did lens and stigmators go where they were told? A routine's frames in, the fault that explains them better than the
read-backs do out. Pure.

A lens that has always gone the other way is the mirror image of a sound one, and |A k| is the same under (z, a) ->
(-z, -a): focus is found all the same and spectra alone cannot tell. The magnification can, where a certificate says
how it follows the working distance. A lens that fails within a routine shows in the blur: the frame after a move is not
as sharp as the frames before it promised. So does a stigmator that does the opposite of what the certificate says: what
it should have taken away is there twice.

How much a fault must explain is asked of the frames themselves: by what they scatter about its own account.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.control.accounts import Account, Fit, Lens, Search
from agent.control.estimate import Estimate
from agent.control.instrument import Instrument, distinct
from agent.control.likelihood import Column, Hypothesis, Scene, View
from agent.control.search import ALPHA_LEAST
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, wavelength_m

Real = NDArray[np.float64]

DEAD, INVERTED, CLIPPED, INCONSISTENT = "actuator_dead", "actuator_inverted", "clipped", "inconsistent"
SURPRISED_H, SURPRISED_SIGMAS = 0.7, 2.0  # off the promised focus: a miss worth an explanation
LONG_H = 2.0  # of h: a move that fell short by less may be play, or an angle a little wrong
TURNS = ((-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0))
TURNED_H = 0.6  # of h: stigmators that were turned by less make pictures that are alike whichever way they went
LAST_MOVE, STAYED, BEHIND, TURNED = "last move", "stayed", "behind", "turned"
HINTS = 30.0  # nats, by groups of cells, below which no account of a lens at fault is worth another look
# Nats, in units of what chance makes of them in these frames, by which a fault must explain them better. A lens that
# did less has a number of its own to fit with: sound ones reach 36. Stigmators that do the opposite have none: 5.
SPEAKS, TURNED_SPEAKS = 50.0, 12.0
NEARLY = 10.0  # of the same: stigmators are named where they explain it nearly as well as a lens that fits itself
# Of the same, by which frames must tell the lens that moved from one that never did before focus is called found:
# sound ones reach 11 and more, and a lens that never moved explains its own frames as well as any other account.
MOVED = 6.0
DEAD_SHARE, INVERTED_SHARE = 0.15, -0.5  # of a move that was really made: below the first none, below the second back
SOUND_SHARE = 0.85
SHARES = (-1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
SHARE_BOUNDS = (-1.5, 1.1)  # no lens goes back by more than it was told, or further than it was told, but by its play
STOPS = (0.05, 0.25, 0.5, 0.75)  # of the way from the first place to the outermost one on that side
ALPHA_WRONG = 0.47  # logarithm: a certificate's angle may be wrong by a third, and by no more before a lens is blamed
ALPHA_UNKNOWN = 2.0  # logarithm
ALPHA_GUESS_RAD = 5e-3
ANGLE_GUESSED = 0.7  # of the logarithm of an angle that nobody measured
THREE_ROOT = 3.0**0.5  # from the sigma of an even chance to its bounds
MIRRORED_NATS = 150.0  # by which the magnification must go the other way


@dataclass(frozen=True)
class Fault:
    """What the lens did instead. `place_m`: where it really stands, by the read-back's scale of the frames before."""

    code: str
    place_m: float
    detail: str = ""  # for people, where the code alone would send them to the wrong knob
    turned_round: bool = False  # within the routine: what took it away does not bring it back


def fault(
    evidence: Sequence[Evidence], before: Estimate | None, found: Estimate, *, instrument: Instrument
) -> Fault | None:
    """Why the newest frame is not where the frames before it promised, if the lens is to blame.

    before: the estimate that the move to the newest frame was made by; found: the one with the newest frame.
    """
    if len(distinct([e.working_distance_m for e in evidence])) < 3 or not _surprising(before, found):
        return None
    return _Judged(evidence, lens(evidence, before, instrument, of=evidence[-2])).fault()


def doubt(evidence: Sequence[Evidence], found: Estimate, instrument: Instrument) -> Fault | None:
    """Before focus is called found: could the lens have done something else than it was told, and more likely?

    A lens that is mirrored stands where it is told to find focus, so that is where it may stay.
    """
    if mirrored(evidence, found, instrument):
        return Fault(INVERTED, evidence[-1].working_distance_m)
    if len(distinct([e.working_distance_m for e in evidence])) < 3:
        return None
    return _Judged(evidence, lens(evidence, found, instrument, of=evidence[-1])).doubt()


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
    return newest.working_distance_m + found.place_m - home_m if found.turned_round else home_m


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


class _Judged:
    """The accounts of one routine's frames, compared by what chance makes of such a comparison."""

    def __init__(self, evidence: Sequence[Evidence], lens: Lens) -> None:
        self.newest, self.lens = evidence[-1], lens
        self.told_m = np.array([e.working_distance_m for e in evidence])
        self.search = Search(lens, [*_accounts(self.told_m), *_turned(self.told_m, lens)])

    def fault(self) -> Fault | None:
        """The likeliest one, if the read-backs cannot be made to agree nearly as well."""
        return self._named(self.search.roughly())

    def doubt(self) -> Fault | None:
        """The same; and where the frames do not even tell whether the lens moved, it may not have."""
        rough = self.search.roughly()
        return self._named(rough) or self._unmoved(*rough[:2])

    def _unmoved(self, told: Fit, stayed: Fit) -> Fault | None:
        if stayed.value < told.value - HINTS:
            return None
        told, stayed = self.search.exactly([told, stayed])
        alike = stayed.value > told.value - MOVED * self.search.chance(told)
        return Fault(DEAD, self.lens.home_m) if alike else None

    def _hints(self, fit: Fit, told: Fit) -> bool:
        if fit.account.name == TURNED:
            return fit.value > told.value
        return fit.value > told.value + HINTS and _missed(fit, self.told_m) > 0.5 * LONG_H * self.lens.h

    def _named(self, rough: Sequence[Fit]) -> Fault | None:
        hints = [fit for fit in rough[1:] if self._hints(fit, rough[0])]
        if not hints:
            return None
        told, *others = self.search.exactly([rough[0], *hints])
        chance = self.search.chance(max(others, key=_value))
        lens = self._best(told, [f for f in others if f.account.name != TURNED], SPEAKS * chance)
        behind = next((f for f in others if f.account.name == BEHIND), None)
        if lens is not None and behind is not None and behind.value > lens.value - NEARLY * chance:
            return Fault(INCONSISTENT, float(behind.places_m[-1]))
        turned = self._best(told, [f for f in others if f.account.name == TURNED], TURNED_SPEAKS * chance)
        if turned is not None and (lens is None or turned.value > lens.value - NEARLY * chance):
            # Or the lens, and always did: the mirror image of stigmators that are both turned round.
            return Fault(INVERTED, self.newest.working_distance_m, detail=_which(turned.account.turns))
        return None if lens is None else self._of_lens(lens)

    @staticmethod
    def _best(told: Fit, fits: Sequence[Fit], by: float) -> Fit | None:
        best = max(fits, key=_value, default=None)
        return None if best is None or best.value < told.value + by else best

    def _of_lens(self, best: Fit) -> Fault | None:
        if _missed(best, self.told_m) < LONG_H * self.lens.h:
            return None
        code = _name(best, self.told_m)
        if code == INVERTED:  # by as much as it was told: the fit is for the name, and less exact
            return Fault(code, float(2.0 * self.told_m[-2] - self.told_m[-1]), turned_round=True)
        return None if code is None else Fault(code, float(best.places_m[-1]))


def _which(turns: tuple[float, float]) -> str:
    several = [name for name, turn in zip("xy", turns, strict=True) if turn < 0.0]
    if len(several) == 2:
        return "both stigmators, or the lens, do the opposite of what the certificate says: calibrate the column"
    return f"stigmator {several[0]} does the opposite of what the certificate says: calibrate the column"


def _value(fit: Fit) -> float:
    return fit.value


def _missed(fit: Fit, told_m: Real) -> float:
    return float(np.abs(fit.places_m - told_m).max())


def lens(evidence: Sequence[Evidence], before: Estimate | None, instrument: Instrument, *, of: Evidence) -> Lens:
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
        angle_sigma=_angle_sigma(instrument),
        loose_m=np.array([THREE_ROOT * e.place_sigma_m for e in evidence]),
        knobs=np.array([(e.stigmator_x - first.stigmator_x, e.stigmator_y - first.stigmator_y) for e in evidence]),
        matrix_m=_matrix(instrument),
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
    ax, ay = _matrix(instrument) @ (e.stigmator_x - first.stigmator_x, e.stigmator_y - first.stigmator_y)
    return float(ax), float(ay)


def _angle_sigma(instrument: Instrument) -> float:
    """Of its logarithm; a header's or a guessed one is worth a factor of two."""
    known = instrument.alpha_rad
    if known is None or instrument.alpha_sigma_rad == 0.0:
        return ANGLE_GUESSED
    return max(instrument.alpha_sigma_rad / known, ALPHA_LEAST)


def _matrix(instrument: Instrument) -> Real:
    return np.asarray(instrument.stigmator_matrix_m or ((0.0, 0.0), (0.0, 0.0)))


def _accounts(told_m: Real) -> list[Account]:
    """A sound lens, and those that made less, or the opposite, of the last move, or ended at a stop on either side."""
    home, before, last = told_m[0], told_m[-2], told_m[-1] - told_m[-2]
    low, high = told_m.min(), told_m.max()
    return [
        Account("as told", lambda _: told_m, (0.5,)),
        Account(STAYED, lambda _: np.full_like(told_m, home), (0.5,)),
        # No lens at all: a grabber that hands out its last picture under the header of now.
        Account(BEHIND, lambda _: np.append(told_m[:1], told_m[:-1]), (0.5,)),
        Account(LAST_MOVE, lambda s: np.append(told_m[:-1], before + s * last), SHARES, SHARE_BOUNDS),
        # Where the first frame was taken the lens can be: it stood there.
        Account("stop above", lambda s: np.minimum(told_m, home + s * (high - home)), STOPS),
        Account("stop below", lambda s: np.maximum(told_m, home - s * (home - low)), STOPS),
    ]


def _turned(told_m: Real, lens: Lens) -> list[Account]:
    """A sound lens with stigmators that do the opposite of what the certificate says: one of them, or both."""
    several = [Account(TURNED, lambda _: told_m, (0.5,), turns=turns) for turns in TURNS]
    return [each for each in several if _turned_h(each, lens) > TURNED_H]


def _turned_h(account: Account, lens: Lens) -> float:
    """By how many h astigmatism is elsewhere than it was told."""
    added_m = lens.stigmation_m(np.array(account.turns)) - lens.stigmation_m(np.ones(2))
    return float(np.hypot(*added_m.T).max()) / lens.h


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
