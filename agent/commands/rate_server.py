"""The page's server: this machine only, one rater, one round. What the browser asks in, the round's answers out.

Nobody else may rate or look: it listens on 127.0.0.1, the address holds a random token, names of other hosts (a page
elsewhere that had its own name point here) and posts from other pages are refused.
"""

import hmac
import math
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socketserver import TCPServer
from typing import Any

import msgspec

from agent.commands.rate_fit import Result
from agent.commands.rate_frames import png
from agent.commands.rate_page import rating_page, result_page
from agent.commands.rate_round import Round
from agent.errors import BeamsideError, UsageError

HOST = "127.0.0.1"
MOST_BYTES = 4096  # of a post: a rating is 60
IDLE_S = 60.0  # a browser keeps its connections; a thread each is given back after this
ASSETS = {
    "rate.js": "text/javascript; charset=utf-8",
    "rate_result.js": "text/javascript; charset=utf-8",
    "rate.css": "text/css; charset=utf-8",
}
HTML, JSON, PNG = "text/html; charset=utf-8", "application/json", "image/png"
CLOSE = "close"  # what the page says last
ENDED = "The command has ended. All ratings are kept; start it again to go on."
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page posts: `score` and `seconds` for a rating, `item` for a rating or a skip."""

    item: int = 0
    score: float = math.nan
    seconds: float = math.nan


class Refused(Exception):
    """A request that is not answered as asked."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Desk:
    """Where the round is worked at; safe to be asked from several threads."""

    def __init__(self, rounds: Round, fit: Callable[[Callable[[int, int], None]], Result], *, out: str) -> None:
        """fit: writes the scale to `out`, tells how far it is; raises BeamsideError where there is no scale yet."""
        self._round, self._fit, self._out = rounds, fit, out
        self._lock, self._fitting = threading.Lock(), threading.Lock()
        self._read: tuple[int, int] | None = None
        self.result: Result | None = None
        self.over = threading.Event()

    def state(self) -> dict[str, Any]:
        with self._lock:
            return {**asdict(self._round.place()), "read": self._read}

    def result_page(self) -> str | None:
        """None before the first scale."""
        return None if self.result is None else result_page(self.result, self._out)

    def png(self, item: int) -> bytes:
        with self._lock:
            frame = self._round.frame(item)
        return png(frame)

    def rate(self, said: Said) -> None:
        with self._lock:
            self._round.rate(said.item, said.score, said.seconds)

    def skip(self, said: Said) -> None:
        with self._lock:
            self._round.skip(said.item)

    def undo(self, _: Said) -> None:
        with self._lock:
            self._round.undo()

    def finish(self, _: Said) -> None:
        if not self._fitting.acquire(blocking=False):
            raise UsageError("the scale is being fitted already")
        try:
            self.result = self._fit(self._progress)
        finally:
            self._read = None
            self._fitting.release()

    def close(self, _: Said) -> None:
        """Nothing is left to do: all ratings are on disk."""

    def answered(self, what: str) -> None:
        """An answer is out: only after that of `close` may the command end, and its threads with it."""
        if what == CLOSE:
            self.over.set()

    def _progress(self, done: int, of: int) -> None:
        self._read = (done, of)


class RateServer(ThreadingHTTPServer):
    """Serves from a thread of its own between `start` and `stop`."""

    daemon_threads = True

    def __init__(self, desk: Desk, port: int) -> None:
        """port: 0 for any free one. Raises UsageError where it is taken."""
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(f"--port {port}: {error.strerror}; give another one, or none for any free one") from error
        self.desk, self.token, self.stopped = desk, secrets.token_urlsafe(16), False
        port = self.server_address[1]
        self.hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        self.url = f"http://{HOST}:{port}/{self.token}/"

    def server_bind(self) -> None:
        """Without asking a name server who we are: on an instrument PC there may be none, and the wait is long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="rate", daemon=True).start()

    def stop(self) -> None:
        self.stopped = True  # a browser may still hold a connection
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away in the middle of an answer is no fault; anything else is told with its place."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "beamside"
    sys_version = ""
    timeout = IDLE_S
    server: RateServer

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """The terminal is for the operator."""

    def _answered(self, ask: Callable[[str], tuple[str, bytes]]) -> None:
        try:
            what = self._asked()
            kind, body = ask(what)
            self._send(HTTPStatus.OK, kind, body)
            self.server.desk.answered(what)
        except Refused as error:
            self._send(error.status, JSON, _told(str(error)))
        except BeamsideError as error:
            self._send(HTTPStatus.CONFLICT, JSON, _told(str(error)))

    def _asked(self) -> str:
        """What comes behind the token. Raises Refused."""
        if self.server.stopped:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, ENDED)
        if self.headers.get("Host") not in self.server.hosts:
            raise Refused(HTTPStatus.FORBIDDEN, "ask by the address that the command printed, with its port")
        _, token, what = (*self.path.split("?")[0].split("/", 2), "", "")[:3]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.NOT_FOUND, "nothing here: the address that the command printed has a token")
        return what

    def _get(self, what: str) -> tuple[str, bytes]:
        desk = self.server.desk
        if what == "":
            return HTML, rating_page().encode()
        if what == "state":
            return JSON, msgspec.json.encode(desk.state())
        if what == "result" and (page := desk.result_page()) is not None:
            return HTML, page.encode()
        if what in ASSETS:
            return ASSETS[what], resources.files("agent.commands").joinpath(what).read_bytes()
        number = what.removeprefix("frame/").removesuffix(".png")
        if what == f"frame/{number}.png" and number.isdecimal() and len(number) < 10:
            return PNG, desk.png(int(number))
        raise Refused(HTTPStatus.NOT_FOUND, "nothing here")

    def _post(self, what: str) -> tuple[str, bytes]:
        """A change, answered with the state after it."""
        said, desk = self._said(), self.server.desk
        does = {"rate": desk.rate, "skip": desk.skip, "undo": desk.undo, "finish": desk.finish, CLOSE: desk.close}
        if what not in does:
            raise Refused(HTTPStatus.NOT_FOUND, "nothing here")
        does[what](said)
        return JSON, msgspec.json.encode(desk.state())

    def _said(self) -> Said:
        """Another page can post here, but neither as JSON without being asked first, nor without its own origin."""
        origin = self.headers.get("Origin")
        ours = origin is None or origin.removeprefix("http://") in self.server.hosts
        if not ours or self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise Refused(HTTPStatus.FORBIDDEN, "only the page itself may post")
        if self.headers.get("Content-Type") != JSON:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: expected {JSON}")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length: expected at most {MOST_BYTES}")
        try:
            return msgspec.json.decode(self.rfile.read(int(length)), type=Said)
        except msgspec.MsgspecError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not what the page posts: {error}") from None

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        if status is not HTTPStatus.OK:
            self.close_connection = True  # what was refused may not have been read to its end
            self.send_header("Connection", "close")
        kept = {"Cache-Control": "private, max-age=600"} if kind == PNG else {}  # the page fetches the next one ahead
        for name, value in {**HEADERS, **kept, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _told(error: str) -> bytes:
    return msgspec.json.encode({"error": error})
