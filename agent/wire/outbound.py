"""Everything the agent sends or is asked: flat JSON, versioned. Advice is [topic, JSON]; a request is one JSON object.

Numbers are finite: checked here, because the encoder would write NaN as null. Unknown is null and always present.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from agent.errors import RequestError
from agent.messages import Ack, Defect, Flag, FocusState, Hold, Lane, Mode, ModeRequest, Reload, Status, Suggestion

SCHEMA = 1  # grows when a field changes its meaning or goes away
LEASE_S = (1.0, 3600.0)  # shorter lapses between two renewals; longer outlives a shift's attention
EVENTS_LIMIT = 1000  # rows one answer may carry
TOPICS = ("suggestion", "focus", "defects", "depth", "flag", "hold", "status")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every message of the agent says of itself."""

    topic: str
    agent: str  # version
    boot: str  # one run of the agent
    seq: int  # +1 a message over all topics of one boot
    t_sent_ns: int  # wall clock
    mode: Mode
    schema: int = SCHEMA
    event: int | None = None  # journal row
    frame: int | None = None
    session: str | None = None
    source: str | None = None
    optics_epoch: int | None = None
    scene_epoch: int | None = None
    t_frame_ns: int | None = None  # producer's clock
    took_s: dict[str, float] = {}  # by stage
    models: tuple[str, ...] = ()  # name@sha


class Defects(msgspec.Struct, frozen=True, kw_only=True):
    """What the defect model found in one frame."""

    count: int
    lane: Lane
    defects: tuple[Defect, ...]
    recipe: str | None = None  # that was followed; None: none was named, or one that is not known here
    dropped: dict[str, int] = {}  # finds that a rule of the recipe left out, by rule


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of one depth map; the map itself is the third part of the message."""

    shape: tuple[int, int]  # of the map, (h, w) float32
    calibrated: bool
    mean_m: float
    min_m: float
    max_m: float


Body = Suggestion | FocusState | Defects | Depth | Flag | Hold | Status
BODIES: dict[str, type[Body]] = {
    "suggestion": Suggestion,
    "focus": FocusState,
    "defects": Defects,
    "depth": Depth,
    "flag": Flag,
    "hold": Hold,
    "status": Status,
}


def encode(envelope: Envelope, body: Body, array: bytes | None = None) -> list[bytes]:
    """The parts of one message. What envelope and body both name is told once, as the envelope has it.

    Raises ValueError naming the first number that is not finite.
    """
    message = {**plain(body), **plain(envelope)}
    _check_finite(message, envelope.topic)
    parts = [envelope.topic.encode(), msgspec.json.encode(message)]
    return parts if array is None else [*parts, array]


def plain(value: Any) -> Any:
    """Structs, enums and numpy scalars -> what JSON knows."""
    return msgspec.to_builtins(value, enc_hook=_numpy, str_keys=True)


def _numpy(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not travel on the wire")


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} = {value}: the wire carries finite numbers only")
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_finite(each, f"{where}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            _check_finite(each, f"{where}[{index}]")


# --- requests ---


class StatusRequest(msgspec.Struct, frozen=True):
    """How are you?"""


class LimitsRequest(msgspec.Struct, frozen=True):
    """What would you never suggest?"""


class EventsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What happened after journal row `since`?"""

    since: int = 0
    limit: int = 100


RequestBody = Ack | ModeRequest | Reload | StatusRequest | LimitsRequest | EventsRequest
Id = str | int | None
REQUESTS: dict[str, type[RequestBody]] = {
    "ack": Ack,
    "mode": ModeRequest,
    "status": StatusRequest,
    "events": EventsRequest,
    "limits": LimitsRequest,
    "reload": Reload,
}


def decode_request(data: bytes) -> tuple[Id, RequestBody]:
    """One request -> its id and what is asked. Raises RequestError."""
    fields = open_request(data)
    return request_id(fields), read_request(fields)


def open_request(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises RequestError."""
    try:
        # Python's reader passes NaN on, so that the answer can name the field and mirror the id.
        fields = json.loads(data.decode(), parse_int=_any_int)
    except (ValueError, RecursionError) as error:
        raise RequestError("bad_json", f"the request is not JSON: {error}; send one object in one part") from None
    if not isinstance(fields, dict):
        raise RequestError(
            "bad_json", f'the request is a JSON {type(fields).__name__}; send {{"id": .., "request": ..}}'
        )
    return fields


def request_id(fields: Mapping[str, Any]) -> Id:
    """The asker's own number, mirrored in the reply. None when it has none that can be mirrored."""
    told = fields.get("id")
    if isinstance(told, str) and len(told) <= 256 and not any("\ud800" <= c <= "\udfff" for c in told):
        return told
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def read_request(fields: Mapping[str, Any]) -> RequestBody:
    """What is asked, checked. Raises RequestError saying what, where, which value and what to do."""
    if request_id(fields) is None:
        raise RequestError(
            "bad_id", f"id = {_short(fields.get('id'))}: send a text or a whole number to be answered by"
        )
    name = fields.get("request")
    if not isinstance(name, str) or name not in REQUESTS:
        raise RequestError("unknown_request", f"request = {_short(name)}: known are {', '.join(REQUESTS)}")
    body = _convert(name, {key: value for key, value in fields.items() if key not in ("id", "request")})
    _check_request(name, body)
    return body


def reply(request_id: Id, answer: Mapping[str, Any]) -> bytes:
    """`{"id", "ok": true, ...}`; raises ValueError on a number that is not finite."""
    told = plain(dict(answer))
    _check_finite(told, "reply")
    return msgspec.json.encode({"id": request_id, "ok": True, **told})


def refuse(request_id: Id, error: RequestError) -> bytes:
    """`{"id", "ok": false, "error": {"code", "message"}}`."""
    message = str(error).encode("utf-8", "replace").decode()  # it may quote what was no text
    return msgspec.json.encode({"id": request_id, "ok": False, "error": {"code": error.code, "message": message}})


def _any_int(digits: str) -> int | float:
    return int(digits) if -(2**63) <= float(digits) < 2**63 and len(digits) <= 20 else float(digits)


def _convert(name: str, fields: dict[str, Any]) -> RequestBody:
    try:
        return msgspec.convert({key: _whole(value) for key, value in fields.items()}, REQUESTS[name])
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: half a surrogate pair for a number
        code = "missing_field" if "missing required" in str(error) else "bad_value"
        raise RequestError(code, f"request {name}: {error}; see the README's table of requests") from None


def _whole(value: Any) -> Any:
    # Clients without an integer type write 3.0; a struct's float field takes the int again.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _check_request(name: str, body: RequestBody) -> None:
    for field in body.__struct_fields__:
        value = getattr(body, field)
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(
                "bad_value", f"request {name}: {field} = {value} is not finite; send a number or leave it out"
            )
        if isinstance(value, str) and (not value or len(value) > 256 or any("\ud800" <= c <= "\udfff" for c in value)):
            raise RequestError("bad_value", f"request {name}: {field} = {_short(value)}; send 1 to 256 characters")
    if isinstance(body, ModeRequest):
        _check_lease(body)
    if isinstance(body, EventsRequest) and not (body.since >= 0 and 1 <= body.limit <= EVENTS_LIMIT):
        raise RequestError("bad_value", f"request events: since from 0 on, limit 1 to {EVENTS_LIMIT}")


def _check_lease(asked: ModeRequest) -> None:
    low, high = LEASE_S
    if asked.lease_s is None:
        if asked.mode is Mode.CONTROL:
            raise RequestError("missing_field", f"request mode: control needs lease_s, {low:g} to {high:g} seconds")
    elif not low <= asked.lease_s <= high:
        raise RequestError("bad_value", f"request mode: lease_s = {asked.lease_s:g}; send {low:g} to {high:g} seconds")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
