"""What is still known of focus when the scene changes: an old answer and two headers in, a prior or none out. Pure.

The next site needs fewer frames where its frames agree with what was believed of it; where they do not, they are right.
"""

from dataclasses import dataclass, replace
from math import erfc, hypot, inf, sqrt

from agent.control.estimate import Estimate
from agent.control.instrument import Instrument
from agent.messages import Optics

UNEVEN = 2e-3  # metres up or down per metre along: a specimen is mounted level to a tenth of a degree
DRIFT_M_S = 0.5e-9  # of focus: a lens that warms up goes by micrometres an hour
STIGMATION = 0.1  # of that: astigmatism drifts by so much of what focus does
TILTED_RAD = 2e-3  # a stage that tilts or turns takes the specimen somewhere else
SAME = 0.01  # relative: of a voltage or an angle that did not change
MAGNIFIED = 10.0  # beyond, many columns drive their lenses differently and do not say so
LOST_H = 0.5  # of h: where focus is known no better it is to be found again
AGREES = 2.0  # sigmas within which frames and belief may differ


@dataclass(frozen=True)
class Prior:
    """What is believed before the first frame of a site. On the scale of the lens, at these stigmators."""

    in_focus_m: float
    sigma_m: float
    astigmatism_m: tuple[float, float]
    sigma_astigmatism_m: float  # infinite: nothing is known
    stigmators: tuple[float, float]


@dataclass(frozen=True)
class Belief:
    """The last good answer, and the header of the frame that it was for."""

    prior: Prior
    optics: Optics
    half_depth_of_focus_m: float

    def lost(self, now: Optics) -> bool:
        """Can focus no longer be called found? Where a header does not tell how far it went, the model watches."""
        if not self.holds(now):
            return True
        prior, finer = self.at(now), (now.pixel_size_m or 1.0) / (self.optics.pixel_size_m or 1.0)
        return prior is not None and prior.sigma_m > LOST_H * finer * self.half_depth_of_focus_m

    def holds(self, now: Optics) -> bool:
        """Is it still the same column, driven in the same way?"""
        was = self.optics
        if (was.session, was.source, was.lens_mode) != (now.session, now.source, now.lens_mode):
            return False
        same = (
            (was.landing_energy_ev or was.accelerating_voltage_v, now.landing_energy_ev or now.accelerating_voltage_v),
            (was.aperture_m, now.aperture_m),
            (was.semi_convergence_angle_rad, now.semi_convergence_angle_rad),
        )
        scale = (was.pixel_size_m or 1.0) / (now.pixel_size_m or 1.0)
        return all(_alike(a, b) for a, b in same) and 1.0 / MAGNIFIED < scale < MAGNIFIED

    def at(self, now: Optics) -> Prior | None:
        """What it means for another scene; None where it says nothing of it."""
        if not self.holds(now):
            return None
        along_m, lifted_m = _travel_m(self.optics, now), _away(self.optics.stage_z_m, now.stage_z_m)
        turned = max(_away(self.optics.stage_tilt_rad, now.stage_tilt_rad), _turn(self.optics, now))
        if along_m == inf or lifted_m == inf or turned > TILTED_RAD:
            return None
        drift_m = DRIFT_M_S * abs((now.t_start_ns or 0) - (self.optics.t_start_ns or 0)) / 1e9
        was = self.prior
        rotated = _away(self.optics.scan_rotation_rad or 0.0, now.scan_rotation_rad or 0.0) > TILTED_RAD
        astigmatism = inf if rotated else hypot(was.sigma_astigmatism_m, STIGMATION * drift_m)
        return replace(
            was,
            sigma_m=hypot(was.sigma_m, UNEVEN * along_m, lifted_m, drift_m),
            sigma_astigmatism_m=astigmatism,
        )


def learned(found: Estimate, optics: Optics) -> Belief | None:
    """What an answer that was good enough to stay is worth later."""
    focus_m, h = found.in_focus_working_distance_m, found.half_depth_of_focus_m
    if focus_m is None or found.sigma_m is None or h is None:
        return None
    known = found.astigmatism_m is not None and found.sigma_astigmatism_m is not None
    prior = Prior(
        focus_m,
        found.sigma_m,
        found.astigmatism_m or (0.0, 0.0),
        (found.sigma_astigmatism_m or inf) if known else inf,
        (optics.stigmator_x or 0.0, optics.stigmator_y or 0.0),
    )
    return Belief(prior, optics, h)


def agrees(found: Estimate, prior: Prior) -> bool:
    """Do frames on their own say what was believed, to what both may be wrong by?"""
    focus_m = found.in_focus_working_distance_m
    if focus_m is None or found.sigma_m is None:
        return False
    return abs(focus_m - prior.in_focus_m) <= AGREES * hypot(found.sigma_m, prior.sigma_m)


def fused(found: Estimate, prior: Prior, instrument: Instrument, stigmators: tuple[float, float]) -> Estimate:
    """An answer of frames, with what was believed where it agrees; frames alone where it does not."""
    z, sigma = found.defocus_m, found.sigma_m
    if not found.answered or z is None or not sigma or not agrees(found, prior):
        return found
    focus_m, sigma_m = _mean((found.working_distance_m - z, sigma), (prior.in_focus_m, prior.sigma_m))
    z = found.working_distance_m - focus_m
    p_wrong = min(found.p_wrong_direction or 0.0, 0.5 * erfc(abs(z) / (sigma_m * sqrt(2.0))))
    better = replace(found, defocus_m=z, sigma_m=sigma_m, p_wrong_direction=p_wrong)
    better = _stigmation(better, prior, instrument, stigmators)
    # No more than both doubts at once, whatever frames on their own leave open of their sum.
    most_m = sigma_m + (better.sigma_astigmatism_m or 0.0)
    return replace(better, sigma_total_m=min(found.sigma_total_m or most_m, most_m))


def _stigmation(found: Estimate, prior: Prior, instrument: Instrument, stigmators: tuple[float, float]) -> Estimate:
    """The same for astigmatism, at the stigmators of the frames."""
    there, sigma = found.astigmatism_m, found.sigma_astigmatism_m
    turned = (stigmators[0] - prior.stigmators[0], stigmators[1] - prior.stigmators[1])
    matrix = instrument.stigmator_matrix_m
    if there is None or not sigma or prior.sigma_astigmatism_m == inf or (matrix is None and turned != (0.0, 0.0)):
        return found
    rows = matrix or ((0.0, 0.0), (0.0, 0.0))
    believed = [a + row[0] * turned[0] + row[1] * turned[1] for a, row in zip(prior.astigmatism_m, rows, strict=True)]
    if any(abs(a - b) > AGREES * hypot(sigma, prior.sigma_astigmatism_m) for a, b in zip(there, believed, strict=True)):
        return found
    (x, less), (y, _) = (
        _mean((a, sigma), (b, prior.sigma_astigmatism_m)) for a, b in zip(there, believed, strict=True)
    )
    return replace(found, astigmatism_m=(x, y), sigma_astigmatism_m=less)


def _mean(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Of two values with their sigmas, each by its information."""
    (a, s), (b, t) = one, other
    weight = t * t / (s * s + t * t)
    return a * weight + b * (1.0 - weight), s * t / hypot(s, t)


def _alike(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= SAME * max(abs(a), abs(b)))


def _away(a: float | None, b: float | None) -> float:
    """Infinite where only one of two headers tells; nothing where neither does."""
    if a is None and b is None:
        return 0.0
    return inf if a is None or b is None else abs(a - b)


def _turn(was: Optics, now: Optics) -> float:
    return _away(was.stage_rotation_rad, now.stage_rotation_rad)


def _travel_m(was: Optics, now: Optics) -> float:
    """Of the place that is looked at, by stage and beam shift; infinite where the stage does not tell where it is."""
    if None in (was.stage_x_m, was.stage_y_m, now.stage_x_m, now.stage_y_m):
        return inf
    x, y = _away(was.stage_x_m, now.stage_x_m), _away(was.stage_y_m, now.stage_y_m)
    shift = hypot(_away(was.beam_shift_x_m, now.beam_shift_x_m), _away(was.beam_shift_y_m, now.beam_shift_y_m))
    return hypot(x, y) + shift
