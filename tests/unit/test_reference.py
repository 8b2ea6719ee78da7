"""A frame without its defects, from its own repetition or from another die."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.train import defects_data
from calibration.train.defects_data import Recipe
from calibration.twin.inspection import inspected_frame
from engines.reference import GoldenError, golden_reference, repetition, self_reference
from engines.reference_copies import _copy

Picture = NDArray[np.uint8]
SHAPE = (256, 320)
NOISE = 12.0  # grey levels


def noisy(clean: NDArray[np.float64], seed: int) -> Picture:
    shown = clean + np.random.default_rng(seed).normal(0.0, NOISE, clean.shape)
    return np.asarray(np.clip(shown + 0.5, 0, 255), np.uint8)


def holes(pitch: float, turn_rad: float = 0.0) -> NDArray[np.float64]:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float64)
    u, v = x * np.cos(turn_rad) + y * np.sin(turn_rad), y * np.cos(turn_rad) - x * np.sin(turn_rad)
    wave = np.cos(2 * np.pi * u / pitch) + np.cos(2 * np.pi * v / pitch)
    return 120.0 + 60.0 / (1.0 + np.exp(6.0 * wave - 4.0))


def bars(pitch: float) -> NDArray[np.float64]:
    x = np.arange(SHAPE[1])
    return np.tile(120.0 + 40.0 * np.sign(np.sin(2 * np.pi * x / pitch)), (SHAPE[0], 1))


@pytest.mark.parametrize(("pitch", "turn_rad"), [(16.3, 0.0), (31.7, 0.3), (60.2, 0.0)])
def test_finds_the_period_to_a_tenth_of_a_pixel(pitch: float, turn_rad: float) -> None:
    found = repetition(noisy(holes(pitch, turn_rad), 1))
    assert found is not None
    for x, y in found.moves_px:
        u = (x * np.cos(turn_rad) + y * np.sin(turn_rad)) / pitch
        v = (y * np.cos(turn_rad) - x * np.sin(turn_rad)) / pitch
        assert np.hypot(u - round(u), v - round(v)) * pitch < 0.15
    assert min(found.correlation) > 0.9


def test_the_reference_is_quieter_than_the_frame_and_without_its_defect() -> None:
    clean = holes(24.4)
    field = clean.copy()
    cv2.circle(field, (150, 120), 9, 230.0, -1)
    reference = self_reference(noisy(field, 2))
    assert reference is not None
    off = reference.astype(float) - clean
    assert off.std() < 0.8 * NOISE
    inside = np.hypot(*(np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array([120, 150])[:, None, None])) < 7
    assert abs(off[inside].mean()) < 0.1 * (field - clean)[inside].mean()


@pytest.mark.parametrize("pitch", [40.0, 90.0])
def test_corners_that_no_copy_reaches_both_ways_are_as_good_as_the_middle_or_say_nothing(pitch: float) -> None:
    clean = holes(pitch, 0.4)
    image = noisy(clean, 12)
    reference = self_reference(image)
    assert reference is not None
    for rows in (slice(None, 90), slice(-90, None)):
        for columns in (slice(None, 110), slice(-110, None)):
            off = reference[rows, columns].astype(float) - clean[rows, columns]
            assert np.percentile(np.abs(off), 99) < 4.0 * NOISE


def test_copies_come_from_more_than_one_direction_where_lines_would_allow_one() -> None:
    """A gap along a line is as long in every copy that is moved along it."""
    found = repetition(noisy(bars(20.0), 3))
    assert found is not None
    sines = [abs(a[0] * b[1] - a[1] * b[0]) / (np.hypot(*a) * np.hypot(*b)) for a, b in pairwise(found.moves_px)]
    assert max(sines) > 0.3


@pytest.mark.parametrize("kind", ["noise", "flat", "black", "blobs", "one_step"])
def test_nothing_is_its_own_reference_where_nothing_repeats(kind: str) -> None:
    rng = np.random.default_rng(4)
    shown = {
        "noise": rng.integers(0, 256, SHAPE).astype(np.float64),
        "flat": np.full(SHAPE, 128.0),
        "black": np.zeros(SHAPE),
        "blobs": 128.0 + 400.0 * cv2.GaussianBlur(rng.normal(0.0, 1.0, SHAPE), (0, 0), 8.0),
        "one_step": np.where(np.arange(SHAPE[1]) > 140, 90.0, 160.0) * np.ones(SHAPE),
    }[kind]
    image = np.asarray(shown, np.uint8) if kind == "black" else noisy(shown, 5)
    found = repetition(image)
    # A straight edge is the same all along it: that is a repetition, and a useful one.
    assert found is None or kind == "one_step"


def test_a_self_reference_shows_what_was_put_into_lines_and_holes_of_the_twin() -> None:
    """Defects of the matched filter's signal to noise stand out of the difference; measured against exact masks."""
    seen = defects_data.small(6, Recipe(11, kinds=("contacts",), clean=0.0))
    ratios = []
    for number in range(len(seen)):
        if (seen.own[number] == seen.image[number]).all():
            continue
        off = np.abs(cv2.GaussianBlur(seen.image[number].astype(np.float32) - seen.own[number], (0, 0), 1.5))
        for row in np.flatnonzero(seen.visible[number]):
            x0, y0, x1, y1 = (int(value) for value in seen.box_px[number, row])
            ratios.append(float(off[y0:y1, x0:x1].max()) / float(np.percentile(off, 95)))
    assert len(ratios) >= 8
    assert np.median(ratios) > 1.5


@pytest.mark.parametrize("move", [(7.0, -3.0), (-7.3, 4.6), (0.0, 12.5), (30.25, 0.0), (-0.4, -0.6)])
def test_a_moved_copy_is_what_a_warp_makes_of_it_but_for_rounding(move: tuple[float, float]) -> None:
    image = noisy(holes(18.0), 3)
    matrix = np.array([[1.0, 0.0, move[0]], [0.0, 1.0, move[1]]])
    warped = cv2.warpAffine(image, matrix, image.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    x, y = (math.ceil(abs(by)) for by in move)
    rows, columns = slice(y, image.shape[0] - y), slice(x, image.shape[1] - x)
    off = _copy(image, *move)[rows, columns].astype(int) - warped[rows, columns]
    assert np.abs(off).max() <= 2  # grey levels: a warp knows 32 steps between two pixels


def test_a_golden_frame_is_moved_onto_the_picture_and_given_its_levels() -> None:
    whole = inspected_frame("logic", (320, 400), seed=6, defects=0).pixels.astype(np.float64)
    image = noisy(whole[20:276, 30:350], 7)
    darker = noisy(0.6 * whole[25:281, 22:342] + 20.0, 8)
    moved = golden_reference(image, darker)
    off = moved[16:-16, 16:-16].astype(float) - whole[36:260, 46:334]
    assert abs(float(off.mean())) < 4.0
    assert np.corrcoef(moved[16:-16, 16:-16].ravel(), whole[36:260, 46:334].ravel())[0, 1] > 0.8


def test_a_pattern_that_is_half_bright_and_half_dark_keeps_its_levels() -> None:
    """Its middle grey lies between the two, and a few pixels would move a median from the one to the other."""
    image, other = noisy(bars(16.0), 1), noisy(bars(16.0), 2)
    spoilt = image.copy()
    spoilt[100:120, 100:120] = 250  # a hundredth of the frame
    off = golden_reference(spoilt, other).astype(float) - image
    assert abs(off.mean()) < 2.0  # grey levels


def test_a_golden_frame_of_another_size_or_place_is_refused_with_both_said() -> None:
    image = inspected_frame("logic", SHAPE, seed=6, defects=0).pixels
    with pytest.raises(GoldenError, match="320x200, the frame 320x256"):
        golden_reference(image, image[:200])
    with pytest.raises(GoldenError, match="another place"):
        golden_reference(image, inspected_frame("logic", SHAPE, seed=9, defects=0).pixels)


def test_a_large_frame_is_searched_at_half_its_resolution_and_compared_at_its_own() -> None:
    image = np.tile(noisy(holes(32.0), 10), (3, 3))[:768, :960]
    found = repetition(image)
    assert found is not None
    assert all(abs(side / 32.0 - round(side / 32.0)) * 32.0 < 0.5 for move in found.moves_px for side in move)
    reference = self_reference(image)
    assert reference is not None
    assert reference.shape == image.shape
