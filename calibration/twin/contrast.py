"""How far a defect stands out of the noise under one look: its window rendered with it and without, both noiseless."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.develop import Look, probed
from calibration.twin.defects import Placed
from calibration.twin.emission import render, sky_view
from calibration.twin.surface import Surface

Field = NDArray[np.float32]

MARGIN_PX = 16  # around a box: bloom and shadow reach so far
EDGE_PX = 4  # around a box: so far what is lit or shaded by the defect counts as its own
AZIMUTHS = 8  # of the sky there: a difference needs less than a picture
LARGE_PX = 72 * 72  # a window from which half the resolution does for its sky
SMALLEST_PX = 6  # pixels that differ; fewer are a noise spike to anybody
# Signal to noise of the matched filter, which knows the defect and the clean field exactly. Some 10^6 places, sizes and
# kinds are tried in a field of 512x512: by chance the best of them passes 5.4 in one field out of ten. Who has no clean
# field to compare with, but only a pattern with a roughness of its own, needs about twice that.
VISIBLE = 10.0


@dataclass(frozen=True)
class Contrast:
    """What a perfect observer has to go on."""

    to_noise: float  # |mean of the defect - mean of the reference| / sigma of a pixel, over the defect's mask
    matched: float  # signal to noise of the matched filter


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
    with_it, without = (_sky(np.ascontiguousarray(z[cut]), pixel_size_m) for z in (height_m, clean_m))
    return Window(defect, pixel_size_m, cut, inner, with_it, without)


def _sky(height_m: Field, pixel_size_m: float) -> Field:
    """Of a window; of a large one from every second pixel."""
    h, w = height_m.shape
    if h * w <= LARGE_PX:
        return sky_view(height_m, pixel_size_m=pixel_size_m, azimuths=AZIMUTHS)
    coarse = cv2.resize(height_m, (-(-w // 2), -(-h // 2)), interpolation=cv2.INTER_AREA)
    sky = sky_view(np.asarray(coarse, np.float32), pixel_size_m=2.0 * pixel_size_m, azimuths=AZIMUTHS)
    return np.asarray(cv2.resize(sky, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


def contrast(seen: Window, look: Look, *, field: Surface, clean: Surface) -> Contrast:
    """field, clean: the whole field with its defects and without any."""
    shown = _signal(seen, look, field, seen.sky_with)
    without = _signal(seen, look, clean, seen.sky_without)
    variance = np.maximum(without, 1e-3) * np.float32(look.burst / (look.electrons_per_pixel * look.detected))
    off = (np.abs(shown - without) / np.sqrt(variance))[seen.inner]
    x0, y0, x1, y1 = seen.defect.box_px
    top, left = (int(side.start) for side in seen.cut)
    box = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    stands_out = to_noise(shown[box], without[box], variance[box], seen.defect.mask)
    return Contrast(to_noise=stands_out, matched=float(np.sqrt((off**2).sum())))


def to_noise(shown: Field, reference: Field, variance: Field, mask: NDArray[np.bool_]) -> float:
    """|mean of the defect - mean of the reference| / standard deviation of a pixel's noise there.

    The reference is the same pixels of the same field without the defect. mask: the defect's pixels.
    """
    difference = float(shown[mask].mean()) - float(reference[mask].mean())
    return abs(difference) / float(np.sqrt(variance[mask].mean()))


def visible(defect: Placed, how: Contrast) -> bool:
    """Could anybody know that it is there? What nobody can know is neither a capture nor a false alarm."""
    return how.matched >= VISIBLE and defect.area_px >= SMALLEST_PX and not defect.drowned


def _signal(seen: Window, look: Look, surface: Surface, sky: Field) -> Field:
    height = np.ascontiguousarray(surface.height_m[seen.cut])
    material = None if surface.material is None else surface.material[seen.cut]
    return probed(render(height, look.emission, pixel_size_m=seen.pixel_size_m, sky=sky, material=material), look)
