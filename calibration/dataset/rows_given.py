"""Depth's frames under what a user brings: layouts from files, a tool's profile. Rows out.

The training's own reliefs and looks stand in for what was not brought. Of a profile the emission, the noise, the
charging and, where the frames told it, the probe are used; its amplifier is not: every frame draws one of its own.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import rows_depth, shifted
from calibration.dataset.errors import OrderError
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import Shift
from calibration.train import depth_data
from calibration.train.develop import CENTRED, Look, develop, draw_look, draw_material, times
from calibration.twin import cad
from calibration.twin.cad import Layout
from calibration.twin.emission import sky_view
from calibration.twin.mask import Design
from calibration.twin.profile import SIGMA, Profile
from calibration.twin.roughness import field
from calibration.twin.scan import charging_tail
from calibration.twin.sketch import surface_of
from calibration.twin.surface import SpecimenError, Surface

Field = NDArray[np.float32]

STREAM = 3  # beside seed and index: no generator of the training's draws from it
PITCH_PX = (14.0, 60.0)  # of a layout in a field
LEAST_PROBE_PX = 0.05  # sigma: below it a pixel shows nothing of the probe
MOST_LAYOUTS = 255  # families are counted in one byte


@dataclass(frozen=True)
class Given:
    """layouts: by the name of their family; none: the training's own reliefs."""

    layouts: tuple[tuple[str, Layout], ...] = ()
    profile: Profile | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.layouts) or depth_data.KINDS

    @property
    def told(self) -> str:
        """A hash of what the frames depend on: a dataset is taken up again with the same layouts and profile only."""
        whole = hashlib.sha256()
        for name, layout in self.layouts:
            how = f"{name} {layout.scale_m} {layout.layer} {layout.cell} {layout.inverted}"
            whole.update(how.encode() + b"\0" + hashlib.sha256(layout.path.read_bytes()).digest())
        if self.profile is not None:
            whole.update(b"profile\0" + self.profile.to_json().encode())
        return whole.hexdigest()[:16]


def check(given: Given) -> None:
    """Raises OrderError for the first layout that cannot be read, or where there are too many."""
    if len(given.layouts) > MOST_LAYOUTS:
        raise OrderError(f"{len(given.layouts)} layouts; give at most {MOST_LAYOUTS}: each is a family")
    for _, layout in given.layouts:
        try:
            _design(layout)
        except SpecimenError as error:
            raise OrderError(str(error)) from error


def named(paths: tuple[Path, ...]) -> tuple[tuple[str, Path], ...]:
    """Each file with what tells it from the others: its path below the folder that they share."""
    if not paths:
        return ()
    shared = set.intersection(*(set(path.resolve().parents) for path in paths))
    folder = max(shared, key=lambda each: len(each.parts))
    return tuple((path.resolve().relative_to(folder).as_posix(), path) for path in paths)


def rows(given: Given, index: int, seed: int, shift: Shift) -> Arrays:
    """Several looks at one relief. Raises OrderError for a layout that does not print."""
    rng = np.random.default_rng([seed, index, STREAM])
    if given.layouts:
        kind = int(rng.integers(len(given.layouts)))
        seen = _printed(given.layouts[kind][1], shift, rng)
    else:
        seen, name = rows_depth.relief(shift, rng)
        kind = depth_data.KINDS.index(name)
    sky = sky_view(seen.height_m, pixel_size_m=seen.pixel_size_m)
    looks = [_row(seen, sky, given.profile, shift, rng) | {"kind": np.uint8(kind)} for _ in range(depth_data.LOOKS)]
    return {name: np.stack([look[name] for look in looks]) for name in looks[0]}


def _printed(layout: Layout, shift: Shift, rng: np.random.Generator) -> Surface:
    """A field of it, at a pixel size that gives its local pitch a trained number of pixels, or as the shift says."""
    design, shape = _design(layout), (depth_data.SIDE, depth_data.SIDE)
    pitch_px = float(np.exp(rng.uniform(*np.log(shifted.pitch_px(rng) if shift.stretch else PITCH_PX))))
    size_m = design.pitch_px * design.pixel_size_m / pitch_px
    try:
        seen = surface_of(cad.printed(design, shape, pixel_size_m=size_m, rng=rng))
    except SpecimenError as error:
        raise OrderError(str(error)) from error
    ground = np.float32(rng.uniform(*depth_data.GROUND_M)) * field(shape, size_px=1.2, rng=rng)
    return replace(seen, height_m=seen.height_m + ground)


def _row(seen: Surface, sky: Field, profile: Profile | None, shift: Shift, rng: np.random.Generator) -> dict[str, Any]:
    look = draw_look(rng, pixel_size_m=seen.pixel_size_m, shading=CENTRED)
    if profile is not None:
        look = under(look, profile, pixel_size_m=seen.pixel_size_m)
    if shift.half_dose:
        look = replace(look, electrons_per_pixel=0.5 * look.electrons_per_pixel)
    height_m = seen.height_m
    over = shifted.strange(height_m, rng).over(height_m) if shift.material else draw_material(height_m, rng)
    shown = develop(
        height_m,
        look,
        pixel_size_m=seen.pixel_size_m,
        sky=sky,
        material=times(seen.material, over),
        drift=None if profile is None else lambda signal: charged(signal, profile),
        tail=shifted.tail(rng) if shift.charging else None,
        rng=rng,
    )
    if profile is not None:  # it does not say which voltage its constants are of
        shown = replace(shown, scene=replace(shown.scene, accelerating_voltage_v=None))
    return depth_data.row_of(seen, shown)


def under(look: Look, profile: Profile, *, pixel_size_m: float) -> Look:
    """A look with the constants of a tool; dose and detection as they were drawn."""
    look = replace(look, emission=profile.emission, burst=profile.variance_factor)
    if not profile.determined(SIGMA):
        return look
    spot = profile.spot
    along, across = float(np.cos(spot.angle_rad)) ** 2, float(np.sin(spot.angle_rad)) ** 2
    x_m = float(np.sqrt(spot.major_m**2 * along + spot.minor_m**2 * across))
    y_m = float(np.sqrt(spot.major_m**2 * across + spot.minor_m**2 * along))
    return replace(look, probe_px=(max(x_m / pixel_size_m, LEAST_PROBE_PX), max(y_m / pixel_size_m, LEAST_PROBE_PX)))


def charged(signal: Field, profile: Profile) -> Field:
    """The tool's charging, before any electron is counted."""
    told = profile.charging
    return charging_tail(signal, strength=told.strength, length_px=told.length_px) if told.strength else signal


@lru_cache(maxsize=16)  # a mask of 2048 px a side has 16 MB
def _design(layout: Layout) -> Design:
    return cad.read(layout)[0]
