"""Where a lens with play stands: what it is told goes in, where it is and what to tell it come out. Pure.

The play operator: the lens stays put while the command moves inside a dead zone, and is pushed by its edge beyond. Once
it was pushed by more than the zone is wide, its place is known exactly, and a command can allow for the zone.
"""

from dataclasses import dataclass

SQRT_12 = 12.0**0.5


@dataclass(frozen=True)
class Play:
    """The lens stands somewhere in low_m .. high_m, on the scale of the commanded working distance."""

    width_m: float  # of the dead zone
    commanded_m: float
    low_m: float
    high_m: float

    @property
    def lens_m(self) -> float:
        """The middle of where it may be."""
        return (self.low_m + self.high_m) / 2.0

    @property
    def sigma_m(self) -> float:
        """One standard deviation of an even chance over where it may be."""
        return (self.high_m - self.low_m) / SQRT_12

    def after(self, commanded_m: float) -> "Play":
        """Where it may be once it was told another working distance."""
        half = self.width_m / 2.0
        low, high = (min(max(at, commanded_m - half), commanded_m + half) for at in (self.low_m, self.high_m))
        return Play(self.width_m, commanded_m, low, high)

    def command_for(self, lens_m: float) -> float:
        """What to tell it so that it goes to `lens_m`: half the zone further, on the side that it comes from."""
        if lens_m == self.lens_m:
            return self.commanded_m
        half = self.width_m / 2.0
        return lens_m + half if lens_m > self.lens_m else lens_m - half


def begin(commanded_m: float, width_m: float) -> Play:
    """Nobody knows from which side the lens came: it may be anywhere in the zone."""
    half = width_m / 2.0
    return Play(width_m, commanded_m, commanded_m - half, commanded_m + half)
