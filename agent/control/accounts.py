"""What lens would have made these pictures? Powers of a few frames in; for each kind of lens, its best account out.

Searched in three rounds: all shares and foci on powers that are gathered in a tenth as many groups of cells, then
uphill there, then the best few on all cells, whose likelihood alone decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import Scene, View

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Places = Callable[[float], Real]

REACH_H = 25.0  # focus is looked for as far beyond the outermost frames
FOCUS_STEP_H, FAR_STEP = 0.7, 0.08  # of the coarse search: so fine near the frames, such a share of the way far out
FIRST_STEP = (0.5, 0.1, 0.12)  # of a climb: focus in h, logarithm of the angle, share
LAST_STEP = (0.12, 0.024, 0.03)  # ... on all cells
CLIMBS, LAST_CLIMBS = 6, 6
LONGEST = 3.0  # steps at once
BEYOND = 1e3  # nats below, by which a bound is felt
STARTS = 2  # of each account that are worth a climb
ROUNDS = 1  # of reweighting in the coarse search: what others add is less than the grid leaves open
PAIRS = ((0, 1), (0, 2), (1, 2))
WAYS = np.array([*np.eye(3), *-np.eye(3), *(np.eye(3)[i] + np.eye(3)[j] for i, j in PAIRS)])  # (way, axis) in steps


@dataclass(frozen=True)
class Account:
    """A kind of lens: where it stood for each frame, by one number."""

    name: str
    places: Places  # share -> (frame,) m
    shares: tuple[float, ...]
    bounds: tuple[float, float] = (0.0, 1.0)  # of the share: what lies beyond is no such lens


@dataclass(frozen=True)
class Fit:
    """The best that one account of the lens can make of the frames."""

    value: float
    focus_h: float  # from the first frame's place
    stretch: float  # logarithm of the angle
    share: float
    account: Account = field(compare=False)

    @property
    def places_m(self) -> Real:
        return self.account.places(self.share)


@dataclass(frozen=True)
class Lens:
    """What all accounts have in common."""

    scene: Scene  # made for its powers alone
    home_m: float  # the first frame's place
    h: float
    astigmatism_m: tuple[float, float]
    stretches: float  # bound of the logarithm of the angle


class Search:
    """Accounts of the same frames, compared. The first of them is the lens that did as it was told."""

    def __init__(self, lens: Lens, accounts: Sequence[Account]) -> None:
        self.lens, self.accounts = lens, accounts
        self._groups = lens.scene.gathered()

    def roughly(self) -> list[Fit]:
        """The best of each account, by groups of cells: good for telling which are worth the rest."""
        starts = [start for several in self._starts() for start in several]
        climbed = self._climb(self._groups, starts, FIRST_STEP, CLIMBS)
        return [max((f for f in climbed if f.account is each), key=lambda fit: fit.value) for each in self.accounts]

    def exactly(self, fits: Sequence[Fit]) -> list[Fit]:
        """By all cells, from where the groups have it."""
        points = np.array([[fit.focus_h, fit.stretch, fit.share] for fit in fits])
        values = self._of(self.lens.scene, [fit.account for fit in fits], points)
        here = [replace(fit, value=float(value)) for fit, value in zip(fits, values, strict=True)]
        return self._climb(self.lens.scene, here, LAST_STEP, LAST_CLIMBS)

    def _starts(self) -> list[list[Fit]]:
        """Of each account the best few shares, on one grid of foci: so a place that comes twice is looked up once."""
        lens, known = self.lens, _Seen(self._groups, self.lens)
        places = [[(account, share, account.places(share)) for share in account.shares] for account in self.accounts]
        every = np.concatenate([at for several in places for _, _, at in several])
        known.foci_h = _foci((every.min() - lens.home_m) / lens.h, (every.max() - lens.home_m) / lens.h)
        found = [[known.best(*each) for each in several] for several in places]
        return [sorted(several, key=lambda fit: -fit.value)[:STARTS] for several in found]

    def _climb(self, scene: Scene, fits: Sequence[Fit], first: Sequence[float], times: int) -> list[Fit]:
        """All at once, by Newton steps on the differences around each: focus and angle lie along a ridge."""
        accounts, rows = [fit.account for fit in fits], np.arange(len(fits))
        at = np.array([[fit.focus_h, fit.stretch, fit.share] for fit in fits])  # (fit, axis)
        value, step = np.array([fit.value for fit in fits]), np.tile(first, (len(fits), 1))
        for _ in range(times):
            around = at[:, None] + WAYS * step[:, None]  # (fit, way, axis)
            several = [account for account in accounts for _ in WAYS]
            values = self._of(scene, several, around.reshape(-1, 3)).reshape(len(fits), -1)
            newton = _newton(values, value)
            summit = at + step * newton
            values = np.column_stack([values, self._of(scene, accounts, summit)])
            best = values.argmax(axis=1)
            up = values[rows, best] > value
            points = np.concatenate([around, summit[:, None]], axis=1)[rows, best]
            at, value = np.where(up[:, None], points, at), np.where(up, values[rows, best], value)
            short = np.abs(newton).max(axis=1) < 1.0
            step[~up | (short & (best == len(WAYS)))] /= 2.0
        return [
            Fit(float(top), float(focus), float(stretch), float(share), account)
            for top, (focus, stretch, share), account in zip(value, at, accounts, strict=True)
        ]

    def _of(self, scene: Scene, accounts: Sequence[Account], points: Real) -> Real:
        """Log likelihood of accounts at (focus, stretch, share) each."""
        lens = self.lens
        places = np.stack([each.places(float(share)) for each, share in zip(accounts, points[:, 2], strict=True)])
        z = places - lens.home_m - points[:, :1] * lens.h
        heard = scene.by_power(*_stigmated(lens, z), scene.column.alpha_rad * np.exp(points[:, 1:2]))
        low, high = np.array([each.bounds for each in accounts]).T
        within = (np.abs(points[:, 1]) <= lens.stretches) & (low <= points[:, 2]) & (points[:, 2] <= high)
        return np.where(within, heard, -np.inf)


class _Seen:
    """What one frame's power would be where it is and over all foci; kept, for most accounts move few frames."""

    foci_h: Real

    def __init__(self, scene: Scene, lens: Lens) -> None:
        self.scene, self.lens = scene, lens
        self._kept: dict[tuple[float, tuple[float, float]], Real32] = {}

    def best(self, account: Account, share: float, places_m: Real) -> Fit:
        passed = np.stack([self._at(float(p), v) for p, v in zip(places_m, self.scene.views, strict=True)], axis=1)
        values = self.scene.by_transfer(passed, rounds=ROUNDS)
        best = int(np.argmax(values))
        return Fit(float(values[best]), float(self.foci_h[best]), 0.0, share, account)

    def _at(self, place_m: float, view: View) -> Real32:
        key = place_m, view.stigmation_m
        if key not in self._kept:
            z = place_m - self.lens.home_m - self.foci_h[:, None] * self.lens.h
            ax, ay = (np.full_like(z, a + b) for a, b in zip(self.lens.astigmatism_m, view.stigmation_m, strict=True))
            self._kept[key] = self.scene.transfer_at(z, ax, ay, np.full_like(z, self.scene.column.alpha_rad))[:, 0]
        return self._kept[key]


def _foci(low: float, high: float) -> Real:
    """Evenly between the places, sparser beyond."""
    outwards = np.cumsum(np.maximum(FOCUS_STEP_H, FAR_STEP * np.arange(0.0, 2.0 * REACH_H)))
    outwards = outwards[outwards < REACH_H]
    between = np.arange(low, high + FOCUS_STEP_H / 2.0, FOCUS_STEP_H)
    return np.concatenate([low - outwards[::-1], between, high + outwards])


def _stigmated(lens: Lens, z: Real) -> tuple[Real, Real, Real]:
    x, y = np.array([view.stigmation_m for view in lens.scene.views]).T
    return z, np.broadcast_to(lens.astigmatism_m[0] + x, z.shape), np.broadcast_to(lens.astigmatism_m[1] + y, z.shape)


def _newton(values: Real, at: Real) -> Real:
    """Steps, in units of WAYS, to the summit of the quadratic through the values there; (fit, way) -> (fit, axis)."""
    values = np.where(np.isfinite(values), values, at[:, None] - BEYOND)
    plus, minus, corner = values[:, :3], values[:, 3:6], values[:, 6:]
    bend = np.zeros((len(at), 3, 3))
    axis = np.arange(3)
    bend[:, axis, axis] = plus + minus - 2.0 * at[:, None]
    for way, (i, j) in enumerate(PAIRS):
        bend[:, i, j] = bend[:, j, i] = corner[:, way] - plus[:, i] - plus[:, j] + at
    curvature, along = np.linalg.eigh(-bend)
    slope = np.einsum("fij,fi->fj", along, (plus - minus) / 2.0)
    # Where it bends upwards, or hardly at all, there is only a direction.
    move = np.einsum("fij,fj->fi", along, slope / np.maximum(np.abs(curvature), 1e-3 * np.abs(curvature).max() + 1e-9))
    return np.asarray(move / np.maximum(1.0, np.abs(move).max(axis=1, keepdims=True) / LONGEST))
