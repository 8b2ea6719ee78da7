"""A height map as it comes, tile by tile: its mean, a preview small enough to draw, and the .npy file where asked.

Rows go to disk as soon as they are whole, so that a map of a gigabyte never stands in memory; the file appears under
its name only once it is complete.
"""

import math
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import cv2
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from engines.tiles import Span, Tile

PREVIEW_PX = 2048  # longest side of the preview, where a reduction of 32 is enough for it
MOST_REDUCED = 32  # seams lie at multiples of it


class Relief:
    """Takes tiles row by row, left to right. Raises OSError when the file cannot be written."""

    def __init__(self, shape: tuple[int, int], path: Path | None) -> None:
        self.shape = shape  # of the picture, without padding
        self.reduced = _reduction(max(shape))
        self.preview = np.zeros([math.ceil(side / self.reduced) for side in shape], np.float32)  # metres
        self._sum = 0.0
        self._band: NDArray[np.float32] | None = None
        self._path = path
        self._file: IO[bytes] | None = None

    @property
    def mean_m(self) -> float:
        return self._sum / (self.shape[0] * self.shape[1])

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = _partial(self._path).open("wb")
            told = {"descr": npy.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": self.shape}
            npy.write_array_header_1_0(self._file, told)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is None or self._path is None:
            return
        self._file.close()
        if kind is None:
            _partial(self._path).replace(self._path)
        else:
            _partial(self._path).unlink(missing_ok=True)

    def take(self, tile: Tile, height_m: NDArray[np.float32]) -> None:
        """height_m: the tile's own map, halo included; its core counts, as far as the picture reaches."""
        rows, columns = _reach(tile.rows, self.shape[0]), _reach(tile.columns, self.shape[1])
        core = height_m[tile.rows.inside, tile.columns.inside][: rows.stop - rows.start, : columns.stop - columns.start]
        if not core.size:
            return
        self._sum += float(core.sum(dtype=np.float64))
        self._show(core, rows.start, columns.start)
        if self._file is not None:
            self._write(core, columns)

    def _show(self, core: NDArray[np.float32], top: int, left: int) -> None:
        small = core if self.reduced == 1 else _blocks(core, self.reduced)
        y, x = top // self.reduced, left // self.reduced
        self.preview[y : y + small.shape[0], x : x + small.shape[1]] = small

    def _write(self, core: NDArray[np.float32], columns: slice) -> None:
        """Rows are written once the last tile of their row of tiles is here."""
        if columns.start == 0:
            self._band = np.zeros((core.shape[0], self.shape[1]), np.float32)
        assert self._band is not None and self._file is not None
        self._band[:, columns] = core
        if columns.stop == self.shape[1]:
            self._file.write(self._band.data)


def _reach(span: Span, length: int) -> slice:
    return slice(min(span.core_start, length), min(span.core_stop, length))


def _blocks(core: NDArray[np.float32], reduced: int) -> NDArray[np.float32]:
    """The means of blocks of `reduced` x `reduced`; at ragged ends of what there is, repeated."""
    down, right = -core.shape[0] % reduced, -core.shape[1] % reduced
    if down or right:
        core = np.asarray(cv2.copyMakeBorder(core, 0, down, 0, right, cv2.BORDER_REPLICATE), np.float32)
    size = core.shape[1] // reduced, core.shape[0] // reduced
    return np.asarray(cv2.resize(core, size, interpolation=cv2.INTER_AREA), np.float32)


def _reduction(longest: int) -> int:
    """A power of two, so that no block of it lies across a seam."""
    reduced = 1
    while reduced < MOST_REDUCED and longest > PREVIEW_PX * reduced:
        reduced *= 2
    return reduced


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")
