"""Designs as coverage: rectangles in, the covered share of each pixel out, (h, w) float32 in 0..1. Lengths in pixels.

Tip-to-tip lines, jogs, random Manhattan routes, logic wires with their vias: what `patterns` prints.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Generator = np.random.Generator

STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


@dataclass(frozen=True)
class Rect:
    """Sides along the axes; x1 > x0, y1 > y0."""

    x0: float
    y0: float
    x1: float
    y1: float


def covered(shape: tuple[int, int], rects: Iterable[Rect]) -> Field:
    """The union, exact to the share of a pixel that each rectangle covers."""
    cover = np.zeros(shape, np.float32)
    for rect in rects:
        rows, down = _span(rect.y0, rect.y1, shape[0])
        columns, right = _span(rect.x0, rect.x1, shape[1])
        part = cover[rows, columns]
        np.maximum(part, down[:, None] * right[None, :], out=part)
    return cover


def _span(low: float, high: float, size: int) -> tuple[slice, Field]:
    """The pixels between low and high, and how much of each is covered; pixel i reaches from i - 1/2 to i + 1/2."""
    first, last = max(int(np.floor(low + 0.5)), 0), min(int(np.ceil(high + 0.5)), size)
    centre = np.arange(first, max(last, first), dtype=np.float32)
    share = np.minimum(centre + 0.5, high) - np.maximum(centre - 0.5, low)
    return slice(first, max(last, first)), np.clip(share, 0.0, 1.0).astype(np.float32)


def tip_to_tip(shape: tuple[int, int], pitch: float, *, width: float, rng: Generator) -> list[Rect]:
    """Upright lines cut into lengths whose ends face each other, the cuts of neighbours in line or not."""
    gap, length = pitch * float(rng.uniform(0.4, 1.2)), pitch * float(rng.uniform(3.0, 9.0))
    stagger = float(rng.choice([0.0, 0.5, rng.uniform(0.0, 1.0)]))
    start_x, start_y = float(rng.uniform(0.0, pitch)), float(rng.uniform(0.0, length + gap))
    rects = []
    for number, x in enumerate(np.arange(start_x - pitch, shape[1] + pitch, pitch)):
        first = -start_y - (length + gap) * (1.0 + (number * stagger) % 1.0)
        for y in np.arange(first, shape[0] + length, length + gap):
            rects.append(Rect(x - width / 2, y, x + width / 2, y + length))
    return rects


def jogs(shape: tuple[int, int], pitch: float, *, width: float, rng: Generator) -> list[Rect]:
    """Upright lines that step aside, again and again: each by a little all at once, or one after another by a pitch."""
    whole = rng.random() < 0.5
    aside = pitch if whole else float(rng.uniform(0.3, 0.9)) * max(0.75 * pitch - width, 2.0)
    late = pitch if whole else 0.0  # a line that steps by a whole pitch must wait for its neighbour to have left
    every = pitch * float(rng.uniform(4.0, 8.0))  # between two steps of one line
    lean = pitch + late * aside / every  # from line to line, at the same row
    start_x, start_y = (float(value) for value in rng.uniform(-pitch, 0.0, 2))
    first = int(np.floor(-(2.0 * pitch + aside + (shape[0] + every) * aside / every) / lean))
    rects = []
    for number in range(first, int((shape[1] + 3.0 * pitch + aside) / lean) + 2):
        first_turn, last_turn = int(number * late // every) - 1, int((shape[0] + pitch + number * late) // every) + 1
        for turn in range(first_turn, last_turn + 1):
            x, y = start_x + number * pitch + turn * aside, start_y + turn * every - number * late
            end = y + every
            rects.append(Rect(x - width / 2, y - width / 2, x + width / 2, end + width / 2))
            rects.append(Rect(x - width / 2, end - width / 2, x + aside + width / 2, end + width / 2))
    return rects


def manhattan(shape: tuple[int, int], pitch: float, *, width: float, rng: Generator) -> list[Rect]:
    """Random routes on a grid of tracks: each walks straight on or turns, and never meets another."""
    rows, columns = int(shape[0] / pitch) + 3, int(shape[1] / pitch) + 3
    free = np.ones((rows, columns), bool)
    straight, longest = float(rng.uniform(0.6, 0.92)), int(rng.integers(6, 30))
    start_x, start_y = (float(value) for value in rng.uniform(-pitch, 0.0, 2))
    rects = []
    for spot in rng.permutation(rows * columns):
        at = (int(spot) // columns, int(spot) % columns)
        for a, b in _walk(free, at, longest, straight, rng):
            (y0, x0), (y1, x1) = np.minimum(a, b), np.maximum(a, b)
            box = np.array([x0, y0, x1, y1]) * pitch + [start_x, start_y, start_x, start_y]
            rects.append(Rect(box[0] - width / 2, box[1] - width / 2, box[2] + width / 2, box[3] + width / 2))
    return rects


def _walk(
    free: NDArray[np.bool_], at: tuple[int, int], longest: int, straight: float, rng: Generator
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The legs of one route over free nodes, which it takes; empty where it cannot even leave."""
    if not free[at]:
        return []
    legs, heading = [], int(rng.integers(4))
    for _ in range(longest):
        turn = 0 if rng.random() < straight else int(rng.choice([-1, 1]))
        step = STEPS[(heading + turn) % 4]
        to = (at[0] + step[1], at[1] + step[0])
        if not (0 <= to[0] < free.shape[0] and 0 <= to[1] < free.shape[1] and free[to]):
            break
        free[at] = free[to] = False
        legs.append((at, to))
        at, heading = to, (heading + turn) % 4
        free[at] = False
    return legs


@dataclass(frozen=True)
class Logic:
    """A metal layer and the places where vias land on it."""

    wires: list[Rect]
    vias: list[tuple[float, float, float]]  # x, y, radius


def logic(shape: tuple[int, int], pitch: float, *, width: float, rng: Generator) -> Logic:
    """Tracks along x: every few a wide supply rail, between them narrow and wide wires, cut, landed on."""
    wires, vias = [], []
    rail_every, y = int(rng.integers(6, 11)), -float(rng.uniform(0.0, 2.0 * pitch))
    radius = max(0.32 * width, 1.6)
    track = int(rng.integers(rail_every))
    while y < shape[0] + 2 * pitch:
        if track % rail_every == 0:
            wires.append(Rect(-pitch, y, shape[1] + pitch, y + 2.0 * width))
            vias += _row_of_vias(shape[1], y + width, pitch, radius, rng)
            y += 2.0 * width + pitch - width
        else:
            wide = width * (1.0 if rng.random() < 0.75 else float(rng.uniform(1.4, 2.0)))
            for x0, x1 in _cuts(shape[1], pitch, rng):
                wires.append(Rect(x0, y, x1, y + wide))
                vias += [(x, y + wide / 2, radius) for x in _landed(x0, x1, wide, pitch, rng)]
            y += wide + pitch - width
        track += 1
    return Logic(wires, vias)


def _cuts(length: float, pitch: float, rng: Generator) -> list[tuple[float, float]]:
    """A track as wires with gaps between, some of them missing."""
    spans, x = [], -float(rng.uniform(0.0, 8.0 * pitch))
    while x < length + pitch:
        end = x + pitch * float(np.exp(rng.uniform(np.log(2.0), np.log(20.0))))
        if rng.random() < 0.88:
            spans.append((x, end))
        x = end + pitch * float(rng.uniform(0.6, 1.4))
    return spans


def _landed(x0: float, x1: float, wide: float, pitch: float, rng: Generator) -> list[float]:
    """Vias near the ends of a wire, now and then one between."""
    ends = [x for x in (x0 + wide, x1 - wide) if rng.random() < 0.7]
    middle = [float(rng.uniform(x0 + wide, x1 - wide))] if x1 - x0 > 4.0 * pitch and rng.random() < 0.4 else []
    placed: list[float] = []
    for x in ends + middle:
        if all(abs(x - other) > pitch for other in placed):
            placed.append(x)
    return placed


def _row_of_vias(
    length: float, y: float, pitch: float, radius: float, rng: Generator
) -> list[tuple[float, float, float]]:
    """A supply rail is stitched at even distances."""
    every = pitch * float(rng.integers(2, 6))
    return [(float(x), y, radius) for x in np.arange(float(rng.uniform(0.0, every)), length, every)]
