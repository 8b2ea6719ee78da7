"""What the controllers want, as the suggestion that is told: absolute values, the deltas they amount to, why. Pure."""

from agent.control.envelope import Move
from agent.control.exposure import Advice
from agent.control.focus import Routine, Wish
from agent.messages import Kind, Optics, Suggestion


def focus_suggestion(number: str, wish: Wish, routine: Routine, *, now: Move, valid_for_s: float) -> Suggestion:
    """A move of the optics, or a frame that would help. now: as the header has it, where no evidence is left."""
    newest, found = routine.evidence[-1] if routine.evidence else now, routine.estimate
    moves = wish.kind is not Kind.ACQUIRE
    dx, dy = wish.move.stigmator_x - newest.stigmator_x, wish.move.stigmator_y - newest.stigmator_y
    turned = moves and (dx != 0.0 or dy != 0.0)
    return Suggestion(
        id=number,
        kind=wish.kind,
        based_on_frames=tuple(e.frame for e in routine.evidence),
        working_distance_m=wish.move.working_distance_m if moves else None,
        delta_working_distance_m=wish.move.working_distance_m - newest.working_distance_m if moves else None,
        stigmator_x=wish.move.stigmator_x if turned else None,
        stigmator_y=wish.move.stigmator_y if turned else None,
        delta_stigmator_x=dx if turned else None,
        delta_stigmator_y=dy if turned else None,
        sigma_working_distance_m=found.sigma_m if found else None,
        p_wrong_direction=found.p_wrong_direction if found else None,
        half_depth_of_focus_m=found.half_depth_of_focus_m if found else None,
        limits_applied=wish.move.limits,
        reason=wish.reason,
        restore_to=routine.restore_to,
        valid_for_s=valid_for_s,
        acquire=wish.acquire,
    )


def exposure_suggestion(number: str, advice: Advice, frame: int, *, valid_for_s: float) -> Suggestion:
    """Brightness and contrast, both absolute; the optics stay as they are."""
    return Suggestion(
        id=number,
        kind=Kind.EXPOSURE,
        based_on_frames=(frame,),
        brightness=advice.knobs.brightness,
        contrast=advice.knobs.contrast,
        reason=advice.reason,
        valid_for_s=valid_for_s,
    )


def where(optics: Optics) -> Move:
    """The optics as they are: what a suggestion that does not move them leaves."""
    return Move(optics.working_distance_m or 0.0, optics.stigmator_x or 0.0, optics.stigmator_y or 0.0)
