"""Defocus and astigmatism from a handful of frames at known settings, with a sigma, or the reason there is none.

Pure: evidence and the column in, an estimate out. One frame cannot give the sign; two at distinct working distances
can; three give the convergence angle too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from agent.control.doubt import Fitted, of_angle, of_places, widest
from agent.control.likelihood import Column, Hypothesis, Scene, View, detected_nats
from agent.control.outliers import MOST, odd, only
from agent.control.patchwise import Patchwise
from agent.control.tilt import Field, Prior, plane
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, wavelength_m

Real = NDArray[np.float64]

REACH_H = 60.0  # the coarse search goes this far beyond the frames' own span, in half depths of focus
TIMES_ASKED = 2  # again, at most, without the patches that do not go with the others
MODES = 5  # coarse maxima by power that are worth a registration each
SHIFT_SETS = 3  # distinct registrations that are worth a scan
SAME_SHIFT_PX = 1.0  # registrations closer than this meet when refined
SIGNAL_NATS = 400.0  # by which an object must speak: noise alone reaches 120, a faint texture 5,000
FEW_CELLS = 12  # cells of the spectrum with an object in them, below which there is nothing to compare
WRONG_SIDE = 0.02  # posterior share on the other side of focus that is too much to answer
# Windows mix what the model keeps apart, so the likelihood speaks too loud: measured scatter squared over curvature.
TEMPER = 5.0
# What a sigma is told by: with its noise coloured and its rows displaced as they are, a picture alike in all
# directions errs by less than the temper allows for. Where it runs one way, the little that does not decides between
# defocus and astigmatism, and is as much model error as signal: louder from that share on.
LOUD, ONE_WAY, ONE_WAY_POWER = 3.2, 0.10, 2.0
STUCK_NATS, STUCK_SHARE = 100.0, 0.005  # by which a lens that stayed must explain the frames better: models err too
UNMOVED_H = 1.5  # of h: working distances closer than this make pictures that are alike
ALPHA_GRID_RAD = np.geomspace(1e-3, 30e-3, 9)
ALPHA_COARSE = 0.25  # spread of its logarithm after that grid
ALPHA_LEAST = 0.02  # relative error of any certificate's angle, whatever it says: lenses are turned between two of them
STRAYED = 2.0  # times that, by which it may be off without saying that something is wrong
ALPHA_WELL_KNOWN = 0.06  # relative: one climb finds it then
# Lines all one way cannot tell astigmatism from defocus: a weak belief that columns are stigmated to about h decides.
ASTIGMATISM_H = 0.5
# ... but a column that is not shows it only where the frames tell: what they leave open is as wide as that.
ASTIGMATISM_OPEN_H = 1.5
STEP = (0.12, 0.12, 0.12, 0.03)  # finite differences: z, ax, ay in h, ln alpha
GAIN_STEP = 0.03  # and the logarithm of a frame's contrast
# The likelihood counts model errors (pupil shape, drift within a frame, topography) as information; answers at high
# dose are no better than this share of h, whatever the curvature says.
SYSTEMATIC_H = 0.02
SYSTEMATIC_OF_Z = 0.015
# Focus between frames is surer than focus that is extrapolated to: of the second nearest frame's way to it, and, where
# that is many h, of its square.
SYSTEMATIC_OF_WAY, FAR_WAY_H = 0.008, 50.0


@dataclass(frozen=True)
class Instrument:
    """What is known of the column before a frame is looked at."""

    alpha_rad: float | None = None  # None: to be estimated with z
    alpha_sigma_rad: float = 0.0
    fw50_m: float = 0.0
    stigmator_matrix_m: tuple[tuple[float, float], tuple[float, float]] | None = None
    scale_per_m: float | None = None  # None: 1/WD may or may not be compensated, both are tried
    gain_sigma: float = 0.0  # of the frames' contrast, with far tails; 0 in a stream: its scene epochs vouch for it
    hysteresis_m: float = 0.0  # play of the working distance


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


def estimate(evidence: Sequence[Evidence], instrument: Instrument) -> Estimate:
    """The best account of all frames together, for the setting of the last one.

    All evidence must be of one scene and one pixel size; the caller sees to it.
    """
    return solved(evidence, instrument)[0]


def _begun(evidence: Sequence[Evidence], instrument: Instrument) -> "Estimate | _Search":
    """A search, or the reason why there is none."""
    last = evidence[-1]
    distances = distinct([e.working_distance_m for e in evidence])
    if len(distances) < 2:
        return _abstain(last, evidence, "sign_unknown")
    if instrument.alpha_rad is None and len(distances) < 3:
        return _abstain(last, evidence, "uncalibrated")
    return _Search(evidence, instrument)


@dataclass(frozen=True)
class Solved:
    """What an estimate stands on: the scene as it was registered and weighed, and the best account of it."""

    scene: Scene
    at: Hypothesis  # of the last frame
    h: float
    patchwise: Patchwise
    slope_h_per_px: tuple[float, float]
    patches: tuple[int, ...] = ()  # of the field, that were used


def solved(evidence: Sequence[Evidence], instrument: Instrument) -> tuple[Estimate, Solved | None]:
    """`estimate`, and what it stands on; None where there was nothing to search.

    Parts of the field that do not go with the others are left out, and the others are asked again.
    """
    search = _begun(evidence, instrument)
    if isinstance(search, Estimate):
        return search, None
    found, known = search.run(), search.solved
    count = len(evidence[0].spectra)
    patches = np.arange(count)
    for _ in range(TIMES_ASKED):
        if known is None or found.reason == "featureless":
            break
        left = odd(known.patchwise, known.at, most=int(MOST * count) - (count - patches.size))
        if not left:
            break
        patches = np.delete(patches, left)
        search = _Search(only(evidence, patches), instrument)
        found, known = search.run(), search.solved
    if known is None:
        return found, None
    return replace(found, patches_used=patches.size / count), replace(known, patches=tuple(int(p) for p in patches))


def scene_of(evidence: Sequence[Evidence], instrument: Instrument) -> Scene:
    """The frames as the likelihood sees them, for who asks what they could tell."""
    return _Search(evidence, instrument).scene


def distinct(values_m: Sequence[float], tolerance_m: float = 20e-9) -> list[float]:
    """Working distances that differ by more than a read-back's rounding."""
    found: list[float] = []
    for value in sorted(values_m):
        if not found or value - found[-1] > tolerance_m:
            found.append(value)
    return found


def _abstain(last: Evidence, evidence: Sequence[Evidence], reason: str) -> Estimate:
    frames = tuple(e.frame for e in evidence)
    return Estimate(last.working_distance_m, None, None, None, None, None, None, None, reason, frames)


@dataclass(frozen=True)
class _Mode:
    """A maximum of the likelihood, in h and ln alpha, with its curvature."""

    theta: Real  # z, ax, ay [h], ln alpha factor
    value: float
    covariance: Real
    shifts: Real
    pupil: str
    slope_h_per_px: tuple[float, float] | None = None  # of focus over the field; None: level as far as it can tell


@dataclass(frozen=True, eq=False)
class _Start:
    """A coarse hypothesis and the registration it was found with."""

    z_h: float
    stretch: float  # logarithm of the angle against the assumed one
    shifts: Real
    pupil: str


class _Search:
    """One estimate: coarse grid, registration of the best modes, Newton on each, the verdict."""

    def __init__(self, evidence: Sequence[Evidence], instrument: Instrument) -> None:
        self.evidence, self.instrument = evidence, instrument
        self.reference = evidence[-1]
        self.gains = len(evidence) - 1 if instrument.gain_sigma > 0.0 else 0
        self.step = np.array([*STEP, *[GAIN_STEP] * self.gains])
        bracketed = len(distinct([e.working_distance_m for e in evidence])) > 2
        self.fit_alpha = instrument.alpha_rad is None or (bracketed and instrument.alpha_sigma_rad > 0.0)
        self.alpha_rad = instrument.alpha_rad or float(np.median(ALPHA_GRID_RAD))
        self.scene = self._scene(self.alpha_rad)
        self.best: _Mode | None = None
        self.h = half_depth_of_focus_m(self.reference.pixel_size_m, self.alpha_rad, instrument.fw50_m)

    @property
    def solved(self) -> Solved | None:
        """After `run`; None where nothing was found to compare."""
        if self.best is None:
            return None
        self.scene.set_pupil(self.best.pupil)
        self.scene.align(self.best.shifts)
        return Solved(
            self.scene, self._at(self.best.theta), self.h, self.patchwise, self.best.slope_h_per_px or (0.0, 0.0)
        )

    def run(self) -> Estimate:
        if self.scene.active.size < FEW_CELLS:
            return _abstain(self.reference, self.evidence, "featureless")
        if self.instrument.alpha_rad is None:
            self._find_alpha()
        self.scene.set_scale(self.instrument.scale_per_m or 0.0)
        starts = self._starts()
        self._allow_for_errors(starts[0])
        modes = sorted((self._climb(start) for start in starts), key=lambda mode: -mode.value)
        best = self._polish(modes[0])
        rivals = [self._again(mode) for mode in modes[1:]]
        return self._verdict(self._tilted(best), rivals)

    def _scene(self, alpha_rad: float) -> Scene:
        first = self.reference
        wave = wavelength_m(first.landing_energy_ev) if first.landing_energy_ev else None
        coarse = wave is None or first.pixel_size_m > 2.0 * wave / alpha_rad
        column = Column(alpha_rad, first.pixel_size_m, first.pixel_size_y_m, wavelength_m=None if coarse else wave)
        self.noise = _common_noise([e.noise * max(e.averages, 1) for e in self.evidence])
        views = [self._view(e) for e in self.evidence]
        return Scene(views, column, independent=first.independent)

    def _view(self, e: Evidence) -> View:
        matrix = self.instrument.stigmator_matrix_m or ((0.0, 0.0), (0.0, 0.0))
        dx, dy = e.stigmator_x - self.reference.stigmator_x, e.stigmator_y - self.reference.stigmator_y
        added = (matrix[0][0] * dx + matrix[0][1] * dy, matrix[1][0] * dx + matrix[1][1] * dy)
        offset = e.working_distance_m - self.reference.working_distance_m
        noise = e.noise if self.gains else self.noise / max(e.averages, 1)
        return View(e.spectra, e.centres_px, np.asarray(noise, np.float32), offset, added, e.grown)

    def _grid(self) -> Real:
        """Hypotheses of z in h: even near any frame's focus, sparser far out."""
        offsets = np.array([view.offset_m for view in self.scene.views]) / self.h
        low, high = -offsets.max() - REACH_H, -offsets.min() + REACH_H
        inner = np.arange(-offsets.max() - 6.0, -offsets.min() + 6.0, 1.0)
        steps = np.cumsum(np.maximum(1.0, 0.06 * np.arange(0.0, 60.0)))
        outer = np.concatenate([inner[0] - steps[::-1], inner, inner[-1] + steps])
        return np.asarray(outer[(outer >= low) & (outer <= high)])

    def _find_alpha(self) -> None:
        """Coarse alpha by the power of each frame: the blur variance is a parabola in working distance."""
        best = (-np.inf, self.alpha_rad)
        for alpha in ALPHA_GRID_RAD:
            self.h = half_depth_of_focus_m(self.reference.pixel_size_m, alpha, self.instrument.fw50_m)
            factor = alpha / self.alpha_rad
            hypotheses = [Hypothesis(z * self.h, alpha_factor=factor) for z in self._grid()]
            best = max(best, (float(self.scene.incoherent(hypotheses).max()), float(alpha)))
        self.alpha_rad = best[1]
        self.scene.column = replace(self.scene.column, alpha_rad=self.alpha_rad)
        self.h = half_depth_of_focus_m(self.reference.pixel_size_m, self.alpha_rad, self.instrument.fw50_m)

    def _starts(self) -> list[_Start]:
        """The best coarse hypotheses: shifts from the likeliest by power alone, then all of them with those shifts."""
        grid = self._grid()
        power = self.scene.incoherent(self._hypotheses(grid, 0.0))
        sets = self._shift_sets([Hypothesis(grid[i] * self.h) for i in _peaks(power)[:MODES]])
        found: list[tuple[float, _Start]] = []
        for pupil in self._pupils():
            self.scene.set_pupil(pupil)
            for stretch in self._alpha_stretches():
                values = self.scene.likelihoods(self._hypotheses(grid, stretch), sets)
                found += [
                    (float(row[i]), _Start(float(grid[i] * np.exp(-stretch)), stretch, shifts, pupil))
                    for shifts, row in zip(sets, values, strict=True)
                    for i in _peaks(row)[:3]
                ]
        return _worth_climbing([start for _, start in sorted(found, key=lambda f: -f[0])])

    def _hypotheses(self, grid: Real, stretch: float) -> list[Hypothesis]:
        """The grid's blurs with another angle: a larger angle makes them at a smaller defocus."""
        factor = float(np.exp(stretch))
        return [Hypothesis(z * self.h / factor, alpha_factor=factor) for z in grid]

    def _alpha_stretches(self) -> tuple[float, ...]:
        """Logarithms of the angle, against the assumed one, from which to climb."""
        known = self.instrument.alpha_rad
        if not self.fit_alpha:
            return (0.0,)
        spread = ALPHA_COARSE if known is None else self.instrument.alpha_sigma_rad / known
        return (0.0,) if spread < ALPHA_WELL_KNOWN else tuple(spread * t for t in (-1.5, -0.75, 0.0, 0.75, 1.5))

    def _pupils(self) -> tuple[str, ...]:
        """How the beam fills its angles is read off the frames too: columns differ, a wrong one costs whole h."""
        return ("disc",) if self.scene.column.wavelength_m is not None else ("disc", "gaussian")

    def _shift_sets(self, hypotheses: list[Hypothesis]) -> list[Real]:
        sets: list[Real] = []
        for hypothesis in hypotheses:
            self.scene.find_shifts(hypothesis)
            if all(np.abs(self.scene.shifts - other).max() > SAME_SHIFT_PX for other in sets):
                sets.append(self.scene.shifts.copy())
        return sets[:SHIFT_SETS]

    def _climb(self, start: _Start) -> _Mode:
        """Gauss-Newton on (z, ax, ay[, ln alpha]), the shifts renewed half-way."""
        theta = np.zeros(4 + self.gains)
        theta[0], theta[3] = start.z_h, start.stretch
        self.scene.set_pupil(start.pupil)
        self.scene.align(start.shifts)
        for steps in (4, 6):
            theta = self._newton(theta, steps)
            self.scene.refine_shifts(self._at(theta))
        return self._mode(theta)

    def _allow_for_errors(self, start: _Start) -> None:
        self.scene.set_pupil(start.pupil)
        self.scene.align(start.shifts)
        self.scene.allow_for_errors(Hypothesis(start.z_h * self.h, alpha_factor=float(np.exp(start.stretch))))

    def _again(self, mode: _Mode) -> _Mode:
        """A rival's value by the weights that the best mode was judged by."""
        self.scene.set_pupil(mode.pupil)
        self.scene.align(mode.shifts)
        value = float(self.scene.likelihood([self._at(mode.theta)])[0])
        return replace(mode, value=value - TEMPER * self._surprise(mode.theta))

    def _polish(self, mode: _Mode) -> _Mode:
        """The best mode once more, with the magnification change decided."""
        self.scene.set_pupil(mode.pupil)
        self.scene.align(mode.shifts)
        if self.instrument.scale_per_m is None:
            self.scene.choose_scale(self._at(mode.theta), 1.0 / self.reference.working_distance_m)
        self.scene.refine_shifts(self._at(mode.theta))
        self.scene.allow_for_errors(self._at(mode.theta))
        return self._mode(self._newton(mode.theta, 6))

    def _tilted(self, best: _Mode) -> _Mode:
        """The best mode with a plane of focus over the field, where the patches ask for one.

        Its value stays what it is without: rivals were judged so.
        """
        self.scene.set_pupil(best.pupil)
        self.scene.align(best.shifts)
        self.patchwise = Patchwise(self.scene)
        at = self._at(best.theta)
        field = Field(self.patchwise, self.h, at.gains)
        found = plane(field, at, lambda theta: self._belief(theta, best.theta[4:]), step=self.step[:4], temper=TEMPER)
        if found is None:
            return best
        covariance = best.covariance
        if not self.gains:  # which are left as they were, with what they leave open
            covariance = np.zeros_like(covariance)
            covariance[np.ix_(self._free(), self._free())] = found.covariance
        theta = np.append(found.theta, best.theta[4:])
        return replace(best, theta=theta, covariance=covariance, slope_h_per_px=found.slope_h_per_px)

    def _belief(self, theta: Real, gains: Real) -> Prior:
        """Of z, ax, ay and ln alpha, the contrasts as they are."""
        whole = np.append(theta, gains)
        sides = [(whole + self._unit(i), whole - self._unit(i)) for i in range(4)]
        slopes = [(self._surprise(above) - self._surprise(below)) / 2.0 for above, below in sides]
        free = tuple(i for i in self._free() if i < 4)
        gradient = TEMPER * np.array(slopes) / self.step[:4]
        return Prior(TEMPER * self._surprise(whole), gradient, self._prior_curvature(whole)[:4], free)

    def _mode(self, theta: Real) -> _Mode:
        value, _, curvature = self._local(theta)
        free = self._free()
        covariance = np.zeros((theta.size, theta.size))
        covariance[np.ix_(free, free)] = np.linalg.inv(curvature)
        return _Mode(theta, value, covariance, self.scene.shifts.copy(), self.scene.column.pupil)

    def _free(self) -> list[int]:
        return [i for i in range(4 + self.gains) if i != 3 or self.fit_alpha]

    def _at(self, theta: Real) -> Hypothesis:
        z, ax, ay = (float(x) * self.h for x in theta[:3])
        gains = (*(float(g) for g in theta[4:]), 0.0) if self.gains else ()
        return Hypothesis(z, ax, ay, float(np.exp(theta[3])), gains)

    def _surprise(self, theta: Real) -> float:
        """Minus the logarithm of the prior, as loud as one frame's word that is not tempered."""
        total = 0.5 * float(theta[1] ** 2 + theta[2] ** 2) / ASTIGMATISM_H**2
        if self.fit_alpha and self.instrument.alpha_rad is not None:
            total += float(np.log1p(0.5 * (theta[3] / self._alpha_spread) ** 2))  # far tails: certificates can be wrong
        if self.gains:
            total += float(np.log1p((theta[4:] / self.instrument.gain_sigma) ** 2).sum())
        return total

    def _local(self, theta: Real) -> tuple[float, Real, Real]:
        """Value, gradient by central differences, and the expected curvature (never negative) with the priors'."""
        free = self._free()
        around = [theta + sign * self._unit(a) for a in free for sign in (1, -1)]
        step = self.step[free]
        heard, curvature = self.scene.around([self._at(point) for point in (theta, *around)], step)
        values = heard - TEMPER * np.array([self._surprise(point) for point in (theta, *around)])
        gradient = (values[1::2] - values[2::2]) / (2 * step)
        return float(values[0]), gradient, np.asarray(curvature + np.diag(self._prior_curvature(theta)[free]))

    def _prior_curvature(self, theta: Real) -> Real:
        belief = 1.0 / ASTIGMATISM_H**2
        alpha = 0.0
        if self.instrument.alpha_rad is not None and self.instrument.alpha_sigma_rad > 0.0:
            alpha = 2.0 / (2.0 * self._alpha_spread**2 + float(theta[3]) ** 2)
        gains: Real | list[float] = 2.0 / (self.instrument.gain_sigma**2 + theta[4:] ** 2) if self.gains else []
        return TEMPER * np.array([1e-4, belief, belief, alpha, *gains])

    def _unit(self, index: int) -> Real:
        vector = np.zeros(self.step.size)
        vector[index] = self.step[index]
        return vector

    def _newton(self, theta: Real, steps: int) -> Real:
        """Gauss-Newton with damping; a step that does not climb is shortened."""
        damping = 0.0
        value, gradient, curvature = self._local(theta)
        for _ in range(steps):
            step = np.zeros(theta.size)
            damped = curvature + damping * np.diag(np.diag(curvature) + 1e-6)
            step[self._free()] = np.linalg.solve(damped, gradient)
            bound = np.array([2.0 + 0.1 * abs(theta[0]), 1.5, 1.5, 0.15, *[0.3] * self.gains])
            step /= max(1.0, float(np.max(np.abs(step) / bound)))
            trial = theta + step
            there = self._local(trial)
            if there[0] > value:
                theta, (value, gradient, curvature), damping = trial, there, damping / 4.0
                if np.abs(step).max() < 0.02:
                    break
            elif damping > 100 or np.abs(step).max() < 0.01:
                break
            else:
                damping = max(4.0 * damping, 0.5)
        return theta

    def _verdict(self, best: _Mode, rivals: list[_Mode]) -> Estimate:
        z, ax, ay = (float(x) * self.h for x in best.theta[:3])
        alpha = self.alpha_rad * float(np.exp(best.theta[3]))
        half = half_depth_of_focus_m(self.reference.pixel_size_m, alpha, self.instrument.fw50_m)
        weights = _weights(best, rivals)
        spread = sum(w * (m.theta[0] - best.theta[0]) ** 2 for w, m in zip(weights, rivals, strict=True))
        covariance, angle = self._covariance(best, half)
        covariance += np.diag([spread, 0.0, 0.0])
        sigma = self.h * float(np.sqrt(covariance[0, 0]))
        sigma_a = self.h * float(np.sqrt(0.5 * (covariance[1, 1] + covariance[2, 2])))
        other_side = sum(w for w, m in zip(weights, rivals, strict=True) if m.theta[0] * best.theta[0] < 0)
        p_wrong = min(1.0, 0.5 * erfc(abs(z) / (sigma * sqrt(2.0))) + other_side)
        self.best = best
        if best.value < SIGNAL_NATS:
            return _abstain(self.reference, self.evidence, "featureless")
        if other_side > WRONG_SIDE or sigma > 1.5 * half + 0.1 * abs(z):
            return _abstain(self.reference, self.evidence, "ambiguous")
        if len(distinct([e.working_distance_m for e in self.evidence])) > 2 and (
            self._unmoved(best) or self._stuck(best)
        ):
            return _abstain(self.reference, self.evidence, "actuator_dead")
        frames = tuple(e.frame for e in self.evidence)
        where = self.reference.working_distance_m
        found = Estimate(where, z, sigma, (ax, ay), sigma_a, p_wrong, alpha, half, None, frames)
        found = replace(found, sigma_total_m=self.h * widest(covariance), angle_m=self.h * angle)
        return found if best.slope_h_per_px is None else replace(found, slope=self._slope(best.slope_h_per_px))

    def _slope(self, h_per_px: tuple[float, float]) -> tuple[float, float]:
        first = self.reference
        return h_per_px[0] * self.h / first.pixel_size_m, h_per_px[1] * self.h / first.pixel_size_y_m

    def _covariance(self, best: _Mode, half_m: float) -> tuple[Real, float]:
        """Of z, ax, ay, h squared: what the frames leave open, what was taken as known, what the model errs by. And
        what z moves by, per relative error of an angle that was not fitted."""
        free = self._free()
        points = [best.theta + sign * self._unit(a) for a in free for sign in (1, -1)]
        fitted = Fitted(
            self._at(best.theta),
            [self._at(point) for point in points],
            self.step[free],
            best.covariance[np.ix_(free, free)],
            self.h,
        )
        angle = np.zeros(3)
        if not self.fit_alpha and self.instrument.alpha_sigma_rad > 0.0:
            angle = of_angle(self.scene, fitted)
        known = of_places(self.scene, fitted, [e.place_sigma_m for e in self.evidence])
        known += self._alpha_spread**2 * np.outer(angle, angle)
        owed = self._owed_to_angle(best)
        known += np.outer(owed, owed)
        return self._left_open(best) + known + self._model_errors(best, half_m), abs(float(angle[0]))

    def _owed_to_angle(self, best: _Mode) -> Real:
        """(3,) What the answer owes to an angle that was fitted far from its certificate: one of the two is wrong, or
        the model is, and nobody knows which."""
        strayed = abs(float(best.theta[3])) - STRAYED * self._alpha_spread
        if not self.fit_alpha or self.instrument.alpha_rad is None or strayed <= 0.0:
            return np.zeros(3)
        return np.asarray(strayed * best.covariance[:3, 3] / best.covariance[3, 3], np.float64)

    def _left_open(self, best: _Mode) -> Real:
        """By the frames as loud as they may speak, with a belief in a stigmated column that is weaker than the one
        that chose the answer: (3, 3)."""
        free = self._free()
        loud = LOUD * (1.0 + (self.scene.one_way() / ONE_WAY) ** ONE_WAY_POWER)
        believed = np.diag(self._prior_curvature(best.theta)[free])
        told = np.linalg.inv(best.covariance[np.ix_(free, free)]) - believed
        weaker = believed / TEMPER
        weaker[1, 1] = weaker[2, 2] = 1.0 / ASTIGMATISM_OPEN_H**2
        return np.asarray(np.linalg.inv(told / loud + weaker)[:3, :3], np.float64)

    def _model_errors(self, best: _Mode, half_m: float) -> Real:
        """(3, 3)"""
        always = SYSTEMATIC_H * half_m / self.h + SYSTEMATIC_OF_Z * abs(float(best.theta[0]))
        return np.diag([always**2 + self._error_of_way(best) ** 2, always**2, always**2])

    def _error_of_way(self, best: _Mode) -> float:
        """What the model errs by over the way from the second nearest frame to focus."""
        ways = sorted(abs(float(best.theta[0]) + view.offset_m / self.h) for view in self.scene.views)
        return float(np.hypot(SYSTEMATIC_OF_WAY * ways[1], (ways[1] / FAR_WAY_H) ** 2))

    @property
    def _alpha_spread(self) -> float:
        """Relative error of the angle: what is claimed, or what any column drifts by."""
        known = self.instrument.alpha_rad or 1.0
        return max(self.instrument.alpha_sigma_rad / known, ALPHA_LEAST)

    def _stuck(self, best: _Mode) -> bool:
        """Does the last picture fit the one before better where that one was taken than where it says it was?"""
        step = self.reference.working_distance_m - self.evidence[-2].working_distance_m
        if abs(step) < UNMOVED_H * self.h:
            return False
        views = self.scene.views
        # Seen from the last frame, all the others lie where they would if it had stayed.
        self.scene.views = [replace(v, offset_m=v.offset_m + step) for v in views[:-1]] + [views[-1]]
        try:
            here = self._at(best.theta)
            stayed = self.scene.likelihood([replace(here, z_m=z * self.h) for z in self._grid()])
        finally:
            self.scene.views = views
        return float(stayed.max()) > best.value + max(STUCK_NATS, STUCK_SHARE * best.value)

    def _unmoved(self, best: _Mode) -> bool:
        """Do the frames agree with one another better than any defocus makes them differ?

        Frames that moved differ by thousands of nats, frames that did not by less than none.
        """
        offsets = [view.offset_m for view in self.scene.views]
        return max(offsets) - min(offsets) > UNMOVED_H * self.h and self.scene.unmoved() > best.value


def _weights(best: _Mode, rivals: list[_Mode]) -> list[float]:
    """Posterior share of each rival maximum, tempered as the variances are."""
    odds = [float(np.exp(min((rival.value - best.value) / TEMPER, 0.0))) for rival in rivals]
    apart = [abs(rival.theta[0] - best.theta[0]) > 0.5 for rival in rivals]
    odds = [o if far else 0.0 for o, far in zip(odds, apart, strict=True)]
    return [o / (1.0 + sum(odds)) for o in odds]


def object_nats(e: Evidence) -> float:
    """How much better one frame is explained with an object in it than as noise alone."""
    return detected_nats(e.spectra, e.noise, e.independent)


def _worth_climbing(ranked: list[_Start]) -> list[_Start]:
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


def _common_noise(noises: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One scene has one noise: frames in focus show theirs with content on top, so the lowest few are believed."""
    lowest = min(float(noise.mean()) for noise in noises)
    return np.asarray(np.mean([noise for noise in noises if noise.mean() < 1.04 * lowest], axis=0), np.float32)
