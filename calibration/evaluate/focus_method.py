"""What the focus bench asks of a method: it is shown frames, says where to go, and at the end whether it is there.

All methods see the same bytes and are obeyed within the same limits. Truth is never in what they are given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.messages import Ack, FocusState, FrameRef, Suggestion
from calibration.certificate import Certificate

Part = bytes | memoryview
Floor = Callable[[float, tuple[float, float]], float]  # true defocus and astigmatism -> least sigma of defocus; metres


class End(StrEnum):
    """How an episode ends."""

    CONVERGED = "converged"  # the method says that it is in focus
    HELD = "held"  # it says that it cannot tell, and why
    FAILED = "failed"  # neither, within the frames there are


@dataclass(frozen=True)
class Wish:
    """A suggestion, and the frame whose epochs the controller compares."""

    suggestion: Suggestion
    frame: FrameRef


@dataclass(frozen=True)
class Word:
    """What a method says when it has seen a frame. evidence: frames it has used so far, this one included."""

    evidence: int
    end: End | None = None
    reason: str = ""
    wish: Wish | None = None
    focus: FocusState | None = None  # where it tells what it knows
    holding: str | None = None  # a condition of the stream for which it says nothing now
    floor: Floor | None = None  # of the frames that its estimate came from, for whoever knows the truth


class Method(Protocol):
    """begin() once an episode; then see() for each frame that arrives, idle() where none did."""

    name: str

    def begin(self, certificate: Certificate, session: str, now_ns: int) -> None: ...

    def see(self, parts: Sequence[Part], now_ns: int) -> Word | None:
        """None: the frame could not be read."""
        ...

    def idle(self, now_ns: int) -> None: ...

    def acknowledged(self, ack: Ack) -> None: ...
