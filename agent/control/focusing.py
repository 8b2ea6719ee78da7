"""What outlives a frame in the control of focus: the routine, what is gone back to, when focus is lost. Pure.

The routine says what to do next; here is what happens around it: another scene, another hand, a picture that shows
nothing, an end that is to be doubted, the way back in more than one move.
"""

from dataclasses import replace

from agent.control import actuator, focus, returning
from agent.control.backlash import Play
from agent.control.belief import Belief, learned
from agent.control.dose import nothing_seen
from agent.control.envelope import gate
from agent.control.focus import Routine, Rules, Wish
from agent.control.probing import half_depth_m
from agent.control.steering import EVIDENT_M
from agent.control.suggesting import where
from agent.control.terms import Terms
from agent.messages import Evidence, Findings, Kind, Optics, Phase
from engines.readings import JUDGEABLE

SETTLED_PHASES = (Phase.IDLE, Phase.CONVERGED, Phase.HELD)
RESTART_SCORE = 1.0  # points below the score at convergence: 4 half depths on the virtual microscope
RESTART_FRAMES = 2  # in a row: one blurred frame may be a jolt
BLIND = ("blank", "frozen", "saturated")  # what a stream shows where there is nothing to see
BLIND_FRAMES = 5  # of them in a row: a beam that blinks is back before


class Focusing:
    """All that is remembered of focus between frames."""

    def __init__(self) -> None:
        self.routine = Routine()
        self.way_back: tuple[Wish, ...] = ()  # each told with the next frame: a controller compares its epochs
        self.blind = 0  # frames in a row that show nothing, in the middle of a routine
        self.detail = ""  # of what the routine holds for, where more is known than the reason
        self.converged_score: float | None = None
        self._lost = 0
        self._left_m: float | None = None  # the working distance that the routine under way goes back to
        self._stood: Play | None = None  # the lens, when it was last at a place that is gone back to
        self._belief: Belief | None = None  # of focus, for other scenes

    @property
    def under_way(self) -> bool:
        return self.routine.phase not in SETTLED_PHASES

    # --- what comes between ---

    def new_scene(self, optics: Optics, *, fresh: bool) -> None:
        """What the scenes before say of this one; where that is no longer enough, focus is to be found again.

        fresh: of another session, of which nothing is known.
        """
        self.way_back = ()
        if fresh or self.routine.phase is Phase.HELD:
            self.routine, self._left_m, self._stood = focus.begin(), None, None
            self.converged_score = None
        else:
            self.routine = focus.forget_scene(self.routine)
        self._belief = known = None if fresh else self._belief
        self.routine = replace(self.routine, prior=None if known is None else known.at(optics))
        if known is not None and self.routine.phase is Phase.CONVERGED and known.lost(optics):
            self.routine = self.routine.anew(Phase.MEASURING)

    def yield_to_operator(self) -> None:
        """A hand on the knob does not answer what the routine gave up for."""
        self.way_back, self._left_m = (), None
        if self.routine.phase is not Phase.HELD:
            self.routine = self.routine.anew(Phase.MEASURING, self.routine.evidence)

    def start_anew(self) -> None:
        self.way_back, self._left_m = (), None
        self.routine = self.routine.anew(Phase.MEASURING)

    def pushed(self, commanded_m: float | None) -> None:
        """The lens went, whether or not a frame of it comes to be evidence."""
        play = self.routine.play
        if play is not None and commanded_m is not None:
            self.routine = replace(self.routine, play=play.after(commanded_m))

    def go_back(self, trouble: str, terms: Terms, *, steers: bool) -> None:
        """The controller answers, but not as asked: it may still take the way back."""
        if self.routine.phase is not Phase.HELD:
            self.way_back = self._ways(focus.give_up(self.routine, trouble, rules(terms, steers=steers))[1], terms)

    def next_way_back(self) -> Wish:
        back, *others = self.way_back
        self.way_back = tuple(others)
        return back

    # --- one frame ---

    def observe(self, optics: Optics, findings: Findings, *, terms: Terms, steers: bool) -> Wish | None:
        """What the routine wants done about one frame of evidence."""
        was, new = self.routine, findings.evidence
        if new is None:
            return None
        self.routine, wish = focus.observe(
            was if steers else _for_suggesting(was, new, terms),
            new,
            blur_px=findings.blur_px,
            instrument=terms.instrument_for(new),
            rules=rules(terms, steers=steers),
        )
        wish = self._approached(self._doubted(wish, was, optics=optics, terms=terms, steers=steers), terms)
        routine = self.routine
        self._left_m = routine.restore_to if routine.phase in (Phase.PROBING, Phase.VERIFYING) else None
        if routine.phase is Phase.CONVERGED:
            self._lost = 0
            if routine.estimate is not None:
                self._belief = learned(routine.estimate, optics) or self._belief
            if routine.reached:
                self.converged_score = findings.score
        return wish

    def blinded(self, optics: Optics, reason: str, *, terms: Terms, waits: bool) -> Wish | None:
        """Nothing to see in the middle of a routine: the lens does not wait where a probe has left it."""
        now = where(optics)
        self.blind = self.blind + 1 if waits and reason in BLIND and self._left_m is not None else 0
        if self.blind < BLIND_FRAMES or self._left_m is None:
            return None
        self.blind, left_m, self._left_m = 0, self._left_m, None
        self.routine = self.routine.anew(Phase.MEASURING)  # what comes after it is measured from there
        if abs(left_m - now.working_distance_m) <= EVIDENT_M:
            return None
        back = gate(replace(now, working_distance_m=left_m, limits=()), now, left_m, terms.envelope)
        return Wish(Kind.RESTORE, back, reason)

    def watch_for_loss(self, findings: Findings) -> None:
        """In focus, the model watches: a score that fell for two frames starts the routine again."""
        if self.routine.phase is not Phase.CONVERGED or findings.score is None or self.converged_score is None:
            return
        fell = self.converged_score - findings.score
        self._lost = self._lost + 1 if fell > RESTART_SCORE and (findings.content or 0.0) > JUDGEABLE else 0
        if self._lost >= RESTART_FRAMES:
            self._lost = 0
            self.routine = replace(self.routine.anew(Phase.MEASURING), prior=None)

    def _doubted(self, wish: Wish | None, was: Routine, *, optics: Optics, terms: Terms, steers: bool) -> Wish | None:
        """Say of an end of the routine what only the header or the certificate can tell."""
        routine = self.routine
        if routine.phase is Phase.HELD and routine.reason == "featureless":
            self.routine = replace(routine, reason=nothing_seen(optics))
        if routine.phase is not Phase.CONVERGED or was.phase is Phase.CONVERGED or routine.estimate is None:
            return wish
        fault = actuator.doubt(routine.evidence, routine.estimate, terms.instrument)
        if fault is None:
            return wish
        newest, home_m = routine.evidence[-1], was.restore_to
        back_m = routine.verified_m  # a lens that stands where it should stays there
        if fault.place_m != newest.working_distance_m and home_m is not None:
            back_m = actuator.way_back_m(home_m, newest, fault)
        self.detail = fault.detail
        self.routine, back = focus.give_up(replace(routine, verified_m=back_m), fault.code, rules(terms, steers=steers))
        return back

    def _approached(self, wish: Wish | None, terms: Terms) -> Wish | None:
        """What may be gone back to is noted; a way back takes the play up, its second move told with the next frame."""
        routine = self.routine
        if routine.at is not None and routine.restore_to == routine.at.working_distance_m:
            self._stood = routine.play
        if wish is None or wish.kind is not Kind.RESTORE:
            return wish
        first, *others = self._ways(wish, terms)
        self.way_back = tuple(others)
        return first

    def _ways(self, wish: Wish | None, terms: Terms) -> tuple[Wish, ...]:
        if wish is None:
            return ()
        routine = self.routine
        h = half_depth_m(routine, terms.instrument) if routine.evidence else 0.0
        return returning.ways(wish, routine, stood=self._stood, h=h, envelope=terms.envelope)


def rules(terms: Terms, *, steers: bool) -> Rules:
    return Rules(terms.envelope, terms.dose_frames, terms.p_wrong_direction, steers)


def _for_suggesting(routine: Routine, new: Evidence, terms: Terms) -> Routine:
    """Without steering, the newest frame of each setting is kept: the stream repeats itself for ever."""
    play = routine.play_at(new.working_distance_m, terms.instrument_for(new))
    place = (play.lens_m, new.stigmator_x, new.stigmator_y)
    others = tuple(e for e in routine.evidence if (e.working_distance_m, e.stigmator_x, e.stigmator_y) != place)
    return routine.anew(routine.phase, others)
