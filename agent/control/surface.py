"""Why an estimate is what it is: frames in; out the likelihood around the answer, and what patches and frames say.

For people to look at; the loop never asks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.estimate import Estimate, Solved, solved
from agent.control.instrument import Instrument
from agent.control.likelihood import Hypothesis, Scene
from agent.control.search import TEMPER
from agent.messages import Evidence

Real = NDArray[np.float64]

AROUND_H = 8.0  # of h: the likelihood is shown so far beyond the frames and the answer
POINTS = 161
ASTIGMATISM_H, ASTIGMATISM_POINTS = 3.0, 31
PATCH_H, PATCH_POINTS = 6.0, 61
HEARD_NATS = 150.0  # over the patch's own grid: noise alone reaches 120
FINEST_H = 0.05  # of h: a patch alone knows no better


@dataclass(frozen=True)
class PatchAnswer:
    """One part of the field by itself, everything but the defocus as the whole field has it."""

    centre_px: tuple[float, float]  # x, y from the frame's centre
    defocus_m: float | None  # of the reference frame; None: it has nothing to say
    sigma_m: float | None
    used: bool = True  # False: it did not go with the others, and was left out


@dataclass(frozen=True)
class Surface:
    """Log likelihoods are tempered as the sigmas are, and 0 at their best."""

    defocus_m: Real  # (n,) of the first frame
    nats: Real  # (n,)
    astigmatism_m: Real  # (m,) of either component
    astigmatism_nats: Real  # (m, m) rows: ay, columns: ax; at the best defocus
    frames_m: Real  # (frame,) defocus of each frame by the answer
    passed: Real  # (frame,) share of the object's power that is left in it, as measured
    expected: Real  # (n,) the same as the answer has it, over `through_m`
    through_m: Real  # (n,)
    patches: tuple[PatchAnswer, ...]
    slope_m_per_px: tuple[float, float]  # of defocus over the field; zeros: level as far as it can tell


def surface(evidence: Sequence[Evidence], instrument: Instrument) -> tuple[Estimate, Surface | None]:
    """The estimate for the last frame, and what lies behind it; None where it found nothing to compare."""
    found, known = solved(evidence, instrument)
    return found, None if known is None else _surface(known, evidence[-1].centres_px)


def _surface(known: Solved, centres_px: NDArray[np.float32]) -> Surface:
    scene, h, best = known.scene, known.h, known.at
    offsets = np.array([view.offset_m for view in scene.views])
    first = offsets[0]
    low = min(best.z_m, float((-offsets).min())) - AROUND_H * h
    high = max(best.z_m, float((-offsets).max())) + AROUND_H * h
    grid = np.linspace(low, high, POINTS)
    nats = scene.likelihood([replace(best, z_m=float(z)) for z in grid]) / TEMPER
    spread = np.linspace(-ASTIGMATISM_H, ASTIGMATISM_H, ASTIGMATISM_POINTS) * h
    several = [replace(best, ax_m=float(x), ay_m=float(y)) for y in spread for x in spread]
    round_ = scene.likelihood(several).reshape(len(spread), -1) / TEMPER
    through = np.linspace(float((best.z_m + offsets).min()) - 2 * h, float((best.z_m + offsets).max()) + 2 * h, POINTS)
    measured, expected = _passed(scene, best, through)
    return Surface(
        defocus_m=grid + first,
        nats=nats - nats.max(),
        astigmatism_m=spread,
        astigmatism_nats=round_ - round_.max(),
        frames_m=best.z_m + offsets,
        passed=measured,
        expected=expected,
        through_m=through,
        patches=_patches(known, centres_px),
        slope_m_per_px=(known.slope_h_per_px[0] * h, known.slope_h_per_px[1] * h),
    )


def _passed(scene: Scene, best: Hypothesis, through_m: Real) -> tuple[Real, Real]:
    """Share of the object's power in each frame, and over defocus, by the object that all frames together show."""
    h = scene.transfer([best])[0]
    power = np.maximum((h**2 * (scene.heard - 1.0)).sum(axis=0), 0.0) / ((h**4).sum(axis=0) + 1e-4)
    power *= scene.trust
    total = max(float(power.sum()), 1e-12)
    weights = scene.trust
    measured = ((scene.heard - 1.0) * weights).sum(axis=1) / total
    there = [replace(best, z_m=float(z) - scene.views[-1].offset_m) for z in through_m]
    last = scene.transfer(there)[:, -1]
    return np.asarray(measured, np.float64), np.asarray((last**2 * power).sum(axis=1) / total, np.float64)


def _patches(known: Solved, centres_px: NDArray[np.float32]) -> tuple[PatchAnswer, ...]:
    """Of every part of the field; those that were left out say nothing."""
    grid = known.at.z_m + np.linspace(-PATCH_H, PATCH_H, PATCH_POINTS) * known.h
    curves = known.patchwise.likelihood([replace(known.at, z_m=float(z)) for z in grid]) / TEMPER
    told = {number: _answer(grid, nats, known.h) for number, nats in zip(known.patches, curves, strict=True)}
    return tuple(
        PatchAnswer((float(x), float(y)), *told.get(number, (None, None)), used=number in told)
        for number, (x, y) in enumerate(centres_px)
    )


def _answer(grid: Real, nats: Real, h: float) -> tuple[float | None, float | None]:
    """Defocus and its sigma; None where there is no summit within the grid, or none that chance could not make."""
    top = int(np.argmax(nats))
    if not 0 < top < len(grid) - 1 or float(np.ptp(nats)) < HEARD_NATS / TEMPER:
        return None, None
    before, at, after = nats[top - 1 : top + 2]
    step, bend = float(grid[1] - grid[0]), float(2.0 * at - before - after)
    shift = 0.5 * (after - before) / max(bend, 1e-12) * step
    sigma = max(step / float(np.sqrt(max(bend, 1e-12))), FINEST_H * h)
    return float(grid[top]) + float(shift), sigma
