"""Autofocus' frames for a dataset: the training's own, or its scenes under a shift; the probe's exact truth beside.

The draws follow `calibration.train.data.samples_of` call by call: unshifted frames are the training's to the byte.
"""

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
    rng = np.random.default_rng([seed, index])
    kind, probe = scenes.draw_kind(rng), data.draw_probe(rng)
    emission = _scene(kind, probe, shift, rng)
    made: list[Row] = []
    for number in range(data.BLURS):
        used = probe if number == 0 else data.draw_defocus(probe, rng)
        crops = _crops(emission, used, kind, shift=shift, rng=rng)
        made += [crop | truth(used) for crop in crops]
    wide = {"image": np.uint8, "kind": np.uint8}
    return {name: np.array([row[name] for row in made], wide.get(name, np.float32)) for name in made[0]}


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


def _crops(emission: Field, used: labels.Probe, kind: str, *, shift: Shift, rng: np.random.Generator) -> list[Row]:
    if shift in (NONE, Shift(stretch=True), Shift(material=True)):  # the scene differs, and nothing else
        shown = data._developed(emission, used, kind=kind, crop=data.CROP, rng=rng)
        return [data._row(each, used, name) for each, name in shown]
    blurred = data.blur(emission, used)
    return [_shifted(blurred[cut], emission[cut], used, kind, shift=shift, rng=rng) for cut in _cuts()]


def _cuts() -> list[tuple[slice, slice]]:
    starts = range(0, scenes.SIDE, data.CROP)
    return [np.s_[top : top + data.CROP, left : left + data.CROP] for top in starts for left in starts]


def _shifted(
    blurred: Field, in_focus: Field, used: labels.Probe, kind: str, *, shift: Shift, rng: np.random.Generator
) -> Row:
    # Electrons go as (mean / rms)^2 of what is in focus: with contrast sqrt(2) times itself half of them come.
    exposed = in_focus if not shift.half_dose else shifted.contrasted(in_focus, np.sqrt(2.0))
    strength = shifted.tail(rng) if shift.charging else None
    shown = picture.develop(blurred, in_focus=exposed, tail=strength, rng=rng)
    row = data._row(shown, used, kind)
    return row | {"snr": shown.snr / (np.sqrt(2.0) if shift.half_dose else 1.0)}


def _scene(kind: str, probe: labels.Probe, shift: Shift, rng: np.random.Generator) -> Field:
    if not shift.stretch:
        drawn = scenes.scene(kind, pixel_size_m=probe.pixel_size_m, voltage_v=probe.energy_ev, rng=rng)
        return shifted.bent(drawn, rng) if shift.material else drawn
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
