"""Designs from pictures, GDSII and OASIS: at the right scale, printed as the process says, refused with a reason."""

import sys
from pathlib import Path

import cv2
import gdstk
import numpy as np
import pytest

from calibration.twin import gds, mask
from calibration.twin.distance import signed_distance
from calibration.twin.process import Process, aerial
from calibration.twin.sketch import surface_px
from calibration.twin.surface import SpecimenError

LAYOUTS = Path(__file__).resolve().parents[3] / "shared/data/layouts"
CAD = LAYOUTS.parent / "cad_sem/cad"
AS_DRAWN = Process(height_m=30e-9, blur=0.0, rounding_m=0.0)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def stripes(period: int = 40, width: int = 16, side: int = 400) -> np.ndarray:
    return np.tile(np.where(np.arange(side) % period < width, 255, 0).astype(np.uint8), (side, 1))


def test_lines_of_a_picture_come_out_at_their_pitch_and_width_at_any_pixel_size() -> None:
    design = mask.of_picture(stripes(side=1200), pixel_size_m=2e-9)
    assert design.pitch_px == pytest.approx(40.0, rel=0.06)
    assert design.width_px == pytest.approx(16.0, rel=0.06)  # the border hides an edge
    for pixel_m in (1e-9, 2e-9, 5e-9):
        drawn = mask.sketch_of(design, (96, 300), pixel_size_m=pixel_m, process=AS_DRAWN, rng=rng())
        row = drawn.inside[48] > 0
        starts = np.nonzero(row[1:] & ~row[:-1])[0]
        assert np.diff(starts).mean() == pytest.approx(80e-9 / pixel_m, rel=0.02)
        assert row.mean() == pytest.approx(0.4, abs=0.09)  # the field ends anywhere in a period
        assert drawn.kind == "mask"
        assert drawn.lattice is None
        assert drawn.width == pytest.approx(32e-9 / pixel_m, rel=0.06)


def test_the_field_is_somewhere_in_the_design_by_the_seed() -> None:
    spots = np.zeros((500, 500), np.uint8)
    for x, y in rng(3).integers(20, 480, (150, 2)):
        cv2.circle(spots, (int(x), int(y)), 7, 255, -1)
    design = mask.of_picture(spots, pixel_size_m=2e-9, source="spots")
    one, same, other = (
        mask.sketch_of(design, (80, 90), pixel_size_m=2e-9, process=AS_DRAWN, rng=rng(seed)).inside
        for seed in (5, 5, 6)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    # Where it lies is where correlation with the whole design is perfect.
    score = cv2.matchTemplate(spots, np.where(one > 0, 255, 0).astype(np.uint8), cv2.TM_CCOEFF_NORMED)
    assert score.max() > 0.95


def test_black_and_white_change_places_when_asked() -> None:
    there, inverted = (mask.of_picture(stripes(), pixel_size_m=1e-9, inverted=swap) for swap in (False, True))
    np.testing.assert_allclose(there.cover + inverted.cover, 1.0)


def test_a_design_larger_than_the_field_wanted_goes_on_as_its_mirror() -> None:
    design = mask.of_picture(stripes(side=80), pixel_size_m=2e-9)
    drawn = mask.sketch_of(design, (200, 256), pixel_size_m=2e-9, process=AS_DRAWN, rng=rng())
    assert surface_px(drawn).max() == pytest.approx(15.0, rel=0.01)
    assert 0.2 < (drawn.inside > 0).mean() < 0.6


@pytest.mark.parametrize(
    ("picture", "pixel_size_m", "said"),
    [
        (np.tile(np.arange(256, dtype=np.uint8), (64, 1)), 1e-9, "not binary"),
        (np.zeros((64, 64), np.uint8), 1e-9, "empty"),
        (stripes(), None, "no scale"),
        (stripes(), -1e-9, "no scale"),
        (stripes(), float("nan"), "no scale"),
        (np.zeros((2, 3, 4, 5)), 1e-9, "two dimensions"),
        (np.array([[0.0, np.nan], [1.0, 1.0]]), 1e-9, "finite"),
    ],
)
def test_what_is_no_design_is_refused_with_the_reason(
    picture: np.ndarray, pixel_size_m: float | None, said: str
) -> None:
    with pytest.raises(SpecimenError, match=said):
        mask.of_picture(picture, pixel_size_m=pixel_size_m)


def test_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecimenError, match=r"missing\.png"):
        mask.read(tmp_path / "missing.png", pixel_size_m=1e-9)
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(SpecimenError, match=r"notes\.png"):
        mask.read(tmp_path / "notes.png", pixel_size_m=1e-9)


def test_a_field_in_which_nothing_prints_is_refused() -> None:
    picture = np.zeros((600, 600), np.uint8)
    picture[:3, :3] = 255
    design = mask.of_picture(picture, pixel_size_m=1e-9)
    with pytest.raises(SpecimenError, match="nothing of the field"):
        mask.sketch_of(design, (64, 64), pixel_size_m=1e-9, process=Process(height_m=1e-8), rng=rng())


needs_layouts = pytest.mark.skipif(not LAYOUTS.is_dir(), reason="the layouts of ../shared/data are not here")


@needs_layouts
@pytest.mark.parametrize("number", [1, 10])
def test_a_printed_contour_becomes_a_sketch_of_the_same_outline(number: int) -> None:
    path = LAYOUTS / f"LMLitho_data{number}/RI.png"
    design = mask.read(path, pixel_size_m=1e-9)
    drawn = mask.sketch_of(design, design.cover.shape, pixel_size_m=1e-9, process=AS_DRAWN, rng=rng())
    wanted = design.cover > 0.5
    assert (drawn.inside > 0)[wanted].mean() > 0.999
    assert (drawn.inside > 0)[~wanted].mean() < 0.001


@needs_layouts
def test_opc_masks_print_within_a_few_pixels_of_the_lithographers_contour() -> None:
    """One Gaussian and one threshold for all: 32 px, 0.485. Lines are 52 px wide; their serifs must go."""
    found, bare = [], []
    for number in (1, 3, 10):
        cut = np.s_[512:1536, 512:1536]
        drawn, wanted = (
            mask.of_picture(cv2.imread(str(LAYOUTS / f"LMLitho_data{number}/{name}.png"), 0)[cut], pixel_size_m=1e-9)
            for name in ("mask", "RI")
        )
        outline = signed_distance(aerial(wanted.cover, 1.0) - np.float32(0.5))
        inner = np.s_[128:-128, 128:-128]  # what the cut changes at the border does not count
        printed = mask.printed_outline(drawn, sigma_px=32.0, threshold=0.485)
        error = mask.edge_placement_px(printed[inner], outline[inner])
        found.append(float(np.median(np.abs(error))))
        sharp = mask.printed_outline(drawn, sigma_px=1.0, threshold=0.5)
        bare.append(float(np.sqrt(np.square(mask.edge_placement_px(sharp[inner], outline[inner])).mean())))
        rms = float(np.sqrt(np.square(error).mean()))
        print(
            f"layout {number}: edge placement error median {found[-1]:.2f}, rms {rms:.2f}; as drawn {bare[-1]:.2f} px"
        )
        assert rms < 0.75 * bare[-1]
    assert max(found) < 3.0


@pytest.mark.skipif(not CAD.is_dir(), reason="the designs of ../shared/data are not here")
def test_a_written_design_is_read_and_keeps_its_holes() -> None:
    design = mask.read(sorted(CAD.glob("*.png"))[0], pixel_size_m=2e-9)
    drawn = mask.sketch_of(design, (256, 256), pixel_size_m=4e-9, process=Process(height_m=200e-9), rng=rng(2))
    assert 0.02 < (drawn.inside > 0).mean() < 0.98
    assert np.isfinite(surface_px(drawn)).all()


def library(path: Path, *, layers: int = 1, empty: bool = False) -> Path:
    """A frame of 400 nm with lines of 60 nm at a pitch of 100 nm, four of them in an array of one cell."""
    made = gdstk.Library(unit=1e-6, precision=1e-9)
    line, top = made.new_cell("LINE"), made.new_cell("TOP")
    if not empty:
        for layer in range(layers):
            line.add(gdstk.rectangle((0.0, 0.0), (0.060, 0.4), layer=layer, datatype=2))
        top.add(gdstk.Reference(line, (1.0, 1.0), columns=4, rows=1, spacing=(0.1, 0.1)))
    (made.write_oas if path.suffix == ".oas" else made.write_gds)(str(path))
    return path


@pytest.mark.parametrize("suffix", [".gds", ".oas"])
def test_a_layout_file_is_drawn_at_its_own_scale(tmp_path: Path, suffix: str) -> None:
    design = gds.read(library(tmp_path / f"lines{suffix}"), pixel_size_m=2e-9)
    assert design.cover.shape == (200, 180)
    row = design.cover[100]
    assert row.sum() == pytest.approx(4 * 30.0, abs=0.3)
    np.testing.assert_allclose(row[[0, 15, 29, 30, 31, 49, 50, 51]], [1, 1, 1, 0, 0, 0, 1, 1], atol=0.05)
    coarse = gds.read(library(tmp_path / f"again{suffix}"), pixel_size_m=7e-9)
    assert coarse.cover.sum() * 49.0 == pytest.approx(4 * 60.0 * 400.0, rel=0.02)  # nm^2
    drawn = mask.sketch_of(design, (128, 128), pixel_size_m=2e-9, process=AS_DRAWN, rng=rng())
    row = drawn.inside[64] > 0
    turns = np.nonzero(row[1:] != row[:-1])[0]  # 30 px of line, 20 px of space
    assert turns.size >= 4
    np.testing.assert_allclose(np.abs(np.diff(turns)[1:] - np.diff(turns)[:-1]), 10, atol=1)
    np.testing.assert_allclose(turns[2:] - turns[:-2], 50, atol=1)


def test_y_runs_down_in_the_picture_of_a_layout(tmp_path: Path) -> None:
    made = gdstk.Library()
    top = made.new_cell("TOP")
    top.add(gdstk.rectangle((0, 0), (0.1, 0.02)), gdstk.rectangle((0, 0.02), (0.02, 0.1)))  # an L
    made.write_gds(str(tmp_path / "l.gds"))
    cover = gds.read(tmp_path / "l.gds", pixel_size_m=2e-9).cover
    assert cover[-1].all()
    assert cover[0, :10].all()
    assert not cover[0, 10:].any()


def test_layout_files_that_cannot_be_read_or_chosen_from_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.gds").write_bytes(b"not a layout at all")
    with pytest.raises(SpecimenError, match=r"bad\.gds: neither GDSII nor OASIS"):
        gds.read(tmp_path / "bad.gds", pixel_size_m=1e-9)
    with pytest.raises(SpecimenError, match=r"missing\.gds"):
        gds.read(tmp_path / "missing.gds", pixel_size_m=1e-9)
    with pytest.raises(SpecimenError, match="empty"):
        gds.read(library(tmp_path / "empty.gds", empty=True), pixel_size_m=1e-9, cell="TOP")
    two = library(tmp_path / "two.gds", layers=2)
    with pytest.raises(SpecimenError, match="several layers; choose one of 0/2, 1/2"):
        gds.read(two, pixel_size_m=1e-9)
    assert gds.read(two, pixel_size_m=1e-9, layer=(1, 2)).source.endswith("layer 1/2")
    with pytest.raises(SpecimenError, match="no layer 7/0"):
        gds.read(two, pixel_size_m=1e-9, layer=(7, 0))
    with pytest.raises(SpecimenError, match="no cell MOON; choose one of LINE, TOP"):
        gds.read(two, pixel_size_m=1e-9, cell="MOON")
    with pytest.raises(SpecimenError, match="px at this pixel size"):
        gds.read(two, pixel_size_m=1e-12, layer=(0, 2))
    with pytest.raises(SpecimenError, match="pixel size"):
        gds.read(two, pixel_size_m=0.0)


def test_a_truncated_layout_is_refused(tmp_path: Path) -> None:
    whole = library(tmp_path / "whole.gds").read_bytes()
    (tmp_path / "cut.gds").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpecimenError, match=r"cut\.gds"):
        gds.read(tmp_path / "cut.gds", pixel_size_m=1e-9)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdstk", None)
    with pytest.raises(SpecimenError, match=r"beamside\[gds\]"):
        gds.read(tmp_path / "any.gds", pixel_size_m=1e-9)
