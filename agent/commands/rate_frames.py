"""The frames to be rated: files and folders in; readable pictures, each once, out, and why the others are left out."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.bridges.files import SUFFIXES, images_in, read_image
from agent.commands.look_view import View, view_of
from agent.errors import BeamsideError, ImageError, UsageError
from engines.autofocus import SMALLEST_PX


@dataclass(frozen=True)
class Candidate:
    """A frame that can be rated. Its pixels are read again when they are shown: many large ones need no memory."""

    path: Path
    sha256: str  # of the pixels
    shape: tuple[int, int]  # h, w as shown, without the data bar


@dataclass(frozen=True)
class LeftOut:
    """A file that is not rated, or not used, and why."""

    path: str
    error: str


@dataclass(frozen=True)
class Frames:
    """What there is to rate, in the order given."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]


def gathered(given: Sequence[Path], progress: Callable[[int, int], None]) -> Frames:
    """Raises UsageError where no frame is left to rate."""
    kept: dict[str, Candidate] = {}
    left_out: list[LeftOut] = []
    paths = listed(given)
    for number, path in enumerate(paths, start=1):
        try:
            candidate = candidate_of(path)
            if candidate.sha256 in kept:
                raise ImageError(f"the same picture as {kept[candidate.sha256].path}: it is rated once")
            kept[candidate.sha256] = candidate
        except BeamsideError as error:
            left_out.append(LeftOut(str(path), str(error).removeprefix(f"{path}: ")))
        progress(number, len(paths))
    if not kept:
        reason = f": {left_out[0].path}: {left_out[0].error}" if left_out else ""
        raise UsageError(f"no frame to rate among {len(paths)} files{reason}")
    return Frames(tuple(kept.values()), tuple(left_out))


def listed(given: Sequence[Path]) -> list[Path]:
    """Folders stand for the pictures in them, one level deep. Raises UsageError for what is not there."""
    paths: list[Path] = []
    for each in given:
        try:
            found = images_in(each)
        except ImageError as error:
            raise UsageError(str(error)) from error
        paths += [each] if each.is_file() else [path for path in found if path.suffix.lower() in SUFFIXES]
    return list(dict.fromkeys(paths))


def candidate_of(path: Path) -> Candidate:
    """Raises ImageError where the file is no picture, or one too small for the model to judge."""
    pixels, optics = read_image(path)
    height, width = view_of(pixels, optics).shape
    if min(height, width) < SMALLEST_PX:
        raise ImageError(
            f"{path}: {width} x {height} px is too small to judge focus ({SMALLEST_PX} px a side at least)"
        )
    return Candidate(path, digest(pixels), (height, width))


def digest(pixels: NDArray[Any]) -> str:
    """sha256 of shape, type and values."""
    told = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str}".encode())
    told.update(np.ascontiguousarray(pixels).data)
    return told.hexdigest()


def view(candidate: Candidate) -> View:
    """The picture as models are shown it. Raises ImageError, also where the file holds other pixels by now."""
    pixels, optics = read_image(candidate.path)
    if digest(pixels) != candidate.sha256:
        raise ImageError(f"{candidate.path}: the file holds another picture than when it was listed")
    return view_of(pixels, optics)


def png(candidate: Candidate) -> bytes:
    """The picture in grey levels, pixel for pixel; without the data bar, which may tell what is to be judged."""
    done, data = cv2.imencode(".png", view(candidate).levels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ImageError(f"{candidate.path}: OpenCV could not encode the picture")
    return data.tobytes()


def found_again(wanted: Iterable[tuple[str, Path]], progress: Callable[[int, int], None]) -> Frames:
    """Frames of a table of ratings (sha256, path), wherever they were not given on the command line."""
    kept: list[Candidate] = []
    left_out: list[LeftOut] = []
    todo = list(wanted)
    for number, (sha256, path) in enumerate(todo, start=1):
        try:
            candidate = candidate_of(path)
            if candidate.sha256 != sha256:
                raise ImageError("the file holds another picture than the one that was rated")
            kept.append(candidate)
        except BeamsideError as error:
            left_out.append(LeftOut(str(path), str(error).removeprefix(f"{path}: ")))
        progress(number, len(todo))
    return Frames(tuple(kept), tuple(left_out))
