"""The only file that reads a clock. Everything else is given `now_ns`, so that replay and tests are exact."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: one to measure with, one to write down."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds since boot: for ages, timeouts and leases."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch: for records, never for arithmetic."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()


class ManualClock:
    """A clock that moves when told to: for tests and replay."""

    def __init__(self, now_ns: int = 1_000_000_000, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns, self._wall_ns = now_ns, wall_ns

    def now_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, seconds: float) -> None:
        self._now_ns += round(seconds * 1e9)
        self._wall_ns += round(seconds * 1e9)
