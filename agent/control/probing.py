"""Where to look next: a known change of working distance whose effect tells the sign and the size. Pure."""

from dataclasses import replace

from agent.control.bound import expected_sigma_m
from agent.control.envelope import Move, gate
from agent.control.estimate import Solved
from agent.control.instrument import Instrument
from agent.control.routine import PROBE_UNKNOWN_H, Routine, Rules
from calibration.optics import half_depth_of_focus_m

PROBE_H = (2.0, 48.0)  # smallest and largest probe, in h: the best near focus and at 100 h (information floor)
SMALLEST_PROBE_H = 1.0  # of h: a shorter way changes too little to tell the sign by
ACROSS_H = 2.0  # of h: so far beyond where focus is believed to be, or two sigmas
BEYOND_H = (-16.0, -8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0, 16.0)  # of h from where focus is believed to be
WIDE_H = 8.0  # of h: with more doubt than that the ends of it tell nothing of one another
ALPHA_GUESS_RAD = 5e-3  # only to size the steps of a bracket that will measure alpha


def half_depth_m(routine: Routine, instrument: Instrument) -> float:
    """h of the newest frame, by the angle that is known or guessed."""
    alpha = instrument.alpha_rad or ALPHA_GUESS_RAD
    return half_depth_of_focus_m(routine.evidence[-1].pixel_size_m, alpha, instrument.fw50_m)


def across(routine: Routine, h: float, rules: Rules) -> Move | None:
    """A little beyond where focus is believed to be, seen from the newest frame: two frames that have it between them
    tell most. None where nothing is believed yet, or where that is too short a way."""
    found, play, now = routine.estimate, routine.play, routine.now
    if found is None or not found.answered or found.defocus_m is None or play is None:
        return None
    beyond_m = max(ACROSS_H * h, 2.0 * (found.sigma_m or 0.0))
    lens_m = play.lens_m - found.defocus_m - (beyond_m if found.defocus_m > 0.0 else -beyond_m)
    wanted = replace(now, working_distance_m=play.command_for(lens_m))
    move = gate(wanted, now, routine.began.working_distance_m, rules.envelope)
    return None if abs(move.working_distance_m - now.working_distance_m) < SMALLEST_PROBE_H * h else move


def telling(routine: Routine, known: Solved | None, instrument: Instrument, rules: Rules) -> Move | None:
    """Where one frame more is expected to leave the least doubt of defocus; each costs the same dose. None where the
    frames so far do not say."""
    found, play = routine.estimate, routine.play
    if known is None or found is None or not found.answered or play is None or instrument.alpha_rad is None:
        return None
    alpha_sigma, sigma_m = (
        instrument.alpha_sigma_rad / instrument.alpha_rad,
        min(found.sigma_m or 0.0, WIDE_H * known.h),
    )
    focus_m = play.lens_m - known.at.z_m
    best: tuple[float, Move] | None = None
    for beyond_h in BEYOND_H:
        wanted = replace(routine.now, working_distance_m=play.command_for(focus_m + beyond_h * known.h))
        move = gate(wanted, routine.now, routine.began.working_distance_m, rules.envelope)
        way_m = move.working_distance_m - routine.now.working_distance_m
        if abs(way_m) < SMALLEST_PROBE_H * known.h:
            continue
        expected = expected_sigma_m(
            known.scene, known.at, way_m=way_m, h=known.h, sigma_m=sigma_m, alpha_sigma=alpha_sigma
        )
        if best is None or expected < best[0]:
            best = expected, move
    return None if best is None else best[1]


def around(routine: Routine, h: float, rules: Rules) -> Move:
    """First one side of home, then the other, then wider; the other side where it reaches further within the limits."""
    reach = routine.probe_h * (1 + routine.probes // 2) * h
    sides = (1.0, -1.0) if routine.probes % 2 == 0 else (-1.0, 1.0)
    moves = [_towards(routine, side * reach, rules) for side in sides]
    return max(moves, key=lambda move: round(abs(way_m(routine, move)) / h, 3))


def way_m(routine: Routine, move: Move) -> float:
    """From home."""
    return move.working_distance_m - routine.began.working_distance_m


def _towards(routine: Routine, way_m: float, rules: Rules) -> Move:
    home_m = routine.began.working_distance_m
    return gate(replace(routine.now, working_distance_m=home_m + way_m, limits=()), routine.now, home_m, rules.envelope)


def probe_size_h(blur_px: float | None) -> float:
    """Half the defocus that this blur may mean: sigma = z / (4 h) pixels."""
    if blur_px is None:
        return PROBE_UNKNOWN_H
    return min(max(1.5 + 0.5 * 4.0 * blur_px, PROBE_H[0]), PROBE_H[1])
