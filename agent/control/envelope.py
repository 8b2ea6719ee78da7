"""The one gate before the instrument: a wanted move in, one that may be asked for out, and what limited it."""

from dataclasses import dataclass

STEP, ABSOLUTE, CUMULATIVE = "limit_step", "limit_absolute", "limit_cumulative"


@dataclass(frozen=True)
class Envelope:
    """How far the agent may ask, metres and stigmator units: the smaller of the certificate's and the settings'."""

    working_distance_min_m: float
    working_distance_max_m: float
    step_m: float
    cumulative_m: float
    stigmator_min: float = -1.0
    stigmator_max: float = 1.0
    stigmator_step: float = 0.5


@dataclass(frozen=True)
class Move:
    """A change that passed the gate; `limits` names what shortened it."""

    working_distance_m: float
    stigmator_x: float
    stigmator_y: float
    limits: tuple[str, ...] = ()


def gate(wanted: Move, now: Move, home_m: float, envelope: Envelope) -> Move:
    """`wanted` as near as the envelope allows; cumulative travel counts from `home_m`, where the routine began."""
    limits: list[str] = []
    target = wanted.working_distance_m
    for name, low, high in (
        (STEP, now.working_distance_m - envelope.step_m, now.working_distance_m + envelope.step_m),
        (CUMULATIVE, home_m - envelope.cumulative_m, home_m + envelope.cumulative_m),
        (ABSOLUTE, envelope.working_distance_min_m, envelope.working_distance_max_m),
    ):
        inside = min(max(target, low), high)
        if inside != target:
            limits.append(name)
        target = inside
    x = _knob(wanted.stigmator_x, now.stigmator_x, envelope, limits)
    y = _knob(wanted.stigmator_y, now.stigmator_y, envelope, limits)
    return Move(target, x, y, tuple(dict.fromkeys(limits)))


def _knob(wanted: float, now: float, envelope: Envelope, limits: list[str]) -> float:
    stepped = min(max(wanted, now - envelope.stigmator_step), now + envelope.stigmator_step)
    inside = min(max(stepped, envelope.stigmator_min), envelope.stigmator_max)
    if stepped != wanted:
        limits.append(STEP)
    if inside != stepped:
        limits.append(ABSOLUTE)
    return inside
