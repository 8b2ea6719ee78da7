"""The page's server over real sockets: who may ask, what is answered, and that ratings are kept as they come."""

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.commands import rate_table
from agent.commands.rate_fit import Rated, Result
from agent.commands.rate_frames import gathered
from agent.commands.rate_round import Book, Round, showings
from agent.commands.rate_server import Desk, RateServer
from agent.errors import BeamsideError, UsageError
from tests.unit.test_rate_frames import quiet, through_focus
from tests.unit.test_rate_scale import scale

DEADLINE_S = 20.0


@dataclass
class Page:
    """What a browser would do, with nothing added that was not asked for."""

    server: RateServer
    table: Path

    def ask(self, method: str, what: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        host, port = self.server.server_address[:2]
        connection = HTTPConnection(str(host), int(port), timeout=DEADLINE_S)
        try:
            path = what if what.startswith("/") else f"/{self.server.token}/{what}"
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            sent = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, path, data, {**sent, **{k.replace("_", "-"): v for k, v in headers.items()}})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, what: str, body: object = None, **headers: str) -> tuple[int, dict[str, object]]:
        status, data = self.ask("POST", what, {} if body is None else body, **headers)
        return status, json.loads(data)


def fit(progress: object) -> Result:
    """As if ten had been rated."""
    return Result(scale(), (Rated("a.png", 4.0, (("Ada", 2.0),)),), ())


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    through_focus(tmp_path / "frames", 4)
    book = Book(tmp_path / "r.csv", "Ada")
    shown = showings(gathered([tmp_path / "frames"], quiet).candidates, "Ada", seed=1, repeat_share=0.0)
    server = RateServer(Desk(Round(shown, book), fit, out="/there/s.json"), 0)
    server.start()
    yield Page(server, book.table)
    server.stop()


def test_the_page_its_script_and_style_are_served_and_bar_everything_else(page: Page) -> None:
    for what, holds in (("", b"rate.js"), ("rate.js", b"keydown"), ("rate.css", b"--amber"), ("rate_result.js", b"on")):
        status, body = page.ask("GET", what)
        assert status == 200 and holds in body
    for what in ("../rate.py", "looking.py", "frame/0.png", "frame/5.png", "frame/x.png", "result", "rate"):
        assert page.ask("GET", what)[0] in (404, 409)


def test_the_page_says_nothing_of_file_names_and_scores(page: Page) -> None:
    told = page.ask("GET", "")[1] + page.ask("GET", "state")[1]
    assert b".png" not in told and b"frames" not in told
    assert json.loads(page.ask("GET", "state")[1])["item"] == 1


def test_a_frame_comes_pixel_for_pixel(page: Page) -> None:
    status, body = page.ask("GET", "frame/1.png")
    assert status == 200
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED).shape == (160, 160)


def test_a_rating_is_on_the_disk_when_it_is_answered(page: Page) -> None:
    status, state = page.post("rate", {"item": 1, "score": 7.5, "seconds": 1.5})
    assert (status, state["item"], state["done"]) == (200, 2, 1)
    (kept,) = rate_table.read(page.table)
    assert (kept.score, kept.rater, kept.seconds, kept.order) == (7.5, "Ada", 1.5, 1)
    assert page.post("undo")[1]["before"] == 7.5
    assert rate_table.read(page.table) == []
    assert page.post("skip", {"item": 1})[1]["skipped"] == 1


@pytest.mark.parametrize("path", ["/", "/state", "/x/state", "/rate", "//state"])
def test_without_the_token_there_is_nothing(page: Page, path: str) -> None:
    assert page.ask("GET", path)[0] == 404
    assert page.ask("POST", path, {})[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_host_name_is_refused(page: Page, host: str) -> None:
    assert page.ask("GET", "state", Host=host)[0] == 403
    assert page.ask("POST", "undo", {}, Host=host)[0] == 403


def test_the_machines_own_name_for_itself_is_not(page: Page) -> None:
    host = f"localhost:{page.server.server_address[1]}"
    assert page.ask("GET", "state", Host=host)[0] == 200
    assert page.post("skip", {"item": 1}, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_post_from_another_page_is_refused_and_nothing_kept(page: Page, headers: dict[str, str], status: int) -> None:
    assert page.post("rate", {"item": 1, "score": 3, "seconds": 1}, **headers)[0] == status
    assert not page.table.exists()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "not what the page posts"),
        ({"item": 1, "score": "high", "seconds": 1}, 400, "score"),
        ({"item": 1, "score": 3, "seconds": 1, "extra": 1}, 400, "extra"),
        (b" " * 5000, 413, "at most 4096"),
        ({"item": 1, "score": 10.5, "seconds": 1}, 409, "expected 0 to 10"),
        ({"item": 1, "seconds": 1}, 409, "expected 0 to 10"),
        ({"item": 2, "score": 3, "seconds": 1}, 409, "not the one to rate now"),
        ({"item": 1, "score": 3, "seconds": -1}, 409, "seconds -1"),
    ],
)
def test_a_bad_rating_is_told_and_not_kept(page: Page, body: object, status: int, says: str) -> None:
    got, told = page.post("rate", body)
    assert got == status and says in str(told["error"])
    assert not page.table.exists()


def test_it_listens_on_this_machine_only(page: Page) -> None:
    assert page.server.socket.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_a_usage_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: Address already in use"):
            RateServer(Desk.__new__(Desk), port)


def test_finish_shows_the_result_and_close_ends(page: Page) -> None:
    assert page.ask("GET", "result")[0] == 404
    assert page.post("finish")[0] == 200
    shown = page.ask("GET", "result")[1].decode()
    for part in ("The score scale of Ada", "/there/s.json", "<svg", "±2.0", "±1.0", "±0.5", "score_scale ="):
        assert part in shown
    assert not page.server.desk.over.is_set()
    assert page.post("close")[0] == 200
    assert page.server.desk.over.wait(10.0)  # once the answer is out


def test_no_scale_yet_is_told_and_rating_goes_on(page: Page) -> None:
    def refuse(progress: object) -> Result:
        raise BeamsideError("no scale: 1 distinct frames are rated")

    page.server.desk._fit = refuse
    assert page.post("finish") == (409, {"error": "no scale: 1 distinct frames are rated"})
    assert page.post("skip", {"item": 1})[0] == 200


def test_markup_in_a_name_is_words() -> None:
    from agent.commands.rate_page import result_page
    from engines.score_scale import Rater

    rater = Rater(name="<b>&", frames=20, repeats=0, repeat_sigma=None)
    shown = result_page(Result(scale(raters=(rater,)), (), ()), "/a/'<i>.json")
    assert "<b>&" not in shown and "<i>" not in shown
    assert "not known" in shown
