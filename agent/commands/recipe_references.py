"""The picture a recipe compares frames with: a golden frame from its file, a design as the virtual microscope sees it.

Loaded once, when recipes are read; what cannot be loaded is refused with its recipe.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.bridges.files import read_image
from agent.control.recipe import Cad, Rules
from agent.errors import ImageError
from agent.messages import ReferenceKind, ReferenceSource
from agent.pixels import INSPECTED_PX, eight_bits
from agent.recipes import RecipeError, plain_reference
from engines.scene import STRIDE_PX

if TYPE_CHECKING:
    from calibration.twin.mask import Design

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]

SIDE_WALL_RAD = np.deg2rad(86.0)  # as etched lines stand
LEAST_BLUR_PX, PROBE_PX = 0.6, 0.7  # sigma: no outline is sharper than the pixels it is drawn on
SMOOTHED = 0.3  # of a pixel of the frame, where one covers several of the design's
MARGIN_PX = 32  # farther than walls shade and edges shine
LOW, HIGH = 40.0, 210.0  # grey levels of the darkest and brightest percent: a reference is set to the frame's own


def drawn(name: str, rules: Rules, folder: Path) -> ReferenceSource:
    """What frames of a recipe are compared with; `folder`: where the recipe lies. Raises RecipeError."""
    if rules.golden is not None:
        return ReferenceSource(kind=ReferenceKind.GOLDEN, pixels=golden(name, folder / rules.golden), expected=True)
    if rules.cad is not None:
        pixels = of_design(name, folder / rules.cad.file, rules.cad)
        return ReferenceSource(kind=ReferenceKind.CAD, pixels=pixels, expected=True)
    return plain_reference(name, rules, folder)


def golden(name: str, path: Path) -> Pixels:
    """A frame without defects, 8 bits, without its data bar."""
    try:
        pixels, optics = read_image(path)
    except ImageError as error:
        raise RecipeError(f"recipe {name}: golden {error}") from error
    rows = pixels.shape[0] - (optics.databar_rows or 0)
    if rows < 1 or float(pixels[:rows].std()) == 0.0:
        raise RecipeError(f"recipe {name}: golden {path} is an empty picture: give a frame without defects")
    return np.ascontiguousarray(eight_bits(pixels[:rows], optics))


def of_design(name: str, path: Path, cad: Cad) -> Pixels:
    """The design printed and seen, without noise."""
    from calibration.twin.cad import Layout, read
    from calibration.twin.surface import SpecimenError

    if min(cad.width_px, cad.height_px) < STRIDE_PX or cad.width_px * cad.height_px > INSPECTED_PX:
        size = f"{cad.width_px}x{cad.height_px} pixels"
        most = f"{INSPECTED_PX / 1e6:.0f} million in all"
        raise RecipeError(f"recipe {name}: cad of {size}; {STRIDE_PX} a side at least, {most} at most")
    try:
        layout = Layout(path, scale_m=cad.scale_m, layer=cad.layer, cell=cad.cell, inverted=cad.inverted)
        design, _ = read(layout, pixel_size_m=cad.pixel_size_m)
    except SpecimenError as error:
        raise RecipeError(f"recipe {name}: cad: {error}") from error
    around = seen(covered(name, design, cad), cad)
    return np.ascontiguousarray(around[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])


def covered(name: str, design: "Design", cad: Cad) -> Plane:
    """(height_px, width_px) covered share of the frame's pixels from the corner that the recipe gives, and a margin:
    what lies beside the frame shades its edges."""
    step = cad.pixel_size_m / design.pixel_size_m
    left, top = cad.left_m / design.pixel_size_m, cad.top_m / design.pixel_size_m
    height, width = design.cover.shape
    if min(left, top) < 0.0 or left + cad.width_px * step > width + 0.5 or top + cad.height_px * step > height + 0.5:
        whole = f"{width * design.pixel_size_m * 1e6:.3g} x {height * design.pixel_size_m * 1e6:.3g} um"
        raise RecipeError(f"recipe {name}: the frame of cad reaches out of the design of {whole}: move or shrink it")
    cover = design.cover if step <= 1.0 else cv2.GaussianBlur(design.cover, (0, 0), SMOOTHED * step)
    first = [start - MARGIN_PX * step + 0.5 * (step - 1.0) for start in (left, top)]
    matrix = np.array([[step, 0.0, first[0]], [0.0, step, first[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (cad.width_px + 2 * MARGIN_PX, cad.height_px + 2 * MARGIN_PX)
    part = np.asarray(cv2.warpAffine(cover, matrix, size, flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32)
    if float(np.ptp(part)) < 0.5:
        raise RecipeError(f"recipe {name}: no edge of the design lies in the frame of cad: move it")
    return part


def seen(cover: Plane, cad: Cad) -> Pixels:
    """Walls where the exposure's outline runs, silicon's emission, a sharp probe; edges bright, deep gaps dark."""
    from calibration.twin.distance import signed_distance
    from calibration.twin.emission import SILICON_1KEV, at_voltage, render, sky_view

    exposed = cv2.GaussianBlur(cover, (0, 0), max(cad.blur_m / cad.pixel_size_m, LEAST_BLUR_PX))
    outline = signed_distance(np.asarray(exposed - 0.5, np.float32))
    run_px = max(cad.height_m / np.tan(SIDE_WALL_RAD) / cad.pixel_size_m, 1.0)
    height_m = np.asarray(np.clip(outline / np.float32(run_px) + 0.5, 0.0, 1.0) * cad.height_m, np.float32)
    how = at_voltage(SILICON_1KEV, cad.voltage_v, pixel_size_m=cad.pixel_size_m)
    sky = sky_view(height_m, pixel_size_m=cad.pixel_size_m)
    bright = render(height_m, how, pixel_size_m=cad.pixel_size_m, sky=sky)
    sharp = cv2.GaussianBlur(bright, (0, 0), PROBE_PX)
    low, high = (float(x) for x in np.percentile(sharp, (1.0, 99.0)))
    levels = LOW + (HIGH - LOW) * (sharp - low) / max(high - low, 1e-9)
    return np.asarray(np.clip(levels + 0.5, 0.0, 255.0), np.uint8)
