"""What a sweep asks of a microscope, whether it is a real one or the twin: four verbs, and what comes back."""

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from agent.control.envelope import Envelope, Move
from agent.messages import Optics
from calibration.certificate import Limits


@dataclass(frozen=True)
class Moved:
    """The settings as read back after a request; times by the clock that also stamps the frames."""

    at: Move
    t_ns: int  # when the request was made
    settled_ns: int | None = None  # when the microscope says that all has settled; None: it does not say


@dataclass(frozen=True, eq=False)
class Taken:
    """One frame, and how it came about."""

    pixels: NDArray[Any]  # (h, w) without a data bar
    optics: Optics
    at: Move
    side: int  # +1: the working distance was approached from below, -1: from above


class Microscope(Protocol):
    """Raises InterruptedSweepError where it does not answer."""

    name: str
    limits: Limits

    def read(self) -> Move: ...

    def move(self, wanted: Move) -> Moved: ...

    def wait(self, seconds: float) -> None: ...

    def wait_until(self, t_ns: int) -> None: ...

    def frame(self) -> tuple[NDArray[Any], Optics]:
        """The next whole frame that begins after this call."""
        ...


def envelope_of(limits: Limits) -> Envelope:
    return Envelope(
        working_distance_min_m=limits.working_distance_min_m,
        working_distance_max_m=limits.working_distance_max_m,
        step_m=limits.step_m,
        cumulative_m=limits.cumulative_m,
        stigmator_min=limits.stigmator_min,
        stigmator_max=limits.stigmator_max,
        stigmator_step=limits.stigmator_step,
    )
