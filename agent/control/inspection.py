"""When depth and defects are read on live frames, which depth map is told, what is said of a frame to inspect. Pure.

Frames to inspect are always read. Live ones share what `live_budget` leaves: after a reading that took t seconds the
next waits until t is that share of the time since; of several sources the one that waited longest comes first.
"""

from collections.abc import Container
from dataclasses import dataclass, replace

from agent.control import density
from agent.control.admission import standing_reason
from agent.control.recipe import Recipe
from agent.messages import NO_REFERENCE, SOURCES, Findings, Flag, Frame, Heights, Lane
from engines.readings import JUDGEABLE

UNKNOWN_S = 1.0  # between two readings while it is not known how long one takes
PATIENCE = 2.0  # periods that the others wait for the source whose turn it is
DOUBTS = {
    "no_pixel_size": "they come without a pixel size and have no heights: send pixel_size_m, or a field width",
    "featureless": "they show hardly more than noise: that nothing was found says little",
    "unknown_recipe": "their recipe is not known here: defects are told, at the model's own threshold",
    "saturated": "more than a fifth of their pixels are at an end of the scale",
    "inconsistent": "they hold pixels that are no numbers",
    "not_electron": "they are no pictures of the electron column",
    "nonlinear": "a look-up table bends their grey levels",
    "stage_moving": "they were taken while the stage moved",
    "auto_function": "they were taken while an auto function ran",
    "averaging": "they still hold an older picture",
    NO_REFERENCE: "they are read without the reference that their recipe counts on",
}
TOLD = frozenset(DOUBTS) - {"no_pixel_size", NO_REFERENCE}
DOUBTFUL = "recipe_doubtful"  # of FLAG_CODES
Flags = tuple[Flag, ...]
MAP_EVERY_NS = 1_000_000_000  # megabytes each: at most one a second is told


@dataclass(frozen=True)
class Turns:
    """What ran last, and which live sources came since."""

    began_ns: int | None = None  # of the last reading in either lane
    last: tuple[tuple[str, int], ...] = ()  # source -> its last live reading, oldest first
    seen: tuple[str, ...] = ()  # live sources since the last reading

    def inspected(self, now_ns: int) -> "Turns":
        """A frame to inspect is read: its time is spent like that of any other."""
        return replace(self, began_ns=now_ns)

    def live(self, source: str, *, now_ns: int, spent_s: float | None, budget: float) -> tuple["Turns", bool]:
        """One live frame: is it to be read? `spent_s`: what the last reading took."""
        if budget <= 0.0:
            return self, False
        turns = self if source in self.seen else replace(self, seen=(*self.seen, source)[-SOURCES:])
        if not turns._due(source, now_ns, UNKNOWN_S if spent_s is None else spent_s / budget):
            return turns, False
        others = tuple(each for each in self.last if each[0] != source)
        return Turns(now_ns, (*others, (source, now_ns))[-SOURCES:]), True

    def _due(self, source: str, now_ns: int, period_s: float) -> bool:
        if self.began_ns is None:
            return True
        waited_s = (now_ns - self.began_ns) / 1e9
        if waited_s < period_s:
            return False
        when = dict(self.last)
        first = min(self.seen, key=lambda each: when.get(each, -1))
        return source == first or waited_s >= PATIENCE * period_s


@dataclass(frozen=True)
class Maps:
    """One map may wait for its second; one of a frame to inspect is not displaced by a live one."""

    told_ns: int | None = None
    waiting: Heights | None = None

    def offered(self, new: Heights) -> "Maps":
        held = self.waiting
        kept = held is not None and held.frame.lane is Lane.INSPECT and new.frame.lane is Lane.LIVE
        return self if kept else replace(self, waiting=new)

    def due(self, now_ns: int) -> tuple["Maps", Heights | None]:
        """The map to tell now, if its second has come."""
        early = self.told_ns is not None and now_ns - self.told_ns < MAP_EVERY_NS
        if self.waiting is None or early:
            return self, None
        return Maps(told_ns=now_ns), self.waiting


class Inspection:
    """All that is remembered of depth and defects between frames."""

    def __init__(self) -> None:
        self._turns, self._maps = Turns(), Maps()
        self._doubts: tuple[str, ...] = ()  # that stand about the frames to inspect
        self._misfit: str = ""  # what was said last of their recipe
        self._alarms = density.Alarms()

    def due(self, frame: Frame, *, now_ns: int, spent_s: float | None, budget: float) -> bool:
        """Are depth and defects to be read on this frame? `spent_s`: what they took the last time."""
        if frame.lane is Lane.INSPECT:
            self._turns = self._turns.inspected(now_ns)
            return True
        self._turns, due = self._turns.live(frame.source, now_ns=now_ns, spent_s=spent_s, budget=budget)
        return due

    def offer(self, frame: Frame, findings: Findings, *, calibrated: bool) -> None:
        """A depth map that may be told, if there is one."""
        if findings.depth is None:
            return
        new = Heights(
            frame=frame.reference,
            height_m=findings.depth.height_m,
            calibrated=calibrated,
            models=findings.models,
            took_s=findings.took_s,
        )
        self._maps = self._maps.offered(new)

    def map_due(self, now_ns: int) -> Heights | None:
        """The map to tell now."""
        self._maps, told = self._maps.due(now_ns)
        return told

    def recipe_flags(self, frame: Frame, recipe: Recipe | None, *, doubt: str, count: int | None) -> Flags:
        """What must be said of a frame to inspect by its recipe; `count`: of the defects told, None: not looked for."""
        said: list[Flag] = []
        if doubt != self._misfit:
            said += [_told(DOUBTFUL, "cleared", frame.number)] if self._misfit else []
            said += [_told(DOUBTFUL, "raised", frame.number, doubt)] if doubt else []
            self._misfit = doubt
        if recipe is not None and count is not None:
            edge = self._alarms.after(recipe.name, count, recipe.rules.density)
            said += [_told(density.CODE, edge[0], frame.number, edge[1])] if edge else []
        return tuple(said)

    def flags(self, frame: Frame, findings: Findings, standing: tuple[str, ...], known: Container[str]) -> Flags:
        """What must be said of a frame to inspect: that nobody saw it, and what makes its reading doubtful."""
        unseen = (uninspected(frame.number, findings.unseen),) if findings.unseen else ()
        doubts = doubts_of(frame, findings, known)
        # What the live stream says already is not said twice.
        why = findings.unreferenced
        begun = [_edge(code, "raised", frame.number, why) for code in doubts if code not in (*self._doubts, *standing)]
        ended = [_edge(code, "cleared", frame.number) for code in self._doubts if code not in (*doubts, *standing)]
        self._doubts = doubts
        return (*unseen, *begun, *ended)


def doubts_of(frame: Frame, findings: Findings, known: Container[str]) -> tuple[str, ...]:
    """Codes of what makes the reading of an inspected frame doubtful; `known` recipes. They hold nothing."""
    header = standing_reason(frame.optics)
    doubts = {
        header: header in TOLD,
        findings.refused: findings.refused in TOLD,
        "no_pixel_size": frame.optics.pixel_size_m is None,
        "featureless": findings.content is not None and findings.content < JUDGEABLE,
        NO_REFERENCE: findings.unreferenced is not None,
        "unknown_recipe": frame.optics.recipe is not None and frame.optics.recipe not in known,
    }
    return tuple(code for code, stands in doubts.items() if stands and code is not None)


def _edge(code: str, state: str, number: int, unreferenced: str | None = None) -> Flag:
    """Told when it begins and when it ends; no hold, for such frames never steer."""
    why = f": {unreferenced}" if code == NO_REFERENCE else ""
    detail = f"frames to inspect: {DOUBTS[code]}{why}" if state == "raised" else ""
    severity = "info" if code == NO_REFERENCE else "warning"
    return Flag(code=code, state=state, severity=severity, detail=detail, frame=number)


def _told(code: str, state: str, number: int, detail: str = "") -> Flag:
    return Flag(code=code, state=state, severity="warning", detail=detail, frame=number)


def uninspected(number: int, why: str) -> Flag:
    """One message for each such frame."""
    return Flag(code="uninspected", state="raised", severity="error", detail=why, frame=number)
