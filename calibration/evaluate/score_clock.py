"""How long a bench may still go on, and what is raised where it is over: what was done by then stays on disk."""

import time
from dataclasses import dataclass


class OutOfTimeError(Exception):
    """The time is over; the work folder holds what was done."""


@dataclass(frozen=True)
class Deadline:
    """until_s: of time.monotonic(); None: as long as it takes."""

    until_s: float | None = None

    def check(self) -> None:
        """Raises OutOfTimeError."""
        if self.until_s is not None and time.monotonic() >= self.until_s:
            raise OutOfTimeError
