"""The agent in control of a microscope that does not always do as it is told: frames and answers by hand."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.journal import FILE, RETRY_S
from calibration.certificate import Limits
from calibration.twin.microscope import VirtualMicroscope
from tests.loop.harness import Agent, Message, Rig, said, scope_for

YIELD_S = 30.0  # skipped, never waited for
NO_ACK_S = 2.1  # an acknowledgement is missed after 2 s

Make = Callable[..., Rig]
SESSIONS = itertools.count(1)


@pytest.fixture(scope="module")
def steering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with the certificate of the column; it lives through all the tests."""
    folder = tmp_path_factory.mktemp("a")
    scope_for().certificate().save(folder / "certificate.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(folder))
        agent = Agent(
            folder,
            frames={"stale_after_s": 1000.0},
            focus={"certificate": folder / "certificate.json", "operator_yield_s": YIELD_S},
        ).start()
    yield agent
    agent.stop()


@pytest.fixture
def make(steering: Agent) -> Make:
    """A session with a microscope of its own, the agent in control of it."""

    def begin(scope: VirtualMicroscope | None = None, *, lease_s: float = 600.0) -> Rig:
        wire = steering.wire
        wire.change_mode("suggest")
        rig = Rig(steering, scope or scope_for(session=f"rig {next(SESSIONS)}"))
        rig.show()  # the first frame of a session has not settled
        wire.mark = len(wire.heard)
        return rig.take_control(lease_s)

    return begin


# --- as it should be ---


def test_a_suggestion_names_what_it_was_made_for(make: Make) -> None:
    rig = make()
    told = rig.suggested()
    assert (told["kind"], told["mode"], told["session"], told["optics_epoch"]) == (
        "probe",
        "control",
        rig.scope.session,
        1,
    )
    assert told["working_distance_m"] - rig.scope.working_distance_m == pytest.approx(told["delta_working_distance_m"])
    assert told["restore_to"] == rig.scope.working_distance_m
    assert told["based_on_frames"] == [rig.number] and told["event"] is not None and told["valid_for_s"] >= 5.0


def test_it_converges_and_stays_quiet(make: Make) -> None:
    rig = make()
    told = rig.converge()
    assert rig.off_h < 1.0 and told["evidence_frames"] <= 6
    for _ in range(3):
        assert rig.show()["phase"] == "converged" and rig.suggestion is None


def test_while_a_suggestion_is_out_no_other_is_made(make: Make) -> None:
    rig = make()
    rig.suggested()
    for _ in range(3):
        rig.show()
        assert rig.suggestion is None


def test_a_blur_that_comes_back_starts_the_routine_again(make: Make) -> None:
    rig = make()
    rig.converge()
    rig.scope.move_stage(defocus_change_m=6e-6)
    assert rig.show()["phase"] == "converged"  # one blurred frame may be a jolt
    assert any(rig.show()["phase"] == "measuring" for _ in range(3))
    rig.converge()
    assert rig.off_h < 1.0


def test_a_frame_scanned_while_the_optics_do_as_asked_is_passed_over_in_silence(make: Make) -> None:
    rig = make()
    for _ in range(2):
        suggestion = rig.suggested()
        rig.publish(*rig.scope.frame(), optics_epoch=None)  # before the answer
        moving_at_ns = rig.scope.now_ns
        rig.obey(suggestion)
        rig.publish(*rig.scope.frame(), optics_epoch=None, t_start_ns=moving_at_ns)  # and just after it
    assert not rig.wire.told("hold")
    rig.scope.wait_until(rig.scope.settled_ns)
    rig.publish(*rig.scope.frame(), optics_epoch=None)
    assert rig.wire.until(said("hold", state="begin"))["reason"] == "no_epochs"


# --- acknowledgements ---


def test_an_acknowledgement_that_never_comes_ends_in_a_hold(make: Make) -> None:
    rig = make()
    rig.suggested()
    rig.agent.clock.skip(NO_ACK_S)
    hold = rig.wire.until(said("hold", state="begin"))
    assert hold["reason"] == "no_ack"
    for _ in range(2):
        assert rig.show()["phase"] == "held" and rig.suggestion is None
    rig.scope.move_stage()  # another site is another matter
    rig.show()
    rig.wire.until(said("hold", state="end", reason="no_ack"))
    assert rig.suggested()["kind"] == "probe"


def test_an_acknowledgement_after_the_hold_changes_nothing(make: Make) -> None:
    rig = make()
    suggestion = rig.suggested()
    rig.agent.clock.skip(NO_ACK_S)
    rig.wire.until(said("hold", state="begin", reason="no_ack"))
    assert rig.obey(suggestion)["ok"]
    assert rig.show()["phase"] == "held" and rig.suggestion is None


def test_an_acknowledgement_that_comes_twice_counts_once(make: Make) -> None:
    rig = make()
    suggestion = rig.suggested()
    assert rig.obey(suggestion) == {"id": rig_id(rig), "ok": True}
    done = rig.acknowledge(suggestion, rig.scope.set_working_distance(rig.scope.working_distance_m))
    assert done["ok"] and done["duplicate"] is True
    rig.converge()
    acks = [row for row in rig.wire.ask("events", since=0, limit=1000)["events"] if row["topic"] == "ack"]
    assert [row["body"]["suggestion"] for row in acks].count(suggestion["id"]) == 1


def rig_id(rig: Rig) -> str:
    return rig.wire.last_id


def test_an_acknowledgement_of_nothing_is_refused_and_nothing_else_happens(make: Make) -> None:
    rig = make()
    rig.suggested()
    reply = rig.wire.ask("ack", suggestion="nobody-1", outcome="applied")
    assert (reply["ok"], reply["error"]["code"]) == (False, "unknown_suggestion")
    assert rig.show()["phase"] == "probing"


@pytest.mark.parametrize("outcome", ["done", "", 1, None])
def test_an_acknowledgement_without_an_outcome_is_refused_and_may_be_sent_again(make: Make, outcome: Any) -> None:
    rig = make()
    suggestion = rig.suggested()
    assert rig.wire.ask("ack", suggestion=suggestion["id"], outcome=outcome)["ok"] is False
    assert rig.obey(suggestion) == {"id": rig_id(rig), "ok": True}


@pytest.mark.parametrize(
    "lie",
    [
        {},  # the epoch it had
        {"optics_epoch": 2},  # an epoch that never comes
        {"optics_epoch": 2, "t_settled_ns": None},
        {"working_distance_m": None},  # does not say where it went
    ],
    ids=["same epoch", "next epoch", "next epoch and no time", "no read-back"],
)
def test_applied_is_not_believed_when_the_header_shows_that_nothing_moved(make: Make, lie: Message) -> None:
    rig = make()
    suggestion = rig.suggested()
    nothing = rig.scope.set_working_distance(rig.scope.working_distance_m)
    said_so = {"outcome": "applied", "working_distance_m": suggestion["working_distance_m"], **lie}
    assert rig.acknowledge(suggestion, nothing, **said_so)["ok"]
    rig.show()
    if "t_settled_ns" in lie:  # nothing says when it should have moved: the time for an answer is waited out
        rig.agent.clock.skip(NO_ACK_S)
        rig.show()
    hold = rig.wire.until(said("hold", state="begin"))
    assert hold["reason"] == "actuator_dead"
    assert rig.show()["phase"] == "held" and rig.suggestion is None


def test_a_read_back_that_the_header_contradicts_is_a_dead_actuator(make: Make) -> None:
    rig = make()
    suggestion = rig.suggested()
    rig.obey(suggestion, working_distance_m=suggestion["working_distance_m"] + 1e-6)
    rig.show()
    assert rig.wire.until(said("hold", state="begin"))["reason"] == "actuator_dead"


def test_a_controller_that_tells_only_the_outcome_is_no_operator(make: Make) -> None:
    rig = make()
    nothing_more = dict.fromkeys(("working_distance_m", "stigmator_x", "stigmator_y", "optics_epoch", "t_settled_ns"))
    for _ in range(8):
        if rig.show()["phase"] == "converged":
            break
        if rig.suggestion is not None:
            rig.obey(rig.suggestion, **nothing_more)
    assert rig.off_h < 1.0 and rig.show()["phase"] == "converged"
    assert not rig.wire.told("flag", code="operator")


def test_a_frame_from_before_the_change_that_comes_late_is_no_operator(make: Make) -> None:
    rig = make()
    suggestion = rig.suggested()
    late = rig.scope.frame()  # taken, but not sent yet
    assert rig.obey(suggestion)["ok"]
    rig.publish(*late)
    assert rig.suggestion is None and not rig.wire.told("flag", code="operator")
    rig.converge()
    assert rig.off_h < 1.0


def test_what_is_rejected_ends_in_a_hold_and_the_way_back_is_offered(make: Make) -> None:
    rig = make()
    began_m = rig.scope.working_distance_m
    rig.obey(rig.suggested())
    correction = rig.suggested()
    assert correction["kind"] == "correct"
    away = rig.scope.set_working_distance(rig.scope.working_distance_m)
    rig.acknowledge(correction, away, outcome="rejected")
    back = rig.suggested()
    assert (back["kind"], back["working_distance_m"]) == ("restore", began_m)
    assert rig.wire.until(said("hold", state="begin"))["reason"] == "rejected"
    rig.obey(back)
    assert rig.scope.working_distance_m == began_m
    assert rig.show()["phase"] == "held" and rig.suggestion is None


def test_the_way_back_is_offered_once(make: Make) -> None:
    rig = make()
    rig.obey(rig.suggested())
    for kind in ("correct", "restore"):
        suggestion = rig.suggested()
        assert suggestion["kind"] == kind
        away = rig.scope.set_working_distance(rig.scope.working_distance_m)
        rig.acknowledge(suggestion, away, outcome="rejected")
    for _ in range(3):
        assert rig.show()["phase"] == "held" and rig.suggestion is None


def test_what_is_superseded_is_asked_for_anew_and_the_third_time_yielded_to(make: Make) -> None:
    rig = make()
    for _ in range(3):
        suggestion = rig.suggested()
        stays = rig.scope.set_working_distance(rig.scope.working_distance_m)
        rig.acknowledge(suggestion, stays, outcome="superseded")
    rig.show()
    assert rig.wire.until(said("hold", state="begin"))["reason"] == "operator"
    assert rig.suggestion is None
    rig.agent.clock.skip(YIELD_S)
    rig.converge()


def test_limits_of_the_controller_end_in_a_hold_at_the_place_where_it_began(make: Make) -> None:
    scope = scope_for(
        session="limited", start_defocus_m=30e-6, own_limits=Limits(1e-3, 20e-3, step_m=100e-6, cumulative_m=200e-6)
    )
    rig = make(scope)
    here = scope.working_distance_m
    scope.settings = type(scope.settings)(
        **{**vars(scope.settings), "own_limits": Limits(here - 1e-6, here + 1e-6, step_m=1.0, cumulative_m=1.0)}
    )
    began_h = rig.off_h
    for _ in range(12):
        rig.show()
        if rig.suggestion is not None:
            rig.obey(rig.suggestion)
    assert rig.show()["phase"] == "held"
    assert rig.off_h <= began_h + 0.25
    assert rig.wire.told("hold", state="begin")[-1]["reason"] in ("clipped", "ambiguous", "sign_unknown")


# --- the operator ---


def test_a_hand_on_the_knob_is_yielded_to_and_what_it_did_is_evidence(make: Make) -> None:
    rig = make()
    rig.suggested()
    rig.scope.set_working_distance(rig.scope.working_distance_m + 3e-6)
    rig.show()
    hold = rig.wire.until(said("hold", state="begin", reason="operator"))
    assert hold["mode"] == "control"
    for _ in range(20):  # the yield uses up neither probes nor dose
        rig.show()
        assert rig.suggestion is None
    rig.agent.clock.skip(YIELD_S)
    rig.wire.until(said("hold", state="end", reason="operator"))
    assert rig.suggested()["kind"] == "correct"  # two working distances are a bracket, whoever made it
    rig.wire.until(said("flag", code="operator", state="cleared"))


def test_a_hand_on_the_knob_while_a_suggestion_is_out_wins(make: Make) -> None:
    rig = make()
    rig.obey(rig.suggested())
    suggestion = rig.suggested()
    rig.scope.set_working_distance(rig.scope.working_distance_m - 2e-6)
    assert rig.obey(suggestion)["ok"]  # superseded, by compare-and-set
    assert rig.show()["phase"] == "measuring"
    rig.wire.until(said("hold", state="begin", reason="operator"))
    rig.agent.clock.skip(YIELD_S)
    rig.converge()
    assert rig.off_h < 1.0


def test_a_hand_on_the_knob_does_not_end_a_hold(make: Make) -> None:
    rig = make()
    rig.suggested()
    rig.agent.clock.skip(NO_ACK_S)
    rig.wire.until(said("hold", state="begin", reason="no_ack"))
    rig.scope.set_working_distance(rig.scope.working_distance_m + 2e-6)
    rig.show()
    rig.agent.clock.skip(YIELD_S)
    for _ in range(3):
        assert rig.show()["phase"] == "held" and rig.suggestion is None


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("stage_moving", {"stage_moving": True}),
        ("stage_linked", {"stage_linked": True}),
        ("auto_function", {"auto_function_active": True}),
        ("blank", {"blanked": True}),
        ("frozen", {"frozen": True}),
        ("unknown_recipe", {"recipe": "nobody's"}),
    ],
)
def test_nothing_is_asked_of_a_microscope_that_says_it_is_busy(make: Make, code: str, fields: Message) -> None:
    rig = make()
    for _ in range(15):
        rig.show(**fields)
        assert rig.suggestion is None
    assert [hold["reason"] for hold in rig.wire.told("hold", state="begin")] == [code]
    rig.converge()
    assert rig.off_h < 1.0


# --- modes and leases ---


def test_a_lease_that_lapses_falls_back_to_suggest_and_is_told(make: Make) -> None:
    rig = make(lease_s=5.0)
    suggestion = rig.suggested()
    rig.agent.clock.skip(5.1)
    flag = rig.wire.until(said("flag", code="lease_expired", state="raised"))
    assert flag["mode"] == "suggest"
    assert rig.obey(suggestion)["ok"]
    for _ in range(3):
        rig.show()
        assert rig.suggestion is None or rig.suggestion["kind"] == "correct"  # never a probing move
    assert rig.wire.status()["lease"] is None
    rig.take_control()
    rig.wire.until(said("flag", code="lease_expired", state="cleared"))
    rig.converge()


def test_a_renewed_lease_goes_on_where_it_was(make: Make) -> None:
    rig = make(lease_s=5.0)
    rig.obey(rig.suggested())
    for _ in range(3):
        rig.agent.clock.skip(1.9)
        rig.take_control(5.0)
    assert rig.suggested()["kind"] == "correct"


def test_only_a_request_ends_the_operators_hold(make: Make) -> None:
    rig = make()
    rig.show()
    rig.wire.change_mode("hold")
    rig.agent.clock.skip(700.0)
    for _ in range(3):
        assert rig.show()["score"] is not None and rig.suggestion is None
    refused = rig.wire.ask("mode", mode="control", lease_s=60.0, controller="rig")
    assert (refused["ok"], refused["error"]["code"]) == (False, "held")
    assert rig.wire.status()["mode"] == "hold"
    rig.wire.change_mode("suggest")
    rig.take_control()
    rig.converge()


def test_while_observing_nothing_is_suggested(make: Make) -> None:
    rig = make()
    rig.wire.change_mode("observe")
    for change_m in (0.0, 2e-6, 2e-6, 2e-6):
        rig.scope.set_working_distance(rig.scope.working_distance_m + change_m)
        assert rig.show()["score"] is not None and rig.suggestion is None


def test_while_suggesting_a_bracket_made_by_others_is_used_and_no_probe_asked_for(make: Make) -> None:
    rig = make()
    rig.wire.change_mode("suggest")
    kinds = set()
    for change_m in (0.0, 3e-6, 3e-6):
        rig.scope.set_working_distance(rig.scope.working_distance_m + change_m)
        for _ in range(2):
            told = rig.show()
            kinds.add(rig.suggestion["kind"] if rig.suggestion else None)
    assert told["defocus_m"] == pytest.approx(rig.scope.defocus_m, abs=0.5 * rig.scope.half_depth_of_focus_m)
    assert kinds == {None, "correct"}


# --- the journal ---


def test_without_its_journal_the_agent_holds_looks_on_and_recovers(start: Callable[..., Agent], folder: Path) -> None:
    scope_for().certificate().save(folder / "certificate.json")
    agent = start(focus={"certificate": folder / "certificate.json"}, frames={"stale_after_s": 1000.0})
    rig = Rig(agent, scope_for()).take_control()
    rig.show()
    with closing(sqlite3.connect(folder / "state" / FILE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # as a full disk would, it refuses every write
        rig.obey(rig.suggested())
        hold = rig.wire.until(said("hold", state="begin", reason="journal_unavailable"))
        assert hold["event"] is None
        for _ in range(15):
            assert rig.show()["score"] is not None and rig.suggestion is None
        inspected = rig.show(inspect=True)
        assert inspected["score"] is not None
        other.execute("ROLLBACK")
    rig.agent.clock.skip(RETRY_S)
    assert rig.wire.until(said("hold", state="end", reason="journal_unavailable"))["event"] is not None
    rig.converge()
    assert rig.off_h < 1.0
    rows = rig.wire.ask("events", since=0, limit=1000)["events"]
    numbers = [row["event"] for row in rows]
    assert numbers == sorted(set(numbers)) and "journal" in [row["topic"] for row in rows]
