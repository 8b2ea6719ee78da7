"""Two searches that everybody knows, on one number of sharpness: a sweep in two passes, and Brent's.

Neither knows defocus in metres, its sign, or when it is wrong: both end with `converged` whatever they saw.
"""

import math
from collections.abc import Generator

import cv2
import numpy as np

from calibration.evaluate.focus_grid import NEAR, REACH
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_search import Column, Ended, Go, Search, Shown

FINE_PX, COARSE_PX = 1.5, 6.0  # the band of detail that is called sharp: above the noise, below slow shading
STEPS = 11  # pictures in each pass of the sweep
GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
TOLERANCE_H = 0.25
MOST = 30  # pictures of Brent's


def sharpness(shown: Shown) -> float:
    """Variance of the picture between two Gaussians, over its mean squared."""
    fine = cv2.GaussianBlur(shown.pixels, (0, 0), FINE_PX)
    coarse = cv2.GaussianBlur(shown.pixels, (0, 0), COARSE_PX)
    return float(np.var(fine - coarse)) / max(float(shown.pixels.mean()), 1e-6) ** 2


def reach_m(column: Column, shown: Shown) -> float:
    """How far the focus may be from a start, as the bench draws them: a sweep has to be told."""
    return min(NEAR[-1] * column.h_m, REACH * shown.working_distance_m)


def sweep(column: Column, first: Shown) -> Search:
    """STEPS pictures over all that may be, STEPS more around the best, then a parabola through the best three."""
    reach, centre = reach_m(column, first), first.working_distance_m
    for _ in range(2):
        places = [centre + reach * (2.0 * i / (STEPS - 1) - 1.0) for i in range(STEPS)]
        seen = []
        for place in places:
            shown = yield from _taken(place)
            seen.append((shown.working_distance_m, sharpness(shown)))
        centre, reach = _vertex(seen), 2.0 * reach / (STEPS - 1)
    yield from _taken(centre, correct=True)
    return Ended(End.CONVERGED)


def _taken(place_m: float, *, correct: bool = False) -> Generator[Go, Shown, Shown]:
    """The picture at a working distance; several steps where one may not go so far."""
    shown = yield Go(place_m, correct=correct)
    for _ in range(MOST):
        before = shown.working_distance_m
        if abs(before - place_m) < 1e-9:
            break
        shown = yield Go(place_m, correct=correct)
        if shown.working_distance_m == before:
            break  # a limit
    return shown


def _vertex(seen: list[tuple[float, float]]) -> float:
    """Of the parabola through the sharpest and its neighbours; the sharpest itself at an end."""
    seen = sorted(seen)
    best = max(range(len(seen)), key=lambda i: seen[i][1])
    if not 0 < best < len(seen) - 1:
        return seen[best][0]
    (x0, y0), (x1, y1), (x2, y2) = seen[best - 1 : best + 2]
    top = (x1 - x0) ** 2 * (y1 - y2) - (x1 - x2) ** 2 * (y1 - y0)
    bottom = (x1 - x0) * (y1 - y2) - (x1 - x2) * (y1 - y0)
    return x1 if bottom == 0.0 else min(max(x1 - 0.5 * top / bottom, x0), x2)


def brent(column: Column, first: Shown) -> Search:
    """Brent's minimum of minus the sharpness between the ends of what may be: golden sections, and parabolas through
    the three best places where they can be trusted (Brent 1973, chapter 5)."""
    reach, tolerance = reach_m(column, first), TOLERANCE_H * column.h_m
    low, high = first.working_distance_m - reach, first.working_distance_m + reach
    best = second = third = low + GOLDEN * (high - low)
    shown = yield from _taken(best)
    f_best = f_second = f_third = -sharpness(shown)
    step = before = 0.0
    for _ in range(MOST - 1):
        middle = 0.5 * (low + high)
        if abs(best - middle) <= 2.0 * tolerance - 0.5 * (high - low):
            break
        before, step = step, _step((best, second, third), (f_best, f_second, f_third), (low, high), before)
        step = math.copysign(max(abs(step), tolerance), step)
        place = best + step
        shown = yield from _taken(place)
        value = -sharpness(shown)
        if value <= f_best:
            low, high = (best, high) if place >= best else (low, best)
            third, f_third, second, f_second, best, f_best = second, f_second, best, f_best, place, value
        else:
            low, high = (place, high) if place < best else (low, place)
            if value <= f_second or second == best:
                third, f_third, second, f_second = second, f_second, place, value
            elif value <= f_third or third in (best, second):
                third, f_third = place, value
    yield from _taken(best, correct=True)
    return Ended(End.CONVERGED)


def _step(
    places: tuple[float, float, float],
    values: tuple[float, float, float],
    ends: tuple[float, float],
    before: float,
) -> float:
    """To the vertex of the parabola, if that lies within and halves the step before the last; else a golden section."""
    (best, second, third), (f_best, f_second, f_third), (low, high) = places, values, ends
    r, q = (best - second) * (f_best - f_third), (best - third) * (f_best - f_second)
    p, q = (best - third) * q - (best - second) * r, 2.0 * (q - r)
    if q != 0.0:
        step = -p / q
        if abs(step) < 0.5 * abs(before) and low < best + step < high:
            return step
    return GOLDEN * ((high if best < 0.5 * (low + high) else low) - best)
