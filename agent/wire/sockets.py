"""How every socket is set up before it meets anybody: limits, heartbeats, and who counts as a stranger."""

import contextlib
import ipaddress
import socket as posix
from pathlib import Path

import zmq
from zmq.utils.monitor import parse_monitor_message

from agent.errors import ConfigurationError

# ms: interval, timeout. A frozen peer is found in 0.55 s on TCP; a loaded machine must not cause reconnects on ipc.
HEARTBEAT_MS = {"tcp": (200, 500), "ipc": (2000, 6000)}
HANDSHAKE_MS = 10_000  # CURVE on a busy PC takes seconds, a stranger that says nothing is dropped
RECONNECT_MS = (100, 1000)  # a producer that returns is heard within a second
LAST_PORT = 65535  # libzmq takes what is above modulo 65536, in silence
DIRECTORY_MODE = 0o750  # the group may reach the sockets, nobody else


def prepare(socket: "zmq.Socket[bytes]", endpoint: str, *, high_water_mark: int, linger_ms: int = 0) -> None:
    """Everything that libzmq wants to know before connect or bind. ZMQ_CONFLATE aborts on multipart: never set."""
    interval_ms, timeout_ms = HEARTBEAT_MS["ipc" if endpoint.startswith("ipc:") else "tcp"]
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.RCVHWM, high_water_mark)
    socket.setsockopt(zmq.SNDHWM, high_water_mark)
    socket.setsockopt(zmq.HEARTBEAT_IVL, interval_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, timeout_ms)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS[0])
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS[1])
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))


def attach(socket: "zmq.Socket[bytes]", endpoint: str, *, bind: bool) -> None:
    """Bind or connect. Raises ConfigurationError naming the endpoint."""
    if bind and endpoint.startswith("ipc:"):
        _claim(endpoint)
    port = endpoint.rpartition(":")[2]
    if endpoint.startswith("tcp:") and port.isdigit() and int(port) > LAST_PORT:
        raise ConfigurationError(f"endpoint {endpoint!r}: a port is at most {LAST_PORT}")
    try:
        (socket.bind if bind else socket.connect)(endpoint)
    except zmq.ZMQError as error:
        verb = "bind" if bind else "connect to"
        raise ConfigurationError(f"cannot {verb} {endpoint!r}: {error}; check the endpoint setting") from error


class Tie:
    """Brings a connecting socket back to its endpoint after what libzmq takes for a protocol error.

    libzmq reconnects after a lost connection, but never after a message above MAXMSGSIZE or a failed handshake: the
    socket would stay deaf. Belongs to the thread that owns the socket; call `mend` when nothing was received.
    """

    LOST = zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    RETRYING = zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED
    PATIENCE = 5  # idle calls without a retry by libzmq itself: half a second at the receive thread's tick

    def __init__(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        self._socket, self._endpoint = socket, endpoint
        self._events = socket.get_monitor_socket(self.LOST | self.RETRYING)
        self._idle: int | None = None  # calls since the connection was lost for good

    def mend(self) -> bool:
        """True when the connection had to be made anew."""
        while self._events.poll(0):
            event = parse_monitor_message(self._events.recv_multipart())["event"]
            self._idle = 0 if event & self.LOST else None
        if self._idle is None:
            return False
        self._idle += 1
        if self._idle <= self.PATIENCE:
            return False
        self._idle = None
        with contextlib.suppress(zmq.ZMQError):  # libzmq may have forgotten the endpoint already
            self._socket.disconnect(self._endpoint)
        self._socket.connect(self._endpoint)
        return True

    def close(self) -> None:
        self._socket.disable_monitor()
        self._events.close()


def beyond_loopback(endpoint: str) -> bool:
    """Can another machine reach this endpoint? A name that is not `localhost` counts as one that can."""
    scheme, _, address = endpoint.partition("://")
    if scheme in ("ipc", "inproc"):
        return False
    host = address.rsplit(":", 1)[0].rsplit(";", 1)[-1].strip("[]")
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host not in ("localhost", "lo")


def _claim(endpoint: str) -> None:
    # libzmq takes a socket file over without asking, and the first agent would go deaf in silence.
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot create {path.parent} for {endpoint!r}: {error.strerror}") from error
    if path.is_socket() and _answers(path):
        raise ConfigurationError(
            f"{endpoint!r} is in use: another beamside runs there; stop it or choose another endpoint"
        )


def _answers(path: Path) -> bool:
    with posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
