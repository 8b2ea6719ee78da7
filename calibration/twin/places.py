"""Where defects go on any pattern: middles of spaces and of lines, compact holes and islands. Lengths in pixels.

The signed distance alone tells them: it has a ridge in the middle of all that lies between two edges, and its slopes
there say which way is across. Lines of a lattice answer from their coordinates instead, free of their roughness.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.sketch import Sketch

Field = NDArray[np.float32]
Side = Literal[1, -1]

BODY: Side = 1  # within the material
SPACE: Side = -1

FLAT = 0.55  # slope of a distance on its ridge; beside a straight edge it is 1, towards a square corner 0.7
LOOK_PITCHES = 1.6  # around the wanted spot
WIDEST_PITCHES = 1.2  # what is wider is open ground, or all film
TRIED = 12  # ridge pixels, the nearest and narrowest first
NARROW = (
    6.0  # pixels that a place may be further off for each by which it is narrower: pillars touch where they are near
)
LEAST_PX = 1.0  # half of a space
COMPACT_PITCHES = 1.5  # longest side of a hole or an island
SIDE_BY_SIDE = 0.6  # pitches that two lines must run so, both ways, to lean together
FEWEST_PX = 5  # of a hole
FULL = 0.5  # share of its box that a hole fills; a disc 0.79, a corner between two wires less


@dataclass(frozen=True)
class Spot:
    """Where a defect is wanted; a drawing moves it to the nearest line, space or hole that it needs."""

    x: float
    y: float


@dataclass(frozen=True)
class Place:
    """A point in the middle of a space or a line, and what lies around it."""

    x: float
    y: float
    across: tuple[float, float]  # unit vector to an edge, x and y; "ahead" below is this way, "behind" the other
    half: float  # from the middle to either edge
    beside: tuple[float, float]  # width of what comes next, ahead and behind
    next: tuple[float, float]  # and of what comes after that
    length: tuple[float, float]  # how far the space or the line goes on with about this width, to both ends
    du: Field  # (h, w) coordinate across, 0 in the middle
    dv: Field  # along

    @property
    def reach(self) -> float:
        """So far from the middle lies nothing but this space or line and the half of its neighbours."""
        return self.half + 0.5 * min(self.beside)

    def joins(self, sketch: Sketch, number: NDArray[np.int32]) -> bool:
        """Are the two sides parts of the material that do not hang together? number: of each pixel's part."""
        ends = [(self.x + k * self.across[0], self.y + k * self.across[1]) for k in _both(self.half + 1.5)]
        parts = [int(number[_pixel(sketch, x, y)]) for x, y in ends]
        return parts[0] != parts[1] and min(parts) > 0


@dataclass(frozen=True)
class Spotted:
    """A compact hole or island."""

    x: float
    y: float
    radius: float  # of a disc of its area
    pixels: NDArray[np.bool_]  # (h, w)


def middle(sketch: Sketch, spot: Spot, side: Side) -> Place | None:
    """The middle of the space or the line nearest to the spot; None where there is none."""
    if sketch.kind == "lines" and sketch.lattice is not None:
        return _on_lattice(sketch, spot, side)
    return next(_middles(sketch, spot, side), None)


def between(sketch: Sketch, spot: Spot) -> Place | None:
    """The middle of a space near the spot, one that keeps two parts of the material asunder where there is any."""
    if sketch.kind == "lines" and sketch.lattice is not None:
        return _on_lattice(sketch, spot, SPACE)
    sketch = unpierced(sketch)
    _, number = cv2.connectedComponents((sketch.inside > 0).astype(np.uint8), connectivity=8)
    parts, first = np.asarray(number, np.int32), None
    for place in _middles(sketch, spot, SPACE):
        if place.joins(sketch, parts):
            return place
        first = first or place
    return first


def channel(sketch: Sketch, spot: Spot) -> Place | None:
    """The middle of a space between two lines that run side by side, or of the gap between two pillars."""
    if sketch.lattice is not None:
        return between(sketch, spot)
    whole = unpierced(sketch)
    return next((p for p in _middles(whole, spot, SPACE) if min(p.length) > SIDE_BY_SIDE * sketch.pitch), None)


def slender(sketch: Sketch, spot: Spot) -> Place | None:
    """The middle of a line that goes on at both ends for longer than it is wide."""
    if sketch.kind == "lines" and sketch.lattice is not None:
        return _on_lattice(sketch, spot, BODY)
    whole = unpierced(sketch)
    return next((p for p in _middles(whole, spot, BODY) if min(p.length) > 1.2 * p.half + 1.0), None)


def unpierced(sketch: Sketch) -> Sketch:
    """Without the holes landed on its wires: those have outlines of their own, between which no line runs."""
    holes = compact(sketch, SPACE) if sketch.lattice is None else ()
    if not holes:
        return sketch
    mask = (sketch.inside > 0).astype(np.uint8)
    for hole in holes:
        mask[hole.pixels] = 1
    into, out = (cv2.distanceTransform(each, cv2.DIST_L2, 5) for each in (mask, 1 - mask))
    return replace(sketch, inside=np.where(mask > 0, into - 0.5, 0.5 - out).astype(np.float32))


def compact(sketch: Sketch, side: Side) -> tuple[Spotted, ...]:
    """Holes in the material, or islands of it, that are no longer than COMPACT_PITCHES."""
    mask = (side * sketch.inside > 0).astype(np.uint8)
    _, number, stats, centre = cv2.connectedComponentsWithStats(mask, connectivity=4 if side == SPACE else 8)
    found = []
    for part in range(1, len(stats)):
        x, y, w, h, area = (int(value) for value in stats[part])
        cut = min(x, y) == 0 or x + w == sketch.shape[1] or y + h == sketch.shape[0]
        whole = not cut or sketch.lattice is not None  # what the border cuts off an array is a hole too
        if whole and area >= max(FEWEST_PX, FULL * w * h) and max(w, h) <= COMPACT_PITCHES * sketch.pitch:
            x_mid, y_mid = (float(at) for at in centre[part])
            found.append(Spotted(x_mid, y_mid, float(np.sqrt(area / np.pi)), number == part))
    return tuple(found)


def nearest(sketch: Sketch, spot: Spot, side: Side) -> Spotted | None:
    return min(compact(sketch, side), key=lambda each: (each.x - spot.x) ** 2 + (each.y - spot.y) ** 2, default=None)


def around(sketch: Sketch, one: Spotted, side: Side) -> Field:
    """(h, w) px, positive on a hole or an island and around it as far as its neighbours' walls, falling outwards."""
    away = np.asarray(cv2.distanceTransform((~one.pixels).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    others = (side * sketch.inside > 0) & ~one.pixels
    room = float(away[others].min()) if others.any() else sketch.pitch
    return np.asarray(max(room - 0.5 * sketch.run - 1.0, 0.6 * room) - away, np.float32)


def _on_lattice(sketch: Sketch, spot: Spot, side: Side) -> Place:
    row, column = _pixel(sketch, spot.x, spot.y)
    u, v = float(sketch.across[row, column]), float(sketch.along[row, column])
    at = (np.floor(u / sketch.pitch) + 0.5 if side == BODY else np.round(u / sketch.pitch)) * sketch.pitch
    ux = float(sketch.across[0, 1] - sketch.across[0, 0])
    uy = float(sketch.across[1, 0] - sketch.across[0, 0])
    width, gap = sketch.width, sketch.pitch - sketch.width
    own, other = (width, gap) if side == BODY else (gap, width)
    far = float(max(sketch.shape))
    return Place(
        x=spot.x + (at - u) * ux,
        y=spot.y + (at - u) * uy,
        across=(ux, uy),
        half=0.5 * own,
        beside=(other, other),
        next=(own, own),
        length=(far, far),
        du=np.asarray(sketch.across - np.float32(at), np.float32),
        dv=np.asarray(sketch.along - np.float32(v), np.float32),
    )


def _middles(sketch: Sketch, spot: Spot, side: Side) -> Iterator[Place]:
    """Places on the ridge, the nearest and narrowest first."""
    reach = int(LOOK_PITCHES * sketch.pitch) + 4
    row, column = _pixel(sketch, spot.x, spot.y)
    top, left = max(row - reach, 0), max(column - reach, 0)
    depth = side * sketch.inside[top : row + reach + 1, left : column + reach + 1]
    slope_y, slope_x = np.gradient(cv2.GaussianBlur(depth, (0, 0), 0.6))
    ridge = (np.hypot(slope_x, slope_y) < FLAT) & (depth > LEAST_PX) & (depth < 0.5 * WIDEST_PITCHES * sketch.pitch)
    ys, xs = np.nonzero(ridge)
    cost = np.hypot(ys + top - row, xs + left - column) + NARROW * depth[ys, xs]
    for index in np.argsort(cost, kind="stable")[:: max(len(cost) // (6 * TRIED), 1)][:TRIED]:
        y, x = int(ys[index]), int(xs[index])
        toward = _across(slope_x, slope_y, x, y, float(depth[y, x]))
        place = _measured(sketch, (x + left, y + top), toward, side)
        if place is not None:
            yield place


def _across(slope_x: NDArray[np.floating], slope_y: NDArray[np.floating], x: int, y: int, half: float) -> float:
    """Angle of the direction in which the slopes around a ridge pixel point most, radians."""
    r = int(0.7 * half) + 2
    cut = np.s_[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]
    gx, gy = slope_x[cut], slope_y[cut]
    return 0.5 * float(np.arctan2(2.0 * (gx * gy).sum(), (gx**2 - gy**2).sum()))


def _measured(sketch: Sketch, at: tuple[int, int], angle: float, side: Side) -> Place | None:
    """A place with its widths, walked out from the pixel; None where a side has no edge in the picture."""
    ux, uy, far = float(np.cos(angle)), float(np.sin(angle)), WIDEST_PITCHES * sketch.pitch
    edges = [_walk(sketch, at, (k * ux, k * uy), side) for k in _both(1.0)]
    if None in edges:
        return None
    ahead, behind = (float(edge or 0.0) for edge in edges)
    x, y = at[0] + 0.5 * (ahead - behind) * ux, at[1] + 0.5 * (ahead - behind) * uy
    half = 0.5 * (ahead + behind)
    beside, after = [], []
    for k in _both(half + 0.5):
        start = (x + k * ux, y + k * uy)
        toward = (np.sign(k) * ux, np.sign(k) * uy)
        beside.append(_or(_walk(sketch, start, toward, -side), far))
        start = (start[0] + (beside[-1] + 1.0) * toward[0], start[1] + (beside[-1] + 1.0) * toward[1])
        after.append(_or(_walk(sketch, start, toward, side), far))
    yy, xx = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    dx, dy = xx - np.float32(x), yy - np.float32(y)
    lengths = [_goes_on(sketch, (x, y), (-k * uy, k * ux), half * side) for k in _both(1.0)]
    return Place(
        x=x,
        y=y,
        across=(ux, uy),
        half=half,
        beside=(beside[0], beside[1]),
        next=(after[0], after[1]),
        length=(lengths[0], lengths[1]),
        du=np.asarray(dx * np.float32(ux) + dy * np.float32(uy), np.float32),
        dv=np.asarray(dy * np.float32(ux) - dx * np.float32(uy), np.float32),
    )


def _walk(sketch: Sketch, at: tuple[float, float], toward: tuple[float, float], side: Side | int) -> float | None:
    """How far the sign stays as it is; None: past WIDEST_PITCHES or the picture's border."""
    depth = side * _along(sketch, at, toward, WIDEST_PITCHES * sketch.pitch)
    out = np.nonzero(depth <= 0)[0]
    if out.size == 0:
        return None
    step = int(out[0])
    if step == 0:
        return 0.0
    before, after = float(depth[step - 1]), float(depth[step])
    return step - 1 + before / max(before - after, 1e-6)


def _goes_on(sketch: Sketch, at: tuple[float, float], toward: tuple[float, float], depth: float) -> float:
    """How far one comes along a ridge of this signed depth before it narrows or opens; two pitches at most."""
    depths = _along(sketch, at, toward, 2.0 * sketch.pitch) / depth
    out = np.nonzero((depths < 0.5) | (depths > 1.8))[0]
    return float(out[0] if out.size else depths.size)


def _along(sketch: Sketch, at: tuple[float, float], toward: tuple[float, float], far: float) -> Field:
    """Signed distances a pixel apart, up to the picture's border."""
    steps = np.arange(int(far) + 2, dtype=np.float32)
    x, y = at[0] + steps * np.float32(toward[0]), at[1] + steps * np.float32(toward[1])
    inside = (x >= 0) & (x <= sketch.shape[1] - 1) & (y >= 0) & (y <= sketch.shape[0] - 1)
    count = int(np.argmin(inside)) if not inside.all() else len(steps)
    x, y = x[None, :count], y[None, :count]
    if count == 0:
        return np.zeros(0, np.float32)
    read = cv2.remap(sketch.inside, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    return np.asarray(read[0], np.float32)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _both(size: float) -> tuple[float, float]:
    return size, -size


def _pixel(sketch: Sketch, x: float, y: float) -> tuple[int, int]:
    """Row and column."""
    return int(np.clip(round(y), 0, sketch.shape[0] - 1)), int(np.clip(round(x), 0, sketch.shape[1] - 1))
