"""How far a defect stands out of the noise under one look: its window rendered with it and without, both noiseless."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.train.develop import Look, probed
from calibration.twin.defects import Placed
from calibration.twin.emission import render, sky_view

Field = NDArray[np.float32]

MARGIN_PX = 16  # around a box: bloom and shadow reach so far
EDGE_PX = 4  # around a box: so far what is lit or shaded by the defect counts as its own
AZIMUTHS = 8  # of the sky there: a difference needs less than a picture
SMALLEST_PX = 6  # pixels that differ; fewer are a noise spike to anybody
# Signal to noise of the matched filter, which knows the defect and the clean field exactly. Some 10^6 places, sizes and
# kinds are tried in a field of 512x512: by chance the best of them passes 5.4 in one field out of ten. Who has no clean
# field to compare with, but only a pattern with a roughness of its own, needs about twice that.
VISIBLE = 10.0


@dataclass(frozen=True)
class Contrast:
    """What a perfect observer has to go on."""

    to_noise: float  # mean |defect - reference| over the pixels that differ / sigma of a pixel
    matched: float  # signal to noise of the matched filter


@dataclass(frozen=True)
class Surface:
    """A field, or a window of it. material: relative yield, None: 1 everywhere."""

    height_m: Field
    material: Field | None


@dataclass(frozen=True)
class Window:
    """The surroundings of one defect; the skies are its own: the same error with and without the defect."""

    defect: Placed
    pixel_size_m: float
    cut: tuple[slice, slice]  # of the field
    inner: tuple[slice, slice]  # of the cut
    sky_with: Field
    sky_without: Field


def window(defect: Placed, height_m: Field, clean_m: Field, *, pixel_size_m: float) -> Window:
    """height_m, clean_m: the whole field with its defects and without any."""
    x0, y0, x1, y1 = defect.box_px
    top, left = max(y0 - MARGIN_PX, 0), max(x0 - MARGIN_PX, 0)
    cut = np.s_[top : y1 + MARGIN_PX, left : x1 + MARGIN_PX]
    inner = np.s_[max(y0 - EDGE_PX, 0) - top : y1 + EDGE_PX - top, max(x0 - EDGE_PX, 0) - left : x1 + EDGE_PX - left]
    skies = [
        sky_view(np.ascontiguousarray(z[cut]), pixel_size_m=pixel_size_m, azimuths=AZIMUTHS)
        for z in (height_m, clean_m)
    ]
    return Window(defect, pixel_size_m, cut, inner, *skies)


def contrast(seen: Window, look: Look, *, field: Surface, clean: Surface) -> Contrast:
    """field, clean: the whole field with its defects and without any."""
    shown = _signal(seen, look, field, seen.sky_with)
    without = _signal(seen, look, clean, seen.sky_without)
    variance = np.maximum(without, 1e-3) * np.float32(look.burst / (look.electrons_per_pixel * look.detected))
    off = (np.abs(shown - without) / np.sqrt(variance))[seen.inner]
    strongest = np.sort(off, axis=None)[-seen.defect.area_px :]
    return Contrast(to_noise=float(strongest.mean()), matched=float(np.sqrt((off**2).sum())))


def visible(defect: Placed, how: Contrast) -> bool:
    """Could anybody know that it is there? What nobody can know is neither a capture nor a false alarm."""
    return how.matched >= VISIBLE and defect.area_px >= SMALLEST_PX and not defect.drowned


def _signal(seen: Window, look: Look, surface: Surface, sky: Field) -> Field:
    height = np.ascontiguousarray(surface.height_m[seen.cut])
    material = None if surface.material is None else surface.material[seen.cut]
    return probed(render(height, look.emission, pixel_size_m=seen.pixel_size_m, sky=sky, material=material), look)
