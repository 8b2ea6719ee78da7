"""Frames in: array-1.0 (areaDetector's ZeroMQ plugin, PSI detectors), a JSON header and raw little-endian pixels.

The header is strict for htype, type, shape and frame; each `ndattr` field is read alone, and one that cannot be is None
and named in `Frame.bad_fields`. Pixels are a read-only view of the message: nothing is copied.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import MalformedFrameError
from agent.messages import Frame, Lane, Optics

Dialect = Literal["psi", "adzmq_legacy"]
Part = bytes | bytearray | memoryview

DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "uint16", "float32")}
HTYPES = {"psi": ("array-1.0",), "adzmq_legacy": (["array-1.0"], ["chunk-1.0"])}  # ADZMQ before 1.4 sent a list
MAX_SIDE_PX = 65536  # no scan generator goes beyond 64 k
MAX_BYTES = 1 << 30  # what one frame may occupy, as MAXMSGSIZE
MAX_TEXT = 256  # a lot or recipe name; more is not a name
INT64 = (-(2**63), 2**63 - 1)


def decode(parts: Sequence[Part], *, dialect: str, topic: str, received_ns: int, max_bytes: int = MAX_BYTES) -> Frame:
    """One message -> Frame. Raises MalformedFrameError with reason parts, header, htype, dtype, shape or size."""
    header_part, body = _split(parts, topic)
    header = _header(header_part)
    _check_htype(header, dialect)
    dtype = _dtype(header)
    shape = _shape(header, dialect, dtype.itemsize, max_bytes)
    number = _number(header)
    pixels = _pixels(body, dtype, shape)
    optics, bad = read_optics(header.get("ndattr"), width_px=shape[1])
    lane = Lane.INSPECT if optics.inspect else Lane.LIVE
    return Frame(number=number, pixels=pixels, optics=optics, lane=lane, received_ns=received_ns, bad_fields=bad)


def encode(
    number: int, pixels: NDArray[Any], optics: Optics, *, dialect: Dialect = "psi", topic: str = ""
) -> list[bytes | memoryview]:
    """The message that decode() reads. Unknown fields are left out; raises ValueError for what the wire cannot say."""
    name = pixels.dtype.name
    if name not in DTYPES or pixels.ndim != 2:
        raise ValueError(f"pixels {pixels.dtype} {pixels.shape}: the wire carries uint8, uint16 or float32, (h, w)")
    legacy = dialect == "adzmq_legacy"
    header = {
        "htype": ["array-1.0"] if legacy else "array-1.0",
        "type": name,
        "shape": list(pixels.shape[::-1] if legacy else pixels.shape),
        "frame": number,
        "ndattr": _told(optics),
    }
    body = np.ascontiguousarray(pixels, dtype=DTYPES[name]).data.cast("B")
    parts: list[bytes | memoryview] = [msgspec.json.encode(header), body]
    return [topic.encode(), *parts] if topic else parts


def _told(optics: Optics) -> dict[str, Any]:
    told = {}
    for name in Optics.__struct_fields__:
        value = getattr(optics, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} = {value}: leave an unknown field None")
        if value is not None:
            told[name] = value
    return told


def _split(parts: Sequence[Part], topic: str) -> tuple[Part, Part]:
    if topic and len(parts) == 3:
        if not bytes(parts[0][:MAX_TEXT]).startswith(topic.encode()):
            raise MalformedFrameError("parts", f"the leading part is not topic {topic!r}")
        parts = parts[1:]
    if len(parts) != 2:
        raise MalformedFrameError("parts", f"{len(parts)} parts; expected a JSON header and the pixels")
    return parts[0], parts[1]


def _header(part: Part) -> dict[str, Any]:
    try:
        header = msgspec.json.decode(part)
    except (ValueError, RecursionError):
        header = _lenient(part)
    if not isinstance(header, dict):
        raise MalformedFrameError("header", f"a JSON {type(header).__name__}; expected an object")
    return header


def _lenient(part: Part) -> Any:
    # A NaN literal, a huge number or a Latin-1 name spoils one field, not the frame: Python's reader lets them
    # through, and the field's own reader refuses them.
    try:
        return json.loads(bytes(part).decode("utf-8", "surrogateescape"), parse_int=_any_int)
    except (ValueError, RecursionError) as error:
        raise MalformedFrameError("header", f"not JSON: {error}") from None


def _any_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 20 else float(digits)


def _check_htype(header: Mapping[str, Any], dialect: str) -> None:
    if header.get("htype") not in HTYPES[dialect]:
        told = _short(header.get("htype"))
        raise MalformedFrameError("htype", f"{told} is not array-1.0 in dialect {dialect}; see frames.dialect")


def _dtype(header: Mapping[str, Any]) -> np.dtype[Any]:
    name = header.get("type")
    if not isinstance(name, str) or name not in DTYPES:
        raise MalformedFrameError("dtype", f"{_short(name)}; expected {', '.join(DTYPES)}")
    return DTYPES[name]


def _shape(header: Mapping[str, Any], dialect: str, itemsize: int, max_bytes: int) -> tuple[int, int]:
    told = header.get("shape")
    sides = [_integral(side) for side in told] if isinstance(told, list) and len(told) <= 3 else []
    if len(sides) == 3 and sides[2] == 1:
        sides.pop()
    if len(sides) != 2 or any(side is None or not 0 < side <= MAX_SIDE_PX for side in sides):
        raise MalformedFrameError("shape", f"{_short(told)}; expected two sides of 1 to {MAX_SIDE_PX} pixels")
    first, second = (side or 0 for side in sides)
    if first * second * itemsize > max_bytes:
        raise MalformedFrameError("shape", f"{first} x {second} x {itemsize} bytes is above the limit of {max_bytes}")
    return (second, first) if dialect == "adzmq_legacy" else (first, second)


def _number(header: Mapping[str, Any]) -> int:
    number = _integral(header.get("frame"))
    if number is None or not 0 <= number <= INT64[1]:
        raise MalformedFrameError("header", f"frame = {_short(header.get('frame'))}; expected a number from 0 on")
    return number


def _pixels(body: Part, dtype: np.dtype[Any], shape: tuple[int, int]) -> NDArray[Any]:
    expected = shape[0] * shape[1] * dtype.itemsize
    have = memoryview(body).nbytes
    if have != expected:
        raise MalformedFrameError("size", f"{have} bytes of pixels; shape {list(shape)} {dtype.name} has {expected}")
    pixels = np.frombuffer(body, dtype=dtype).reshape(shape)
    pixels.flags.writeable = False
    return pixels


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- ndattr, field by field. A reader returns the value, or None for what it cannot accept. ---

Reader = Callable[[Any], Any]


def _integral(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number_in(low: float, high: float) -> Reader:
    def read(value: Any) -> float | None:
        # NaN compares false with everything, so the range refuses it too.
        if type(value) is float:
            return value if low <= value <= high else None
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        return float(value) if good else None

    return read


def _int_in(low: int, high: int) -> Reader:
    def read(value: Any) -> int | None:
        number = value if type(value) is int else _integral(value)
        return number if number is not None and low <= number <= high else None

    return read


def _truth(value: Any) -> bool | None:
    # EPICS attributes have no boolean: 0 and 1 are how they say it. Nothing else is guessed at.
    if isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _text(value: Any) -> str | None:
    # A surrogate is a byte that was not UTF-8; it could not be sent on.
    good = isinstance(value, str) and len(value) <= MAX_TEXT and not any("\ud800" <= c <= "\udfff" for c in value)
    return value if good else None


def _averaging(value: Any) -> str | None:
    return value if value in ("none", "line", "frame", "recursive") else None


def _roi(value: Any) -> tuple[int, ...] | None:
    side = _int_in(0, MAX_SIDE_PX)
    sides = tuple(side(each) for each in value) if isinstance(value, list) and len(value) == 4 else (None,)
    return None if None in sides else sides


TINY = 1e-15  # stands for "above zero": a length, time or current of exactly 0 was not measured
_EPOCH = _int_in(*INT64)
_TIME = _int_in(0, INT64[1])
_STAGE = _number_in(-1.0, 1.0)  # no stage travels a metre
_SHIFT = _number_in(-1e-2, 1e-2)  # beam shift is micrometres; a centimetre is a unit error
_TURN = _number_in(-4 * math.pi, 4 * math.pi)  # two turns: beyond that somebody sent degrees
_KNOB = _number_in(-1e6, 1e6)  # brightness, contrast: the vendor's own unit
_VOLTS = _number_in(1.0, 1e6)
_LENGTH = _number_in(TINY, 1.0)
_COUNT = _int_in(1, 10**6)

READERS: dict[str, Reader] = {
    "session": _text,
    "source": _text,
    "optics_epoch": _EPOCH,
    "scene_epoch": _EPOCH,
    "t_start_ns": _TIME,
    "t_end_ns": _TIME,
    "averaging": _averaging,
    "average_count": _COUNT,
    "complete": _truth,
    "rows_valid": _int_in(0, MAX_SIDE_PX),
    "working_distance_m": _number_in(1e-6, 0.5),  # 5 would be millimetres
    "stigmator_unit": _text,
    "pixel_size_m": _number_in(1e-13, 1e-3),
    "pixel_size_y_m": _number_in(1e-13, 1e-3),
    "horizontal_field_width_m": _LENGTH,
    "full_width_px": _COUNT,
    "roi_px": _roi,
    "magnification": _number_in(1e-3, 1e9),
    "magnification_reference_width_m": _number_in(1e-4, 10.0),
    "dwell_time_s": _number_in(TINY, 10.0),
    "frame_time_s": _number_in(TINY, 86400.0),
    "accelerating_voltage_v": _VOLTS,
    "landing_energy_ev": _VOLTS,
    "beam_current_a": _number_in(0.0, 1e-2),
    "aperture_m": _number_in(TINY, 1e-1),
    "semi_convergence_angle_rad": _number_in(1e-6, 0.5),
    "lens_mode": _text,
    "brightness": _KNOB,
    "contrast": _KNOB,
    "bits_significant": _int_in(1, 32),
    "full_scale": _number_in(TINY, 1e38),
    "gamma": _number_in(1e-3, 1e3),
    "inverted": _truth,
    "stage_x_m": _STAGE,
    "stage_y_m": _STAGE,
    "stage_z_m": _STAGE,
    "stage_rotation_rad": _TURN,
    "stage_tilt_rad": _number_in(-math.pi, math.pi),
    "stage_moving": _truth,
    "stage_linked": _truth,
    "beam_shift_x_m": _SHIFT,
    "beam_shift_y_m": _SHIFT,
    "scan_rotation_rad": _TURN,
    "dynamic_focus": _truth,
    "tilt_correction": _truth,
    "blanked": _truth,
    "frozen": _truth,
    "auto_function_active": _truth,
    "inspect": _truth,
    "recipe": _text,
    "lot": _text,
    "wafer": _text,
    "die_x": _int_in(-(10**6), 10**6),
    "die_y": _int_in(-(10**6), 10**6),
    "databar_rows": _int_in(0, MAX_SIDE_PX),
}
STIGMATORS = ("stigmator_x", "stigmator_y")
UNITLESS = _number_in(-1.0, 1.0)
IN_UNITS = _number_in(-1e6, 1e6)


def read_optics(told: Any, *, width_px: int) -> tuple[Optics, tuple[str, ...]]:
    """`ndattr` -> what is known, and the names of the fields that were there and could not be read."""
    if told is None:
        return Optics(), ()
    if not isinstance(told, dict):
        return Optics(), ("ndattr",)
    known: dict[str, Any] = {}
    bad: list[str] = []
    for name, value in told.items():
        reader = READERS.get(name)
        if reader is None or value is None:
            continue
        read = reader(value)
        if read is None:
            bad.append(name)
        elif read != "":  # an empty name says nothing
            known[name] = read
    _read_stigmators(told, known, bad)
    size = _pixel_size(known, width_px)
    if size is not None:
        known["pixel_size_m"] = size
    return Optics(**known), tuple(bad)


def _read_stigmators(told: Mapping[str, Any], known: dict[str, Any], bad: list[str]) -> None:
    reader = IN_UNITS if known.get("stigmator_unit") not in (None, "1", "unitless") else UNITLESS
    for name in STIGMATORS:
        if told.get(name) is None:
            continue
        read = reader(told[name])
        if read is None:
            bad.append(name)
        else:
            known[name] = read


def _pixel_size(known: Mapping[str, Any], width_px: int) -> float | None:
    """Metres a pixel from whatever gives it; magnification without its reference width does not."""
    if "pixel_size_m" in known:
        return float(known["pixel_size_m"])
    # A cut-out has its own width; only the full scan's width goes with the full field.
    full_px = known.get("full_width_px") or (None if "roi_px" in known else width_px)
    field_m = known.get("horizontal_field_width_m")
    if field_m is None and "magnification" in known and "magnification_reference_width_m" in known:
        field_m = known["magnification_reference_width_m"] / known["magnification"]
    if field_m is None or full_px is None:
        return None
    size: float | None = READERS["pixel_size_m"](field_m / full_px)
    return size
