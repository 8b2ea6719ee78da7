"""Real pictures with YOLO boxes of one class, `particle`, as pictures with truth: counts and boxes, no contrast.

A label is a line `class x y width height`, the centre first, all in shares of the picture; an empty file: no particle.
"""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from calibration.evaluate.defects_pixels import eight_bits
from calibration.evaluate.defects_truth import (
    Box,
    Case,
    Picture,
    PictureSet,
    Reader,
    SetError,
    Split,
    TrueDefect,
    checked,
)
from engines.scene import Scene

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
IMAGES, LABELS = "images", "labels"
PARTICLE = "particle"
BESIDE = ("classes", "readme", "licence", "license", "provenance")  # texts that are no labels
ROUND = 1e-3  # of the picture: boxes may reach so far over its edge by rounding


def holds_boxes(folder: Path) -> bool:
    """Are there pictures, and labels beside them or in their own folder?"""
    return (folder / IMAGES).is_dir() or (folder / LABELS).is_dir() or bool(_images(folder))


def open_boxes(folder: Path, reader: Reader) -> PictureSet:
    """Raises SetError for pictures without labels, labels without pictures, or lines that are no boxes."""
    apart = (folder / IMAGES).is_dir() or (folder / LABELS).is_dir()
    pictures, labels = (folder / IMAGES, folder / LABELS) if apart else (folder, folder)
    for each in (pictures, labels):
        if not each.is_dir():
            raise SetError(f"{each}: missing; pictures belong into {IMAGES}/ and their boxes into {LABELS}/")
    found = _images(pictures)
    if not found:
        raise SetError(f"{pictures}: no picture here ({', '.join(SUFFIXES)})")
    stems = {path.stem for path in found}
    if len(stems) < len(found):
        raise SetError(f"{pictures}: two pictures share a name but for its ending; their label would be one: rename")
    texts = {path.stem for path in labels.glob("*.txt") if apart or path.stem.lower() not in BESIDE}
    for stem in sorted(stems - texts):
        raise SetError(f"{labels / stem}.txt: missing; an empty file says that nothing is in the picture")
    for stem in sorted(texts - stems):
        raise SetError(f"{labels / stem}.txt: no picture of that name in {pictures}")
    split = Split("pictures", "real pictures with boxes drawn by people")
    notes = ("one class, no contrast is known: every box counts as visible",)
    return PictureSet(folder, "boxes", (split,), len(found), partial(_pictures, found, labels, reader), notes)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)


def _pictures(found: list[Path], labels: Path, reader: Reader) -> Iterator[Picture]:
    for path in found:
        read = reader(path)
        image = eight_bits(read.pixels)
        height, width = image.shape
        truth = boxes(labels / f"{path.stem}.txt", height=height, width=width)
        scene = Scene(pixel_size_m=read.pixel_size_m)
        case = Case(path.name, "pictures", path.stem, (height, width), scene, truth, pixel_size_m=read.pixel_size_m)
        yield Picture(checked(case), image)


def boxes(path: Path, *, height: int, width: int) -> tuple[TrueDefect, ...]:
    """The boxes of one label. Raises SetError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetError(f"{path}: cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return tuple(TrueDefect(PARTICLE, _box(path, number, line, (height, width))) for number, line in numbered)


def _box(path: Path, number: int, line: str, shape: tuple[int, int]) -> Box:
    words = line.split()
    try:
        label, x, y, w, h = (float(word) for word in words)
    except ValueError:
        raise SetError(f"{path}:{number}: {line!r}; `class x y width height` is expected") from None
    if label != 0.0:
        raise SetError(f"{path}:{number}: class {words[0]}; one class, 0 ({PARTICLE}), is expected")
    ends = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if not all(math.isfinite(end) and -ROUND <= end <= 1.0 + ROUND for end in ends) or w <= 0.0 or h <= 0.0:
        raise SetError(f"{path}:{number}: {line!r}; shares of the picture from 0 to 1 are expected")
    x0, y0, x1, y1 = (min(max(end, 0.0), 1.0) for end in ends)
    height, width = shape
    return x0 * width, y0 * height, x1 * width, y1 * height
