"""A whole sweep: focus, both legs, stigmators, settling, and the certificate that comes of it.

The start settings are restored before it returns or raises, whatever happened.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from agent.control.spectra import PATCH_PX
from calibration.certificate import Certificate, Limits
from calibration.sweep.displacement import Displacement, Scale, inverted, read_displacement, read_scale, spots
from calibration.sweep.drive import PLAY_M, Driver
from calibration.sweep.errors import InterruptedSweepError, RefusedError
from calibration.sweep.focusing import Rough, find_focus
from calibration.sweep.instrument import Taken
from calibration.sweep.legs import Leg, read_leg, run_leg, span_m, vouch
from calibration.sweep.measure import ALPHA_SIGMA, Optic
from calibration.sweep.settling import Settling, run_settling
from calibration.sweep.stigmators import Stigmation, read_stigmators, run_stigmators

ALPHA_APART = 0.08  # relative: two legs that differ by more have not seen one angle
MOST_PLAY = 0.8  # of the way by which each approach starts beyond the play: more, and it was not taken up
FLIPPED = -0.8  # cosine of a knob's effect against the certificate of before
LEG_SHARE_H = 0.02  # of h: what the two legs' focus may differ by without any play

SMEARED_PX = 0.5  # at the rim of a patch, by a change of size over a leg


Teller = Callable[[str, int], None]  # stage, frames so far


@dataclass(frozen=True, eq=False)
class Swept:
    """All that was measured."""

    rough: Rough
    legs: tuple[Leg, Leg]  # up, down
    stigmation: Stigmation
    settling: Settling
    displacement: Displacement
    scale: Scale
    optic: Optic  # with the angle of both legs
    hysteresis_m: float
    hysteresis_sigma_m: float
    span_m: float
    frames: int


def sweep(driver: Driver, *, previous: Certificate | None, tell: Teller) -> Swept:
    """Raises SweepError; the microscope stands where it began then, or the message says that it does not."""
    try:
        swept = _measured(driver, tell)
        check_signs(swept, previous)
    except BaseException as error:
        _back(driver, error)
        raise
    _back(driver, None)
    return swept


def _back(driver: Driver, why: BaseException | None) -> None:
    """The way back must not hide why it is gone."""
    try:
        with _undisturbed():
            driver.restore()
    except (RefusedError, InterruptedSweepError) as error:
        at = driver.start
        raise InterruptedSweepError(
            f"{why or 'the sweep is done'}; the start settings could not be restored ({error}): set "
            f"{at.working_distance_m * 1e3:.6f} mm, stigmators {at.stigmator_x:+.4f} {at.stigmator_y:+.4f} by hand"
        ) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """An impatient second Ctrl-C must not leave the microscope half-way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measured(driver: Driver, tell: Teller) -> Swept:
    def stage(name: str) -> None:
        tell(name, driver.spent)

    stage("focusing")
    rough = find_focus(driver)
    span = span_m(driver, rough)
    stage("upwards")
    up = _first_leg(run_leg(driver, rough, 1), rough)
    vouch(up)
    stage("downwards")
    down = read_leg(run_leg(driver, rough, -1), _again(up.optic), -1)
    vouch(down)
    optic = _both(up, down)
    up, down = (replace(leg, optic=optic) for leg in (up, down))
    play, doubt = _play(up, down)
    scale = read_scale((up, down), optic)
    if inverted(scale, up.in_focus_m):
        raise RefusedError(
            f"the working distance is inverted: the picture shrinks by {-1e-4 * scale.per_m:.4f} % per um where it "
            "should grow; look at the sign of the lens supply"
        )
    stage("stigmators")
    stigmation = read_stigmators(run_stigmators(driver, up, span), up)
    stage("settling")
    settling = run_settling(driver, up, span)
    stage("fits")
    return Swept(
        rough=rough,
        legs=(up, down),
        stigmation=stigmation,
        settling=settling,
        displacement=read_displacement(
            spots((up, down), stigmation, play, scale_per_m=scale.per_m), optic, up.in_focus_m
        ),
        scale=scale,
        optic=optic,
        hysteresis_m=play,
        hysteresis_sigma_m=doubt,
        span_m=span,
        frames=driver.spent,
    )


def _first_leg(taken: list[Taken], rough: Rough) -> Leg:
    """Long ways make pictures of different size, which would read as blur: there the scale comes before all else."""
    leg = read_leg(taken, rough.optic, 1)
    span = max(abs(each.z_m) for each in leg.seen)
    if span / rough.in_focus_m * PATCH_PX / 2.0 <= SMEARED_PX:
        return leg
    scale = read_scale((leg,), leg.optic)
    return read_leg(taken, replace(_again(leg.optic), scale_per_m=scale.per_m, reference_m=rough.in_focus_m), 1)


def _again(optic: Optic) -> Optic:
    """The angle as a first guess, free to be found anew."""
    return replace(optic, alpha_sigma_rad=ALPHA_SIGMA * optic.alpha_rad)


def _both(up: Leg, down: Leg) -> Optic:
    """One angle from two legs; where they differ by more than they say, so much is the doubt."""
    alphas = np.array([leg.optic.alpha_rad for leg in (up, down)])
    apart = float(abs(alphas[1] - alphas[0]) / alphas.mean())
    if apart > ALPHA_APART:
        raise RefusedError(
            f"the two legs do not see one angle: {1e3 * alphas[0]:.2f} mrad upwards, {1e3 * alphas[1]:.2f} mrad "
            "downwards; look at charging and contamination, or go to a fresh site"
        )
    doubt = max(float(np.mean([leg.optic.alpha_sigma_rad for leg in (up, down)])), 0.5 * apart * float(alphas.mean()))
    return replace(up.optic, alpha_rad=float(alphas.mean()), alpha_sigma_rad=doubt)


def _play(up: Leg, down: Leg) -> tuple[float, float]:
    """How far apart focus lies from below and from above, by the frames of both legs."""
    doubts = [leg.rms_m / np.sqrt(len(leg.seen)) for leg in (up, down)]
    doubt = float(np.hypot(np.hypot(*doubts), LEG_SHARE_H * up.optic.half_depth_of_focus_m))
    play = up.in_focus_m - down.in_focus_m
    if play > MOST_PLAY * PLAY_M:
        raise RefusedError(
            f"the lens has {1e6 * play:.1f} um of play, and approaches begin {1e6 * PLAY_M:.1f} um beyond: more than "
            "can be measured; cycle the lens, and look at its supply"
        )
    return max(play, 0.0), doubt


def check_signs(swept: Swept, previous: Certificate | None) -> None:
    """Against the certificate of before, where there is one: pictures alone cannot tell a knob's own sign."""
    if previous is None:
        return
    before, now = np.array(previous.stigmator_matrix_m), swept.stigmation.matrix_m
    turned = [float(b @ n) < FLIPPED * float(np.hypot(*b) * np.hypot(*n)) for b, n in zip(before.T, now.T, strict=True)]
    if all(turned):
        raise RefusedError(
            "the working distance is inverted, or both stigmators are: their effect is the opposite of what the "
            "certificate of before says; look at the supplies, or write the certificate elsewhere"
        )
    for axis, flipped in zip("xy", turned, strict=True):
        if flipped:
            raise RefusedError(
                f"stigmator {axis} is inverted: its effect is the opposite of what the certificate of before says; "
                "look at its supply, or write the certificate elsewhere"
            )


def certificate_of(swept: Swept, *, instrument: str, limits: Limits, made: datetime, valid: timedelta) -> Certificate:
    """What the agent needs of it. A scale that could not be told from none is 0."""
    matrix = swept.stigmation.matrix_m
    scale = swept.scale
    return Certificate(
        instrument=instrument,
        made=made.isoformat(timespec="seconds"),
        expires=(made + valid).isoformat(timespec="seconds"),
        alpha_rad=swept.optic.alpha_rad,
        alpha_sigma_rad=swept.optic.alpha_sigma_rad,
        stigmator_matrix_m=(
            (float(matrix[0, 0]), float(matrix[0, 1])),
            (float(matrix[1, 0]), float(matrix[1, 1])),
        ),
        limits=limits,
        fw50_m=swept.optic.fw50_m,
        cross_terms=_cross_terms(swept),
        hysteresis_m=swept.hysteresis_m,
        settle_s=swept.settling.settle_s,
        shift_px_per_m=swept.displacement.per_m,
        scale_per_m=scale.per_m if scale.resolved else 0.0,
        residuals=_residuals(swept),
    )


def _cross_terms(swept: Swept) -> dict[str, float]:
    defocus, shift = swept.stigmation.defocus_m, swept.displacement.per_unit
    return {
        "defocus_m_per_stigmator_x": defocus[0],
        "defocus_m_per_stigmator_y": defocus[1],
        "shift_x_px_per_stigmator_x": float(shift[0, 0]),
        "shift_x_px_per_stigmator_y": float(shift[0, 1]),
        "shift_y_px_per_stigmator_x": float(shift[1, 0]),
        "shift_y_px_per_stigmator_y": float(shift[1, 1]),
    }


def _residuals(swept: Swept) -> dict[str, float]:
    """What each fit leaves (rms), one sigma of each constant, and what they were measured with. SI units, pixels."""
    up, down = swept.legs
    matrix, shift, scale, settling = swept.stigmation.matrix_sigma_m, swept.displacement, swept.scale, swept.settling
    return {
        "alpha_legs_apart_rad": abs(up.found.alpha_rad - down.found.alpha_rad),
        "defocus_up_rms_m": up.rms_m,
        "defocus_down_rms_m": down.rms_m,
        "hysteresis_sigma_m": swept.hysteresis_sigma_m,
        "astigmatism_rms_m": swept.stigmation.rms_m,
        "stigmator_matrix_xx_sigma_m": float(matrix[0, 0]),
        "stigmator_matrix_xy_sigma_m": float(matrix[0, 1]),
        "stigmator_matrix_yx_sigma_m": float(matrix[1, 0]),
        "stigmator_matrix_yy_sigma_m": float(matrix[1, 1]),
        "defocus_sigma_m_per_stigmator_x": swept.stigmation.defocus_sigma_m[0],
        "defocus_sigma_m_per_stigmator_y": swept.stigmation.defocus_sigma_m[1],
        "shift_sigma_px_per_stigmator_x": float(shift.per_unit_sigma[:, 0].max()),
        "shift_sigma_px_per_stigmator_y": float(shift.per_unit_sigma[:, 1].max()),
        "settle_sigma_s": settling.sigma_s,
        "settle_rms_m": settling.rms_m,
        "settle_step_m": settling.to_m - settling.from_m,
        "shift_rms_px": shift.rms_px,
        "shift_x_sigma_px_per_m": shift.per_m_sigma[0],
        "shift_y_sigma_px_per_m": shift.per_m_sigma[1],
        "scale_sigma_per_m": scale.sigma_per_m,
        "scale_rms": scale.rms,
        "scale_resolved": float(scale.resolved),
        "span_m": swept.span_m,
        "frames": float(swept.frames),
    }
