"""How patterns are made: distances, aerial image, side walls, materials; exact answers."""

from dataclasses import replace
from math import radians, tan

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.twin import matter
from calibration.twin.design import Rect, covered
from calibration.twin.distance import disc, signed_distance
from calibration.twin.process import Process, printed
from calibration.twin.sketch import Sketch, standing, surface_m, surface_px
from calibration.twin.surface import SpecimenError

PIXEL_M = 1e-9
Field = NDArray[np.float32]


def edge(process: Process, *, size: int = 200) -> Sketch:
    """Material right of column 100, drawn with that process."""
    inside = np.tile(np.arange(size, dtype=np.float32) - 100.0, (8, 1))
    return standing(inside, process, kind="lines", pitch=40.0, pixel_size_m=PIXEL_M)


def test_the_distance_to_a_circle_is_right_to_an_eighth_of_a_pixel_beside_it_and_a_pixel_far_away() -> None:
    exact = disc((160, 180), 83.3, 71.8, 40.0)
    found = signed_distance(np.asarray(0.3 * exact, np.float32))
    beside = np.abs(exact) < 3.0
    assert np.abs(found - exact)[beside].max() < 0.15
    assert np.abs(found - exact)[np.abs(exact) < 25.0].max() < 1.0
    assert np.array_equal(found > 0, exact > 0)


def test_where_nothing_crosses_zero_the_edge_is_far_away() -> None:
    assert signed_distance(np.ones((20, 20), np.float32)).min() >= 1e3
    assert signed_distance(-np.ones((20, 20), np.float32)).max() <= -1e3


def test_coverage_adds_up_to_the_area_to_a_thousandth_of_a_pixel() -> None:
    cover = covered((40, 60), [Rect(10.3, 5.25, 30.7, 20.5), Rect(40.0, 30.0, 41.5, 31.25)])
    assert cover.sum() == pytest.approx(20.4 * 15.25 + 1.5 * 1.25, abs=1e-3)


def test_a_straight_edge_prints_where_it_was_drawn_and_dose_moves_it_as_the_image_falls() -> None:
    cover = covered((60, 120), [Rect(60.2, -10, 200, 100)])
    print_ = printed(cover, sigma_px=6.0)
    assert np.interp(0.0, print_[30], np.arange(120)) == pytest.approx(60.2, abs=0.03)
    # The image of an edge is the normal integral; it passes 0.45 at -0.1257 sigma.
    grown = printed(cover, sigma_px=6.0, threshold=0.45)
    assert np.interp(0.0, grown[30], np.arange(120)) == pytest.approx(60.2 - 0.1257 * 6.0, abs=0.05)


def test_a_corner_is_rounded_to_1_37_sigma_and_cut_by_0_77_sigma() -> None:
    """Where both normal integrals are 1/sqrt(2): u = 0.545 sigma on either axis, curvature 0.729 / sigma."""
    sigma = 10.0
    outline = printed(covered((160, 160), [Rect(60.0, 60.0, 400, 400)]), sigma_px=sigma)
    diagonal = np.array([outline[i, i] for i in range(50, 90)])
    reached = float(np.interp(0.0, diagonal, np.arange(50, 90)))
    assert (reached - 60.0) * np.sqrt(2.0) == pytest.approx(0.771 * sigma, abs=0.15)
    crossing = [np.interp(0.0, outline[60 + d], np.arange(160)) for d in range(2, 16)]
    x, y = np.array(crossing) - 60.0, np.arange(2.0, 16.0)
    along, across = (x - y) / np.sqrt(2.0), (x + y) / np.sqrt(2.0)
    near = np.abs(along) < 0.45 * sigma
    curvature = 2.0 * np.polyfit(along[near], across[near], 2)[0]
    assert 1.0 / curvature == pytest.approx(1.371 * sigma, rel=0.08)


@pytest.mark.parametrize("angle", [75.0, 80.0, 86.0])
def test_the_side_wall_has_its_angle_and_its_middle_at_the_edge(angle: float) -> None:
    z = surface_px(edge(Process(height_m=40e-9, side_wall_deg=angle, rounding_m=0.0)))[4]
    low, high = (float(np.interp(level, z, np.arange(200))) for level in (4.0, 36.0))
    measured = np.degrees(np.arctan2(32.0, high - low))
    assert measured == pytest.approx(angle, abs=1.5)
    assert (low + high) / 2 == pytest.approx(100.0, abs=0.1)


def test_a_wide_side_wall_is_exact() -> None:
    z = surface_px(edge(Process(height_m=40e-9, side_wall_deg=60.0, rounding_m=0.0)))[4]
    run = 40.0 / tan(radians(60.0))
    columns = np.arange(90, 111)
    np.testing.assert_allclose(z[columns], np.clip((columns - 100.0) / run + 0.5, 0, 1) * 40.0, atol=1e-3)


def test_a_foot_fills_the_corner_by_its_radius_and_a_round_top_takes_as_much() -> None:
    sharp = Process(height_m=40e-9, side_wall_deg=90.0, rounding_m=0.0)
    bare = surface_px(edge(sharp))[4]
    footed = surface_px(edge(replace(sharp, foot_m=10e-9)))[4]
    corner = (1.0 - np.pi / 4.0) * 10.0**2  # a square less its quarter circle; its first column counts half
    assert (footed - bare).sum() + 10.0 / 2 == pytest.approx(corner, rel=0.06)
    assert footed[:89].max() == 0.0
    topped = surface_px(edge(replace(sharp, top_m=10e-9)))[4]
    assert (bare - topped)[101:].sum() + 10.0 / 2 == pytest.approx(corner, rel=0.06)
    assert topped[112:].min() == pytest.approx(40.0, abs=1e-4)


def test_the_film_is_as_bright_as_its_material_and_so_is_the_ground() -> None:
    drawn = edge(Process(height_m=30e-9, film="W", ground="SiO2"))
    assert drawn.material is not None
    assert drawn.material[4, 20] == pytest.approx(matter.brightness("SiO2"), rel=1e-5)
    assert drawn.material[4, 180] == pytest.approx(matter.brightness("W"), rel=1e-5)
    bridged = drawn.with_added(np.where(np.arange(200) < 40, np.float32(10.0), np.float32(0.0)) * np.ones((8, 1)))
    assert bridged.material is not None
    assert bridged.material[4, 20] == pytest.approx(matter.brightness("W"), rel=1e-5)  # what is put on is film


def test_one_material_alone_needs_no_map() -> None:
    assert edge(Process(height_m=30e-9)).material is None


@pytest.mark.parametrize(
    ("number", "eta"), [(6, 0.064), (14, 0.165), (29, 0.302), (47, 0.402), (74, 0.476), (79, 0.487)]
)
def test_backscattering_follows_the_periodic_table(number: int, eta: float) -> None:
    """Carbon, silicon, copper, silver, tungsten, gold near 20 keV: Reuter's polynomial to a tenth of the tables."""
    assert matter.reuter(number) == pytest.approx(eta, rel=0.1)


def test_yields_are_those_of_the_physics_page_and_silicon_is_one() -> None:
    given = {"Si": 0.9, "SiO2": 1.6, "resist": 1.2, "W": 1.0, "Cu": 1.0, "TiN": 0.9}
    assert {name: matter.MATERIALS[name].yield_max for name in given} == given
    assert matter.brightness("Si") == 1.0
    assert all(sum(share for _, share in each.elements) == pytest.approx(1.0) for each in matter.MATERIALS.values())


INFINITE = ("height_m", "foot_m", "top_m", "rounding_m", "blur", "rough_sigma_m", "rough_xi_m", "hurst", "correlation")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"height_m": -1e-9}, "height_m"),
        ({"height_m": float("nan")}, "height_m"),
        ({"side_wall_deg": 95.0}, "past vertical"),
        ({"side_wall_deg": 0.0}, "side_wall_deg"),
        ({"foot_m": -1e-9}, "foot_m"),
        ({"top_m": 90e-9}, "top_m"),
        (
            {"foot_m": 20e-9, "top_m": 20e-9},
            "foot_m 2e-08 and top_m 2e-08.*no larger than the height of 3e-08",
        ),
        *(({name: float("inf")}, f"{name} inf") for name in INFINITE),
        ({"correlation": -1.5}, "correlation -1.5"),
        ({"hurst": 0.0}, "hurst 0"),
        ({"rough_xi_m": 0.0}, "rough_xi_m 0"),
        ({"threshold": 1.0}, "threshold"),
        ({"film": "cheese"}, "cheese"),
        ({"rough_sigma_m": float("nan")}, "rough_sigma_m"),
    ],
)
def test_what_no_process_can_make_is_refused_by_name(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(SpecimenError, match=said):
        Process(**({"height_m": 30e-9} | wrong))  # type: ignore[arg-type]


def test_a_foot_and_a_top_that_share_the_whole_height_are_possible() -> None:
    shared = Process(height_m=30e-9, side_wall_deg=90.0, foot_m=0.1 * 30e-9, top_m=0.9 * 30e-9, rounding_m=0.0)
    z = surface_px(edge(shared))[4]
    assert (np.diff(z) >= -1e-4).all() and z.max() == pytest.approx(30.0, abs=1e-3)


def test_a_sketch_of_impossible_measures_is_refused() -> None:
    good = edge(Process(height_m=30e-9))
    for wrong in ({"height": -3.0}, {"run": -1.0}, {"pitch": 0.0}, {"pixel_size_m": float("nan")}):
        with pytest.raises(SpecimenError, match=next(iter(wrong))):
            replace(good, **wrong)


def test_heights_in_metres_are_pixels_times_their_size() -> None:
    drawn = edge(Process(height_m=30e-9))
    np.testing.assert_allclose(surface_m(drawn), surface_px(drawn) * 1e-9, rtol=1e-6)
