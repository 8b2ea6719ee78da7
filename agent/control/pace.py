"""How long a frame of the stream takes: the unit in which the agent waits, from TV rate to a minute a frame. Pure."""

from dataclasses import dataclass, replace
from itertools import pairwise

from agent.messages import Optics

LONGEST_S = 3600.0  # from start to end: more is a clock that was set in between
ARRIVALS = 3  # two intervals: the shorter one is no pause of the producer


@dataclass(frozen=True)
class Pace:
    """What the header says; where it says nothing, what passed between frames on the agent's own clock."""

    frame_time_s: float | None = None
    arrivals_ns: tuple[int, ...] = ()

    def after(self, optics: Optics, now_ns: int) -> "Pace":
        """With one more frame."""
        told = told_frame_time_s(optics)
        if told is not None:
            return self if told == self.frame_time_s else Pace(told)
        arrivals = (*self.arrivals_ns, now_ns)[-ARRIVALS:]
        between = [(b - a) / 1e9 for a, b in pairwise(arrivals)]
        return replace(self, frame_time_s=min(between, default=self.frame_time_s), arrivals_ns=arrivals)

    def limit_s(self, least_s: float, frames: float) -> float:
        """So many frame times, but no less than `least_s`."""
        return max(least_s, frames * (self.frame_time_s or 0.0))


def told_frame_time_s(optics: Optics) -> float | None:
    """Of one scan, or of all that was averaged into the frame; None where the header tells neither."""
    scan_s, whole_s = optics.frame_time_s, _span_s(optics)
    if scan_s is None:
        return whole_s
    # Of a start and an end that do not fit the scan at least one is wrong, and nobody may wait for it.
    fits = whole_s is not None and scan_s < whole_s <= 2.0 * scan_s * (optics.average_count or 1)
    return whole_s if fits else scan_s


def _span_s(optics: Optics) -> float | None:
    if optics.t_start_ns is None or optics.t_end_ns is None:
        return None
    span_s = (optics.t_end_ns - optics.t_start_ns) / 1e9
    return span_s if 0.0 < span_s <= LONGEST_S else None
