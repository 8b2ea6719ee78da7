"""The command socket: answers at once, passes on once, and nothing that arrives ends it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from agent.clock import ManualClock
from agent.errors import ConfigurationError, JournalError
from agent.messages import Ack, Books, Lease, Mode, ModeRequest, Outcome, Reload, Snapshot, Status
from agent.requests import MESSAGE_BYTES, QUEUE, REQUEST_BYTES, Requests
from tests.wire.streams import receive

Answer = dict[str, Any]


def no_events(since: int, limit: int) -> list[Answer]:
    return [{"event": since + 1, "limit": limit}]


def full_disk(since: int, limit: int) -> list[Answer]:
    raise JournalError("journal: the disk is full")


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def requests(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> Iterator[Requests]:
    books = lambda: Books(received=3, processed=3)  # noqa: E731
    made = Requests(endpoint(tmp_path), context=context, clock=ManualClock(), events=no_events, books=books)
    made.start()
    yield made
    made.close()


def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/run/commands.ipc"


@pytest.fixture
def asker(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> Iterator[Any]:
    made: list[zmq.Socket[bytes]] = []

    def make(kind: int = zmq.DEALER) -> "zmq.Socket[bytes]":
        made.append(context.socket(kind))
        made[-1].connect(endpoint(tmp_path))
        return made[-1]

    yield make
    for socket in made:
        socket.close(linger=0)


def ask(requests: Requests, request: str, **fields: Any) -> Answer:
    told: Answer = json.loads(requests.answer(json.dumps({"id": 1, "request": request, **fields}).encode()))
    return told


def snapshot(requests: Requests, **changes: Any) -> None:
    requests.publish(
        Snapshot(status=Status(**{"mode": Mode.SUGGEST, **changes}), limits={"step_limit_m": 6e-5}, now_ns=0)
    )


def test_a_dealer_and_a_req_are_answered_in_their_own_envelope(requests: Requests, asker: Any) -> None:
    snapshot(requests)
    question = b'{"id":"7","request":"status"}'
    dealer, req = asker(), asker(zmq.REQ)
    dealer.send(question)
    bare = receive(dealer)
    dealer.send_multipart([b"", question])
    framed = receive(dealer)
    req.send(question)
    answer = receive(req)
    assert bare and framed and answer and framed[0] == b"" and len(bare) == len(answer) == 1
    for each in (bare[0], framed[1], answer[0]):
        told = json.loads(each)
        assert told["id"] == "7" and told["ok"] is True and told["status"]["mode"] == "suggest"


def test_garbage_is_answered_and_the_next_request_too(requests: Requests, asker: Any) -> None:
    snapshot(requests)
    dealer = asker()
    garbage = [[b""], [b"\xff" * 100], [b"a", b"b", b"c", b"d"], [b"{" * REQUEST_BYTES], [b"", b"", b'{"id":[]}']]
    for parts in garbage:
        dealer.send_multipart(parts)
        told = receive(dealer)
        assert told is not None and told[:-1] == parts[:-1]
        assert json.loads(told[-1])["ok"] is False and json.loads(told[-1])["id"] is None
    dealer.send(os.urandom(2 * MESSAGE_BYTES))  # libzmq drops this asker
    other = asker()
    other.send(b'{"id":"8","request":"limits"}')
    told = receive(other)
    assert told is not None and json.loads(told[0])["limits"] == {"step_limit_m": 6e-5}


def test_an_acknowledgement_reaches_the_loop_once(requests: Requests) -> None:
    requests.issued("s1")
    assert ask(requests, "ack", suggestion="s1", outcome="applied", working_distance_m=5e-3) == {"id": 1, "ok": True}
    again = ask(requests, "ack", suggestion="s1", outcome="applied")
    assert again == {"id": 1, "ok": True, "duplicate": True}
    assert requests.drain() == [Ack(suggestion="s1", outcome=Outcome.APPLIED, working_distance_m=5e-3)]
    assert requests.drain() == []


def test_an_acknowledgement_of_nothing_is_refused(requests: Requests) -> None:
    assert ask(requests, "ack", suggestion="s9", outcome="applied")["error"]["code"] == "unknown_suggestion"
    assert requests.drain() == []


def test_control_is_lent_and_passed_on(requests: Requests) -> None:
    snapshot(requests)
    told = ask(requests, "mode", mode="control", lease_s=10, controller="rig")
    assert told == {"id": 1, "ok": True, "mode": "control", "lease_s": 10.0}
    assert ask(requests, "mode", mode="hold")["ok"] and ask(requests, "reload")["ok"]
    lease = ModeRequest(mode=Mode.CONTROL, lease_s=10.0, controller="rig")
    assert requests.drain() == [lease, ModeRequest(mode=Mode.HOLD), Reload()]


def test_a_second_controller_waits_for_the_first_ones_lease(requests: Requests) -> None:
    snapshot(requests, lease=Lease(controller="rig", expires_in_s=5.0))
    assert ask(requests, "mode", mode="control", lease_s=10, controller="other")["error"]["code"] == "lease_held"
    assert ask(requests, "mode", mode="control", lease_s=10, controller="rig")["ok"]
    assert ask(requests, "mode", mode="hold", controller="other")["ok"]


def test_status_has_fresh_books_and_the_age_of_the_loop(
    context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path
) -> None:
    clock = ManualClock(now_ns=0)
    requests = Requests(
        endpoint(tmp_path), context=context, clock=clock, events=no_events, books=lambda: Books(received=1, waiting=1)
    )
    assert ask(requests, "status")["error"]["code"] == "starting"
    snapshot(requests)
    clock.advance(2.5)
    told = ask(requests, "status")["status"]
    assert told["loop_age_s"] == 2.5 and told["frames"]["waiting"] == 1


def test_events_come_from_the_journal_and_its_failure_is_told(
    requests: Requests, context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path
) -> None:
    assert ask(requests, "events", since=4, limit=2)["events"] == [{"event": 5, "limit": 2}]
    broken = Requests(endpoint(tmp_path), context=context, clock=ManualClock(), events=full_disk)
    error = ask(broken, "events")["error"]
    assert error["code"] == "journal_unavailable" and "disk is full" in error["message"]


def test_a_flood_is_told_to_come_back(requests: Requests) -> None:
    answers = [ask(requests, "reload") for _ in range(QUEUE + 1)]
    assert [each["ok"] for each in answers] == [True] * QUEUE + [False]
    assert answers[-1]["error"]["code"] == "busy" and len(requests.drain()) == QUEUE


def test_a_second_agent_does_not_take_the_socket_over(
    requests: Requests, context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path
) -> None:
    second = Requests(endpoint(tmp_path), context=context, clock=ManualClock(), events=no_events)
    with pytest.raises(ConfigurationError, match="in use"):
        second.start()


def test_the_runtime_folder_is_made_for_the_group_only(requests: Requests, tmp_path: Path) -> None:
    assert (tmp_path / "run").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:5559", "tcp://*:5559", "tcp://192.0.2.1:5559", "tcp://sem-pc:5559"])
def test_a_bind_beyond_loopback_without_keys_is_a_configuration_error(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"keys\.secret") as caught:
        Requests(address, context=context, clock=ManualClock(), events=no_events).start()
    assert caught.value.exit_code == 78
