"""Findings and history in, a decision out: flags, mode, hold, the focus message, at most one suggestion a turn.

Everything here is a function of what it was given: frames, requests, and `now_ns`. It knows no socket and no clock.
"""

from dataclasses import replace

import msgspec

from agent import flags
from agent.control import actuator, focus, inspecting, returning
from agent.control.admission import PASSED_OVER, Stream, follow, standing_reason
from agent.control.backlash import Play
from agent.control.belief import Belief, learned
from agent.control.dose import nothing_seen
from agent.control.envelope import Move, gate
from agent.control.estimate import Instrument
from agent.control.exposing import Exposing
from agent.control.focus import Routine, Rules, Wish
from agent.control.inspecting import Told
from agent.control.inspection import Inspection, uninspected
from agent.control.mode import ModeState, begin, next_mode
from agent.control.pace import Pace
from agent.control.probing import half_depth_m
from agent.control.recipe import Recipe
from agent.control.standing import Standing
from agent.control.steering import Steering, acknowledge
from agent.control.suggesting import exposure_suggestion, focus_suggestion, where
from agent.control.terms import Terms as Terms
from agent.messages import (
    NOT_BUILT,
    SOURCES,
    Ack,
    Asked,
    Decision,
    Dose,
    Findings,
    Flag,
    FocusState,
    Frame,
    Kind,
    Lane,
    Lease,
    Mode,
    ModeRequest,
    Outcome,
    Phase,
    Suggestion,
    Wanted,
)
from engines.readings import JUDGEABLE
from engines.score_scale import on_scale

SETTLED_PHASES = (Phase.IDLE, Phase.CONVERGED, Phase.HELD)
RESTART_SCORE = 1.0  # points below the score at convergence: 4 half depths on the virtual microscope
RESTART_FRAMES = 2  # in a row: one blurred frame may be a jolt
VALID_S, VALID_FRAMES = 5.0, 2.0  # a suggestion is good for as many frame times as its answer is waited for
EVIDENT_M = 50e-9  # the header must show a change that was acknowledged, to a read-back's rounding
INTRUDED_S, INTRUDED_FRAMES = 5.0, 3.0  # after a second producer's last frame until one is believed to be alone
NOTHING = Wanted()
MOVED = (Outcome.APPLIED, Outcome.CLIPPED)
BLIND = ("blank", "frozen", "saturated")  # what a stream shows where there is nothing to see
BLIND_FRAMES = 5  # of them in a row: a beam that blinks is back before
GO_BACK = ("rejected", "clipped")  # the controller answers, but not as asked: it may still take the way back


class Decider:
    """All that the agent remembers between frames."""

    def __init__(self, terms: Terms, *, base_mode: Mode = Mode.SUGGEST, boot: str = "0") -> None:
        self.terms, self._boot = terms, boot
        self.mode: ModeState = begin(base_mode)
        self.standing = Standing(flags.severity, flags.holds)
        self.stream, self.routine, self.steering = Stream(), Routine(), Steering()
        self.source = terms.source or None
        self._found = bool(terms.source)  # False: the source is only the first that came, and may be another's column
        self._reason: str | None = None
        self._pace = self._inspect_pace = self._last_pace = Pace()  # live, to inspect, and of the lane heard last
        self._last_frame_ns: int | None = None
        self.inspection, self.exposing = Inspection(), Exposing()
        self._unbuilt: dict[str, str] = {}  # source -> a shape without an engine
        self._began_ns: int | None = None
        self._yield_until_ns = 0
        self._intruded_ns: int | None = None
        self._way_back: tuple[Wish, ...] = ()  # each told with the next frame: a controller compares its epochs
        self._blind = 0  # frames in a row that show nothing, in the middle of a routine
        self._left_m: float | None = None  # the working distance that the routine under way goes back to
        self._stood: Play | None = None  # the lens, when it was last at a place that is gone back to
        self._detail = ""  # of what the routine holds for, where more is known than the reason
        self._converged_score: float | None = None
        self._belief: Belief | None = None  # of focus, for other scenes
        self._lost = self._issued = 0
        self._reference_m: float | None = None

    # --- before perception ---

    def admit(self, frame: Frame, now_ns: int, spent_s: float | None = None) -> Wanted:
        """Follow the stream; say what is wanted of this frame. `spent_s`: what depth and defects took the last time."""
        wanted = self._evidence_wanted(frame, now_ns)
        budget = 0.0 if self._steers() else self.terms.live_budget
        if not self.inspection.due(frame, now_ns=now_ns, spent_s=spent_s, budget=budget):
            return wanted
        wanted = msgspec.structs.replace(wanted, inspection=True, height_scale=self.terms.height_scale)
        recipe = self._recipe(frame)
        if recipe is None:
            return wanted
        return inspecting.asked(wanted, frame, recipe, own_threshold=self.terms.defect_threshold)

    def _recipe(self, frame: Frame) -> Recipe | None:
        """Of those known here."""
        return None if frame.optics.recipe is None else self.terms.recipes.get(frame.optics.recipe)

    def _evidence_wanted(self, frame: Frame, now_ns: int) -> Wanted:
        self._reason = "settling"
        if frame.lane is not Lane.LIVE:
            self._inspect_pace = self._inspect_pace.after(frame.optics, now_ns)
            # A stream that only inspects is no silent stream, and one frame to inspect makes no slow one fast.
            self._heard(max(self._inspect_pace, self._pace, key=lambda pace: pace.frame_time_s or 0.0), now_ns)
            return NOTHING
        if not self._ours(frame):
            return NOTHING
        before = self.stream
        self.stream, self._reason, new_scene = follow(before, frame, self.terms.settle_s)
        if self._reason == "two_sessions":
            self._intruded_ns = now_ns
        if new_scene:
            self._new_scene(frame, fresh=self.stream.session != before.session)
        elif before.optics_epoch is not None and self._reason not in PASSED_OVER and not before.later_than(frame):
            self._notice_operator(frame, before, now_ns)
        self._pace = self._pace.after(frame.optics, now_ns)
        self._heard(self._pace, now_ns)
        wanted = self._reason is None and self._listening() and not self.steering.before(frame.optics.optics_epoch)
        if wanted and self._reference_m is None:
            self._reference_m = frame.optics.working_distance_m
        return Wanted(
            evidence=wanted,
            reference_working_distance_m=self._reference_m,
            scale_per_m=self.terms.instrument.scale_per_m or 0.0,
            histogram=self.terms.expose and self._reason is None and self.mode.mode in (Mode.SUGGEST, Mode.CONTROL),
        )

    def _steers(self) -> bool:
        """Is a routine under way that waits for the next frame? Nothing may delay that one."""
        waiting = self.steering.out is not None or self.routine.phase not in SETTLED_PHASES
        return self.mode.mode is Mode.CONTROL and waiting

    def _heard(self, pace: Pace, now_ns: int) -> None:
        self._last_frame_ns, self._last_pace = now_ns, pace

    def _ours(self, frame: Frame) -> bool:
        """Is it of the source that focus uses? Where none was named: the first whose frames can be evidence, and
        another one's once that one has fallen silent."""
        lost = not self.terms.source and frame.source != self.source and "stale" in self.standing.codes
        if not self._found or lost:
            found = standing_reason(frame.optics) is None
            if self.source is None or (found and frame.source != self.source):
                self.source, self.stream, self._pace = frame.source, Stream(), Pace()
            self._found = self._found or found
        return frame.source == self.source

    def _listening(self) -> bool:
        """Is there a use for evidence now?"""
        if self.mode.mode in (Mode.OBSERVE, Mode.HOLD) or self.steering.out is not None:
            return False
        return self.routine.phase not in SETTLED_PHASES if self.mode.mode is Mode.CONTROL else True

    def _new_scene(self, frame: Frame, *, fresh: bool) -> None:
        self._reference_m = None
        self.standing.only(lambda code: not flags.CONDITIONS[code].latched)
        self.steering, self._way_back = self.steering.cancelled(), ()
        if fresh or self.routine.phase is Phase.HELD:
            self.routine, self._left_m, self._stood = focus.begin(), None, None
            self._converged_score = None
        else:
            self.routine = focus.forget_scene(self.routine)
        self._believe(frame, fresh=fresh)

    def _believe(self, frame: Frame, *, fresh: bool) -> None:
        """What the scenes before say of this one; where that is no longer enough, focus is to be found again."""
        self._belief = known = None if fresh else self._belief
        self.routine = replace(self.routine, prior=None if known is None else known.at(frame.optics))
        if known is not None and self.routine.phase is Phase.CONVERGED and known.lost(frame.optics):
            self.routine = self.routine.anew(Phase.MEASURING)

    def _notice_operator(self, frame: Frame, before: Stream, now_ns: int) -> None:
        """A change that no acknowledgement and no outstanding suggestion explains: somebody's hand."""
        epoch = frame.optics.optics_epoch
        if epoch is None or epoch == before.optics_epoch or self.mode.mode is not Mode.CONTROL:
            return
        if self.steering.explains(frame.optics.working_distance_m, epoch):
            self.steering = self.steering.arrived(epoch)
        else:
            self._yield(now_ns)

    def _yield(self, now_ns: int) -> None:
        """Somebody else is at work: let him, then go on from what he left."""
        self._yield_until_ns = now_ns + round(self.terms.operator_yield_s * 1e9)
        self._left_m = None
        self.standing.put("operator", flags.CONDITIONS["operator"].advice)
        self.steering, self._way_back = self.steering.cancelled(), ()
        if self.routine.phase is not Phase.HELD:  # a hand on the knob does not answer what the routine gave up for
            self.routine = self.routine.anew(Phase.MEASURING, self.routine.evidence)

    # --- the decision ---

    def decide(
        self,
        frame: Frame | None,
        findings: Findings | None,
        *,
        now_ns: int,
        wall_ns: int = 0,
        noted: tuple[Flag, ...] = (),
    ) -> Decision:
        """One turn's worth of consequences."""
        self._began_ns = now_ns if self._began_ns is None else self._began_ns
        self._pass_time(now_ns)
        self._give_up_waiting(now_ns)
        wish, told, seen = None, None, Told(None, None)
        if frame is not None and findings is not None:
            wish = self._look(frame, findings, now_ns)
            told = self._focus_state(frame, findings)
            recipe, own = self._recipe(frame), self.terms.defect_threshold
            seen = inspecting.told(frame, findings, recipe, own_threshold=own)
            noted = (*noted, *self._inspected(frame, findings, None if seen.defects is None else len(seen.defects)))
            self._note_shape(frame, findings)
        holds = self.standing.hold_edges(wall_ns)
        suggestion = self._suggest(wish, frame, now_ns) or self._expose(frame, findings, now_ns)
        return Decision(
            now_ns=now_ns,
            mode=self.mode.mode,
            frame=frame.reference if frame is not None else None,
            flags=(*noted, *self.standing.flags()),
            holds=holds,
            focus=told,
            defects=seen.defects,
            inspected=seen.inspected,
            depth=self.inspection.map_due(now_ns),
            suggestion=suggestion,
            models=findings.models if findings else (),
            took_s=findings.took_s if findings else {},
        )

    # --- requests ---

    def hear(self, asked: list[Asked], now_ns: int) -> tuple[Ack, ...]:
        """Modes change, suggestions are answered. The acknowledgements among what was asked, for the journal."""
        acks = []
        for each in asked:
            if isinstance(each, ModeRequest):
                self._change_mode(next_mode(self.mode, each, now_ns))
            elif isinstance(each, Ack):
                acks.append(each)
                self._acknowledged(each, now_ns)
        return tuple(acks)

    def _change_mode(self, new: ModeState) -> None:
        old, self.mode = self.mode, new
        if new.mode is old.mode and new.controller == old.controller:
            return
        self.standing.only(lambda code: not flags.CONDITIONS[code].latched)
        self.standing.drop("operator")
        self.standing.drop("lease_expired")
        self._yield_until_ns = 0
        self.steering, self._way_back, self._left_m = self.steering.cancelled(), (), None
        self.routine = self.routine.anew(Phase.MEASURING)
        self.exposing.forget()

    def _acknowledged(self, ack: Ack, now_ns: int) -> None:
        was = self.steering
        if was.kind is Kind.EXPOSURE and ack.suggestion == was.out:
            self.steering = replace(was, out=None, kind=None, move=None)
            self.exposing.answered(ack)
            return
        self.steering, trouble = acknowledge(was, ack)
        if ack.suggestion == was.out and ack.outcome in MOVED:
            self._pushed(self.steering.expected_m)
            self.stream = self.stream.acknowledged(ack.optics_epoch, ack.t_settled_ns)
        if trouble == "operator":
            self._yield(now_ns)
        elif trouble is not None:
            self._way_back = ()
            if trouble in GO_BACK and self.routine.phase is not Phase.HELD:
                self._way_back = self._ways(focus.give_up(self.routine, trouble, self._rules())[1])
            self._hold_routine(trouble, f"suggestion {ack.suggestion}: {ack.outcome.value}")

    def _pushed(self, commanded_m: float | None) -> None:
        """The lens went, whether or not a frame of it comes to be evidence."""
        play = self.routine.play
        if play is not None and commanded_m is not None:
            self.routine = replace(self.routine, play=play.after(commanded_m))

    def _pass_time(self, now_ns: int) -> None:
        """Leases lapse, yields end, streams go stale."""
        lapsed = next_mode(self.mode, None, now_ns)
        if lapsed is not self.mode:
            self._change_mode(lapsed)
            self.standing.put("lease_expired", flags.CONDITIONS["lease_expired"].advice)
        if now_ns >= self._yield_until_ns:
            self.standing.drop("operator")
        limit_s = self._last_pace.limit_s(self.terms.stale_after_s, self.terms.stale_after_frame_times)
        since_ns = self._last_frame_ns if self._last_frame_ns is not None else self._began_ns or now_ns
        silent = "no_frames" if self._last_frame_ns is None else "stale"
        if now_ns - since_ns > limit_s * 1e9:
            self.standing.put(silent, f"{(now_ns - since_ns) / 1e9:.1f} s: {flags.CONDITIONS[silent].advice}")

    def _give_up_waiting(self, now_ns: int) -> None:
        self.steering = self.steering.waiting(now_ns)
        if self.mode.mode is Mode.CONTROL and self.steering.overdue(now_ns):
            number, self.steering = self.steering.out, self.steering.cancelled()
            self._hold_routine("no_ack", f"suggestion {number}")

    def _hold_routine(self, reason: str, detail: str) -> None:
        self.routine = replace(self.routine, phase=Phase.HELD, reason=reason)
        self.standing.put(reason, f"{detail}: {flags.CONDITIONS[reason].advice}")

    def engine_failed(
        self,
        frame: Frame,
        error: str,
        *,
        now_ns: int,
        wall_ns: int = 0,
        noted: tuple[Flag, ...] = (),
    ) -> Decision:
        """A model failed on this frame: say so, name the frame if somebody waits for it, never answer with zeros."""
        self.standing.put("engine_error", error, frame.number)
        if frame.lane is Lane.INSPECT:
            noted = (*noted, uninspected(frame.number, error))
        decision = self.decide(None, None, now_ns=now_ns, wall_ns=wall_ns, noted=noted)
        return msgspec.structs.replace(decision, frame=frame.reference)

    def journal_failed(self, reason: str) -> None:
        self.standing.put("journal_unavailable", f"{reason}: {flags.CONDITIONS['journal_unavailable'].advice}")

    def journal_mended(self) -> None:
        self.standing.drop("journal_unavailable")

    # --- one frame ---

    def _inspected(self, frame: Frame, findings: Findings, count: int | None) -> tuple[Flag, ...]:
        """A depth map goes on its way if maps are told; flags about a frame to inspect. count: of the defects told."""
        if self.terms.publish_depth:
            self.inspection.offer(frame, findings, calibrated=self.terms.height_scale is not None)
        if frame.lane is Lane.LIVE:
            return ()
        recipe = self._recipe(frame)
        refused = self.terms.refused.get(frame.optics.recipe or "", "")
        doubt = refused if recipe is None else inspecting.misfit(recipe, frame, findings)
        return (
            *self.inspection.flags(frame, findings, tuple(self.standing.codes), self.terms.recipes),
            *self.inspection.recipe_flags(frame, recipe, doubt=doubt, count=count),
        )

    def _note_shape(self, frame: Frame, findings: Findings) -> None:
        """Which sources send a shape that no engine was built for: their frames are read, but slowly."""
        self._unbuilt.pop(frame.source, None)
        if NOT_BUILT in findings.flags:
            self._unbuilt[frame.source] = f"{frame.pixels.shape[0]}x{frame.pixels.shape[1]}"
            while len(self._unbuilt) > SOURCES:
                self._unbuilt.pop(next(iter(self._unbuilt)))
        if self._unbuilt:
            shapes = ", ".join(f"{source or 'frames'} of {shape}" for source, shape in self._unbuilt.items())
            self.standing.put(NOT_BUILT, f"{shapes}: {flags.CONDITIONS[NOT_BUILT].advice}", frame.number)
        else:
            self.standing.drop(NOT_BUILT)

    def _look(self, frame: Frame, findings: Findings, now_ns: int) -> Wish | None:
        self.standing.drop("engine_error")
        if frame.lane is not Lane.LIVE:
            for code in ("no_frames", "stale"):
                self.standing.drop(code)
        if frame.lane is not Lane.LIVE or frame.source != self.source:
            return None
        self._report_stream(frame, findings, now_ns)
        if self._reason in PASSED_OVER or self._contradicts(frame, now_ns):
            return None
        if self._way_back and self._arrived(frame):
            back, *others = self._way_back
            self._way_back = tuple(others)
            return back
        self.exposing.look(frame.optics, findings, self.routine)
        if findings.evidence is None:
            self._watch_for_loss(findings)
            return self._blinded(frame, findings)
        self._blind = 0
        if self.mode.mode is Mode.CONTROL and self.exposing.first(self.routine, self.standing.holding_all()):
            return None
        if self.mode.mode is Mode.CONTROL and self.standing.holding() is not None:
            return None  # what may not be advised now must not use up probes and dose
        was = self.routine
        self.routine, wish = focus.observe(
            self._for_suggesting(findings),
            findings.evidence,
            blur_px=findings.blur_px,
            instrument=self._instrument(findings),
            rules=self._rules(),
        )
        wish = self._approached(self._doubted(wish, was, frame))
        under_way = self.routine.phase in (Phase.PROBING, Phase.VERIFYING)
        self._left_m = self.routine.restore_to if under_way else None
        if self.routine.phase is Phase.CONVERGED and self.routine.estimate is not None:
            self._belief = learned(self.routine.estimate, frame.optics) or self._belief
        return self._after(wish, findings, now_ns)

    def _blinded(self, frame: Frame, findings: Findings) -> Wish | None:
        """Nothing to see in the middle of a routine: the lens does not wait where a probe has left it."""
        reason, now = findings.refused or self._reason or "", where(frame.optics)
        waits = self.mode.mode is Mode.CONTROL and self.steering.out is None and reason in BLIND
        self._blind = self._blind + 1 if waits and self._left_m is not None else 0
        if self._blind < BLIND_FRAMES or self._left_m is None:
            return None
        self._blind, left_m, self._left_m = 0, self._left_m, None
        self.routine = self.routine.anew(Phase.MEASURING)  # what comes after it is measured from there
        if abs(left_m - now.working_distance_m) <= EVIDENT_M:
            return None
        back = gate(replace(now, working_distance_m=left_m, limits=()), now, left_m, self.terms.envelope)
        return Wish(Kind.RESTORE, back, reason)

    def _approached(self, wish: Wish | None) -> Wish | None:
        """What may be gone back to is noted; a way back takes the play up, its second move told with the next frame."""
        routine = self.routine
        if routine.at is not None and routine.restore_to == routine.at.working_distance_m:
            self._stood = routine.play
        if wish is None or wish.kind is not Kind.RESTORE:
            return wish
        first, *others = self._ways(wish)
        self._way_back = tuple(others)
        return first

    def _ways(self, wish: Wish | None) -> tuple[Wish, ...]:
        if wish is None:
            return ()
        routine, known = self.routine, self.terms
        h = half_depth_m(routine, known.instrument) if routine.evidence else 0.0
        return returning.ways(wish, routine, stood=self._stood, h=h, envelope=known.envelope)

    def _arrived(self, frame: Frame) -> bool:
        """Does the frame show the optics as the last suggestion left them?"""
        steering = self.steering
        return self._reason is None and steering.out is None and not steering.before(frame.optics.optics_epoch)

    def _doubted(self, wish: Wish | None, was: Routine, frame: Frame) -> Wish | None:
        """Say of an end of the routine what only the header or the certificate can tell."""
        routine = self.routine
        if routine.phase is Phase.HELD and routine.reason == "featureless":
            self.routine = replace(routine, reason=nothing_seen(frame.optics))
        if routine.phase is not Phase.CONVERGED or was.phase is Phase.CONVERGED or routine.estimate is None:
            return wish
        fault = actuator.doubt(routine.evidence, routine.estimate, self.terms.instrument)
        if fault is None:
            return wish
        newest, home_m = routine.evidence[-1], was.restore_to
        back_m = routine.verified_m  # a lens that stands where it should stays there
        if fault.place_m != newest.working_distance_m and home_m is not None:
            back_m = actuator.way_back_m(home_m, newest, fault)
        self._detail = fault.detail
        self.routine, back = focus.give_up(replace(routine, verified_m=back_m), fault.code, self._rules())
        return back

    def _report_stream(self, frame: Frame, findings: Findings, now_ns: int) -> None:
        """The stream's conditions are those of its last frame; a second producer's shadow is longer."""
        reason, optics = findings.refused or self._reason, frame.optics
        if reason == "no_epochs" and self.steering.moving(optics.optics_epoch, optics.t_start_ns):
            reason = "settling"
        for code in ("no_frames", "stale"):
            self.standing.drop(code)
        recipe = optics.recipe
        if recipe is not None and recipe not in self.terms.recipes:
            self.standing.put("unknown_recipe", f"{recipe!r}: {flags.CONDITIONS['unknown_recipe'].advice}")
        else:
            self.standing.drop("unknown_recipe")
        current = None if reason == "settling" else reason
        own = ["unknown_recipe", "operator", "lease_expired", "journal_unavailable", NOT_BUILT]
        alone_s = self._pace.limit_s(INTRUDED_S, INTRUDED_FRAMES)
        if self._intruded_ns is not None and now_ns - self._intruded_ns < alone_s * 1e9:
            own.append("two_sessions")
        self.standing.only(lambda code: flags.CONDITIONS[code].latched or code in own or code == current)
        if current is not None:
            self.standing.put(current, flags.CONDITIONS[current].advice, frame.number)

    def _contradicts(self, frame: Frame, now_ns: int) -> bool:
        """After an acknowledged move the header must show it."""
        optics, steering = frame.optics, self.steering
        expected, seen = steering.expected_m, optics.working_distance_m
        if expected is None or seen is None or abs(seen - expected) <= EVIDENT_M:
            return False
        arrived = optics.optics_epoch == steering.expected_epoch
        if not arrived and not steering.unmoved(optics.optics_epoch, optics.t_start_ns, now_ns):
            return False
        self._hold_routine("actuator_dead", f"acknowledged {expected:.9f} m, the header says {seen:.9f} m")
        return True

    def _for_suggesting(self, findings: Findings) -> Routine:
        """Without steering, the newest frame of each setting is kept: the stream repeats itself for ever."""
        if self.mode.mode is Mode.CONTROL or findings.evidence is None:
            return self.routine
        new = findings.evidence
        play = self.routine.play_at(new.working_distance_m, self._instrument(findings))
        place = (play.lens_m, new.stigmator_x, new.stigmator_y)
        others = tuple(
            e for e in self.routine.evidence if (e.working_distance_m, e.stigmator_x, e.stigmator_y) != place
        )
        return self.routine.anew(self.routine.phase, others)

    def _after(self, wish: Wish | None, findings: Findings, now_ns: int) -> Wish | None:
        """Turn the routine's end into conditions."""
        if self.routine.phase is Phase.CONVERGED:
            self._lost = 0
            if self.routine.reached:
                self._converged_score = findings.score
            self.steering = replace(self.steering, troubles=0)
        held = self.routine.reason if self.routine.phase is Phase.HELD else None
        if held is not None and held in self.standing.codes and wish is not None and wish.kind is Kind.ACQUIRE:
            wish = None  # said once; the hold stands for it
        # Without steering every good frame is judged anew: what was given up for an earlier one is over.
        self.standing.only(lambda code: code == held or not flags.CONDITIONS[code].latched)
        if held is not None:
            self.standing.put(held, self._detail or flags.CONDITIONS[held].advice)
        else:
            self._detail = ""
        return wish

    def _watch_for_loss(self, findings: Findings) -> None:
        """In focus, the model watches: a score that fell for two frames starts the routine again."""
        if self.routine.phase is not Phase.CONVERGED or findings.score is None or self._converged_score is None:
            return
        fell = self._converged_score - findings.score
        self._lost = self._lost + 1 if fell > RESTART_SCORE and (findings.content or 0.0) > JUDGEABLE else 0
        if self._lost >= RESTART_FRAMES:
            self._lost = 0
            self.routine = replace(self.routine.anew(Phase.MEASURING), prior=None)

    def _instrument(self, findings: Findings) -> Instrument:
        """The certificate's, or else what the header tells of the angle."""
        header = findings.evidence.semi_convergence_angle_rad if findings.evidence else None
        known = self.terms.instrument
        known = known if known.alpha_rad is not None or header is None else replace(known, alpha_rad=header)
        # Evidence comes at one magnification when the certificate knows how it changes.
        return replace(known, scale_per_m=0.0) if known.scale_per_m is not None else known

    def _rules(self) -> Rules:
        terms = self.terms
        steer = self.mode.mode is Mode.CONTROL
        return Rules(terms.envelope, terms.dose_frames, terms.p_wrong_direction, steer)

    # --- what is told ---

    def _suggest(self, wish: Wish | None, frame: Frame | None, now_ns: int) -> Suggestion | None:
        """A wish becomes a suggestion unless the agent holds; a way back is told even then."""
        if wish is None or frame is None or self.mode.mode in (Mode.OBSERVE, Mode.HOLD):
            return None
        back = wish.kind in (Kind.RESTORE, Kind.ACQUIRE)
        if self.standing.reason is not None and not back:
            return None
        number, now = self._sent(wish.kind, wish.move, frame, now_ns), where(frame.optics)
        at, routine = self.routine.at, self.routine
        if at is not None and abs(at.working_distance_m - now.working_distance_m) > EVIDENT_M:
            routine = replace(routine, evidence=())  # of another place: a second move back is told from this one
        return focus_suggestion(number, wish, routine, now=now, valid_for_s=self._valid_for_s())

    def _expose(self, frame: Frame | None, findings: Findings | None, now_ns: int) -> Suggestion | None:
        """Brightness and contrast, where the optics are left alone."""
        if frame is None or findings is None or self.steering.out is not None:
            return None
        steers = self.mode.mode is Mode.CONTROL
        advice = self.exposing.advice(findings, self.routine, self.standing.holding_all(), steers=steers)
        if advice is None:
            return None
        number = self._sent(Kind.EXPOSURE, where(frame.optics), frame, now_ns)
        return exposure_suggestion(number, advice, frame.number, valid_for_s=self._valid_for_s())

    def _sent(self, kind: Kind, move: Move, frame: Frame, now_ns: int) -> str:
        """The next suggestion's number; in control an answer to it is waited for."""
        self._issued += 1
        number = f"{self._boot[:8]}-{self._issued}"
        if self.mode.mode is Mode.CONTROL and kind is not Kind.ACQUIRE:
            epoch, frame_time_s = frame.optics.optics_epoch, self._pace.frame_time_s
            self.steering = self.steering.sent(number, kind, move, epoch=epoch, frame_time_s=frame_time_s)
        return number

    def _valid_for_s(self) -> float:
        return self._pace.limit_s(VALID_S, VALID_FRAMES)

    def _focus_state(self, frame: Frame, findings: Findings) -> FocusState:
        """What is known of focus with this frame; the estimate only where it belongs to this frame's source."""
        own = frame.lane is Lane.LIVE and frame.source == self.source
        found = self.routine.estimate if own else None
        answered = found is not None and found.answered
        ax, ay = (found.astigmatism_m or (None, None)) if found else (None, None)
        return FocusState(
            phase=self.routine.phase,
            score=on_scale(self.terms.score_scale, findings.score),
            blur_px=findings.blur_px,
            blur_uncertainty_px=findings.blur_uncertainty_px,
            content=findings.content,
            defocus_m=found.defocus_m if found and answered else None,
            sigma_m=found.sigma_m if found else None,
            astigmatism_x_m=ax,
            astigmatism_y_m=ay,
            sigma_astigmatism_m=found.sigma_astigmatism_m if found else None,
            half_depth_of_focus_m=found.half_depth_of_focus_m if found else None,
            p_wrong_direction=found.p_wrong_direction if found else None,
            evidence_frames=self.routine.spent,
        )

    def lease(self, now_ns: int) -> Lease | None:
        if self.mode.mode is not Mode.CONTROL:
            return None
        return Lease(controller=self.mode.controller, expires_in_s=self.mode.expires_in_s(now_ns))

    def dose(self) -> Dose:
        return Dose(frames=self.routine.spent, budget=self.terms.dose_frames)
