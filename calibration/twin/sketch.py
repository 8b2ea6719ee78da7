"""A patterned layer as it is drawn: signed distances in pixels in, heights out. Lines, contacts, what is put on them.

`inside` is the distance to the pattern's edge, positive where material stands; defects are drawn by changing it, or by
adding height or another material on top.
"""

from dataclasses import dataclass, replace
from math import radians, tan

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.layout import LER_M, XI_M, outlines, sample
from calibration.twin.roughness import edges

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Feature:
    """A hole of an array: its centre and mean radius, px."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Sketch:
    """All lengths in pixels but the pixel size. Arrays are (h, w)."""

    kind: str  # lines, contacts
    inside: Field  # signed distance to the edge, positive in the line or the film
    height: float  # of the line or the film
    run: float  # of a side wall seen from above
    rounding: float  # sigma of the rounded corner
    pitch: float
    pixel_size_m: float
    across: Field  # coordinate across the lines; for contacts along the lattice's first axis
    along: Field
    width: float  # of a line; for contacts the mean diameter
    features: tuple[Feature, ...] = ()
    added: Field | None = None  # height on top of the profile
    material: Field | None = None  # relative yield, None: 1 everywhere

    @property
    def shape(self) -> tuple[int, int]:
        return self.inside.shape[0], self.inside.shape[1]

    def with_added(self, more: Field) -> "Sketch":
        return replace(self, added=more if self.added is None else self.added + more)

    def with_material(self, factor: Field) -> "Sketch":
        return replace(self, material=factor if self.material is None else self.material * factor)


def surface_px(sketch: Sketch) -> Field:
    """Heights in pixels above the floor: z = height * clip(inside / run + 1/2, 0, 1), corners rounded."""
    z = wall(sketch.inside, sketch.height, sketch.run)
    z = rounded(z, sketch.rounding)
    return z if sketch.added is None else np.asarray(z + sketch.added, np.float32)


def surface_m(sketch: Sketch) -> Field:
    """Heights in metres."""
    return np.asarray(surface_px(sketch) * np.float32(sketch.pixel_size_m), np.float32)


def wall(inside: Field, height: float, run: float) -> Field:
    """A plateau of that height with side walls of that run, half way up at the edge."""
    return np.asarray(height * np.clip(inside / max(run, 1e-3) + 0.5, 0.0, 1.0), np.float32)


def rounded(z: Field, sigma_px: float) -> Field:
    if sigma_px < 0.2:
        return z
    return np.asarray(cv2.GaussianBlur(z, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)


def lines(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """Parallel lines, mostly along an axis of the scan, with rough edges that are partly correlated."""
    across, along = _axes(shape, _angle(rng), rng)
    pitch = float(np.exp(rng.uniform(np.log(14.0), np.log(72.0))))
    width = pitch * float(rng.uniform(0.35, 0.65))
    line = np.floor(across / pitch).astype(np.int32)
    first, reach = int(line.min()), (along - along.min()).astype(np.float32)
    rough = roughness_px(pixel_size_m, pitch, rng)
    record = edges(2 * (int(line.max()) - first + 1), int(reach.max()) + 3, **rough, rng=rng)
    record[1::2] += float(rng.uniform(-0.3, 0.6)) * record[::2]  # left and right edges of a line wander together
    offset = across - (line + 0.5) * pitch
    left = offset + width / 2 + sample(record, 2 * (line - first), reach)
    right = width / 2 - offset - sample(record, 2 * (line - first) + 1, reach)
    height = relief_height(pitch - width, rng)
    return Sketch(
        kind="lines",
        inside=np.asarray(np.minimum(left, right), np.float32),
        height=height,
        run=side_wall_run(height, rng),
        rounding=float(rng.uniform(1e-9, 3e-9)) / pixel_size_m,
        pitch=pitch,
        pixel_size_m=pixel_size_m,
        across=across,
        along=along,
        width=width,
    )


def contacts(shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """An array of holes in a film, square or hexagonal, each with an outline of its own."""
    across, along = _axes(shape, _angle(rng), rng)
    pitch = float(np.exp(rng.uniform(np.log(18.0), np.log(64.0))))
    radius = pitch * float(rng.uniform(0.2, 0.34))
    row_pitch, stagger = (pitch * np.sqrt(0.75), 0.5) if rng.random() < 0.5 else (pitch, 0.0)
    row = np.round(along / row_pitch).astype(np.int32)
    shift = stagger * (row % 2)
    column = np.round(across / pitch - shift).astype(np.int32)
    du = np.asarray(across - (column + shift) * pitch, np.float32)
    dv = np.asarray(along - row * row_pitch, np.float32)
    hole = (row - row.min()) * (int(np.ptp(column)) + 1) + column - column.min()
    outline = radius * outlines(int(hole.max()) + 1, rng=rng, roughness=float(rng.uniform(0.01, 0.05)))
    turn = (np.arctan2(dv, du) / (2 * np.pi) % 1.0).astype(np.float32) * (outline.shape[1] - 1)
    inside = np.asarray(np.hypot(du, dv) - sample(outline, hole, turn), np.float32)
    height = relief_height(2 * radius, rng)
    return Sketch(
        kind="contacts",
        inside=inside,
        height=height,
        run=side_wall_run(height, rng),
        rounding=float(rng.uniform(1e-9, 3e-9)) / pixel_size_m,
        pitch=pitch,
        pixel_size_m=pixel_size_m,
        across=across,
        along=along,
        width=2 * radius,
        features=_centres(du, dv, hole, radius),
    )


def relief_height(gap_px: float, rng: np.random.Generator) -> float:
    """Aspect ratios from flat to where a vertical beam sees no floor any more; a few pixels at least."""
    return float(np.clip(gap_px * np.exp(rng.uniform(np.log(0.25), np.log(2.2))), 2.5, 48.0))


def side_wall_run(height_px: float, rng: np.random.Generator) -> float:
    """Walls of 78 to 90 degrees."""
    return height_px / tan(radians(float(rng.uniform(78.0, 89.0))))


def roughness_px(pixel_size_m: float, pitch_px: float, rng: np.random.Generator) -> dict[str, float]:
    """Roughness of resist edges, never so much that lines touch by themselves."""
    sigma = min(float(rng.uniform(*LER_M)) / pixel_size_m, 0.035 * pitch_px)
    xi = max(float(rng.uniform(*XI_M)) / pixel_size_m, 1.5)
    return {"sigma_px": sigma, "xi_px": xi, "hurst": float(rng.uniform(0.4, 0.9))}


def _angle(rng: np.random.Generator) -> float:
    """Layouts are drawn along the scan, but for a share that is turned."""
    along_scan = 0.5 * np.pi * int(rng.integers(2)) + float(rng.normal(0.0, 0.01))
    return along_scan if rng.random() < 0.75 else float(rng.uniform(0.0, np.pi))


def _axes(shape: tuple[int, int], angle: float, rng: np.random.Generator) -> tuple[Field, Field]:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    u = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(0.0, 100.0)
    v = -np.sin(angle) * x + np.cos(angle) * y + rng.uniform(0.0, 100.0)
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _centres(du: Field, dv: Field, hole: NDArray[np.int32], radius: float) -> tuple[Feature, ...]:
    """The holes whose centres lie in the picture: the pixel of each that is nearest to its lattice point."""
    distance = np.hypot(du, dv)
    found = []
    for y, x in zip(*np.nonzero(distance < 0.75), strict=True):
        found.append((int(hole[y, x]), float(distance[y, x]), float(x), float(y)))
    nearest: dict[int, tuple[float, float, float]] = {}
    for number, off, x, y in sorted(found, key=lambda each: each[1], reverse=True):
        nearest[number] = (off, x, y)
    return tuple(Feature(x, y, radius) for _, x, y in nearest.values())


def disc(shape: tuple[int, int], x: float, y: float, radius: float) -> Field:
    """Signed distance to a circle, positive within."""
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.asarray(radius - np.hypot(xx - x, yy - y), np.float32)
