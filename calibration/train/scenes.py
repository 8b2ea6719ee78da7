"""What the autofocus model is shown: the twin's specimens, and dead leaves so that it learns blur and not specimens.

Out: (SIDE, SIDE) float32 emission in 0..1, crisp to two or three pixels. Everything from the generator it is given.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin import specimen
from calibration.twin.emission import REFERENCE_V, SILICON_1KEV, at_voltage
from calibration.twin.roughness import fractal

Field = NDArray[np.float32]

SIDE = 512
LEAVES = "dead-leaves"
KINDS: tuple[str, ...] = (*specimen.NAMES, LEAVES)
# Shares of a training set: textures in equal parts, a quarter of leaves, some of what holds little or nothing.
SHARES: dict[str, float] = dict.fromkeys(specimen.TEXTURED, 0.09) | {
    "fibres": 0.04,
    "particles": 0.04,
    "logic": 0.03,
    "pillars": 0.03,
    "manhattan": 0.02,
    "tip-to-tip": 0.01,
    "jogs": 0.01,
    LEAVES: 0.24,
    "sparse": 0.08,
    "flat": 0.05,
}
LARGEST_SHRINK = 2.5


def draw_kind(rng: np.random.Generator, *, without: str = "") -> str:
    """A kind by its share; `without` leaves one out, for the test on specimens never seen."""
    names = [name for name in SHARES if name != without]
    shares = np.array([SHARES[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def scene(kind: str, *, pixel_size_m: float, voltage_v: float = REFERENCE_V, rng: np.random.Generator) -> Field:
    """One emission map; half of them shrunk by up to 2.5, so that features come in every size."""
    shrink = float(rng.uniform(1.0, LARGEST_SHRINK)) if rng.random() < 0.5 else 1.0
    side = round(SIDE * shrink)
    if kind == LEAVES:
        wide = dead_leaves((side, side), rng)
    else:
        seed = int(rng.integers(2**31))
        how = at_voltage(SILICON_1KEV, voltage_v, pixel_size_m=pixel_size_m)
        wide = specimen.make(kind, (side, side), pixel_size_m=pixel_size_m / shrink, seed=seed, how=how)
    if shrink > 1.0:
        wide = np.asarray(cv2.resize(wide, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)
    return tone(wide, rng)


def tone(emission: Field, rng: np.random.Generator) -> Field:
    """Another material, another detector: a bend of the tone curve, now and then a negative, a pedestal."""
    bent = np.clip(emission, 0.0, 1.0) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.2:
        bent = 1.0 - bent
    pedestal = float(rng.uniform(0.0, 0.6)) if rng.random() < 0.5 else 0.0
    return np.asarray(pedestal + (1.0 - pedestal) * bent, np.float32)


def dead_leaves(shape: tuple[int, int], rng: np.random.Generator) -> Field:
    """Shapes of all sizes over one another, the statistics of natural pictures; drawn double and halved."""
    h, w = 2 * shape[0], 2 * shape[1]
    canvas = np.full((h, w), rng.uniform(0.2, 0.6), np.float32)
    smallest, largest = 2.0 * rng.uniform(2.0, 8.0), 2.0 * rng.uniform(20.0, 160.0)
    low, high = sorted(rng.uniform(0.05, 0.95, 2))
    rim = float(rng.uniform(0.0, 0.3)) if rng.random() < 0.5 else 0.0
    for _ in range(int(rng.integers(150, 900))):
        # Areas in equal parts an octave: radius ~ r^-3, the scale-free law.
        radius = 1.0 / np.sqrt(rng.uniform(1.0 / largest**2, 1.0 / smallest**2))
        _leaf(canvas, float(radius), level=float(rng.uniform(low, high)), rim=rim, rng=rng)
    halved = np.asarray(cv2.resize(canvas, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.float32)
    grain = float(rng.uniform(0.0, 0.08))
    texture = fractal(shape, coarse_px=float(rng.uniform(1.0, 12.0)), octaves=3, rng=rng)
    return np.asarray(np.clip(halved + grain * texture, 0.0, 1.0), np.float32)


def _leaf(canvas: Field, radius: float, *, level: float, rim: float, rng: np.random.Generator) -> None:
    h, w = canvas.shape
    x, y = rng.uniform(0, w), rng.uniform(0, h)
    if rng.random() < 0.5:
        axes = (max(int(radius), 1), max(int(radius * rng.uniform(0.3, 1.0)), 1))
        outline = np.asarray(cv2.ellipse2Poly((int(x), int(y)), axes, int(rng.integers(180)), 0, 360, 12), np.int32)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        corners = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
        outline = np.asarray(np.round(corners), np.int32)
    cv2.fillPoly(canvas, [outline], level, cv2.LINE_AA)
    if rim > 0.0:
        cv2.polylines(canvas, [outline], True, min(level + rim, 1.0), 2, cv2.LINE_AA)
