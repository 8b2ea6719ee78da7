"""`Loop.step` is a function: the same frames, requests and times lead to the same decisions."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.clock import ManualClock
from agent.commands.run import assemble, terms
from agent.decide import Decider
from agent.loop import Loop
from agent.messages import Ack, Asked, Decision, Frame, Lane, Mode, ModeRequest, Outcome
from agent.settings import Settings, load
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import obey
from tests.loop.harness import endpoints, scope_for

Turn = tuple[Frame | None, list[Asked], int, float | None]  # frame, requests, now, what the last inspection took


def settings_for(folder: Path) -> Settings:
    scope_for().certificate().save(folder / "certificate.json")
    ends = {name: {"endpoint": end} for name, end in endpoints(folder).items()}
    focus = {"certificate": folder / "certificate.json"}
    return load(None, {"state_dir": folder, "focus": focus, "depth": {"publish": True}, **ends})


def with_a_loop(settings: Settings, use: Callable[[Loop], Any]) -> Any:
    """A loop that nobody turns; its suggestions are numbered alike each time."""
    with ExitStack() as stack:
        loop = assemble(settings, ManualClock(), stack)
        loop.decider = Decider(terms(settings), boot="recorded")
        return use(loop)


def live(loop: Loop, turns: list[Turn]) -> list[Decision]:
    """An eventful while: focusing, an operator, bad pictures, silence, a lapsed lease. The turns are written down."""
    scope, said = scope_for(session="live"), list[Decision]()
    now_ns, number = 1_000_000_000, 0

    def turn(frame: Frame | None = None, *asked: Asked, after_s: float = 0.3, spent_s: float | None = None) -> Decision:
        nonlocal now_ns
        now_ns += round(after_s * 1e9)
        turns.append((frame, list(asked), now_ns, spent_s))
        said.append(step(loop, turns[-1]))
        return said[-1]

    def show(**changes: Any) -> Frame:
        nonlocal number
        number += 1
        scope.wait_until(scope.settled_ns)
        pixels, optics = scope.frame()
        optics = msgspec.structs.replace(optics, **changes)
        return Frame(number=number, pixels=pixels, optics=optics, lane=Lane.LIVE, received_ns=now_ns)

    turn(None, ModeRequest(mode=Mode.CONTROL, lease_s=30.0, controller="rig"))
    answers: list[Asked] = []
    for n in range(14):
        if n == 6:
            scope.set_working_distance(scope.working_distance_m + 3e-6)
        decision = turn(show(stage_moving=n == 3), *answers)
        answers = [answer(scope, decision)] if decision.suggestion is not None else []
    for _ in range(2):  # one that is asked for, and one that waits for its turn
        turn(msgspec.structs.replace(show(), lane=Lane.INSPECT), spent_s=0.1)
        turn(show(), spent_s=0.3, after_s=0.6)
    turn(show(), after_s=11.0)
    turn(msgspec.structs.replace(show(), pixels=np.zeros((384, 384), np.uint8)))
    turn(None, after_s=8.0)
    turn(None, after_s=20.0)
    turn(show())
    return said


def step(loop: Loop, turn: Turn) -> Decision:
    frame, asked, now_ns, spent_s = turn
    return loop.step(frame, asked, now_ns, spent_s=spent_s)


def answer(scope: VirtualMicroscope, decision: Decision) -> Ack:
    suggestion, frame = decision.suggestion, decision.frame
    assert suggestion is not None and frame is not None
    told = {**msgspec.to_builtins(suggestion), "session": frame.session}
    told |= {"optics_epoch": frame.optics_epoch, "scene_epoch": frame.scene_epoch}
    done = obey(scope, told, age_s=0.0)
    return Ack(
        suggestion=suggestion.id,
        outcome=Outcome(done.outcome),
        working_distance_m=done.working_distance_m,
        optics_epoch=done.optics_epoch,
        t_settled_ns=done.t_settled_ns,
    )


def timeless(decision: Decision) -> bytes:
    """As it would be written down, but for how long it took."""
    return msgspec.json.encode(msgspec.structs.replace(decision, took_s={}, depth=None)) + heights(decision)


def heights(decision: Decision) -> bytes:
    return b"" if decision.depth is None else decision.depth.height_m.tobytes()


def test_the_same_turns_lead_to_the_same_decisions(folder: Path) -> None:
    settings, turns = settings_for(folder), list[Turn]()
    first = with_a_loop(settings, lambda loop: live(loop, turns))
    again = with_a_loop(settings, lambda loop: [step(loop, turn) for turn in turns])
    assert [timeless(decision) for decision in first] == [timeless(decision) for decision in again]
    lanes = {decision.frame.lane for decision in first if decision.frame and decision.defects is not None}
    assert lanes == set(Lane) and any(decision.depth is not None for decision in first)
    kinds = {decision.suggestion.kind for decision in first if decision.suggestion is not None}
    codes = {flag.code for decision in first for flag in decision.flags}
    assert {"probe", "correct"} <= kinds
    assert {"operator", "stage_moving", "blank", "stale", "lease_expired"} <= codes
