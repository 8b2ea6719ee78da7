"""GDSII and OASIS in, a `Design` out; through gdstk, which the extra `gds` installs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.twin.mask import Design
from calibration.twin.surface import SpecimenError

FINER = 8  # scan lines to a pixel
TOLERANCE_PX = 1e-6  # of the file's own rounding
LARGEST_PX = 8192 * 8192  # of a design, in all
GDS, OASIS = b"\x00\x06\x00\x02", b"%SEMI-OASIS"  # how the two begin; suffixes lie

Layer = tuple[int, int]  # number and datatype


def read(path: Path, *, pixel_size_m: float, layer: Layer | None = None, cell: str | None = None) -> Design:
    """One layer of one cell, its hierarchy flattened, at the pixel size asked for; the file knows its own scale.

    cell None: the only top cell. layer None: the only layer. Raises SpecimenError for what cannot be read or chosen.
    """
    if not (np.isfinite(pixel_size_m) and pixel_size_m > 0.0):
        raise SpecimenError(f"layout {path}: pixel size {pixel_size_m} m; needs a positive number")
    polygons, unit_m = _polygons(path, layer, cell)
    corners = [np.asarray(each.points) * unit_m / pixel_size_m for each in polygons]
    number, datatype = _of(polygons[0])
    return Design(_filled(corners, path), pixel_size_m, f"{path} layer {number}/{datatype}")


def scale_m(path: Path, *, layer: Layer | None = None, cell: str | None = None) -> tuple[float, float]:
    """The local pitch as `Design.pitch_px` has it, by areas and outlines; and the shorter side of all that is drawn."""
    polygons, unit_m = _polygons(path, layer, cell)
    corners = np.concatenate([np.asarray(each.points) for each in polygons])
    edge, covered = sum(each.perimeter() for each in polygons), sum(each.area() for each in polygons)
    sides = np.ptp(corners, axis=0)
    width, both = 2.0 * covered / edge, 2.0 * float(sides.prod()) / edge
    rarer = min(width, both - width)  # nothing, where polygons fill their box: then their own width counts
    pitch = min(both, 3.0 * rarer) if rarer > 1e-6 * both else width
    return float(unit_m * pitch), float(unit_m * sides.min())


def begins_as_one(path: Path) -> bool:
    """Does the file begin as GDSII or OASIS do? A file that cannot be opened does not."""
    try:
        with path.open("rb") as file:
            return file.read(len(OASIS)).startswith((GDS, OASIS))
    except OSError:
        return False


def _polygons(path: Path, layer: Layer | None, cell: str | None) -> tuple[list[Any], float]:
    """Those of one layer of one cell, at least one of them; and their unit, m."""
    library = _library(path)
    polygons = _cell(library, cell, path).get_polygons()
    chosen = _layer(polygons, layer, path)
    return [each for each in polygons if _of(each) == chosen], float(library.unit)


def _library(path: Path) -> Any:
    try:
        import gdstk
    except ImportError as error:
        raise SpecimenError(
            f"layout {path}: GDSII and OASIS need the extra gds: pip install 'beamside[gds]'"
        ) from error
    try:
        with path.open("rb") as file:
            start = file.read(len(OASIS))
        if not start.startswith((GDS, OASIS)):
            raise SpecimenError(f"layout {path}: neither GDSII nor OASIS; it begins with {start[:4]!r}")
        library = gdstk.read_oas(str(path)) if start == OASIS else gdstk.read_gds(str(path))
    except (RuntimeError, OSError, ValueError) as error:
        raise SpecimenError(f"layout {path}: cannot be read ({error})") from error
    if not library.cells:
        raise SpecimenError(f"layout {path}: empty, it holds no cell")
    return library


def _cell(library: Any, name: str | None, path: Path) -> Any:
    tops = library.top_level()
    found = [each for each in library.cells if each.name == name] if name else tops
    if len(found) != 1:
        known = ", ".join(each.name for each in (library.cells if name else tops))
        what = f"no cell {name}" if name else f"{len(tops)} top cells"
        raise SpecimenError(f"layout {path}: {what}; choose one of {known}")
    return found[0]


def _layer(polygons: list[Any], wanted: Layer | None, path: Path) -> Layer:
    known = sorted({_of(each) for each in polygons})
    if not known:
        raise SpecimenError(f"layout {path}: empty, the cell holds no polygon")
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted is None or wanted not in known:
        listed = ", ".join(f"{number}/{datatype}" for number, datatype in known)
        what = "several layers" if wanted is None else f"no layer {wanted[0]}/{wanted[1]}"
        raise SpecimenError(f"layout {path}: {what}; choose one of {listed}")
    return wanted


def _of(polygon: Any) -> Layer:
    return int(polygon.layer), int(polygon.datatype)


def _filled(corners: list[NDArray[np.float64]], path: Path) -> NDArray[np.float32]:
    """(h, w) coverage over the bounding box; y runs down, as in every picture here."""
    low, high = np.min([c.min(axis=0) for c in corners], axis=0), np.max([c.max(axis=0) for c in corners], axis=0)
    w, h = (max(int(np.ceil(side - TOLERANCE_PX)), 2) for side in high - low)
    if w * h > LARGEST_PX:
        raise SpecimenError(f"layout {path}: {w}x{h} px at this pixel size; choose a cell or a larger pixel")
    steps = np.zeros((h, w + 2), np.float64)  # of the coverage from each pixel to the next
    for each in corners:
        _add(steps, each[:, 0] - low[0], high[1] - each[:, 1])
    return np.clip(np.cumsum(steps, axis=1)[:, :w], 0.0, 1.0).astype(np.float32)


def _add(steps: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """One polygon, in place: exact along x, FINER scan lines a pixel along y, inside by the even-odd rule."""
    first, last = int(y.min() * FINER), min(int(np.ceil(y.max() * FINER)), steps.shape[0] * FINER)
    line = (np.arange(first, last) + 0.5) / FINER  # (n,)
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    crosses = (y <= line[:, None]) != (y1 <= line[:, None])  # (n, edges)
    number, edge = np.nonzero(crosses)
    share = (line[number] - y[edge]) / (y1[edge] - y[edge])
    at = np.clip(x[edge] + share * (x1[edge] - x[edge]), 0.0, steps.shape[1] - 2.0)
    order = np.lexsort((at, number))
    number, at = number[order], at[order]
    weight = np.where(np.arange(at.size) % 2 == 0, 1.0, -1.0) / FINER  # every line is crossed an even number of times
    row, column = (first + number) // FINER, at.astype(np.intp)
    part = at - column
    np.add.at(steps, (row, column), weight * (1.0 - part))
    np.add.at(steps, (row, column + 1), weight * part)
