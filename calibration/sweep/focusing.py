"""First of all, focus: the agent's own routine, with the angle that the header tells or with none."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.control.envelope import Move
from agent.control.focus import Rules, begin, observe
from agent.control.instrument import Instrument
from agent.control.stuck import UNMOVED_H
from agent.messages import Phase
from calibration.sweep.drive import Driver
from calibration.sweep.errors import RefusedError
from calibration.sweep.measure import ALPHA_SIGMA, WHY, Optic, evidence_of

DOSE_FRAMES = 18  # of the routine: from 20 h away it needs four to eight
NEAR_H = 3.0  # the legs that follow reach four times as far: no need to be nearer
SURE_H = 0.6  # of h, one sigma
TOLD_SIGMA = 0.2  # relative: how far a header's angle is trusted


@dataclass(frozen=True)
class Rough:
    """Where focus is, nearly, and what was learnt of the angle on the way."""

    in_focus_m: float
    optic: Optic
    frames: int


def find_focus(driver: Driver) -> Rough:
    """Raises RefusedError with the routine's reason."""
    rules = Rules(driver.envelope, DOSE_FRAMES, steer=True)
    routine, corrected, at = begin(), False, driver.start
    visited: list[float] = []
    for number in range(DOSE_FRAMES + 1):
        taken = driver.shoot(at)
        evidence = evidence_of(taken, number)
        visited.append(evidence.working_distance_m)
        routine, wish = observe(
            routine, evidence, blur_px=None, instrument=_known(evidence.semi_convergence_angle_rad), rules=rules
        )
        found = routine.estimate
        if found is not None and found.in_focus_working_distance_m is not None and found.alpha_rad is not None:
            h = found.half_depth_of_focus_m or 0.0
            _check_seen(visited, h)
            near = abs(found.defocus_m or 0.0) <= NEAR_H * h and (found.sigma_m or 0.0) <= SURE_H * h
            if near and (corrected or routine.phase is Phase.CONVERGED):
                optic = Optic(
                    found.alpha_rad,
                    ALPHA_SIGMA * found.alpha_rad,
                    evidence.pixel_size_m,
                    evidence.landing_energy_ev,
                )
                return Rough(found.in_focus_working_distance_m, optic, number + 1)
        if routine.phase is Phase.HELD or wish is None:
            raise RefusedError(_why(routine.reason))
        corrected = corrected or routine.phase is Phase.CORRECTING
        at = Move(wish.move.working_distance_m, driver.start.stigmator_x, driver.start.stigmator_y)
    raise RefusedError(_why("budget"))


def _check_seen(visited: Sequence[float], h: float) -> None:
    """With the angle unknown, pictures that stay alike read as an endless depth of focus."""
    span = max(visited) - min(visited)
    if span < UNMOVED_H * h:
        raise RefusedError(
            f"the working distance is unresponsive: frames {1e6 * span:.1f} um apart look alike, as if the depth of "
            f"focus were {2e6 * h:.0f} um; look at the lens supply, or sweep at a higher magnification"
        )


def _known(told_rad: float | None) -> Instrument:
    return Instrument() if told_rad is None else Instrument(told_rad, TOLD_SIGMA * told_rad)


def _why(reason: str | None) -> str:
    if reason is not None and reason.startswith("limit"):
        return f"the limits end before focus is found ({reason}): widen them, or begin nearer to focus"
    return WHY.get(reason or "", f"focus was not found: the focus routine holds ({reason})")
