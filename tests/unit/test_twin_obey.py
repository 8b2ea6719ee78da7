"""Compare-and-set on the twin: what becomes of a suggestion."""

from typing import Any

import pytest

from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import acknowledgement, obey
from calibration.twin.script import Action, Do, act, chain, dropped, malformed_before, repeated


@pytest.fixture
def scope() -> VirtualMicroscope:
    return VirtualMicroscope(MicroscopeSettings(specimen="flat", shape=(64, 64), session="s"))


def suggestion(scope: VirtualMicroscope, **fields: Any) -> dict[str, Any]:
    return {"id": "1", "session": "s", "optics_epoch": scope.optics_epoch, "scene_epoch": scope.scene_epoch, **fields}


def test_a_suggestion_for_the_present_state_is_applied_and_read_back(scope: VirtualMicroscope) -> None:
    wanted = scope.working_distance_m + 3e-6
    done = obey(scope, suggestion(scope, kind="probe", working_distance_m=wanted, stigmator_x=0.05), age_s=0.1)
    ack = acknowledgement({"id": "1"}, done)
    assert (ack["outcome"], ack["working_distance_m"], ack["stigmator_x"]) == ("applied", wanted, 0.05)
    assert ack["optics_epoch"] == scope.optics_epoch == 3
    assert ack["t_settled_ns"] == 200_000_000


@pytest.mark.parametrize(
    "stale", [{"session": "other"}, {"optics_epoch": 0}, {"scene_epoch": 9}, {"optics_epoch": None}]
)
def test_a_suggestion_for_another_state_is_superseded_and_moves_nothing(
    scope: VirtualMicroscope, stale: dict[str, Any]
) -> None:
    before = scope.working_distance_m
    told = suggestion(scope, working_distance_m=before + 3e-6) | stale
    assert obey(scope, told, age_s=0.1).outcome == "superseded"
    assert scope.working_distance_m == before


def test_a_suggestion_that_waited_too_long_is_expired(scope: VirtualMicroscope) -> None:
    told = suggestion(scope, working_distance_m=scope.working_distance_m + 1e-6, valid_for_s=2.0)
    assert obey(scope, told, age_s=2.1).outcome == "expired"
    assert scope.optics_epoch == 1


def test_its_own_limits_clip_or_reject(scope: VirtualMicroscope) -> None:
    assert obey(scope, suggestion(scope, stigmator_x=3.0), age_s=0).outcome == "clipped"
    too_far = suggestion(scope, working_distance_m=scope.working_distance_m + 1e-3)
    assert obey(scope, too_far, age_s=0).outcome == "rejected"


@pytest.mark.parametrize("value", [None, "far", True, [1]])
def test_a_value_that_is_no_number_moves_nothing(scope: VirtualMicroscope, value: object) -> None:
    assert obey(scope, suggestion(scope, working_distance_m=value), age_s=0).outcome == "applied"
    assert scope.optics_epoch == 1


def test_verify_moves_nothing_and_is_applied_at_once(scope: VirtualMicroscope) -> None:
    done = obey(scope, suggestion(scope, kind="verify", working_distance_m=scope.working_distance_m), age_s=0)
    assert (done.outcome, done.optics_epoch, done.t_settled_ns) == ("applied", 1, 0)


@pytest.mark.parametrize(("wish", "count"), [("average 8 frames", 8), ("4 averages of the site", 4), ("a roi", 1)])
def test_acquire_averages_as_many_frames_as_it_names(scope: VirtualMicroscope, wish: str, count: int) -> None:
    obey(scope, suggestion(scope, kind="acquire", acquire=wish), age_s=0)
    assert scope.averages == count


def test_exposure_is_the_scenes_change_not_the_optics(scope: VirtualMicroscope) -> None:
    obey(scope, suggestion(scope, kind="exposure", brightness=0.45, contrast=0.6), age_s=0)
    assert (scope.brightness, scope.contrast, scope.optics_epoch, scope.scene_epoch) == (0.45, 0.6, 1, 2)


def test_an_operators_hand_turns_what_the_script_says(scope: VirtualMicroscope) -> None:
    before = scope.working_distance_m
    for do, value in ((Do.WORKING_DISTANCE, 2e-6), (Do.STIGMATOR_Y, 0.1), (Do.CONTRAST, -0.1), (Do.FREEZE_SILENTLY, 1)):
        act(scope, Action(0, do, value))
    assert scope.working_distance_m == pytest.approx(before + 2e-6)
    assert (scope.column.stigmator_y, scope.contrast, scope.frozen, scope.tell_frozen) == (0.1, 0.4, True, False)
    act(scope, Action(0, Do.STICK))
    z = scope.column.lens_m
    act(scope, Action(0, Do.WORKING_DISTANCE, 2e-6))
    assert scope.column.lens_m == z


def test_faults_in_the_stream_fall_on_the_frames_they_name() -> None:
    through = chain(malformed_before(1, junk=[b"x"]), repeated(2), dropped(3))
    sent = [[bytes(m[0]) for m in through(n, [str(n).encode()])] for n in range(4)]
    assert sent == [[b"0"], [b"x", b"1"], [b"2", b"2"], []]
