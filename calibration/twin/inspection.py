"""Fields for an inspection: a pattern and a seed in; a frame, its exact heights and the visible defects out."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.train.develop import CENTRED, Look, develop, draw_look
from calibration.twin import sketch
from calibration.twin.contrast import Surface, contrast, visible, window
from calibration.twin.defects import Placed, plain, roughened, scatter
from calibration.twin.emission import sky_view
from calibration.twin.sketch import Sketch, surface_m

PATTERNS = {"line-space": sketch.lines, "contact-holes": sketch.contacts, "plain": plain}
DEFECTS = (0, 1, 2, 3, 4)  # drawn where the caller does not say how many
PIXEL_M = (1.5e-9, 4e-9)  # as critical dimensions are inspected
ELECTRONS = (30.0, 150.0)  # primaries a pixel
VOLTAGE_V = (500.0, 1500.0)


@dataclass(frozen=True)
class TrueDefect:
    """One defect as it was put there."""

    name: str  # one of engines.defects.CLASSES
    box_px: tuple[float, float, float, float]  # x0, y0, x1, y1; x1 and y1 exclusive
    height_m: float  # the largest change, signed; 0 where only the material differs
    contrast_to_noise: float  # mean |defect - reference| / sigma of a pixel


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


def inspected_frame(pattern: str, shape: tuple[int, int], *, seed: int, defects: int | None = None) -> InspectedFrame:
    """The same arguments give the same frame. defects: how many can be seen in it; None: as the seed has it.

    Raises KeyError for an unknown pattern. Where the pattern has no room for so many there are fewer.
    """
    rng = np.random.default_rng(seed)
    pixel_size_m = _log_uniform(PIXEL_M, rng)
    look = inspection_look(rng, pixel_size_m=pixel_size_m)
    clean = roughened(PATTERNS[pattern](shape, pixel_size_m=pixel_size_m, rng=rng), rng)
    count = int(rng.choice(DEFECTS)) if defects is None else defects
    drawn, found = _with_visible(clean, count, look, rng)
    height_m = surface_m(drawn)
    sky = sky_view(height_m, pixel_size_m=pixel_size_m)
    shown = develop(height_m, look, pixel_size_m=pixel_size_m, sky=sky, material=drawn.material, rng=rng)
    return InspectedFrame(
        pattern=pattern,
        pixels=shown.pixels,
        pixel_size_m=pixel_size_m,
        electrons_per_pixel=look.electrons_per_pixel,
        accelerating_voltage_v=look.voltage_v,
        height_m=height_m,
        defects=found,
    )


def inspection_look(rng: np.random.Generator, *, pixel_size_m: float) -> Look:
    """Any material and detector, in focus, at a dose and a voltage that somebody would inspect with."""
    look = draw_look(rng, pixel_size_m=pixel_size_m, shading=CENTRED)
    sharp = float(rng.uniform(0.3, 1.0))
    dose, voltage = _log_uniform(ELECTRONS, rng), _log_uniform(VOLTAGE_V, rng)
    return replace(look, electrons_per_pixel=dose, voltage_v=voltage, probe_px=(sharp, sharp))


def _with_visible(
    clean: Sketch, count: int, look: Look, rng: np.random.Generator
) -> tuple[Sketch, tuple[TrueDefect, ...]]:
    clean_m, found = surface_m(clean), []

    def seen(changed: Sketch, defect: Placed) -> bool:
        height_m = surface_m(changed)
        around = window(defect, height_m, clean_m, pixel_size_m=clean.pixel_size_m)
        how = contrast(around, look, field=Surface(height_m, changed.material), clean=Surface(clean_m, clean.material))
        if visible(defect, how):
            x0, y0, x1, y1 = (float(side) for side in defect.box_px)
            found.append(TrueDefect(defect.name, (x0, y0, x1, y1), defect.height_m, how.to_noise))
        return visible(defect, how)

    drawn, _ = scatter(clean, count, rng=rng, accept=seen)
    return drawn, tuple(found)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
