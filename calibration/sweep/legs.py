"""Through focus upwards and downwards: the angle, where focus lies from either side, and so the play of the lens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.control.envelope import Move
from calibration.sweep.drive import PLAY_M, Driver
from calibration.sweep.errors import RefusedError
from calibration.sweep.focusing import Rough
from calibration.sweep.instrument import Taken
from calibration.sweep.measure import (
    LEAST_SPREAD,
    Bracket,
    Found,
    Optic,
    Seen,
    angle_sigma_rad,
    bracket,
    directions,
    evidence_at,
    likelier_pupil,
    place,
    without_prior,
)

SPAN_H = 12.0  # either side of focus: blur tells the angle best where the discs are wide and the object is still heard
LEAST_SPAN_H = 5.0
STATIONS = (-1.0, -2 / 3, -1 / 3, 0.0, 1 / 3, 2 / 3, 1.0)  # of the span
REACH_H = 3.0  # a frame is looked for within this of where its leg has it
TELLING_H = 1.5  # of h: nearer to focus the place of a frame is not to be seen in it
VOUCHED_H = 0.5  # rms of what a leg's frames are off, in h: more is another lens than the model's


@dataclass(frozen=True, eq=False)
class Leg:
    """One way through focus. `placed` is each frame's defocus by the other frames of the leg."""

    side: int
    taken: tuple[Taken, ...]
    seen: tuple[Seen, ...]
    placed: tuple[Found, ...]
    found: Bracket
    optic: Optic

    @property
    def in_focus_m(self) -> float:
        return self.found.working_distance_m - self.found.z_m

    @property
    def residuals_m(self) -> tuple[float, ...]:
        return tuple(found.value - each.z_m for found, each in zip(self.placed, self.seen, strict=True))

    @property
    def rms_m(self) -> float:
        """Of the residuals of the frames that tell, each as loud as it is certain."""
        rows = zip(self.placed, self.residuals_m, self.telling, strict=True)
        told = np.array([(found.sigma, off) for found, off, tells in rows if tells])
        return float(np.sqrt(np.average(told[:, 1] ** 2, weights=told[:, 0] ** -2.0)))

    @property
    def telling(self) -> tuple[bool, ...]:
        """Near focus a picture hardly changes with defocus."""
        least = TELLING_H * self.optic.half_depth_of_focus_m
        return tuple(abs(each.z_m) >= least for each in self.seen)


def span_m(driver: Driver, rough: Rough) -> float:
    """How far the legs may go either side. Raises RefusedError where that is too little."""
    low, high = driver.window_m()
    room = min(rough.in_focus_m - low, high - rough.in_focus_m) - PLAY_M
    h = rough.optic.half_depth_of_focus_m
    if room < LEAST_SPAN_H * h:
        raise RefusedError(
            f"the limits are too narrow to measure: {1e6 * (room + PLAY_M):.1f} um either side of focus are allowed, "
            f"{1e6 * (LEAST_SPAN_H * h + PLAY_M):.1f} um are needed; widen them, or sweep at a higher magnification"
        )
    return min(SPAN_H * h, room)


def run_leg(driver: Driver, rough: Rough, side: int) -> list[Taken]:
    """The same stations either way, each approached from the side that the leg comes from."""
    span = span_m(driver, rough)
    return [
        driver.shoot(
            Move(rough.in_focus_m + side * share * span, driver.start.stigmator_x, driver.start.stigmator_y), side=side
        )
        for share in STATIONS
    ]


def read_leg(taken: Sequence[Taken], optic: Optic, side: int) -> Leg:
    """Raises RefusedError where the frames cannot be told apart."""
    evidence = [evidence_at(each, number, optic) for number, each in enumerate(taken)]
    if directions(evidence, optic) < LEAST_SPREAD:
        raise RefusedError(
            "the specimen's detail lies all one way, which tells no astigmatism: go to a site with corners, dots or "
            "grains, or turn the scan by 45 degrees on a grid of lines"
        )
    middle = len(evidence) // 2
    ordered = [*evidence[:middle], *evidence[middle + 1 :], evidence[middle]]
    found = bracket(ordered, optic.instrument, "through focus " + ("upwards" if side > 0 else "downwards"))
    optic = replace(optic, alpha_rad=found.alpha_rad)
    seen = tuple(Seen(each, found.z_at(each.working_distance_m), found.astigmatism_m) for each in evidence)
    optic = likelier_pupil(seen, optic)
    found = without_prior(seen, optic, found)
    seen = tuple(Seen(each, found.z_at(each.working_distance_m), found.astigmatism_m) for each in evidence)
    optic = replace(optic, alpha_sigma_rad=angle_sigma_rad(seen, optic))
    reach_m = REACH_H * optic.half_depth_of_focus_m
    placed = tuple(place(each, [o for o in seen if o is not each], optic, reach_m=reach_m) for each in seen)
    return Leg(side, tuple(taken), seen, placed, found, optic)


def vouch(leg: Leg) -> None:
    """Raises RefusedError where the frames of a leg do not agree with one another."""
    off_h = leg.rms_m / leg.optic.half_depth_of_focus_m
    if off_h > VOUCHED_H:
        raise RefusedError(
            f"frames {'upwards' if leg.side > 0 else 'downwards'} lie {1e6 * leg.rms_m:.2f} um ({off_h:.1f} h) off the "
            "line of the commanded working distance: the lens does not follow it; let the column come to rest, and "
            "look at drift, charging and the lens supply"
        )
