"""The way back to a place where the lens stood, with its play taken up: a wish in, the moves that it takes out. Pure.

What is commanded and read back is the same from either side, the lens is not: it lags by half the play. So the lens is
first pushed to its place from the side that it comes from, and then told the command that it had there, which moves it
no more.
"""

from dataclasses import replace

from agent.control.backlash import Play
from agent.control.envelope import Envelope, Move, gate
from agent.control.focus import TRIM_H, Routine, Wish


def ways(wish: Wish, routine: Routine, *, stood: Play | None, h: float, envelope: Envelope) -> tuple[Wish, ...]:
    """The moves in order. stood: the lens when it was last at a place that is gone back to; h: half depth of focus.

    One move alone where that place is another one, where the play is too small to be seen, and where the envelope
    leaves no room.
    """
    play, target = routine.play, wish.move
    if play is None or stood is None or stood.commanded_m != target.working_distance_m:
        return (wish,)
    beyond = replace(target, working_distance_m=play.command_for(stood.lens_m), limits=())
    if abs(beyond.working_distance_m - target.working_distance_m) < TRIM_H * h or _limited(beyond, routine, envelope):
        return (wish,)
    return replace(wish, move=beyond), wish


def _limited(move: Move, routine: Routine, envelope: Envelope) -> bool:
    return bool(gate(move, routine.now, routine.began.working_distance_m, envelope).limits)
