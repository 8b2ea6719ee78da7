"""One instrument's constants, as calibration measured them: read by the agent, written by a sweep. JSON, SI units.

numpy only: the agent reads it on machines that have nothing of calibration installed.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

SCHEMA = 1


class CertificateError(Exception):
    """The certificate cannot be read or says something impossible."""


@dataclass(frozen=True)
class Limits:
    """How far the instrument may be moved, whoever asks."""

    working_distance_min_m: float
    working_distance_max_m: float
    step_m: float  # largest single change of working distance
    cumulative_m: float  # largest distance from where a routine began
    stigmator_min: float = -1.0
    stigmator_max: float = 1.0
    stigmator_step: float = 0.5


@dataclass(frozen=True)
class Certificate:
    """What beamside must know of a column to turn blur into metres.

    stigmator_matrix_m: [[ax per x, ax per y], [ay per x, ay per y]], metres of two-fold astigmatism per stigmator unit.
    """

    instrument: str
    made: str  # ISO 8601
    expires: str
    alpha_rad: float
    alpha_sigma_rad: float
    stigmator_matrix_m: tuple[tuple[float, float], tuple[float, float]]
    limits: Limits
    fw50_m: float = 0.0  # in-focus probe, for the half depth of focus
    cross_terms: dict[str, float] = field(default_factory=dict)
    hysteresis_m: float = 0.0
    settle_s: float = 0.2
    shift_px_per_m: tuple[float, float] = (0.0, 0.0)
    scale_per_m: float = 0.0
    height_scale: float | None = None  # a height on this instrument over the depth model's; None: nobody measured it
    height_scale_sigma: float | None = None  # one standard deviation
    residuals: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _require(0 < self.alpha_rad < 0.1, "alpha_rad", self.alpha_rad, "an angle between 0 and 0.1 rad")
        _require(0 <= self.alpha_sigma_rad < self.alpha_rad, "alpha_sigma_rad", self.alpha_sigma_rad, "less than alpha")
        _require(self.hysteresis_m >= 0, "hysteresis_m", self.hysteresis_m, "zero or more")
        _require(self.settle_s >= 0, "settle_s", self.settle_s, "zero or more")
        low, high = self.limits.working_distance_min_m, self.limits.working_distance_max_m
        _require(0 < low < high, "limits", (low, high), "0 < minimum < maximum working distance")
        _require(self.limits.step_m > 0, "limits.step_m", self.limits.step_m, "above zero")
        _require(self.limits.cumulative_m > 0, "limits.cumulative_m", self.limits.cumulative_m, "above zero")
        self._check_heights()
        _require(self.schema == SCHEMA, "schema", self.schema, f"{SCHEMA}: make a new certificate")

    def _check_heights(self) -> None:
        scale, sigma = self.height_scale, self.height_scale_sigma
        if scale is None and sigma is None:
            return
        _require(scale is not None and 0 < scale < 100, "height_scale", scale, "a factor between 0 and 100")
        _require(sigma is not None and 0 <= sigma < (scale or 0), "height_scale_sigma", sigma, "less than height_scale")

    def expired(self, now: datetime) -> bool:
        expires = datetime.fromisoformat(self.expires)
        return now >= (expires if expires.tzinfo else expires.replace(tzinfo=UTC))

    def stigmator_to_astigmatism_m(self, x: float, y: float) -> tuple[float, float]:
        (xx, xy), (yx, yy) = self.stigmator_matrix_m
        return xx * x + xy * y, yx * x + yy * y

    def astigmatism_to_stigmator(self, ax_m: float, ay_m: float) -> tuple[float, float] | None:
        """Stigmator change that makes this astigmatism, or None when the stigmators have no known effect."""
        matrix = np.asarray(self.stigmator_matrix_m)
        if np.linalg.matrix_rank(matrix, tol=1e-12) < 2:
            return None
        x, y = np.linalg.solve(matrix, [ax_m, ay_m])
        return float(x), float(y)

    def save(self, path: Path) -> None:
        """Atomic: a reader sees the old certificate or the new one, never half of it."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self), indent=2) + "\n")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises CertificateError with the file, the field and what was expected."""
        try:
            raw = json.loads(path.read_text())
        except OSError as error:
            raise CertificateError(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise CertificateError(f"{path}: not JSON ({error})") from error
        try:
            return cls(**_fields(raw))
        except CertificateError as error:
            raise CertificateError(f"{path}: {error}") from None
        except (TypeError, ValueError, KeyError) as error:
            raise CertificateError(f"{path}: {error}") from error


def _fields(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise CertificateError("a JSON object was expected")
    known = {f.name for f in fields(Certificate)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise CertificateError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    (xx, xy), (yx, yy) = raw["stigmator_matrix_m"]
    shift_x, shift_y = raw.get("shift_px_per_m", (0.0, 0.0))
    limits = Limits(**raw["limits"])
    return {
        **raw,
        "limits": limits,
        "stigmator_matrix_m": ((float(xx), float(xy)), (float(yx), float(yy))),
        "shift_px_per_m": (float(shift_x), float(shift_y)),
    }


def _require(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise CertificateError(f"{name} = {value!r}; expected {expected}")
