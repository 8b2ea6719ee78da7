"""The agent in control of a lens with much play: what it gives up on ends where it began, by command and by lens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loop.harness import Agent, Rig, scope_for

PLAY_H = 0.5  # of the half depth of focus


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """In control, nothing shown yet but a frame that has not settled."""
    column = scope_for()
    scope = scope_for(hysteresis_m=PLAY_H * column.half_depth_of_focus_m, session="play")
    scope.certificate().save(tmp_path / "certificate.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
        agent = Agent(
            tmp_path, frames={"stale_after_s": 1000.0}, focus={"certificate": tmp_path / "certificate.json"}
        ).start()
    rig = Rig(agent, scope)
    rig.show()
    yield rig.take_control(600.0)
    agent.stop()


def rejected(rig: Rig) -> None:
    suggestion = rig.suggested()
    stays = rig.scope.set_working_distance(rig.scope.working_distance_m)
    rig.acknowledge(suggestion, stays, outcome="rejected")


def test_the_way_back_takes_the_play_up_in_two_moves(rig: Rig) -> None:
    began_m, play_m = rig.scope.working_distance_m, rig.scope.settings.hysteresis_m
    rig.obey(rig.suggested())
    rejected(rig)
    beyond = rig.suggested()
    assert beyond["kind"] == "restore"
    assert abs(beyond["working_distance_m"] - began_m) == pytest.approx(play_m / 2.0, rel=1e-3)
    rig.obey(beyond)
    last = rig.suggested()
    assert (last["kind"], last["working_distance_m"]) == ("restore", began_m)
    assert last["delta_working_distance_m"] == pytest.approx(began_m - beyond["working_distance_m"], abs=1e-9)
    rig.obey(last)
    assert rig.scope.working_distance_m == began_m
    assert abs(rig.scope.column.lens_m - began_m) < 1e-9  # the middle of where it may have stood
    assert rig.show()["phase"] == "held" and rig.suggestion is None


def test_a_second_move_is_not_asked_for_where_the_first_was_rejected(rig: Rig) -> None:
    rig.obey(rig.suggested())
    rejected(rig)
    rejected(rig)
    for _ in range(3):
        assert rig.show()["phase"] == "held" and rig.suggestion is None
