"""What the stigmators do: astigmatism per unit, and what they should not do, defocus and image shift."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.envelope import Move
from agent.messages import Evidence
from calibration.sweep.drive import Driver
from calibration.sweep.errors import RefusedError
from calibration.sweep.instrument import Taken
from calibration.sweep.legs import Leg
from calibration.sweep.measure import Bracket, Seen, bracket, evidence_at, without_prior

FIRST_UNITS = 0.05  # change of a knob whose effect nobody knows yet
WANTED_H, ENOUGH_H, TOO_MUCH_H = 3.0, 1.8, 5.0  # of h, astigmatism added: plain to see, and far from a line focus
AWAY = 0.5  # of the legs' span: frames either side of focus, as off focus as astigmatism asks for
GROWTH = 6.0  # largest factor from one trial to the next
TRIALS = 4
SILENT = 3.0  # sigma: less is no effect
FLOOR_H = 0.045  # of h: no astigmatism is read better than this, by what it was off on columns of known matrix
VOUCHED_H, VOUCHED_SHARE = 0.35, 0.1  # residuals of the fit: rms against h, or against the largest effect
ALIKE = 0.05  # sine of the angle between the two knobs' effects: less is one and the same direction


@dataclass(frozen=True, eq=False)
class Turn:
    """One setting of the stigmators, counted from the start's, and what it did."""

    x: float
    y: float
    taken: tuple[Taken, ...]
    seen: tuple[Seen, ...]
    found: Bracket


@dataclass(frozen=True, eq=False)
class Stigmation:
    """matrix_m: astigmatism [m] per unit, rows ax and ay, columns stigmator x and y; defocus_m per unit of x and y."""

    turns: tuple[Turn, ...]
    matrix_m: NDArray[np.float64]
    matrix_sigma_m: NDArray[np.float64]
    offset_m: tuple[float, float]  # astigmatism at the start's setting
    defocus_m: tuple[float, float]
    defocus_sigma_m: tuple[float, float]
    rms_m: float


def run_stigmators(driver: Driver, leg: Leg, span_m: float) -> list[Turn]:
    """Both knobs one after the other, there and to the other side. Raises RefusedError for one without effect."""
    turns: list[Turn] = []
    for axis in ("x", "y"):
        right = _wide_enough(driver, leg, span_m, axis)
        turns.append(right)
        other = replace(right, x=-right.x, y=-right.y)
        if _allowed(driver, other.x, other.y):
            turns.append(_turn(driver, leg, span_m, (other.x, other.y)))
        else:
            turns.append(_turn(driver, leg, span_m, (0.5 * right.x, 0.5 * right.y)))
    return turns


def _wide_enough(driver: Driver, leg: Leg, span_m: float, axis: str) -> Turn:
    """Trial changes of one knob until the effect can be read, or the knob is at its end."""
    h = leg.optic.half_depth_of_focus_m
    most = _most(driver, axis)
    units = float(np.sign(most)) * min(FIRST_UNITS, abs(most))
    for _ in range(TRIALS):
        turn = _turn(driver, leg, span_m, (units, 0.0) if axis == "x" else (0.0, units))
        effect = _effect_m(turn, leg)
        if ENOUGH_H * h <= effect <= TOO_MUCH_H * h:
            return turn
        wider = units * min(WANTED_H * h / max(effect, 1e-3 * h), GROWTH)
        wider = float(np.sign(most)) * min(abs(wider), abs(most))
        if wider == units:
            break
        units = wider
    if effect < SILENT * np.hypot(turn.found.sigma_astigmatism_m, leg.found.sigma_astigmatism_m):
        raise RefusedError(
            f"stigmator {axis} has no effect: {units:+.3f} units change the astigmatism by {1e6 * effect:.2f} um, "
            f"{1e6 * turn.found.sigma_astigmatism_m:.2f} um is the doubt; look at its supply, or allow more with "
            "--limit-stigmator"
        )
    return turn


def _most(driver: Driver, axis: str) -> float:
    """The longer way to an end of the knob's range, signed."""
    at = driver.start.stigmator_x if axis == "x" else driver.start.stigmator_y
    up, down = driver.envelope.stigmator_max - at, driver.envelope.stigmator_min - at
    longest = up if up >= -down else down
    if abs(longest) < 1e-3:
        raise RefusedError(
            f"the limits leave stigmator {axis} no way from {at:+.3f}: widen them with --limit-stigmator"
        )
    return longest


def _allowed(driver: Driver, x: float, y: float) -> bool:
    low, high = driver.envelope.stigmator_min, driver.envelope.stigmator_max
    return low <= driver.start.stigmator_x + x <= high and low <= driver.start.stigmator_y + y <= high


def _turn(driver: Driver, leg: Leg, span_m: float, units: tuple[float, float]) -> Turn:
    x, y = driver.start.stigmator_x + units[0], driver.start.stigmator_y + units[1]
    places = [leg.in_focus_m - AWAY * span_m, leg.in_focus_m + AWAY * span_m]
    taken = [driver.shoot(Move(place, x, y)) for place in places]
    evidence = [evidence_at(each, number, leg.optic) for number, each in enumerate(taken)]
    name = "x" if units[0] else "y"
    found = bracket(evidence, leg.optic.instrument, f"stigmator {name} at {x if units[0] else y:+.3f}")
    found = without_prior(_seen(evidence, found), leg.optic, found)
    return Turn(*units, tuple(taken), _seen(evidence, found), found)


def _seen(evidence: Sequence[Evidence], found: Bracket) -> tuple[Seen, ...]:
    return tuple(Seen(each, found.z_at(each.working_distance_m), found.astigmatism_m) for each in evidence)


def _effect_m(turn: Turn, leg: Leg) -> float:
    change = np.subtract(turn.found.astigmatism_m, leg.found.astigmatism_m)
    return float(np.hypot(*change))


def read_stigmators(turns: list[Turn], leg: Leg) -> Stigmation:
    """Two straight lines a component. Raises RefusedError where they are none, or where both knobs do the same."""
    h = leg.optic.half_depth_of_focus_m
    units = np.array([(0.0, 0.0), *((turn.x, turn.y) for turn in turns)])
    seen = np.array([leg.found.astigmatism_m, *(turn.found.astigmatism_m for turn in turns)])
    defocus = np.array([0.0, *(turn.found.z_at(leg.in_focus_m) for turn in turns)])
    design = np.column_stack([np.ones(len(units)), units])
    doubt = float(np.mean([turn.found.sigma_astigmatism_m for turn in turns]))
    coefficients, sigma, rms = _fit(design, np.column_stack([seen, defocus]), float(np.hypot(FLOOR_H * h, doubt)))
    matrix = coefficients[1:, :2].T
    _vouch(matrix, units, rms_m=float(np.hypot(*rms[:2]) / np.sqrt(2.0)), h=h)
    return Stigmation(
        turns=tuple(turns),
        matrix_m=matrix,
        matrix_sigma_m=sigma[1:, :2].T,
        offset_m=(float(coefficients[0, 0]), float(coefficients[0, 1])),
        defocus_m=(float(coefficients[1, 2]), float(coefficients[2, 2])),
        defocus_sigma_m=(float(sigma[1, 2]), float(sigma[2, 2])),
        rms_m=float(np.hypot(*rms[:2]) / np.sqrt(2.0)),
    )


def _fit(
    design: NDArray[np.float64], values: NDArray[np.float64], floor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Least squares for each column of values: coefficients, their sigma by the residuals (at least `floor`), rms."""
    coefficients = np.linalg.lstsq(design, values, rcond=None)[0]
    left = len(design) - design.shape[1]
    residuals = values - design @ coefficients
    scatter = np.maximum(np.sqrt((residuals**2).sum(axis=0) / max(left, 1)), floor)
    spread = np.sqrt(np.diag(np.linalg.pinv(design.T @ design)))
    rms = np.sqrt((residuals**2).mean(axis=0))
    return np.asarray(coefficients), np.asarray(spread[:, None] * scatter[None, :]), np.asarray(rms)


def _vouch(matrix: NDArray[np.float64], units: NDArray[np.float64], *, rms_m: float, h: float) -> None:
    largest = float(np.abs(units @ matrix.T).max())
    if rms_m > max(VOUCHED_H * h, VOUCHED_SHARE * largest):
        raise RefusedError(
            f"the stigmators do not act in proportion: {1e6 * rms_m:.2f} um are left of "
            f"{1e6 * largest:.2f} um that were made; look at charging, and sweep again on a quieter site"
        )
    lengths = np.hypot(matrix[0], matrix[1])
    if abs(float(np.linalg.det(matrix))) < ALIKE * float(lengths.prod()):
        raise RefusedError("both stigmators act in one and the same direction: one of them drives the other's coils")
