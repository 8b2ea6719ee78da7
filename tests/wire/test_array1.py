"""Frames in: what is accepted, what is refused, and under which word it stands in the books."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import MalformedFrameError
from agent.messages import Frame, Lane, Optics
from agent.wire.array1 import READERS, STIGMATORS, decode, encode
from tests.wire.streams import header, message

WORDS = {"parts", "header", "htype", "dtype", "shape", "size"}


def read(parts: list[bytes], dialect: str = "psi", topic: str = "") -> Frame:
    return decode(parts, dialect=dialect, topic=topic, received_ns=1)


def reason(parts: list[bytes], **how: Any) -> str:
    with pytest.raises(MalformedFrameError) as caught:
        read(parts, **how)
    return caught.value.reason


def told(**fields: Any) -> Frame:
    return read(message(header(ndattr=fields)))


def test_reads_a_frame_as_areadetector_sends_it() -> None:
    frame = told(working_distance_m=5e-3, unheard_of="ignored", session="run 1")
    assert frame.number == 7 and frame.lane is Lane.LIVE and frame.bad_fields == ()
    assert frame.pixels.shape == (4, 6) and frame.pixels[1, 0] == 6
    assert frame.optics == Optics(working_distance_m=5e-3, session="run 1")


def test_pixels_are_a_read_only_view_of_the_message() -> None:
    parts = message()
    pixels = read(parts).pixels
    assert np.shares_memory(pixels, np.frombuffer(parts[1], np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0] = 1


def test_the_legacy_dialect_sends_a_list_and_swaps_the_sides() -> None:
    old = message(header(htype=["array-1.0"], shape=[6, 4]))
    assert read(old, dialect="adzmq_legacy").pixels.shape == (4, 6)
    assert reason(old) == "htype"
    assert reason(message(), dialect="adzmq_legacy") == "htype"


def test_sixteen_bit_and_float_pixels_are_little_endian() -> None:
    words = np.arange(24, dtype="<u2")
    assert read(message(header(type="uint16"), words.tobytes())).pixels[3, 5] == 23
    floats = words.astype("<f4") / 2
    assert read(message(header(type="float32"), floats.tobytes())).pixels[3, 5] == 11.5


def test_a_leading_topic_is_read_where_it_is_configured() -> None:
    assert read([b"sem1", *message()], topic="sem1").number == 7
    assert read(message(), topic="sem1").number == 7
    assert reason([b"other", *message()], topic="sem1") == "parts"
    assert reason([b"sem1", *message()]) == "parts"


@pytest.mark.parametrize("parts", [[], [b"{}"], [*message(), b"more"], [b""] * 1000])
def test_wrong_number_of_parts(parts: list[bytes]) -> None:
    assert reason(parts) == "parts"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"null", b"[" * 100_000, b"\xff\xfe", b'{"a":1}x'])
def test_a_header_that_is_no_json_object(text: bytes) -> None:
    assert reason([text, bytes(24)]) == "header"


@pytest.mark.parametrize("number", [None, True, "7", 7.5, -1, 2**63, 1e300, [7]])
def test_a_frame_number_that_is_none(number: object) -> None:
    assert reason(message(header(frame=number))) == "header"


def test_an_integral_float_is_a_frame_number() -> None:
    assert read(message(header(frame=7.0, shape=[4.0, 6.0]))).number == 7


@pytest.mark.parametrize("htype", [None, 1, "array-2.0", ["array-1.0"], {"a": 1}])
def test_an_unknown_htype(htype: object) -> None:
    assert reason(message(header(htype=htype))) == "htype"


@pytest.mark.parametrize("dtype", [None, 8, "int8", "float64", "uint8 ", "UInt8", ["uint8"], "object"])
def test_an_unknown_type(dtype: object) -> None:
    assert reason(message(header(type=dtype))) == "dtype"


@pytest.mark.parametrize(
    "shape",
    [
        *(None, [], [24], [0, 24], [-4, -6], [4, 6, 3], [3, 4, 6], [True, 24], ["4", "6"], [4.5, 6], [65537, 1], "46"),
        *([1e300, 1], [65536, 65536], [2**40, 2**40], {"h": 4}, [4, 6, 1, 1], [float("nan"), 6]),
    ],
)
def test_an_absurd_shape(shape: object) -> None:
    assert reason(message(header(shape=shape))) == "shape"


def test_a_trailing_dimension_of_one_is_a_picture() -> None:
    assert read(message(header(shape=[4, 6, 1]))).pixels.shape == (4, 6)


@pytest.mark.parametrize("length", [0, 1, 23, 25, 48])
def test_pixels_that_do_not_fill_the_shape(length: int) -> None:
    assert reason(message(pixels=bytes(length))) == "size"


@pytest.mark.parametrize("value", ["5 mm", True, [5e-3], {}, -5e-3, 0, 5, 1e300, float("nan"), float("inf"), 10**40])
def test_one_bad_field_is_none_and_named_and_the_rest_stands(value: object) -> None:
    frame = told(working_distance_m=value, stigmator_x=0.1)
    assert frame.bad_fields == ("working_distance_m",)
    assert frame.optics == Optics(stigmator_x=0.1)


def test_an_overlong_integer_spoils_its_field_only() -> None:
    text = json.dumps(header(ndattr={"optics_epoch": 0})).replace('"optics_epoch": 0', '"optics_epoch": ' + "9" * 5000)
    assert read([text.encode(), bytes(24)]).bad_fields == ("optics_epoch",)


def test_a_latin1_name_spoils_its_field_only() -> None:
    text = json.dumps(header(ndattr={"recipe": "RECIPE", "lot": "A"})).encode().replace(b"RECIPE", b"\xb5m")
    frame = read([text, bytes(24)])
    assert frame.bad_fields == ("recipe",) and frame.optics.lot == "A"


@pytest.mark.parametrize("name", sorted([*READERS, *STIGMATORS]))
@pytest.mark.parametrize("value", [{}, "\ud800", float("nan"), [1, 2]])
def test_every_field_survives_nonsense(name: str, value: object) -> None:
    frame = told(**{name: value})
    assert frame.bad_fields == (name,) and getattr(frame.optics, name) is None


def test_every_field_of_optics_has_a_reader() -> None:
    assert {*READERS, *STIGMATORS} == set(Optics.__struct_fields__)


def test_null_and_missing_are_unknown_and_not_bad() -> None:
    frame = told(working_distance_m=None, session="")
    assert frame.optics == Optics() and frame.bad_fields == ()
    assert read(message(header(ndattr=None))).bad_fields == ()
    assert read(message(header(ndattr=[1]))).bad_fields == ("ndattr",)


def test_stigmators_are_unitless_unless_the_unit_says_otherwise() -> None:
    assert told(stigmator_x=12.0).bad_fields == ("stigmator_x",)
    assert told(stigmator_x=12.0, stigmator_unit="%").optics.stigmator_x == 12.0


def test_inspect_chooses_the_lane() -> None:
    assert told(inspect=True).lane is Lane.INSPECT
    assert told(inspect=1).lane is Lane.INSPECT
    assert told(inspect="true").bad_fields == ("inspect",)


@pytest.mark.parametrize(
    ("fields", "expected_m"),
    [
        ({"pixel_size_m": 2e-9, "horizontal_field_width_m": 1e-3}, 2e-9),
        ({"horizontal_field_width_m": 12e-9, "full_width_px": 12}, 1e-9),
        ({"horizontal_field_width_m": 12e-9}, 2e-9),
        ({"horizontal_field_width_m": 12e-9, "roi_px": [0, 0, 6, 4]}, None),
        ({"magnification": 1000, "magnification_reference_width_m": 0.127, "full_width_px": 1270}, 1e-7),
        ({"magnification": 1000}, None),
        ({"pixel_size_m": float("nan"), "horizontal_field_width_m": 12e-9}, 2e-9),
        ({}, None),
    ],
)
def test_pixel_size_comes_from_whatever_gives_it(fields: dict[str, Any], expected_m: float | None) -> None:
    optics = told(**fields).optics
    assert optics.pixel_size_m == (None if expected_m is None else pytest.approx(expected_m, rel=1e-12))
    assert optics.pixel_size_y_m is None


OPTICS = Optics(
    session="s",
    optics_epoch=3,
    t_start_ns=1_700_000_000_123_456_789,
    working_distance_m=5e-3,
    stigmator_x=-0.25,
    pixel_size_m=1.5e-9,
    roi_px=(0, 0, 6, 4),
    stage_moving=False,
    inspect=True,
)


@pytest.mark.parametrize("dialect", ["psi", "adzmq_legacy"])
@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
@pytest.mark.parametrize("topic", ["", "sem1"])
def test_what_is_encoded_reads_back_the_same(dialect: Any, dtype: str, topic: str) -> None:
    pixels = np.arange(24).reshape(4, 6).astype(dtype)[:, ::-1]
    parts = encode(9, pixels, OPTICS, dialect=dialect, topic=topic)
    frame = decode(parts, dialect=dialect, topic=topic, received_ns=1)
    assert (frame.number, frame.optics, frame.lane, frame.bad_fields) == (9, OPTICS, Lane.INSPECT, ())
    np.testing.assert_array_equal(frame.pixels, pixels)


def test_an_unknown_field_is_left_out_and_never_a_disguised_nan() -> None:
    pixels = np.zeros((4, 6), np.uint8)
    assert json.loads(bytes(encode(1, pixels, Optics(gamma=1.0))[0]))["ndattr"] == {"gamma": 1.0}
    with pytest.raises(ValueError, match="gamma"):
        encode(1, pixels, Optics(gamma=math.nan))


# --- whatever arrives, only MalformedFrameError comes out ---

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.sampled_from(sorted([*READERS, *STIGMATORS])), ANY_JSON, max_size=8)
HEADERS = st.fixed_dictionaries({}, optional=dict.fromkeys(("htype", "type", "shape", "frame", "ndattr"), ANY_JSON))


def survives(parts: list[bytes], dialect: str = "psi") -> None:
    try:
        frame = read(parts, dialect=dialect)
    except MalformedFrameError as error:
        assert error.reason in WORDS
    else:
        for name in Optics.__struct_fields__:
            value = getattr(frame.optics, name)
            assert not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=4))
def test_survives_random_bytes(parts: list[bytes]) -> None:
    survives(parts)


@settings(max_examples=200, deadline=None)
@given(ANY_JSON | HEADERS | st.builds(lambda fields: header(ndattr=fields), FIELDS))
def test_survives_random_json(value: Any) -> None:
    for dialect in ("psi", "adzmq_legacy"):
        survives([json.dumps(value).encode(), bytes(24)], dialect)


@settings(max_examples=200, deadline=None)
@given(HEADERS, FIELDS)
def test_survives_mutated_headers(changes: dict[str, Any], fields: dict[str, Any]) -> None:
    survives(message({**header(ndattr=fields), **changes}))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_survives_flipped_and_cut_bytes(data: st.DataObject) -> None:
    text = bytearray(message(header(ndattr={"working_distance_m": 5e-3, "session": "s"}))[0])
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    survives([bytes(text[: data.draw(st.integers(0, len(text)))]), bytes(24)])
    survives([bytes(text), bytes(24)])
