"""A whole agent and a test's own end of its three sockets. Waits have deadlines; time that must pass is skipped.

`Agent` runs the real parts on a thread of this process; `Process` is `beamside run` as systemd would start it. Both
check at the end what holds for every run: each message by the schema, `seq` without a gap, `hold begin shutdown` last.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import zmq
from numpy.typing import NDArray

from agent.clock import SystemClock
from agent.commands.run import assemble, serve
from agent.loop import Loop
from agent.messages import Optics
from agent.models import DefectModel, DepthModel, FocusModel
from agent.perceive import Perceiver
from agent.settings import load
from agent.wire import array1
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import acknowledgement, obey
from calibration.twin.readback import Applied

DEADLINE_S = 20.0  # for anything that should happen at once, on a machine that does other things too
ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "agent" / "wire" / "schema.json").read_text())
VALIDATORS = {topic: jsonschema.Draft202012Validator(schema) for topic, schema in SCHEMA["$defs"].items()}
MARK = np.kron([[40, 200], [200, 40]], np.ones((4, 4))).astype(np.uint8)  # the least that is no blank picture
SHAPE = (256, 256)  # large enough for evidence, small enough for many tests

Message = dict[str, Any]
Parts = Sequence[bytes | memoryview]
Test = Callable[[Message], bool]


class SkippingClock(SystemClock):
    """The machine's clock, and time that tests skip instead of sleeping through it."""

    def __init__(self) -> None:
        self.skipped_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.skipped_ns

    def skip(self, seconds: float) -> None:
        self.skipped_ns += round(seconds * 1e9)


class Wire:
    """A producer, a listener and a controller, written against the README's tables: zmq and JSON."""

    def __init__(self, folder: Path, *, produces: bool = True) -> None:
        self.ends = endpoints(folder)
        self.heard: list[Message] = []
        self.maps: list[tuple[Message, bytes]] = []  # under topic depth, with the third part
        self.mark = 0  # of `heard`: what a test has to do with begins here
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.linger = 0
        self.producer = self.produce() if produces else None
        self._advice = self._context.socket(zmq.SUB)
        self._advice.subscribe(b"")
        self._commands = self._context.socket(zmq.DEALER)
        self._ids, self._marks = itertools.count(1), itertools.count(10**9)

    def produce(self) -> "zmq.Socket[bytes]":
        """A producer's socket, bound. XPUB tells when the agent has subscribed."""
        producer = self._context.socket(zmq.XPUB)
        producer.sndhwm = 0  # a test's frames are never dropped here
        producer.bind(self.ends["frames"])
        return producer

    def meet(self) -> None:
        """Connect to an agent whose sockets are bound, and wait until it listens."""
        self._advice.connect(self.ends["advice"])
        self._commands.connect(self.ends["commands"])
        if self.producer is None:
            return
        assert self.producer.poll(DEADLINE_S * 1000), "the agent did not subscribe to frames"
        self.producer.recv()

    # --- frames ---

    def send(self, parts: Parts) -> None:
        assert self.producer is not None
        self.producer.send_multipart(list(parts))

    def frame(self, number: int, pixels: NDArray[Any], optics: Optics) -> None:
        self.send(array1.encode(number, pixels, optics))

    # --- advice ---

    def listen(self, timeout_s: float = 0.0) -> None:
        """Take in what has been said; with a timeout, wait for the first word."""
        wait_ms = round(timeout_s * 1000)
        while not self._context.closed and self._advice.poll(wait_ms):
            topic, body, *more = self._advice.recv_multipart()
            told = json.loads(body)
            assert told["topic"] == topic.decode() and len(more) == (told["topic"] == "depth")
            self.heard.append(told)
            self.maps += [(told, part) for part in more]
            wait_ms = 0

    def until(self, test: Test, *, since: int | None = None, deadline_s: float = DEADLINE_S) -> Message:
        """The first message from index `since` (or the mark) on that passes the test."""
        end = time.monotonic() + deadline_s
        while True:
            self.listen()
            for told in self.heard[self.mark if since is None else since :]:
                if test(told):
                    return told
            assert time.monotonic() < end, f"not heard; the last were {[brief(told) for told in self.heard[-12:]]}"
            self.listen(0.1)

    def told(self, topic: str, **fields: Any) -> list[Message]:
        """All that was heard since the mark under a topic and has these fields."""
        return [told for told in self.heard[self.mark :] if said(topic, **fields)(told)]

    def flush(self) -> None:
        """Until all that was decided before now is heard: a mark to be inspected goes through after it."""
        number, since = next(self._marks), len(self.heard)
        self.frame(number, MARK, Optics(source="test/mark", pixel_size_m=1e-8, inspect=True))
        self.until(said("focus", frame=number), since=since)

    # --- commands ---

    def ask(self, request: str, **fields: Any) -> Message:
        """One request and its reply."""
        self.last_id = number = str(next(self._ids))
        self._commands.send(json.dumps({"id": number, "request": request, **fields}).encode())
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if self._commands.poll(100):
                reply: Message = json.loads(self._commands.recv())
                if reply["id"] == number:
                    return reply
        raise AssertionError(f"no reply to {request}")

    def change_mode(self, mode: str, **lease: Any) -> None:
        reply = self.ask("mode", mode=mode, **lease)
        assert reply["ok"], reply
        self.flush()  # a frame makes the loop turn at once
        self.status_when(lambda status: status["mode"] == mode)

    def status(self) -> Message:
        reply = self.ask("status")
        assert reply["ok"], reply
        status: Message = reply["status"]
        return status

    def status_when(self, test: Test) -> Message:
        """The first status that passes the test."""
        end = time.monotonic() + DEADLINE_S
        while not test(status := self.status()):
            assert time.monotonic() < end, f"the status stays {status}"
            self.listen(0.02)
        return status

    def settled_books(self) -> Message:
        """The books once nothing waits."""
        books: Message = self.status_when(lambda status: status["frames"]["waiting"] == 0)["frames"]
        return books

    # --- the end ---

    def last_words(self) -> None:
        """Listen until the agent's boot is over."""
        self.until(lambda told: told["topic"] == "hold" and told is self.heard[-1] and told["reason"] == "shutdown")

    def check(self) -> None:
        """What holds for every run."""
        for told in self.heard:
            VALIDATORS[told["topic"]].validate(told)
        for boot in {told["boot"] for told in self.heard}:
            numbers = [told["seq"] for told in self.heard if told["boot"] == boot]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a gap in seq"

    def close(self) -> None:
        self._context.destroy(linger=0)


def said(topic: str, **fields: Any) -> Test:
    """A test for `until`: this topic, with these values."""
    return lambda told: told["topic"] == topic and all(told.get(name) == value for name, value in fields.items())


def brief(told: Message) -> str:
    names = ("frame", "code", "state", "reason", "phase", "kind", "detail")
    return told["topic"] + " " + " ".join(f"{told[name]}" for name in names if told.get(name) is not None)


class Hosted:
    """`assemble` and `serve` in a thread: the real parts and sockets of `beamside run`, on a clock that can skip."""

    def __init__(self, folder: Path, **settings: Message) -> None:
        self.clock = SkippingClock()
        ends = {name: {"endpoint": end, **settings.pop(name, {})} for name, end in endpoints(folder).items()}
        # A skip looks like a loop that stands still: the limit is beyond any.
        health = {"step_limit_s": 1e6, **settings.pop("health", {})}
        self.settings = load(None, {"state_dir": folder / "state", "health": health, **ends, **settings})
        self.error: Exception | None = None
        self._stack = ExitStack()
        self.loop: Loop = assemble(self.settings, self.clock, self._stack)
        self._thread = threading.Thread(target=self._serve, name="the agent under test")

    def serve(self) -> None:
        self._thread.start()

    def _serve(self) -> None:
        try:
            serve(self.loop)
        except Exception as error:  # noqa: BLE001 - a test looks at it
            self.error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def ended(self) -> Exception | None:
        """Wait for an end of its own accord; what it raised."""
        self._thread.join(DEADLINE_S)
        assert not self.alive, "the agent runs on"
        return self.error

    def shut(self) -> None:
        """As SIGTERM does it."""
        self.loop.stopping.set()
        self.ended()
        self._stack.close()


class Agent(Hosted):
    """With a test's own end of the sockets."""

    def __init__(self, folder: Path, **settings: Message) -> None:
        self.wire = Wire(folder)
        super().__init__(folder, **settings)

    def look_with(
        self, model: FocusModel | None, depth: DepthModel | None = None, defects: DefectModel | None = None
    ) -> None:
        """Other models in service, as a reload would put them there."""
        self.loop.perceiver = Perceiver(model, depth, defects)

    def start(self) -> "Agent":
        """Returns once the first status is heard."""
        self.wire.meet()
        self.wire.listen(0.02)  # the subscription is on its way
        self.serve()
        self.wire.until(said("status"))
        return self

    def stop(self) -> None:
        """An agent that had died before its time is an error here."""
        if self.alive:
            self.loop.stopping.set()
            self.wire.last_words()
        self.shut()
        self.wire.close()
        self.wire.check()


class Process:
    """`beamside run` as a process of its own, on the default endpoints of its runtime directory."""

    def __init__(self, folder: Path, *command: str, produces: bool = True, **environment: str) -> None:
        self.wire = Wire(folder, produces=produces)
        self.popen = subprocess.Popen(
            command or (sys.executable, "-m", "agent", "run"),
            env=clean_environment(folder, **environment), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start(self) -> "Process":
        self.wire.meet()
        self.wire.until(said("status"))
        return self

    def ended(self, timeout_s: float = DEADLINE_S) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.popen.communicate(timeout=timeout_s)
        return self.popen.returncode, out, err

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()
        self.wire.listen(0.05)
        self.wire.close()
        self.wire.check()


def endpoints(folder: Path) -> dict[str, str]:
    """As `beamside run` chooses them when `folder` is its runtime directory."""
    return {name: f"ipc://{folder}/{name}.ipc" for name in ("frames", "advice", "commands")}


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """State and sockets below `folder`, and none of the configuration of an agent that runs beside the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAMSIDE_")}
    return {
        **kept, "STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder), "PYTHONWARNINGS": "error",
        **more,
    }  # fmt: skip


# --- pictures and headers ---


class Stream:
    """A producer's frames: a textured specimen slightly out of focus, each with new noise and a good header."""

    def __init__(self, wire: Wire, session: str = "s1", **changes: Any) -> None:
        self.wire, self.number, self.optics = wire, 0, good_optics(session=session, **changes)
        self._rng = np.random.default_rng(5)
        self._still = _specimen()

    def picture(self) -> NDArray[np.uint8]:
        noisy = self._still + self._rng.normal(0.0, 12.0, self._still.shape)
        return np.clip(noisy, 1, 254).astype(np.uint8)

    def send(self, pixels: NDArray[Any] | None = None, *, number: int | None = None, **changes: Any) -> int:
        """The next frame, a second after the last; its number."""
        self.number = self.number + 1 if number is None else number
        changes.setdefault("t_start_ns", self.number * 1_000_000_000)
        optics = Optics(**{**_fields(self.optics), **changes})
        self.wire.frame(self.number, self.picture() if pixels is None else pixels, optics)
        return self.number

    def show(self, pixels: NDArray[Any] | None = None, *, number: int | None = None, **changes: Any) -> Message:
        """Send one frame and wait for the agent's word on it."""
        since = len(self.wire.heard)
        sent = self.send(pixels, number=number, **changes)
        return self.wire.until(said("focus", frame=sent), since=since)

    def raw(self, told: Message) -> None:
        """A header as written, NaN and all, before a good picture; the frame counts on."""
        self.number += 1
        ndattr = {**_fields(self.optics), "t_start_ns": self.number * 1_000_000_000, **told}
        header = {"htype": "array-1.0", "type": "uint8", "shape": list(SHAPE), "frame": self.number, "ndattr": ndattr}
        self.wire.send([json.dumps(header).encode(), self.picture().tobytes()])


def good_optics(**changes: Any) -> Optics:
    told: dict[str, Any] = {
        "session": "s1", "source": "electron/SE2", "optics_epoch": 1, "scene_epoch": 1, "averaging": "none",
        "complete": True, "working_distance_m": 5e-3, "stigmator_x": 0.0, "stigmator_y": 0.0, "pixel_size_m": 10e-9,
        "frame_time_s": 0.2, "accelerating_voltage_v": 5000.0, "full_scale": 255.0, "bits_significant": 8,
    }  # fmt: skip
    return Optics(**{**told, **changes})


def _fields(optics: Optics) -> Message:
    told = {name: getattr(optics, name) for name in optics.__struct_fields__}
    return {name: value for name, value in told.items() if value is not None}


@lru_cache(maxsize=1)
def _specimen() -> NDArray[np.float32]:
    scope = VirtualMicroscope(MicroscopeSettings(specimen="grains", shape=SHAPE, snr=50.0, start_defocus_m=2e-6))
    return np.asarray(scope.frame()[0], np.float32)


# --- a microscope that can be steered ---


class Rig:
    """A controller in slow motion: the virtual microscope, each frame and each acknowledgement sent by hand."""

    def __init__(self, agent: Agent, scope: VirtualMicroscope) -> None:
        self.agent, self.wire, self.scope, self.number = agent, agent.wire, scope, 0
        self.suggestion: Message | None = None  # made with the last frame

    def take_control(self, lease_s: float = 600.0) -> "Rig":
        self.wire.change_mode("control", lease_s=lease_s, controller="rig")
        return self

    def show(self, **changes: Any) -> Message:
        """The next frame once all has settled, and the agent's word on it."""
        self.scope.wait_until(self.scope.settled_ns)
        return self.publish(*self.scope.frame(), **changes)

    def publish(self, pixels: NDArray[Any], optics: Optics, **changes: Any) -> Message:
        since = len(self.wire.heard)
        self.number += 1
        self.wire.frame(self.number, pixels, Optics(**{**_fields(optics), **changes}))
        told = self.wire.until(said("focus", frame=self.number), since=since)
        self.wire.flush()
        found = [each for each in self.wire.heard[since:] if each["topic"] == "suggestion"]
        self.suggestion = found[-1] if found else None
        return told

    def suggested(self, frames: int = 6) -> Message:
        """Frames until the agent suggests something."""
        for _ in range(frames):
            self.show()
            if self.suggestion is not None:
                return self.suggestion
        raise AssertionError(f"nothing suggested; {[brief(told) for told in self.wire.heard[-12:]]}")

    def obey(self, suggestion: Message, **lies: Any) -> Message:
        """Apply and acknowledge, with these words in place of the true ones; None leaves a word out."""
        return self.acknowledge(suggestion, obey(self.scope, suggestion, age_s=0.0), **lies)

    def acknowledge(self, suggestion: Message, done: Applied, **lies: Any) -> Message:
        """The agent's reply to it."""
        told = {**acknowledgement(suggestion, done), **lies}
        return self.wire.ask("ack", **{name: value for name, value in told.items() if value is not None})

    def converge(self, frames: int = 12) -> Message:
        """Obey until the agent is content."""
        for _ in range(frames):
            told = self.show()
            if told["phase"] == "converged":
                return told
            if self.suggestion is not None:
                assert self.obey(self.suggestion)["ok"]
        raise AssertionError(f"still {told['phase']}; {[brief(told) for told in self.wire.heard[-12:]]}")

    @property
    def off_h(self) -> float:
        """The truth: how far out of focus, in half depths of focus."""
        return abs(self.scope.defocus_m) / self.scope.half_depth_of_focus_m


def scope_for(**settings: Any) -> VirtualMicroscope:
    """A small column with a textured specimen."""
    given = {"specimen": "grains", "shape": (384, 384), "snr": 3.0, "start_defocus_m": 4e-6, "seed": 3}
    return VirtualMicroscope(MicroscopeSettings(**{**given, **settings}))


def without(optics: Optics, *names: str) -> Optics:
    """The same header with these fields left out."""
    return Optics(**{name: value for name, value in _fields(optics).items() if name not in names})
