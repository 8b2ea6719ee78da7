"""A plane of focus over the field: what each patch says of defocus in, the centre's defocus and the slope out. Pure.

A specimen that is tilted is in focus along a line. Averaged, the patches give a defocus that leans to where the field
tells most, and a doubt that knows nothing of it; fitted, they give the centre, and how focus changes across.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import DARK, Hypothesis
from agent.control.patchwise import Patchwise

Real = NDArray[np.float64]

REACH_H, STEP_H = 6.0, 0.5  # of h: how far a patch is looked for from the whole field's focus
FINE_H = 0.05  # of h, to which its curve is interpolated
SLOPES = np.arange(-5.0, 5.1, 0.5)  # h from the centre to the outermost patch
CENTRES = np.arange(-1.0, 1.1, 0.1)  # of h
NATS = 8.0  # by which a plane must be likelier than a level: chance alone does it once in 3,000 fields
LEAST_ACROSS = 0.2  # of the patches' spread along one axis across it: on a line there is no plane
DIFFERENCE_H = 0.12  # of the slopes' finite differences
NEWTON = 3
FAR_H = 1.5  # of h: longer steps are shortened


@dataclass(frozen=True)
class Prior:
    """What is believed of (z, ax, ay, ln alpha) besides the frames, in their nats; free: which of them are fitted."""

    value: float
    gradient: Real  # (4,)
    curvature: Real  # (4,)
    free: tuple[int, ...]


PriorOf = Callable[[Real], Prior]


@dataclass(frozen=True)
class Plane:
    """Focus over the field: defocus at (x, y) px is that of the centre plus slope * (x, y)."""

    theta: Real  # (4,) z at the centre, ax, ay in h, ln alpha
    slope_h_per_px: tuple[float, float]
    covariance: Real  # of the free ones of theta, in their order, the slopes taken account of


class Field:
    """Patches with their places."""

    def __init__(self, patchwise: Patchwise, h: float, gains: tuple[float, ...] = ()) -> None:
        self.patchwise, self.h, self.gains = patchwise, h, gains
        centres = np.asarray(patchwise.scene.views[-1].centres_px, np.float64)
        self.reach_px = float(np.abs(centres).max())
        self.xy = centres / max(self.reach_px, 1.0)  # (patch, 2)

    @property
    def spans(self) -> bool:
        """Do the patches lie anywhere but on a line?"""
        spread = np.linalg.svd(self.xy - self.xy.mean(axis=0), compute_uv=False)
        return len(self.xy) > 2 and float(spread[1]) > LEAST_ACROSS * float(spread[0])

    def coarsely(self, at: Hypothesis) -> tuple[float, Real]:
        """Gain in log likelihood of the best plane over the level one, and that plane: z offset, slopes in h."""
        grid = np.arange(-REACH_H, REACH_H + STEP_H / 2, STEP_H)
        curves = self.patchwise.likelihood([replace(at, z_m=at.z_m + float(d) * self.h) for d in grid])
        fine = np.arange(-REACH_H, REACH_H + FINE_H / 2, FINE_H)
        curves = np.stack([_smooth(grid, curve, fine) for curve in curves])
        slopes = np.stack(np.meshgrid(SLOPES, SLOPES), axis=-1).reshape(-1, 2)
        away = CENTRES[:, None, None] + (slopes @ self.xy.T)[None]  # (centre, slopes, patch)
        index = np.clip(np.rint((away + REACH_H) / FINE_H).astype(np.intp), 0, fine.size - 1)
        total = sum(curve[index[..., p]] for p, curve in enumerate(curves))
        centre, best = np.unravel_index(int(np.argmax(total)), total.shape)
        level = float(curves[:, fine.size // 2].sum())
        return float(total[centre, best]) - level, np.array([CENTRES[centre], *slopes[best]])

    def value(self, point: Real) -> float:
        return float(self.patchwise.of_each(self.hypotheses(point)).sum())

    def hypotheses(self, point: Real) -> list[Hypothesis]:
        """Of each patch; point: z, ax, ay in h, ln alpha, slopes in h."""
        z = point[0] + self.xy @ point[4:6]
        ax, ay, factor = float(point[1] * self.h), float(point[2] * self.h), float(np.exp(point[3]))
        return [Hypothesis(float(each) * self.h, ax, ay, factor, self.gains) for each in z]

    def local(self, point: Real, free: Sequence[int], step: Real) -> tuple[float, Real, Real]:
        """Value, gradient and expected curvature in the free ones of point."""
        sides = [[point + s * step[i] * np.eye(6)[i] for s in (1.0, -1.0)] for i in free]
        values = np.array([[self.value(side) for side in pair] for pair in sides])
        slopes = np.stack(
            [(self._along(a) - self._along(b)) / (2.0 * step[i]) for i, (a, b) in zip(free, sides, strict=True)]
        )
        gradient = (values[:, 0] - values[:, 1]) / (2.0 * step[list(free)])
        return self.value(point), gradient, 2.0 * slopes @ slopes.T

    def _along(self, point: Real) -> Real:
        """Direction of the signal in all cells of all patches, weighted by how much of it is heard."""
        scene = self.patchwise.scene
        u = scene.transfer(self.hypotheses(point)) * np.sqrt(scene.belief)
        u /= np.sqrt((u**2).sum(axis=1, keepdims=True) + np.float32(DARK))
        signal = np.maximum(((scene.heard - 1.0) * scene.belief).sum(axis=0), 0.0)
        return np.asarray((u * np.sqrt(scene.trust / self.patchwise.patches * signal)).ravel(), np.float64)


def plane(field: Field, at: Hypothesis, prior: PriorOf, *, step: Real, temper: float) -> Plane | None:
    """The plane that the patches ask for; None where a level field explains them as well.

    step: finite differences of z, ax, ay, ln alpha.
    """
    if not field.spans:
        return None
    gain, coarse = field.coarsely(at)
    if gain < NATS * temper:
        return None
    level = np.array([at.z_m / field.h, at.ax_m / field.h, at.ay_m / field.h, np.log(at.alpha_factor), 0.0, 0.0])
    point, covariance = _climb(field, level + np.array([coarse[0], 0.0, 0.0, 0.0, *coarse[1:]]), prior, step)
    gain = field.value(point) - prior(point[:4]).value - field.value(level) + prior(level[:4]).value
    if gain < NATS * temper:
        return None
    slope = point[4:] / field.reach_px
    return Plane(point[:4], (float(slope[0]), float(slope[1])), covariance)


def _climb(field: Field, point: Real, prior: PriorOf, step: Real) -> tuple[Real, Real]:
    """Gauss-Newton on (z, ax, ay, ln alpha) as far as they are free, and the slopes; shortened until it climbs."""
    known = prior(point[:4])
    free = [*known.free, 4, 5]
    steps = np.array([*step, DIFFERENCE_H, DIFFERENCE_H])
    for _ in range(NEWTON):
        known = prior(point[:4])
        value, gradient, curvature = field.local(point, free, steps)
        believed = list(known.free)
        gradient[: len(believed)] -= known.gradient[believed]
        curvature[: len(believed), : len(believed)] += np.diag(known.curvature[believed])
        move = np.linalg.solve(curvature, gradient)
        move /= max(1.0, float(np.abs(move).max()) / FAR_H)
        for share in (1.0, 0.5, 0.25):
            trial = point.copy()
            trial[free] += share * move
            if field.value(trial) - prior(trial[:4]).value > value - known.value:
                point = trial
                break
        else:
            break
    count = len(known.free)
    return point, np.asarray(np.linalg.inv(curvature)[:count, :count], np.float64)


def _smooth(grid: Real, values: Real, fine: Real) -> Real:
    """Catmull-Rom: through the values, without corners."""
    slope = np.gradient(values, grid)
    i = np.clip(np.searchsorted(grid, fine, side="right") - 1, 0, grid.size - 2)
    width = grid[i + 1] - grid[i]
    t = (fine - grid[i]) / width
    hermite = values[i] * (1 + 2 * t) * (1 - t) ** 2 + values[i + 1] * t**2 * (3 - 2 * t)
    return np.asarray(hermite + width * t * (1 - t) * (slope[i] * (1 - t) - slope[i + 1] * t))
