"""`beamside replay`: image files or a recording in, array-1.0 frames out, as a microscope would publish them."""

import itertools
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import zmq

from agent.bridges.files import RECORDING, images_in, read_image
from agent.bridges.recording import Recording
from agent.clock import Clock, SystemClock
from agent.errors import BeamsideError, ImageError, UsageError
from agent.messages import Optics
from agent.settings import endpoints, load
from agent.wire import array1

DEFAULT_RATE_HZ = 1.0
HIGH_WATER_MARK = 16  # frames waiting for a slow subscriber; then sending waits, so that none is lost
LINGER_MS = 5000  # for the last frames to reach the subscriber

Parts = list[bytes | memoryview]


class Skipped(msgspec.Struct, frozen=True):
    """A file that was passed over, and why."""

    path: str
    error: str


class Played(msgspec.Struct, frozen=True):
    """What was sent: the command's JSON document."""

    published: int
    skipped: list[Skipped]
    endpoint: str
    session: str


def replay(
    path: Annotated[Path, typer.Argument(help="An image, a folder of images, or a recording (.b1s).")],
    frames: Annotated[str, typer.Option(help="Endpoint to bind; default as `beamside run` connects to.")] = "",
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=10000, help="Frames a second; default 1, recordings as recorded.")
    ] = None,
    inspect: Annotated[bool, typer.Option(help="Mark every frame: look at this very one, do not skip it.")] = False,
    loop: Annotated[bool, typer.Option(help="Begin again at the end, until interrupted or --count.")] = False,
    count: Annotated[int, typer.Option(min=0, help="Stop after so many frames; 0 = all of them.")] = 0,
    pattern: Annotated[str, typer.Option(help="pub or push.")] = "pub",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the first subscriber; 0 = for ever.")] = 0.0,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Publish images (TIFF with vendor metadata, PNG, JPEG, BMP) or a recording as a microscope would."""
    settings = load()
    player = Player(images_in(path), inspect=inspect, rate_hz=rate, clock=SystemClock())
    player.speak(settings.frames.dialect, settings.frames.topic)
    with Port(frames or endpoints(settings)[0], pattern) as port:
        print(f"replay: {port.endpoint}, waiting for a subscriber", file=sys.stderr)
        port.wait_for_peer(wait)
        published = _play(player, port, loop=loop, count=count)
    played = Played(published, player.skipped, port.endpoint, player.session)
    _tell(played, json_)
    if played.skipped:
        raise typer.Exit(1)


def _play(player: "Player", port: "Port", *, loop: bool, count: int) -> int:
    """Send each message when it is due; an interrupt is a normal end."""
    published = 0
    try:
        for parts in itertools.islice(player.messages(port, loop=loop), count or None):
            port.send(parts)
            published += 1
    except KeyboardInterrupt:
        pass
    return published


def _tell(played: Played, as_json: bool) -> None:
    if as_json:
        print(json.dumps(msgspec.to_builtins(played)))
    else:
        print(f"{played.published} frames published on {played.endpoint}, {len(played.skipped)} files skipped")


class Port:
    """The bound socket a microscope publishes on."""

    def __init__(self, endpoint: str, pattern: str) -> None:
        if pattern not in ("pub", "push"):
            raise UsageError(f"--pattern {pattern}: pub or push")
        self._pub = pattern == "pub"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB and not PUB: it tells when somebody subscribes, and waits for the slow instead of dropping.
        self._socket = self._context.socket(zmq.XPUB if self._pub else zmq.PUSH)
        self._socket.set_hwm(HIGH_WATER_MARK)
        if self._pub:
            self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self.endpoint = self._bind(endpoint)

    def _bind(self, endpoint: str) -> str:
        try:
            if endpoint.startswith("ipc:///"):
                Path(endpoint.removeprefix("ipc://")).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._socket.bind(endpoint)
        except (OSError, zmq.ZMQError) as error:  # the name of an ipc socket may be at most 107 bytes
            self._context.destroy(linger=0)
            raise BeamsideError(f"cannot bind {endpoint}: {error.strerror}; choose another with --frames") from error
        return self._socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")  # type: ignore[union-attr]

    def wait_for_peer(self, timeout_s: float) -> None:
        """Until the first subscription (or, for push, the first connection). Raises after timeout_s, if not 0."""
        if not self._socket.poll(round(timeout_s * 1000) or None, zmq.POLLIN if self._pub else zmq.POLLOUT):
            raise BeamsideError(f"nobody subscribed to {self.endpoint} within {timeout_s:g} s")

    def pause(self, seconds: float) -> None:
        """Sleep, and take note of subscriptions meanwhile so that they do not pile up."""
        clock = SystemClock()
        until_ns = clock.now_ns() + round(seconds * 1e9)
        while (left_ms := (until_ns - clock.now_ns()) // 1_000_000) > 0:
            if self._socket.poll(left_ms, zmq.POLLIN):
                self._socket.recv()

    def send(self, parts: Parts) -> None:
        self._socket.send_multipart(parts, copy=True)

    def __enter__(self) -> "Port":
        return self

    def __exit__(self, *raised: object) -> None:
        self._context.destroy(linger=LINGER_MS if raised[0] is None else 0)


class Player:
    """Files -> messages, each yielded when it is due."""

    def __init__(self, paths: list[Path], *, inspect: bool, rate_hz: float | None, clock: Clock) -> None:
        if inspect and any(path.suffix == RECORDING for path in paths):
            raise UsageError("--inspect: a recording is sent byte for byte, its frames cannot be marked")
        self.session = f"replay-{secrets.token_hex(4)}"
        self.skipped: list[Skipped] = []
        self._paths, self._inspect, self._rate_hz, self._clock = paths, inspect, rate_hz, clock
        self._dialect: array1.Dialect = "psi"
        self._topic = ""
        self._number = self._scene_epoch = self._optics_epoch = 0
        self._knobs: tuple[float | None, ...] | None = None
        self._last_ns: int | None = None  # when the last message was due

    def speak(self, dialect: array1.Dialect, topic: str) -> None:
        """How `beamside run` is set to listen."""
        self._dialect, self._topic = dialect, topic

    def messages(self, port: Port, *, loop: bool) -> Iterator[Parts]:
        """All messages of all files in order, over and over when asked to."""
        while True:
            before = self._number
            for path in self._paths:
                yield from self._recorded(path, port) if path.suffix == RECORDING else self._image(path, port)
            if not loop or self._number == before:  # a pass without one readable file would spin
                return

    def _image(self, path: Path, port: Port) -> Iterator[Parts]:
        try:
            pixels, optics = read_image(path)
        except ImageError as error:
            self._skip(path, error)
            return
        period_s = 1.0 / (self._rate_hz or DEFAULT_RATE_HZ)
        self._until_due(period_s, port)
        told = self._headed(optics, round(period_s * 1e9))
        yield array1.encode(self._number, pixels, told, dialect=self._dialect, topic=self._topic)

    def _recorded(self, path: Path, port: Port) -> Iterator[Parts]:
        recording, previous_ns = Recording(path), None
        try:
            for at_ns, parts in recording:
                gap_s = 1.0 / self._rate_hz if self._rate_hz else (at_ns - (previous_ns or at_ns)) / 1e9
                self._until_due(gap_s, port)
                self._number, previous_ns = self._number + 1, at_ns
                yield list(parts)
        except ImageError as error:
            self._skip(path, error)
        if recording.truncated:
            print(
                f"replay: {path}: the recording ends in the middle of a message; all before it was sent",
                file=sys.stderr,
            )

    def _skip(self, path: Path, error: ImageError) -> None:
        if str(path) not in {skipped.path for skipped in self.skipped}:
            print(f"replay: skipped {error}", file=sys.stderr)
            self.skipped.append(Skipped(str(path), str(error)))

    def _until_due(self, period_s: float, port: Port) -> None:
        now_ns = self._clock.now_ns()
        due_ns = now_ns if self._last_ns is None else max(now_ns, self._last_ns + round(period_s * 1e9))
        port.pause((due_ns - now_ns) / 1e9)
        self._last_ns = due_ns

    def _headed(self, optics: Optics, period_ns: int) -> Optics:
        """What a producer adds: session, epochs, times. Every file is a scene of its own."""
        knobs = (optics.working_distance_m, optics.stigmator_x, optics.stigmator_y)
        self._optics_epoch += knobs != self._knobs
        self._number, self._scene_epoch, self._knobs = self._number + 1, self._scene_epoch + 1, knobs
        end_ns = self._last_ns or 0
        return msgspec.structs.replace(
            optics,
            session=self.session,
            optics_epoch=self._optics_epoch,
            scene_epoch=self._scene_epoch,
            t_start_ns=max(0, end_ns - period_ns),
            t_end_ns=end_ns,
            complete=True,
            inspect=self._inspect or None,
        )
