"""One shard on disk: arrays in an .npz without pickles, its SHA-256 beside it; there whole, or not at all.

The same arrays give the same bytes. `<shard>.npz.sha256` is a line as `sha256sum -c` reads it.
"""

import hashlib
import os
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from calibration.dataset.errors import DatasetError

Arrays = dict[str, NDArray[Any]]  # each of the same length

BESIDE = ".sha256"
PARTIAL = ".partial"
NO_DATE = (1980, 1, 1, 0, 0, 0)  # a zip's earliest: the same arrays are the same bytes on any day


def write(path: Path, arrays: Arrays) -> str:
    """The shard and its checksum, safe on disk under their names once this returns. -> the checksum.

    Raises OSError with the path where the disk is full or cannot be written; nothing half-done stays.
    """
    data = packed(arrays)
    digest = hashlib.sha256(data).hexdigest()
    # The checksum first: a shard that stands under its name was finished, and a checksum alone is no shard.
    place(_beside(path), f"{digest}  {path.name}\n".encode())
    place(path, data)
    return digest


def load(path: Path, sha256: str | None = None) -> Arrays:
    """The arrays, once their bytes are those of the checksum: the one given, else the one beside the shard.

    Raises DatasetError naming the shard.
    """
    wanted = sha256 or told(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"shard {path} cannot be read: {error.strerror}; make it again by the same command"
        ) from error
    if wanted is None:
        raise DatasetError(f"shard {path} has no checksum {_beside(path).name} beside it; make it again")
    if hashlib.sha256(data).hexdigest() != wanted:
        raise DatasetError(
            f"shard {path} is damaged: its {len(data)} bytes are not those of its checksum; make it again"
        )
    with np.load(BytesIO(data), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def intact(path: Path) -> Arrays | None:
    """The arrays of a shard that is there and whole; None where it has to be made."""
    try:
        return load(path)
    except DatasetError:
        return None


def told(path: Path) -> str | None:
    """What the file beside the shard says; None where there is none, or nothing like a checksum in it."""
    try:
        words = _beside(path).read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words and len(words[0]) == 64 else None


def remove(path: Path) -> None:
    """The shard, its checksum and what an interrupted run left of either."""
    for each in (path, _beside(path)):
        each.unlink(missing_ok=True)
        _partial(each).unlink(missing_ok=True)


def packed(arrays: Arrays) -> bytes:
    """An .npz as numpy reads it, uncompressed: noise does not compress."""
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", NO_DATE), "w", force_zip64=True) as entry:
                npy.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)
    return out.getvalue()


def place(path: Path, data: bytes) -> None:
    """The file, whole under its name and on the disk itself; on any failure as it was before."""
    partial = _partial(path)
    try:
        with partial.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
        _settle(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _settle(folder: Path) -> None:
    """The folder's own entry too: a rename is not on the disk before that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + BESIDE)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)
