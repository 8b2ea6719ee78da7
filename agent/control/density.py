"""Too many defects in the last inspected frames: when the alarm begins, and when it ends. Pure, one a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent.control.recipe import Density
from agent.messages import SOURCES

CODE = "defect_density"  # of FLAG_CODES


@dataclass(frozen=True)
class Alarm:
    """Counts of the last frames, oldest first."""

    counts: tuple[int, ...] = ()
    raised: bool = False

    def after(self, count: int, rule: Density) -> "Alarm":
        counts = (*self.counts, count)[-rule.frames :]
        total = sum(counts)
        # Between the two bounds it stays as it is.
        return replace(self, counts=counts, raised=total > rule.most or (self.raised and total > rule.clears))

    def told(self, name: str, rule: Density) -> str:
        frames = f"{len(self.counts)} frames" if len(self.counts) > 1 else "frame"
        return f"{name}: {sum(self.counts)} defects in the last {frames}, {rule.most:g} are allowed: look at the lot"


class Alarms:
    """By recipe; a producer that invents names is not remembered for ever."""

    def __init__(self) -> None:
        self._of: dict[str, Alarm] = {}

    def after(self, name: str, count: int, rule: Density | None) -> tuple[str, str] | None:
        """One more inspected frame: the edge (raised or cleared, detail), if this is one."""
        before = self._of.pop(name, Alarm())
        if rule is None:  # the recipe was changed: what stood is over
            return ("cleared", "") if before.raised else None
        now = before.after(count, rule)
        self._of[name] = now
        while len(self._of) > SOURCES:
            self._of.pop(next(iter(self._of)))
        if now.raised is before.raised:
            return None
        return ("raised", now.told(name, rule)) if now.raised else ("cleared", "")

    def standing(self) -> Mapping[str, Alarm]:
        """The recipes whose alarm stands."""
        return {name: alarm for name, alarm in self._of.items() if alarm.raised}
