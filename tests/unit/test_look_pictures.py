"""Overlays and heat maps: what is drawn is where it belongs, bars are as long as they say."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.commands import heatmap, overlay
from agent.commands.canvas import INK, PAPER, VERMILLION, Canvas
from agent.commands.heatmap import coloured, most_telling, span_of
from agent.commands.plate import fitted, round_below, round_ticks, scale_bar, told, wrapped
from engines.readings import FoundDefect

GREY = np.full((300, 400), 90, np.uint8)
BRIDGE = FoundDefect("bridge", 0.87, (100.0, 60.0, 140.0, 90.0))


@dataclass(frozen=True)
class There:
    name: str
    box_px: tuple[float, float, float, float]


def places(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what has this very colour."""
    rows, columns = np.nonzero((image == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


# Overlays


def test_a_box_is_drawn_just_outside_of_its_defect() -> None:
    shown = overlay.draw(GREY, [BRIDGE], 1e-9)[:600]  # enlarged twice
    inside = shown[60 * 2 : 90 * 2, 100 * 2 : 140 * 2]
    assert (inside == 90).all(), "the defect itself must stay visible"
    left, top, right, bottom = places(shown, VERMILLION)
    for found, edge in ((left, 200), (right, 280), (bottom, 180)):
        assert 1 <= abs(found - edge) <= 8
    assert top < 120


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_reduced() -> None:
    tiny = fitted(np.arange(12, dtype=np.uint8).reshape(3, 4), least=10, most=100)
    assert (tiny.times, tiny.image.shape) == (3.0, (9, 12))
    assert (tiny.image[::3, ::3] == np.arange(12).reshape(3, 4)).all()
    large = fitted(np.full((4000, 1000), 7, np.uint8), least=10, most=100)
    assert (large.times, large.image.shape) == (0.025, (100, 25))
    assert fitted(np.zeros((1, 1), np.uint8), least=640, most=1600).image.shape == (640, 640)


@pytest.mark.parametrize(("shape", "boxes"), [((1, 1), 1), ((20, 700), 8), ((900, 30), 8), ((3000, 5000), 200)])
def test_pictures_of_any_shape_with_any_number_of_boxes_can_be_drawn(shape: tuple[int, int], boxes: int) -> None:
    random = np.random.default_rng(2)
    found = []
    for _ in range(boxes):
        x, y = random.uniform(0, shape[1]), random.uniform(0, shape[0])
        found.append(FoundDefect("closed_contact", 0.5, (x, y, min(x + 5, shape[1]), min(y + 5, shape[0]))))
    shown = overlay.draw(np.zeros(shape, np.uint8), found, None, caption="a_name_without_blanks_" * 12)
    assert shown.dtype == np.uint8
    assert shown.ndim == 3
    assert max(shown.shape) < 2600


def test_names_never_cover_one_another_and_those_left_out_are_counted() -> None:
    page = Canvas(300, 60)
    chips = [overlay.Chip("bridge 0.9", VERMILLION, 90.0, (100.0 + i, 20.0, 130.0, 40.0)) for i in range(12)]
    left_out = overlay._place(page, chips)
    assert 0 < left_out < 12


def test_what_is_really_there_is_dashed_and_named_below() -> None:
    plain = overlay.draw(GREY, [], 1e-9)
    dashed = overlay.draw(GREY, [], 1e-9, expected=[There("pit", (200.0, 100.0, 260.0, 160.0))])
    assert (plain[:600] == 90).all()
    white = (dashed[:600] == PAPER).all(axis=2)
    rows = np.flatnonzero(white[:, 460])
    assert rows.size, "no dash on the upper edge"
    left = white[200:320, 384:398].any(axis=1)
    assert 0.2 < left.mean() < 0.8, "a dashed line is half line and half gap"


# Scale bars and lengths


@pytest.mark.parametrize(
    ("pixel_size_m", "times", "room_px"),
    [(3e-9, 4.0, 160.0), (65e-9, 0.5, 250.0), (2.6e-6, 1.0, 120.0), (5e-11, 2.0, 99.0)],
)
def test_a_scale_bar_is_as_long_as_it_says(pixel_size_m: float, times: float, room_px: float) -> None:
    page = Canvas(400, 60)
    scale_bar(page, (20, 40), pixel_size_m=pixel_size_m, times=times, room_px=room_px)
    row = (page.image[37] == INK).all(axis=1)
    metres = row.sum() / times * pixel_size_m
    said = round_below(room_px / times * pixel_size_m)
    assert metres == pytest.approx(said, rel=0.03)
    assert 0.35 * room_px <= row.sum() <= room_px + 1


@pytest.mark.parametrize(
    ("value", "below"), [(1.0, 1.0), (1.99, 1.0), (2.0, 2.0), (4.9e-7, 2e-7), (5e-7, 5e-7), (9.99e3, 5e3)]
)
def test_bars_have_round_lengths(value: float, below: float) -> None:
    assert round_below(value) == pytest.approx(below)


@pytest.mark.parametrize(
    ("metres", "words"),
    [(5e-10, "0.5 nm"), (2e-7, "200 nm"), (1e-6, "1 µm"), (5e-4, "500 µm"), (2e-3, "2 mm"), (0, "0 nm")],
)
def test_lengths_are_told_in_the_unit_that_suits_them(metres: float, words: str) -> None:
    assert told(metres) == words


def test_ticks_of_nanometres_are_round_and_within() -> None:
    assert round_ticks(0.0, 4.5e-8, most=5) == pytest.approx([0.0, 1e-8, 2e-8, 3e-8, 4e-8])
    assert round_ticks(-2.1e-8, 3e-10, most=5) == pytest.approx([-2e-8, -1.5e-8, -1e-8, -5e-9, 0.0], abs=1e-15)


def test_a_line_of_words_is_never_wider_than_its_room() -> None:
    page = Canvas(10, 10)
    words = "a_very_long_name_of_a_file_" * 6 + " and some words beside it"
    lines = wrapped(page, words, 200)
    assert len(lines) > 3
    assert all(page.width(line, size=15) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")


# Heat maps


def terraces() -> NDArray[np.float32]:
    """Lines from top to bottom, 40 nm high."""
    return np.tile((np.arange(240) // 20 % 2 * 4e-8).astype(np.float32), (180, 1))


def test_colours_rise_from_dark_to_light_and_end_at_the_span() -> None:
    ramp = np.linspace(-1e-8, 5e-8, 61, dtype=np.float32)[None, :]
    light = coloured(ramp, (0.0, 4e-8)).astype(float) @ [0.114, 0.587, 0.299]
    assert (np.diff(light[0]) >= -1e-9).all()
    assert np.ptp(light[0, :11]) == 0.0, "below the span there is one colour"
    assert light[0, -1] - light[0, 0] > 120


def test_unknown_heights_stay_white() -> None:
    heights = np.zeros((2, 2), np.float32)
    heights[0, 1] = np.nan
    shown = coloured(heights, (0.0, 1e-9))
    assert (shown[0, 1] == 255).all()
    assert not (shown[0, 0] == 255).all()


def test_a_flat_map_is_one_colour_and_no_rainbow_of_noise() -> None:
    heights = np.random.default_rng(1).normal(0, 1e-13, (60, 60)).astype(np.float32)
    shown = coloured(heights, span_of(heights, 3e-9))
    assert np.ptp(shown.astype(int), axis=(0, 1)).max() <= 4


def test_one_wild_pixel_does_not_take_all_the_colours() -> None:
    heights = terraces()
    heights[0, 0] = 1.0
    assert span_of(heights, 3e-9) == pytest.approx((0.0, 4e-8))


def test_the_cut_goes_across_the_lines_whichever_way_they_run() -> None:
    across, along = most_telling(terraces()), most_telling(np.ascontiguousarray(terraces().T))
    assert across.along_x and not along.along_x
    assert np.array_equal(across.height_m, along.height_m)
    assert across.index == pytest.approx(90, abs=1)


def test_the_cut_goes_through_the_middle_of_what_stands_out() -> None:
    heights = np.zeros((200, 300), np.float32)
    heights[120:141, 100:201] = 3e-8
    cut = most_telling(heights)
    assert cut.along_x
    assert cut.index == pytest.approx(130, abs=1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (700, 20), (180, 240), (1500, 2000)])
@pytest.mark.parametrize("pixel_size_m", [None, 3e-9])
def test_maps_of_any_shape_can_be_drawn(shape: tuple[int, int], pixel_size_m: float | None) -> None:
    heights = np.random.default_rng(0).normal(2e-8, 1e-8, shape).astype(np.float32)
    before = heights.copy()
    shown = heatmap.draw(heights, np.zeros(shape, np.uint8), pixel_size_m, False)
    assert shown.ndim == 3
    assert max(shown.shape) < 2000
    assert np.array_equal(heights, before), "drawing must not touch the map"


def test_whether_a_certificate_vouches_for_the_scale_is_written_on_the_page() -> None:
    picture = np.zeros((180, 240), np.uint8)
    without, with_one = (heatmap.draw(terraces(), picture, 3e-9, calibrated) for calibrated in (False, True))
    assert not np.array_equal(without[:64], with_one[:64])
    assert np.array_equal(without[64:], with_one[64:])


def test_of_a_long_row_the_middle_is_cut_and_the_picture_shows_which_part() -> None:
    heights = np.tile((np.arange(3000) // 50 % 2 * 4e-8).astype(np.float32), (400, 1))
    cut = most_telling(heights)
    assert (cut.start, len(cut.height_m)) == (988, 1024)
    assert np.array_equal(cut.height_m, heights[cut.index, 988 : 988 + 1024])
    shown = heatmap.draw(heights, np.zeros(heights.shape, np.uint8), 3e-9, False)
    left, _, right, _ = places(shown[: heatmap.HEAD + 80, : heatmap.MARGIN + heatmap.MOST_PX], VERMILLION)
    times = heatmap.MOST_PX / 3000
    assert left == pytest.approx(heatmap.MARGIN + 988 * times, abs=4)
    assert right == pytest.approx(heatmap.MARGIN + 2012 * times, abs=4)


def test_the_outermost_rows_are_not_cut_however_wild_they_are() -> None:
    heights = terraces()
    heights[0, ::2] = 9e-7
    assert most_telling(heights).index == pytest.approx(90, abs=1)
