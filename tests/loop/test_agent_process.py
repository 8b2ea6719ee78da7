"""`beamside run` as systemd and a stranger's client see it: sockets, signals, exit codes, one clear line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.__main__ import main
from agent.journal import FILE, read
from engines.load import MODELS
from tests.loop.harness import DEADLINE_S, ROOT, Agent, Process, Stream, clean_environment, said
from tests.loop.test_agent_bad_input import MALFORMED, Slow

SHAPE = (768, 1024)
FRAMES, RATE_HZ = 80, 20
EXIT_S = 2.0  # from SIGTERM


# --- the client that was written from the README alone ---


def test_every_frame_of_a_stream_with_faults_in_it_is_accounted_for(
    launch: Callable[..., Process], folder: Path
) -> None:
    process = launch(sys.executable, "-m", "agent", "run", "--json").start()
    wire = process.wire
    stream = Stream(wire, session="stranger")
    rng = np.random.default_rng(2)
    picture = np.kron(rng.integers(60, 200, (48, 64)), np.ones((16, 16))).astype(np.uint8)
    junk = [parts for parts, _ in MALFORMED.values()]
    inspected, sent = [], 0
    begun = time.monotonic()
    for n in range(FRAMES):
        noisy = picture + rng.integers(0, 40, SHAPE, dtype=np.uint8)
        inspect = n % 5 == 2
        number = stream.send(noisy, inspect=inspect)
        inspected += [number] if inspect else []
        sent += 1
        if n % 4 == 1:
            wire.send(junk[n % len(junk)])
            sent += 1
        while (left := begun + n / RATE_HZ - time.monotonic()) > 0:
            wire.listen(left)
    books = wire.settled_books()
    assert books["received"] == sent
    assert sum(books["malformed"].values()) == FRAMES // 4
    assert books["received"] == books["processed"] + books["superseded"] + books["uninspected"] + FRAMES // 4
    for number in inspected:
        wire.until(said("focus", frame=number))
        wire.until(said("defects", frame=number, lane="inspect"))

    asked = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    process.popen.wait(EXIT_S)
    assert process.popen.returncode == 0 and time.monotonic() - asked < EXIT_S
    wire.last_words()
    last = wire.heard[-1]
    assert (last["topic"], last["state"], last["reason"]) == ("hold", "begin", "shutdown")
    out, err = process.popen.communicate()
    assert json.loads(out) == {"sent": last["seq"], "frames": books}
    assert "Traceback" not in err

    rows = read(folder / "state" / FILE, since=0)
    assert [row["event"] for row in rows] == list(range(1, len(rows) + 1))
    assert (rows[-1]["topic"], rows[-1]["body"]["reason"], rows[-1]["event"]) == ("hold", "shutdown", last["event"])
    numbered = {told["event"] for told in wire.heard if told.get("event") is not None}
    assert numbered <= {row["event"] for row in rows}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_at_once_and_in_order(launch: Callable[..., Process], number: signal.Signals) -> None:
    process = launch().start()
    process.popen.send_signal(number)
    assert process.ended(EXIT_S)[0] == 0
    process.wire.last_words()


def test_the_numbers_of_the_journal_go_on_over_restarts_and_a_killed_agent(
    launch: Callable[..., Process], folder: Path
) -> None:
    first = launch().start()
    Stream(first.wire).show(pixel_size_m=None)
    first.popen.kill()
    first.ended()
    first.close()
    second = launch().start()
    told = second.wire.ask("events", since=0, limit=100)["events"]
    assert {row["boot"] for row in told} == {first.wire.heard[-1]["boot"]}
    Stream(second.wire).show(pixel_size_m=None)
    flag = second.wire.until(said("flag", code="no_pixel_size"))
    assert flag["event"] == told[-1]["event"] + 1


# --- what systemd hears ---


class Supervisor:
    """$NOTIFY_SOCKET, with the time at which each datagram was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.heard: list[str] = []

    def listen(self, timeout_s: float = 0.001) -> list[str]:
        self._socket.settimeout(timeout_s)
        try:
            while True:
                self.heard += self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return self.heard

    def until(self, line: str, deadline_s: float = 20.0) -> None:
        end = time.monotonic() + deadline_s
        while line not in self.listen(0.02):
            assert time.monotonic() < end, f"no {line}: {self.heard}"

    def count(self, line: str) -> int:
        return self.listen().count(line)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    listening = Supervisor(folder / "notify")
    for name, value in _watched(listening).items():
        monkeypatch.setenv(name, value)
    yield listening
    listening.close()


def _watched(supervisor: Supervisor, watchdog_s: float = 20.0) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(supervisor.path), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}


def test_ready_is_said_once_the_first_status_is_out(folder: Path, supervisor: Supervisor) -> None:
    agent = Agent(folder)
    agent.wire.meet()
    agent.wire.listen(0.05)
    assert supervisor.listen(0.05) == []  # models are loaded and sockets bound, but nobody has said how it is
    agent.serve()
    supervisor.until("READY=1")
    first = agent.wire.until(lambda _: True)
    assert (first["topic"], first["seq"]) == ("status", 1)
    assert first["t_sent_ns"] <= time.time_ns()
    agent.stop()
    assert supervisor.listen()[-1] == "STOPPING=1"
    assert [line for line in supervisor.heard if line in ("READY=1", "STOPPING=1")] == ["READY=1", "STOPPING=1"]


def test_the_watchdog_is_petted_on_progress_with_frames_and_without(folder: Path, supervisor: Supervisor) -> None:
    agent = Agent(folder, frames={"stale_after_s": 1000.0}).start()
    stream = Stream(agent.wire)
    supervisor.until("WATCHDOG=1")
    for petted in range(2, 5):
        agent.clock.skip(6.0)  # more than a quarter of its period
        if petted % 2:
            stream.show()
        while supervisor.count("WATCHDOG=1") < petted:
            assert agent.wire.status()["loop_age_s"] < 10.0
    agent.stop()


def test_the_watchdog_is_not_petted_while_the_loop_is_stuck(folder: Path, supervisor: Supervisor) -> None:
    agent = Agent(folder).start()
    slow = Slow()
    agent.look_with(slow)
    stream = Stream(agent.wire)
    stream.send()
    assert slow.looking.wait(20.0)
    before = supervisor.count("WATCHDOG=1")
    heard = len(agent.wire.heard)
    for _ in range(3):  # the other threads live: heartbeats go out, requests are answered
        agent.clock.skip(10.0)
        agent.wire.until(said("status"), since=heard)
        heard = len(agent.wire.heard)
    assert agent.wire.status()["loop_age_s"] > 25.0
    assert supervisor.count("WATCHDOG=1") == before
    slow.go_on.set()
    supervisor.until("WATCHDOG=1")
    agent.stop()
    assert supervisor.count("WATCHDOG=1") > before


def test_a_process_says_ready_reloading_and_stopping(launch: Callable[..., Process], supervisor: Supervisor) -> None:
    process = launch(**_watched(supervisor, 2.0)).start()
    supervisor.until("READY=1")
    supervisor.until("WATCHDOG=1")
    supervisor.heard.clear()
    process.popen.send_signal(signal.SIGHUP)
    supervisor.until("RELOADING=1")
    supervisor.until("READY=1")
    process.popen.send_signal(signal.SIGTERM)
    assert process.ended()[0] == 0
    assert supervisor.listen()[-1] == "STOPPING=1"


def test_a_process_whose_loop_hangs_says_so_and_ends(launch: Callable[..., Process], supervisor: Supervisor) -> None:
    process = launch(
        sys.executable, "-m", "tests.loop.stuck", BEAMSIDE_HEALTH__STEP_LIMIT_S="1.0", **_watched(supervisor, 0.4)
    ).start()
    stream = Stream(process.wire)
    for _ in range(2):
        stream.show()
    stream.send()
    process.wire.until(said("hold", state="begin", reason="engine_hang"))
    petted = supervisor.count("WATCHDOG=1")
    assert petted > 0
    assert process.ended()[0] == 70
    assert process.wire.heard[-1]["reason"] == "engine_hang"
    assert supervisor.count("WATCHDOG=1") == petted and "STOPPING=1" not in supervisor.heard


# --- what cannot work as written: exit 78, on which systemd does not restart, and one line ---


Refused = Callable[..., str]


@pytest.fixture
def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line with which `beamside run` declines to start."""

    def run(*options: str, **environment: str) -> str:
        monkeypatch.setenv("STATE_DIRECTORY", str(folder / "state"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["beamside", "run", *options])
        started = threading.Timer(DEADLINE_S, os.kill, (os.getpid(), signal.SIGTERM))
        started.start()  # against an agent that runs after all
        with pytest.raises(SystemExit) as ended:
            main()
        started.cancel()
        told = capsys.readouterr()
        assert ended.value.code == 78 and told.out == ""
        assert told.err.startswith("beamside: ") and told.err.count("\n") == 1
        return told.err

    return run


def test_a_missing_configuration_file(refused: Refused) -> None:
    assert "nowhere.toml: No such file" in refused("--config", "nowhere.toml")


TOML = {
    "no TOML": ("frames = [", "beamside.toml"),
    "an unknown setting": ("[frames]\npatern = 'sub'", "frames.patern = 'sub'"),
    "an unknown section": ("[frame]\npattern = 'sub'", "frame"),
    "a value out of range": ("[frames]\nhigh_water_mark = 3", "frames.high_water_mark = 3"),
    "control as a default": ("[focus]\nmode = 'control'", "focus.mode = 'control'"),
}


@pytest.mark.parametrize("name", TOML)
def test_a_configuration_that_cannot_work_is_named(refused: Refused, folder: Path, name: str) -> None:
    text, words = TOML[name]
    (folder / "beamside.toml").write_text(text)
    assert words in refused("--config", str(folder / "beamside.toml"))


def test_an_unknown_variable_of_the_environment(refused: Refused) -> None:
    assert "BEAMSIDE_FRAMES__ENDPIONT" in refused(BEAMSIDE_FRAMES__ENDPIONT="ipc:///tmp/x")


def test_a_bad_value_in_the_environment(refused: Refused) -> None:
    assert "dose_frames = 'many'" in refused(BEAMSIDE_FOCUS__DOSE_FRAMES="many")


def test_a_missing_certificate(refused: Refused, folder: Path) -> None:
    assert "gone.json: No such file" in refused("--certificate", str(folder / "gone.json"))


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"alpha_rad": NaN}'])
def test_a_certificate_that_is_none(refused: Refused, folder: Path, text: str) -> None:
    (folder / "c.json").write_text(text)
    assert "c.json" in refused("--certificate", str(folder / "c.json"))


@pytest.mark.parametrize("task", ["autofocus", "depth", "defects"])
@pytest.mark.parametrize("what", ["missing", "cut", "without its manifest"])
def test_a_model_package_that_cannot_serve(refused: Refused, folder: Path, task: str, what: str) -> None:
    models = folder / "models"
    shutil.copytree(MODELS, models)
    if what == "missing":
        shutil.rmtree(models / task)
    elif what == "cut":
        (models / task / "model.onnx").write_bytes((models / task / "model.onnx").read_bytes()[:-9])
    else:
        (models / task / "manifest.json").unlink()
    assert f"{models / task}" in refused(BEAMSIDE_ENGINES__MODELS=str(models))


@pytest.mark.parametrize("name", ["advice", "commands"])
def test_a_bind_beyond_loopback_without_keys(refused: Refused, name: str) -> None:
    assert "keys" in refused(f"--{name}", "tcp://0.0.0.0:45601")


def test_frames_from_another_host_without_keys(refused: Refused) -> None:
    assert "allow_plain_tcp" in refused("--frames", "tcp://192.0.2.1:5557")


@pytest.mark.parametrize("end", ["tcp://nowhere", "carrier-pigeon://x", "tcp://127.0.0.1:99999"])
def test_an_endpoint_that_is_none(refused: Refused, end: str) -> None:
    assert end in refused("--advice", end)


def test_a_second_agent_on_the_same_sockets_and_the_first_goes_on(launch: Callable[..., Process], folder: Path) -> None:
    first = launch().start()
    second = subprocess.run(
        [sys.executable, "-m", "agent", "run"], env=clean_environment(folder),
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert second.returncode == 78
    assert second.stderr.splitlines()[-1].startswith("beamside: ") and "in use" in second.stderr
    assert Stream(first.wire).show()["score"] is not None


# --- what is loaded ---


def test_run_loads_nothing_of_the_extras_even_where_they_are_installed(launch: Callable[..., Process]) -> None:
    script = (
        "import atexit, sys; from agent.__main__ import main; sys.argv[0] = 'beamside'; "
        "atexit.register(lambda: print(sorted({name.split('.')[0] for name in sys.modules}))); main()"
    )
    process = launch(sys.executable, "-c", script, "run").start()
    Stream(process.wire).show()
    process.popen.terminate()
    code, out, _ = process.ended()
    loaded = set(json.loads(out.replace("'", '"')))
    assert code == 0 and "onnxruntime" in loaded
    assert not loaded & {"torch", "scipy", "sklearn", "skimage", "matplotlib", "onnx", "mahotas", "prometheus_client"}
