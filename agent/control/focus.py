"""The focus routine: measure, probe, correct, verify, or hold and say why. Pure: one evidence frame in, what to do out.

A probe is a known change of working distance, sized by the blur that is seen; the estimator then tells sign and size.
The routine never corrects on a direction it may have wrong, spends a bounded number of frames, and goes back to where
it began when it gives up.
"""

from dataclasses import dataclass, field, replace
from math import hypot

import msgspec

from agent.control import actuator, backlash
from agent.control.backlash import Play
from agent.control.envelope import Envelope, Move, gate
from agent.control.estimate import Estimate, Instrument, distinct, estimate, object_nats
from agent.messages import Evidence, Kind, Phase
from calibration.optics import half_depth_of_focus_m

KEPT = 12  # frames the estimator is given at most; older ones are of another day
CONVERGED_H = 0.5  # of h: what is left is less than one resolution element, and is known: no picture is needed for it
SURE_H = 0.35  # of h: the sigma by which it is known
TRIM_H = 0.1  # of h: less is not worth a move
WORTH_H, SURE_SHARE = 0.7, 0.2  # of h, of the way: a correction that is no surer is not worth a picture
ASTIGMATISM_H = 0.3  # of h: below it stigmation is as good as defocus allows to see
PROBE_H = (2.0, 48.0)  # smallest and largest probe, in h: the best near focus and at 100 h (information floor)
SMALLEST_PROBE_H = 1.0  # of h: a shorter way changes too little to tell the sign by
ACROSS_H = 2.0  # of h: so far beyond where focus is believed to be, or two sigmas
PROBE_UNKNOWN_H = 6.0  # where no model tells the blur
FAR_H = 20.0  # of h: from here on a quarter of the resolution tells more
FAR_PX = 4.0  # of blur, below which nobody looks for focus that far away
UNLIKE = 2.5  # times the blur that the model reads: an estimate that asks for more, or for less, is not believed
UNLIKE_PX = 1.5  # and so much beyond
SHARPER, SHARPER_PX = 1.3, 0.15  # times the blur, and pixels, by which the model is believed against an estimate
NEAR_H = 25.0  # of h from focus: frames further out tell less than they err by, where there are two nearer ones
APART_H = 1.5  # of h, between those
SURE_PLACE_H = 0.1  # of h: a frame whose lens stood in doubt by more is left out
ALPHA_GUESS_RAD = 5e-3  # only to size the steps of a bracket that will measure alpha
FEATURELESS_NATS = 300.0  # a frame speaks for an object: noise alone reaches 150, faint texture thousands
MAX_PROBES = 4
ENOUGH_PROBES = 2  # after which lines all one way, which leave astigmatism open, are as well known as they will be
MAX_STIGMATED = 2  # stigmator changes of one routine: where a picture leaves astigmatism open they would never end
SAME_STIGMATOR = 1e-4


@dataclass(frozen=True)
class Rules:
    """What the routine may spend and must keep."""

    envelope: Envelope
    dose_frames: int = 12
    p_wrong_direction: float = 0.02
    steer: bool = True  # False: no probing moves, suggestions from what the stream offers


@dataclass(frozen=True)
class Wish:
    """What the routine wants done; the gate has passed it."""

    kind: Kind
    move: Move
    reason: str
    acquire: str | None = None


@dataclass(frozen=True)
class Routine:
    """Where the routine stands. `home` is where it began, `verified_m` the last working distance known to be good.

    Moves are as commanded and read back; the evidence has its working distances as the lens went, by its play.
    """

    phase: Phase = Phase.IDLE
    evidence: tuple[Evidence, ...] = ()
    at: Move | None = None  # of the newest evidence
    play: Play | None = None
    sharpest: tuple[float, float] | None = None  # blur in px and working distance of the frame that the model saw best
    spent: int = 0
    probes: int = 0
    stigmated: int = 0
    home: Move | None = None
    verified_m: float | None = None
    estimate: Estimate | None = None
    reason: str | None = None  # why it holds
    probe_h: float = field(default=PROBE_UNKNOWN_H)

    @property
    def restore_to(self) -> float | None:
        if self.verified_m is not None:
            return self.verified_m
        return None if self.home is None else self.home.working_distance_m


def begin(verified_m: float | None = None) -> Routine:
    return Routine(phase=Phase.MEASURING, verified_m=verified_m)


def observe(
    routine: Routine, frame: Evidence, *, blur_px: float | None, instrument: Instrument, rules: Rules
) -> tuple[Routine, Wish | None]:
    """Take one frame of evidence into account and say what should happen next."""
    sharpest = routine.sharpest
    routine = _take(routine, frame, blur_px, instrument)
    if max(object_nats(each) for each in (frame, frame.coarse) if each is not None) < FEATURELESS_NATS:
        return give_up(routine, "featureless", rules)
    if len(distinct([e.working_distance_m for e in routine.evidence])) < 2:
        return _probe(routine, blur_px, instrument, rules)
    found = _estimated(routine, blur_px, instrument)
    fault = actuator.fault(routine.evidence, routine.estimate, found, instrument=instrument)
    routine = replace(routine, estimate=found)
    if fault is not None:
        back_m = actuator.way_back_m(routine.restore_to or frame.working_distance_m, frame, fault)
        return give_up(replace(routine, verified_m=back_m), fault.code, rules)
    if not found.answered:
        if found.reason == "actuator_dead":
            return give_up(routine, found.reason, rules)
        return _probe(routine, blur_px, instrument, rules)
    routine, wish = _judge(routine, found, instrument, rules)
    if routine.phase is Phase.CONVERGED and _was_sharper(sharpest, blur_px):
        return give_up(replace(routine, verified_m=sharpest[1] if sharpest else None), "ambiguous", rules)
    return routine, wish


def _was_sharper(sharpest: tuple[float, float] | None, blur_px: float | None) -> bool:
    """Did the model see a frame of this routine clearly sharper than the one that is said to be in focus?"""
    return sharpest is not None and blur_px is not None and blur_px > SHARPER * sharpest[0] + SHARPER_PX


def _take(routine: Routine, frame: Evidence, blur_px: float | None, instrument: Instrument) -> Routine:
    at = Move(frame.working_distance_m, frame.stigmator_x, frame.stigmator_y)
    play = play_at(routine, at.working_distance_m, instrument)
    coarse = None if frame.coarse is None else _stood(frame.coarse, play)
    seen = msgspec.structs.replace(_stood(frame, play), coarse=coarse)
    evidence = (*routine.evidence, seen)[-KEPT:]
    return replace(
        routine,
        evidence=evidence,
        spent=routine.spent + 1,
        home=routine.home or at,
        at=at,
        play=play,
        sharpest=_sharper(routine.sharpest, blur_px, at.working_distance_m),
    )


def play_at(routine: Routine, commanded_m: float, instrument: Instrument) -> Play:
    """Where the lens stands once it is commanded there: evidence has its working distances as the lens went."""
    known = routine.play or backlash.begin(commanded_m, instrument.hysteresis_m)
    return known.after(commanded_m)


def _sharper(
    known: tuple[float, float] | None, blur_px: float | None, working_distance_m: float
) -> tuple[float, float] | None:
    if blur_px is None or (known is not None and known[0] <= blur_px):
        return known
    return blur_px, working_distance_m


def _stood(frame: Evidence, play: Play) -> Evidence:
    return msgspec.structs.replace(frame, working_distance_m=play.lens_m, place_sigma_m=play.sigma_m)


def _estimated(routine: Routine, blur_px: float | None, instrument: Instrument) -> Estimate:
    """By a quarter of the resolution where focus is far away, else by all of it; not believed against the blur."""
    used = _near(routine)
    found = _far_away(routine, blur_px, instrument) or estimate(used, instrument)
    if found.sigma_m is not None:
        found = replace(found, sigma_m=hypot(found.sigma_m, *(e.place_sigma_m for e in used)))
    return replace(found, reason="ambiguous") if found.answered and _unlike(found, blur_px) else found


def _near(routine: Routine) -> tuple[Evidence, ...]:
    """The evidence without what is far from where focus was last believed to be, or whose place is in doubt, as long
    as enough is left."""
    last = routine.estimate
    focus_m = None if last is None or not last.answered else last.in_focus_working_distance_m
    if last is None or focus_m is None or last.half_depth_of_focus_m is None:
        return routine.evidence
    h = last.half_depth_of_focus_m
    near = [e for e in routine.evidence if abs(e.working_distance_m - focus_m) < NEAR_H * h]
    sure = [e for e in near if e.place_sigma_m < SURE_PLACE_H * h]
    for chosen in (sure, near):
        chosen += [e for e in routine.evidence[-1:] if all(e is not other for other in chosen)]
        places = [e.working_distance_m for e in chosen]
        if max(places) - min(places) > APART_H * h:
            return tuple(chosen)
    return routine.evidence


def _far_away(routine: Routine, blur_px: float | None, instrument: Instrument) -> Estimate | None:
    coarse = [e.coarse for e in routine.evidence if e.coarse is not None]
    if len(coarse) < len(routine.evidence) or (blur_px is not None and blur_px < FAR_PX):
        return None
    found = estimate(coarse, instrument)
    if found.defocus_m is None or found.alpha_rad is None:
        return None
    h = half_depth_of_focus_m(routine.evidence[-1].pixel_size_m, found.alpha_rad, instrument.fw50_m)
    return replace(found, half_depth_of_focus_m=h) if abs(found.defocus_m) > FAR_H * h else None


def _unlike(found: Estimate, blur_px: float | None) -> bool:
    """Would the picture be far sharper, or far more blurred, than it is? sigma = z / (4 h) pixels."""
    if blur_px is None or found.defocus_m is None or found.half_depth_of_focus_m is None:
        return False
    away = abs(found.defocus_m) + hypot(*(found.astigmatism_m or (0.0, 0.0)))
    expected_px = away / (4.0 * found.half_depth_of_focus_m)
    return max(expected_px, blur_px) > UNLIKE * min(expected_px, blur_px) + UNLIKE_PX


def _judge(routine: Routine, found: Estimate, instrument: Instrument, rules: Rules) -> tuple[Routine, Wish | None]:
    """An answer is there: is it good enough to stay, to move on, or not yet to do either?"""
    z, sigma, h = found.defocus_m or 0.0, found.sigma_m or 0.0, found.half_depth_of_focus_m or 1.0
    stigmators = _stigmator_change(routine, found, instrument, h)
    if abs(z) <= CONVERGED_H * h and sigma <= SURE_H * h and _stigmated(routine, found, stigmators, h):
        return _converged(routine, found, stigmators, rules)
    one_way = (found.p_wrong_direction or 0.0) <= max(rules.p_wrong_direction, 0.5 if abs(z) < h else 0.0)
    if not one_way or sigma > max(WORTH_H * h, SURE_SHARE * abs(z)):
        return _probe(routine, None, instrument, rules)
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    return _correct(routine, z, stigmators, rules)


def _converged(
    routine: Routine, found: Estimate, stigmators: tuple[float, float] | None, rules: Rules
) -> tuple[Routine, Wish | None]:
    """What was measured is within reach of perfect: say so, and take the rest of the way, which needs no picture."""
    done = replace(routine, verified_m=_now(routine).working_distance_m, probes=0, reason=None)
    z, sigma, h = found.defocus_m or 0.0, found.sigma_m or 0.0, found.half_depth_of_focus_m or 1.0
    wish = None
    if rules.steer and (stigmators is not None or abs(z) > max(TRIM_H * h, sigma)):
        wish = _correct(done, z, stigmators, rules)[1]
    kept = wish if wish is not None and wish.kind is Kind.CORRECT else None
    return replace(done, phase=Phase.CONVERGED), kept


def _stigmated(routine: Routine, found: Estimate, change: tuple[float, float] | None, h: float) -> bool:
    """Is the astigmatism that is left known to be small, or past what this routine can learn of it?"""
    if change is not None:
        return _size(found) <= CONVERGED_H * h
    return (found.sigma_astigmatism_m or 0.0) <= SURE_H * h or routine.probes >= ENOUGH_PROBES


def _size(found: Estimate) -> float:
    return hypot(*(found.astigmatism_m or (0.0, 0.0)))


def _stigmator_change(
    routine: Routine, found: Estimate, instrument: Instrument, h: float
) -> tuple[float, float] | None:
    """Knob changes that undo the astigmatism, where it matters, is certain and the knobs are known."""
    if found.astigmatism_m is None or instrument.stigmator_matrix_m is None or routine.stigmated >= MAX_STIGMATED:
        return None
    ax, ay = found.astigmatism_m
    if _size(found) < max(ASTIGMATISM_H * h, 3.0 * (found.sigma_astigmatism_m or 0.0)):
        return None
    (xx, xy), (yx, yy) = instrument.stigmator_matrix_m
    determinant = xx * yy - xy * yx
    if abs(determinant) < 1e-18:
        return None
    return -(yy * ax - xy * ay) / determinant, -(xx * ay - yx * ax) / determinant


def _correct(
    routine: Routine, z_m: float, stigmators: tuple[float, float] | None, rules: Rules
) -> tuple[Routine, Wish | None]:
    now, play, (x, y) = _now(routine), routine.play, stigmators or (0.0, 0.0)
    assert play is not None  # there is evidence
    wanted = Move(play.command_for(play.lens_m - z_m), now.stigmator_x + x, now.stigmator_y + y)
    move = gate(wanted, now, _home(routine).working_distance_m, rules.envelope)
    if {"limit_absolute", "limit_cumulative"} & set(move.limits):
        return give_up(routine, next(name for name in move.limits if name != "limit_step"), rules)
    wish = Wish(Kind.CORRECT, move, f"defocus {z_m * 1e6:+.2f} um")
    turned = routine.stigmated + (stigmators is not None)
    return replace(routine, phase=Phase.CORRECTING, stigmated=turned), wish


def _probe(
    routine: Routine, blur_px: float | None, instrument: Instrument, rules: Rules
) -> tuple[Routine, Wish | None]:
    """A known change whose effect tells the sign: first one side of home, then the other, then wider."""
    if not rules.steer:
        return replace(routine, phase=Phase.MEASURING), None
    if routine.probes >= MAX_PROBES:
        return give_up(routine, (routine.estimate.reason if routine.estimate else None) or "ambiguous", rules)
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    if routine.probes == 0:
        routine = replace(routine, probe_h=_probe_size_h(blur_px))
    newest = routine.evidence[-1]
    alpha = instrument.alpha_rad or ALPHA_GUESS_RAD
    h = half_depth_of_focus_m(newest.pixel_size_m, alpha, instrument.fw50_m)
    home = _home(routine)
    crossing = _across(routine, h, rules)
    if crossing is not None:
        wish = Wish(Kind.PROBE, crossing, "probe beyond focus")
        return replace(routine, phase=Phase.PROBING, probes=routine.probes + 1), wish
    reach = routine.probe_h * (1 + routine.probes // 2) * h
    sides = (1.0, -1.0) if routine.probes % 2 == 0 else (-1.0, 1.0)
    moves = [_towards(routine, side * reach, rules) for side in sides]
    # The side that is asked for, unless the other one reaches further within the limits.
    move = max(moves, key=lambda m: round(abs(m.working_distance_m - home.working_distance_m) / h, 3))
    if abs(move.working_distance_m - home.working_distance_m) < SMALLEST_PROBE_H * h:
        return give_up(routine, next(iter(move.limits), "limit_absolute"), rules)
    wish = Wish(
        Kind.PROBE, move, f"probe {(move.working_distance_m - home.working_distance_m) * 1e6:+.2f} um from home"
    )
    return replace(routine, phase=Phase.PROBING, probes=routine.probes + 1), wish


def _across(routine: Routine, h: float, rules: Rules) -> Move | None:
    """A little beyond where focus is believed to be, seen from the newest frame: two frames that have it between them
    tell most. None where nothing is believed yet, or where that is too short a way."""
    found, play, now = routine.estimate, routine.play, _now(routine)
    if found is None or not found.answered or found.defocus_m is None or play is None:
        return None
    beyond_m = max(ACROSS_H * h, 2.0 * (found.sigma_m or 0.0))
    lens_m = play.lens_m - found.defocus_m - (beyond_m if found.defocus_m > 0.0 else -beyond_m)
    wanted = replace(now, working_distance_m=play.command_for(lens_m))
    move = gate(wanted, now, _home(routine).working_distance_m, rules.envelope)
    return None if abs(move.working_distance_m - now.working_distance_m) < SMALLEST_PROBE_H * h else move


def _towards(routine: Routine, way_m: float, rules: Rules) -> Move:
    home, now = _home(routine), _now(routine)
    wanted = replace(home, working_distance_m=home.working_distance_m + way_m)
    return gate(wanted, now, home.working_distance_m, rules.envelope)


def _probe_size_h(blur_px: float | None) -> float:
    """Half the defocus that this blur may mean: sigma = z / (4 h) pixels."""
    if blur_px is None:
        return PROBE_UNKNOWN_H
    return min(max(1.5 + 0.5 * 4.0 * blur_px, PROBE_H[0]), PROBE_H[1])


def give_up(routine: Routine, reason: str, rules: Rules) -> tuple[Routine, Wish | None]:
    """Hold, and go back to the last good place if the microscope was moved from it."""
    held = replace(routine, phase=Phase.HELD, reason=reason)
    acquire = "average 4 frames of this site, or go to a site with texture" if reason == "featureless" else None
    if not routine.evidence:
        return held, None
    home, now = _home(routine), _now(routine)
    target = replace(home, working_distance_m=routine.restore_to or home.working_distance_m, limits=())
    if rules.steer and _differ(target, now):
        return held, Wish(Kind.RESTORE, gate(target, now, home.working_distance_m, rules.envelope), reason, acquire)
    return held, Wish(Kind.ACQUIRE, now, reason, acquire) if acquire else None


def forget_scene(routine: Routine) -> Routine:
    """Another scene: its spectra say nothing of the next one; what was verified in metres stays."""
    if routine.phase in (Phase.CONVERGED, Phase.IDLE):
        return replace(
            routine, evidence=(), home=None, spent=0, probes=0, stigmated=0, sharpest=None
        )  # where the lens stands is still known
    return begin(routine.verified_m)


def _now(routine: Routine) -> Move:
    assert routine.at is not None  # there is evidence
    return routine.at


def _home(routine: Routine) -> Move:
    return routine.home or _now(routine)


def _differ(a: Move, b: Move) -> bool:
    return len(distinct([a.working_distance_m, b.working_distance_m])) > 1 or (
        max(abs(a.stigmator_x - b.stigmator_x), abs(a.stigmator_y - b.stigmator_y)) > SAME_STIGMATOR
    )
