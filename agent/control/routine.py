"""The nouns of the focus routine: what it may spend, what it asks for, where it stands, and how it begins. Pure."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from agent.control import backlash
from agent.control.backlash import Play
from agent.control.belief import Prior
from agent.control.envelope import Envelope, Move
from agent.control.estimate import Estimate
from agent.control.instrument import Instrument
from agent.messages import Evidence, Kind, Phase

PROBE_UNKNOWN_H = 6.0  # of h, where no model tells the blur


@dataclass(frozen=True)
class Rules:
    """What the routine may spend and must keep."""

    envelope: Envelope
    dose_frames: int = 12
    p_wrong_direction: float = 0.02
    steer: bool = True  # False: no probing moves, suggestions from what the stream offers


@dataclass(frozen=True)
class Wish:
    """What the routine wants done; the gate has passed it."""

    kind: Kind
    move: Move
    reason: str
    acquire: str | None = None


class Sharpest(NamedTuple):
    """The frame that the model saw best."""

    blur_px: float
    working_distance_m: float


@dataclass(frozen=True)
class Routine:
    """Where the routine stands. `home` is where it began, `verified_m` the last working distance known to be good.

    Moves are as commanded and read back; the evidence has its working distances as the lens went, by its play.
    """

    phase: Phase = Phase.IDLE
    evidence: tuple[Evidence, ...] = ()
    at: Move | None = None  # of the newest evidence
    play: Play | None = None
    sharpest: Sharpest | None = None
    spent: int = 0
    probes: int = 0
    stigmated: int = 0
    home: Move | None = None
    verified_m: float | None = None
    estimate: Estimate | None = None
    reason: str | None = None  # why it holds
    probe_h: float = PROBE_UNKNOWN_H
    prior: Prior | None = None  # what another scene taught of this one

    @property
    def restore_to(self) -> float | None:
        if self.verified_m is not None:
            return self.verified_m
        return None if self.home is None else self.home.working_distance_m

    @property
    def now(self) -> Move:
        assert self.at is not None  # there is evidence
        return self.at

    @property
    def began(self) -> Move:
        """Where it was when it began; now, where nothing was asked for yet."""
        return self.home or self.now

    @property
    def reached(self) -> bool:
        """Is the newest frame of the place that is called in focus, or is that where the lens is sent back to?"""
        return self.verified_m == self.now.working_distance_m

    def play_at(self, commanded_m: float, instrument: Instrument) -> Play:
        """Where the lens stands once it is commanded there: evidence has its working distances as the lens went."""
        known = self.play or backlash.begin(commanded_m, instrument.hysteresis_m)
        return known.after(commanded_m)

    def anew(self, phase: Phase, evidence: tuple[Evidence, ...] = ()) -> "Routine":
        """From the beginning, with what still is evidence: nothing is spent, and home is where the next frame is.

        What is known of the column stays: where the lens stands, and the last good place.
        """
        fresh = Routine(phase=phase, at=self.at, play=self.play, verified_m=self.verified_m, prior=self.prior)
        if not evidence:
            return fresh
        return replace(
            fresh, evidence=evidence, estimate=self.estimate, sharpest=self.sharpest, stigmated=self.stigmated
        )
