"""The receive thread: lanes, books, complaints, and that nothing which arrives ends it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from agent.clock import ManualClock, SystemClock
from agent.errors import ConfigurationError
from agent.messages import Flag, Frame, Lane, Optics
from agent.receive import OVERHEAD_BYTES, SOURCES, Complaints, Lanes, Receiver
from agent.settings import MIB, Frames
from agent.wire.array1 import encode
from tests.wire.streams import eventually, header, message

PIXELS = np.zeros((4, 6), np.uint8)


def frame(number: int, source: str = "SE", *, inspect: bool = False) -> Frame:
    lane = Lane.INSPECT if inspect else Lane.LIVE
    return Frame(number=number, pixels=PIXELS, optics=Optics(source=source), lane=lane, received_ns=0)


def number(taken: Frame | None) -> int | None:
    return None if taken is None else taken.number


# --- the lanes, without a thread ---


def test_a_newer_live_frame_supersedes_the_waiting_one() -> None:
    lanes = Lanes(MIB)
    for each in (1, 2, 3):
        lanes.offer(frame(each))
    assert number(lanes.next(0)) == 3
    books = lanes.books()
    assert (books.received, books.superseded, books.waiting) == (3, 2, 1) and books.balanced()


def test_the_frame_in_hand_waits_until_the_next_is_asked_for() -> None:
    lanes = Lanes(MIB)
    lanes.offer(frame(1))
    lanes.next(0)
    assert (lanes.books().processed, lanes.books().waiting) == (0, 1)
    assert lanes.next(0) is None
    assert (lanes.books().processed, lanes.books().waiting) == (1, 0)


def test_sources_are_served_in_turn_however_fast_one_is() -> None:
    lanes = Lanes(MIB)
    lanes.offer(frame(1, "fast"))
    lanes.offer(frame(2, "slow"))
    lanes.offer(frame(3, "fast"))
    assert number(lanes.next(0)) == 3
    lanes.offer(frame(4, "fast"))
    assert number(lanes.next(0)) == 2
    assert number(lanes.next(0)) == 4


def test_invented_sources_do_not_fill_the_memory() -> None:
    lanes = Lanes(MIB)
    for each in range(1000):
        lanes.offer(frame(each, f"source {each}"))
    assert lanes.books().waiting == SOURCES and lanes.books().balanced()


def test_the_lanes_alternate_while_both_hold_frames() -> None:
    lanes = Lanes(MIB)
    for each in (1, 2, 3):
        lanes.offer(frame(each, inspect=True))
    taken = []
    for each in (11, 12, 13):
        lanes.offer(frame(each))
        taken += [number(lanes.next(0)), number(lanes.next(0))]
    assert taken == [1, 11, 2, 12, 3, 13]


def test_inspected_frames_are_all_served_in_order() -> None:
    lanes = Lanes(MIB)
    for each in range(50):
        lanes.offer(frame(each, inspect=True))
    assert [number(lanes.next(0)) for _ in range(50)] == list(range(50))


def test_the_new_frame_is_refused_when_the_inspection_queue_is_full() -> None:
    lanes = Lanes(2 * (PIXELS.nbytes + OVERHEAD_BYTES))
    assert [lanes.offer(frame(each, inspect=True)) for each in (1, 2, 3)] == [True, True, False]
    assert number(lanes.next(0)) == 1
    assert lanes.offer(frame(4, inspect=True))
    assert [number(lanes.next(0)), number(lanes.next(0))] == [2, 4]
    assert lanes.books().uninspected == 1 and lanes.books().balanced()


def test_a_waiting_next_wakes_when_a_frame_comes() -> None:
    lanes = Lanes(MIB)
    threading.Timer(0.05, lanes.offer, [frame(1)]).start()
    assert number(lanes.next(5.0)) == 1


def test_a_rest_lets_live_frames_replace_one_another() -> None:
    lanes = Lanes(MIB)
    for each in (1, 2, 3):
        threading.Timer(0.02 * each, lanes.offer, [frame(each)]).start()
    assert number(lanes.next(5.0, rest_s=0.3)) == 3
    assert lanes.books().superseded == 2


def test_a_frame_to_inspect_ends_a_rest() -> None:
    lanes = Lanes(MIB)
    threading.Timer(0.05, lanes.offer, [frame(1, inspect=True)]).start()
    assert number(lanes.next(0.0, rest_s=60.0)) == 1


def test_closing_ends_a_rest() -> None:
    lanes = Lanes(MIB)
    threading.Timer(0.05, lanes.close).start()
    assert lanes.next(60.0, rest_s=60.0) is None


# --- complaints ---


def test_a_persisting_condition_is_told_once_a_second_with_its_count() -> None:
    clock = ManualClock()
    complaints = Complaints(clock)
    told: list[Flag] = []
    for _ in range(30):  # three seconds, ten bad messages a second
        complaints.add("malformed", "shape", "[0, 0]")
        told += complaints.drain()
        clock.advance(0.1)
    assert [flag.detail.split(" since")[0] for flag in told] == ["shape, 1", "shape, 10", "shape, 10"]


def test_each_cause_has_its_own_rate() -> None:
    complaints = Complaints(ManualClock())
    for what in ("shape", "size"):
        complaints.add("malformed", what, "")
    complaints.add("bad_field", "gamma", "")
    assert [flag.code for flag in complaints.drain()] == ["malformed", "malformed", "bad_field"]


def test_on_a_slow_scan_a_condition_is_not_over_between_two_frames_that_have_it() -> None:
    clock = ManualClock()
    complaints = Complaints(clock)
    for _ in range(3):
        complaints.frame(Optics(frame_time_s=30.0), clock.now_ns())
        complaints.add("bad_field", "gamma", "frame 1")
        clock.advance(30.0)
        assert "cleared" not in [flag.state for flag in complaints.drain()]
    clock.advance(61.0)
    assert [flag.state for flag in complaints.drain()] == ["cleared"]


def test_a_condition_that_stopped_is_cleared_once() -> None:
    clock = ManualClock()
    complaints = Complaints(clock)
    complaints.add("bad_field", "gamma", "")
    complaints.drain()
    clock.advance(6)
    assert [(flag.code, flag.state) for flag in complaints.drain()] == [("bad_field", "cleared")]
    assert complaints.drain() == []


def test_every_refused_frame_is_named() -> None:
    complaints = Complaints(ManualClock())
    for each in range(5):
        complaints.add_uninspected(frame(each, inspect=True))
    assert [flag.frame for flag in complaints.drain()] == list(range(5))


# --- the thread, on real sockets ---


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


class Rig:
    """A producer and a receiver that listens to it."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, **settings: Any) -> None:
        pull = settings.get("pattern", "pull") == "pull"
        self.producer = context.socket(zmq.PUSH if pull else zmq.XPUB)
        self.producer.setsockopt(zmq.LINGER, 0)
        self.producer.setsockopt(zmq.SNDHWM, 100_000)
        self.producer.bind(endpoint)
        told = Frames(**{"pattern": "pull", **settings})
        self.receiver = Receiver(told, endpoint, context=context, clock=SystemClock())
        self.receiver.start()
        if not pull:
            assert self.producer.poll(5000)
            self.producer.recv()  # the subscription

    def send(self, *messages: list[Any]) -> None:
        for each in messages:
            self.producer.send_multipart(each)

    def received(self, count: int) -> bool:
        return eventually(lambda: self.receiver.books().received == count)


@pytest.fixture
def rigs(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> Iterator[Any]:
    made: list[Rig] = []

    def make(**settings: Any) -> Rig:
        made.append(Rig(context, f"ipc://{tmp_path}/frames.ipc", **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.receiver.close()
        rig.producer.close()


def live(number: int, **optics: Any) -> list[Any]:
    return encode(number, PIXELS, Optics(**optics))


BAD = [
    ("parts", [b"one part"]),
    ("parts", [b""] * 50),
    ("header", [b"{", bytes(24)]),
    ("htype", message(header(htype=["array-1.0"]))),
    ("dtype", message(header(type="complex64"))),
    ("shape", message(header(shape=[0, 0]))),
    ("size", message(pixels=b"short")),
]


@pytest.mark.parametrize("pattern", ["pull", "sub"])
def test_hears_a_producer(rigs: Any, pattern: str) -> None:
    rig = rigs(pattern=pattern)
    rig.send(live(5, working_distance_m=5e-3))
    frame = rig.receiver.next(5.0)
    assert frame.number == 5 and frame.optics.working_distance_m == 5e-3
    assert rig.receiver.last_frame_ns() == frame.received_ns


def test_hears_only_the_configured_topic(rigs: Any) -> None:
    rig = rigs(pattern="sub", topic="sem1")
    rig.send([b"other", *live(1)], [b"sem1", *live(2)])
    assert number(rig.receiver.next(5.0)) == 2
    assert rig.receiver.books().received == 1


def test_survives_every_malformed_message_and_reads_the_next(rigs: Any) -> None:
    rig = rigs()
    rig.send(*(parts for _, parts in BAD), live(1))
    assert number(rig.receiver.next(5.0)) == 1
    books = rig.receiver.books()
    assert books.malformed == {"parts": 2, "header": 1, "htype": 1, "dtype": 1, "shape": 1, "size": 1}
    assert books.received == 8 and books.balanced()
    assert {flag.detail.split(",")[0] for flag in rig.receiver.flags()} == set(books.malformed)


def test_a_bad_field_is_flagged_and_the_frame_read(rigs: Any) -> None:
    rig = rigs()
    rig.send(message(header(ndattr={"gamma": "text"})))
    assert rig.receiver.next(5.0).bad_fields == ("gamma",)
    assert [(flag.code, flag.detail.split(",")[0]) for flag in rig.receiver.flags()] == [("bad_field", "gamma")]


def test_names_each_frame_it_could_not_keep_for_inspection(rigs: Any) -> None:
    rig = rigs(inspect_bytes=MIB)
    room = MIB // (PIXELS.nbytes + OVERHEAD_BYTES)
    rig.send(*(live(each, inspect=True) for each in range(room + 3)))
    assert rig.received(room + 3)
    flags = [flag for flag in rig.receiver.flags() if flag.code == "uninspected"]
    assert [flag.frame for flag in flags] == [room, room + 1, room + 2]
    assert rig.receiver.books().uninspected == 3


def test_books_balance_in_every_snapshot_of_a_mixed_storm(rigs: Any) -> None:
    rig, seen, unbalanced = rigs(inspect_bytes=MIB), [], []
    kinds = [lambda n: BAD[n % len(BAD)][1], lambda n: live(n, source=f"{n % 3}"), lambda n: live(n, inspect=True)]

    def storm() -> None:
        rig.send(*(kinds[each % 3](each) for each in range(3000)))

    producer = threading.Thread(target=storm)
    producer.start()
    while (taken := rig.receiver.next(0.5)) is not None:
        seen.append(taken)
        threading.Event().wait(0.0002)  # a slow consumer
        if not rig.receiver.books().balanced():
            unbalanced.append(rig.receiver.books())
    producer.join()
    books = rig.receiver.books()
    assert unbalanced == [] and books.balanced()
    assert (books.received, books.waiting, books.processed) == (3000, 0, len(seen))
    assert sum(books.malformed.values()) == 1000
    inspected = [each.number for each in seen if each.lane is Lane.INSPECT]
    named = [flag.frame for flag in rig.receiver.flags() if flag.code == "uninspected"]
    assert sorted(inspected + named) == list(range(2, 3000, 3))
    assert inspected == sorted(inspected)


def test_hears_a_producer_that_died_and_came_back(
    rigs: Any, context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path
) -> None:
    rig = rigs()
    rig.send(live(1))
    assert number(rig.receiver.next(5.0)) == 1
    endpoint = rig.producer.getsockopt_string(zmq.LAST_ENDPOINT)
    rig.producer.close(linger=0)
    again = context.socket(zmq.PUSH)
    again.setsockopt(zmq.LINGER, 0)
    assert eventually(lambda: _bound(again, endpoint))
    again.send_multipart(live(2))
    assert number(rig.receiver.next(5.0)) == 2
    again.close()


def _sent(rig: Rig, parts: list[Any]) -> bool:
    try:
        rig.send(parts)
    except zmq.Again:
        return False
    return True


def _bound(socket: "zmq.Socket[bytes]", endpoint: str) -> bool:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        return False
    return True


def test_ticks_without_any_frame(rigs: Any) -> None:
    rig = rigs()
    before = rig.receiver.last_tick_ns()
    assert eventually(lambda: rig.receiver.last_tick_ns() > before + 200_000_000)
    assert rig.receiver.last_frame_ns() is None


def test_a_message_above_the_limit_does_not_leave_it_deaf(rigs: Any) -> None:
    rig = rigs(max_message_bytes=MIB)
    rig.send([b"x" * (2 * MIB), b""])
    rig.producer.setsockopt(zmq.SNDTIMEO, 100)  # libzmq drops the connection for good
    assert eventually(lambda: _sent(rig, live(1)) and number(rig.receiver.next(0.2)) == 1)


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "sem-pc"])
def test_plain_tcp_from_another_host_must_be_allowed(context: "zmq.Context[zmq.Socket[bytes]]", host: str) -> None:
    with pytest.raises(ConfigurationError, match="allow_plain_tcp"):
        Receiver(Frames(), f"tcp://{host}:5555", context=context, clock=SystemClock()).start()
    allowed = Receiver(Frames(allow_plain_tcp=True), "tcp://192.0.2.1:5555", context=context, clock=SystemClock())
    allowed.start()
    allowed.close()


def test_an_endpoint_that_is_none_is_a_configuration_error(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    with pytest.raises(ConfigurationError, match="nonsense"):
        Receiver(Frames(), "nonsense", context=context, clock=SystemClock()).start()
