"""The virtual microscope as a sweep sees one: in this process, on its own virtual clock."""

from typing import Any

from numpy.typing import NDArray

from agent.control.envelope import Move
from agent.messages import Optics, Outcome
from calibration.sweep.errors import InterruptedSweepError
from calibration.sweep.instrument import Moved
from calibration.twin.microscope import VirtualMicroscope


class VirtualColumn:
    """Only what a real instrument could read back passes through here."""

    def __init__(self, scope: VirtualMicroscope) -> None:
        self.scope = scope
        self.name = f"virtual microscope {scope.settings.instrument_seed}"
        self.limits = scope.settings.limits

    def read(self) -> Move:
        column = self.scope.column
        return Move(column.working_distance_m, column.stigmator_x, column.stigmator_y)

    def move(self, wanted: Move) -> Moved:
        began_ns = self.scope.now_ns
        done = self.scope.set_working_distance(wanted.working_distance_m)
        if done.outcome is not Outcome.REJECTED:
            done = self.scope.set_stigmators(wanted.stigmator_x, wanted.stigmator_y)
        if done.outcome is Outcome.REJECTED:
            raise InterruptedSweepError(f"the microscope rejected {wanted.working_distance_m * 1e3:.6f} mm")
        return Moved(self.read(), began_ns, done.t_settled_ns)

    def wait(self, seconds: float) -> None:
        self.scope.wait(seconds)

    def wait_until(self, t_ns: int) -> None:
        self.scope.wait_until(t_ns)

    def frame(self) -> tuple[NDArray[Any], Optics]:
        return self.scope.frame()

    def catch_up(self, frames: int, t_ns: int) -> None:
        """A sweep that goes on meets the noise and the drift that come after its recorded frames."""
        for _ in range(frames):
            self.scope.frame()
        self.scope.now_ns = max(self.scope.now_ns, t_ns)
