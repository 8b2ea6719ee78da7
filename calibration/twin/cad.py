"""Layouts as specimens: a GDSII or OASIS file, or a binary mask picture and its scale, in; printed fields of it out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from calibration.twin import gds, mask
from calibration.twin.gds import Layer
from calibration.twin.mask import Design
from calibration.twin.process import draw_process
from calibration.twin.roughness import field
from calibration.twin.sketch import Sketch, surface_of
from calibration.twin.specimen import GRAIN
from calibration.twin.surface import SpecimenError, Surface

LAYOUT = 1009  # a specimen of its own to the generator, far from the places of `specimen.NAMES`
PITCH_PX = (24.0, 60.0)  # unless a pixel size is given: twenty periods in a frame, fewer where the design is small
FILLED_PX = 704  # a frame, and what drifts into it
PIXEL_M = (5e-10, 1e-6)
SPOTS = 24  # places of a design to try: large ones have empty corners
SUFFIXES = (".gds", ".gdsii", ".gds2", ".oas", ".oasis")


@dataclass(frozen=True)
class Layout:
    """Which file, and what of it. scale_m: side of a mask picture's pixel; None for GDSII and OASIS, which know it."""

    path: Path
    scale_m: float | None = None
    layer: Layer | None = None
    cell: str | None = None
    inverted: bool = False  # material where the file has none


def is_cad(path: Path) -> bool:
    """GDSII or OASIS by its first bytes, or by a suffix that promises it."""
    return gds.begins_as_one(path) or path.suffix.lower() in SUFFIXES


def read(layout: Layout, *, pixel_size_m: float | None = None) -> tuple[Design, float]:
    """The design, and the pixel size of fields of it: the one given, or one that shows its local pitch well.

    Raises SpecimenError for a file that cannot be read, is not binary or empty, or has no scale.
    """
    if is_cad(layout.path):
        design, size_m = _of_cad(layout, pixel_size_m)
    else:
        design, size_m = _of_picture(layout, pixel_size_m)
    return (replace(design, cover=np.asarray(1.0 - design.cover, np.float32)) if layout.inverted else design), size_m


def surface(design: Design, shape: tuple[int, int], *, pixel_size_m: float, seed: int) -> Surface:
    """A field somewhere in the design, with walls, corners, rough edges and materials by the seed; heights from their
    mean. Raises SpecimenError where nothing or everything prints wherever it is looked at."""
    rng = np.random.default_rng([seed, LAYOUT])
    grain = field(shape, size_px=1.0, rng=rng) + 0.7 * field(shape, size_px=2.5, rng=rng)
    drawn = printed(design, shape, pixel_size_m=pixel_size_m, rng=rng)
    seen = surface_of(drawn.with_material(np.asarray(1.0 + GRAIN * grain, np.float32)))
    return replace(seen, height_m=seen.height_m - np.float32(seen.height_m.mean()))


def printed(design: Design, shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """A field by a process that is drawn too. Raises SpecimenError where nothing prints."""
    pitch_px = design.pitch_px * design.pixel_size_m / pixel_size_m
    how = draw_process(gap_px=0.5 * pitch_px, pitch_px=pitch_px, pixel_size_m=pixel_size_m, rng=rng)
    refused: SpecimenError | None = None
    for _ in range(SPOTS):
        try:
            return mask.sketch_of(design, shape, pixel_size_m=pixel_size_m, process=how, rng=rng)
        except SpecimenError as error:
            refused = error
    raise SpecimenError(f"{refused}, nor at {SPOTS - 1} other places; is it the right scale, layer or pixel size?")


def pixel_of(pitch_m: float, side_m: float) -> float:
    """A side that shows a pitch well, and lets a design of that shorter side fill the frame where it can."""
    low, high = sorted(pitch_m / many for many in PITCH_PX)
    return float(np.clip(np.clip(side_m / FILLED_PX, low, high), *PIXEL_M))


def _of_cad(layout: Layout, pixel_size_m: float | None) -> tuple[Design, float]:
    if layout.scale_m is not None:
        raise SpecimenError(f"layout {layout.path}: GDSII and OASIS know their own scale; leave it out")
    size_m = pixel_size_m or pixel_of(*gds.scale_m(layout.path, layer=layout.layer, cell=layout.cell))
    return gds.read(layout.path, pixel_size_m=size_m, layer=layout.layer, cell=layout.cell), size_m


def _of_picture(layout: Layout, pixel_size_m: float | None) -> tuple[Design, float]:
    if layout.layer is not None or layout.cell is not None:
        raise SpecimenError(f"layout {layout.path}: a picture has no layers and cells; leave them out")
    design = mask.read(layout.path, pixel_size_m=layout.scale_m)
    side_m = min(design.cover.shape) * design.pixel_size_m
    size_m = pixel_size_m or pixel_of(design.pitch_px * design.pixel_size_m, side_m)
    return mask.coarser(design, int(size_m / design.pixel_size_m)), size_m
