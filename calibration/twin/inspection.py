"""Fields for an inspection: a pattern and a seed in; a frame, its exact heights and the visible defects out."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from calibration.train.develop import CENTRED, Look, develop, draw_look
from calibration.twin import patterns
from calibration.twin.contrast import Contrast, contrast, visible, window
from calibration.twin.defects import Placed, scatter, tails
from calibration.twin.emission import sky_view
from calibration.twin.nuisances import Nuisance, Tear, draw_tear, roughened, troubled
from calibration.twin.sketch import Sketch, surface_m, surface_of

CALLED = {"lines": "line-space", "contacts": "contact-holes", "tip_to_tip": "tip-to-tip"}
PATTERNS = {CALLED.get(kind, kind): draw for kind, draw in patterns.PATTERNS.items()}
DEFECTS = (0, 1, 2, 3, 4)  # drawn where the caller does not say how many
PIXEL_M = (1.5e-9, 4e-9)  # as critical dimensions are inspected
PITCH_PX = (14.0, 72.0)  # within what the shipped defect model was trained on
ELECTRONS = (30.0, 150.0)  # primaries a pixel
VOLTAGE_V = (500.0, 1500.0)


@dataclass(frozen=True)
class TrueDefect:
    """One defect as it was put there."""

    name: str  # one of engines.defects.CLASSES
    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1; x1 and y1 exclusive
    height_m: float  # the largest change, signed; 0 where only the material differs
    contrast_to_noise: float  # |mean of the defect - mean of the reference| / sigma of a pixel
    mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)  # (y1 - y0, x1 - x0) of the box
    area_px: int = 0  # of the mask
    pitch_share: float = 0.0  # side of a square of that area, in pitches
    matched: float = 0.0  # signal to noise of the matched filter
    visible: bool = True
    drowned: bool = False  # no larger than the lines' own roughness


@dataclass(frozen=True)
class InspectedFrame:
    """What the instrument shows, and the truth."""

    pattern: str
    pixels: NDArray[np.uint8]  # (h, w)
    pixel_size_m: float
    electrons_per_pixel: float
    accelerating_voltage_v: float
    height_m: NDArray[np.float32]  # (h, w)
    defects: tuple[TrueDefect, ...]
    nuisances: tuple[Nuisance, ...] = ()  # what may be taken for a defect


def inspected_frame(pattern: str, shape: tuple[int, int], *, seed: int, defects: int | None = None) -> InspectedFrame:
    """The same arguments give the same frame. defects: how many can be seen in it; None: as the seed has it.

    Raises KeyError for an unknown pattern. Where the pattern has no room for so many there are fewer.
    """
    rng = np.random.default_rng(seed)
    pixel_size_m = _log_uniform(PIXEL_M, rng)
    look = inspection_look(rng, pixel_size_m=pixel_size_m)
    drawn_clean = PATTERNS[pattern](shape, pixel_size_m=pixel_size_m, rng=rng, pitch_px=PITCH_PX)
    clean = roughened(drawn_clean, rng)
    clean, nuisances = troubled(clean, rng)
    count = int(rng.choice(DEFECTS)) if defects is None else defects
    drawn, found = _with_visible(clean, count, look, rng)
    tear = draw_tear(shape, rng)
    height_m, material = surface_m(drawn), drawn.material
    shown = develop(
        height_m,
        look,
        pixel_size_m=pixel_size_m,
        sky=sky_view(height_m, pixel_size_m=pixel_size_m),
        material=material,
        drift=tear.torn,
        rng=rng,
    )
    return InspectedFrame(
        pattern=pattern,
        pixels=shown.pixels,
        pixel_size_m=pixel_size_m,
        electrons_per_pixel=look.electrons_per_pixel,
        accelerating_voltage_v=look.voltage_v,
        height_m=tear.torn(height_m),
        defects=tuple(_true(defect, how, tear, shape) for defect, how in found),
        nuisances=tuple(map(tear.moved, (*nuisances, *tails([defect for defect, _ in found])))) + tear.named(shape),
    )


def inspection_look(rng: np.random.Generator, *, pixel_size_m: float) -> Look:
    """Any material and detector, in focus, at a dose and a voltage that somebody would inspect with."""
    look = draw_look(rng, pixel_size_m=pixel_size_m, shading=CENTRED)
    sharp = float(rng.uniform(0.3, 1.0))
    dose, voltage = _log_uniform(ELECTRONS, rng), _log_uniform(VOLTAGE_V, rng)
    return replace(look, electrons_per_pixel=dose, voltage_v=voltage, probe_px=(sharp, sharp))


def _with_visible(
    clean: Sketch, count: int, look: Look, rng: np.random.Generator
) -> tuple[Sketch, list[tuple[Placed, Contrast]]]:
    before, found = surface_of(clean), []

    def seen(changed: Sketch, defect: Placed) -> bool:
        after = surface_of(changed)
        around = window(defect, after.height_m, before.height_m, pixel_size_m=clean.pixel_size_m)
        how = contrast(around, look, field=after, clean=before)
        if visible(defect, how):
            found.append((defect, how))
        return visible(defect, how)

    drawn, _ = scatter(clean, count, rng=rng, accept=seen)
    return drawn, found


def _true(defect: Placed, how: Contrast, tear: Tear, shape: tuple[int, int]) -> TrueDefect:
    """As it lies in the torn field."""
    x0, y0, x1, y1 = defect.box_px
    whole = np.zeros(shape, np.float32)
    whole[y0:y1, x0:x1] = defect.mask
    x0, y0, x1, y1 = tear.torn_box(defect.box_px)
    x0, x1 = max(x0, 0), min(x1, shape[1])
    mask = tear.torn(whole)[y0:y1, x0:x1] > 0.0
    return TrueDefect(
        name=defect.name,
        box_px=(float(x0), float(y0), float(x1), float(y1)),
        height_m=defect.height_m,
        contrast_to_noise=how.to_noise,
        mask=mask,
        area_px=int(mask.sum()),
        pitch_share=defect.pitch_share,
        matched=how.matched,
        visible=visible(defect, how),
        drowned=defect.drowned,
    )


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
