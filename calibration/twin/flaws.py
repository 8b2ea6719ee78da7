"""How each class of defect is drawn: a sketch and a spot in, the sketch with the defect out. Lengths in pixels.

Here: what happens to lines and spaces of any pattern. Holes are in `flaws_holes`, what lies anywhere in `flaws_spots`.
Every drawing returns the sketch as it was where there is no place for it (a break on a plain film).
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.flaws_holes import closed_contact, merged_contact, misshapen, missing_contact
from calibration.twin.flaws_spots import particle, pit, residue, scratch, void
from calibration.twin.places import BODY, SPACE, Place, Spot, between, channel, compact, slender
from calibration.twin.sketch import Sketch, wall
from calibration.twin.strokes import lowered, raised

__all__ = ["DRAW", "Spot"]

Field = NDArray[np.float32]
Generator = np.random.Generator

MICROBRIDGE_LEVEL = (0.2, 0.8)  # of the pattern's height
NECKING = (0.2, 0.6)  # of the critical dimension
LONGEST_LEAN_PX = 70.0  # half the length of a collapse: of what is longer no crop shows both ends


def bridge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Material of about full height from line to line, with a meniscus at both."""
    return _across_space(sketch, spot, (0.2, 0.8, 3.0), float(rng.uniform(0.82, 1.0)), rng)


def microbridge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A thin low thread from line to line."""
    return _across_space(sketch, spot, (0.07, 0.25, 2.0), float(rng.uniform(*MICROBRIDGE_LEVEL)), rng)


def _across_space(
    sketch: Sketch, spot: Spot, lengths: tuple[float, float, float], level: float, rng: Generator
) -> Sketch:
    """lengths: least and most in pitches, least in pixels."""
    place = between(sketch, spot)
    if place is None:
        return sketch
    length = max(sketch.pitch * float(rng.uniform(*lengths[:2])), lengths[2])
    length = min(length, max(2.0 * min(place.length), lengths[2]))  # no longer than the lines face each other
    meniscus = length * float(rng.uniform(0.1, 0.6)) * np.minimum(np.abs(place.du) / place.half, 1.4) ** 2
    strip = 0.5 * length + meniscus - np.abs(place.dv + float(rng.normal(0.0, 0.12)) * place.du)
    facing = 1.1 * min(place.length) + 1.5 - np.abs(place.dv)  # nothing hangs over the ends of the lines
    within = np.minimum(np.minimum(strip, facing), place.reach - np.abs(place.du))
    # Walls as steep as the pattern's, or a thin thread would have no top.
    return raised(sketch, wall(within, level * sketch.height, min(sketch.run, 0.8 * length)))


def gap(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A break: the line is missing over a length, with round or straight ends, mostly down to the floor."""
    place = slender(sketch, spot)
    if place is None:
        return sketch
    length = max(sketch.pitch * float(rng.uniform(0.15, 0.9)), 3.0)
    length = min(length, max(1.4 * min(place.length), 3.0))  # what is left at both ends is still a line
    rounding = length * float(rng.uniform(0.0, 0.5)) * np.minimum(np.abs(place.du) / place.half, 1.0) ** 2
    strip = 0.5 * length + rounding - np.abs(place.dv + float(rng.normal(0.0, 0.12)) * place.du)
    depth = 1.0 if rng.random() < 0.8 else float(rng.uniform(0.6, 1.0))
    # A wall that leans inwards would leave a thread in the middle of a short break.
    run = min(sketch.run, 0.4 * length)
    missing = wall(np.minimum(strip, place.reach - np.abs(place.du)), depth * sketch.height, run)
    return lowered(sketch, sketch.height - missing)


def necking(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A line thinner by 20 to 60 % over a length, from both sides or from one."""
    place = slender(sketch, spot)
    if place is None:
        return sketch
    return _thickened(sketch, place, -2.0 * place.half * float(rng.uniform(*NECKING)), rng)


def other(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A hole or a pillar much too wide, too small or not there; else a line wider than it should be."""
    side = BODY if sketch.kind == "pillars" else SPACE
    array = sketch.kind in ("contacts", "pillars")
    if array or (sketch.kind != "lines" and rng.random() < 0.4 and compact(sketch, side)):
        return misshapen(sketch, spot, side, rng)
    return bulge(sketch, spot, rng)


def bulge(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """A line wider than it should be that touches nothing."""
    place = slender(sketch, spot)
    if place is None:
        return sketch
    return _thickened(sketch, place, min(place.beside) * float(rng.uniform(0.3, 0.65)), rng)


def _thickened(sketch: Sketch, place: Place, change: float, rng: Generator) -> Sketch:
    du, dv = place.du, place.dv
    half = max(sketch.pitch * float(rng.uniform(0.3, 0.9)), 4.0)
    here = np.where(np.abs(dv) < half, np.cos(dv * (0.5 * np.pi / half)) ** 2, 0.0) * (np.abs(du) < place.reach)
    side = int(rng.integers(-1, 2)) if rng.random() < 0.5 else 0  # one side only, or both by half
    if side:
        change = min(change, 0.45 * min(place.beside))  # beyond the middle of the space all belongs to the next line
    share = np.where(du * side > 0.0, 1.0, 0.0) if side else 0.5
    return replace(sketch, inside=np.asarray(sketch.inside + change * share * here, np.float32))


def collapse(sketch: Sketch, spot: Spot, rng: Generator) -> Sketch:
    """Two neighbouring lines or pillars lean together over a length, most of them until they touch."""
    place = channel(sketch, spot)
    if place is None:
        return sketch
    du, dv = place.du, place.dv
    length = min(sketch.pitch * float(rng.uniform(1.0, 3.0)), max(LONGEST_LEAN_PX, 1.2 * sketch.pitch))
    if sketch.kind != "pillars":
        length = min(length, min(place.length))  # where the space ends, so does what leans
    lean = place.half * float(rng.uniform(0.65, 1.15)) * np.clip(1.5 * np.cos(dv * (0.5 * np.pi / length)), 0.0, 1.0)
    lean = np.where(np.abs(dv) < length, lean, 0.0)
    ahead = du > 0.0
    reach = place.half + np.where(ahead, *place.beside)  # the whole line moves; the space behind it gives way
    end = reach + np.where(ahead, *place.next)
    carried = np.clip((end - np.abs(du)) / np.maximum(end - reach, 1.0), 0.0, 1.0)
    away = np.asarray(np.sign(du) * lean * carried, np.float32)  # where the line now here stood before
    ux, uy = place.across
    y, x = np.mgrid[: sketch.shape[0], : sketch.shape[1]].astype(np.float32)
    moved = cv2.remap(sketch.inside, x + ux * away, y + uy * away, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return replace(sketch, inside=np.asarray(np.where(away != 0.0, moved, sketch.inside), np.float32))


DRAW: dict[str, Callable[[Sketch, Spot, Generator], Sketch]] = {
    "pit": pit,
    "particle": particle,
    "bridge": bridge,
    "microbridge": microbridge,
    "break": gap,
    "necking": necking,
    "missing_contact": missing_contact,
    "closed_contact": closed_contact,
    "merged_contact": merged_contact,
    "residue": residue,
    "collapse": collapse,
    "scratch": scratch,
    "void": void,
    "other": other,
}
