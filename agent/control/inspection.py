"""When depth and defects are read on live frames, which depth map is told, what is said of a frame to inspect. Pure.

Frames to inspect are always read. Live ones share what `live_budget` leaves: after a reading that took t seconds the
next waits until t is that share of the time since; of several sources the one that waited longest comes first.
"""

from dataclasses import dataclass, replace

from agent.messages import Findings, Flag, Frame, Heights, Lane

SOURCES = 16  # remembered, as many as have a place in the live lane
UNKNOWN_S = 1.0  # between two readings while it is not known how long one takes
PATIENCE = 2.0  # periods that the others wait for the source whose turn it is
NO_SIZE = "no_pixel_size"
UNSIZED = "frames to inspect come without a pixel size and have no heights: send pixel_size_m, or a field width"
MAP_EVERY_NS = 1_000_000_000  # megabytes each: at most one a second is told


@dataclass(frozen=True)
class Turns:
    """What ran last, and which live sources came since."""

    began_ns: int | None = None  # of the last reading in either lane
    last: tuple[tuple[str, int], ...] = ()  # source -> its last live reading, oldest first
    seen: tuple[str, ...] = ()  # live sources since the last reading

    def inspected(self, now_ns: int) -> "Turns":
        """A frame to inspect is read: its time is spent like that of any other."""
        return replace(self, began_ns=now_ns)

    def live(self, source: str, *, now_ns: int, spent_s: float | None, budget: float) -> tuple["Turns", bool]:
        """One live frame: is it to be read? `spent_s`: what the last reading took."""
        if budget <= 0.0:
            return self, False
        turns = self if source in self.seen else replace(self, seen=(*self.seen, source)[-SOURCES:])
        if not turns._due(source, now_ns, UNKNOWN_S if spent_s is None else spent_s / budget):
            return turns, False
        others = tuple(each for each in self.last if each[0] != source)
        return Turns(now_ns, (*others, (source, now_ns))[-SOURCES:]), True

    def _due(self, source: str, now_ns: int, period_s: float) -> bool:
        if self.began_ns is None:
            return True
        waited_s = (now_ns - self.began_ns) / 1e9
        if waited_s < period_s:
            return False
        when = dict(self.last)
        first = min(self.seen, key=lambda each: when.get(each, -1))
        return source == first or waited_s >= PATIENCE * period_s


@dataclass(frozen=True)
class Maps:
    """One map may wait for its second; one of a frame to inspect is not displaced by a live one."""

    told_ns: int | None = None
    waiting: Heights | None = None

    def offered(self, new: Heights) -> "Maps":
        held = self.waiting
        kept = held is not None and held.frame.lane is Lane.INSPECT and new.frame.lane is Lane.LIVE
        return self if kept else replace(self, waiting=new)

    def due(self, now_ns: int) -> tuple["Maps", Heights | None]:
        """The map to tell now, if its second has come."""
        early = self.told_ns is not None and now_ns - self.told_ns < MAP_EVERY_NS
        if self.waiting is None or early:
            return self, None
        return Maps(told_ns=now_ns), self.waiting


class Inspection:
    """All that is remembered of depth and defects between frames."""

    def __init__(self) -> None:
        self._turns, self._maps = Turns(), Maps()
        self._unsized = False  # the last frame to inspect came without a pixel size

    def due(self, frame: Frame, *, now_ns: int, spent_s: float | None, budget: float) -> bool:
        """Are depth and defects to be read on this frame? `spent_s`: what they took the last time."""
        if frame.lane is Lane.INSPECT:
            self._turns = self._turns.inspected(now_ns)
            return True
        self._turns, due = self._turns.live(frame.source, now_ns=now_ns, spent_s=spent_s, budget=budget)
        return due

    def offer(self, frame: Frame, findings: Findings, *, calibrated: bool) -> None:
        """A depth map that may be told, if there is one."""
        if findings.depth is None:
            return
        new = Heights(
            frame=frame.reference,
            height_m=findings.depth.height_m,
            calibrated=calibrated,
            models=findings.models,
            took_s=findings.took_s,
        )
        self._maps = self._maps.offered(new)

    def map_due(self, now_ns: int) -> Heights | None:
        """The map to tell now."""
        self._maps, told = self._maps.due(now_ns)
        return told

    def flags(self, frame: Frame, findings: Findings, standing: tuple[str, ...]) -> tuple[Flag, ...]:
        """What must be said of a frame to inspect: that nobody saw it, that it has no heights."""
        unseen = (uninspected(frame.number, findings.unseen),) if findings.unseen else ()
        return (*unseen, *self._size_edge(frame, standing))

    def _size_edge(self, frame: Frame, standing: tuple[str, ...]) -> tuple[Flag, ...]:
        """Told when it begins and when it ends; no hold, for such frames never steer."""
        was, self._unsized = self._unsized, frame.optics.pixel_size_m is None
        if was is self._unsized or NO_SIZE in standing:  # or the live stream says so already
            return ()
        state, detail = ("raised", UNSIZED) if self._unsized else ("cleared", "")
        return (Flag(code=NO_SIZE, state=state, severity="warning", detail=detail, frame=frame.number),)


def uninspected(number: int, why: str) -> Flag:
    """One message for each such frame."""
    return Flag(code="uninspected", state="raised", severity="error", detail=why, frame=number)
