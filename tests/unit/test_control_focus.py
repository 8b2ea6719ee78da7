"""The focus routine closed over the second simulator: what it asks for is applied, and the next frame shows it."""

from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import pytest

from agent.control import doubting, focus
from agent.control.belief import Prior
from agent.control.envelope import Envelope, Move
from agent.control.estimate import Estimate
from agent.control.focus import Routine, Rules, Wish
from agent.control.instrument import Instrument
from agent.evidence import coarser
from agent.messages import Evidence, Kind, Phase
from tests.simulator import ALPHA_RAD, H_M, MARGIN, frame, scene
from tests.unit.test_control_estimate import evidence

WIDE = Envelope(1e-3, 20e-3, step_m=100e-6, cumulative_m=200e-6)
KNOWN = Instrument(alpha_rad=ALPHA_RAD)


@dataclass
class Bench:
    """A scene, where focus is, and a routine that steers towards it."""

    kind: str
    start_h: float
    rules: Rules = field(default_factory=lambda: Rules(WIDE))
    instrument: Instrument = KNOWN
    seed: int = 1
    dead: bool = False
    play_h: float = 0.0  # of the lens
    far: bool = False  # frames bring their coarse half too
    lens_m: float = 0.0
    offset_m: float = 0.0
    taken: int = 0
    wishes: list[Wish] = field(default_factory=list)
    routine: Routine = field(default_factory=focus.begin)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.objects = scene(self.kind, 512 + 2 * MARGIN, self.seed)

    @property
    def defocus_h(self) -> float:
        return self.start_h + (0.0 if self.dead else self.lens_m / H_M)

    def look(self) -> Evidence:
        half = self.play_h * H_M / 2
        self.lens_m = float(np.clip(self.lens_m, self.offset_m - half, self.offset_m + half))
        shift = (0.2 * self.taken, 0.1 * self.taken)
        pixels = frame(self.objects, z_m=self.defocus_h * H_M, shift_px=shift, snr=1.8, rng=self.rng)
        self.taken += 1
        fine = evidence(pixels, self.offset_m, self.taken)
        return msgspec.structs.replace(fine, coarse=coarser(fine, pixels)) if self.far else fine

    def run(self, turns: int = 12) -> Phase:
        for _ in range(turns):
            seen = self.look()
            blur_px = abs(self.defocus_h) / 4
            self.routine, wish = focus.observe(
                self.routine, seen, blur_px=blur_px, instrument=self.instrument, rules=self.rules
            )
            if wish is not None:
                self.wishes.append(wish)
            if wish is not None and wish.kind is not Kind.ACQUIRE:
                self.offset_m = wish.move.working_distance_m - 5e-3
            if self.routine.phase in (Phase.CONVERGED, Phase.HELD) or wish is None:
                break
        return self.routine.phase


@pytest.mark.parametrize("start_h", [-25.0, -11.0, -4.0, 0.2, 7.0, 12.0])
def test_focus_is_found_in_six_frames_and_verified(start_h: float) -> None:
    bench = Bench("blobs", start_h)
    assert bench.run() is Phase.CONVERGED
    assert abs(bench.defocus_h) < 0.5
    assert bench.taken <= 6
    assert bench.routine.verified_m == pytest.approx(5e-3 + bench.offset_m, abs=0.5 * H_M)  # the rest needs no picture


@pytest.mark.parametrize("start_h", [-70.0, 45.0])
def test_focus_is_found_from_far_away_by_a_quarter_of_the_resolution(start_h: float) -> None:
    bench = Bench("blobs", start_h, Rules(Envelope(1e-3, 20e-3, step_m=200e-6, cumulative_m=400e-6)), far=True)
    assert bench.run() is Phase.CONVERGED
    assert abs(bench.defocus_h) < 0.5
    assert bench.taken <= 7


@pytest.mark.parametrize("start_h", [-9.0, 6.0])
def test_the_play_of_the_lens_is_allowed_for(start_h: float) -> None:
    """Without it the lens would stay half of the play short of focus, 0.75 h."""
    known = Instrument(alpha_rad=ALPHA_RAD, hysteresis_m=1.5 * H_M)
    bench = Bench("blobs", start_h, instrument=known, play_h=1.5)
    assert bench.run() is Phase.CONVERGED
    assert abs(bench.defocus_h) < 0.4


def test_an_answer_that_does_not_go_with_the_blur_is_not_believed() -> None:
    bench = Bench("blobs", 2.0)
    for offset_m in (0.0, 4e-6):
        bench.offset_m = offset_m
        bench.routine, wish = focus.observe(
            bench.routine, bench.look(), blur_px=15.0, instrument=KNOWN, rules=bench.rules
        )
    assert wish is not None
    assert wish.kind is Kind.PROBE
    assert bench.routine.estimate is not None
    assert bench.routine.estimate.reason == "ambiguous"


def test_a_flat_field_is_held_without_a_move_and_asks_for_a_better_frame() -> None:
    bench = Bench("flat", 6.0)
    assert bench.run() is Phase.HELD
    assert bench.routine.reason == "featureless"
    assert [wish.kind for wish in bench.wishes] == [Kind.ACQUIRE]
    assert bench.offset_m == 0.0


def test_focus_beyond_the_allowed_way_is_held_and_the_start_restored() -> None:
    narrow = Envelope(1e-3, 20e-3, step_m=100e-6, cumulative_m=9e-6)
    bench = Bench("blobs", 20.0, Rules(narrow))
    assert bench.run() is Phase.HELD
    assert bench.routine.reason == "limit_cumulative"
    assert bench.wishes[-1].kind is Kind.RESTORE
    assert bench.offset_m == pytest.approx(0.0, abs=1e-12)


def test_no_single_step_is_longer_than_the_limit() -> None:
    short = Envelope(1e-3, 20e-3, step_m=5e-6, cumulative_m=100e-6)
    bench = Bench("blobs", 18.0, Rules(short))
    bench.run(20)
    places = [5e-3, *[wish.move.working_distance_m for wish in bench.wishes]]
    assert np.max(np.abs(np.diff(places))) <= 5e-6 + 1e-12
    assert any("limit_step" in wish.move.limits for wish in bench.wishes)
    assert abs(bench.defocus_h) < 0.5


def test_a_dead_actuator_ends_held_never_converged() -> None:
    bench = Bench("blobs", 9.0, dead=True)
    assert bench.run() is Phase.HELD


def test_the_dose_is_bounded() -> None:
    bench = Bench("blobs", 20.0, Rules(WIDE, dose_frames=2))
    bench.run()
    assert bench.taken <= 3
    assert bench.routine.reason == "budget"


def test_without_leave_to_steer_it_never_probes_but_uses_the_operators_turns() -> None:
    bench = Bench("cloud", 8.0, Rules(WIDE, steer=False))
    for offset_m in (0.0, 5e-6):
        bench.offset_m = offset_m
        bench.routine, wish = focus.observe(
            bench.routine, bench.look(), blur_px=2.0, instrument=KNOWN, rules=bench.rules
        )
    assert wish is not None
    assert wish.kind is Kind.CORRECT
    assert wish.move.working_distance_m == pytest.approx(5e-3 - 8 * H_M, abs=0.5 * H_M)


def test_another_scene_forgets_spectra_and_keeps_what_was_verified() -> None:
    bench = Bench("blobs", 4.0)
    bench.run()
    after = focus.forget_scene(bench.routine)
    assert (after.evidence, after.phase) == ((), Phase.CONVERGED)
    assert after.verified_m == bench.routine.verified_m


def test_a_larger_blur_asks_for_a_larger_probe() -> None:
    sizes = []
    for blur_px in (0.3, 2.0, 20.0):
        _, wish = focus.observe(
            focus.begin(), Bench("blobs", 3.0).look(), blur_px=blur_px, instrument=KNOWN, rules=Rules(WIDE)
        )
        assert wish is not None
        sizes.append(abs(wish.move.working_distance_m - 5e-3) / H_M)
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (pytest.approx(2.1, abs=0.2), pytest.approx(41.5))


def test_stigmators_are_turned_with_the_inverse_of_their_matrix() -> None:
    instrument = Instrument(alpha_rad=ALPHA_RAD, stigmator_matrix_m=((20e-6, 2e-6), (-2e-6, 20e-6)))
    objects, rng = scene("cloud", 512 + 2 * MARGIN, 3), np.random.default_rng(3)
    routine = focus.begin()
    for number, offset_h in enumerate((0.0, 6.0)):
        pixels = frame(objects, z_m=(5 + offset_h) * H_M, astigmatism_m=(1.0e-6, -0.6e-6), snr=1.8, rng=rng)
        seen = evidence(pixels, offset_h * H_M, number)
        routine, wish = focus.observe(routine, seen, blur_px=1.5, instrument=instrument, rules=Rules(WIDE))
    assert wish is not None
    turned: Move = wish.move
    left = (1.0e-6 + 20e-6 * turned.stigmator_x + 2e-6 * turned.stigmator_y,
            -0.6e-6 - 2e-6 * turned.stigmator_x + 20e-6 * turned.stigmator_y)  # fmt: skip
    assert np.hypot(*left) < 0.4 * H_M


# --- what a scene before taught ---


def believed(in_focus_h: float) -> Prior:
    return Prior(5e-3 + in_focus_h * H_M, 0.3 * H_M, (0.0, 0.0), 0.2 * H_M, (0.0, 0.0))


def test_a_site_that_is_as_it_was_believed_to_be_takes_two_frames() -> None:
    bench = Bench("blobs", 0.2, routine=replace(focus.begin(), prior=believed(-0.1)))
    assert bench.run() is Phase.CONVERGED
    assert bench.taken == 2
    assert abs(bench.start_h + bench.offset_m / H_M) < 0.4  # where it was sent back to
    assert bench.routine.verified_m == 5e-3


def test_a_belief_that_is_wrong_leads_nowhere() -> None:
    bench = Bench("blobs", 6.0, routine=replace(focus.begin(), prior=believed(0.0)))
    assert bench.run() is Phase.CONVERGED
    assert abs(bench.defocus_h) < 0.5
    assert bench.taken >= 3


# --- pictures that do not belong to their header ---


def test_a_picture_of_the_place_before_is_found_out_by_a_second_look() -> None:
    bench = Bench("blobs", 9.0)
    first, probe = focus.observe(bench.routine, bench.look(), blur_px=2.0, instrument=KNOWN, rules=bench.rules)
    assert probe is not None
    stale = msgspec.structs.replace(bench.look(), working_distance_m=probe.move.working_distance_m)
    second, again = focus.observe(first, stale, blur_px=2.0, instrument=KNOWN, rules=bench.rules)
    assert again is not None and (again.kind, again.move.working_distance_m) == (
        Kind.VERIFY,
        probe.move.working_distance_m,
    )
    bench.offset_m = probe.move.working_distance_m - 5e-3
    third, back = focus.observe(second, bench.look(), blur_px=4.0, instrument=KNOWN, rules=bench.rules)
    assert (third.phase, third.reason) == (Phase.HELD, "inconsistent")
    assert back is not None and (back.kind, back.move.working_distance_m) == (Kind.RESTORE, 5e-3)


def test_focus_half_way_is_believed_once_it_was_looked_at_twice() -> None:
    bench = Bench("blobs", -1.5)  # the first probe is as far beyond focus
    kinds = []
    for blur_px in (0.4, 0.4, 0.4):
        bench.routine, wish = focus.observe(
            bench.routine, bench.look(), blur_px=blur_px, instrument=KNOWN, rules=bench.rules
        )
        assert wish is not None
        kinds.append(wish.kind)
        bench.offset_m = (3.0 * H_M) if wish.kind is Kind.PROBE else wish.move.working_distance_m - 5e-3
    assert kinds == [Kind.PROBE, Kind.VERIFY, Kind.CORRECT]
    assert abs(bench.start_h + bench.offset_m / H_M) < 0.5


@pytest.mark.parametrize(("fitted", "strange"), [(1.0, False), (1.35, False), (0.7, False), (1.9, True), (0.5, True)])
def test_an_angle_far_off_its_certificate_is_a_contradiction(fitted: float, strange: bool) -> None:
    found = Estimate(5e-3, 0.0, 0.1 * H_M, (0.0, 0.0), 0.1 * H_M, 0.5, fitted * ALPHA_RAD, H_M)
    assert doubting.strange_angle(found, Instrument(alpha_rad=ALPHA_RAD, alpha_sigma_rad=1e-4)) is strange
    assert not doubting.strange_angle(found, KNOWN)  # an angle that is taken as given is not fitted


def test_a_probe_leaves_the_stigmators_as_they_were_turned() -> None:
    bench = Bench("blobs", 3.0)
    began = focus.observe(bench.routine, bench.look(), blur_px=1.0, instrument=KNOWN, rules=bench.rules)[0]
    turned = msgspec.structs.replace(bench.look(), stigmator_x=0.25)
    _, wish = focus.observe(began, turned, blur_px=1.0, instrument=KNOWN, rules=bench.rules)
    assert wish is not None and (wish.kind, wish.move.stigmator_x) == (Kind.PROBE, 0.25)


def test_astigmatism_that_may_be_there_for_all_one_knows_is_no_focus() -> None:
    """Straight lines leave it open along their own direction."""
    h = H_M
    known = Estimate(5e-3, 0.1 * h, 0.1 * h, (0.7 * h, 0.0), 0.5 * h, 0.4, ALPHA_RAD, h)
    assert not focus.bearable(known, h)
    assert focus.bearable(replace(known, sigma_astigmatism_m=0.2 * h), h)
