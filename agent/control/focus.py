"""The focus routine: measure, probe, correct, verify, or hold and say why. Pure: one evidence frame in, what to do out.

A probe is a known change of working distance, sized by the blur that is seen; the estimator then tells sign and size.
The routine never corrects on a direction it may have wrong, spends a bounded number of frames, and goes back to where
it began when it gives up.
"""

from dataclasses import replace
from math import hypot

import msgspec

from agent.control import actuator, belief, doubting, probing
from agent.control.backlash import Play
from agent.control.choosing import estimated
from agent.control.envelope import Move, gate
from agent.control.estimate import Estimate, Solved
from agent.control.hearing import object_nats
from agent.control.instrument import Instrument, distinct
from agent.control.routine import Routine as Routine
from agent.control.routine import Rules as Rules
from agent.control.routine import Sharpest
from agent.control.routine import Wish as Wish
from agent.messages import Evidence, Kind, Phase

KEPT = 12  # frames the estimator is given at most; older ones are of another day
CONVERGED_H = 0.5  # of h: what is left is less than one resolution element, and is known: no picture is needed for it
SURE_H = 0.35  # of h: the sigma by which it is known
ANGLE_DOUBT = 0.05  # relative: an angle that the frames do not tell is not believed better before something is done
TRIM_H = 0.1  # of h: less is not worth a move
WORTH_H, SURE_SHARE = 0.7, 0.2  # of h, of the way: a correction that is no surer is not worth a picture
ASTIGMATISM_H = 0.3  # of h: below it stigmation is as good as defocus allows to see
LEFT_H = 1.0  # of h: astigmatism that may be as large, by one sigma, is no focus
CERTAIN, LIKELY = 3.0, 2.0  # sigmas from which astigmatism is turned away: any, and such as stands against an end
SHARPER, SHARPER_PX = 1.3, 0.15  # times the blur, and pixels, by which the model is believed against an estimate
FEATURELESS_NATS = 300.0  # a frame speaks for an object: noise alone reaches 150, faint texture thousands
MAX_PROBES = 4
ENOUGH_PROBES = 2  # after which lines all one way, which leave astigmatism open, are as well known as they will be
MAX_STIGMATED = 2  # stigmator changes of one routine: where a picture leaves astigmatism open they would never end
SAME_STIGMATOR = 1e-4


def begin(verified_m: float | None = None) -> Routine:
    """Of another column, or after all that was known was in vain."""
    return Routine(phase=Phase.MEASURING, verified_m=verified_m)


def observe(
    routine: Routine, frame: Evidence, *, blur_px: float | None, instrument: Instrument, rules: Rules
) -> tuple[Routine, Wish | None]:
    """Take one frame of evidence into account and say what should happen next."""
    sharpest, first = routine.sharpest, routine.estimate
    routine = _take(routine, frame, blur_px, instrument)
    if max(object_nats(each) for each in (frame, frame.coarse) if each is not None) < FEATURELESS_NATS:
        return give_up(routine, "featureless", rules)
    if len(distinct([e.working_distance_m for e in routine.evidence])) < 2:
        return _probe(routine, blur_px, instrument, rules)
    found, known = estimated(routine.evidence, first, blur_px=blur_px, instrument=instrument)
    fault = actuator.fault(routine.evidence, first, found, instrument=instrument)
    agreed = routine.prior is not None and belief.agrees(found, routine.prior)
    found = _with_prior(routine, found, instrument)
    routine = replace(routine, estimate=found)
    if fault is not None:
        back_m = actuator.way_back_m(routine.restore_to or frame.working_distance_m, frame, fault)
        return give_up(replace(routine, verified_m=back_m), fault.code, rules)
    denied = _denied(routine, found, instrument)
    if denied is not None:
        return give_up(routine, denied, rules)
    if routine.phase is Phase.PROBING and routine.probes == 1 and doubting.half_way(routine.evidence, found):
        return _look_again(routine, rules)
    if not found.answered:
        return _probe(routine, blur_px, instrument, rules)
    if agreed and rules.steer and _stood_in_focus(routine, found, instrument):
        return _converged_at_home(routine, found, rules)
    routine, wish = _judge(routine, found, instrument, rules, known)
    if routine.phase is Phase.CONVERGED and sharpest is not None and _less_sharp(blur_px, sharpest):
        return give_up(replace(routine, verified_m=sharpest.working_distance_m), "ambiguous", rules)
    return routine, wish


def _denied(routine: Routine, found: Estimate, instrument: Instrument) -> str | None:
    """Why the frames cannot be what their headers say."""
    if routine.phase is Phase.VERIFYING and doubting.differ(*routine.evidence[-2:]):
        return "inconsistent"
    if not found.answered:
        return found.reason if found.reason == "actuator_dead" else None
    return "inconsistent" if doubting.strange_angle(found, instrument) else None


def _look_again(routine: Routine, rules: Rules) -> tuple[Routine, Wish | None]:
    """The same place once more, before a correction is made on what may be the picture of the place before."""
    if not rules.steer:
        return routine, None
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    return replace(routine, phase=Phase.VERIFYING), Wish(Kind.VERIFY, routine.now, "looks as before the probe")


def _less_sharp(blur_px: float | None, than: Sharpest) -> bool:
    """Did the model see a frame of this routine clearly sharper than the one that is said to be in focus?"""
    return blur_px is not None and blur_px > SHARPER * than.blur_px + SHARPER_PX


def _take(routine: Routine, frame: Evidence, blur_px: float | None, instrument: Instrument) -> Routine:
    at = Move(frame.working_distance_m, frame.stigmator_x, frame.stigmator_y)
    play = routine.play_at(at.working_distance_m, instrument)
    coarse = None if frame.coarse is None else _stood(frame.coarse, play)
    seen = msgspec.structs.replace(_stood(frame, play), coarse=coarse)
    return replace(
        routine,
        evidence=(*routine.evidence, seen)[-KEPT:],
        spent=routine.spent + 1,
        home=routine.home or at,
        at=at,
        play=play,
        sharpest=_sharper(routine.sharpest, blur_px, at.working_distance_m),
    )


def _sharper(known: Sharpest | None, blur_px: float | None, working_distance_m: float) -> Sharpest | None:
    if blur_px is None or (known is not None and known.blur_px <= blur_px):
        return known
    return Sharpest(blur_px, working_distance_m)


def _stood(frame: Evidence, play: Play) -> Evidence:
    return msgspec.structs.replace(frame, working_distance_m=play.lens_m, place_sigma_m=play.sigma_m)


def _judge(
    routine: Routine, found: Estimate, instrument: Instrument, rules: Rules, known: Solved | None
) -> tuple[Routine, Wish | None]:
    """An answer is there: is it good enough to stay, to move on, or not yet to do either?"""
    z, sigma, h = found.defocus_m or 0.0, _doubt_m(found), found.half_depth_of_focus_m or 1.0
    stigmators = _stigmator_change(routine, found, instrument, h)
    if abs(z) <= CONVERGED_H * h and sigma <= SURE_H * h and _stigmated(routine, found, stigmators, h):
        return _converged(routine, found, stigmators, rules)
    one_way = (found.p_wrong_direction or 0.0) <= max(rules.p_wrong_direction, 0.5 if abs(z) < h else 0.0)
    # Where there is nothing to correct and still no certainty, another picture of the same place would not bring it.
    near = TRIM_H if bearable(found, h) else CONVERGED_H
    nowhere = abs(z) <= near * h and stigmators is None
    if nowhere or not one_way or sigma > max(WORTH_H * h, SURE_SHARE * abs(z)):
        return _probe(routine, None, instrument, rules, known)
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    return _correct(routine, z, stigmators, rules)


def _with_prior(routine: Routine, found: Estimate, instrument: Instrument) -> Estimate:
    prior, now = routine.prior, routine.now
    return found if prior is None else belief.fused(found, prior, instrument, (now.stigmator_x, now.stigmator_y))


def _stood_in_focus(routine: Routine, found: Estimate, instrument: Instrument) -> bool:
    """Does the bracket say of its first frame what was believed: that it was in focus? Then nobody needs another."""
    focus_m, sigma, h = found.in_focus_working_distance_m, _doubt_m(found), found.half_depth_of_focus_m or 1.0
    if focus_m is None or sigma > SURE_H * h or routine.spent != len(routine.evidence):
        return False
    at_home = abs(routine.evidence[0].working_distance_m - focus_m) <= CONVERGED_H * h
    no_turn = _stigmator_change(routine, found, instrument, h) is None
    return at_home and no_turn and _stigmated(routine, found, None, h)


def _converged_at_home(routine: Routine, found: Estimate, rules: Rules) -> tuple[Routine, Wish | None]:
    """Back to where the first frame showed it, or the little further that the bracket told."""
    done, wish = _correct(routine, found.defocus_m or 0.0, None, rules)
    if done.phase is Phase.HELD:
        return done, wish
    return replace(done, phase=Phase.CONVERGED, verified_m=routine.began.working_distance_m, probes=0), wish


def _converged(
    routine: Routine, found: Estimate, stigmators: tuple[float, float] | None, rules: Rules
) -> tuple[Routine, Wish | None]:
    """What was measured is within reach of perfect: say so, and take the rest of the way, which needs no picture."""
    done = replace(routine, verified_m=routine.now.working_distance_m, probes=0, reason=None)
    z, sigma, h = found.defocus_m or 0.0, found.sigma_m or 0.0, found.half_depth_of_focus_m or 1.0
    wish = None
    if rules.steer and (stigmators is not None or abs(z) > max(TRIM_H * h, sigma)):
        wish = _correct(done, z, stigmators, rules)[1]
    kept = wish if wish is not None and wish.kind is Kind.CORRECT else None
    return replace(done, phase=Phase.CONVERGED), kept


def _stigmated(routine: Routine, found: Estimate, change: tuple[float, float] | None, h: float) -> bool:
    """Is the astigmatism that is left known to be small, or past what this routine can learn of it?"""
    if not bearable(found, h):
        return False
    if change is not None:
        return _size(found) <= CONVERGED_H * h
    return (found.sigma_astigmatism_m or 0.0) <= SURE_H * h or routine.probes >= ENOUGH_PROBES


def bearable(found: Estimate, h: float) -> bool:
    """Lines all one way tell of z and astigmatism only their sum across the lines: what may be there along them for
    all one knows counts as there."""
    return _size(found) + max(found.sigma_astigmatism_m or 0.0, found.sigma_total_m or 0.0) <= LEFT_H * h


def _doubt_m(found: Estimate) -> float:
    """Sigma of defocus before something is done about it: certificates can be wrong by more than they say."""
    return hypot(found.sigma_m or 0.0, ANGLE_DOUBT * found.angle_m)


def _size(found: Estimate) -> float:
    return hypot(*(found.astigmatism_m or (0.0, 0.0)))


def _stigmator_change(
    routine: Routine, found: Estimate, instrument: Instrument, h: float
) -> tuple[float, float] | None:
    """Knob changes that undo the astigmatism, where it matters, is certain and the knobs are known."""
    if found.astigmatism_m is None or instrument.stigmator_matrix_m is None or routine.stigmated >= MAX_STIGMATED:
        return None
    ax, ay = found.astigmatism_m
    sigmas = CERTAIN if bearable(found, h) else LIKELY
    if _size(found) < max(ASTIGMATISM_H * h, sigmas * (found.sigma_astigmatism_m or 0.0)):
        return None
    (xx, xy), (yx, yy) = instrument.stigmator_matrix_m
    determinant = xx * yy - xy * yx
    if abs(determinant) < 1e-18:
        return None
    return -(yy * ax - xy * ay) / determinant, -(xx * ay - yx * ax) / determinant


def _correct(
    routine: Routine, z_m: float, stigmators: tuple[float, float] | None, rules: Rules
) -> tuple[Routine, Wish | None]:
    now, play, (x, y) = routine.now, routine.play, stigmators or (0.0, 0.0)
    assert play is not None  # there is evidence
    wanted = Move(play.command_for(play.lens_m - z_m), now.stigmator_x + x, now.stigmator_y + y)
    move = gate(wanted, now, routine.began.working_distance_m, rules.envelope)
    if {"limit_absolute", "limit_cumulative"} & set(move.limits):
        return give_up(routine, next(name for name in move.limits if name != "limit_step"), rules)
    wish = Wish(Kind.CORRECT, move, f"defocus {z_m * 1e6:+.2f} um")
    turned = routine.stigmated + (stigmators is not None)
    return replace(routine, phase=Phase.CORRECTING, stigmated=turned), wish


def _probe(
    routine: Routine, blur_px: float | None, instrument: Instrument, rules: Rules, known: Solved | None = None
) -> tuple[Routine, Wish | None]:
    """A known change whose effect tells the sign: where it tells most, beyond where focus is believed to be, else
    around home."""
    if not rules.steer:
        return replace(routine, phase=Phase.MEASURING), None
    if routine.probes >= MAX_PROBES:
        return give_up(routine, (routine.estimate.reason if routine.estimate else None) or "ambiguous", rules)
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    if routine.probes == 0:
        routine = replace(routine, probe_h=probing.probe_size_h(blur_px))
    h = probing.half_depth_m(routine, instrument)
    crossing = probing.telling(routine, known, instrument, rules) or probing.across(routine, h, rules)
    move = probing.around(routine, h, rules) if crossing is None else crossing
    way_m = probing.way_m(routine, move)
    if crossing is None and abs(way_m) < probing.SMALLEST_PROBE_H * h:
        return give_up(routine, next(iter(move.limits), "limit_absolute"), rules)
    reason = "probe beyond focus" if crossing is not None else f"probe {way_m * 1e6:+.2f} um from home"
    return replace(routine, phase=Phase.PROBING, probes=routine.probes + 1), Wish(Kind.PROBE, move, reason)


def give_up(routine: Routine, reason: str, rules: Rules) -> tuple[Routine, Wish | None]:
    """Hold, and go back to the last good place if the microscope was moved from it."""
    held = replace(routine, phase=Phase.HELD, reason=reason)
    acquire = "average 4 frames of this site, or go to a site with texture" if reason == "featureless" else None
    if not routine.evidence:
        return held, None
    home, now = routine.began, routine.now
    target = replace(home, working_distance_m=routine.restore_to or home.working_distance_m, limits=())
    if rules.steer and _differ(target, now):
        return held, Wish(Kind.RESTORE, gate(target, now, home.working_distance_m, rules.envelope), reason, acquire)
    return held, Wish(Kind.ACQUIRE, now, reason, acquire) if acquire else None


def forget_scene(routine: Routine) -> Routine:
    """Another scene: its spectra say nothing of the next one; what was verified in metres stays."""
    settled = routine.phase in (Phase.CONVERGED, Phase.IDLE)
    return routine.anew(routine.phase if settled else Phase.MEASURING)


def _differ(a: Move, b: Move) -> bool:
    return len(distinct([a.working_distance_m, b.working_distance_m])) > 1 or (
        max(abs(a.stigmator_x - b.stigmator_x), abs(a.stigmator_y - b.stigmator_y)) > SAME_STIGMATOR
    )
