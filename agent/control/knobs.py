"""What brightness and contrast do on this detector: learned from frames before and after a turn. Pure.

Brightness is taken to lift all levels alike, contrast to stretch them about one level that it leaves where it is;
near one setting that holds for any amplifier, whatever the knobs are like over their whole way.
"""

from dataclasses import dataclass, replace
from math import exp, log
from typing import Protocol

from agent.messages import Histogram

CLIPPED_SHARE = 0.005  # of the pixels at one end, from which what they showed is missed
SAME_KNOB = 1e-4  # a read-back's rounding
TELLING = 0.01  # of a knob's way: a shorter turn is lost in what two frames of one scene differ by
NEARBY = 0.25  # of a knob's way
TRIED = 0.04  # of a knob's way: a turn that must show, if the knob does anything
STILL = 0.01  # of the range, or of the pixels: no more than two frames of one scene differ by
SHOWS = 0.9  # of the pixels clipped: the others are too few to tell that nothing changed
BASELINE = 0.02  # of the range: levels closer together do not tell a gain


@dataclass(frozen=True)
class Knobs:
    """What brightness and contrast read back, 0 to 1."""

    brightness: float
    contrast: float

    def same(self, other: "Knobs", within: float = SAME_KNOB) -> bool:
        return max(abs(self.brightness - other.brightness), abs(self.contrast - other.contrast)) <= within


class Shown(Protocol):
    """A frame's settings and levels."""

    @property
    def knobs(self) -> Knobs: ...

    @property
    def histogram(self) -> Histogram: ...


@dataclass(frozen=True)
class Effect:
    """What the knobs do here, per whole way; None: not seen yet. `pivot`: the level that contrast leaves alone."""

    lift: float | None = None  # levels, of brightness
    gain: float | None = None  # logarithm of the gain, of contrast
    pivot: float = 0.0
    at: Knobs | None = None  # where that was seen

    def near(self, knobs: Knobs) -> "Effect":
        """What is known of these settings: elsewhere a knob may do more, or less."""
        return self if self.at is not None and self.at.same(knobs, NEARBY) else Effect()


def learned(effect: Effect, was: Shown, now: Shown) -> Effect:
    """Two levels that are clipped in neither frame give the stretch and the lift of the turn between them."""
    return replace(_learned(effect.near(was.knobs), was, now), at=now.knobs)


def _learned(effect: Effect, was: Shown, now: Shown) -> Effect:
    turned_b = now.knobs.brightness - was.knobs.brightness
    turned_c = now.knobs.contrast - was.knobs.contrast
    alone = min(abs(turned_b), abs(turned_c)) < TELLING and max(abs(turned_b), abs(turned_c)) >= TRIED
    if alone and _unchanged(was.histogram, now.histogram):
        return replace(effect, gain=0.0) if abs(turned_c) >= TRIED else replace(effect, lift=0.0)
    levels = _unclipped(was.histogram, now.histogram)
    if not levels:
        return effect
    (low, new_low), (high, new_high) = levels[0], levels[-1]
    if abs(turned_c) >= TELLING and high - low > BASELINE and new_high > new_low:
        factor = (new_high - new_low) / (high - low)
        effect = replace(effect, gain=log(factor) / turned_c)
        if abs(turned_b) <= SAME_KNOB and abs(factor - 1.0) > BASELINE:
            return replace(effect, pivot=(new_low - factor * low) / (1.0 - factor))
    if abs(turned_b) < TELLING:
        return effect
    factor = exp((effect.gain or 0.0) * turned_c)
    lifts = [new - effect.pivot - factor * (old - effect.pivot) for old, new in levels]
    lifted = sum(lifts) / len(lifts)
    return replace(effect, lift=lifted / turned_b, pivot=effect.pivot + lifted)


def _unchanged(was: Histogram, now: Histogram) -> bool:
    """Did nothing happen, though enough of the levels lie within the range to show it?"""
    pairs = ((was.low, now.low), (was.middle, now.middle), (was.high, now.high))
    shares = ((was.at_black, now.at_black), (was.at_white, now.at_white))
    changes = [abs(b - a) for a, b in (*pairs, *shares)]
    return was.at_black + was.at_white < SHOWS and max(changes) <= STILL


def _unclipped(was: Histogram, now: Histogram) -> list[tuple[float, float]]:
    """Levels that lie inside the range in both frames, darkest first."""
    black, white = max(was.at_black, now.at_black), max(was.at_white, now.at_white)
    inside = (black < CLIPPED_SHARE, black < 0.5 and white < 0.5, white < CLIPPED_SHARE)
    levels = ((was.low, now.low), (was.middle, now.middle), (was.high, now.high))
    return [pair for pair, known in zip(levels, inside, strict=True) if known]
