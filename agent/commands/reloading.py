"""Models and certificate read again on a thread of their own, while frames go on being read by the old ones.

The loop calls `ask` and `take`, both from its own thread; the new ones are handed over only when all of them are there.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from agent.clock import Clock
from agent.errors import BeamsideError
from agent.health import Health
from agent.loop import Service
from agent.messages import Flag

log = logging.getLogger(__name__)

LIMIT_S = 60.0  # a run-time that compiles for a GPU takes half of it; longer than that it is not coming back
CODE = "engine_hang"  # of FLAG_CODES
KEPT = "reload refused, the old ones keep serving: %s"


class _Attempt:
    """One reading of everything."""

    def __init__(self, read: Callable[[], Service], now_ns: int) -> None:
        self._read, self.began_ns = read, now_ns
        self.told_late = False
        self.new: Service | None = None
        self.over = threading.Event()

    def run(self) -> None:
        try:
            self.new = self._read()
        except BeamsideError as error:
            log.error(KEPT, error)
        except Exception:  # a thread's end nobody would see, and the old ones are as good as before
            log.exception(KEPT, "this was not foreseen")
        finally:
            self.over.set()


class Reloader:
    """At most one attempt at a time; what is asked for meanwhile is one more after it."""

    def __init__(self, read: Callable[[], Service], health: Health, *, clock: Clock, limit_s: float = LIMIT_S) -> None:
        """read: raises BeamsideError where it refuses."""
        self._read, self._health, self._clock, self._limit_s = read, health, clock, limit_s
        self._attempt: _Attempt | None = None
        # One thread for all attempts: a new one each time leaves another heap behind (45 MiB after 60 reloads).
        self._due: SimpleQueue[_Attempt] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._asked = False
        self._flags: list[Flag] = []

    def ask(self) -> None:
        """Read everything again; what changed on the disk until now is seen."""
        self._asked = True

    def take(self) -> Service | None:
        """The new ones, once, when they are there. Never waits."""
        attempt = self._attempt
        if attempt is not None and not attempt.over.is_set():
            self._look_at_the_clock(attempt)
            return None
        new = None if attempt is None else self._end(attempt)
        if self._asked:
            self._asked = False
            self._health.reloading()
            self._begin()
        return new

    def flags(self) -> tuple[Flag, ...]:
        """What to tell since the last call: that an attempt does not come back, and that it did after all."""
        told, self._flags = tuple(self._flags), []
        return told

    def wait(self, timeout_s: float) -> bool:
        """False: an attempt is still under way."""
        return self._attempt is None or self._attempt.over.wait(timeout_s)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="reload", daemon=True)
            self._thread.start()
        self._attempt = _Attempt(self._read, self._clock.now_ns())
        self._due.put(self._attempt)

    def _work(self) -> None:
        while True:
            self._due.get().run()

    def _end(self, attempt: _Attempt) -> Service | None:
        self._attempt = None
        self._health.reloaded()
        if attempt.told_late:
            self._flags.append(Flag(code=CODE, state="cleared", severity="info", detail="the reload came back"))
        if attempt.new is not None:
            log.info("reloaded: %s", ", ".join(attempt.new.facts.models))
        return attempt.new

    def _look_at_the_clock(self, attempt: _Attempt) -> None:
        if attempt.told_late or (self._clock.now_ns() - attempt.began_ns) / 1e9 <= self._limit_s:
            return
        attempt.told_late = True
        detail = (
            f"the reload did not come back within {self._limit_s:.0f} s; the old models keep serving and no other "
            "reload begins before it: restart the agent when the microscope can spare it"
        )
        log.error("%s", detail)
        self._flags.append(Flag(code=CODE, state="raised", severity="error", detail=detail))
