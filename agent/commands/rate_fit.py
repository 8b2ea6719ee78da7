"""Ratings and frames in, a score scale out: the model reads what was rated, the curve is fitted, doubts are told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np

from agent import settings as configuration
from agent.commands.rate_frames import Candidate, LeftOut, view
from agent.commands.rate_table import Rating
from agent.errors import BeamsideError, EngineError, UsageError
from engines.autofocus import Autofocus
from engines.errors import InferenceError, ModelError
from engines.load import load
from engines.manifest import Manifest
from engines.score_scale import Rater, ScoreScale
from engines.tiles import read_focus

CPU = "onnxruntime"  # the reference that all other backends are held to


@dataclass(frozen=True)
class Rated:
    """A frame with what the model and the raters say of it. One place in the plot."""

    path: str
    score: float  # of the model
    ratings: tuple[tuple[str, float], ...]  # (rater, mean of what he said), by name

    @property
    def rating(self) -> float:
        return float(np.mean([said for _, said in self.ratings]))


@dataclass(frozen=True)
class Result:
    """A scale and what it rests on."""

    scale: ScoreScale
    rated: tuple[Rated, ...]
    left_out: tuple[LeftOut, ...]
    unsized: int = 0  # frames that were read without a pixel size


class Judge:
    """The autofocus model on files; each frame is read once, however often a fit is asked for."""

    def __init__(self, autofocus: Autofocus, manifest: Manifest, pixel_size_m: float | None) -> None:
        self._autofocus, self.manifest, self._pixel_size_m = autofocus, manifest, pixel_size_m
        self._known: dict[str, float] = {}
        self._unsized: set[str] = set()

    @classmethod
    def loaded(cls, pixel_size_m: float | None) -> Self:
        """The model that the configuration names, on the CPU. Raises EngineError."""
        wanted = configuration.load().engines
        try:
            loaded = load("autofocus", models=wanted.models, backend=CPU, threads=wanted.threads)
        except ModelError as error:
            raise EngineError(str(error)) from error
        return cls(Autofocus(loaded), loaded.manifest, pixel_size_m)

    def score(self, frame: Candidate) -> float:
        """0 for a blank picture, as the agent has it. Raises BeamsideError where it cannot be read."""
        if frame.sha256 not in self._known:
            self._known[frame.sha256] = self._read(frame)
        return self._known[frame.sha256]

    @property
    def unsized(self) -> int:
        """Frames read without their pixel size."""
        return len(self._unsized)

    def _read(self, frame: Candidate) -> float:
        shown = view(frame)
        if shown.blank:
            return 0.0
        pixel_size_m = self._pixel_size_m or shown.scene.pixel_size_m
        if pixel_size_m is None:
            self._unsized.add(frame.sha256)
        try:
            read = read_focus(self._autofocus, shown.padded, pixel_size_m)
        except (InferenceError, ArithmeticError) as error:
            raise EngineError(f"{frame.path}: {error}") from error
        if read is None:
            raise EngineError(f"{frame.path}: too small to judge focus")
        return read.score


@dataclass(frozen=True)
class Wanted:
    """Whose ratings make the scale, and what it may serve."""

    raters: tuple[str, ...]
    any_model: bool = False


def fitted(
    ratings: Sequence[Rating],
    frames: Sequence[Candidate],
    wanted: Wanted,
    *,
    judge: Judge,
    progress: Callable[[int, int], None],
) -> Result:
    """Raises BeamsideError where these ratings make no scale, saying why."""
    from calibration.rating import RatingError, fit

    mine = [each for each in ratings if each.rater in wanted.raters]
    rated, left_out = _joined(mine, frames, judge, progress)
    scores, said = (np.array([getattr(each, name) for each in rated], np.float64) for name in ("score", "rating"))
    try:
        found = fit(scores, said, np.array([len(each.ratings) for each in rated], np.float64))
    except RatingError as error:
        raise BeamsideError(f"no scale: {error}") from error
    scale = ScoreScale(
        knots=tuple(zip(found.curve.scores.tolist(), found.curve.ratings.tolist(), strict=True)),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        model=judge.manifest.label,
        model_sha256=judge.manifest.sha256,
        any_model=wanted.any_model,
        raters=tuple(_rater(name, mine) for name in wanted.raters),
        frames=len(rated),
        rated_low=float(scores.min()),
        rated_high=float(scores.max()),
        spearman=found.spearman,
        error_before=found.error_before,
        error_left_out=found.error_left_out,
        error_after=found.error_after,
    )
    return Result(scale, tuple(rated), tuple(left_out), judge.unsized)


def _joined(
    ratings: Sequence[Rating], frames: Sequence[Candidate], judge: Judge, progress: Callable[[int, int], None]
) -> tuple[list[Rated], list[LeftOut]]:
    """Each rated frame with the model's score; a file that cannot be read any more costs its ratings only."""
    by_sha: dict[str, dict[str, list[float]]] = {}
    for each in ratings:
        if each.score is not None:
            by_sha.setdefault(each.sha256, {}).setdefault(each.rater, []).append(each.score)
    rated, left_out = [], []
    todo = [frame for frame in frames if frame.sha256 in by_sha]
    for number, frame in enumerate(todo, start=1):
        means = tuple(sorted((rater, float(np.mean(said))) for rater, said in by_sha[frame.sha256].items()))
        try:
            rated.append(Rated(str(frame.path), judge.score(frame), means))
        except BeamsideError as error:
            left_out.append(LeftOut(str(frame.path), str(error).removeprefix(f"{frame.path}: ")))
        progress(number, len(todo))
    return rated, left_out


def _rater(name: str, ratings: Sequence[Rating]) -> Rater:
    from calibration.rating import repeat_sigma

    mine = [each for each in ratings if each.rater == name]
    first, second = ({each.sha256: each.score for each in mine if each.repeat is again} for again in (False, True))
    both = [(first[sha], said) for sha, said in second.items() if first.get(sha) is not None]
    pairs = np.array(both, np.float64).reshape(-1, 2)
    sigma = repeat_sigma(pairs[:, 0], pairs[:, 1])
    return Rater(name=name, frames=len({*first, *second}), repeats=len(pairs), repeat_sigma=sigma)


def raters_of(ratings: Sequence[Rating], asked: str | None, *, together: bool, table: Path) -> tuple[str, ...]:
    """Whose ratings are meant. Raises UsageError where that is not clear."""
    known = sorted({each.rater for each in ratings})
    if together and known:
        return tuple(known)
    if asked is not None:
        if asked not in known:
            there = f"those of {', '.join(known)} are there" if known else "there are none at all"
            raise UsageError(f"{table}: no ratings by {asked}; {there}")
        return (asked,)
    if len(known) != 1:
        there = f"ratings by {', '.join(known)}: name one with --rater, or give --together" if known else "no ratings"
        raise UsageError(f"{table}: {there}")
    return (known[0],)
