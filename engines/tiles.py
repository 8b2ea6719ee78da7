"""A picture of any size through the models, in overlapping tiles: memory is bounded by the tile, not by the picture.

Each output of a dense model depends on its own neighbourhood only, and the levels of the whole picture are told to each
tile; so a tile's core is read exactly as the same place of the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engines.defects import OVERLAP
from engines.readings import Defects, DepthMap, FocusReading, FoundDefect
from engines.scene import STRIDE_PX, Levels, Scene

LARGEST_WHOLE_PX = 2048 * 3072  # up to here a picture is read in one piece
TILE_PX = 1600  # side of a tile with its halo; a multiple of the stride
HALO_PX = (
    160  # what a dense output sees to either side is less: 96 of the encoder, 36 of its coarsest cell, 20 of heads
)
CROP_PX = 1024  # of the crops that stand for a large picture's focus
PLACES = ((0.5, 0.5), (0.2, 0.2), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8))  # of their centres, shares of height and width
TELLING = 0.5  # of the richest crop's content: emptier ones say little of focus
SEAM_PX = 1.0  # a centre this near to a seam counts on both sides, then once: rounding must lose none

Box = tuple[float, float, float, float]


class FocusReader(Protocol):
    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None: ...


class DepthReader(Protocol):
    def read(self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None) -> DepthMap | None: ...


class DefectReader(Protocol):
    wants_reference: bool  # else it is not given one

    def read(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
    ) -> Defects: ...


@dataclass(frozen=True)
class Whole:
    """A picture as the dense models are told of it, whatever part of it they are shown."""

    image: NDArray[np.uint8]  # (h, w) padded to the stride
    scene: Scene
    levels: Levels  # of the picture without its padding


@dataclass(frozen=True)
class Span:
    """Along one axis: what a tile is shown, and the part within that it answers for. Stops are exclusive."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def inside(self) -> slice:
        """The core, counted from the tile's own start."""
        return slice(self.core_start - self.start, self.core_stop - self.start)


@dataclass(frozen=True)
class Tile:
    """Where a tile lies in its picture."""

    rows: Span
    columns: Span

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(image[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop])


def tiles(shape: tuple[int, int], *, largest_px: int = LARGEST_WHOLE_PX, side_px: int = TILE_PX) -> list[Tile]:
    """Row by row; one tile where the picture is small enough. Both sides of `shape` are multiples of the stride."""
    height, width = shape
    if height * width <= largest_px:
        return [Tile(_whole(height), _whole(width))]
    return [Tile(rows, columns) for rows in spans(height, side_px) for columns in spans(width, side_px)]


def spans(length: int, side_px: int = TILE_PX) -> list[Span]:
    """Tiles of one size along one axis, a halo on each side of every seam; the last reaches back to keep its size."""
    if length <= side_px:
        return [_whole(length)]
    starts = [*range(0, length - side_px, side_px - 2 * HALO_PX), length - side_px]
    seams = [0, *(start + HALO_PX for start in starts[1:]), length]
    return [Span(a, a + side_px, low, high) for a, low, high in zip(starts, seams[:-1], seams[1:], strict=True)]


def _whole(length: int) -> Span:
    return Span(0, length, 0, length)


# --- one tile ---


def read_depth(depth: DepthReader, whole: Whole, tile: Tile) -> DepthMap | None:
    """The whole tile's map, halo included."""
    return depth.read(tile.of(whole.image), whole.scene, whole.levels)


def read_defects(finder: DefectReader, whole: Whole, tile: Tile, reference: NDArray[np.uint8] | None = None) -> Defects:
    """Those whose centre lies in the tile's core, boxes in pixels of the whole picture. reference: of this tile."""
    found = finder.read(tile.of(whole.image), whole.scene, whole.levels, reference=reference)
    moved = (replace(each, box_px=_moved(each.box_px, tile)) for each in found)
    return tuple(each for each in moved if _belongs(each.box_px, tile))


def _moved(box: Box, tile: Tile) -> Box:
    x, y = tile.columns.start, tile.rows.start
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def _belongs(box: Box, tile: Tile) -> bool:
    x, y = (box[0] + box[2]) / 2.0, (box[1] + box[3]) / 2.0
    return _in(x, tile.columns) and _in(y, tile.rows)


def _in(place: float, span: Span) -> bool:
    return span.core_start - SEAM_PX <= place < span.core_stop + SEAM_PX


# --- all tiles ---


def joined(found: Sequence[FoundDefect]) -> Defects:
    """The finds of all tiles, the most confident first, each defect once."""
    ranked = sorted(found, key=lambda one: -one.confidence)
    boxes = np.array([each.box_px for each in ranked], np.float64).reshape(-1, 4)
    by_left = np.argsort(boxes[:, 0])
    left = boxes[by_left, 0]
    standing = np.ones(len(ranked), np.bool_)
    for i, box in enumerate(boxes):
        if standing[i]:
            # A hundred of each tile may come. Boxes that share half of their union differ by two in width at most.
            first, last = np.searchsorted(left, (box[0] - 2.0 * (box[2] - box[0]), box[2]))
            near = by_left[first:last]
            weaker = near[near > i]
            standing[weaker] &= _overlaps(box, boxes[weaker]) < OVERLAP
    return tuple(each for each, stands in zip(ranked, standing, strict=True) if stands)


def _overlaps(one: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of one box (4,) with each of the others (n, 4)."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    common = np.clip(sides, 0.0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod()
    return np.asarray(common / (areas - common))


def read_focus(autofocus: FocusReader, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None:
    """image (h, w) uint8, padded to the stride. A large one by the median of the crops that have something to judge."""
    if image.size <= LARGEST_WHOLE_PX:
        return autofocus.read(image, pixel_size_m)
    read = (autofocus.read(crop, pixel_size_m) for crop in _crops(image))
    known = [reading for reading in read if reading is not None]
    if not known:
        return None
    least = TELLING * max(reading.content for reading in known)
    rich = [reading for reading in known if reading.content >= least]
    return FocusReading(
        score=float(np.median([reading.score for reading in rich])),
        blur_px=float(np.median([reading.blur_px for reading in rich])),
        blur_uncertainty_px=float(np.median([reading.blur_uncertainty_px for reading in rich])),
        content=float(np.median([reading.content for reading in rich])),
    )


def _crops(image: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    height, width = min(image.shape[0], CROP_PX), min(image.shape[1], CROP_PX)
    for down, right in PLACES:
        y, x = _aligned(image.shape[0] - height, down), _aligned(image.shape[1] - width, right)
        yield np.ascontiguousarray(image[y : y + height, x : x + width])


def _aligned(room: int, share: float) -> int:
    return int(room * share) // STRIDE_PX * STRIDE_PX
