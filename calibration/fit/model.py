"""Constants and places in, what each frame would show out; and by how much each of them moves that.

Emission is rendered anew only where its own constants or the relief change; probe and detector chain cost little.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.fit.geometry import Relief
from calibration.fit.imaging import chain_of, imaged
from calibration.fit.priors import Prior
from calibration.fit.sample import Sample
from calibration.twin.emission import Emission, render
from calibration.twin.profile import SIGMA, STRETCH_X, STRETCH_XY, emission_of

Field = NDArray[np.float32]
Vector = NDArray[np.float64]

STEP = 2e-3  # share of the way between bounds: far above float32's grain, far below any curvature met
LEAST_SPREAD = 1e-6  # relative: a render flatter than that has no contrast to fit a gain to
MOVING = ("lines", "design")  # geometries whose relief moves with its places
SPOT = (SIGMA, STRETCH_X, STRETCH_XY)


@dataclass(frozen=True)
class Seen:
    """A frame under some constants."""

    shown: Field  # (h, w) relative yield as recorded
    gain: float
    offset: float

    @property
    def levels(self) -> Field:
        return np.asarray(self.gain * self.shown + self.offset, np.float32)


@dataclass
class Model:
    """One frame. fixed: constants that are not free. weight: (h, w) one over sigma, 0 where a level does not count."""

    sample: Sample
    free: tuple[Prior, ...]
    fixed: dict[str, float]
    weight: NDArray[np.float64]
    renders: int = 0
    _kept: tuple[Emission, bytes, Field] | None = field(default=None, repr=False)

    @property
    def places(self) -> int:
        return len(self.sample.geometry.free)

    def usual_places(self) -> Vector:
        """Shares between the places' bounds."""
        return np.array([(p.usual - p.low) / (p.high - p.low) for p in self.sample.geometry.free])

    def seen(self, shares: Vector, places: Vector) -> Seen:
        shown = self._shown(shares, places)
        return Seen(shown, *self._projected(shown))

    def residual(self, shares: Vector, places: Vector) -> Vector:
        """(n,) of the levels that count, over sigma; gain and offset at their best."""
        return self._left(self.seen(shares, places))

    def jacobian(self, shares: Vector, places: Vector) -> Vector:
        """(n, constants + places) by forward differences, backward beside the upper bound."""
        here = self._left(self.seen(shares, places))
        kept, columns = self._kept, []
        for index in range(shares.size + places.size):
            columns.append(self._moved(shares, places, index, here))
            self._kept = kept  # the next column may need this emission again, never that of the last
        return np.stack(columns, axis=1) if columns else np.zeros((here.size, 0))

    def _moved(self, shares: Vector, places: Vector, index: int, here: Vector) -> Vector:
        if index < shares.size and self._without_effect(self.free[index].name):
            return np.zeros_like(here)
        both = np.concatenate([shares, places])
        step = STEP if both[index] + STEP <= 1.0 else -STEP
        both[index] += step
        there = self.residual(both[: shares.size], both[shares.size :])
        return np.asarray((there - here) / step, np.float64)

    def _without_effect(self, name: str) -> bool:
        return self.sample.spot is not None and name in SPOT

    def _left(self, seen: Seen) -> Vector:
        counted = self.weight > 0.0
        return np.asarray(((self.sample.levels - seen.levels) * self.weight)[counted], np.float64)

    def _projected(self, shown: Field) -> tuple[float, float]:
        """Gain and offset by weighted least squares; gain alone where black is known.

        A render without contrast gets the mean.
        """
        power, black = self.weight**2, self.sample.black
        if black is not None:
            return float((power * shown * (self.sample.levels - black)).sum() / (power * shown**2).sum()), black
        total = float(power.sum())
        mean, level = (float((power * each).sum()) / total for each in (shown, self.sample.levels))
        spread = shown - mean
        width = float((power * spread**2).sum())
        if width <= total * (LEAST_SPREAD * abs(mean)) ** 2:
            return 0.0, level
        gain = float((power * spread * (self.sample.levels - level)).sum()) / width
        return gain, level - gain * mean

    def _shown(self, shares: Vector, places: Vector) -> Field:
        values = self.values(shares)
        relief, emitted = self._emitted(values, places)
        chain = chain_of(values, self.sample.spot)
        return imaged(emitted, chain, pixel_size_m=self.sample.pixel_size_m, shift_px=relief.shift_px)

    def values(self, shares: Vector) -> dict[str, float]:
        return self.fixed | {prior.name: prior.at(float(x)) for prior, x in zip(self.free, shares, strict=True)}

    def placed(self, places: Vector) -> Vector:
        """Values of the places, in their own units."""
        return np.array([p.low + x * (p.high - p.low) for p, x in zip(self.sample.geometry.free, places, strict=True)])

    def _emitted(self, values: dict[str, float], places: Vector) -> tuple[Relief, Field]:
        relief = self.sample.geometry.relief(self.placed(places))
        how = emission_of(values)
        moved = b"" if self.sample.geometry.kind not in MOVING else relief.height_m.tobytes()
        if relief.material is not None:
            moved += relief.material.tobytes()
        if self._kept is None or self._kept[:2] != (how, moved):
            size = self.sample.pixel_size_m
            emitted = render(
                relief.height_m, how, pixel_size_m=size, sky=relief.sky, material=relief.material, smooth=True
            )
            self._kept = (how, moved, emitted)
            self.renders += 1
        return relief, self._kept[2]
