"""Where a box lies: height above what surrounds it, and the stage position that would centre it."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.messages import Frame, Lane, Optics
from agent.placing import height_above_surroundings, placed, stage_position, within
from engines.readings import FoundDefect

SHAPE = (200, 300)
PLACED: dict[str, Any] = {"stage_x_m": 1e-3, "stage_y_m": -2e-3, "pixel_size_m": 10e-9, "scan_rotation_rad": 0.0}


def frame(**optics: Any) -> Frame:
    told = Optics(**{**PLACED, **optics})
    return Frame(number=1, pixels=np.zeros(SHAPE, np.uint8), optics=told, lane=Lane.INSPECT, received_ns=0)


def at(x: float, y: float, size: float = 10.0) -> tuple[float, float, float, float]:
    return x - size / 2, y - size / 2, x + size / 2, y + size / 2


# --- heights ---


def island(height_m: float, *, slope: float = 0.0) -> NDArray[np.float32]:
    """A disc of radius 8 px on a plane of 100 nm that may lean, metres a pixel."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = np.hypot(x - 150, y - 100) <= 8
    return (100e-9 + slope * (x - 150) + height_m * disc).astype(np.float32)


@pytest.mark.parametrize("height_m", [30e-9, -40e-9])
@pytest.mark.parametrize("slope", [0.0, 1e-9])
def test_a_height_is_that_of_the_middle_above_the_surroundings(height_m: float, slope: float) -> None:
    told = height_above_surroundings(at(150.5, 100.5, 18), island(height_m, slope=slope))
    assert told == pytest.approx(height_m, abs=1e-9)


def test_outliers_of_the_map_do_not_move_a_height() -> None:
    heights = island(30e-9)
    heights[np.random.default_rng(1).random(SHAPE) < 0.2] = 5e-6
    assert height_above_surroundings(at(150.5, 100.5, 18), heights) == pytest.approx(30e-9, abs=1e-9)


@pytest.mark.parametrize("centre", [(4.0, 100.0), (299.0, 3.0), (150.0, 199.5)])
def test_a_box_at_the_border_has_a_height_from_the_ring_inside(centre: tuple[float, float]) -> None:
    assert height_above_surroundings(at(*centre), island(0.0)) == pytest.approx(0.0, abs=1e-12)


def test_a_box_as_large_as_the_picture_has_no_surroundings() -> None:
    assert height_above_surroundings((0.0, 0.0, 300.0, 200.0), island(30e-9)) is None


def test_the_smallest_box_in_the_smallest_picture_is_no_error() -> None:
    assert height_above_surroundings((0.0, 0.0, 1.0, 1.0), np.ones((1, 1), np.float32)) is None


# --- the stage ---


def test_the_middle_of_the_scan_is_where_the_stage_stands() -> None:
    assert stage_position(at(150.0, 100.0), frame()) == pytest.approx((1e-3, -2e-3), abs=1e-15)


def test_right_on_the_picture_is_plus_x_and_up_is_plus_y() -> None:
    assert stage_position(at(250.0, 40.0), frame()) == pytest.approx((1e-3 + 1e-6, -2e-3 + 0.6e-6), abs=1e-12)


@pytest.mark.parametrize("turned_deg", [90.0, -35.0, 180.0])
def test_scan_rotation_turns_the_picture_counter_clockwise(turned_deg: float) -> None:
    turned = math.radians(turned_deg)
    right_m, up_m = 0.7e-6, 0.3e-6  # of a feature from the middle, along the stage's axes
    # On the screen it is seen turned counter-clockwise; y down.
    x = 150.0 + (math.cos(turned) * right_m - math.sin(turned) * up_m) / 10e-9
    y = 100.0 - (math.sin(turned) * right_m + math.cos(turned) * up_m) / 10e-9
    told = stage_position(at(x, y), frame(scan_rotation_rad=turned))
    assert told == pytest.approx((1e-3 + right_m, -2e-3 + up_m), abs=1e-12)


def test_the_databar_is_no_part_of_the_scan_and_pixels_may_be_oblong() -> None:
    told = stage_position(at(150.0, 50.0), frame(databar_rows=40, pixel_size_y_m=20e-9))
    assert told == pytest.approx((1e-3, -2e-3 + 0.6e-6), abs=1e-12)


@pytest.mark.parametrize("missing", PLACED)
def test_without_one_of_its_facts_there_is_no_place(missing: str) -> None:
    assert stage_position(at(150.0, 100.0), frame(**{missing: None})) is None


@pytest.mark.parametrize(
    "said",
    [{"stage_moving": True}, {"beam_shift_x_m": 1e-6}, {"beam_shift_y_m": -1e-6}, {"stage_tilt_rad": 0.3},
     {"roi_px": (0, 0, 300, 200)}],
    ids=str,
)  # fmt: skip
def test_where_the_header_puts_the_picture_elsewhere_there_is_no_place(said: dict[str, Any]) -> None:
    assert stage_position(at(150.0, 100.0), frame(**said)) is None


def test_zeros_of_shift_and_tilt_are_no_hindrance() -> None:
    still = frame(beam_shift_x_m=0.0, beam_shift_y_m=0.0, stage_tilt_rad=0.0, stage_moving=False)
    assert stage_position(at(150.0, 100.0), still) is not None


def test_a_defect_carries_what_is_known_and_null_for_the_rest() -> None:
    found = FoundDefect("bridge", 0.8, at(150.5, 100.5, 18))
    told = placed(found, island(30e-9), frame())
    assert (told.name, told.path, told.confidence) == ("bridge", ("defect", "bridge"), 0.8)
    assert told.height_m == pytest.approx(30e-9, abs=1e-9) and told.stage_x_m is not None
    bare = placed(found, None, frame(stage_x_m=None))
    assert (bare.height_m, bare.stage_x_m, bare.stage_y_m, bare.box_px) == (None, None, None, found.box_px)


def test_boxes_are_cut_to_the_picture_and_mirror_images_in_the_padding_left_out() -> None:
    found = tuple(FoundDefect("pit", 0.5, at(x, y, 20)) for x, y in ((50, 50), (295, 195), (305, 50), (50, 210)))
    told = within(found, SHAPE)
    assert [each.box_px for each in told] == [(40, 40, 60, 60), (285, 185, 300, 200)]


@pytest.mark.parametrize(
    ("name", "middle_nm", "told_nm"),
    [("microbridge", 20, 20), ("bridge", 45, 45), ("break", 5, -40), ("merged_contact", 0, -45)],
)
def test_on_a_pattern_what_fills_a_gap_counts_from_its_floor_and_what_lacks_from_the_top(
    name: str, middle_nm: float, told_nm: float
) -> None:
    lines = np.where(np.arange(200) % 40 < 22, 45e-9, 0.0).astype(np.float32)  # tops are the wider part
    heights = np.tile(lines, (150, 1))
    heights[70:86, 80:104] = middle_nm * 1e-9
    assert height_above_surroundings((80.0, 70.0, 104.0, 86.0), heights, name) == pytest.approx(
        told_nm * 1e-9, abs=1e-12
    )
