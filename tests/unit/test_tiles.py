"""Large pictures in tiles: the plan covers each pixel once, and a tile is read as the same place of the whole."""

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from engines.defects import OVERLAP, DefectFinder, overlap
from engines.depth import Depth
from engines.load import load
from engines.readings import Defects, FocusReading, FoundDefect
from engines.scene import Levels, Scene, levels_of
from engines.tiles import HALO_PX, Span, Tile, Whole, joined, read_defects, read_depth, read_focus, spans, tiles

SCENE = Scene(pixel_size_m=3e-9, electrons_per_pixel=40.0, accelerating_voltage_v=1000.0)
SIDE_PX = 480  # of the tiles here: small, so that the whole picture is still quick to read
SHAPE = (640, 992)


@cache
def lines(shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Rough lines of uneven brightness, with blots and noise."""
    random = np.random.default_rng(4)
    x = np.arange(shape[1])[None, :] + 3.0 * cv2.GaussianBlur(random.normal(0, 6, shape), (0, 0), 9)
    grey = 110.0 + 45.0 * np.sign(np.sin(x / 4.5)) + 30.0 * np.linspace(-1, 1, shape[0])[:, None]
    for _ in range(60):
        centre = int(random.integers(shape[1])), int(random.integers(shape[0]))
        cv2.circle(grey, centre, int(random.integers(3, 9)), float(random.integers(40, 220)), -1)
    return np.clip(cv2.GaussianBlur(grey, (0, 0), 1.0) + random.normal(0, 14, shape), 0, 255).astype(np.uint8)


def parts(shape: tuple[int, int] = SHAPE) -> list[Tile]:
    return tiles(shape, largest_px=1, side_px=SIDE_PX)


# The plan


@pytest.mark.parametrize("shape", [(480, 480), (512, 2048), (2016, 992), (32, 4096), (16384, 1600)])
def test_the_cores_cover_each_pixel_once_and_stand_a_halo_off_every_seam(shape: tuple[int, int]) -> None:
    covered = np.zeros(shape, np.uint8)
    for tile in parts(shape):
        covered[tile.rows.core_start : tile.rows.core_stop, tile.columns.core_start : tile.columns.core_stop] += 1
        for span, length in ((tile.rows, shape[0]), (tile.columns, shape[1])):
            assert span.start == 0 or span.core_start - span.start >= HALO_PX
            assert span.stop == length or span.stop - span.core_stop >= HALO_PX
            assert span.start % 32 == span.stop % 32 == span.core_start % 32 == 0
    assert covered.min() == covered.max() == 1


def test_all_tiles_of_a_large_picture_have_one_size_so_that_buffers_are_bound_once() -> None:
    sizes = {(t.rows.stop - t.rows.start, t.columns.stop - t.columns.start) for t in tiles((16384, 12288))}
    assert len(sizes) == 1


def test_a_picture_that_fits_is_one_tile() -> None:
    assert len(tiles((2048, 3072))) == 1
    assert len(tiles((2080, 3072))) > 1
    assert spans(1600) == spans(1600, 1600)


# The shipped models


def test_heights_in_tiles_equal_those_of_the_whole() -> None:
    depth, image = Depth(load("depth")), lines()
    levels = levels_of(image)
    whole = depth.read(image, SCENE)
    assert whole is not None
    for tile in parts():
        part = read_depth(depth, Whole(image, SCENE, levels), tile)
        assert part is not None
        place = np.s_[tile.rows.core_start : tile.rows.core_stop, tile.columns.core_start : tile.columns.core_stop]
        for mine, theirs in ((part.height_m, whole.height_m), (part.scale_m, whole.scale_m)):
            difference = np.abs(mine[tile.rows.inside, tile.columns.inside] - theirs[place]).max()
            assert difference < 1e-3 * SCENE.pixel_size_m, f"{difference} m in {tile}"


def test_without_the_levels_of_the_whole_a_tile_would_be_read_as_another_picture() -> None:
    depth, image, tile = Depth(load("depth")), lines(), parts()[0]
    right = read_depth(depth, Whole(image, SCENE, levels_of(image)), tile)
    wrong = read_depth(depth, Whole(image, SCENE, levels_of(tile.of(image))), tile)
    assert right is not None and wrong is not None
    assert np.abs(right.height_m - wrong.height_m).max() > 1e-3 * SCENE.pixel_size_m


@dataclass(frozen=True)
class Every:
    """The shipped model with every peak it has, however unsure."""

    finder: DefectFinder = field(default_factory=lambda: DefectFinder(load("defects")))

    wants_reference = False

    def read(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
    ) -> Defects:
        return self.finder.read(image, scene, levels, reference=reference, threshold=1e-9)


def test_defects_in_tiles_are_those_of_the_whole_each_of_them_once() -> None:
    every, image = Every(), lines()
    levels = levels_of(image)
    whole = every.read(image, SCENE, levels)[:40]
    assert len(whole) == 40
    picture = Whole(image, SCENE, levels)
    found = [each for tile in parts() for each in read_defects(every, picture, tile)]
    together = joined(found)
    for each in whole:
        same = [other for other in together if alike(each, other)]
        assert len(same) == 1, f"{each}: {len(same)} times"


def alike(a: FoundDefect, b: FoundDefect) -> bool:
    near = np.allclose(a.box_px, b.box_px, atol=0.05)
    return a.name == b.name and near and abs(a.confidence - b.confidence) < 1e-4


# Seams, with a finder that sees every bright square


class Squares:
    wants_reference = False

    def read(
        self, image: NDArray[np.uint8], scene: Scene, levels: Levels | None = None, *, reference: object = None
    ) -> Defects:
        _, _, boxes, _ = cv2.connectedComponentsWithStats((image > 128).astype(np.uint8))
        return tuple(
            FoundDefect("particle", 0.9, (float(x), float(y), float(x + w), float(y + h)))
            for x, y, w, h, _ in boxes[1:]
        )


def test_a_defect_on_a_seam_or_a_corner_of_four_tiles_is_found_once() -> None:
    image = np.zeros(SHAPE, np.uint8)
    seams = spans(SHAPE[1], SIDE_PX)[0].core_stop, spans(SHAPE[0], SIDE_PX)[0].core_stop
    places = [seams, (seams[0], 50), (60, seams[1]), (seams[0] - 1, 200), (5, 5), (900, 600)]
    for x, y in places:
        image[max(y - 4, 0) : y + 4, max(x - 4, 0) : x + 4] = 255
    whole = Whole(image, SCENE, Levels(0.0, 1.0))
    found = [each for tile in parts() for each in read_defects(Squares(), whole, tile)]
    assert len(found) > len(places)  # seams give some of them twice
    centres = {((e.box_px[0] + e.box_px[2]) / 2, (e.box_px[1] + e.box_px[3]) / 2) for e in joined(found)}
    assert len(joined(found)) == len(centres) == len(places)
    assert {(float(x), float(y)) for x, y in places if x > 5} <= centres


def test_of_two_tiles_that_tell_one_defect_differently_the_surer_one_is_believed() -> None:
    a, b = FoundDefect("pit", 0.6, (10, 10, 30, 30)), FoundDefect("void", 0.8, (11, 10, 30, 31))
    other = FoundDefect("pit", 0.5, (100, 10, 120, 30))
    assert joined([a, other, b]) == (b, other)


def test_thousands_of_finds_are_joined_as_one_by_one_would_do_it() -> None:
    random = np.random.default_rng(8)
    found = []
    for _ in range(600):
        x, y, w, h = random.uniform(0, 300), random.uniform(0, 300), random.uniform(4, 40), random.uniform(4, 40)
        found.append(FoundDefect("pit", float(random.uniform()), (x, y, x + w, y + h)))
    kept: list[FoundDefect] = []
    for each in sorted(found, key=lambda one: -one.confidence):
        if all(overlap(each.box_px, other.box_px) < OVERLAP for other in kept):
            kept.append(each)
    assert joined(found) == tuple(kept)
    assert 0 < len(kept) < len(found)
    assert joined([]) == ()


# Focus of a large picture


@dataclass
class Judge:
    """Scores a crop by its mean level; the dark ones have nothing in them."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def read(self, image: NDArray[np.uint8], pixel_size_m: float | None) -> FocusReading | None:
        self.shapes.append(image.shape)
        level = float(image.mean())
        return FocusReading(score=level / 25.5, blur_px=2.0, blur_uncertainty_px=0.5, content=float(level > 10))


def test_focus_of_a_large_picture_is_the_median_of_the_crops_that_show_something() -> None:
    image = np.zeros((4096, 4096), np.uint8)
    image[:, 2048:] = 102  # the crops of the left half are empty
    judge = Judge()
    reading = read_focus(judge, image, None)
    assert reading is not None
    assert reading.score == pytest.approx(4.0)
    assert len(judge.shapes) == 5
    assert set(judge.shapes) == {(1024, 1024)}


def test_focus_of_a_picture_that_fits_is_read_in_one_piece() -> None:
    judge = Judge()
    read_focus(judge, lines(), 3e-9)
    assert judge.shapes == [SHAPE]


def test_focus_of_a_long_strip_is_read_from_its_full_height() -> None:
    judge = Judge()
    read_focus(judge, np.full((256, 32768), 50, np.uint8), None)
    assert set(judge.shapes) == {(256, 1024)}


def test_without_a_halo_tiles_would_not_match() -> None:
    """So the parity above is one of the halo, and not of a picture that any tile reads alike."""
    depth, image = Depth(load("depth")), lines()
    whole = depth.read(image, SCENE)
    bare = Tile(Span(0, 320, 0, 320), Span(0, 480, 0, 480))
    part = read_depth(depth, Whole(image, SCENE, levels_of(image)), bare)
    assert whole is not None and part is not None
    assert np.abs(part.height_m - whole.height_m[:320, :480]).max() > 1e-3 * 3e-9
