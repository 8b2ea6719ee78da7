"""The small pure controllers: mode, envelope, admission, steering, standing conditions."""

import numpy as np
import pytest

from agent import flags
from agent.control.admission import Stream, follow, standing_reason
from agent.control.envelope import Envelope, Move, gate
from agent.control.mode import begin, next_mode
from agent.control.standing import Standing
from agent.control.steering import Steering, acknowledge
from agent.messages import FLAG_CODES, HOLD_REASONS, Ack, Frame, Kind, Lane, Mode, ModeRequest, Optics, Outcome

S = 1_000_000_000
ENVELOPE = Envelope(1e-3, 10e-3, step_m=20e-6, cumulative_m=30e-6)
HERE = Move(5e-3, 0.1, -0.1)


def asked(mode: Mode, lease_s: float | None = None, controller: str | None = None) -> ModeRequest:
    return ModeRequest(mode=mode, lease_s=lease_s, controller=controller)


def header(number: int, t_s: float, optics: int = 1, scene: int = 1, **more: object) -> Frame:
    known = {
        "session": "a",
        "source": "electron/SE2",
        "optics_epoch": optics,
        "scene_epoch": scene,
        "frame_time_s": 0.3,
    }
    known |= {"t_start_ns": round(t_s * S), "working_distance_m": 5e-3, "pixel_size_m": 1e-8, **more}
    pixels = np.zeros((2, 2), np.uint8)
    return Frame(number=number, pixels=pixels, optics=Optics(**known), lane=Lane.LIVE, received_ns=0)  # type: ignore[arg-type]


# --- mode ---


def test_control_is_lent_and_lapses_back_to_what_stood_before() -> None:
    state = next_mode(begin(Mode.OBSERVE), asked(Mode.CONTROL, 5.0, "rig"), 0)
    assert (state.mode, state.expires_in_s(2 * S)) == (Mode.CONTROL, 3.0)
    assert next_mode(state, None, 4 * S).mode is Mode.CONTROL
    assert next_mode(state, None, 5 * S).mode is Mode.OBSERVE


def test_a_lease_is_renewed_by_its_holder_only() -> None:
    state = next_mode(begin(Mode.SUGGEST), asked(Mode.CONTROL, 5.0, "rig"), 0)
    assert next_mode(state, asked(Mode.CONTROL, 5.0, "other"), S) == state
    assert next_mode(state, asked(Mode.CONTROL, 5.0, "rig"), S).expires_ns == 6 * S
    assert next_mode(state, asked(Mode.CONTROL, 5.0, "other"), 6 * S).controller == "other"


def test_an_operators_hold_outlasts_leases_and_ends_by_a_request() -> None:
    held = next_mode(begin(Mode.SUGGEST), asked(Mode.HOLD), 0)
    assert next_mode(held, None, 10_000 * S).mode is Mode.HOLD
    assert next_mode(held, asked(Mode.CONTROL, 5.0, "rig"), S).mode is Mode.HOLD
    assert next_mode(held, asked(Mode.SUGGEST), S).mode is Mode.SUGGEST


# --- envelope ---


def test_a_move_inside_the_envelope_passes_unchanged() -> None:
    wanted = Move(5.01e-3, 0.2, 0.0)
    assert gate(wanted, HERE, 5e-3, ENVELOPE) == wanted


@pytest.mark.parametrize(
    ("wanted_m", "now_m", "home_m", "allowed_m", "limit"),
    [
        (5.1e-3, 5e-3, 5e-3, 5.02e-3, "limit_step"),
        (5.04e-3, 5.025e-3, 5e-3, 5.03e-3, "limit_cumulative"),
        (0.99e-3, 1.005e-3, 1.005e-3, 1e-3, "limit_absolute"),
    ],
)
def test_each_limit_shortens_a_move_and_is_named(
    wanted_m: float, now_m: float, home_m: float, allowed_m: float, limit: str
) -> None:
    passed = gate(Move(wanted_m, 0.0, 0.0), Move(now_m, 0.0, 0.0), home_m, ENVELOPE)
    assert passed.working_distance_m == pytest.approx(allowed_m)
    assert limit in passed.limits


def test_stigmators_have_limits_too() -> None:
    passed = gate(Move(5e-3, 0.9, -1.4), Move(5e-3, 0.0, -0.9), 5e-3, ENVELOPE)
    assert (passed.stigmator_x, passed.stigmator_y) == (0.5, -1.0)
    assert set(passed.limits) == {"limit_step", "limit_absolute"}


# --- admission ---


def test_a_frame_is_evidence_once_its_epoch_has_settled() -> None:
    stream, reason, new = follow(Stream(), header(1, 10.0), 0.2)
    assert (reason, new) == ("settling", True)
    stream, reason, new = follow(stream, header(2, 10.3), 0.2)
    assert (reason, new) == (None, False)


def test_an_acknowledgement_tells_when_it_had_settled() -> None:
    stream, _, _ = follow(Stream(), header(1, 10.0), 0.2)
    stream = stream.acknowledged(2, 11 * S)
    assert follow(stream, header(2, 10.9, optics=2), 0.2)[1] == "settling"
    assert follow(stream, header(2, 11.0, optics=2), 0.2)[1] is None


def test_a_slow_scan_is_not_thrown_away_for_a_short_settling() -> None:
    assert follow(Stream(), header(1, 10.0, frame_time_s=30.0), 0.2)[1] is None


def test_repeated_jumping_and_backward_frames_are_named() -> None:
    stream, _, _ = follow(Stream(), header(5, 10.0), 0.0)
    assert follow(stream, header(5, 10.3), 0.0)[1] == "frame_repeated"
    assert follow(stream, header(4, 10.3), 0.0)[1] == "frame_jumped"
    assert follow(stream, header(50_000, 10.3), 0.0)[1] == "frame_jumped"
    assert follow(stream, header(6, 9.0), 0.0)[1] == "clock_jump"


def test_a_session_that_comes_back_is_a_second_producer() -> None:
    stream, _, _ = follow(Stream(), header(1, 10.0), 0.0)
    stream, _, new = follow(stream, header(1, 10.1, session="b"), 0.0)
    assert new
    assert follow(stream, header(2, 10.2), 0.0)[1] == "two_sessions"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"blanked": True}, "blank"),
        ({"frozen": True}, "frozen"),
        ({"auto_function_active": True}, "auto_function"),
        ({"stage_moving": True}, "stage_moving"),
        ({"stage_linked": True}, "stage_linked"),
        ({"averaging": "recursive", "average_count": 4}, "averaging"),
        ({"complete": False}, "averaging"),
        ({"gamma": 1.8}, "nonlinear"),
        ({"source": "ion/ICE"}, "not_electron"),
        ({"optics_epoch": None}, "no_epochs"),
        ({"pixel_size_m": None}, "no_pixel_size"),
        ({}, None),
    ],
)
def test_headers_that_forbid_evidence_are_named(field: dict[str, object], reason: str | None) -> None:
    assert standing_reason(header(1, 1.0, **field).optics) == reason


# --- steering ---


def sent() -> Steering:
    return Steering().sent("7", Kind.CORRECT, HERE, frame_time_s=0.3, epoch=3)


def test_a_suggestion_is_overdue_after_two_seconds_or_two_slow_frames() -> None:
    assert not sent().waiting(0).overdue(round(1.9 * S))
    assert sent().waiting(0).overdue(2 * S)
    assert not Steering().sent("7", Kind.PROBE, HERE, frame_time_s=30.0, epoch=3).waiting(0).overdue(59 * S)


def test_the_turn_that_made_a_suggestion_may_take_as_long_as_it_does() -> None:
    """Its answer is waited for from the next turn on: an estimate on a busy machine must not eat into that time."""
    assert not sent().overdue(60 * S)
    later = sent().waiting(60 * S)
    assert later.waiting(61 * S) == later
    assert not later.overdue(round(61.9 * S)) and later.overdue(62 * S)


def test_an_applied_change_is_expected_in_the_next_header() -> None:
    done, trouble = acknowledge(sent(), Ack(suggestion="7", outcome=Outcome.APPLIED, optics_epoch=4))
    assert (done.out, done.expected_m, done.expected_epoch, trouble) == (None, HERE.working_distance_m, 4, None)
    assert done.explains(9e-3, 4)


def test_rejections_end_the_routine_and_clipping_does_after_three() -> None:
    assert acknowledge(sent(), Ack(suggestion="7", outcome=Outcome.REJECTED))[1] == "rejected"
    steering = Steering()
    reasons = []
    for _ in range(3):
        steering = steering.sent("7", Kind.CORRECT, HERE, frame_time_s=None, epoch=3)
        ack = Ack(suggestion="7", outcome=Outcome.APPLIED, working_distance_m=4.9e-3)
        steering, reason = acknowledge(steering, ack)
        reasons.append(reason)
    assert reasons == [None, None, "clipped"]


def test_an_acknowledgement_of_another_suggestion_changes_nothing() -> None:
    assert acknowledge(sent(), Ack(suggestion="6", outcome=Outcome.APPLIED)) == (sent(), None)


# --- conditions ---


def test_conditions_are_told_once_when_they_begin_and_once_when_they_end() -> None:
    standing = Standing(flags.severity, flags.holds)
    standing.put("stale", "2 s")
    standing.put("stale", "3 s")
    assert [(f.code, f.state) for f in standing.flags()] == [("stale", "raised")]
    assert [(h.state, h.reason) for h in standing.hold_edges(1)] == [("begin", "stale")]
    standing.put("frame_repeated")
    assert standing.hold_edges(2) == ()
    standing.drop("stale")
    assert [(f.code, f.state) for f in standing.flags()] == [("frame_repeated", "raised"), ("stale", "cleared")]
    assert [(h.state, h.reason) for h in standing.hold_edges(3)] == [("end", "stale")]


def test_every_code_of_the_closed_list_stands_in_the_table() -> None:
    assert set(flags.CONDITIONS) == set(FLAG_CODES)
    assert all(code in HOLD_REASONS for code, condition in flags.CONDITIONS.items() if condition.holds)


def test_all_that_stops_advice_is_named_not_only_the_first() -> None:
    standing = Standing(flags.severity, flags.holds)
    for code in ("saturated", "frame_repeated", "operator"):
        standing.put(code)
    assert (standing.holding(), standing.holding_all()) == ("saturated", ("saturated", "operator"))
