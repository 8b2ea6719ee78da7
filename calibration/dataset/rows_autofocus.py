"""Autofocus' frames for a dataset: the training's own, or its scenes under a shift; the probe's exact truth beside."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.dataset import shifted
from calibration.dataset.shards import Arrays
from calibration.dataset.splits import NONE, Shift
from calibration.train import data, labels, picture, scenes
from calibration.twin import specimen
from calibration.twin.emission import SILICON_1KEV, at_voltage

Field = NDArray[np.float32]
Row = dict[str, Any]


def rows(index: int, seed: int, shift: Shift) -> Arrays:
    """The crops of one scene."""
    alike = shift in (NONE, Shift(stretch=True), Shift(material=True))  # the scene differs, and nothing else
    return data.samples_of(
        index,
        seed=seed,
        draw=partial(_scene, shift),
        look=data.developed if alike else partial(_shifted, shift),
        beside=truth,
    )


def truth(used: labels.Probe) -> Row:
    """What drew the blur, exactly. z > 0: focused below the surface."""
    return {
        "blur_px": labels.blur_px(used),
        "pixel_size_m": used.pixel_size_m,
        "z_m": used.z_m,
        "ax_m": used.ax_m,
        "ay_m": used.ay_m,
        "alpha_rad": used.alpha_rad,
        "energy_ev": used.energy_ev,
    }


def _shifted(
    shift: Shift, emission: Field, used: labels.Probe, kind: str, crop: int, rng: np.random.Generator
) -> Iterator[tuple[picture.Picture, str]]:
    blurred = data.blur(emission, used)
    for cut in data.cuts(crop):
        # Electrons go as (mean / rms)^2 of what is in focus: with contrast sqrt(2) times itself half of them come.
        exposed = emission[cut] if not shift.half_dose else shifted.contrasted(emission[cut], np.sqrt(2.0))
        strength = shifted.tail(rng) if shift.charging else None
        shown = picture.develop(blurred[cut], in_focus=exposed, tail=strength, rng=rng)
        yield replace(shown, snr=shown.snr / (np.sqrt(2.0) if shift.half_dose else 1.0)), kind


def _scene(shift: Shift, kind: str, probe: labels.Probe, rng: np.random.Generator) -> Field:
    if not shift.stretch:
        seen = data.drawn(kind, probe, rng)
        return shifted.bent(seen, rng) if shift.material else seen
    finer = float(rng.uniform(*shifted.FINER))
    shape = (round(scenes.SIDE * finer), round(scenes.SIDE * finer))
    if kind == scenes.LEAVES:
        wide = scenes.dead_leaves(shape, rng)
    else:
        how = at_voltage(SILICON_1KEV, probe.energy_ev, pixel_size_m=probe.pixel_size_m)
        pixel_size_m, seed = probe.pixel_size_m / finer, int(rng.integers(2**31))
        wide = specimen.make(kind, shape, pixel_size_m=pixel_size_m, seed=seed, how=how)
    size = (scenes.SIDE, scenes.SIDE)
    return scenes.tone(np.asarray(cv2.resize(wide, size, interpolation=cv2.INTER_AREA), np.float32), rng)
