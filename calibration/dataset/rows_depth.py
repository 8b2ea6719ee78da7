"""Depth's frames for a dataset: the training's own, or its reliefs drawn and looked at as a shift says. Rows out."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import shifted
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import NONE, Shift
from calibration.train import depth_data
from calibration.train.develop import CENTRED, develop, draw_look, draw_material, times
from calibration.twin.emission import sky_view
from calibration.twin.patterns import PATTERNS
from calibration.twin.sketch import surface_of
from calibration.twin.surface import Surface

Field = NDArray[np.float32]

PITCHED = {  # kinds whose generator takes a pitch, and its name there; the others have none to shift
    "lines": "lines",
    "contacts": "contacts",
    "posts": "pillars",
    "tip_to_tip": "tip_to_tip",
    "jogs": "jogs",
    "manhattan": "manhattan",
    "logic": "logic",
}


def rows(index: int, seed: int, shift: Shift) -> Arrays:
    """The frames of one relief; where nothing is shifted, the training's bytes."""
    if shift == NONE:
        return depth_data.fields_of(index, seed=seed)
    rng = np.random.default_rng([seed, index])
    seen, kind = relief(shift, rng)
    sky = sky_view(seen.height_m, pixel_size_m=seen.pixel_size_m)
    looks = [_row(seen, sky, kind, shift=shift, rng=rng) for _ in range(depth_data.LOOKS)]
    return {name: np.stack([look[name] for look in looks]) for name in looks[0]}


def relief(shift: Shift, rng: np.random.Generator) -> tuple[Surface, str]:
    """The relief that training would draw from this generator, or one of a pitch that it would not; and its kind."""
    if not shift.stretch:
        return depth_data.relief(rng)
    return depth_data.relief(rng, shares={kind: depth_data.SHARES[kind] for kind in PITCHED}, draw=_of_other_pitch)


def _of_other_pitch(kind: str, shape: tuple[int, int], pixel_size_m: float, rng: np.random.Generator) -> Surface:
    pitch_px = shifted.pitch_px(rng)
    return surface_of(PATTERNS[PITCHED[kind]](shape, pixel_size_m=pixel_size_m, rng=rng, pitch_px=pitch_px))


def _row(seen: Surface, sky: Field, kind: str, *, shift: Shift, rng: np.random.Generator) -> dict[str, Any]:
    look = draw_look(rng, pixel_size_m=seen.pixel_size_m, shading=CENTRED)
    if shift.half_dose:
        look = replace(look, electrons_per_pixel=0.5 * look.electrons_per_pixel)
    shown = develop(
        seen.height_m,
        look,
        pixel_size_m=seen.pixel_size_m,
        sky=sky,
        material=times(seen.material, _over(seen.height_m, shift, rng)),
        tail=shifted.tail(rng) if shift.charging else None,
        rng=rng,
    )
    return depth_data.row_of(seen, shown) | {"kind": np.uint8(depth_data.KINDS.index(kind))}


def _over(height_m: Field, shift: Shift, rng: np.random.Generator) -> Field | None:
    return shifted.strange(height_m, rng).over(height_m) if shift.material else draw_material(height_m, rng)
