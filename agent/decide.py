"""Findings and history in, a decision out: flags, mode, hold, the focus message, at most one suggestion a turn.

Everything here is a function of what it was given: frames, requests, and `now_ns`. It knows no socket and no clock.
"""

from dataclasses import replace

import msgspec

from agent import flags
from agent.control import inspecting
from agent.control.admission import PASSED_OVER, Stream
from agent.control.envelope import Move
from agent.control.exposing import Exposing
from agent.control.focusing import Focusing
from agent.control.following import Heard
from agent.control.inspecting import Told
from agent.control.inspection import Inspection, uninspected
from agent.control.mode import ModeState, begin, next_mode
from agent.control.recipe import Recipe
from agent.control.routine import Routine, Wish
from agent.control.standing import Standing
from agent.control.steering import EVIDENT_M, Steering, acknowledge
from agent.control.suggesting import exposure_suggestion, focus_suggestion, where
from agent.control.telling import focus_state
from agent.control.terms import Terms as Terms
from agent.control.unbuilt import Unbuilt
from agent.messages import (
    NOT_BUILT,
    Ack,
    Asked,
    Decision,
    Dose,
    Findings,
    Flag,
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

NOTHING = Wanted()
SILENT = ("no_frames", "stale")  # any frame that is used or inspected ends them
MOVED = (Outcome.APPLIED, Outcome.CLIPPED)
GO_BACK = ("rejected", "clipped")  # the controller answers, but not as asked: it may still take the way back
OWN = ("unknown_recipe", "operator", "lease_expired", "journal_unavailable", NOT_BUILT)  # no frame ends these alone


class Decider:
    """All that the agent remembers between frames."""

    def __init__(self, terms: Terms, *, base_mode: Mode = Mode.SUGGEST, boot: str = "0") -> None:
        self.terms, self._boot = terms, boot
        self.mode: ModeState = begin(base_mode)
        self.standing = Standing(flags.severity, flags.holds)
        self.heard = Heard(source=terms.source or None, found=bool(terms.source))
        self.focusing, self.steering = Focusing(), Steering()
        self.inspection, self.exposing, self._unbuilt = Inspection(), Exposing(), Unbuilt()
        self._yield_until_ns = self._issued = 0
        self._reference_m: float | None = None

    @property
    def routine(self) -> Routine:
        return self.focusing.routine

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
        self.heard = replace(self.heard, reason="settling")
        if frame.lane is not Lane.LIVE:
            self.heard = self.heard.inspecting(frame, now_ns)
            return NOTHING
        self.heard = self.heard.sought(frame, silent=not self.terms.source and "stale" in self.standing.codes)
        if frame.source != self.heard.source:
            return NOTHING
        before = self.heard.stream
        self.heard, new_scene = self.heard.living(frame, now_ns, settle_s=self.terms.settle_s)
        reason, stream = self.heard.reason, self.heard.stream
        if new_scene:
            self._new_scene(frame, fresh=stream.session != before.session)
        elif before.optics_epoch is not None and reason not in PASSED_OVER and not before.later_than(frame):
            self._notice_operator(frame, before, now_ns)
        wanted = reason is None and self._listening() and not self.steering.before(frame.optics.optics_epoch)
        if wanted and self._reference_m is None:
            self._reference_m = frame.optics.working_distance_m
        return Wanted(
            evidence=wanted,
            reference_working_distance_m=self._reference_m,
            scale_per_m=self.terms.instrument.scale_per_m or 0.0,
            histogram=self.terms.expose and reason is None and self.mode.mode in (Mode.SUGGEST, Mode.CONTROL),
        )

    @property
    def _controls(self) -> bool:
        return self.mode.mode is Mode.CONTROL

    def _steers(self) -> bool:
        """Is a routine under way that waits for the next frame? Nothing may delay that one."""
        return self._controls and (self.steering.out is not None or self.focusing.under_way)

    def _listening(self) -> bool:
        """Is there a use for evidence now?"""
        if self.mode.mode in (Mode.OBSERVE, Mode.HOLD) or self.steering.out is not None:
            return False
        return self.focusing.under_way or not self._controls

    def _new_scene(self, frame: Frame, *, fresh: bool) -> None:
        self._reference_m = None
        self.standing.only(lambda code: not flags.CONDITIONS[code].latched)
        self.steering = self.steering.cancelled()
        self.focusing.new_scene(frame.optics, fresh=fresh)

    def _notice_operator(self, frame: Frame, before: Stream, now_ns: int) -> None:
        """A change that no acknowledgement and no outstanding suggestion explains: somebody's hand."""
        epoch = frame.optics.optics_epoch
        if epoch is None or epoch == before.optics_epoch or not self._controls:
            return
        if self.steering.explains(frame.optics.working_distance_m, epoch):
            self.steering = self.steering.arrived(epoch)
        else:
            self._yield(now_ns)

    def _yield(self, now_ns: int) -> None:
        """Somebody else is at work: let him, then go on from what he left."""
        self._yield_until_ns = now_ns + round(self.terms.operator_yield_s * 1e9)
        self.standing.put("operator", flags.CONDITIONS["operator"].advice)
        self.steering = self.steering.cancelled()
        self.focusing.yield_to_operator()

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
        if self.heard.began_ns is None:
            self.heard = replace(self.heard, began_ns=now_ns)
        self._pass_time(now_ns)
        self._give_up_waiting(now_ns)
        wish, told, seen = None, None, Told(None, None)
        if frame is not None and findings is not None:
            wish = self._look(frame, findings, now_ns)
            own = frame.lane is Lane.LIVE and frame.source == self.heard.source
            told = focus_state(self.routine, findings, own=own, scale=self.terms.score_scale)
            recipe, threshold = self._recipe(frame), self.terms.defect_threshold
            seen = inspecting.told(frame, findings, recipe, own_threshold=threshold)
            noted = (*noted, *self._inspected(frame, findings, None if seen.defects is None else len(seen.defects)))
            self._stands(NOT_BUILT, self._unbuilt.note(frame, findings), frame.number)
        holds = self.standing.hold_edges(wall_ns)
        suggestion = self._suggest(wish, frame) or self._expose(frame, findings)
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
        self.steering = self.steering.cancelled()
        self.focusing.start_anew()
        self.exposing.forget()

    def _acknowledged(self, ack: Ack, now_ns: int) -> None:
        was = self.steering
        if was.kind is Kind.EXPOSURE and ack.suggestion == was.out:
            self.steering = replace(was, out=None, kind=None, move=None)
            self.exposing.answered(ack)
            return
        self.steering, trouble = acknowledge(was, ack)
        if ack.suggestion == was.out and ack.outcome in MOVED:
            self.focusing.pushed(self.steering.expected_m)
            stream = self.heard.stream.acknowledged(ack.optics_epoch, ack.t_settled_ns)
            self.heard = replace(self.heard, stream=stream)
        if trouble == "operator":
            self._yield(now_ns)
        elif trouble is not None:
            self.focusing.way_back = ()
            if trouble in GO_BACK:
                self.focusing.go_back(trouble, self.terms, steers=self._controls)
            self._hold_routine(trouble, f"suggestion {ack.suggestion}: {ack.outcome.value}")

    def _pass_time(self, now_ns: int) -> None:
        """Leases lapse, yields end, streams go stale."""
        lapsed = next_mode(self.mode, None, now_ns)
        if lapsed is not self.mode:
            self._change_mode(lapsed)
            self.standing.put("lease_expired", flags.CONDITIONS["lease_expired"].advice)
        if now_ns >= self._yield_until_ns:
            self.standing.drop("operator")
        silence = self.heard.silence(now_ns, self.terms)
        if silence is not None:
            code, lasted_s = silence
            self.standing.put(code, f"{lasted_s:.1f} s: {flags.CONDITIONS[code].advice}")

    def _give_up_waiting(self, now_ns: int) -> None:
        self.steering = self.steering.waiting(now_ns)
        if self._controls and self.steering.overdue(now_ns):
            number, self.steering = self.steering.out, self.steering.cancelled()
            self._hold_routine("no_ack", f"suggestion {number}")

    def _hold_routine(self, reason: str, detail: str) -> None:
        self.focusing.routine = replace(self.routine, phase=Phase.HELD, reason=reason)
        self.standing.put(reason, f"{detail}: {flags.CONDITIONS[reason].advice}")

    def engine_failed(
        self, frame: Frame, error: str, *, now_ns: int, wall_ns: int = 0, noted: tuple[Flag, ...] = ()
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

    def _look(self, frame: Frame, findings: Findings, now_ns: int) -> Wish | None:
        self.standing.drop("engine_error")
        if frame.lane is Lane.LIVE and frame.source != self.heard.source:
            return None
        for code in SILENT:
            self.standing.drop(code)
        if frame.lane is not Lane.LIVE:
            return None
        self._report_stream(frame, findings, now_ns)
        if self.heard.reason in PASSED_OVER or self._contradicts(frame, now_ns):
            return None
        if self.focusing.way_back and self.heard.reason is None and self.steering.landed(frame.optics.optics_epoch):
            return self.focusing.next_way_back()
        self.exposing.look(frame.optics, findings, self.routine)
        if findings.evidence is None:
            self.focusing.watch_for_loss(findings)
            reason, waits = findings.refused or self.heard.reason or "", self._controls and self.steering.out is None
            return self.focusing.blinded(frame.optics, reason, terms=self.terms, waits=waits)
        self.focusing.blind = 0
        if self._controls and self.exposing.first(self.routine, self.standing.holding_all()):
            return None
        if self._controls and self.standing.holding() is not None:
            return None  # what may not be advised now must not use up probes and dose
        return self._after(self.focusing.observe(frame.optics, findings, terms=self.terms, steers=self._controls))

    def _report_stream(self, frame: Frame, findings: Findings, now_ns: int) -> None:
        """The stream's conditions are those of its last frame; a second producer's shadow is longer."""
        reason, optics = findings.refused or self.heard.reason, frame.optics
        if reason == "no_epochs" and self.steering.moving(optics.optics_epoch, optics.t_start_ns):
            reason = "settling"
        unknown = optics.recipe is not None and optics.recipe not in self.terms.recipes
        self._stands("unknown_recipe", repr(optics.recipe) if unknown else "")
        current = None if reason == "settling" else reason
        kept = {*OWN, "two_sessions"} if self.heard.intruded(now_ns) else {*OWN}
        self.standing.only(lambda code: flags.CONDITIONS[code].latched or code in kept or code == current)
        if current is not None:
            self.standing.put(current, flags.CONDITIONS[current].advice, frame.number)

    def _stands(self, code: str, detail: str, frame: int | None = None) -> None:
        """As long as there is something to say of it."""
        if detail:
            self.standing.put(code, f"{detail}: {flags.CONDITIONS[code].advice}", frame)
        else:
            self.standing.drop(code)

    def _contradicts(self, frame: Frame, now_ns: int) -> bool:
        """After an acknowledged move the header must show it."""
        detail = self.steering.contradicted(frame.optics, now_ns)
        if detail:
            self._hold_routine("actuator_dead", detail)
        return bool(detail)

    def _after(self, wish: Wish | None) -> Wish | None:
        """Turn the routine's end into conditions."""
        if self.routine.phase is Phase.CONVERGED:
            self.steering = replace(self.steering, troubles=0)
        held = self.routine.reason if self.routine.phase is Phase.HELD else None
        if held is not None and held in self.standing.codes and wish is not None and wish.kind is Kind.ACQUIRE:
            wish = None  # said once; the hold stands for it
        # Without steering every good frame is judged anew: what was given up for an earlier one is over.
        self.standing.only(lambda code: code == held or not flags.CONDITIONS[code].latched)
        if held is not None:
            self.standing.put(held, self.focusing.detail or flags.CONDITIONS[held].advice)
        else:
            self.focusing.detail = ""
        return wish

    # --- what is told ---

    def _suggest(self, wish: Wish | None, frame: Frame | None) -> Suggestion | None:
        """A wish becomes a suggestion unless the agent holds; a way back is told even then."""
        if wish is None or frame is None or self.mode.mode in (Mode.OBSERVE, Mode.HOLD):
            return None
        back = wish.kind in (Kind.RESTORE, Kind.ACQUIRE)
        if self.standing.reason is not None and not back:
            return None
        number, now = self._sent(wish.kind, wish.move, frame), where(frame.optics)
        at, routine = self.routine.at, self.routine
        if at is not None and abs(at.working_distance_m - now.working_distance_m) > EVIDENT_M:
            routine = replace(routine, evidence=())  # of another place: a second move back is told from this one
        return focus_suggestion(number, wish, routine, now=now, valid_for_s=self.heard.valid_for_s)

    def _expose(self, frame: Frame | None, findings: Findings | None) -> Suggestion | None:
        """Brightness and contrast, where the optics are left alone."""
        if frame is None or findings is None or self.steering.out is not None:
            return None
        advice = self.exposing.advice(findings, self.routine, self.standing.holding_all(), steers=self._controls)
        if advice is None:
            return None
        number = self._sent(Kind.EXPOSURE, where(frame.optics), frame)
        return exposure_suggestion(number, advice, frame.number, valid_for_s=self.heard.valid_for_s)

    def _sent(self, kind: Kind, move: Move, frame: Frame) -> str:
        """The next suggestion's number; in control an answer to it is waited for."""
        self._issued += 1
        number = f"{self._boot[:8]}-{self._issued}"
        if self._controls and kind is not Kind.ACQUIRE:
            epoch, frame_time_s = frame.optics.optics_epoch, self.heard.pace.frame_time_s
            self.steering = self.steering.sent(number, kind, move, epoch=epoch, frame_time_s=frame_time_s)
        return number

    def lease(self, now_ns: int) -> Lease | None:
        if not self._controls:
            return None
        return Lease(controller=self.mode.controller, expires_in_s=self.mode.expires_in_s(now_ns))

    def dose(self) -> Dose:
        return Dose(frames=self.routine.spent, budget=self.terms.dose_frames)
