"""A sweep of the virtual microscope: known constants in, what the certificate says of them out, with its own doubt."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.control.envelope import Move
from agent.messages import Optics
from calibration.certificate import Certificate
from calibration.sweep.drive import PLAY_M, Driver
from calibration.sweep.errors import InterruptedSweepError, OtherSweepError, RefusedError
from calibration.sweep.instrument import Moved, envelope_of
from calibration.sweep.measure import LEAST_SPREAD, Optic, directions, evidence_of
from calibration.sweep.recording import Recording
from calibration.sweep.run import Swept, certificate_of, check_signs, sweep
from calibration.sweep.stigmators import run_stigmators
from calibration.sweep.virtual import VirtualColumn
from calibration.twin.column import Actuator, settle_s
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope

SMALL = MicroscopeSettings(shape=(384, 384), snr=4.0, seed=1)
TRUTH = replace(
    SMALL,
    specimen="grains",
    seed=2,
    instrument_seed=2,
    alpha_rad=8e-3,
    start_defocus_m=12e-6,  # 19 half depths of focus
    hysteresis_m=0.3e-6,
    stigmator_matrix_m=((-3e-6, 14e-6), (13e-6, 2.5e-6)),
)
IDENTITY = {"seed": 2}
BROKEN_AT = 14  # frames
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Handled(VirtualColumn):
    """A microscope with something that goes wrong before its nth frame, or with every move."""

    def __init__(
        self, scope: VirtualMicroscope, at: int = 0, accident: Callable[["Handled"], None] = lambda _: None
    ) -> None:
        super().__init__(scope)
        self._at, self._accident, self.frames = at, accident, 0

    def frame(self) -> tuple[NDArray[Any], Optics]:
        self.frames += 1
        if self.frames == self._at:
            self._accident(self)
        return super().frame()


def driver_of(column: VirtualColumn, folder: Path, *, dose_frames: int = 80) -> Driver:
    recording = Recording.begin(folder, IDENTITY, column.read())
    return Driver(column, envelope_of(column.limits), recording, dose_frames=dose_frames)


def swept_by(driver: Driver, previous: Certificate | None = None) -> Swept:
    return sweep(driver, previous=previous, tell=lambda stage, frames: None)


def refusal(settings: MicroscopeSettings, folder: Path, **more: int) -> str:
    """What the sweep says when it refuses; the microscope stands where it stood by then."""
    column = VirtualColumn(VirtualMicroscope(settings))
    start = column.read()
    with pytest.raises(RefusedError) as caught:
        swept_by(driver_of(column, folder, **more))
    assert column.read() == start
    return str(caught.value)


def interrupt(_: Handled) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Resumed:
    """A sweep that was interrupted, and went on."""

    swept: Swept
    scope: VirtualMicroscope
    folder: Path
    start: Move
    after_interruption: Move
    kept: int  # shots
    frames_afterwards: int


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    folder = tmp_path_factory.mktemp("sweep") / "c.json.sweep"
    first = Handled(VirtualMicroscope(TRUTH), BROKEN_AT, interrupt)
    start = first.read()
    with pytest.raises(KeyboardInterrupt):
        swept_by(driver_of(first, folder))
    second = Handled(VirtualMicroscope(TRUTH))
    recording = Recording.again(folder, IDENTITY)
    kept = recording.shots
    second.catch_up(*recording.taken())
    swept = swept_by(Driver(second, envelope_of(second.limits), recording, dose_frames=80))
    return Resumed(swept, second.scope, folder, start, first.read(), kept, second.frames)


@pytest.fixture(scope="module")
def certificate(resumed: Resumed) -> Certificate:
    limits = TRUTH.limits
    return certificate_of(resumed.swept, instrument="S-1", limits=limits, made=NOW, valid=timedelta(days=30))


# --- what it finds ---


def test_the_angle_is_found_to_3_per_cent_and_within_3_of_its_sigmas(certificate: Certificate) -> None:
    off = abs(certificate.alpha_rad - TRUTH.alpha_rad)
    assert off <= 0.03 * TRUTH.alpha_rad
    assert off <= 3.0 * certificate.alpha_sigma_rad <= 0.06 * TRUTH.alpha_rad


def test_the_stigmator_matrix_is_found_to_5_per_cent_of_its_largest_element(
    certificate: Certificate, resumed: Resumed
) -> None:
    true = np.array(TRUTH.stigmator_matrix_m)
    off = np.abs(np.array(certificate.stigmator_matrix_m) - true)
    assert off.max() <= 0.05 * np.abs(true).max()
    assert (off <= 3.0 * resumed.swept.stigmation.matrix_sigma_m).all()


def test_play_is_found_to_a_tenth_of_h_or_15_per_cent(certificate: Certificate) -> None:
    off = abs(certificate.hysteresis_m - TRUTH.hysteresis_m)
    assert off <= max(0.1 * TRUTH.half_depth_of_focus_m, 0.15 * TRUTH.hysteresis_m)
    assert off <= 3.0 * certificate.residuals["hysteresis_sigma_m"]


def test_settling_is_found_to_a_tenth_of_a_frame_time_though_it_takes_less_than_one(certificate: Certificate) -> None:
    true = settle_s(certificate.residuals["settle_step_m"])
    assert abs(certificate.settle_s - true) <= 0.1 * true
    assert TRUTH.frame_time_s > 0.2


def test_image_shift_and_scale_are_found_with_drift_taken_off(certificate: Certificate, resumed: Resumed) -> None:
    true = np.array(resumed.scope.drawn.shift_px_per_um) * 1e6
    assert np.abs(np.array(certificate.shift_px_per_m) - true).max() <= max(0.03 * np.hypot(*true), 0.02e6)
    assert certificate.scale_per_m == pytest.approx(1.0 / resumed.scope.drawn.in_focus_working_distance_m, rel=0.05)
    assert certificate.residuals["scale_sigma_per_m"] < 0.15 * certificate.scale_per_m


def test_cross_terms_that_are_not_there_are_within_their_doubt(certificate: Certificate, resumed: Resumed) -> None:
    found = resumed.swept
    assert (np.abs(found.stigmation.defocus_m) <= 3.0 * np.array(found.stigmation.defocus_sigma_m)).all()
    assert (np.abs(found.displacement.per_unit) <= 3.5 * found.displacement.per_unit_sigma).all()
    assert len(certificate.cross_terms) == 6


def test_the_certificate_is_read_back_whole_with_a_residual_of_every_fit(
    certificate: Certificate, tmp_path: Path
) -> None:
    path = tmp_path / "c.json"
    certificate.save(path)
    assert Certificate.load(path) == certificate
    for fit in ("defocus_up_rms_m", "defocus_down_rms_m", "astigmatism_rms_m", "settle_rms_m", "shift_rms_px"):
        assert certificate.residuals[fit] > 0.0
    assert certificate.expired(NOW + timedelta(days=31)) and not certificate.expired(NOW + timedelta(days=29))


def test_a_knob_whose_effect_turned_round_since_the_last_certificate_is_named(
    resumed: Resumed, certificate: Certificate
) -> None:
    (xx, xy), (yx, yy) = certificate.stigmator_matrix_m
    check_signs(resumed.swept, certificate)
    with pytest.raises(RefusedError, match="stigmator y is inverted"):
        check_signs(resumed.swept, replace(certificate, stigmator_matrix_m=((xx, -xy), (yx, -yy))))
    with pytest.raises(RefusedError, match="the working distance is inverted, or both"):
        check_signs(resumed.swept, replace(certificate, stigmator_matrix_m=((-xx, -xy), (-yx, -yy))))


# --- how it goes about it ---


def test_an_interruption_restores_the_start_and_the_sweep_goes_on_from_its_frames(resumed: Resumed) -> None:
    assert resumed.after_interruption == resumed.start
    assert resumed.kept == BROKEN_AT - 1
    assert resumed.frames_afterwards == resumed.swept.frames - resumed.kept
    assert resumed.swept.frames <= 45
    assert VirtualColumn(resumed.scope).read() == resumed.start


def test_a_shot_is_approached_from_its_side_whatever_came_before(tmp_path: Path) -> None:
    column = VirtualColumn(VirtualMicroscope(replace(SMALL, hysteresis_m=1e-6)))
    driver, home = driver_of(column, tmp_path / "w"), column.read()
    for way_um, side in ((3.0, 1), (5.0, 1), (4.0, 1), (4.0, -1), (2.0, -1), (6.0, -1), (6.0, 1)):
        wanted = replace(home, working_distance_m=home.working_distance_m + way_um * 1e-6)
        driver.shoot(wanted, side=side)
        lens_m = column.scope.column.lens_m
        assert lens_m == pytest.approx(wanted.working_distance_m - side * 0.5e-6, abs=1e-12)


def test_moves_keep_to_the_step_limit_and_end_at_the_others(tmp_path: Path) -> None:
    column = VirtualColumn(VirtualMicroscope(SMALL))
    limits = replace(column.limits, step_m=2e-6, cumulative_m=9e-6)
    start, seen = column.read(), []
    driver = Driver(column, envelope_of(limits), Recording.begin(tmp_path / "w", IDENTITY, start), dose_frames=9)
    plain = column.move
    column.move = lambda wanted: (seen.append(wanted.working_distance_m), plain(wanted))[1]  # type: ignore[method-assign]
    driver.go(replace(start, working_distance_m=start.working_distance_m + 7e-6))
    assert len(seen) == 4
    assert np.abs(np.diff([start.working_distance_m, *seen])).max() <= 2e-6 * (1 + 1e-9)
    with pytest.raises(RefusedError, match=r"limit_cumulative.*widen"):
        driver.go(replace(start, working_distance_m=start.working_distance_m + 9.5e-6))


# --- what it refuses ---


def test_a_featureless_specimen_is_refused(tmp_path: Path) -> None:
    assert "featureless" in refusal(replace(SMALL, specimen="flat"), tmp_path / "w")


def test_an_unresponsive_working_distance_is_named(tmp_path: Path) -> None:
    assert "working distance is unresponsive" in refusal(replace(SMALL, actuator=Actuator.STUCK), tmp_path / "w")


def test_an_inverted_working_distance_is_named(tmp_path: Path) -> None:
    inverted = replace(SMALL, actuator=Actuator.INVERTED, start_defocus_m=2e-6)
    assert "working distance is inverted" in refusal(inverted, tmp_path / "w")


def test_too_few_frames_are_refused_before_they_are_spent(tmp_path: Path) -> None:
    assert "--dose-frames" in refusal(SMALL, tmp_path / "w", dose_frames=2)


def test_limits_that_leave_too_little_are_refused(tmp_path: Path) -> None:
    limits = replace(SMALL.limits, cumulative_m=7e-6)
    told = refusal(replace(SMALL, own_limits=limits, start_defocus_m=1e-6), tmp_path / "w")
    assert "limits are too narrow to measure" in told and "um are needed" in told


@pytest.mark.parametrize(("axis", "matrix"), [("x", ((0.0, 0.0), (0.0, 0.0))), ("y", ((14e-6, 0.0), (2e-6, 0.0)))])
def test_a_stigmator_without_effect_is_named(
    axis: str, matrix: tuple[tuple[float, float], tuple[float, float]], resumed: Resumed, tmp_path: Path
) -> None:
    column = VirtualColumn(VirtualMicroscope(replace(TRUTH, stigmator_matrix_m=matrix)))
    with pytest.raises(RefusedError, match=f"stigmator {axis} has no effect"):
        run_stigmators(driver_of(column, tmp_path / "w"), resumed.swept.legs[0], resumed.swept.span_m)


def test_lines_that_all_go_one_way_are_told_from_detail_all_ways() -> None:
    found = {}
    for specimen in ("line-space", "logic", "tin-balls"):
        column = VirtualColumn(VirtualMicroscope(replace(SMALL, specimen=specimen, start_defocus_m=2e-6)))
        driver = Driver(column, envelope_of(column.limits), Recording(Path("unused"), column.read()), dose_frames=3)
        taken = driver.settled(column.read(), 1)
        found[specimen] = directions([evidence_of(taken, 0)], Optic(5e-3, 1e-4, SMALL.pixel_size_m, 5000.0))
    assert found["line-space"] < LEAST_SPREAD < found["logic"] < found["tin-balls"]


class Deaf(VirtualColumn):
    """Stigmator y stays where it is."""

    def move(self, wanted: Move) -> Moved:
        return super().move(replace(wanted, stigmator_y=self.read().stigmator_y))


def test_a_knob_that_reads_back_something_else_is_named(tmp_path: Path) -> None:
    column = Deaf(VirtualMicroscope(SMALL))
    driver = driver_of(column, tmp_path / "w")
    with pytest.raises(RefusedError, match=r"stigmator y does not do as told: \+0.1000 was asked for, \+0.0000"):
        driver.go(replace(column.read(), stigmator_y=0.1))


# --- what interrupts it ---


def _blank(column: Handled) -> None:
    column.scope.blank()


def _freeze(column: Handled) -> None:
    column.scope.freeze(tell=False)


def _turn(column: Handled) -> None:
    column.scope.set_working_distance(column.scope.working_distance_m + 1e-6)


def _drive(column: Handled) -> None:
    column.scope.move_stage()


@pytest.mark.parametrize(
    ("accident", "told"),
    [
        (_blank, "scene_epoch changed|blanked"),
        (_freeze, "two frames are the same to the bit"),
        (_turn, "somebody moved the microscope"),
        (_drive, "scene_epoch changed"),
    ],
)
def test_what_spoils_the_frames_interrupts_and_restores(
    accident: Callable[[Handled], None], told: str, tmp_path: Path
) -> None:
    column = Handled(VirtualMicroscope(SMALL), 2, accident)
    start = column.read()
    with pytest.raises(InterruptedSweepError, match=told):
        swept_by(driver_of(column, tmp_path / "w"))
    assert column.read() == start


def test_a_microscope_that_cannot_be_brought_back_is_told_with_where_it_should_stand(tmp_path: Path) -> None:
    def strike(column: Handled) -> None:
        column.scope.settings = replace(column.scope.settings, own_limits=replace(SMALL.limits, step_m=1e-12))
        raise InterruptedSweepError("the line is dead")

    column = Handled(VirtualMicroscope(SMALL), 2, strike)
    start_mm = f"{column.read().working_distance_m * 1e3:.6f} mm"
    with pytest.raises(InterruptedSweepError, match=f"the line is dead; .*could not be restored.*{start_mm}.*by hand"):
        swept_by(driver_of(column, tmp_path / "w"))


def test_frames_of_another_sweep_are_refused_with_what_differs(tmp_path: Path) -> None:
    Recording.begin(tmp_path / "w", {"--seed": 1, "--snr": 2.0}, Move(5e-3, 0.0, 0.0))
    with pytest.raises(OtherSweepError, match="--seed = 1, not 2"):
        Recording.again(tmp_path / "w", {"--seed": 2, "--snr": 2.0})


def test_a_shot_that_cannot_be_read_is_named(resumed: Resumed) -> None:
    path = sorted(resumed.folder.glob("shot-*.npz"))[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(OtherSweepError, match=path.name):
        Recording.again(resumed.folder, IDENTITY).read(0, resumed.start)


def test_frames_without_a_pixel_size_are_refused() -> None:
    column = VirtualColumn(VirtualMicroscope(SMALL))
    driver = Driver(column, envelope_of(column.limits), Recording(Path("unused"), column.read()), dose_frames=3)
    taken = driver.settled(column.read(), 1)
    with pytest.raises(RefusedError, match="pixel size"):
        evidence_of(replace(taken, optics=msgspec.structs.replace(taken.optics, pixel_size_m=None)), 0)
    assert PLAY_M > 2e-6
