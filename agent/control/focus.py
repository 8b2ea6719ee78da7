"""The focus routine: measure, probe, correct, verify, or hold and say why. Pure: one evidence frame in, what to do out.

A probe is a known change of working distance, sized by the blur that is seen; the estimator then tells sign and size.
The routine never corrects on a direction it may have wrong, spends a bounded number of frames, and goes back to where
it began when it gives up.
"""

from dataclasses import dataclass, field, replace

from agent.control.envelope import Envelope, Move, gate
from agent.control.estimate import Estimate, Instrument, distinct, estimate, object_nats
from agent.messages import Evidence, Kind, Phase
from calibration.optics import half_depth_of_focus_m

KEPT = 12  # frames the estimator is given at most; older ones are of another day
CONVERGED_H = 0.3  # of h: below it a correction costs more dose than it gains
SURE_H = 0.35  # of h: a correction needs a sigma below this, or below a share of the way
SURE_SHARE = 0.2
ASTIGMATISM_H = 0.3  # of h: below it stigmation is as good as defocus allows to see
PROBE_H = (2.0, 12.0)  # smallest and largest probe, in h: the best near focus and at 25 h (information floor)
SMALLEST_PROBE_H = 1.0  # of h: a shorter way changes too little to tell the sign by
PROBE_UNKNOWN_H = 6.0  # where no model tells the blur
ALPHA_GUESS_RAD = 5e-3  # only to size the steps of a bracket that will measure alpha
FEATURELESS_NATS = 300.0  # a frame speaks for an object: noise alone reaches 150, faint texture thousands
MAX_PROBES = 4
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
    """Where the routine stands. `home` is where it began, `verified_m` the last working distance known to be good."""

    phase: Phase = Phase.IDLE
    evidence: tuple[Evidence, ...] = ()
    spent: int = 0
    probes: int = 0
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
    routine = _take(routine, frame)
    if object_nats(frame) < FEATURELESS_NATS:
        return give_up(routine, "featureless", rules)
    if len(distinct([e.working_distance_m for e in routine.evidence])) < 2:
        return _probe(routine, blur_px, instrument, rules)
    found = estimate(routine.evidence, instrument)
    routine = replace(routine, estimate=found)
    if not found.answered:
        if found.reason == "actuator_dead":
            return give_up(routine, found.reason, rules)
        return _probe(routine, blur_px, instrument, rules)
    return _judge(routine, found, instrument, rules)


def _take(routine: Routine, frame: Evidence) -> Routine:
    home = routine.home or Move(frame.working_distance_m, frame.stigmator_x, frame.stigmator_y)
    evidence = (*routine.evidence, frame)[-KEPT:]
    return replace(routine, evidence=evidence, spent=routine.spent + 1, home=home)


def _judge(routine: Routine, found: Estimate, instrument: Instrument, rules: Rules) -> tuple[Routine, Wish | None]:
    """An answer is there: is it good enough to stay, to move on, or not yet to do either?"""
    z, sigma, h = found.defocus_m or 0.0, found.sigma_m or 0.0, found.half_depth_of_focus_m or 1.0
    sure = sigma <= max(SURE_H * h, SURE_SHARE * abs(z)) and (found.p_wrong_direction or 0.0) <= max(
        rules.p_wrong_direction, 0.5 if abs(z) < h else 0.0
    )
    if not sure:
        return _probe(routine, None, instrument, rules)
    stigmators = _stigmator_change(found, instrument, h)
    if abs(z) <= CONVERGED_H * h and stigmators is None:
        where = found.working_distance_m
        return replace(routine, phase=Phase.CONVERGED, verified_m=where, probes=0, reason=None), None
    if routine.spent >= rules.dose_frames:
        return give_up(routine, "budget", rules)
    return _correct(routine, z, stigmators or (0.0, 0.0), rules)


def _stigmator_change(found: Estimate, instrument: Instrument, h: float) -> tuple[float, float] | None:
    """Knob changes that undo the astigmatism, where it matters, is certain and the knobs are known."""
    if found.astigmatism_m is None or instrument.stigmator_matrix_m is None:
        return None
    ax, ay = found.astigmatism_m
    size = (ax**2 + ay**2) ** 0.5
    if size < max(ASTIGMATISM_H * h, 3.0 * (found.sigma_astigmatism_m or 0.0)):
        return None
    (xx, xy), (yx, yy) = instrument.stigmator_matrix_m
    determinant = xx * yy - xy * yx
    if abs(determinant) < 1e-18:
        return None
    return -(yy * ax - xy * ay) / determinant, -(xx * ay - yx * ax) / determinant


def _correct(
    routine: Routine, z_m: float, stigmators: tuple[float, float], rules: Rules
) -> tuple[Routine, Wish | None]:
    now = _now(routine)
    wanted = Move(now.working_distance_m - z_m, now.stigmator_x + stigmators[0], now.stigmator_y + stigmators[1])
    move = gate(wanted, now, _home(routine).working_distance_m, rules.envelope)
    if {"limit_absolute", "limit_cumulative"} & set(move.limits):
        return give_up(routine, next(name for name in move.limits if name != "limit_step"), rules)
    wish = Wish(Kind.CORRECT, move, f"defocus {z_m * 1e6:+.2f} um")
    return replace(routine, phase=Phase.CORRECTING), wish


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
        return replace(routine, evidence=(), home=None, spent=0, probes=0)
    return begin(routine.verified_m)


def _now(routine: Routine) -> Move:
    newest = routine.evidence[-1]
    return Move(newest.working_distance_m, newest.stigmator_x, newest.stigmator_y)


def _home(routine: Routine) -> Move:
    return routine.home or _now(routine)


def _differ(a: Move, b: Move) -> bool:
    return len(distinct([a.working_distance_m, b.working_distance_m])) > 1 or (
        max(abs(a.stigmator_x - b.stigmator_x), abs(a.stigmator_y - b.stigmator_y)) > SAME_STIGMATOR
    )
