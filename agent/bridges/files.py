"""Image files in, pixels and what the microscope's maker wrote about them out.

Files are told apart by content, since suffixes lie. Nothing is ever unpickled, and the resolution tags of a TIFF are
never a pixel size: they are about paper.
"""

import math
import stat
import struct
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from agent.bridges import vendor
from agent.bridges.databar import databar_rows
from agent.errors import ImageError
from agent.messages import Optics

SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"})
RECORDING = ".b1s"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG, JPEG, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
BMP_HEAD = 34  # bytes up to its kind of compression
MAX_FILE_BYTES = 2 << 30
MAX_PIXELS = 1 << 28  # 16384 x 16384: a bigger header is a lie, and allocating for it would end the process
REDUCED = 1  # bit of NewSubfileType: this page is a thumbnail
MINISWHITE, PALETTE = 0, 3


def images_in(path: Path) -> list[Path]:
    """The pictures and recordings of a file or a folder, in the order of their names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ImageError(f"{path}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES | {RECORDING})
    if not found:
        raise ImageError(f"{path}: no images here ({', '.join(sorted(SUFFIXES))}) and no recording ({RECORDING})")
    return found


def read_image(path: Path) -> tuple[NDArray[Any], Optics]:
    """One picture as (h, w) uint8, uint16 or float32, data bar included, and what is known of it.

    Raises ImageError saying which file, what is wrong with it, and what would be read.
    """
    began = _beginning(path)
    if began.startswith(TIFF):
        pixels, optics = _tiff(path)
    elif began.startswith((PNG, JPEG, BMP)):
        data = _bytes(path)
        _whole(path, data)
        pixels, optics = _decoded(path, data), Optics()
        del data  # a large picture should not stand in memory twice
    else:
        raise ImageError(f"{path}: not an image (TIFF, PNG, JPEG, BMP), {_described(began)}")
    pixels = _grey(path, pixels)
    if optics.databar_rows is None:
        optics = msgspec.structs.replace(optics, databar_rows=databar_rows(pixels))
    pixels.flags.writeable = False
    return pixels, optics


def _beginning(path: Path) -> bytes:
    """The first bytes of a file, once it is one that ends: a pipe or a device would be waited for, or never end."""
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise ImageError(f"{path}: is a folder; give the images in it, such as {path}/*.tif")
        if not stat.S_ISREG(about.st_mode):
            raise ImageError(f"{path}: cannot be read: not a regular file; save the picture to disk first")
        if about.st_size > MAX_FILE_BYTES:
            raise ImageError(f"{path}: {about.st_size} bytes, more than the {MAX_FILE_BYTES} this program reads")
        with path.open("rb") as file:
            return file.read(16)
    except (OSError, ValueError) as error:  # the latter: a zero byte in the name
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _described(began: bytes) -> str:
    return f"it begins with {began[:8]!r}" if began else "it is empty: 0 bytes"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from error


def _whole(path: Path, data: bytes) -> None:
    # OpenCV fills the missing part of a truncated file with grey and says nothing.
    ends = (data.startswith(PNG) and b"IEND" not in data[-64:]) or (
        data.startswith(JPEG) and b"\xff\xd9" not in data[-4096:]
    )
    if ends or (data.startswith(BMP) and len(data) < _bmp_bytes(data)):
        raise ImageError(f"{path}: the file is cut off before its end ({len(data)} bytes); copy it again")
    if data.startswith(PNG) and math.prod(struct.unpack_from(">II", data, 16)) > MAX_PIXELS:
        width, height = struct.unpack_from(">II", data, 16)
        raise ImageError(f"{path}: {width}x{height} pixels, more than the {MAX_PIXELS} this program reads")


def _bmp_bytes(data: bytes) -> int:
    """How long a BMP must be for its rows; 0 where it is compressed. The size it gives itself is often wrong."""
    if len(data) < BMP_HEAD:
        return BMP_HEAD
    start, _, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", data, 10)
    return start + (width * bits + 31) // 32 * 4 * abs(height) if compression in (0, 3) else 0


def _decoded(path: Path, data: bytes, page: int = 0) -> NDArray[Any]:
    buffer = np.frombuffer(data, np.uint8)
    try:
        if page == 0:
            found = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        else:
            _, pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)
            found = pages[page] if page < len(pages) else None
    except cv2.error as error:
        raise ImageError(f"{path}: cannot be decoded: {' '.join(str(error).split())}") from None
    if found is None:
        raise ImageError(f"{path}: damaged, or coded in a way that is not read; save it again as TIFF or PNG")
    return _from_bgr(found)


def _from_bgr(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.ndim == 2 or pixels.shape[2] < 3 else np.asarray(pixels[..., 2::-1])


# TIFF


def _tiff(path: Path) -> tuple[NDArray[Any], Optics]:
    try:
        with tifffile.TiffFile(path) as tiff:
            number, page = _picture_page(path, tiff)
            optics = _optics(page)
            return _page_pixels(path, number, page), optics
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise ImageError(f"{path}: damaged TIFF: {error}") from error


def _picture_page(path: Path, tiff: Any) -> tuple[int, Any]:
    """The first page that is a whole picture: not marked as a thumbnail and not far smaller than the others."""
    pages = [(i, page) for i, page in enumerate(tiff.pages) if page.imagewidth * page.imagelength > 0]
    if not pages:
        raise ImageError(f"{path}: a TIFF without an image in it")
    largest = max(page.imagewidth * page.imagelength for _, page in pages)
    if largest > MAX_PIXELS:
        raise ImageError(f"{path}: a page of {largest} pixels, more than the {MAX_PIXELS} this program reads")
    for number, page in pages:
        if not page.subfiletype & REDUCED and 2 * page.imagewidth * page.imagelength >= largest:
            return number, page
    return pages[0]


def _page_pixels(path: Path, number: int, page: Any) -> NDArray[Any]:
    if page.imagedepth > 1:
        raise ImageError(f"{path}: a volume of {page.imagedepth} planes; save one plane")
    size = path.stat().st_size
    if any(end > size for end in map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))):
        raise ImageError(f"{path}: the file is cut off before its end ({size} bytes); copy it again")
    try:
        pixels = np.asarray(page.asarray())
    except (ValueError, RuntimeError, ImportError):
        # LZW, JPEG and others need imagecodecs, which is not part of the run-time install; OpenCV has them.
        return _decoded(path, _bytes(path), number)
    return _as_shown(path, pixels, page)


def _as_shown(path: Path, pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    if page.axes == "SYX":
        pixels = np.moveaxis(pixels, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise ImageError(f"{path}: axes {page.axes} where rows and columns were expected")
    if page.photometric == MINISWHITE and pixels.dtype.kind in "bu":
        return ~pixels
    if page.photometric == PALETTE and page.colormap is not None:
        colours = np.moveaxis(np.asarray(page.colormap)[:, pixels], 0, -1)
        return (colours >> 8).astype(np.uint8) if pixels.dtype.itemsize == 1 else colours.astype(np.uint16)
    return pixels


def _optics(page: Any) -> Optics:
    for tag in (vendor.FEI, vendor.ZEISS, vendor.TESCAN):
        if tag in page.tags:
            value = page.tags[tag].value
            return vendor.optics_of(tag, _flat(value), (page.imagelength, page.imagewidth))
    return Optics()


def _flat(value: object) -> object:
    # Depending on the type the tag was written with, tifffile gives bytes, text, or a tuple of numbers.
    if isinstance(value, str):
        return value.encode("latin-1", "replace")
    if isinstance(value, tuple) and all(isinstance(v, int) for v in value):
        return bytes(v & 0xFF for v in value)
    return value


# To one grey channel


def _grey(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    """(h, w) or (h, w, channels) of any number type -> (h, w) uint8, uint16 or float32."""
    pixels = _number_type(path, pixels)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):  # grey, or grey and transparency
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ImageError(f"{path}: shape {pixels.shape} is not a picture")
    return _owned(pixels)


def _owned(pixels: NDArray[Any]) -> NDArray[Any]:
    """Row after row, and no view that keeps a larger array alive."""
    whole = pixels.base is None and pixels.flags.c_contiguous
    return pixels if whole else np.array(pixels, order="C")


def _number_type(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if kind not in "iuf":
        raise ImageError(f"{path}: pixels of type {pixels.dtype}; integers and real numbers are read")
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if kind == "i" and pixels.dtype.itemsize == 2 and pixels.min() >= 0:
        return pixels.astype(np.uint16)
    as_float = pixels.astype(np.float32)
    if not np.isfinite(as_float).all():
        raise ImageError(f"{path}: {int((~np.isfinite(as_float)).sum())} pixels are not finite numbers")
    return as_float
