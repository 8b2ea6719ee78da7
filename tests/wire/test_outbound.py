"""Advice and requests: flat JSON that the published schema describes, finite numbers, and answers that help."""

import json
import math
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import RequestError
from agent.messages import (
    Ack,
    Books,
    Defect,
    Dose,
    Flag,
    FocusState,
    Hold,
    Kind,
    Lane,
    Lease,
    Mode,
    ModeRequest,
    Outcome,
    Phase,
    Reload,
    Standing,
    Status,
    Suggestion,
    Timing,
)
from agent.wire import schema
from agent.wire.outbound import (
    TOPICS,
    Body,
    Defects,
    Depth,
    Envelope,
    EventsRequest,
    LimitsRequest,
    StatusRequest,
    decode_request,
    encode,
    open_request,
    refuse,
    reply,
    request_id,
)

DEFECT = Defect(name="bridge", path=("pattern", "bridge"), box_px=(1.0, 2.0, 3.0, 4.0), confidence=0.5)
BODIES: list[tuple[str, Body]] = [
    ("suggestion", Suggestion(id="s1", kind=Kind.PROBE, based_on_frames=(1, 2), working_distance_m=5e-3)),
    ("focus", FocusState(phase=Phase.MEASURING)),
    ("focus", FocusState(phase=Phase.VERIFYING, score=9.5, defocus_m=-1e-6, sigma_m=1e-7)),
    ("defects", Defects(count=1, lane=Lane.INSPECT, defects=(DEFECT,))),
    ("defects", Defects(count=0, lane=Lane.LIVE, defects=())),
    ("depth", Depth(shape=(192, 256), calibrated=False, mean_m=0.0, min_m=-1e-7, max_m=1e-7)),
    ("flag", Flag(code="uninspected", state="raised", severity="error", frame=7)),
    ("hold", Hold(state="begin", reason="shutdown", since_ns=1)),
    ("status", Status(mode=Mode.SUGGEST)),
    (
        "status",
        Status(
            mode=Mode.CONTROL,
            lease=Lease(controller="rig", expires_in_s=9.5),
            hold=Standing(reason="stale", since_ns=5),
            frames=Books(received=3, processed=1, malformed={"shape": 2}),
            loop_age_s=0.1,
            backends={"autofocus": "onnxruntime"},
            models=("autofocus@12ab",),
            dose=Dose(frames=2, budget=12),
            timings={"perceive": Timing(p50_s=0.01, p99_s=0.02)},
            flags=("stale",),
        ),
    ),
]


def envelope(topic: str, **changes: Any) -> Envelope:
    told = {"agent": "0.1.0", "boot": "ab12", "seq": 1, "t_sent_ns": 1_700_000_000_000_000_000, "mode": Mode.SUGGEST}
    return Envelope(topic=topic, **{**told, **changes})


def sent(topic: str, body: Body, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(encode(envelope(topic, **changes), body)[1])
    return told


# --- advice ---


def test_the_schema_in_the_package_is_current() -> None:
    assert schema.PATH.read_text() == schema.text(), "run: python -m agent.wire.schema"


def test_the_schema_has_one_definition_a_topic() -> None:
    document = json.loads(schema.PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    assert set(document["$defs"]) == set(TOPICS)
    assert [each["$ref"] for each in document["anyOf"]] == [f"#/$defs/{topic}" for topic in TOPICS]
    assert all(each["additionalProperties"] is False for each in document["$defs"].values())


@pytest.mark.parametrize(("topic", "body"), BODIES)
def test_every_message_is_what_the_schema_says(topic: str, body: Body) -> None:
    document = json.loads(schema.PATH.read_text())
    message = sent(topic, body, frame=7, session="s", took_s={"perceive": 0.01}, event=4)
    jsonschema.Draft202012Validator(document).validate(message)
    for other in TOPICS:
        only = jsonschema.Draft202012Validator({**document, "anyOf": [{"$ref": f"#/$defs/{other}"}]})
        assert only.is_valid(message) is (other == topic)


@pytest.mark.parametrize(("topic", "body"), BODIES)
def test_the_schema_refuses_a_field_too_many_and_one_too_few(topic: str, body: Body) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema.PATH.read_text()))
    message = sent(topic, body)
    assert not validator.is_valid({**message, "extra": 1})
    for name in message:
        assert not validator.is_valid({key: value for key, value in message.items() if key != name})


@pytest.mark.parametrize(("topic", "field"), [("hold", "reason"), ("flag", "code"), ("flag", "state")])
def test_the_schema_knows_the_closed_lists(topic: str, field: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schema.PATH.read_text()))
    body = next(body for name, body in BODIES if name == topic)
    assert not validator.is_valid({**sent(topic, body), field: "something else"})


def test_the_topic_is_the_first_part() -> None:
    assert encode(envelope("hold"), BODIES[7][1])[0] == b"hold"
    assert encode(envelope("depth"), BODIES[5][1], b"map")[2] == b"map"


def test_a_refused_frames_flag_carries_that_frame() -> None:
    assert sent("flag", BODIES[6][1], frame=7)["frame"] == 7


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_a_number_that_is_not_finite_never_becomes_null(value: float) -> None:
    with pytest.raises(ValueError, match=r"focus\.defocus_m"):
        encode(envelope("focus"), FocusState(phase=Phase.IDLE, defocus_m=value))
    with pytest.raises(ValueError, match=r"status\.timings\.perceive\.p50_s"):
        encode(envelope("status"), Status(mode=Mode.HOLD, timings={"perceive": Timing(p50_s=value, p99_s=1.0)}))
    with pytest.raises(ValueError, match=r"defects\.defects\[0\]\.box_px\[1\]"):
        bad = Defect(name="pit", path=(), box_px=(0.0, value, 1.0, 1.0), confidence=1.0)
        encode(envelope("defects"), Defects(count=1, lane=Lane.LIVE, defects=(bad,)))


def test_numpy_numbers_travel_as_numbers() -> None:
    assert sent("focus", FocusState(phase=Phase.IDLE, score=np.float32(1.5)))["score"] == 1.5  # type: ignore[arg-type]


# --- requests ---


def ask(**fields: Any) -> Any:
    return decode_request(json.dumps({"id": "7", **fields}).encode())[1]


def test_reads_each_request() -> None:
    ack = ask(request="ack", suggestion="s1", outcome="applied", working_distance_m=5e-3, optics_epoch=4.0, extra=1)
    assert ack == Ack(suggestion="s1", outcome=Outcome.APPLIED, working_distance_m=5e-3, optics_epoch=4)
    lease = ModeRequest(mode=Mode.CONTROL, lease_s=10.0, controller="rig")
    assert ask(request="mode", mode="control", lease_s=10, controller="rig") == lease
    assert ask(request="mode", mode="hold") == ModeRequest(mode=Mode.HOLD)
    assert ask(request="status") == StatusRequest()
    assert ask(request="limits") == LimitsRequest()
    assert ask(request="reload") == Reload()
    assert ask(request="events", since=5) == EventsRequest(since=5, limit=100)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "unknown_request"),
        ({"request": "dance"}, "unknown_request"),
        ({"request": ["ack"]}, "unknown_request"),
        ({"request": "ack", "suggestion": "s1"}, "missing_field"),
        ({"request": "ack", "suggestion": "s1", "outcome": "done"}, "bad_value"),
        ({"request": "ack", "suggestion": 5, "outcome": "applied"}, "bad_value"),
        ({"request": "ack", "suggestion": "", "outcome": "applied"}, "bad_value"),
        ({"request": "ack", "suggestion": "s", "outcome": "applied", "stigmator_x": True}, "bad_value"),
        ({"request": "ack", "suggestion": "s", "outcome": "applied", "stigmator_x": float("nan")}, "bad_value"),
        ({"request": "ack", "suggestion": "s", "outcome": "applied", "stigmator_x": float("inf")}, "bad_value"),
        ({"request": "ack", "suggestion": "s", "outcome": "applied", "optics_epoch": 1.5}, "bad_value"),
        ({"request": "mode"}, "missing_field"),
        ({"request": "mode", "mode": "turbo"}, "bad_value"),
        ({"request": "mode", "mode": "control"}, "missing_field"),
        ({"request": "mode", "mode": "control", "lease_s": 0.5}, "bad_value"),
        ({"request": "mode", "mode": "control", "lease_s": 3601}, "bad_value"),
        ({"request": "mode", "mode": "control", "lease_s": "10"}, "bad_value"),
        ({"request": "mode", "mode": "control", "lease_s": True}, "bad_value"),
        ({"request": "mode", "mode": "control", "lease_s": float("nan")}, "bad_value"),
        ({"request": "events", "since": -1}, "bad_value"),
        ({"request": "events", "limit": 0}, "bad_value"),
        ({"request": "events", "limit": 10**6}, "bad_value"),
        ({"request": "status", "id": None}, "bad_id"),
        ({"request": "status", "id": 1.5}, "bad_id"),
        ({"request": "status", "id": True}, "bad_id"),
    ],
)
def test_refuses_what_it_cannot_read_and_says_why(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(RequestError) as caught:
        ask(**fields)
    assert caught.value.code == code and len(str(caught.value)) > 20


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b"7"])
def test_refuses_what_is_no_json_object(text: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decode_request(text)
    assert caught.value.code == "bad_json"


def test_replies_mirror_the_id() -> None:
    assert json.loads(reply(7, {"lease_s": 10.0})) == {"id": 7, "ok": True, "lease_s": 10.0}
    refused = json.loads(refuse(None, RequestError("bad_json", "no \ud800")))
    assert refused == {"id": None, "ok": False, "error": {"code": "bad_json", "message": "no ?"}}


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "id",
    "request",
    "suggestion",
    "outcome",
    "mode",
    "lease_s",
    "controller",
    "since",
    "limit",
    "working_distance_m",
)
WORDS = st.sampled_from(("ack", "mode", "status", "events", "limits", "reload", "applied", "control", "s1", "\ud800"))


def survives(data: bytes) -> None:
    number = None
    try:
        number = request_id(open_request(data))
        decode_request(data)
    except RequestError as error:
        json.loads(refuse(number, error))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_survives_random_bytes(data: bytes) -> None:
    survives(data)


@settings(max_examples=300, deadline=None)
@example({"id": "7", "request": "ack", "working_distance_m": "\ud800"})
@given(ANY_JSON | st.dictionaries(st.sampled_from(NAMES), WORDS | ANY_JSON))
def test_survives_random_json(value: Any) -> None:
    survives(json.dumps(value).encode())


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_survives_flipped_bytes(data: st.DataObject) -> None:
    text = bytearray(b'{"id":"7","request":"mode","mode":"control","lease_s":10,"controller":"rig"}')
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(text))
