"""What column would have made these pictures? Powers of a few frames in; for each kind of lens, and of stigmators, its
best account out, with the angle, the astigmatism and the place of a lens that was not pushed yet as free as they are.

Searched in three rounds: all shares and foci on powers that are gathered in a tenth as many groups of cells, then
uphill there, then the best few on all cells, whose likelihood alone decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from agent.control.doubting import in_bins
from agent.control.likelihood import DARK, Scene
from agent.control.search import TEMPER

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Places = Callable[[float], Real]

REACH_H = 25.0  # focus is looked for as far beyond the outermost frames
FOCUS_STEP_H, FAR_STEP = 0.7, 0.08  # of the coarse search: so fine near the frames, such a share of the way far out
# Of a climb: focus in h, logarithm of the angle, share, astigmatism in h, share of the play; and on all cells.
FIRST_STEP = (0.5, 0.1, 0.12, 0.3, 0.3, 0.3)
LAST_STEP = (0.12, 0.024, 0.03, 0.1, 0.1, 0.1)
CLIMBS, LAST_CLIMBS = 6, 6
LONGEST = 3.0  # steps at once
BEYOND = 1e3  # nats below, by which a bound is felt
STARTS = 2  # of each account that are worth a climb
ROUNDS = 1  # of reweighting in the coarse search: what others add is less than the grid leaves open
ROUNDS_ALL = 3  # ... where chance is told
FEWEST = 20.0  # samples of a bin of the spectrum, below which it tells nothing of chance
AXES = len(FIRST_STEP)
UNIT = np.eye(AXES)
PAIRS = tuple(combinations(range(AXES), 2))
WAYS = np.array([*UNIT, *-UNIT, *(UNIT[i] + UNIT[j] for i, j in PAIRS)])  # (way, axis) in steps
ASTIGMATISM_H = 1.5  # of a column that nobody stigmated: a weak belief, where lines all one way leave it open


@dataclass(frozen=True)
class Account:
    """A kind of column: where its lens stood for each frame, by one number, and how far its stigmators went."""

    name: str
    places: Places  # share -> (frame,) m
    shares: tuple[float, ...]
    bounds: tuple[float, float] = (0.0, 1.0)  # of the share: what lies beyond is no such lens
    turns: tuple[float, float] = (1.0, 1.0)  # of what each stigmator was told; -1: the opposite


@dataclass(frozen=True)
class Fit:
    """The best that one account of the lens can make of the frames."""

    value: float
    focus_h: float  # from the first frame's place
    stretch: float  # logarithm of the angle
    share: float
    astigmatism_h: tuple[float, float]  # of the first frame
    loose: float  # where in the play a lens stood that was not pushed yet, -1..1
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
    astigmatism_m: tuple[float, float]  # of the first frame, as it was estimated
    stretches: float  # bound of the logarithm of the angle
    angle_sigma: float  # of that logarithm, as the certificate has it
    loose_m: Real  # (frame,) by which it may stand to either side of where it is believed to be
    knobs: Real  # (frame, xy) that the stigmators were turned by since the first frame
    matrix_m: Real  # (xy, xy) astigmatism for a whole turn

    def stigmation_m(self, turns: Real) -> Real:
        """(..., xy) of each knob -> (..., frame, xy) added since the first frame."""
        return np.asarray((self.knobs * turns[..., None, :]) @ self.matrix_m.T)


class Search:
    """Accounts of the same frames, compared. The first of them is the lens that did as it was told."""

    def __init__(self, lens: Lens, accounts: Sequence[Account]) -> None:
        self.lens, self.accounts = lens, accounts
        self._groups = lens.scene.gathered()

    def roughly(self) -> list[Fit]:
        """The best of each account, by groups of cells: good for telling which are worth the rest."""
        starts = [start for several in self._starts() for start in several]
        climbed = self._climb(self._groups, self._valued(self._groups, starts), FIRST_STEP, CLIMBS)
        return [max((f for f in climbed if f.account is each), key=lambda fit: fit.value) for each in self.accounts]

    def exactly(self, fits: Sequence[Fit]) -> list[Fit]:
        """By all cells, from where the groups have it."""
        return self._climb(self.lens.scene, self._valued(self.lens.scene, fits), LAST_STEP, LAST_CLIMBS)

    def chance(self, fit: Fit) -> float:
        """By how much the frames scatter about this account more than their noise would: of a likelihood that tells
        two accounts apart, so much less is to be believed. By rings and sectors, where what no account allows for
        (edges that moved out of a patch, charging, drift within a frame) stands out of the noise."""
        scene = self.lens.scene
        z, added, alpha = self._settings([fit.account], _points([fit]))
        expected = _power(scene, scene.transfer_at(z, added[..., 0], added[..., 1], alpha)[0])
        weight = scene.weight[scene.active]
        apart = np.stack([in_bins(each, scene.active) for each in weight * (scene.heard / expected - 1.0)])
        samples = in_bins(weight, scene.active)
        heard = samples > FEWEST
        freedom = max(int(heard.sum()) * (scene.n - 1), 1)
        return max(1.0, float((apart**2)[:, heard].sum(axis=0) @ (1.0 / samples[heard])) / freedom)

    def _starts(self) -> list[list[Fit]]:
        """Of each account the best few shares, on one grid of foci: so a place that comes twice is looked up once."""
        lens, known = self.lens, _Seen(self._groups, self.lens)
        places = [[(account, share, account.places(share)) for share in account.shares] for account in self.accounts]
        every = np.concatenate([at for several in places for _, _, at in several])
        known.foci_h = _foci((every.min() - lens.home_m) / lens.h, (every.max() - lens.home_m) / lens.h)
        found = [[known.best(*each) for each in several] for several in places]
        return [sorted(several, key=lambda fit: -fit.value)[:STARTS] for several in found]

    def _valued(self, scene: Scene, fits: Sequence[Fit]) -> list[Fit]:
        values = self._of(scene, [fit.account for fit in fits], _points(fits))
        return [replace(fit, value=float(value)) for fit, value in zip(fits, values, strict=True)]

    def _climb(self, scene: Scene, fits: Sequence[Fit], first: Sequence[float], times: int) -> list[Fit]:
        """All at once, by Newton steps on the differences around each: focus and angle lie along a ridge."""
        accounts, rows = [fit.account for fit in fits], np.arange(len(fits))
        at = _points(fits)
        value, step = np.array([fit.value for fit in fits]), np.tile(first, (len(fits), 1))
        for _ in range(times):
            around = at[:, None] + WAYS * step[:, None]  # (fit, way, axis)
            several = [account for account in accounts for _ in WAYS]
            values = self._of(scene, several, around.reshape(-1, AXES)).reshape(len(fits), -1)
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
            Fit(float(top), float(focus), float(stretch), float(share), (float(ax), float(ay)), float(loose), account)
            for top, (focus, stretch, share, ax, ay, loose), account in zip(value, at, accounts, strict=True)
        ]

    def _of(self, scene: Scene, accounts: Sequence[Account], points: Real) -> Real:
        """Log likelihood of accounts at (focus, stretch, share, astigmatism, loose) each."""
        z, added, alpha = self._settings(accounts, points)
        heard = scene.by_power(z, added[..., 0], added[..., 1], alpha)
        low, high = np.array([each.bounds for each in accounts]).T
        _, stretch, share, _, _, loose = points.T
        within = (np.abs(stretch) <= self.lens.stretches) & (low <= share) & (share <= high) & (np.abs(loose) <= 1.0)
        return np.where(within, heard - self._surprise(points), -np.inf)

    def _settings(self, accounts: Sequence[Account], points: Real) -> tuple[Real, Real, Real]:
        """Defocus (fit, frame), astigmatism (fit, frame, xy) and angle (fit, 1)."""
        lens = self.lens
        places = np.stack([each.places(float(share)) for each, share in zip(accounts, points[:, 2], strict=True)])
        z = places + points[:, 5:] * lens.loose_m - lens.home_m - points[:, :1] * lens.h
        added = lens.stigmation_m(np.array([each.turns for each in accounts])) + lens.h * points[:, None, 3:5]
        return z, added, lens.scene.column.alpha_rad * np.exp(points[:, 1:2])

    def _surprise(self, points: Real) -> Real:
        """Minus the logarithm of the prior, as loud as the likelihood, which speaks TEMPER times too loud."""
        astigmatism = 0.5 * (points[:, 3:5] ** 2).sum(axis=1) / ASTIGMATISM_H**2
        return np.asarray(TEMPER * (astigmatism + np.log1p((points[:, 1] / self.lens.angle_sigma) ** 2)))


def _points(fits: Sequence[Fit]) -> Real:
    """(fit, axis)"""
    return np.array([[fit.focus_h, fit.stretch, fit.share, *fit.astigmatism_h, fit.loose] for fit in fits])


class _Seen:
    """What one frame's power would be where it is and over all foci; kept, for most accounts move few frames."""

    foci_h: Real

    def __init__(self, scene: Scene, lens: Lens) -> None:
        self.scene, self.lens = scene, lens
        self._kept: dict[tuple[float, ...], Real32] = {}

    def best(self, account: Account, share: float, places_m: Real) -> Fit:
        astigmatism_m = self.lens.stigmation_m(np.array(account.turns)) + self.lens.astigmatism_m
        each = zip(places_m, *astigmatism_m.T, strict=True)
        passed = np.stack([self._at(float(p), float(ax), float(ay)) for p, ax, ay in each], axis=1)
        values = self.scene.by_transfer(passed, rounds=ROUNDS)
        best, (x, y) = int(np.argmax(values)), self.lens.astigmatism_m
        h = self.lens.h
        return Fit(float(values[best]), float(self.foci_h[best]), 0.0, share, (x / h, y / h), 0.0, account)

    def _at(self, *setting: float) -> Real32:
        """setting: place, astigmatism x and y, m"""
        if setting not in self._kept:
            place_m, *astigmatism_m = setting
            z = place_m - self.lens.home_m - self.foci_h[:, None] * self.lens.h
            ax, ay = (np.full_like(z, a) for a in astigmatism_m)
            self._kept[setting] = self.scene.transfer_at(z, ax, ay, np.full_like(z, self.scene.column.alpha_rad))[:, 0]
        return self._kept[setting]


def _power(scene: Scene, h: Real32) -> Real:
    """Power that is expected of each frame in each cell where the transfer is h, in units of the noise."""
    power = np.asarray(h, np.float64) ** 2 + DARK
    weighted = power
    for _ in range(ROUNDS_ALL):
        found = (weighted * (scene.heard - 1.0)).sum(axis=0) / np.maximum((weighted * power).sum(axis=0), 1e-12)
        expected = 1.0 + np.maximum(found, 0.0) * power
        weighted = power / expected**2
    return np.asarray(expected)


def _foci(low: float, high: float) -> Real:
    """Evenly between the places, sparser beyond."""
    outwards = np.cumsum(np.maximum(FOCUS_STEP_H, FAR_STEP * np.arange(0.0, 2.0 * REACH_H)))
    outwards = outwards[outwards < REACH_H]
    between = np.arange(low, high + FOCUS_STEP_H / 2.0, FOCUS_STEP_H)
    return np.concatenate([low - outwards[::-1], between, high + outwards])


def _newton(values: Real, at: Real) -> Real:
    """Steps, in units of WAYS, to the summit of the quadratic through the values there; (fit, way) -> (fit, axis)."""
    values = np.where(np.isfinite(values), values, at[:, None] - BEYOND)
    plus, minus, corner = np.split(values, (AXES, 2 * AXES), axis=1)
    bend = np.zeros((len(at), AXES, AXES))
    axis = np.arange(AXES)
    bend[:, axis, axis] = plus + minus - 2.0 * at[:, None]
    for way, (i, j) in enumerate(PAIRS):
        bend[:, i, j] = bend[:, j, i] = corner[:, way] - plus[:, i] - plus[:, j] + at
    curvature, along = np.linalg.eigh(-bend)
    slope = np.einsum("fij,fi->fj", along, (plus - minus) / 2.0)
    # Where it bends upwards, or hardly at all, there is only a direction.
    move = np.einsum("fij,fj->fi", along, slope / np.maximum(np.abs(curvature), 1e-3 * np.abs(curvature).max() + 1e-9))
    return np.asarray(move / np.maximum(1.0, np.abs(move).max(axis=1, keepdims=True) / LONGEST))
