"""Lenses that do not do as they are told, closed over the second simulator: named, and brought back where they can."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agent.control import accounts, actuator, focus
from agent.control.dose import nothing_seen
from agent.control.envelope import Envelope
from agent.control.estimate import estimate
from agent.control.focus import Routine, Rules
from agent.control.instrument import Instrument
from agent.messages import Evidence, Kind, Optics, Phase
from tests.simulator import ALPHA_RAD, H_M, MARGIN, frame, scene
from tests.unit.test_control_estimate import WD_M, evidence, seen

RULES = Rules(Envelope(1e-3, 20e-3, step_m=100e-6, cumulative_m=200e-6))
KNOWN = Instrument(alpha_rad=ALPHA_RAD)
Lens = Callable[[list[float], float], float]


def sound(places: list[float], told: float) -> float:
    return told


def inverted_after(count: int) -> Lens:
    """From the move with this number on, the other way."""

    def lens(places: list[float], told: float) -> float:
        turned: list[float] = getattr(lens, "told", [0.0])
        way = told - turned[-1]
        lens.told = [*turned, told]  # type: ignore[attr-defined]
        return places[-1] + (way if len(turned) <= count else -way)

    return lens


def stuck_after(count: int) -> Lens:
    return lambda places, told: told if len(places) <= count else places[-1]


def stopped_at(low_h: float) -> Lens:
    return lambda places, told: max(told, low_h)


class Bench:
    """A scene, a lens, and the focus routine; all in h."""

    def __init__(self, lens: Lens, start_h: float, *, kind: str = "blobs", alpha_error: float = 0.0) -> None:
        self.lens, self.start_h, self.told = lens, start_h, [0.0]
        self.places = [0.0]
        self.known = Instrument(alpha_rad=ALPHA_RAD * (1.0 + alpha_error), alpha_sigma_rad=0.02 * ALPHA_RAD)
        self.objects, self.rng = scene(kind, 512 + 2 * MARGIN, 1), np.random.default_rng(1)
        self.routine: Routine = focus.begin()
        self.kinds: list[Kind] = []

    @property
    def off_h(self) -> float:
        return self.start_h + self.places[-1]

    def run(self, frames: int = 10) -> Routine:
        for number in range(frames):
            pixels = frame(self.objects, z_m=self.off_h * H_M, shift_px=(0.2 * number, 0.1), snr=1.8, rng=self.rng)
            shown = evidence(pixels, self.told[-1] * H_M, number)
            self.routine, wish = focus.observe(
                self.routine, shown, blur_px=abs(self.off_h) / 4, instrument=self.known, rules=RULES
            )
            if wish is not None and wish.kind is not Kind.ACQUIRE:
                self.kinds.append(wish.kind)
                self.told.append((wish.move.working_distance_m - WD_M) / H_M)
                self.places.append(self.lens(self.places, self.told[-1]))
            if self.routine.phase in (Phase.CONVERGED, Phase.HELD):
                break
        return self.routine


@pytest.mark.parametrize("start_h", [4.0, 12.0])
def test_a_lens_that_turns_round_after_the_bracket_is_called_inverted_and_brought_back(start_h: float) -> None:
    bench = Bench(inverted_after(1), start_h)
    assert (bench.run().phase, bench.routine.reason) == (Phase.HELD, "actuator_inverted")
    assert bench.kinds[-1] is Kind.RESTORE
    assert bench.off_h == pytest.approx(start_h, abs=0.05)  # the read-back is elsewhere: the lens counts


def test_a_lens_that_sticks_after_the_bracket_is_called_dead() -> None:
    bench = Bench(stuck_after(1), 12.0)
    assert (bench.run().phase, bench.routine.reason) == (Phase.HELD, "actuator_dead")


def test_a_lens_that_ends_early_and_reads_back_the_whole_way_is_called_clipped() -> None:
    bench = Bench(stopped_at(-1.0), 12.0)
    assert (bench.run().phase, bench.routine.reason) == (Phase.HELD, "clipped")
    assert bench.off_h == pytest.approx(12.0, abs=0.05)


@pytest.mark.parametrize(("start_h", "alpha_error"), [(-9.0, 0.0), (12.0, -0.3)])
def test_a_sound_lens_is_not_blamed_for_a_certificate_that_is_wrong_by_a_third(
    start_h: float, alpha_error: float
) -> None:
    bench = Bench(sound, start_h, alpha_error=alpha_error)
    assert bench.run().phase is Phase.CONVERGED
    assert abs(bench.off_h) < 1.0
    found = bench.routine.estimate
    assert found is not None and actuator.doubt(bench.routine.evidence, found, bench.known) is None


def test_a_lens_that_stuck_on_the_far_side_of_focus_is_doubted_before_focus_is_called_found() -> None:
    bench = Bench(stuck_after(1), -12.0)
    found = bench.run(frames=4).estimate
    assert found is not None and found.defocus_m is not None
    assert abs(found.defocus_m) < 0.5 * H_M and abs(bench.off_h) > 3.0  # the estimate alone is deceived
    doubted = actuator.doubt(bench.routine.evidence, found, bench.known)
    assert doubted is not None and doubted.code in (actuator.DEAD, actuator.CLIPPED)


def test_a_lens_that_was_always_inverted_finds_focus_all_the_same() -> None:
    bench = Bench(lambda places, told: -told, 6.0)
    assert bench.run().phase is Phase.CONVERGED
    assert abs(bench.off_h) < 0.5


def test_nothing_is_surprising_where_focus_stays_where_it_was_believed() -> None:
    frames = seen("blobs", [9.0, 3.0, 0.0])
    before = estimate(frames[:2], KNOWN)
    assert actuator.fault(frames, before, estimate(frames, KNOWN), instrument=KNOWN) is None


def test_without_a_known_magnification_no_lens_is_called_mirrored() -> None:
    frames = seen("blobs", [9.0, 3.0])
    assert not actuator.mirrored(frames, estimate(frames, KNOWN), KNOWN)


# --- why nothing is seen ---


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"beam_current_a": 10e-12, "dwell_time_s": 50e-9}, "noise_only"),  # 3 electrons
        ({"beam_current_a": 10e-12, "dwell_time_s": 50e-9, "averaging": "frame", "average_count": 8}, "featureless"),
        ({"beam_current_a": 300e-12, "dwell_time_s": 50e-9}, "featureless"),
        ({}, "featureless"),
    ],
)
def test_a_dose_too_low_to_show_a_texture_is_told_from_a_field_without_one(
    header: dict[str, float | str | int], reason: str
) -> None:
    assert nothing_seen(Optics(**header)) == reason  # type: ignore[arg-type]


def test_a_sound_lens_is_not_blamed_for_astigmatism_that_the_stigmators_took_away() -> None:
    """A frame at home and one from a probe with 2.5 h of astigmatism, the third corrected and in focus."""
    known = Instrument(
        alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.02 * ALPHA_RAD, stigmator_matrix_m=((2.5 * H_M, 0.0), (0.0, 2.5 * H_M))
    )
    objects, rng = scene("blobs", 512 + 2 * MARGIN, 1), np.random.default_rng(2)
    settings = ((-0.84, 0.0), (1.4, 0.0), (0.0, -1.0))  # defocus in h, stigmator x
    frames = []
    for number, (z_h, x) in enumerate(settings):
        astigmatism = (2.5 * (1.0 + x) * H_M, 0.0)
        pixels = frame(
            objects, z_m=z_h * H_M, astigmatism_m=astigmatism, shift_px=(0.2 * number, 0.1), snr=1.8, rng=rng
        )
        frames.append(evidence(pixels, (z_h + 0.84) * H_M, number, (x, 0.0)))
    found = estimate(frames, known)
    assert found.defocus_m is not None and abs(found.defocus_m) < 0.3 * H_M
    assert actuator.doubt(frames, found, known) is None


def test_a_stigmator_that_does_the_opposite_is_named_and_not_called_focus() -> None:
    """The same, but what should have been taken away was put on once more: 2.5 h became 5."""
    known = stigmated(2.5)
    objects, rng = scene("blobs", 512 + 2 * MARGIN, 1), np.random.default_rng(2)
    frames = []
    for number, (z_h, x) in enumerate(((-0.84, 0.0), (1.4, 0.0), (0.0, -1.0))):
        pixels = frame(objects, z_m=z_h * H_M, astigmatism_m=(2.5 * (1.0 - x) * H_M, 0.0), snr=1.8, rng=rng)
        frames.append(evidence(pixels, (z_h + 0.84) * H_M, number, (x, 0.0)))
    found = actuator.doubt(frames, estimate(frames, known), known)
    assert found is not None and found.code == actuator.INVERTED
    assert "stigmator x" in found.detail
    assert found.place_m == frames[-1].working_distance_m  # the lens did as it was told, and stays


def stigmated(way_h: float) -> Instrument:
    """A column of which each stigmator makes `way_h` in a whole turn."""
    matrix = ((way_h * H_M, 0.0), (0.0, way_h * H_M))
    return Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.02 * ALPHA_RAD, stigmator_matrix_m=matrix)


def test_a_lens_that_never_moved_is_not_called_in_focus_half_way_between_two_pictures_alike() -> None:
    """Told to go 2.9 h up and half the way back: three pictures of one place, which focus in their middle explains."""
    known = Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.02 * ALPHA_RAD)
    objects, rng = scene("blobs", 512 + 2 * MARGIN, 1), np.random.default_rng(3)
    told_h = (0.0, 2.9, 1.5)
    frames = [
        evidence(frame(objects, z_m=3.8 * H_M, snr=1.8, rng=rng), at * H_M, number) for number, at in enumerate(told_h)
    ]
    believed = replace(
        estimate(frames[:2], known), working_distance_m=frames[-1].working_distance_m, defocus_m=0.05 * H_M
    )
    found = actuator.doubt(frames, believed, known)
    assert found is not None and found.code == actuator.DEAD


def test_pictures_of_the_place_before_are_no_fault_of_the_lens() -> None:
    """A grabber one picture behind: under each header what the lens showed a move ago."""
    known = Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.02 * ALPHA_RAD)
    objects, rng = scene("blobs", 512 + 2 * MARGIN, 1), np.random.default_rng(4)
    told_h = (0.0, 8.0, -5.0, 3.0)
    frames = []
    for number, at in enumerate(told_h):
        z_h = -6.0 + told_h[max(number - 1, 0)]
        frames.append(evidence(frame(objects, z_m=z_h * H_M, snr=1.8, rng=rng), at * H_M, number))
    found = actuator.doubt(frames, estimate(frames, known), known)
    assert found is not None and found.code == actuator.INCONSISTENT


def test_chance_is_that_of_the_noise_where_the_account_is_right_and_more_where_the_scene_is_another() -> None:
    """The same frames, and then one of them replaced by one of another place of the specimen."""
    known = Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=0.02 * ALPHA_RAD)
    frames = seen("cloud", [4.0, -4.0, 0.0])
    other = seen("blobs", [4.0, -4.0, 0.0], seed=7)
    right, wrong = _chance(frames, known), _chance([other[0], *frames[1:]], known)
    assert right < 2.0 and wrong > 2.0 * right


def _chance(frames: list[Evidence], known: Instrument) -> float:
    search = accounts.Search(actuator.lens(frames, None, known, of=frames[-1]), [as_told(frames)])
    return search.chance(search.exactly(search.roughly())[0])


def as_told(frames: list[Evidence]) -> accounts.Account:
    told_m = np.array([e.working_distance_m for e in frames])
    return accounts.Account("as told", lambda _: told_m, (0.5,))
