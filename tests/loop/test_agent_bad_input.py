"""Whatever comes in place of a good frame: counted or flagged with a reason, `hold` in place of a number, the agent
alive, and the next good frame handled. A whole agent on real sockets."""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.flags import CONDITIONS
from tests.fakes.models import Reads
from tests.loop.harness import DEADLINE_S, SHAPE, Agent, Message, Stream, said

GOOD = {"htype": "array-1.0", "type": "uint8", "shape": list(SHAPE), "frame": 7, "ndattr": {}}
PIXELS = bytes(SHAPE[0] * SHAPE[1])


def header(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


MALFORMED: dict[str, tuple[list[bytes], str]] = {
    "no JSON": ([b"\x93NUMPY", PIXELS], "header"),
    "a JSON that ends early": ([header()[:-9], PIXELS], "header"),
    "a JSON list": ([b"[1,2]", PIXELS], "header"),
    "an empty header": ([b"", PIXELS], "header"),
    "nested a hundred thousand deep": ([b"[" * 100_000, PIXELS], "header"),
    "a pickle": ([b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94", PIXELS], "header"),
    "no frame number": ([header(frame=None), PIXELS], "header"),
    "a negative frame number": ([header(frame=-1), PIXELS], "header"),
    "another htype": ([header(htype="chunk-2.0"), PIXELS], "htype"),
    "the other dialect": ([header(htype=["array-1.0"]), PIXELS], "htype"),
    "an unknown type": ([header(type="complex128"), PIXELS], "dtype"),
    "a big-endian type": ([header(type=">u2"), PIXELS], "dtype"),
    "a shape of zero": ([header(shape=[0, 0]), b""], "shape"),
    "a negative shape": ([header(shape=[-256, -256]), PIXELS], "shape"),
    "an absurd shape": ([header(shape=[1_000_000, 1_000_000]), PIXELS], "shape"),
    "more than a frame may occupy": ([header(shape=[65536, 65536], type="float32"), PIXELS], "shape"),
    "four dimensions": ([header(shape=[1, 1, *SHAPE]), PIXELS], "shape"),
    "a shape in words": ([header(shape="256x256"), PIXELS], "shape"),
    "too few bytes": ([header(), PIXELS[:-1]], "size"),
    "too many bytes": ([header(), PIXELS + b"\0"], "size"),
    "no pixels": ([header(), b""], "size"),
    "a part too few": ([header()], "parts"),
    "a part too many": ([header(), PIXELS, PIXELS], "parts"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_is_counted_flagged_and_dropped(stream: Stream, name: str) -> None:
    parts, reason = MALFORMED[name]
    before = stream.wire.settled_books()
    stream.wire.send(parts)
    flag = stream.wire.until(said("flag", code="malformed", state="raised"))
    assert flag["detail"].startswith(f"{reason}, 1 since last told")
    assert stream.show()["score"] > 5
    after = stream.wire.settled_books()
    assert after["malformed"][reason] == before["malformed"].get(reason, 0) + 1
    assert after["processed"] == before["processed"] + 1
    assert _balanced(after) and after["received"] == before["received"] + 2


def test_a_flood_of_malformed_messages_is_counted_one_by_one_and_told_once_a_second(agent: Agent) -> None:
    stream = Stream(agent.wire)
    for _ in range(200):
        agent.wire.send([b"{", b""])
    stream.show()
    assert agent.wire.settled_books()["malformed"] == {"header": 200}
    assert len(agent.wire.told("flag", code="malformed")) <= 3
    agent.clock.skip(2.0)
    stream.show()
    told = [int(flag["detail"].split()[1]) for flag in agent.wire.told("flag", code="malformed", state="raised")]
    assert sum(told) == 200
    agent.clock.skip(6.0)
    agent.wire.until(said("flag", code="malformed", state="cleared"))


# --- fields of a good header ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "5 mm", [5e-3], True, 5.0, -5e-3, 10**400], ids=str)
def test_a_working_distance_that_is_none_counts_as_unknown(stream: Stream, value: Any) -> None:
    _holds_and_recovers(stream, "no_epochs", lambda: stream.raw({"working_distance_m": value}))
    flag = stream.wire.until(said("flag", code="bad_field", state="raised"))
    assert flag["detail"].startswith("working_distance_m, 1 since")


@pytest.mark.parametrize("field", ["pixel_size_m", "frame_time_s", "t_start_ns", "optics_epoch", "stigmator_x"])
@pytest.mark.parametrize("value", ["text", float("nan"), {}], ids=str)
def test_a_field_that_cannot_be_read_is_named_and_the_frame_is_looked_at(
    stream: Stream, field: str, value: Any
) -> None:
    stream.raw({field: value})
    flag = stream.wire.until(said("flag", code="bad_field", state="raised"))
    assert flag["detail"].startswith(f"{field}, 1 since")
    assert stream.wire.until(said("focus", frame=stream.number))["score"] is not None
    assert stream.show()["score"] > 5


def test_an_ndattr_that_is_no_object_is_one_bad_field_and_the_first_frame_may_be_so(agent: Agent) -> None:
    stream = Stream(agent.wire)
    agent.wire.send([header(ndattr="none"), stream.picture().tobytes()])
    agent.wire.until(lambda told: told.get("code") == "bad_field" and told["detail"].startswith("ndattr"))
    assert agent.wire.until(said("hold", state="begin"))["reason"] == "no_epochs"
    stream.show()
    agent.wire.until(said("hold", state="end"))
    assert stream.show()["evidence_frames"] == 1


Refused = tuple[str, dict[str, Any]]  # the code, what the header says
REFUSED: dict[str, Refused] = {
    "no pixel size": ("no_pixel_size", {"pixel_size_m": None}),
    "a magnification without its reference": ("no_pixel_size", {"pixel_size_m": None, "magnification": 5000.0}),
    "no optics epoch": ("no_epochs", {"optics_epoch": None}),
    "no scene epoch": ("no_epochs", {"scene_epoch": None}),
    "no start time": ("no_epochs", {"t_start_ns": None}),
    "no working distance": ("no_epochs", {"working_distance_m": None}),
    "a blanked beam": ("blank", {"blanked": True}),
    "a frozen picture": ("frozen", {"frozen": True}),
    "the vendor's auto function": ("auto_function", {"auto_function_active": True}),
    "a moving stage": ("stage_moving", {"stage_moving": True}),
    "a linked stage": ("stage_linked", {"stage_linked": True}),
    "a recursive average": ("averaging", {"averaging": "recursive", "average_count": 8}),
    "a recursive average of unknown depth": ("averaging", {"averaging": "recursive"}),
    "a partial frame": ("averaging", {"complete": False, "rows_valid": 100}),
    "a bent look-up table": ("nonlinear", {"gamma": 0.6}),
    "an unknown recipe": ("unknown_recipe", {"recipe": "nobody's"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_header_says_against_a_frame_holds_until_the_next_good_one(stream: Stream, name: str) -> None:
    code, fields = REFUSED[name]
    _holds_and_recovers(stream, code, lambda: stream.send(**fields))


def test_a_shallow_recursive_average_is_a_picture_of_the_present(stream: Stream) -> None:
    assert stream.show(averaging="recursive", average_count=1)["evidence_frames"] == 1
    assert not stream.wire.told("hold")


# --- pictures ---


def _noise() -> NDArray[Any]:
    return np.random.default_rng(3).normal(128.0, 20.0, SHAPE).clip(1, 254).astype(np.uint8)


def _saturated() -> NDArray[Any]:
    picture = _noise()
    picture[:, : SHAPE[1] // 2] = 255
    return picture


def _float(value: float, where: Any = np.s_[10, 10]) -> NDArray[Any]:
    picture = _noise().astype(np.float32)
    picture[where] = value
    return picture


PICTURES: dict[str, tuple[str, NDArray[Any]]] = {
    "black": ("blank", np.zeros(SHAPE, np.uint8)),
    "white": ("blank", np.full(SHAPE, 255, np.uint8)),
    "one grey": ("blank", np.full(SHAPE, 128, np.uint16)),
    "half saturated": ("saturated", _saturated()),
    "one NaN": ("inconsistent", _float(np.nan)),
    "one infinity": ("inconsistent", _float(np.inf)),
    "nothing but NaN": ("inconsistent", _float(np.nan, np.s_[:])),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_without_meaning_holds_until_the_next_good_one(stream: Stream, name: str) -> None:
    code, picture = PICTURES[name]
    _holds_and_recovers(stream, code, lambda: stream.send(picture))


def test_the_same_pixels_under_a_new_number_are_frozen(stream: Stream) -> None:
    still = stream.picture()
    stream.show(still)
    _holds_and_recovers(stream, "frozen", lambda: stream.send(still))


@pytest.mark.parametrize("count", [1, 3])
def test_noise_alone_holds_and_names_once_what_would_help(stream: Stream, count: int) -> None:
    for _ in range(count):
        rng = np.random.default_rng(stream.number)
        told = stream.show(rng.normal(128.0, 20.0, SHAPE).clip(1, 254).astype(np.uint8))
        assert told["defocus_m"] is None
    hold = stream.wire.until(said("hold", state="begin"))
    assert hold["reason"] in ("featureless", "noise_only")
    wish = stream.wire.until(said("suggestion"))
    assert wish["kind"] == "acquire" and wish["acquire"] and wish["working_distance_m"] is None
    stream.show()
    stream.wire.until(said("hold", state="end", reason=hold["reason"]))
    assert len(stream.wire.told("suggestion")) == 1
    _is_well(stream)


SHAPES = [(1, 1), (1, 4096), (4096, 1), (33, 65), (64, 64), (127, 2000), (255, 257)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_shape_that_can_be_told_is_looked_at(stream: Stream, shape: tuple[int, int], dtype: str) -> None:
    for _ in range(2):
        picture = np.random.default_rng(stream.number).integers(1, 250, shape).astype(dtype)
        stream.show(picture, full_scale=None, bits_significant=None)
    assert stream.show()["score"] > 5


@pytest.mark.parametrize("rows", [1, 255, 256, 5000, 65536])
def test_a_databar_of_any_height_leaves_something_to_look_at(stream: Stream, rows: int) -> None:
    stream.show(databar_rows=rows)
    stream.show(databar_rows=rows, rows_valid=0)
    assert stream.show()["score"] > 5


# --- the order of frames ---


def test_a_frame_number_that_comes_twice_is_flagged_and_used_once(stream: Stream) -> None:
    stream.show()
    stream.show(number=stream.number)
    flag = stream.wire.until(said("flag", code="frame_repeated", state="raised"))
    assert flag["severity"] == "warning" and flag["frame"] == 2
    stream.show()
    stream.wire.until(said("flag", code="frame_repeated", state="cleared"))
    assert not stream.wire.told("hold")


@pytest.mark.parametrize("number", [3, 5 + 10_001])
def test_a_frame_number_that_jumps_is_flagged_and_the_count_goes_on_from_there(stream: Stream, number: int) -> None:
    for _ in range(4):
        stream.show()
    stream.show(number=number, t_start_ns=6_000_000_000)
    assert stream.wire.until(said("flag", code="frame_jumped", state="raised"))["frame"] == number
    stream.show(t_start_ns=7_000_000_000)
    stream.wire.until(said("flag", code="frame_jumped", state="cleared"))


def test_lost_frames_are_no_fault(stream: Stream) -> None:
    stream.show(number=40)
    stream.show(number=9000)
    assert not stream.wire.told("flag")


def test_after_the_producers_clock_went_back_frames_are_evidence_again(shared: Agent, stream: Stream) -> None:
    fresh = Stream(shared.wire, session=f"{stream.optics.session} again")
    fresh.show(t_start_ns=7200 * 1_000_000_000)
    assert fresh.show(t_start_ns=3600 * 1_000_000_000)["evidence_frames"] == 0
    shared.wire.until(said("hold", state="begin", reason="clock_jump"))
    assert fresh.show(t_start_ns=3601 * 1_000_000_000)["evidence_frames"] == 1
    shared.wire.until(said("hold", state="end", reason="clock_jump"))


# --- producers ---


def test_a_producer_that_dies_is_missed_and_one_that_returns_is_heard(start: Callable[..., Agent]) -> None:
    agent = start(frames={"stale_after_s": 2.0})
    agent.clock.skip(2.5)
    agent.wire.until(said("hold", state="begin", reason="no_frames"))
    stream = Stream(agent.wire, session="first")
    stream.show()
    agent.wire.until(said("hold", state="end", reason="no_frames"))
    agent.wire.producer.close(linger=0)
    agent.clock.skip(2.5)
    agent.wire.until(said("hold", state="begin", reason="stale"))
    agent.wire.producer = agent.wire.produce()
    assert agent.wire.producer.poll(20_000) and agent.wire.producer.recv() == b"\x01"
    second = Stream(agent.wire, session="second")
    second.show()
    agent.wire.until(said("hold", state="end", reason="stale"))
    assert second.show()["evidence_frames"] == 1
    assert not agent.wire.told("flag", code="two_sessions")


def test_two_producers_on_one_endpoint_are_named_and_nothing_is_advised_until_one_is_left(agent: Agent) -> None:
    ours, theirs = Stream(agent.wire, session="ours"), Stream(agent.wire, session="theirs")
    for _ in range(4):
        ours.show()
        theirs.show()
    flag = agent.wire.until(said("flag", code="two_sessions", state="raised"))
    assert flag["severity"] == "error"
    assert len(agent.wire.told("hold", reason="two_sessions")) == 1  # it stands; it does not flicker with each frame
    agent.clock.skip(6.0)
    theirs.show()
    theirs.show()
    agent.wire.until(said("hold", state="end", reason="two_sessions"))
    assert theirs.show()["evidence_frames"] == 1


def test_frames_of_an_ion_column_are_shown_and_never_evidence(agent: Agent) -> None:
    ions = Stream(agent.wire, source="ion/ETD")
    told = [ions.show() for _ in range(3)]
    assert told[-1]["score"] is not None and told[-1]["evidence_frames"] == 0
    agent.wire.until(said("hold", state="begin", reason="not_electron"))
    electrons = Stream(agent.wire, session="s2")
    electrons.show()
    agent.wire.until(said("hold", state="end", reason="not_electron"))
    assert electrons.show()["evidence_frames"] == 1
    assert ions.show()["sigma_m"] is None


def test_only_the_named_source_is_focused(start: Callable[..., Agent]) -> None:
    agent = start(focus={"source": "electron/InLens"})
    other, named = Stream(agent.wire), Stream(agent.wire, source="electron/InLens")
    for _ in range(2):
        assert other.show()["evidence_frames"] == 0
    named.show()
    assert named.show()["evidence_frames"] == 1


def test_a_known_recipe_is_worked_for(start: Callable[..., Agent], folder: Any) -> None:
    (folder / "recipes").mkdir()
    (folder / "recipes" / "via-2.toml").write_text("")
    agent = start(recipes={"folder": folder / "recipes"})
    Stream(agent.wire, recipe="via-2").show()
    assert not agent.wire.told("hold")


# --- inspection ---


def test_every_frame_to_inspect_gets_a_word_however_bad_it_is(stream: Stream) -> None:
    pictures = [picture for _, picture in PICTURES.values()] + [stream.picture()] * 2
    numbers = [stream.send(picture, inspect=True) for picture in pictures]
    numbers += [stream.send(inspect=True, **fields) for _, fields in REFUSED.values()]
    for number in numbers:
        stream.wire.until(said("focus", frame=number))
    assert _balanced(stream.wire.settled_books())


def test_frames_to_inspect_never_steer(stream: Stream) -> None:
    stream.show()
    for working_distance_m in (5.000e-3, 5.004e-3, 5.008e-3):
        stream.show(inspect=True, working_distance_m=working_distance_m)
    assert stream.show()["evidence_frames"] == 1
    assert not stream.wire.told("suggestion")


def test_what_does_not_fit_the_inspection_queue_is_named_frame_by_frame(start: Callable[..., Agent]) -> None:
    agent = start(frames={"inspect_bytes": 1024 * 1024})  # fifteen of these pictures
    stream = Stream(agent.wire)
    pictures = [stream.picture() for _ in range(60)]
    numbers = [stream.send(picture, inspect=True) for picture in pictures]
    for number in numbers:
        agent.wire.until(_word_on(number))
    named = {flag["frame"] for flag in agent.wire.told("flag", code="uninspected")}
    seen = {told["frame"] for told in agent.wire.told("focus")}
    assert named | seen == set(numbers) and not named & seen
    books = agent.wire.settled_books()
    assert books["uninspected"] == len(named) > 0 and _balanced(books)


def test_frames_still_to_be_inspected_when_the_agent_ends_are_named(start: Callable[..., Agent]) -> None:
    agent = start()
    slow = Slow()
    agent.look_with(slow)
    stream = Stream(agent.wire)
    numbers = [stream.send(inspect=True) for _ in range(6)]
    assert slow.looking.wait(DEADLINE_S)
    agent.wire.status_when(lambda status: status["frames"]["received"] == 6)
    agent.loop.stopping.set()
    slow.go_on.set()
    for number in numbers:
        agent.wire.until(_word_on(number))
    agent.wire.last_words()
    assert len(agent.wire.told("flag", code="uninspected")) == 5


class Slow(Reads):
    """A model that looks at its first frame until it is told to go on."""

    name = "slow@0"

    def __init__(self) -> None:
        self.looking, self.go_on = threading.Event(), threading.Event()

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> None:
        self.looking.set()
        assert self.go_on.wait(DEADLINE_S)


# ---


def _holds_and_recovers(stream: Stream, code: str, send: Callable[[], Any]) -> None:
    """One bad frame, then a good one: raised, held, no number; then cleared."""
    wire = stream.wire
    send()
    told = wire.until(said("focus", frame=stream.number))
    assert told["defocus_m"] is None and told["sigma_m"] is None
    flag = wire.until(said("flag", code=code, state="raised"))
    assert (flag["severity"], flag["frame"]) == (CONDITIONS[code].severity, stream.number)
    hold = wire.until(said("hold", state="begin", reason=code))
    assert hold["event"] > flag["event"]  # both are in the journal
    assert wire.status_when(lambda status: status["hold"] is not None)["flags"] == [code]
    assert stream.show()["score"] > 5
    wire.until(said("flag", code=code, state="cleared"))
    wire.until(said("hold", state="end", reason=code))
    _is_well(stream)


def _is_well(stream: Stream) -> None:
    status = stream.wire.status_when(lambda status: status["hold"] is None)
    assert (status["flags"], status["mode"]) == ([], "suggest")


def _word_on(number: int) -> Callable[[Message], bool]:
    """A focus message on this frame, or its name in a flag `uninspected`."""
    return lambda told: told["frame"] == number and (told["topic"] == "focus" or told.get("code") == "uninspected")


def _balanced(books: Message) -> bool:
    spent = books["processed"] + books["superseded"] + books["uninspected"] + sum(books["malformed"].values())
    return bool(books["received"] == spent + books["waiting"])
