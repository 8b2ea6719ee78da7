"""A patterned layer as it is drawn: signed distances in pixels in, heights out. Lines, contacts, what is put on them.

`inside` is the distance to the pattern's edge, positive where material stands; defects are drawn by changing it, or by
adding height or another material on top. More patterns are in `patterns`, designs from files in `mask`.
"""

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin import matter
from calibration.twin.distance import disc
from calibration.twin.layout import axes, draw_angle, sample
from calibration.twin.process import Process, draw_process
from calibration.twin.roughness import edges, line_edges, roughened_outline
from calibration.twin.surface import SpecimenError, Surface, metres

__all__ = [
    "PITCH_PX",
    "Feature",
    "Field",
    "Lattice",
    "Sketch",
    "contacts",
    "disc",
    "edges",
    "lines",
    "profile",
    "rounded",
    "standing",
    "surface_m",
    "surface_of",
    "surface_px",
    "wall",
]

Field = NDArray[np.float32]

PITCH_PX = (10.0, 160.0)
STANDING_PX = (0.5, 1.5)  # what is lower is the ground, what is higher is all film


@dataclass(frozen=True)
class Feature:
    """A hole or a pillar of an array: its centre and mean radius, px."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Lattice:
    """The coordinates of a pattern that repeats."""

    across: Field  # (h, w) px, across the lines; for arrays along the first axis
    along: Field
    features: tuple[Feature, ...]  # none for lines


def _none() -> Field:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Sketch:
    """All lengths in pixels but the pixel size. Arrays are (h, w). Raises SpecimenError for impossible measures."""

    kind: str  # one of patterns.PATTERNS, or mask
    inside: Field  # signed distance to the edge, positive in the line or the film
    height: float  # of the line or the film
    run: float  # of a side wall seen from above
    rounding: float  # sigma of the rounded corner
    pitch: float  # local scale: from one feature to the next
    pixel_size_m: float
    across: Field = field(default_factory=_none)  # `lattice` says whether these two mean something
    along: Field = field(default_factory=_none)
    width: float = 0.0  # of a line; for arrays the mean diameter
    features: tuple[Feature, ...] = ()
    added: Field | None = None  # height on top of the profile
    stain: Field | None = None  # factor on the relative yield, None: 1 everywhere
    foot: float = 0.0  # radius of the fillet at the bottom of the wall
    top: float = 0.0  # radius of the rounded top edge
    film: float = 1.0  # relative yield of what stands
    ground: float = 1.0  # relative yield of what it stands on

    def __post_init__(self) -> None:
        for name in ("height", "pitch", "pixel_size_m", "film", "ground"):
            if not getattr(self, name) > 0.0:
                raise SpecimenError(f"sketch of {self.kind}: {name} {getattr(self, name):g}, needs a positive number")
        for name in ("run", "rounding", "foot", "top", "width"):
            if not getattr(self, name) >= 0.0:
                raise SpecimenError(f"sketch of {self.kind}: {name} {getattr(self, name):g}, needs 0 or more")

    @property
    def shape(self) -> tuple[int, int]:
        return self.inside.shape[0], self.inside.shape[1]

    @property
    def lattice(self) -> Lattice | None:
        """None where nothing repeats."""
        return Lattice(self.across, self.along, self.features) if self.across.size else None

    @property
    def material(self) -> Field | None:
        """(h, w) relative yield of what lies on top: film where anything stands, else ground; None: 1 everywhere."""
        if self.film == self.ground == 1.0:
            return self.stain
        low, high = (limit * min(1.0, 0.5 * self.height) for limit in STANDING_PX)
        stands = np.clip((surface_px(self) - low) / (high - low), 0.0, 1.0)
        map_ = np.asarray(self.ground + (self.film - self.ground) * stands, np.float32)
        return map_ if self.stain is None else map_ * self.stain

    def with_added(self, more: Field) -> "Sketch":
        return replace(self, added=more if self.added is None else self.added + more)

    def with_material(self, factor: Field) -> "Sketch":
        return replace(self, stain=factor if self.stain is None else self.stain * factor)


def surface_px(sketch: Sketch) -> Field:
    """Heights in pixels above the floor."""
    z = rounded(profile(sketch), sketch.rounding)
    return z if sketch.added is None else np.asarray(z + sketch.added, np.float32)


def surface_m(sketch: Sketch) -> Field:
    """Heights in metres."""
    return metres(surface_px(sketch), sketch.pixel_size_m)


def surface_of(sketch: Sketch) -> Surface:
    """Heights and material together."""
    return Surface(surface_m(sketch), sketch.material, sketch.pixel_size_m, sketch.kind)


def profile(sketch: Sketch) -> Field:
    """z = height * clip(inside / run + 1/2, 0, 1), with a round top and a foot."""
    z = wall(sketch.inside, sketch.height, sketch.run)
    if sketch.top > 0.0:
        z = np.minimum(z, _top(sketch))
    return np.maximum(z, _foot(sketch)) if sketch.foot > 0.0 else z


def wall(inside: Field, height: float, run: float) -> Field:
    """A plateau of that height with side walls of that run, half way up at the edge."""
    return np.asarray(height * np.clip(inside / max(run, 1e-3) + 0.5, 0.0, 1.0), np.float32)


def rounded(z: Field, sigma_px: float) -> Field:
    if sigma_px < 0.2:
        return z
    return np.asarray(cv2.GaussianBlur(z, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT), np.float32)


def _top(sketch: Sketch) -> Field:
    """A quarter circle from the wall to the plateau."""
    r, start = sketch.top, sketch.run * (0.5 - sketch.top / sketch.height)
    into = np.clip(sketch.inside - start, 0.0, r)
    return np.asarray(sketch.height - r + np.sqrt(np.maximum(r * r - np.square(r - into), 0.0)), np.float32)


def _foot(sketch: Sketch) -> Field:
    """A hollow quarter circle from the wall to the floor, centred in the air beside the wall."""
    r, start = sketch.foot, sketch.run * (sketch.foot / sketch.height - 0.5)
    out = np.clip(start - sketch.inside, 0.0, r)
    filled = r - np.sqrt(np.maximum(r * r - np.square(r - out), 0.0))
    return np.asarray(np.where(sketch.inside > start, 0.0, filled), np.float32)


def standing(inside: Field, process: Process, *, kind: str, pitch: float, pixel_size_m: float) -> Sketch:
    """An outline with the walls and materials of a process."""
    return Sketch(
        kind=kind,
        inside=inside,
        height=process.height_m / pixel_size_m,
        run=process.run_m / pixel_size_m,
        rounding=process.rounding_m / pixel_size_m,
        pitch=pitch,
        pixel_size_m=pixel_size_m,
        foot=process.foot_m / pixel_size_m,
        top=process.top_m / pixel_size_m,
        film=matter.brightness(process.film),
        ground=matter.brightness(process.ground),
    )


def lines(
    shape: tuple[int, int],
    *,
    pixel_size_m: float,
    rng: np.random.Generator,
    pitch_px: tuple[float, float] = PITCH_PX,
) -> Sketch:
    """Parallel lines, mostly along an axis of the scan, with rough edges that are partly correlated."""
    across, along = axes(shape, draw_angle(rng), rng)
    pitch = float(np.exp(rng.uniform(*np.log(pitch_px))))
    width = pitch * float(rng.uniform(0.35, 0.65))
    how = draw_process(gap_px=pitch - width, pitch_px=pitch, pixel_size_m=pixel_size_m, rng=rng)
    line = np.floor(across / pitch).astype(np.int32)
    first, reach = int(line.min()), (along - along.min()).astype(np.float32)
    count, length = int(line.max()) - first + 1, int(reach.max()) + 3
    record = line_edges(count, length, how.roughness(pixel_size_m), rng=rng)
    offset = across - (line + 0.5) * pitch
    left = offset + width / 2 + sample(record, 2 * (line - first), reach)
    right = width / 2 - offset - sample(record, 2 * (line - first) + 1, reach)
    inside = np.asarray(np.minimum(left, right), np.float32)
    drawn = standing(inside, how, kind="lines", pitch=pitch, pixel_size_m=pixel_size_m)
    return replace(drawn, across=across, along=along, width=width)


def contacts(
    shape: tuple[int, int],
    *,
    pixel_size_m: float,
    rng: np.random.Generator,
    pitch_px: tuple[float, float] = PITCH_PX,
) -> Sketch:
    """An array of holes in a film, square or hexagonal, round or square with round corners, each of its own size."""
    drawn, radius, how = array(shape, pixel_size_m=pixel_size_m, rng=rng, pitch_px=pitch_px)
    rough = roughened_outline(-drawn.inside, how.roughness(pixel_size_m), rng=rng)
    return replace(drawn, kind="contacts", inside=rough, width=2 * radius)


def array(
    shape: tuple[int, int], *, pixel_size_m: float, rng: np.random.Generator, pitch_px: tuple[float, float]
) -> tuple[Sketch, float, Process]:
    """Islands on a lattice (positive within), still smooth; their mean radius; their making."""
    across, along = axes(shape, draw_angle(rng), rng)
    pitch = float(np.exp(rng.uniform(*np.log(pitch_px))))
    radius = pitch * float(rng.uniform(0.2, 0.34))
    row_pitch, stagger = (pitch * np.sqrt(0.75), 0.5) if rng.random() < 0.5 else (pitch, 0.0)
    row = np.round(along / row_pitch).astype(np.int32)
    shift = stagger * (row % 2)
    column = np.round(across / pitch - shift).astype(np.int32)
    du = np.asarray(across - (column + shift) * pitch, np.float32)
    dv = np.asarray(along - row * row_pitch, np.float32)
    number = (row - row.min()) * (int(np.ptp(column)) + 1) + column - column.min()
    own = radius * (1.0 + float(rng.uniform(0.0, 0.03)) * rng.standard_normal(int(number.max()) + 1))
    corner = float(rng.uniform(0.3, 0.7)) if rng.random() < 0.3 else 1.0
    inside = _island(du, dv, own.astype(np.float32)[number], corner)
    how = draw_process(gap_px=2 * radius, pitch_px=pitch, pixel_size_m=pixel_size_m, rng=rng)
    drawn = standing(inside, how, kind="array", pitch=pitch, pixel_size_m=pixel_size_m)
    lattice = replace(drawn, across=across, along=along, features=_centres(du, dv, number, radius))
    return lattice, radius, how


def _island(du: Field, dv: Field, radius: Field, corner: float) -> Field:
    """A square whose corners have the radius corner * half its side; 1: a disc."""
    half = (1.0 - corner) * radius
    qu, qv = np.abs(du) - half, np.abs(dv) - half
    outside = np.hypot(np.maximum(qu, 0.0), np.maximum(qv, 0.0)) + np.minimum(np.maximum(qu, qv), 0.0)
    return np.asarray(corner * radius - outside, np.float32)


def _centres(du: Field, dv: Field, number: NDArray[np.int32], radius: float) -> tuple[Feature, ...]:
    """The islands whose centres lie in the picture, to a fraction of a pixel from the pixel next to each."""
    distance = np.hypot(du, dv)
    nearest: dict[int, tuple[float, float, float]] = {}
    for y, x in zip(*np.nonzero(distance < 0.75), strict=True):
        found = nearest.get(int(number[y, x]))
        if found is None or distance[y, x] < found[0]:
            nearest[int(number[y, x])] = (float(distance[y, x]), float(x), float(y))
    return tuple(Feature(x, y, radius) for _, x, y in nearest.values())
