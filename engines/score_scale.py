"""An operator's own score scale: a score of the autofocus model in, what the operator would say out; once a frame.

A table of knots, straight between them and constant beyond. It belongs to the model whose scores were rated: another
model's mean something else, and the scale is refused there unless its maker said that it may serve any.
"""

import os
from itertools import pairwise
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from engines.errors import ModelError

SCHEMA = 1
WORST, BEST = 0.0, 10.0  # of both scales


class ScaleError(ModelError):
    """A score scale that cannot be read, says something impossible, or was made for another model."""


class Rater(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who rated, and how well he agrees with himself."""

    name: str
    frames: int  # distinct ones
    repeats: int  # of them shown a second time
    repeat_sigma: float | None  # one standard deviation of a single rating, points; None: nothing was shown twice


class ScoreScale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON file, field by field. Raises ScaleError where it cannot be."""

    knots: tuple[tuple[float, float], ...]  # (model's score, operator's), rising; both 0..10
    made: str  # ISO 8601
    model: str  # name@sha of the model whose scores were rated
    model_sha256: str
    any_model: bool = False  # True: its maker lets it serve other models too
    raters: tuple[Rater, ...]
    frames: int  # distinct ones that the fit rests on
    rated_low: float  # the model's scores of the frames rated reach from here
    rated_high: float
    spearman: float  # rank correlation of rating and model's score
    error_before: float  # rms of rating minus model's score, points
    error_left_out: float  # rms of rating minus scale, each frame told by a scale of the others
    error_after: float  # rms of rating minus scale, of the frames it was fitted to
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        x, y = [knot[0] for knot in self.knots], [knot[1] for knot in self.knots]
        _require(len(x) >= 2, "knots", len(x), "two at least")
        _require(all(WORST <= value <= BEST for value in (*x, *y)), "knots", self.knots, "numbers from 0 to 10")
        _require(all(a < b for a, b in pairwise(x)), "knots", x, "model's scores, each above the last")
        _require(all(a <= b for a, b in pairwise(y)), "knots", y, "ratings, none below the last")
        _require(self.schema == SCHEMA, "schema", self.schema, f"{SCHEMA}: rate again, or fit again with --fit-only")

    def told(self, score: float) -> float:
        """The operator's number for a score of the model."""
        x, y = np.array(self.knots, np.float64).T
        return float(np.interp(score, x, y))

    def check_model(self, label: str, sha256: str) -> None:
        """Raises ScaleError where another model's scores were rated."""
        if self.any_model or self.model_sha256 == sha256:
            return
        raise ScaleError(
            f"made for {self.model}, and {label} is in service: fit it again to the same ratings (beamside calibrate "
            "rate --fit-only), with --any-model if it shall serve whatever model there is"
        )

    def save(self, path: Path) -> None:
        """Atomic: a reader sees the old scale or the new one, never half of it, after a power cut too."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises ScaleError with the file, the field and what was expected."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise ScaleError(f"{path}: {error.strerror}") from error
        except ScaleError as error:
            raise ScaleError(f"{path}: {error}") from None
        except msgspec.MsgspecError as error:
            raise ScaleError(f"{path}: not a score scale: {error}") from error


def on_scale(scale: ScoreScale | None, score: float | None) -> float | None:
    """What is said outside of a score, where an operator's scale may be in service."""
    return score if scale is None or score is None else scale.told(score)


def _require(ok: bool, name: str, value: object, expected: str) -> None:
    if not ok:
        raise ScaleError(f"{name} = {value!r}; expected {expected}")
