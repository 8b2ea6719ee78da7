"""Who may talk to the agent over TCP: CURVE keys, and a ZAP allow-list, without which CURVE authenticates nobody.

Key files are pyzmq's certificates: `NAME.key` (public) and `NAME.key_secret`.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from agent.errors import ConfigurationError
from agent.wire.sockets import beyond_loopback

DOMAIN = b"beamside"
PRODUCER = "frames.key"  # in the allow-list: the public key of the microscope whose frames we connect to


class Pair(NamedTuple):
    """A CURVE key pair, Z85."""

    public: bytes
    secret: bytes


class Guard:
    """Our key pair and the peers we let in. One a context: it answers libzmq's ZAP questions for all its sockets."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", secret: Path, allowed: Path) -> None:
        self._pair = load_secret(secret)
        self._peers = load_allowed(allowed)
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve(domain=DOMAIN.decode(), location=str(allowed.resolve()))

    def protect(self, socket: "zmq.Socket[bytes]", endpoint: str) -> None:
        """Before bind: on TCP only peers of the allow-list get in. Local sockets are the file system's business."""
        if not endpoint.startswith("tcp:"):
            return
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        # Without this libzmq lets everybody in while nobody answers its ZAP questions.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def introduce(self, socket: "zmq.Socket[bytes]", endpoint: str) -> bool:
        """Before connect: show our key to the frame producer, and accept only its own. False where it has none."""
        server = self._peers.get(PRODUCER)
        if server is None or not endpoint.startswith("tcp:"):
            return False
        socket.setsockopt(zmq.CURVE_SERVERKEY, server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        return True

    def close(self) -> None:
        self._authenticator.stop()


def guard(context: "zmq.Context[zmq.Socket[bytes]]", secret: Path | None, allowed: Path | None) -> Guard | None:
    """The guard that the key settings ask for, or None. Raises ConfigurationError when half of it is missing."""
    if secret is None and allowed is None:
        return None
    if secret is None or allowed is None:
        raise ConfigurationError(
            "keys.secret and keys.allowed go together: a key without an allow-list lets everybody in"
        )
    return Guard(context, secret, allowed)


def protect_bind(socket: "zmq.Socket[bytes]", endpoint: str, guard: Guard | None) -> None:
    """Before a bind of advice or commands. Raises ConfigurationError when strangers could come in."""
    if guard is not None:
        guard.protect(socket, endpoint)
    elif beyond_loopback(endpoint):
        raise ConfigurationError(
            f"{endpoint!r} can be reached from other machines: set keys.secret and keys.allowed (`beamside keys`), "
            "or bind 127.0.0.1"
        )


def load_secret(path: Path) -> Pair:
    """Read NAME.key_secret. Raises ConfigurationError when it is missing, unreadable or open to everybody."""
    try:
        mode = path.stat().st_mode
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"secret key {path}: {error}; make one with `beamside keys`") from error
    if secret is None:
        raise ConfigurationError(f"secret key {path}: it holds only the public half; name the .key_secret file")
    if mode & stat.S_IRWXO:
        raise ConfigurationError(f"secret key {path} is open to everybody (mode {mode & 0o777:o}): chmod 600 {path}")
    return Pair(public, secret)


def load_allowed(folder: Path) -> dict[str, bytes]:
    """Public keys by file name. Raises ConfigurationError on a missing folder or a file that is no key."""
    if not folder.is_dir():
        raise ConfigurationError(f"allow-list {folder}: no such folder; put the peers' .key files into one")
    peers = {}
    for path in sorted(folder.glob("*.key")):
        try:
            peers[path.name] = zmq.auth.load_certificate(path)[0]
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"allow-list {path}: {error}; replace or remove the file") from error
    return peers


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A new pair as NAME.key and NAME.key_secret (mode 0600 from its first byte). Raises FileExistsError."""
    public, secret = zmq.curve_keypair()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret_path, public_path = folder / f"{name}.key_secret", folder / f"{name}.key"
    _write(secret_path, 0o600, _certificate(public, secret))
    _write(public_path, 0o644, _certificate(public, None))
    return public_path, secret_path


def _write(path: Path, mode: int, text: str) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w") as file:
        file.write(text)


def _certificate(public: bytes, secret: bytes | None) -> str:
    kind = "public key: give it to peers" if secret is None else "SECRET key: never leaves this machine"
    lines = [f"#  beamside, {kind}", "metadata", "curve", f'    public-key = "{public.decode()}"']
    if secret is not None:
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join(lines) + "\n"
