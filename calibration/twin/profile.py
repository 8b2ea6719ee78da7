"""What a fit found out about one tool: JSON in, the constants of emission, probe, charging and noise out. SI units.

A parameter that the frames did not determine stands at its prior and says so: a profile renders in any case.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from calibration.twin.emission import Emission, EmissionError

SCHEMA = 1
EMISSION = "emission."  # before the name of a field of `Emission`
SIGMA, STRETCH_X, STRETCH_XY = "probe.sigma_m", "probe.stretch_x", "probe.stretch_xy"
STRENGTH, LENGTH = "charging.strength", "charging.length_px"
KEEP = "amplifier.keep"  # what a pixel keeps of the one before it: exp(-1 / lag)
FACTOR = "noise.factor"
POSSIBLE = {  # least, most; those of the emission are in its own module
    SIGMA: (0.0, 1e-5),
    STRETCH_X: (-3.0, 3.0),
    STRETCH_XY: (-3.0, 3.0),
    STRENGTH: (-10.0, 10.0),
    LENGTH: (1e-2, 1e5),
    KEEP: (0.0, 0.99),
    FACTOR: (1e-3, 1e3),
}
NAMES = (*(EMISSION + each.name for each in fields(Emission)), *POSSIBLE)


class ProfileError(Exception):
    """A profile that cannot be read, or that says something impossible: which file, which field, what was expected."""


@dataclass(frozen=True)
class Spot:
    """The beam as an elliptic Gaussian. angle_rad: of the major axis, from +x towards +y, y down."""

    major_m: float  # sigma
    minor_m: float
    angle_rad: float


@dataclass(frozen=True)
class Charging:
    """As `scan.charging_tail` takes it; in pixels, since the tail is a time and the dwell time is the tool's."""

    strength: float
    length_px: float


@dataclass(frozen=True)
class Parameter:
    """One constant, with what it was allowed to be."""

    name: str
    value: float
    sigma: float | None  # one standard deviation; None: not determined
    determined: bool
    prior: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class FrameFit:
    """How well one frame is met. Level = gain * relative yield + offset, in the frame's own units."""

    name: str
    sha256: str
    geometry: str  # scene, heights, lines
    shape: tuple[int, int]  # of what was fitted
    pixel_size_m: float
    gain: float
    offset: float
    nrmse: float  # beyond noise, 5x5 box, over the 1st to 99th percentile
    noise_slope: float  # variance over signal: gain of the detector chain times (1 + delta + b)
    noise_slope_sigma: float | None  # None: the frame has one level of signal only
    counts: bool  # True: levels are electrons, and the slope is (1 + delta + b) itself
    placed: dict[str, float]  # what was found of where the frame lies, by name and unit
    placed_sigma: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """Two parameters the frames tell only together."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True)
class Profile:
    """One instrument under one recipe. Raises ProfileError for what no instrument can be."""

    instrument: str
    description: str
    made: str  # ISO 8601
    version: str  # of beamside
    frames: tuple[FrameFit, ...]
    parameters: tuple[Parameter, ...]
    correlated: tuple[Pair, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _require(self.schema == SCHEMA, "schema", self.schema, f"{SCHEMA}: fit the frames again")
        names = [each.name for each in self.parameters]
        for name in names:
            _require(name in NAMES, "parameters", name, f"one of {', '.join(NAMES)}")
            _require(names.count(name) == 1, "parameters", name, "each name once")
        for name in NAMES:
            _require(name in names, "parameters", names, f"{name} among them")
        for each in self.parameters:
            _check(each)
        try:
            _ = self.emission
        except EmissionError as error:
            raise ProfileError(str(error)) from None

    def determined(self, name: str) -> bool:
        """Did the frames tell it? Otherwise it stands at a prior that knows nothing of the tool."""
        return any(each.name == name and each.determined for each in self.parameters)

    def value(self, name: str) -> float:
        return self._values[name]

    @cached_property
    def _values(self) -> dict[str, float]:
        return {each.name: each.value for each in self.parameters}

    @cached_property
    def emission(self) -> Emission:
        return emission_of(self._values)

    @property
    def spot(self) -> Spot:
        return spot_of(self._values)

    @property
    def charging(self) -> Charging:
        return Charging(self.value(STRENGTH), self.value(LENGTH))

    @property
    def lag_px(self) -> float:
        """Of the amplifier's one pole, as `scan.amplifier` takes it."""
        keep = self.value(KEEP)
        return -1.0 / math.log(keep) if keep > 0.0 else 0.0

    @property
    def variance_factor(self) -> float:
        """Variance / mean of detected electrons, 1 + delta + b, as `scan.expose` takes it."""
        return self.value(FACTOR)

    def save(self, path: Path) -> None:
        """Atomic: a reader sees the old profile or the new one. Raises OSError."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(self.to_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False)


def load(path: Path) -> Profile:
    """Raises ProfileError with the file, the field and what was expected."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}; `beamside calibrate twin` writes one") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: not JSON ({error})") from error
    try:
        return _profile(raw)
    except ProfileError as error:
        raise ProfileError(f"{path}: {error}") from None
    except (TypeError, ValueError, KeyError) as error:
        raise ProfileError(f"{path}: not a profile as `beamside calibrate twin` writes it: {error}") from error


def emission_of(values: dict[str, float]) -> Emission:
    return Emission(**{each.name: values[EMISSION + each.name] for each in fields(Emission)})


def spot_of(values: dict[str, float]) -> Spot:
    """The axes are sigma * exp(+-e) along half the angle of (stretch_x, stretch_xy), whose length is e: no jump where
    the spot is round."""
    x, xy = values[STRETCH_X], values[STRETCH_XY]
    stretch = math.exp(math.hypot(x, xy))
    return Spot(values[SIGMA] * stretch, values[SIGMA] / stretch, 0.5 * math.atan2(xy, x))


def stretch_of(spot: Spot) -> tuple[float, float, float]:
    """sigma, stretch_x and stretch_xy of a spot: `spot_of` the other way round. A point has no stretch."""
    if spot.minor_m <= 0.0:
        return math.sqrt(max(spot.major_m * spot.minor_m, 0.0)), 0.0, 0.0
    long = 0.5 * math.log(spot.major_m / spot.minor_m)
    turn = 2.0 * spot.angle_rad
    return math.sqrt(spot.major_m * spot.minor_m), long * math.cos(turn), long * math.sin(turn)


def _profile(raw: Any) -> Profile:
    if not isinstance(raw, dict):
        raise ProfileError(f"expected a JSON object, found {type(raw).__name__}")
    known = [each.name for each in fields(Profile)]
    for name in raw:
        _require(name in known, "field", name, f"one of {', '.join(known)}")
    _require(raw.get("schema") == SCHEMA, "schema", raw.get("schema"), f"{SCHEMA}: fit the frames again")
    frames = tuple(FrameFit(**{**each, "shape": (each["shape"][0], each["shape"][1])}) for each in raw["frames"])
    parameters = tuple(Parameter(**each) for each in raw["parameters"])
    pairs = tuple(Pair(**each) for each in raw.get("correlated", ()))
    return Profile(**{**raw, "frames": frames, "parameters": parameters, "correlated": pairs})


def _check(each: Parameter) -> None:
    for field in ("value", "prior", "low", "high"):
        _require(_is_number(getattr(each, field)), f"{each.name}: {field}", getattr(each, field), "a number")
    _require(isinstance(each.determined, bool), f"{each.name}: determined", each.determined, "true or false")
    sigma_fits = _is_number(each.sigma) and float(each.sigma or 0.0) >= 0.0 if each.determined else each.sigma is None
    wanted = "zero or more" if each.determined else "null, since it is not determined"
    _require(sigma_fits, f"{each.name}: sigma", each.sigma, wanted)
    if each.name in POSSIBLE:
        least, most = POSSIBLE[each.name]
        _require(least <= each.value <= most, each.name, each.value, f"a value in {least:g} .. {most:g}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _require(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise ProfileError(f"{name} = {value!r}; expected {expected}")
