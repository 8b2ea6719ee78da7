"""The column's moving parts: a lens with play and settling, stigmators, epochs. Metres and virtual nanoseconds only."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

SMALL_CHANGE_SETTLE_S = 0.2
LARGE_CHANGE_SETTLE_S = 0.1  # plus the next line
SETTLE_S_PER_M = 0.01e6
SETTLE_LIMIT_S = 1.0


class Actuator(StrEnum):
    """How a lens supply behaves when it is written to: faults for tests."""

    SOUND = "sound"
    STUCK = "stuck"  # the write is a no-op and "succeeds"
    INVERTED = "inverted"  # the lens goes the other way


def settle_s(change_m: float) -> float:
    """0.2 s after a small change, 0.1 s + 0.01 s/um (at most 1 s) after a large one."""
    return max(SMALL_CHANGE_SETTLE_S, LARGE_CHANGE_SETTLE_S + min(abs(change_m) * SETTLE_S_PER_M, SETTLE_LIMIT_S))


def play(position_m: float, commanded_m: float, hysteresis_m: float) -> float:
    """Play operator: what is pushed stays put while the command moves inside the dead zone of width `hysteresis_m`."""
    half = hysteresis_m / 2.0
    return float(np.clip(position_m, commanded_m - half, commanded_m + half))


@dataclass
class Ramp:
    """Something that goes from one value to another between two times."""

    start: Vector
    end: Vector
    t_start_ns: int = 0
    t_end_ns: int = 0

    def at(self, t_ns: int) -> Vector:
        if t_ns >= self.t_end_ns:
            return self.end
        share = max(t_ns - self.t_start_ns, 0) / (self.t_end_ns - self.t_start_ns)
        return self.start + share * (self.end - self.start)

    def towards(self, end: Vector, *, now_ns: int, seconds: float) -> "Ramp":
        return Ramp(self.at(now_ns), end, now_ns, now_ns + round(seconds * 1e9))


@dataclass
class Column:
    """What was commanded, where the optics really are, and since when."""

    working_distance_m: float  # commanded; the read-back shows this
    lens_m: float  # where the lens really focuses: within the play of the command
    hysteresis_m: float = 0.0
    stigmator_x: float = 0.0
    stigmator_y: float = 0.0
    actuator: Actuator = Actuator.SOUND
    epoch: int = 1
    reach_m: tuple[float, float] = (-inf, inf)  # of the lens supply: beyond it the lens stays, whatever is read back
    motion: Ramp = field(init=False)
    _supply_m: float = field(init=False)  # what the lens supply was really told; a sound one: the commanded value

    def __post_init__(self) -> None:
        self._supply_m = self.working_distance_m
        here = np.array([self.lens_m, self.stigmator_x, self.stigmator_y])
        self.motion = Ramp(here, here)

    @property
    def settled_ns(self) -> int:
        return self.motion.t_end_ns

    def focus(self, working_distance_m: float, now_ns: int) -> None:
        """Command a working distance; nothing happens when it is the commanded one already."""
        change = working_distance_m - self.working_distance_m
        if change == 0.0:
            return
        self.working_distance_m = working_distance_m
        if self.actuator is Actuator.SOUND:
            self._supply_m = working_distance_m  # no sum of changes: coming back is exact
        elif self.actuator is Actuator.INVERTED:
            self._supply_m -= change
        self._supply_m = float(np.clip(self._supply_m, *self.reach_m))
        self.lens_m = play(self.lens_m, self._supply_m, self.hysteresis_m)
        self._go(now_ns, settle_s(change))

    def stop(self, way_m: float) -> None:
        """From now on the lens goes no further than `way_m` from here, to the side that its sign says."""
        end_m = self._supply_m + way_m
        self.reach_m = (end_m, inf) if way_m < 0.0 else (-inf, end_m)

    def stigmate(self, x: float, y: float, now_ns: int) -> None:
        if (x, y) == (self.stigmator_x, self.stigmator_y):
            return
        self.stigmator_x, self.stigmator_y = x, y
        self._go(now_ns, SMALL_CHANGE_SETTLE_S)

    def _go(self, now_ns: int, seconds: float) -> None:
        self.epoch += 1
        target = np.array([self.lens_m, self.stigmator_x, self.stigmator_y])
        settled = max(seconds, (self.motion.t_end_ns - now_ns) / 1e9)
        self.motion = self.motion.towards(target, now_ns=now_ns, seconds=settled)
