"""Conditions that stand, as edges: what is raised, what is cleared, and which hold is told. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.messages import Flag, Hold


@dataclass
class Standing:
    """`severity` and `holds` are the table's; the reason told is the first that stands of those that hold."""

    severity: Callable[[str], str]
    holds: Callable[[str], bool]
    codes: dict[str, str] = field(default_factory=dict)  # code -> detail, in the order they came
    reason: str | None = None
    since_ns: int = 0  # wall clock
    _flags: list[Flag] = field(default_factory=list)

    def put(self, code: str, detail: str = "", frame: int | None = None) -> None:
        """The condition stands."""
        if code not in self.codes:
            self._flags.append(
                Flag(code=code, state="raised", severity=self.severity(code), detail=detail, frame=frame)
            )
        self.codes[code] = detail

    def drop(self, code: str) -> None:
        """The condition is over."""
        if self.codes.pop(code, None) is not None:
            self._flags.append(Flag(code=code, state="cleared", severity=self.severity(code)))

    def only(self, keep: Callable[[str], bool]) -> None:
        """Drop every condition that is not to be kept."""
        for code in [code for code in self.codes if not keep(code)]:
            self.drop(code)

    def flags(self) -> tuple[Flag, ...]:
        """The edges since the last call."""
        edges = tuple(self._flags)
        self._flags.clear()
        return edges

    def holding(self) -> str | None:
        """Why no advice is given now, told or not yet."""
        return next((code for code in self.codes if self.holds(code)), None)

    def holding_all(self) -> tuple[str, ...]:
        """All that stops advice now."""
        return tuple(code for code in self.codes if self.holds(code))

    def hold_edges(self, wall_ns: int) -> tuple[Hold, ...]:
        """End of the old reason and begin of the new one, where they differ."""
        reason = self.holding()
        if reason == self.reason:
            return ()
        edges = []
        if self.reason is not None:
            edges.append(Hold(state="end", reason=self.reason, since_ns=self.since_ns))
        if reason is not None:
            self.since_ns = wall_ns
            edges.append(Hold(state="begin", reason=reason, since_ns=wall_ns))
        self.reason = reason
        return tuple(edges)
