"""How the agent is: timings by stage, word to systemd, numbers for Prometheus.

The loop's thread calls beat() once a turn; snapshot() may be called from any thread. The watchdog is petted only where
work was done, never by a timer: a stuck loop or a dead receive thread must reach the supervisor.
"""

import math
import os
import socket
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

from agent.clock import Clock
from agent.errors import ConfigurationError
from agent.messages import Books, Decision, Mode, Timing

if TYPE_CHECKING:
    from prometheus_client.core import Metric

RING = 512  # turns that p50 and p99 look back on: some seconds of a fast stream, minutes of a slow one
PETS_PER_TIMEOUT = 4  # systemd asks for two at least; a quarter leaves room for one slow turn


class Notifier:
    """The sd_notify protocol: one datagram a message to $NOTIFY_SOCKET. Without one, says nothing."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address else None
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """$NOTIFY_SOCKET and $WATCHDOG_USEC, the latter only where $WATCHDOG_PID is this process or absent."""
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.get("WATCHDOG_USEC", "") if ours else ""
        return cls(environment.get("NOTIFY_SOCKET"), int(period) / 1e6 if period.isdigit() and int(period) else None)

    def ready(self, status: str = "") -> None:
        self._send("READY=1", *([f"STATUS={status}"] if status else []))

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def reloading(self, now_ns: int) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_ns // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        # A supervisor that does not listen is no reason to stop working, and none to wait for. A socket a message:
        # there are a few a minute, and none to close at the end.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)


class Ring:
    """The last durations of one stage. Adding allocates nothing that stays."""

    def __init__(self) -> None:
        self._seconds = array("d", bytes(8 * RING))
        self._count = 0

    def add(self, seconds: float) -> None:
        self._seconds[self._count % RING] = seconds
        self._count += 1

    def timing(self) -> Timing:
        """p50 and p99 by nearest rank."""
        known = sorted(self._seconds[: min(self._count, RING)])
        return Timing(p50_s=_rank(known, 0.5), p99_s=_rank(known, 0.99))


def _rank(known: list[float], share: float) -> float:
    return known[max(0, math.ceil(share * len(known)) - 1)]


@dataclass(frozen=True)
class Patience:
    """How long the loop may be silent before it counts as hung."""

    usual_s: float
    slow_s: float  # while it reads a frame of a shape that no engine was built for

    def limit_s(self, *, slow: bool) -> float:
        return self.slow_s if slow else self.usual_s


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What snapshot() tells."""

    mode: Mode | None = None
    hold: str | None = None
    turns: int = 0
    loop_age_s: float | None = None  # since the last turn ended
    uptime_s: float | None = None  # since started()
    timings: dict[str, Timing] = {}


class Health:
    """Owned by the loop's thread, read by all."""

    def __init__(self, notifier: Notifier, clock: Clock, *, limit_s: float = math.inf) -> None:
        """limit_s: until `allow` says otherwise."""
        self._notifier, self._clock, self._limit_s = notifier, clock, limit_s
        self._rings: dict[str, Ring] = {}
        self._started_ns: int | None = None
        self._beat_ns: int | None = None
        self._pet_ns: int | None = None
        self._tick_at_pet: int | None = None
        self._turns = 0
        self._mode: Mode | None = None
        self._hold: str | None = None
        self._told = ""

    def started(self, text: str = "") -> None:
        """Models are loaded and the first status is out."""
        self._started_ns = self._clock.now_ns()
        self._notifier.ready(text)

    def beat(self, decision: Decision, receive_tick_ns: int) -> None:
        """A turn ended. `receive_tick_ns`: when the receive thread last went round; it does so without frames too."""
        self._beat_ns, self._mode = self._clock.now_ns(), decision.mode
        self._turns += 1
        for stage, seconds in decision.took_s.items():
            self._ring(stage).add(seconds)
        for hold in decision.holds:
            self._hold = hold.reason if hold.state == "begin" else None
        self._tell()
        self._pet(receive_tick_ns)

    def allow(self, limit_s: float) -> None:
        """How long the loop may be silent from now on: the frame it is about to read may be one for a slow backend."""
        self._limit_s = limit_s

    def limit_s(self) -> float:
        return self._limit_s

    def add(self, stage: str, seconds: float) -> None:
        """The duration of a stage that no decision tells, such as the journal's or the sender's."""
        self._ring(stage).add(seconds)

    def reloading(self) -> None:
        self._notifier.reloading(self._clock.now_ns())

    def reloaded(self) -> None:
        self._notifier.ready()

    def stopping(self) -> None:
        self._notifier.stopping()

    def snapshot(self) -> Vitals:
        now_ns = self._clock.now_ns()
        return Vitals(
            mode=self._mode,
            hold=self._hold,
            turns=self._turns,
            loop_age_s=_age_s(now_ns, self._beat_ns),
            uptime_s=_age_s(now_ns, self._started_ns),
            timings=self.timings(),
        )

    def timings(self) -> dict[str, Timing]:
        """p50 and p99 by stage. Sorts them: for who asks once a second, not once a turn."""
        return {stage: ring.timing() for stage, ring in list(self._rings.items())}

    def uptime_s(self) -> float | None:
        return _age_s(self._clock.now_ns(), self._started_ns)

    def _ring(self, stage: str) -> Ring:
        ring = self._rings.get(stage)
        if ring is None:
            ring = self._rings[stage] = Ring()
        return ring

    def _tell(self) -> None:
        text = f"{self._mode}" if self._hold is None else f"{self._mode}, hold: {self._hold}"
        if text != self._told and self._started_ns is not None:
            self._told = text
            self._notifier.status(text)

    def _pet(self, receive_tick_ns: int) -> None:
        if self._notifier.watchdog_s is None or self._beat_ns is None or receive_tick_ns == self._tick_at_pet:
            return
        period_ns = self._notifier.watchdog_s / PETS_PER_TIMEOUT * 1e9
        if self._pet_ns is None or self._beat_ns - self._pet_ns >= period_ns:
            self._pet_ns, self._tick_at_pet = self._beat_ns, receive_tick_ns
            self._notifier.watchdog()


def _age_s(now_ns: int, then_ns: int | None) -> float | None:
    return None if then_ns is None else (now_ns - then_ns) / 1e9


class MetricsPage:
    """Prometheus metrics at http://127.0.0.1:port/metrics, collected when somebody asks."""

    def __init__(self, port: int, vitals: Callable[[], Vitals], books: Callable[[], Books]) -> None:
        from prometheus_client import CollectorRegistry, start_http_server  # 40 ms that only a page is worth

        self._vitals, self._books = vitals, books
        registry = CollectorRegistry()
        registry.register(self)
        try:
            # Loopback only: the page has neither keys nor passwords.
            self._server, self._thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        except OSError as error:
            raise ConfigurationError(
                f"health.prometheus_port = {port}: {error.strerror}; choose a free one, or 0 for none"
            ) from error
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    def collect(self) -> "Iterator[Metric]":
        vitals, books = self._vitals(), self._books()
        yield from _of_books(books)
        yield from _of_vitals(vitals)


def _of_books(books: Books) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    frames = CounterMetricFamily("beamside_frames", "Frames by what became of them.", labels=["fate"])
    for fate in ("received", "processed", "superseded", "uninspected"):
        frames.add_metric([fate], getattr(books, fate))
    malformed = CounterMetricFamily("beamside_malformed", "Messages that could not be read.", labels=["reason"])
    for reason, count in books.malformed.items():
        malformed.add_metric([reason], count)
    yield frames
    yield malformed
    yield GaugeMetricFamily("beamside_frames_waiting", "Frames not yet looked at.", value=books.waiting)


def _of_vitals(vitals: Vitals) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield CounterMetricFamily("beamside_turns", "Turns of the loop.", value=vitals.turns)
    stages = GaugeMetricFamily("beamside_stage_seconds", "Duration by stage.", labels=["stage", "quantile"])
    for stage, timing in vitals.timings.items():
        stages.add_metric([stage, "0.5"], timing.p50_s)
        stages.add_metric([stage, "0.99"], timing.p99_s)
    yield stages
    yield _one_of("beamside_mode", "The mode that stands.", [mode.value for mode in Mode], vitals.mode)
    yield _one_of("beamside_hold", "The hold that stands.", [vitals.hold] if vitals.hold else [], vitals.hold)
    ages = {"beamside_loop_age_seconds": vitals.loop_age_s, "beamside_uptime_seconds": vitals.uptime_s}
    for name, age_s in ages.items():
        if age_s is not None:
            yield GaugeMetricFamily(name, "Seconds.", value=age_s)


def _one_of(name: str, text: str, choices: list[str], chosen: str | None) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=["name"])
    for choice in choices:
        family.add_metric([choice], 1.0 if choice == chosen else 0.0)
    return family
