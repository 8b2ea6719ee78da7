"""Who may talk to the agent over TCP: the allow-list decides, and a missing half of the keys is no security."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
import zmq
from typer.testing import CliRunner

from agent.clock import ManualClock, SystemClock
from agent.commands.keys import keys
from agent.errors import BeamsideError, ConfigurationError, UsageError
from agent.messages import Mode, Optics, Snapshot, Status
from agent.receive import Receiver
from agent.requests import Requests
from agent.settings import Frames
from agent.wire import array1, curve
from tests.wire.streams import receive

ASK = b'{"id":"7","request":"status"}'


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def guard(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> Iterator[curve.Guard]:
    _, secret = curve.write_pair(tmp_path / "agent", "agent")
    for name in ("friend", "stranger"):
        curve.write_pair(tmp_path / name, name)
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "friend.key").write_text((tmp_path / "friend/friend.key").read_text())
    made = curve.guard(context, secret, allowed)
    assert made is not None
    yield made
    made.close()


def answered(port: int, agent: bytes | None, pair: curve.Pair | None, *, deadline_s: float = 5.0) -> bool:
    """Does the command socket talk to this client? From a context of its own, as another machine would."""
    with zmq.Context() as elsewhere, elsewhere.socket(zmq.DEALER) as client:
        client.setsockopt(zmq.LINGER, 0)
        if agent and pair:
            client.curve_serverkey, client.curve_publickey, client.curve_secretkey = agent, pair.public, pair.secret
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(ASK)
        told = receive(client, deadline_s)
        return told is not None and bool(json.loads(told[0])["ok"])


def test_only_the_allow_list_is_heard(
    guard: curve.Guard, context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path, free_port: int
) -> None:
    requests = Requests(
        f"tcp://127.0.0.1:{free_port}", context=context, clock=ManualClock(), events=lambda *_: [], guard=guard
    )
    requests.publish(Snapshot(status=Status(mode=Mode.SUGGEST), limits={}, now_ns=0))
    agent, friend, stranger = (
        curve.load_secret(tmp_path / name / f"{name}.key_secret") for name in ("agent", "friend", "stranger")
    )
    requests.start()
    try:
        assert answered(free_port, agent.public, friend)
        assert not answered(free_port, agent.public, stranger, deadline_s=0.7)
        assert not answered(free_port, None, None, deadline_s=0.7)
        assert not answered(free_port, stranger.public, friend, deadline_s=0.7)
        guard.close()  # nobody asks the allow-list any more: nobody gets in
        assert not answered(free_port, agent.public, friend, deadline_s=0.7)
    finally:
        requests.close()


@pytest.fixture
def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.REP) as probe:
        return probe.bind_to_random_port("tcp://127.0.0.1")


def test_frames_come_over_curve_from_the_producer_on_the_list(
    context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path, free_port: int
) -> None:
    _, secret = curve.write_pair(tmp_path / "own", "agent")
    public, producer_secret = curve.write_pair(tmp_path / "sem", "sem")
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / curve.PRODUCER).write_text(public.read_text())
    guard = curve.guard(context, secret, allowed)
    with zmq.Context() as elsewhere, elsewhere.socket(zmq.PUSH) as producer:
        producer.setsockopt(zmq.LINGER, 0)
        producer.curve_server, producer.curve_secretkey = True, curve.load_secret(producer_secret).secret
        producer.bind(f"tcp://127.0.0.1:{free_port}")
        receiver = Receiver(
            Frames(pattern="pull"),
            f"tcp://127.0.0.1:{free_port}",
            context=context,
            clock=SystemClock(),
            guard=guard,
        )
        receiver.start()
        producer.send_multipart(array1.encode(3, np.zeros((4, 6), np.uint8), Optics()))
        frame = receiver.next(5.0)
        receiver.close()
    assert guard is not None and frame is not None and frame.number == 3
    guard.close()


def test_half_of_the_keys_is_a_configuration_error(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> None:
    public, secret = curve.write_pair(tmp_path, "agent")
    assert curve.guard(context, None, None) is None
    for own, allowed in ((secret, None), (None, tmp_path), (public, tmp_path), (secret, tmp_path / "nowhere")):
        with pytest.raises(ConfigurationError):
            curve.guard(context, own, allowed)


def test_a_secret_open_to_everybody_is_refused(tmp_path: Path) -> None:
    _, secret = curve.write_pair(tmp_path, "agent")
    secret.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        curve.load_secret(secret)


def test_a_broken_file_in_the_allow_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"bad\.key"):
        curve.load_allowed(tmp_path)


def test_keys_writes_a_pair_that_only_its_owner_can_read(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(keys)
    told = json.loads(CliRunner().invoke(app, [str(tmp_path / "new"), "--name", "rig", "--json"]).stdout)
    secret = Path(told["secret"])
    assert secret.stat().st_mode & 0o777 == 0o600
    assert curve.load_secret(secret).public.decode() == told["public_key"]
    assert "secret-key" not in Path(told["public"]).read_text()
    with pytest.raises(BeamsideError, match="already"):
        keys(tmp_path / "new", "rig")
    with pytest.raises(UsageError):
        keys(tmp_path, "../rig")
