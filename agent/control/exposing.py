"""When brightness and contrast may be turned: never inside a bracket, never while anything else holds. Pure."""

from collections.abc import Iterable

from agent.control import exposure
from agent.control.exposure import Advice, Exposure
from agent.control.focus import Routine
from agent.control.instrument import distinct
from agent.messages import Ack, Findings, Optics, Outcome, Phase

CURABLE = ("saturated", "blank")  # holds that the knobs may end
SHARP_PX = 2.0  # of blur: below it focus makes no new levels
FOLLOWED = (Outcome.APPLIED, Outcome.CLIPPED)
LATE = (Outcome.SUPERSEDED, Outcome.EXPIRED)


class Exposing:
    """All that is remembered of exposure between frames."""

    def __init__(self) -> None:
        self._state = Exposure()

    def forget(self) -> None:
        """Another mode, another listener: conditions are told anew; what the knobs do is kept."""
        self._state = Exposure(effect=self._state.effect)

    def look(self, optics: Optics, findings: Findings, routine: Routine) -> None:
        """One admitted frame."""
        if findings.histogram is None or findings.refused not in (None, *CURABLE):
            return
        blur_px = SHARP_PX if findings.blur_px is None else findings.blur_px
        sharp = routine.phase is Phase.CONVERGED or blur_px < SHARP_PX
        seen = exposure.seen_of(optics, findings.histogram, sharp=sharp)
        if seen is not None:
            self._state = exposure.watch(self._state, seen)

    def first(self, routine: Routine, holds: Iterable[str]) -> bool:
        """Should focus, which steers and has not begun to, wait until the picture is no longer clipped?"""
        return self._state.pressing and _fresh(routine) and not set(holds) - set(CURABLE)

    def advice(self, findings: Findings, routine: Routine, holds: Iterable[str], *, steers: bool) -> Advice | None:
        """The step that is due, if it may be taken now. holds: what stands and stops advice."""
        if findings.histogram is None or set(holds) - set(CURABLE):
            return None
        if findings.refused is None and _measuring(routine, steers):
            return None
        self._state, advice = exposure.advise(self._state)
        return advice

    def answered(self, ack: Ack) -> None:
        """A step that was refused is not asked for again; one that came too late is."""
        self._state = exposure.answered(self._state, followed=ack.outcome in FOLLOWED, again=ack.outcome in LATE)


def _fresh(routine: Routine) -> bool:
    return routine.phase is Phase.MEASURING and routine.probes == 0


def _measuring(routine: Routine, steers: bool) -> bool:
    """Would another exposure spoil a bracket? A picture that cannot be used spoils it anyway."""
    if routine.phase in (Phase.IDLE, Phase.CONVERGED) or (steers and _fresh(routine)):
        return False
    return steers or len(distinct([e.working_distance_m for e in routine.evidence])) > 1
