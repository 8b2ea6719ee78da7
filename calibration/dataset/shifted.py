"""Frames that no training has seen: the generators' own geometries under another look. Seed and index in, rows out.

Half the dose, yields and lengths beyond the trained ranges, charging tails of up to twice the trained strength.
"""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.dataset.shards import Arrays
from calibration.dataset.splits import Shift
from calibration.train import data, depth_data, labels, picture, scenes
from calibration.train.develop import CENTRED, develop, draw_look, draw_material
from calibration.twin import scan, specimen
from calibration.twin.emission import sky_view
from engines import autofocus
from engines.scene import Scene, condition, levels_of

Field = NDArray[np.float32]

FINER = (2.6, 3.0)  # specimens for autofocus are trained shrunk by up to 2.5
WIDER = 2.5  # reliefs for depth: a field's inner part, with every length in it enlarged
TAIL = (0.4, 0.8)  # share of the signal that a charging tail carries; up to 0.4 is trained
TAIL_PX = (20.0, 120.0)
BRIGHT, DARK = (1.8, 2.6), (0.35, 0.55)  # yield of what lies high against what lies low; 0.7 to 1.6 is trained
BENT = (0.7, 1.0)  # ln of the tone curve's power; up to 0.4 is trained


def charged(rows: Arrays, rng: np.random.Generator) -> Arrays:
    """The same frames with a strong charging tail on each; what a model is told of their levels follows.

    The tail is linear and next to nothing of a pixel's noise lies in it, so that the finished frame may carry it.
    """
    images = np.stack([_tailed(image, rng) for image in rows["image"]])
    told = rows["condition"].copy()
    if told.shape[1] > 2:  # the dense models are told mean and spread of the picture
        told[:, :2] = [condition(levels_of(image), Scene())[:2] for image in images]
    return rows | {"image": images, "condition": told}


def _tailed(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    strength = float(rng.uniform(*TAIL)) * (1.0 if rng.random() < 0.5 else -1.0)
    tail = scan.charging_tail(image.astype(np.float32), strength=strength, length_px=float(rng.uniform(*TAIL_PX)))
    return np.asarray(np.clip(tail + 0.5, 0, 255), np.uint8)


# --- depth ---


def depth_rows(index: int, *, seed: int, shift: Shift) -> Arrays:
    """One of the generator's reliefs, looked at anew: rendered from the very heights that are its truth."""
    drawn = depth_data.fields_of(index, seed=seed)
    rng = np.random.default_rng([seed, index, 1])  # the geometry's own stream is spent
    pixel_size_m = float(drawn["pixel_size_m"][0])
    height_px = np.asarray(drawn["height_px"][0], np.float32)
    if shift.stretch:
        height_px = enlarged(height_px, WIDER)
    height_m = height_px * np.float32(pixel_size_m)
    sky = sky_view(height_m, pixel_size_m=pixel_size_m)
    looks = [_depth_look(height_m, sky, pixel_size_m, shift, rng) for _ in range(depth_data.LOOKS)]
    rows = {name: np.stack([look[name] for look in looks]) for name in looks[0]}
    count = len(looks)
    return rows | {
        "height_px": np.repeat(height_px.astype(np.float16)[None], count, axis=0),
        "pixel_size_m": np.full(count, pixel_size_m, np.float32),
        "kind": np.full(count, drawn["kind"][0], np.uint8),
    }


def _depth_look(
    height_m: Field, sky: Field, pixel_size_m: float, shift: Shift, rng: np.random.Generator
) -> dict[str, Any]:
    look = draw_look(rng, pixel_size_m=pixel_size_m, shading=CENTRED)
    if shift.half_dose:
        look = replace(look, electrons_per_pixel=0.5 * look.electrons_per_pixel)
    material = strange(height_m, rng) if shift.material else draw_material(height_m, rng)
    shown = develop(height_m, look, pixel_size_m=pixel_size_m, sky=sky, material=material, rng=rng)
    scene = replace(shown.scene, pixel_size_m=pixel_size_m)  # without it nothing is read
    return {"image": shown.pixels, "condition": condition(levels_of(shown.pixels), scene)}


def strange(height_m: Field, rng: np.random.Generator) -> Field:
    """(h, w) relative yield: another material above half height, brighter or darker than any trained one."""
    low, high = np.percentile(height_m, (2.0, 98.0))
    top = np.clip((height_m - low) / max(float(high - low), 1e-12) * 3.0 - 1.0, 0.0, 1.0)
    factor = float(rng.uniform(*(BRIGHT if rng.random() < 0.5 else DARK)))
    return np.asarray(1.0 + (factor - 1.0) * top, np.float32)


def enlarged(height_px: Field, factor: float) -> Field:
    """The middle of the field at its full size; heights, being lengths, grow with it."""
    rows, columns = (round(side / factor) for side in height_px.shape)
    top, left = (height_px.shape[0] - rows) // 2, (height_px.shape[1] - columns) // 2
    middle = height_px[top : top + rows, left : left + columns]
    size = (height_px.shape[1], height_px.shape[0])
    return np.asarray(cv2.resize(middle, size, interpolation=cv2.INTER_LINEAR) * np.float32(factor), np.float32)


# --- autofocus ---


def autofocus_rows(index: int, *, seed: int, shift: Shift) -> Arrays:
    """The crops of one scene: finer than any trained, of another tone, or at half the electrons."""
    rng = np.random.default_rng([seed, index])
    kind, probe = scenes.draw_kind(rng), data.draw_probe(rng)
    emission = _scene(kind, probe.pixel_size_m, shift, rng)
    rows = []
    for number in range(data.BLURS):
        used = probe if number == 0 else data.draw_defocus(probe, rng)
        blurred = data.blur(emission, used)
        rows += [_autofocus_row(blurred[cut], emission[cut], used, shift, rng) for cut in _crops()]
    whole: Arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return whole | {"kind": np.full(len(rows), scenes.KINDS.index(kind), np.uint8)}


def _crops() -> list[tuple[slice, slice]]:
    starts = range(0, scenes.SIDE, data.CROP)
    return [np.s_[top : top + data.CROP, left : left + data.CROP] for top in starts for left in starts]


def _scene(kind: str, pixel_size_m: float, shift: Shift, rng: np.random.Generator) -> Field:
    if not shift.stretch:
        drawn = scenes.scene(kind, pixel_size_m=pixel_size_m, rng=rng)
        return _bent(drawn, rng) if shift.material else drawn
    finer = float(rng.uniform(*FINER))
    shape = (round(scenes.SIDE * finer), round(scenes.SIDE * finer))
    if kind == scenes.LEAVES:
        wide = scenes.dead_leaves(shape, rng)
    else:
        wide = specimen.make(kind, shape, pixel_size_m=pixel_size_m / finer, seed=int(rng.integers(2**31)))
    size = (scenes.SIDE, scenes.SIDE)
    return scenes.tone(np.asarray(cv2.resize(wide, size, interpolation=cv2.INTER_AREA), np.float32), rng)


def _bent(emission: Field, rng: np.random.Generator) -> Field:
    """Materials that no tone curve of the training gives: darks far darker, or lights far lighter."""
    power = np.exp(float(rng.uniform(*BENT)) * (1.0 if rng.random() < 0.5 else -1.0))
    return np.asarray(np.clip(emission, 0.0, 1.0) ** np.float32(power), np.float32)


def _autofocus_row(
    blurred: Field, in_focus: Field, used: labels.Probe, shift: Shift, rng: np.random.Generator
) -> dict[str, Any]:
    # Electrons go as (mean / rms)^2 of what is in focus: with contrast sqrt(2) times itself half of them come.
    exposed = in_focus if not shift.half_dose else _contrasted(in_focus, np.sqrt(2.0))
    shown = picture.develop(blurred, in_focus=exposed, rng=rng)
    blur_px = labels.blur_px(used)
    content = labels.content(shown.clean, noise_variance=shown.noise_variance, sigma_px=blur_px)
    return {
        "image": shown.pixels,
        "condition": autofocus.condition(used.pixel_size_m),
        "score": np.float32(labels.sharpness(used) * content),
        "log_blur": np.float32(np.log(blur_px)),
        "content": np.float32(content),
        "defocus_h": np.float32(abs(used.z_m) / used.half_depth_m),
        "snr": np.float32(shown.snr / (np.sqrt(2.0) if shift.half_dose else 1.0)),
    }


def _contrasted(field: Field, factor: float) -> Field:
    mean = field.mean()
    return np.asarray(mean + np.float32(factor) * (field - mean), np.float32)
