"""Several detectors in one stream, and streams at any rate: a whole agent on real sockets, time skipped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibration.twin.microscope import VirtualMicroscope
from tests.loop.harness import Agent, Rig, Stream, said, scope_for

Start = Callable[..., Agent]
PIXELS = 384 * 384


def test_two_detectors_are_kept_apart(start: Start) -> None:
    agent = start(engines={"live_budget": 0.0})
    secondary, backscattered = Stream(agent.wire), Stream(agent.wire, source="electron/BSE", scene_epoch=9)
    secondary.show()
    for n in range(4):
        ours, theirs = secondary.show(), backscattered.show()
        assert (ours["source"], theirs["source"]) == ("electron/SE2", "electron/BSE")
        assert (ours["evidence_frames"], theirs["sigma_m"]) == (1, None), n
    assert not agent.wire.told("hold") and not agent.wire.told("flag")


def test_each_detector_has_its_own_last_picture(start: Start) -> None:
    agent = start()
    secondary, backscattered = Stream(agent.wire), Stream(agent.wire, source="electron/BSE")
    still = secondary.picture()
    secondary.show(still)
    backscattered.show(still)  # the same pixels from two detectors are two pictures
    assert not agent.wire.told("flag")
    secondary.show(still)
    agent.wire.until(said("flag", code="frozen", state="raised"))
    backscattered.show(backscattered.picture())  # says nothing of the frozen one
    assert agent.wire.status()["flags"] == ["frozen"]


def test_each_detector_has_its_own_place_in_the_live_lane(agent: Agent) -> None:
    streams = [Stream(agent.wire, source=f"electron/{name}") for name in ("SE2", "BSE", "InLens")]
    for _ in range(30):
        for stream in streams:
            stream.send()
    for stream in streams:
        agent.wire.until(said("focus", frame=30, source=stream.optics.source))
    books = agent.wire.settled_books()
    assert books["processed"] + books["superseded"] == books["received"] == 90


def test_live_inspection_goes_round_the_detectors(start: Start) -> None:
    agent = start(engines={"live_budget": 0.5}, frames={"stale_after_s": 1000.0})
    streams = [Stream(agent.wire, source=f"electron/{name}") for name in ("SE2", "BSE")]
    for _ in range(4):
        for stream in streams:
            stream.show()
            agent.clock.skip(2.0)
    agent.wire.flush()
    read = [told["source"] for told in agent.wire.told("defects", lane="live")]
    assert read.count("electron/SE2") == read.count("electron/BSE") == 4


def test_a_detector_that_is_switched_off_is_replaced_by_the_one_that_is_on(start: Start) -> None:
    agent = start()
    secondary, backscattered = Stream(agent.wire), Stream(agent.wire, source="electron/BSE")
    secondary.show()
    agent.clock.skip(5.1)
    backscattered.show()
    agent.wire.until(said("hold", state="begin", reason="stale"))
    backscattered.show()
    agent.wire.until(said("hold", state="end", reason="stale"))
    assert backscattered.show()["evidence_frames"] == 1


# --- rates ---


def scope_at(frame_time_s: float, folder: Path) -> VirtualMicroscope:
    dwell_s = max(frame_time_s - 0.08, 1e-3) / (PIXELS * 1.1)
    scope = scope_for(session=f"{frame_time_s} s", dwell_s=dwell_s)
    scope.certificate().save(folder / "certificate.json")
    return scope


class Paced(Rig):
    """Its frames take their time on the agent's clock too."""

    def show(self, **changes: object) -> dict[str, object]:
        self.agent.clock.skip(self.scope.frame_time_s)
        return super().show(**changes)


@pytest.mark.parametrize("frame_time_s", [0.1, 30.0])
def test_fast_and_slow_scans_are_brought_into_focus_without_a_hold(
    start: Start, folder: Path, frame_time_s: float
) -> None:
    scope = scope_at(frame_time_s, folder)
    agent = start(focus={"certificate": folder / "certificate.json"})
    rig = Paced(agent, scope).take_control(3600.0)
    told = rig.converge()
    assert rig.off_h < 1.0 and told["evidence_frames"] <= 6
    assert scope.frame_time_s == pytest.approx(frame_time_s, rel=0.2)
    reasons = {hold["reason"] for hold in agent.wire.told("hold")}
    assert reasons <= {"no_frames"}  # a slow scan's first frame takes longer than five seconds
    assert not agent.wire.told("flag", code="operator")


def test_a_slow_scan_is_waited_for_before_it_is_stale(agent: Agent) -> None:
    Stream(agent.wire, frame_time_s=30.0).show()
    agent.clock.skip(140.0)
    agent.wire.listen(0.5)
    assert not agent.wire.told("flag", code="stale")
    agent.clock.skip(11.0)
    agent.wire.until(said("flag", code="stale", state="raised"))


def test_on_a_slow_scan_an_answer_is_waited_for_before_it_is_missed(start: Start, folder: Path) -> None:
    scope = scope_at(30.0, folder)
    agent = start(focus={"certificate": folder / "certificate.json"})
    rig = Paced(agent, scope).take_control(3600.0)
    for _ in range(3):
        rig.show()
        if rig.suggestion is not None:
            break
    assert rig.suggestion is not None and rig.suggestion["valid_for_s"] == pytest.approx(60.0, rel=0.01)
    agent.clock.skip(55.0)
    rig.wire.flush()
    assert not agent.wire.told("hold", reason="no_ack")
    agent.clock.skip(6.0)
    agent.wire.until(said("hold", state="begin", reason="no_ack"))


def test_a_stream_at_tv_rate_is_kept_up_with_by_leaving_frames_out(agent: Agent) -> None:
    stream = Stream(agent.wire, frame_time_s=0.04)
    pictures = [stream.picture() for _ in range(8)]
    for n in range(50):
        stream.send(pictures[n % 8], t_start_ns=n * 40_000_000)
        agent.wire.listen(0.04)
    agent.wire.until(said("focus", frame=50))
    books = agent.wire.settled_books()
    assert books["processed"] + books["superseded"] == books["received"] == 50
    scores = [told["score"] for told in agent.wire.told("focus")]
    assert len(scores) == books["processed"] > 10 and np.isfinite(scores).all()
