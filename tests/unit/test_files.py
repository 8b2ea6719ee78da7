"""Image files: content over suffix, vendor metadata, the data bar, damage."""

import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from agent.bridges import vendor
from agent.bridges.databar import databar_rows
from agent.bridges.files import images_in, read_image
from agent.errors import ImageError
from agent.messages import Optics

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RAMP = np.tile(np.arange(96, dtype=np.uint8), (64, 1))


def sample(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here: real images are not part of the project")
    return path


def save(path: Path, pixels: NDArray[Any], suffix: str) -> Path:
    done, coded = cv2.imencode(suffix, pixels)
    assert done
    path.write_bytes(coded.tobytes())
    return path


def noise(rows: int, columns: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).normal(120, 25, (rows, columns)).clip(0, 255).astype(np.uint8)


# Real files


@pytest.mark.parametrize(
    ("name", "pixel_size_m", "working_distance_m"),
    [
        ("P33_scale1_detectorA.tif", 325.5e-9, 5e-3),
        ("P33_scale2s3_detectorB.tif", 65.1e-9, 5e-3),
        ("Indent_20230912_7kV_spot4.5_FOV100um_multiBSE_C_05.tif", 65.1e-9, 5e-3),
    ],
)
def test_reads_what_thermo_wrote(name: str, pixel_size_m: float, working_distance_m: float) -> None:
    pixels, optics = read_image(sample(f"thermo_tiff/{name}"))
    assert (pixels.shape, pixels.dtype) == ((1103, 1536), np.uint16)
    assert optics.pixel_size_m == pytest.approx(pixel_size_m, abs=0.05e-9)
    assert optics.pixel_size_y_m == optics.pixel_size_m
    assert optics.working_distance_m == pytest.approx(working_distance_m, abs=0.02e-3)
    assert optics.databar_rows == 79
    assert (optics.accelerating_voltage_v, optics.source, optics.averaging) == (7000, "electron/ABS", "none")
    assert (optics.lens_mode, optics.aperture_m, optics.dynamic_focus) == ("Field-Free", 3e-5, False)
    assert optics.horizontal_field_width_m == pytest.approx(1536 * pixel_size_m, rel=1e-3)


def test_reads_what_thermo_wrote_about_the_scan() -> None:
    _, optics = read_image(sample("thermo_tiff/P33_scale1_detectorA.tif"))
    assert (optics.dwell_time_s, optics.frame_time_s, optics.beam_current_a) == (4.5e-5, 71.7719, 5.248e-10)
    assert (optics.stigmator_x, optics.stigmator_y, optics.stigmator_unit) == (7.77817e-05, -0.000121299, None)
    assert (optics.stage_x_m, optics.stage_rotation_rad) == (-0.0147134, 0.0872514)
    assert optics.scan_rotation_rad == 0.0
    assert optics.magnification == pytest.approx(254, abs=0.5)
    assert optics.frozen is None


def test_a_turned_scan_has_no_known_rotation_rather_than_one_of_unknown_sign() -> None:
    _, optics = read_image(sample("thermo_tiff/P33_scale2s3_detectorA.tif"))
    assert optics.scan_rotation_rad is None


@pytest.mark.parametrize(
    ("name", "shape", "pixel_size_m", "working_distance_m", "rows"),
    [
        ("ZEISS_SEM_multipage.tif", (1536, 2048), 12.326e-9, 4.5106e-3, None),
        ("test_tiff_Zeiss_SEM_1k.tif", (768, 1024), 2.6145e-6, 14.808e-3, 77),
        ("test_tiff_Zeiss_SEM_512pix.tif", (384, 512), 11.650e-9, 3.938e-3, 34),
    ],
)
def test_reads_what_zeiss_wrote_and_finds_its_data_bar(
    name: str, shape: tuple[int, int], pixel_size_m: float, working_distance_m: float, rows: int | None
) -> None:
    pixels, optics = read_image(sample(f"zeiss_tiff/{name}"))
    assert (pixels.shape, pixels.dtype) == (shape, np.uint8)
    assert optics.pixel_size_m == pytest.approx(pixel_size_m, rel=1e-3)
    assert optics.working_distance_m == pytest.approx(working_distance_m, rel=1e-3)
    assert optics.databar_rows == rows


def test_reads_zeiss_units_averaging_and_a_rotation_that_is_switched_off() -> None:
    _, optics = read_image(sample("zeiss_tiff/test_tiff_Zeiss_SEM_1k.tif"))
    assert (optics.accelerating_voltage_v, optics.source) == (25000, "electron/HE-SE2")
    assert (optics.stigmator_x, optics.stigmator_unit) == (2.5, "%")
    assert optics.aperture_m == pytest.approx(30e-6)
    assert optics.scan_rotation_rad == 0.0
    _, other = read_image(sample("zeiss_tiff/ZEISS_SEM_multipage.tif"))
    assert (other.averaging, other.average_count, other.frame_time_s) == ("line", 22, 114)


@pytest.mark.parametrize("name", ["a.tif", "b.tif"])
def test_frames_without_metadata_or_data_bar_have_neither(name: str) -> None:
    pixels, optics = read_image(sample(f"thermo_frames/{name}"))
    assert (pixels.shape, pixels.dtype) == ((1024, 1536), np.uint8)
    assert optics == Optics()


def test_finds_the_thermo_data_bar_without_metadata_too() -> None:
    pixels, _ = read_image(sample("thermo_tiff/P33_scale1_detectorA.tif"))
    assert databar_rows(pixels) == 79


@pytest.mark.parametrize("folder", ["montecarlo", "artimagen", "cad_sem/sem", "cad_sem/cad", "tilt_depth"])
def test_sees_no_data_bar_where_there_is_none(folder: str) -> None:
    for path in images_in(sample(folder))[:12]:
        assert read_image(path)[1].databar_rows is None, path.name


# Tescan: no real sample is at hand; the layout is the one that open readers of the format agree on.

TESCAN_MAIN = (
    b"AccFrames=4\r\nDevice=MIRA3\r\nImageStripSize=8\r\nMagnification=5000\r\n"
    b"PixelSizeX=1.25e-008\r\nPixelSizeY=1.3e-008\r\n"
)
TESCAN_SEM = (
    b"Detector0=SE\r\nDwellTime=3.2e-006\r\nHV=15000\r\nPredictedBeamCurrent=2.5e-010\r\nScanMode=RESOLUTION\r\n"
    b"StageRotation=90\r\nStageTilt=0\r\nStageX=0.001\r\nStigmatorX=1.5\r\nStigmatorY=-2.5\r\nWD=0.00721\r\n"
)


def tescan_blocks(*, thumbnail: bool, column: int = 3) -> bytes:
    blocks = [(1, b"\xff\xd8\xff\0WD=9.9\0" + bytes(range(256)))] if thumbnail else []
    blocks += [(2, TESCAN_MAIN), (column, TESCAN_SEM), (0, b"")]
    return b"".join(struct.pack("<IH", len(data) + 2, kind) + data for kind, data in blocks)


def tescan_file(path: Path, tag: bytes) -> Path:
    tifffile.imwrite(path, RAMP, extratags=[(vendor.TESCAN, 1, len(tag), tag, True)], resolution=(72, 72))
    return path


@pytest.mark.parametrize("thumbnail", [True, False])
def test_reads_what_tescan_wrote_with_and_without_a_thumbnail_before_it(tmp_path: Path, thumbnail: bool) -> None:
    _, optics = read_image(tescan_file(tmp_path / "t.tif", tescan_blocks(thumbnail=thumbnail)))
    assert (optics.pixel_size_m, optics.pixel_size_y_m, optics.working_distance_m) == (1.25e-8, 1.3e-8, 0.00721)
    assert (optics.accelerating_voltage_v, optics.beam_current_a, optics.dwell_time_s) == (15000, 2.5e-10, 3.2e-6)
    assert (optics.source, optics.averaging, optics.average_count) == ("electron/SE", "frame", 4)
    assert (optics.stigmator_x, optics.stigmator_unit, optics.databar_rows) == (1.5, "%", 8)
    assert optics.stage_rotation_rad == pytest.approx(np.pi / 2)


def test_reads_tescan_text_that_is_in_no_chain_of_blocks(tmp_path: Path) -> None:
    tag = b"\xff\xd8\xff" + bytes(range(200)) + b"\r\n" + TESCAN_MAIN + b"\0\0" + TESCAN_SEM
    _, optics = read_image(tescan_file(tmp_path / "t.tif", tag))
    assert (optics.pixel_size_m, optics.working_distance_m) == (1.25e-8, 0.00721)


def test_an_ion_picture_says_so(tmp_path: Path) -> None:
    _, optics = read_image(tescan_file(tmp_path / "t.tif", tescan_blocks(thumbnail=False, column=5)))
    assert optics.source == "ion/SE"


@pytest.mark.parametrize("tag", [b"", b"\0" * 40, b"PixelSizeX=abc\r\nWD=nan\r\nHV=-5\r\n", bytes(range(256)) * 4])
def test_a_damaged_vendor_tag_leaves_fields_unknown_and_the_picture_readable(tmp_path: Path, tag: bytes) -> None:
    pixels, optics = read_image(tescan_file(tmp_path / "t.tif", tag or b"\0"))
    assert (optics.pixel_size_m, optics.working_distance_m) == (None, None)
    assert np.array_equal(pixels, RAMP)


def test_a_pixel_size_does_not_survive_a_picture_of_another_width() -> None:
    ini = {"Image": {"ResolutionX": 1536, "ResolutionY": 1024}, "EScan": {"PixelWidth": 1e-9, "HorFieldsize": 1.5e-6}}
    assert vendor.fei(ini, (1103, 1536)).pixel_size_m == 1e-9
    assert vendor.fei(ini, (550, 768)).pixel_size_m is None
    assert vendor.fei(ini, (550, 768)).horizontal_field_width_m is None


def test_frame_averages_of_thermo_are_told_apart() -> None:
    def averaging(**image: int) -> tuple[str | None, int | None]:
        optics = vendor.fei({"Image": image}, (10, 10))
        return optics.averaging, optics.average_count

    assert averaging(Integrate=8, Average=0) == ("frame", 8)
    assert averaging(Integrate=1, Average=16) == ("recursive", 16)
    assert averaging(Integrate=1, Average=0) == ("none", 1)
    assert averaging() == (None, None)


# Formats


def test_the_resolution_tags_are_never_a_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "r.tif", RAMP, resolution=(1e7, 1e7), resolutionunit="CENTIMETER")
    assert read_image(tmp_path / "r.tif")[1].pixel_size_m is None


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg"])
@pytest.mark.parametrize("name", ["right", "wrong.png", "wrong.tif"])
def test_tells_files_apart_by_content(tmp_path: Path, suffix: str, name: str) -> None:
    path = save(tmp_path / name, RAMP, suffix)
    pixels, _ = read_image(path)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - RAMP).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiffs_keep_their_numbers(tmp_path: Path, dtype: type, byteorder: str) -> None:
    pixels = (RAMP * (200 if dtype == np.uint16 else 1)).astype(dtype)
    tifffile.imwrite(tmp_path / "n.tif", pixels, byteorder=byteorder)
    found, _ = read_image(tmp_path / "n.tif")
    assert found.dtype == dtype
    assert np.array_equal(found, pixels)
    assert not found.flags.writeable


def test_a_16_bit_png_stays_16_bit(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 600
    assert np.array_equal(read_image(save(tmp_path / "d.png", deep, ".png"))[0], deep)


@pytest.mark.parametrize("planar", ["CONTIG", "SEPARATE"])
def test_colour_becomes_luma(tmp_path: Path, planar: str) -> None:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 200
    stored = red if planar == "CONTIG" else np.moveaxis(red, -1, 0)
    tifffile.imwrite(tmp_path / "c.tif", stored, photometric="rgb", planarconfig=planar)
    pixels, _ = read_image(tmp_path / "c.tif")
    assert pixels.shape == (20, 30)
    assert np.unique(pixels).tolist() == [60]  # 0.299 of red
    assert np.unique(read_image(save(tmp_path / "c.png", red[..., ::-1], ".png"))[0]).tolist() == [60]


def test_grey_told_as_colour_keeps_its_numbers(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "g.tif", np.dstack([RAMP] * 3), photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "g.tif")[0], RAMP)


def test_a_grey_palette_maps_to_its_greys_and_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    reversed_grey = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "p.tif", RAMP, photometric="palette", colormap=reversed_grey)
    assert np.array_equal(read_image(tmp_path / "p.tif")[0], 255 - RAMP)
    tifffile.imwrite(tmp_path / "w.tif", RAMP, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "w.tif")[0], 255 - RAMP)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = RAMP % 2 == 1
    tifffile.imwrite(tmp_path / "b.tif", bits, photometric="minisblack")
    assert np.array_equal(read_image(tmp_path / "b.tif")[0], bits * np.uint8(255))


def test_an_lzw_tiff_is_read_without_imagecodecs(tmp_path: Path) -> None:
    path = tmp_path / "l.tif"
    assert cv2.imwrite(str(path), RAMP, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].compression == 5
    assert np.array_equal(read_image(path)[0], RAMP)


def test_the_first_whole_page_is_read_and_thumbnails_are_passed_over(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(RAMP[::8, ::8], subfiletype=1)
        writer.write(RAMP)
        writer.write(RAMP * 2)
    assert np.array_equal(read_image(tmp_path / "m.tif")[0], RAMP)


# The data bar, painted


def painted(background: int, ink: int, *, text: bool = True) -> NDArray[np.uint8]:
    picture = np.vstack([noise(500, 640), np.full((60, 640), background, np.uint8)])
    if text:
        cv2.putText(picture, "15.0 kV  WD 5.0 mm  x 1000  10 um", (10, 540), cv2.FONT_HERSHEY_SIMPLEX, 0.8, ink)
    return picture


@pytest.mark.parametrize(("background", "ink"), [(0, 255), (255, 0), (30, 200)])
def test_finds_a_flat_strip_with_text(background: int, ink: int) -> None:
    assert databar_rows(painted(background, ink)) == 60


def test_finds_it_in_a_jpeg(tmp_path: Path) -> None:
    rows = read_image(save(tmp_path / "j.jpg", painted(0, 255), ".jpg"))[1].databar_rows
    assert rows == pytest.approx(60, abs=4)


def test_a_dark_band_of_the_specimen_is_no_data_bar() -> None:
    assert databar_rows(painted(0, 255, text=False)) is None
    dust = painted(0, 255, text=False)
    dust[530:534, 100:104] = 255
    assert databar_rows(dust) is None
    assert databar_rows(noise(560, 640)) is None
    assert databar_rows(np.zeros((560, 640), np.uint8)) is None


# What cannot be read


def test_a_file_that_is_no_image_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("hello world")
    with pytest.raises(ImageError, match="not an image"):
        read_image(tmp_path / "x.tif")
    (tmp_path / "e.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"not an image.* it is empty"):
        read_image(tmp_path / "e.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "nobody.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_cut_off_is_an_error_and_not_a_grey_picture(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path / f"whole{suffix}", noise(200, 200), suffix)
    if suffix == ".tif":
        tifffile.imwrite(path, noise(200, 200))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError):
        read_image(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_bitmap_cut_off_is_an_error_and_not_a_grey_picture(tmp_path: Path, share: float) -> None:
    path = save(tmp_path / "whole.bmp", noise(201, 203), ".bmp")
    data = path.read_bytes()
    assert np.array_equal(read_image(path)[0], noise(201, 203))
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="cut off"):
        read_image(path)


def test_a_folder_is_refused_with_what_to_give_instead(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder; give the images in it"):
        read_image(tmp_path)


def test_what_never_ends_is_refused_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(path)


def test_a_png_that_says_it_is_larger_than_anything_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.png", RAMP, ".png")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 30000, 30000)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="30000x30000 pixels, more than"):
        read_image(path)


def test_a_large_tiff_stands_in_memory_hardly_more_than_once(tmp_path: Path) -> None:
    pixels = np.tile(RAMP, (40, 30))
    tifffile.imwrite(tmp_path / "l.tif", pixels)
    tracemalloc.start()
    found, _ = read_image(tmp_path / "l.tif")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found, pixels)
    assert peak < 1.5 * pixels.nbytes


def test_any_damaged_tiff_is_an_image_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", RAMP, description="x" * 50)
    data, random = (tmp_path / "t.tif").read_bytes(), np.random.default_rng(5)
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(0, 300, 4):
            damaged[place] = random.integers(0, 256)
        (tmp_path / "t.tif").write_bytes(damaged)
        try:
            pixels, _ = read_image(tmp_path / "t.tif")
        except ImageError:
            continue
        assert pixels.ndim == 2


def test_pixels_that_are_not_numbers_are_an_error(tmp_path: Path) -> None:
    bad = RAMP.astype(np.float32)
    bad[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "f.tif", bad)
    with pytest.raises(ImageError, match="1 pixels are not finite"):
        read_image(tmp_path / "f.tif")


def test_lists_a_folder_by_name_and_leaves_other_files_out(tmp_path: Path) -> None:
    for name in ("b.TIF", "a.png", "PROVENANCE.txt", "r.b1s"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in images_in(tmp_path)] == ["a.png", "b.TIF", "r.b1s"]
    assert images_in(tmp_path / "PROVENANCE.txt") == [tmp_path / "PROVENANCE.txt"]
    with pytest.raises(ImageError, match="no such file"):
        images_in(tmp_path / "nowhere")
