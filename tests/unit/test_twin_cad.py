"""Layouts as specimens: GDSII, OASIS and masks become surfaces of the right scale that the microscope looks at."""

from pathlib import Path

import cv2
import gdstk
import numpy as np
import pytest

from calibration.twin import cad, gds, mask
from calibration.twin.cad import Layout
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.surface import SpecimenError

PITCH_M, LINE_M = 200e-9, 80e-9


def drawing(folder: Path, suffix: str = ".gds") -> Path:
    """30 lines of 80 nm, 6 um long, at a pitch of 200 nm."""
    made = gdstk.Library(unit=1e-6, precision=1e-9)
    top = made.new_cell("TOP")
    for number in range(30):
        top.add(gdstk.rectangle((0.2 * number, 0.0), (0.2 * number + 0.08, 6.0)))
    path = folder / f"lines{suffix}"
    (made.write_oas if suffix == ".oas" else made.write_gds)(str(path))
    return path


def picture(folder: Path, side: int = 1500) -> Path:
    """The same lines at 2 nm a pixel."""
    row = np.where(np.arange(side) % 100 < 40, 255, 0).astype(np.uint8)
    path = folder / "lines.png"
    cv2.imwrite(str(path), np.tile(row, (side, 1)))
    return path


def stripes_m(height_m: np.ndarray, pixel_size_m: float) -> float:
    """The strongest period across the lines."""
    row = height_m.mean(axis=0) - height_m.mean()
    power = np.abs(np.fft.rfft(row * np.hanning(row.size), 8 * row.size)) ** 2
    return pixel_size_m * 8 * row.size / int(power[8:].argmax() + 8)


@pytest.mark.parametrize("suffix", [".gds", ".oas"])
def test_a_drawing_has_its_own_scale_and_a_pixel_size_that_shows_it(tmp_path: Path, suffix: str) -> None:
    path = drawing(tmp_path, suffix)
    pitch_m, side_m = gds.scale_m(path)
    assert pitch_m == pytest.approx(PITCH_M, rel=0.05)
    assert side_m == pytest.approx(29 * PITCH_M + LINE_M, rel=1e-6)
    design, size_m = cad.read(Layout(path))
    assert 24.0 * 0.9 < PITCH_M / size_m < 60.0
    seen = cad.surface(design, (256, 256), pixel_size_m=size_m, seed=3)
    assert stripes_m(seen.height_m, size_m) == pytest.approx(PITCH_M, rel=0.05)


def test_a_mask_is_printed_at_the_scale_that_is_given(tmp_path: Path) -> None:
    design, size_m = cad.read(Layout(picture(tmp_path), 2e-9), pixel_size_m=8e-9)
    assert size_m == 8e-9
    seen = cad.surface(design, (256, 256), pixel_size_m=size_m, seed=1)
    assert stripes_m(seen.height_m, size_m) == pytest.approx(PITCH_M, rel=0.05)
    assert abs(float(seen.height_m.mean())) < 1e-10
    assert float(np.ptp(seen.height_m)) > 5e-9
    finer, _ = cad.read(Layout(picture(tmp_path), 4e-9), pixel_size_m=8e-9)
    again = cad.surface(finer, (256, 256), pixel_size_m=8e-9, seed=1)
    assert stripes_m(again.height_m, size_m) == pytest.approx(2 * PITCH_M, rel=0.05)


def test_the_seed_says_where_in_the_layout_and_by_which_process(tmp_path: Path) -> None:
    design, size_m = cad.read(Layout(picture(tmp_path), 2e-9))
    one, same, other = (cad.surface(design, (96, 96), pixel_size_m=size_m, seed=seed).height_m for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_inverted_lines_are_trenches(tmp_path: Path) -> None:
    path = picture(tmp_path)
    plain, inverted = (cad.read(Layout(path, 2e-9, inverted=swap))[0].cover for swap in (False, True))
    np.testing.assert_allclose(plain + inverted, 1.0)


def test_coarser_pixels_cover_the_same_area() -> None:
    design = mask.of_picture(np.kron(np.eye(20), np.ones((5, 5))), pixel_size_m=1e-9)
    coarse = mask.coarser(design, 4)
    assert coarse.pixel_size_m == 4e-9
    assert coarse.cover.mean() == pytest.approx(design.cover.mean(), abs=1e-6)
    assert mask.coarser(design, 1) is mask.coarser(design, 0) is design
    assert mask.coarser(design, 80) is design  # nothing would be left of it


def test_the_microscope_shows_a_layout_with_its_heights_under_the_probe(tmp_path: Path) -> None:
    design, _ = cad.read(Layout(picture(tmp_path), 2e-9), pixel_size_m=10e-9)
    how = {"layout": design, "shape": (96, 96), "snr": 20.0, "drift_px_per_frame": (0.0, 0.0), "seed": 2}
    sharp, blurred = (VirtualMicroscope(MicroscopeSettings(start_defocus_m=z, **how)) for z in (0.0, 2e-5))
    detail = [float(np.abs(np.diff(np.asarray(scope.frame()[0], np.float64))).mean()) for scope in (sharp, blurred)]
    assert detail[0] > 1.5 * detail[1]
    steep = VirtualMicroscope(MicroscopeSettings(alpha_rad=2e-2, **how))
    assert steep._view.height_m is not None  # where the depth of focus is small the heights are felt
    assert steep._view.height_m.shape == steep._view.plane.shape


def test_what_cannot_be_a_layout_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SpecimenError, match="know their own scale"):
        cad.read(Layout(drawing(tmp_path), 1e-9))
    with pytest.raises(SpecimenError, match="no layers"):
        cad.read(Layout(picture(tmp_path), 2e-9, layer=(1, 0)))
    with pytest.raises(SpecimenError, match="no scale"):
        cad.read(Layout(picture(tmp_path)))
    (tmp_path / "text.gds").write_text("no layout")
    with pytest.raises(SpecimenError, match="neither GDSII nor OASIS"):
        cad.read(Layout(tmp_path / "text.gds"))
    dot = np.zeros((1200, 1200), np.uint8)
    dot[:4, :4] = 255
    cv2.imwrite(str(tmp_path / "dot.png"), dot)
    design, _ = cad.read(Layout(tmp_path / "dot.png", 1e-9))
    with pytest.raises(SpecimenError, match="prints, nor at 23 other places"):
        cad.surface(design, (64, 64), pixel_size_m=1e-9, seed=1)
