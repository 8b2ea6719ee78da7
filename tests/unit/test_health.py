"""Timings, the words to systemd on a real socket, the metrics page."""

import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import ManualClock
from agent.errors import ConfigurationError
from agent.health import Health, MetricsPage, Notifier, Vitals
from agent.messages import Books, Decision, Hold, Mode, Timing

IDLE = Decision(now_ns=0, mode=Mode.SUGGEST)


class Supervisor:
    """Receives what systemd would."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.address = address

    def heard(self) -> list[str]:
        lines = []
        while True:
            try:
                lines += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    name = f"@beamside-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    listening = Supervisor(name)
    yield listening
    listening.close()


def health(supervisor: Supervisor, watchdog_s: float | None = 20.0) -> tuple[Health, ManualClock]:
    environment = {"NOTIFY_SOCKET": supervisor.address}
    if watchdog_s:
        environment |= {"WATCHDOG_USEC": str(int(watchdog_s * 1e6)), "WATCHDOG_PID": str(os.getpid())}
    clock = ManualClock()
    return Health(Notifier.from_environment(environment), clock), clock


def test_says_ready_only_when_started(supervisor: Supervisor) -> None:
    told, _ = health(supervisor)
    assert supervisor.heard() == []
    told.started("suggest, models loaded")
    assert supervisor.heard() == ["READY=1", "STATUS=suggest, models loaded"]


def test_pets_the_watchdog_on_progress_at_most_four_times_in_its_period(supervisor: Supervisor) -> None:
    told, clock = health(supervisor, watchdog_s=20.0)
    for turn in range(100):  # 20 s of turns without a frame: an idle producer is no fault
        clock.advance(0.2)
        told.beat(IDLE, receive_tick_ns=turn)
    assert supervisor.heard().count("WATCHDOG=1") == 4


def test_does_not_pet_while_the_loop_is_stuck(supervisor: Supervisor) -> None:
    told, clock = health(supervisor)
    told.beat(IDLE, receive_tick_ns=1)
    supervisor.heard()
    clock.advance(60)
    told.snapshot()
    assert "WATCHDOG=1" not in supervisor.heard()


def test_does_not_pet_while_the_receive_thread_is_dead(supervisor: Supervisor) -> None:
    told, clock = health(supervisor)
    told.beat(IDLE, receive_tick_ns=7)
    supervisor.heard()
    for _ in range(100):
        clock.advance(0.5)
        told.beat(IDLE, receive_tick_ns=7)
    assert "WATCHDOG=1" not in supervisor.heard()
    clock.advance(0.5)
    told.beat(IDLE, receive_tick_ns=8)
    assert "WATCHDOG=1" in supervisor.heard()


def test_says_mode_and_hold_once_for_each_change(supervisor: Supervisor) -> None:
    told, _ = health(supervisor, watchdog_s=None)
    told.started()
    supervisor.heard()
    held = Decision(now_ns=0, mode=Mode.SUGGEST, holds=(Hold(state="begin", reason="stale", since_ns=0),))
    freed = Decision(now_ns=0, mode=Mode.CONTROL, holds=(Hold(state="end", reason="stale", since_ns=0),))
    for decision in (IDLE, IDLE, held, IDLE, freed, Decision(now_ns=0, mode=Mode.CONTROL)):
        told.beat(decision, 1)
    assert supervisor.heard() == ["STATUS=suggest", "STATUS=suggest, hold: stale", "STATUS=control"]


def test_says_reloading_with_the_time_and_ready_afterwards_and_stopping_at_the_end(supervisor: Supervisor) -> None:
    told, clock = health(supervisor)
    told.reloading()
    told.reloaded()
    told.stopping()
    assert supervisor.heard() == ["RELOADING=1", f"MONOTONIC_USEC={clock.now_ns() // 1000}", "READY=1", "STOPPING=1"]


def test_is_silent_without_a_supervisor_and_survives_one_that_went_away(tmp_path: Path) -> None:
    Health(Notifier.from_environment({}), ManualClock()).started()
    gone = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    gone.ready()


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}],
)
def test_pets_no_watchdog_that_is_not_meant_for_it(environment: dict[str, str]) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "@x", **environment}).watchdog_s is None


def test_tells_p50_and_p99_of_the_last_turns_by_stage() -> None:
    told = Health(Notifier(None), ManualClock())
    for n in range(1000):  # more than the ring holds: the first are forgotten
        told.beat(Decision(now_ns=0, mode=Mode.SUGGEST, took_s={"decide": 9.0 if n < 400 else (n % 100 + 1) / 1e3}), n)
    told.add("journal", 0.25)
    timings = told.snapshot().timings
    assert timings["decide"].p50_s == pytest.approx(0.050, abs=0.003)
    assert timings["decide"].p99_s == pytest.approx(0.099, abs=0.002)
    assert timings["journal"] == Timing(p50_s=0.25, p99_s=0.25)


def test_tells_how_long_ago_the_last_turn_ended() -> None:
    clock = ManualClock()
    told = Health(Notifier(None), clock)
    assert told.snapshot().loop_age_s is None
    told.beat(IDLE, 1)
    clock.advance(3.5)
    assert told.snapshot().loop_age_s == pytest.approx(3.5)


def test_the_metrics_page_shows_the_books_the_timings_and_the_hold() -> None:
    vitals = Vitals(
        mode=Mode.CONTROL, hold="stale", turns=3, loop_age_s=0.1, timings={"step": Timing(p50_s=0.01, p99_s=0.02)}
    )
    page = MetricsPage(0, lambda: vitals, lambda: Books(received=5, processed=3, malformed={"shape": 2}))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        page.close()
    for line in (
        'beamside_frames_total{fate="received"} 5.0',
        'beamside_malformed_total{reason="shape"} 2.0',
        'beamside_stage_seconds{quantile="0.99",stage="step"} 0.02',
        'beamside_mode{name="control"} 1.0',
        'beamside_mode{name="observe"} 0.0',
        'beamside_hold{name="stale"} 1.0',
        "beamside_loop_age_seconds 0.1",
    ):
        assert line in text


def test_a_metrics_port_that_is_taken_is_a_configuration_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="prometheus_port"):
            MetricsPage(taken.getsockname()[1], Vitals, Books)
