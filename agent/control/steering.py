"""One suggestion at a time: what is out, what became of it, and what the next frame must look like. Pure."""

from dataclasses import dataclass, replace

from agent.control.envelope import Move
from agent.messages import Ack, Kind, Optics, Outcome

ACK_S = 2.0  # an acknowledgement comes within this or ACK_FRAMES frame times, whichever is longer
ACK_FRAMES = 2.0
READ_BACK_M = 100e-9  # what a controller reads back may differ from what it was told by its own rounding
EVIDENT_M = 50e-9  # the header must show a change that was acknowledged, to a read-back's rounding
PATIENCE = 3  # changes that were superseded, expired or clipped in one routine before it gives up


@dataclass(frozen=True)
class Steering:
    """`out` is the suggestion not yet acknowledged; `expected` what the optics should be since the last one was.

    `left_epoch` is the one that the last suggestion was made for: the optics before it.
    """

    out: str | None = None
    kind: Kind | None = None
    move: Move | None = None
    wait_ns: int = 0  # for the acknowledgement, from the turn after the suggestion was made: its own may be long
    deadline_ns: int | None = None
    expected_m: float | None = None
    expected_epoch: int | None = None
    left_epoch: int | None = None
    settled_ns: int | None = None  # producer's clock, of the last acknowledgement
    troubles: int = 0

    def sent(self, number: str, kind: Kind, move: Move, *, epoch: int | None, frame_time_s: float | None) -> "Steering":
        wait_ns = round(max(ACK_S, ACK_FRAMES * (frame_time_s or 0.0)) * 1e9)
        return replace(self, out=number, kind=kind, move=move, wait_ns=wait_ns, deadline_ns=None, left_epoch=epoch)

    def waiting(self, now_ns: int) -> "Steering":
        """A turn begins: the first one after a suggestion starts its clock."""
        if self.out is None or self.deadline_ns is not None:
            return self
        return replace(self, deadline_ns=now_ns + self.wait_ns)

    def overdue(self, now_ns: int) -> bool:
        return self.out is not None and self.deadline_ns is not None and now_ns >= self.deadline_ns

    def explains(self, working_distance_m: float | None, optics_epoch: int | None) -> bool:
        """Is a change of the optics what was suggested, what was acknowledged, or a late word of what was before?"""
        if optics_epoch is not None and optics_epoch in (self.expected_epoch, self.left_epoch):
            return True
        lands_m = self.move.working_distance_m if self.out is not None and self.move is not None else None
        if lands_m is None and self.expected_epoch is None:
            lands_m = self.expected_m  # the acknowledgement named no epoch
        return (
            lands_m is not None and working_distance_m is not None and abs(working_distance_m - lands_m) <= READ_BACK_M
        )

    def arrived(self, optics_epoch: int | None) -> "Steering":
        """The epoch of an acknowledged change that its acknowledgement did not name."""
        unnamed = self.out is None and self.expected_m is not None and self.expected_epoch is None
        return replace(self, expected_epoch=optics_epoch) if unnamed else self

    def before(self, optics_epoch: int | None) -> bool:
        """Does a frame of this epoch show the optics from before the acknowledged change?"""
        if self.out is not None or self.expected_epoch in (None, optics_epoch):
            return False
        return optics_epoch is not None and optics_epoch == self.left_epoch

    def landed(self, optics_epoch: int | None) -> bool:
        """Does a frame of this epoch show the optics as the last suggestion left them?"""
        return self.out is None and not self.before(optics_epoch)

    def moving(self, optics_epoch: int | None, t_start_ns: int | None) -> bool:
        """Is a frame without an epoch one that was being scanned while the optics did as they were asked?"""
        if optics_epoch is not None:
            return False
        began_before = self.settled_ns is not None and t_start_ns is not None and t_start_ns < self.settled_ns
        return self.out is not None or began_before

    def unmoved(self, optics_epoch: int | None, t_start_ns: int | None, now_ns: int) -> bool:
        """... though by now it cannot be one that was on its way?"""
        if self.settled_ns is None or t_start_ns is None:
            return self.before(optics_epoch) and now_ns >= (self.deadline_ns or 0)
        return self.before(optics_epoch) and t_start_ns >= self.settled_ns

    def contradicted(self, optics: Optics, now_ns: int) -> str:
        """How a header fails to show an acknowledged move; empty where it does, or cannot yet."""
        expected, seen = self.expected_m, optics.working_distance_m
        if expected is None or seen is None or abs(seen - expected) <= EVIDENT_M:
            return ""
        arrived = optics.optics_epoch == self.expected_epoch
        if not arrived and not self.unmoved(optics.optics_epoch, optics.t_start_ns, now_ns):
            return ""
        return f"acknowledged {expected:.9f} m, the header says {seen:.9f} m"

    def cancelled(self) -> "Steering":
        return Steering()


def acknowledge(steering: Steering, ack: Ack) -> tuple[Steering, str | None]:
    """The controller's answer -> what to expect, and the reason to give up if that is what it amounts to."""
    if ack.suggestion != steering.out or steering.move is None:
        return steering, None
    free = replace(steering, out=None, kind=None, move=None)
    if ack.outcome in (Outcome.REJECTED, Outcome.FAILED):
        return free, "rejected"
    if ack.outcome in (Outcome.SUPERSEDED, Outcome.EXPIRED):
        return _trouble(free, "no_ack" if ack.outcome is Outcome.EXPIRED else "operator")
    told = ack.working_distance_m
    landed = steering.move.working_distance_m if told is None else told
    free = replace(free, expected_m=landed, expected_epoch=ack.optics_epoch, settled_ns=ack.t_settled_ns)
    short = abs(landed - steering.move.working_distance_m) > READ_BACK_M
    if ack.outcome is Outcome.CLIPPED or short:
        return _trouble(free, "clipped")
    return free, None


def _trouble(steering: Steering, reason: str) -> tuple[Steering, str | None]:
    troubles = steering.troubles + 1
    return replace(steering, troubles=troubles), reason if troubles >= PATIENCE else None
