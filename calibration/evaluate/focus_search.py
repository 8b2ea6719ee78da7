"""Methods that search: a plan that asks for a picture, gets it, and asks for the next, as a method of the bench.

They are shown what the agent is shown and obeyed as it is; a picture counts once all that they asked for has settled.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.errors import MalformedFrameError
from agent.messages import Ack, Frame, Kind, Outcome, Suggestion
from agent.wire import array1
from calibration.certificate import Certificate
from calibration.evaluate.focus_method import End, Part, Wish, Word
from calibration.optics import half_depth_of_focus_m

MOVED = (Outcome.APPLIED, Outcome.CLIPPED)


@dataclass(frozen=True)
class Column:
    """What a method may know of the instrument: its certificate, and the half depth of focus that follows from it."""

    certificate: Certificate
    h_m: float


@dataclass(frozen=True)
class Shown:
    """One settled picture."""

    pixels: NDArray[np.float32]  # (h, w), grey levels
    working_distance_m: float
    stigmator_x: float
    stigmator_y: float
    pixel_size_m: float


@dataclass(frozen=True)
class Go:
    """Where the next picture shall be taken. correct: this is believed to be the focus, or nearer to it."""

    working_distance_m: float
    stigmator_x: float | None = None
    stigmator_y: float | None = None
    correct: bool = False


@dataclass(frozen=True)
class Ended:
    end: End
    reason: str = ""


Search = Generator[Go, Shown, Ended]
Plan = Callable[[Column, Shown], Search]


class Searching:
    """A plan as a method."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self._plan = name, plan

    def begin(self, certificate: Certificate, session: str, now_ns: int) -> None:
        self._certificate, self._session = certificate, session
        self._search: Search | None = None
        self._ended: Ended | None = None
        self._out, self._epoch = "", 0  # what is not yet acknowledged; the epoch of the last that was
        self._seen = self._asked = 0

    def idle(self, now_ns: int) -> None:
        """It waits."""

    def acknowledged(self, ack: Ack) -> None:
        if ack.suggestion != self._out:
            return
        self._out, self._epoch = "", ack.optics_epoch or 0
        if ack.outcome not in MOVED:
            self._ended = Ended(End.HELD, str(ack.outcome))

    def see(self, parts: Sequence[Part], now_ns: int) -> Word | None:
        try:
            frame = array1.decode(parts, dialect="psi", topic="", received_ns=now_ns)
        except MalformedFrameError:
            return None
        optics = frame.optics
        waits = self._out or optics.optics_epoch is None or optics.optics_epoch < self._epoch
        if self._ended is None and not waits and not optics.blanked:
            return self._look(frame)
        return self._word(None)

    def _look(self, frame: Frame) -> Word:
        self._seen += 1
        shown = _shown(frame)
        try:
            if self._search is None:
                h_m = half_depth_of_focus_m(shown.pixel_size_m, self._certificate.alpha_rad, self._certificate.fw50_m)
                self._search = self._plan(Column(self._certificate, h_m), shown)
                return self._word(self._ask(next(self._search), frame, shown))
            return self._word(self._ask(self._search.send(shown), frame, shown))
        except StopIteration as stop:
            self._ended = stop.value
            return self._word(None)

    def _ask(self, go: Go, frame: Frame, shown: Shown) -> Wish:
        """As far as one step may go; a plan looks at where it is, and not at where it wanted to be."""
        limits, here = self._certificate.limits, shown.working_distance_m
        low = max(limits.working_distance_min_m, here - limits.step_m)
        high = min(limits.working_distance_max_m, here + limits.step_m)
        self._asked += 1
        self._out = f"{self._session}-{self._asked}"
        asked = Suggestion(
            id=self._out,
            kind=Kind.CORRECT if go.correct else Kind.PROBE,
            based_on_frames=(frame.number,),
            working_distance_m=min(max(go.working_distance_m, low), high),
            stigmator_x=go.stigmator_x,
            stigmator_y=go.stigmator_y,
        )
        return Wish(asked, frame.reference)

    def _word(self, wish: Wish | None) -> Word:
        ended = self._ended
        if ended is None:
            return Word(self._seen, wish=wish)
        return Word(self._seen, end=ended.end, reason=ended.reason)


def _shown(frame: Frame) -> Shown:
    optics = frame.optics
    if optics.working_distance_m is None or optics.pixel_size_m is None:
        raise ValueError("the bench's frames tell their working distance and pixel size")
    pixels = np.asarray(frame.pixels, np.float32)
    x, y = optics.stigmator_x or 0.0, optics.stigmator_y or 0.0
    return Shown(pixels, optics.working_distance_m, x, y, optics.pixel_size_m)
