"""Whose frames focus uses, which of them may be evidence, how fast they come and for how long none did. Pure."""

from dataclasses import dataclass, field, replace

from agent.control.admission import Stream, follow, standing_reason
from agent.control.pace import Pace
from agent.control.terms import Terms
from agent.messages import Frame

INTRUDED_S, INTRUDED_FRAMES = 5.0, 3.0  # after a second producer's last frame until one is believed to be alone
VALID_S, VALID_FRAMES = 5.0, 2.0  # a suggestion is good for as many frame times as its answer is waited for


@dataclass(frozen=True)
class Heard:
    """All that is remembered of the frames that came."""

    source: str | None = None
    found: bool = False  # False: the source is only the first that came, and may be another's column
    stream: Stream = field(default_factory=Stream)
    pace: Pace = field(default_factory=Pace)  # of live frames
    inspect_pace: Pace = field(default_factory=Pace)
    last_pace: Pace = field(default_factory=Pace)  # of the lane heard last
    last_ns: int | None = None
    began_ns: int | None = None
    intruded_ns: int | None = None
    reason: str | None = None  # why the last frame is no evidence

    def sought(self, frame: Frame, *, silent: bool) -> "Heard":
        """Where no source was named: the first whose frames can be evidence, and another one's once that one is silent.

        silent: it has been, and none was named.
        """
        if self.found and not (silent and frame.source != self.source):
            return self
        found = standing_reason(frame.optics) is None
        if self.source is not None and not (found and frame.source != self.source):
            return replace(self, found=self.found or found)
        return replace(self, source=frame.source, stream=Stream(), pace=Pace(), found=self.found or found)

    def inspecting(self, frame: Frame, now_ns: int) -> "Heard":
        """With one more frame of the lane that is inspected."""
        pace = self.inspect_pace.after(frame.optics, now_ns)
        # A stream that only inspects is no silent stream, and one frame to inspect makes no slow one fast.
        slower = max(pace, self.pace, key=lambda pace: pace.frame_time_s or 0.0)
        return replace(self, inspect_pace=pace, last_pace=slower, last_ns=now_ns)

    def living(self, frame: Frame, now_ns: int, *, settle_s: float) -> tuple["Heard", bool]:
        """With one more live frame of the source, and whether its scene is a new one."""
        stream, reason, new_scene = follow(self.stream, frame, settle_s)
        pace = self.pace.after(frame.optics, now_ns)
        intruded_ns = now_ns if reason == "two_sessions" else self.intruded_ns
        heard = replace(self, stream=stream, reason=reason, pace=pace, intruded_ns=intruded_ns)
        return replace(heard, last_pace=pace, last_ns=now_ns), new_scene

    def intruded(self, now_ns: int) -> bool:
        """Has a second producer been heard of late?"""
        alone_s = self.pace.limit_s(INTRUDED_S, INTRUDED_FRAMES)
        return self.intruded_ns is not None and now_ns - self.intruded_ns < alone_s * 1e9

    def silence(self, now_ns: int, terms: Terms) -> tuple[str, float] | None:
        """Its name and how long it has lasted, once it is too long."""
        limit_s = self.last_pace.limit_s(terms.stale_after_s, terms.stale_after_frame_times)
        since_ns = self.last_ns if self.last_ns is not None else self.began_ns or now_ns
        if now_ns - since_ns <= limit_s * 1e9:
            return None
        return "no_frames" if self.last_ns is None else "stale", (now_ns - since_ns) / 1e9

    @property
    def valid_for_s(self) -> float:
        """... a suggestion that is made now."""
        return self.pace.limit_s(VALID_S, VALID_FRAMES)
