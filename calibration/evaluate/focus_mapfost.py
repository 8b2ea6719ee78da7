"""MAPFoSt (Binding, Mikula, Denk 2013) as its authors' own package on PyPI computes it, as a method of the bench.

Pairs at plus and minus a known defocus, one estimate a crop, the median of the crops, one correction a pair. It is
given lengths in half depths of focus, the scale of its own example: its descent knows no other.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_search import Column, Ended, Go, Plan, Search, Shown

PAIRS = 4
PERTURBED_H = 8.0  # either side
CROP_PX, MARGIN_PX = 256, 32  # it aligns the pictures by moving the crop: off the edge it gives up
# It keeps a quarter of the spectrum but goes on counting its frequencies as if it were the whole.
APERTURE_OF_ALPHA = 0.25
DONE_H, ROUND_H = 0.5, 0.5  # below both a further pair would not gain what it costs


class Package(Protocol):
    """What of the package is used."""

    def est_aberr(self, test_ims: list[NDArray[np.float32]], test_aberrs: list[float], **how: Any) -> Any: ...


@dataclass(frozen=True)
class Aberration:
    """m; the package counts y upwards and has the sign of ay turned, which together is the house's own sense."""

    z_m: float
    ax_m: float
    ay_m: float


def missing() -> str:
    """Why it cannot run here; empty: it can."""
    try:
        _package()
    except ImportError:
        return "not installed: pip install beamside[bench]"
    return ""


def _package() -> Package:
    from mapfost import mapfost

    return mapfost  # type: ignore[no-any-return]


def plan(package: Package | None = None) -> Plan:
    """With the installed package, or another of its signature."""
    used = package or _package()
    return lambda column, first: _search(used, column, first)


def _search(package: Package, column: Column, first: Shown) -> Search:
    centre, h = first, column.h_m
    for _ in range(PAIRS):
        pair = []
        for side in (-1.0, 1.0):
            place_m = centre.working_distance_m + side * PERTURBED_H * h
            shown = yield _go(replace(centre, working_distance_m=place_m))
            pair.append(shown)
        found = aberration(package, pair, column, centre.working_distance_m)
        if found is None:
            yield _go(centre)
            return Ended(End.HELD, "no crop could be aligned")
        centre = _corrected(centre, found, column)
        if abs(found.z_m) < DONE_H * h and math.hypot(found.ax_m, found.ay_m) < ROUND_H * h:
            break
    yield _go(centre, correct=True)
    return Ended(End.CONVERGED)


def _go(where: Shown, *, correct: bool = False) -> Go:
    return Go(where.working_distance_m, where.stigmator_x, where.stigmator_y, correct)


def _corrected(centre: Shown, found: Aberration, column: Column) -> Shown:
    limits = column.certificate.limits
    turn = column.certificate.astigmatism_to_stigmator(found.ax_m, found.ay_m) or (0.0, 0.0)
    x, y = (
        float(np.clip(knob - change, limits.stigmator_min, limits.stigmator_max))
        for knob, change in zip((centre.stigmator_x, centre.stigmator_y), turn, strict=True)
    )
    return replace(centre, working_distance_m=centre.working_distance_m - found.z_m, stigmator_x=x, stigmator_y=y)


def aberration(package: Package, pair: list[Shown], column: Column, at_m: float) -> Aberration | None:
    """Of the setting `at_m`, from two pictures about it; None where no crop gave an answer."""
    pictures = [shown.pixels for shown in pair]
    steps_h = [(shown.working_distance_m - at_m) / column.h_m for shown in pair]
    how = {
        "pix_size_um": pair[0].pixel_size_m / column.h_m,
        "num_aperture": APERTURE_OF_ALPHA * column.certificate.alpha_rad,
        "crop_size": [CROP_PX, CROP_PX],
    }
    known = []
    for corner in _corners(pictures[0].shape):
        valid, _, answer = package.est_aberr(pictures, steps_h, crop_ref=corner, **how)
        if valid is True and answer is not None:
            known.append(np.asarray(answer.x, np.float64))
    if not known:
        return None
    z, ax, ay = (float(each) * column.h_m for each in np.median(known, axis=0))
    return Aberration(z, ax, ay)


def _corners(shape: tuple[int, ...]) -> list[list[int]]:
    """Four crops, x and y of their corners."""
    ends = [(MARGIN_PX, size - MARGIN_PX - CROP_PX) for size in shape]
    return [[x, y] for y in ends[0] for x in ends[1]]
