"""One episode of the focus bench: methods that know the way, methods that do not, the agent, and faults."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agent.commands.focus_agent import made
from calibration.evaluate import focus_episode
from calibration.evaluate.focus_episode import run
from calibration.evaluate.focus_faults import FAULTS
from calibration.evaluate.focus_grid import Case, draw
from calibration.evaluate.focus_mapfost import plan as mapfost
from calibration.evaluate.focus_method import End
from calibration.evaluate.focus_rows import Row
from calibration.evaluate.focus_search import Column, Ended, Go, Search, Searching, Shown
from calibration.evaluate.focus_sharpness import brent, sweep


def easy(defocus_h: float = 4.0, *, size: int = 192, latency_s: float = 0.0, **changes: object) -> Case:
    """A clear picture of tin balls, a column without faults of its own."""
    case = draw(2, seed=1)
    settings = replace(
        case.settings, specimen="tin-balls", shape=(size, size), snr=4.0, pixel_size_m=10e-9, alpha_rad=5e-3,
        accelerating_voltage_v=5e3, hysteresis_m=0.0, astigmatism_m=(0.0, 0.0), drift_px_per_frame=(0.2, 0.0),
        stigmator_matrix_m=((20e-6, 0.0), (0.0, 20e-6)), topography=False,
    )  # fmt: skip
    h_m = settings.half_depth_of_focus_m
    settings = replace(settings, start_defocus_m=defocus_h * h_m, **changes)  # type: ignore[arg-type]
    return replace(case, settings=settings, defocus_h=defocus_h, latency_s=latency_s, alpha_error=0.0)


def steps(*ways_h: float, end: End = End.CONVERGED, correct: bool = True) -> Searching:
    """Goes these ways from where it stands, one after the other, and believes to be there."""

    def plan(column: Column, first: Shown) -> Search:
        place = first.working_distance_m
        for way in ways_h:
            place += way * column.h_m
            yield Go(place, correct=correct)
        return Ended(end, "" if end is End.CONVERGED else "lost")

    return Searching("steps", plan)


def test_a_method_that_knows_the_way_ends_in_focus() -> None:
    row = run(easy(4.0), steps(-4.0))
    assert (row.end, row.frames, row.moves, row.wrong_moves) == (End.CONVERGED, 2, 1, 0)
    assert row.start_h == pytest.approx(4.0) and row.residual_h == pytest.approx(0.0, abs=1e-6)
    assert row.worse_h == pytest.approx(-4.0) and row.scans == 2 and row.seconds > 0.0
    assert row.electrons > 0.0 and len(row.took_ms) == 2


def test_a_correction_the_wrong_way_is_counted_and_a_probe_is_not() -> None:
    wrong = run(easy(4.0), steps(3.0, -7.0))
    assert wrong.wrong_moves == 1 and abs(wrong.residual_h) < 1e-6
    assert run(easy(4.0), steps(3.0, -7.0, correct=False)).wrong_moves == 0
    assert run(easy(4.0), steps(3.0)).worse_h == pytest.approx(3.0)


def test_what_is_held_is_told_with_its_reason() -> None:
    row = run(easy(4.0), steps(end=End.HELD))
    assert (row.end, row.reason, row.moves) == (End.HELD, "lost", 0)


def test_a_method_that_never_ends_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focus_episode, "SCANS", 4)
    row = run(easy(4.0), steps(*[0.1] * 50))
    assert (row.end, row.scans) == (End.FAILED, 4) and "4 frames" in row.reason


def test_frames_from_before_a_late_move_are_no_evidence() -> None:
    """The knob is turned half a frame after the suggestion, while the next frame is scanned."""
    case = easy(4.0)
    row = run(replace(case, latency_s=0.5 * case.settings.frame_time_s), steps(-4.0))
    assert row.frames == 2 and row.scans > 2
    assert row.end is End.CONVERGED and abs(row.residual_h) < 1e-6


def test_a_stage_move_is_nobodys_mistake() -> None:
    row = run(easy(4.0), steps(0.0, 0.0, 0.1), FAULTS["stage move"])
    assert abs(row.moved_h) == pytest.approx(5.0)
    assert abs(row.worse_h) < 0.2


def test_moves_beyond_one_step_are_cut_and_not_refused() -> None:
    case = easy(4.0)
    limits = replace(case.settings.limits, step_m=2.0 * case.h_m)
    row = run(replace(case, settings=replace(case.settings, own_limits=limits)), steps(-4.0))
    assert row.residual_h == pytest.approx(2.0) and row.moves == 1


# --- baselines ---


def test_a_sweep_finds_the_sharpest_picture() -> None:
    row = run(easy(9.0), Searching("sweep", sweep))
    assert row.end is End.CONVERGED and row.frames in (24, 25) and abs(row.residual_h) < 1.0


def test_brent_finds_it_in_fewer() -> None:
    row = run(easy(9.0), Searching("brent", brent))
    assert row.end is End.CONVERGED and row.frames < 20 and abs(row.residual_h) < 1.0


def test_the_authors_package_brings_defocus_and_astigmatism_home() -> None:
    """mapfost itself, as it is on PyPI: both signs of each component."""
    case = easy(-3.0, size=400)
    h = case.h_m
    case = replace(case, settings=replace(case.settings, astigmatism_m=(-1.0 * h, 1.5 * h)))
    row = run(case, Searching("mapfost", mapfost()))
    assert row.end is End.CONVERGED and row.frames <= 10
    assert abs(row.residual_h) < 0.5 and row.astigmatism_h < 0.5 < row.start_astigmatism_h


class Package:
    """A stand-in of the same signature: it knows, or it cannot align."""

    def __init__(self, answer: tuple[float, float, float] | None) -> None:
        self.answer, self.asked = answer, list[tuple[list[float], dict[str, object]]]()

    def est_aberr(self, test_ims: list[np.ndarray], test_aberrs: list[float], **how: object) -> object:
        self.asked.append((test_aberrs, how))
        if self.answer is None:
            return False, how["crop_ref"], None
        found, self.answer = self.answer, (0.0, 0.0, 0.0) if len(self.asked) % 4 == 0 else self.answer
        return True, how["crop_ref"], type("Answer", (), {"x": np.array(found)})()


def test_the_package_is_asked_as_it_must_be() -> None:
    package, case = Package((4.0, 0.0, 0.0)), easy(4.0, size=330)
    row = run(case, Searching("mapfost", mapfost(package)))
    assert row.residual_h == pytest.approx(0.0, abs=1e-6) and row.end is End.CONVERGED
    steps_h, how = package.asked[0]
    assert steps_h == pytest.approx([-8.0, 8.0])
    assert how["num_aperture"] == pytest.approx(0.25 * 5e-3)
    corners = [asked[1]["crop_ref"] for asked in package.asked[:4]]
    assert {(x, y) for x, y in corners} == {(32, 32), (42, 32), (32, 42), (42, 42)}


def test_without_an_answer_it_goes_back_and_says_so() -> None:
    row = run(easy(4.0, size=330), Searching("mapfost", mapfost(Package(None))))
    assert (row.end, row.reason) == (End.HELD, "no crop could be aligned")
    assert row.residual_h == pytest.approx(row.start_h)


# --- the agent ---


@pytest.fixture(scope="module")
def agent() -> Callable[[Case, str], Row]:
    method = made()
    return lambda case, fault: run(case, method, FAULTS[fault])


def test_the_agent_ends_in_focus_and_its_estimates_stand_beside_the_truth(agent: Callable[[Case, str], Row]) -> None:
    row = agent(easy(5.0, size=400), "")
    assert row.end is End.CONVERGED and abs(row.residual_h) < 0.5
    assert 2 <= row.frames <= 6 and row.method == "beamside"
    assert row.said and all(abs(each.defocus_h - each.true_h) < 2.0 for each in row.said)
    assert row.said[0].evidence == 2, "one frame has no sign"


def test_the_same_episode_twice_is_the_same(agent: Callable[[Case, str], Row]) -> None:
    case = easy(-2.0, size=320)
    first, again = (replace(agent(case, ""), took_ms=(), method_s=0.0, twin_s=0.0) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("fault", "reason"), [("recursive averaging", "averaging"), ("blanked", "blank"), ("frozen silently", "frozen")]
)
def test_the_agent_holds_where_frames_are_no_evidence(
    agent: Callable[[Case, str], Row], fault: str, reason: str
) -> None:
    row = agent(easy(5.0, size=256), fault)
    assert (row.end, row.reason) == (End.HELD, reason)


def test_torn_messages_do_not_end_it(agent: Callable[[Case, str], Row]) -> None:
    row = agent(easy(3.0, size=320), "torn messages")
    assert row.end is End.CONVERGED and abs(row.residual_h) < 1.0


@pytest.mark.parametrize("fault", ["blanked", "frozen silently"])
def test_a_stream_that_shows_nothing_in_the_middle_of_a_bracket_does_not_leave_the_lens_at_the_probe(
    agent: Callable[[Case, str], Row], fault: str
) -> None:
    row = agent(easy(5.0, size=400), fault)
    assert (row.end, row.reason) == (End.HELD, {"blanked": "blank"}.get(fault, "frozen"))
    assert row.moves == 2  # the probe, and the way back
    assert row.residual_h == pytest.approx(row.start_h, abs=0.05)
