"""What is still known of focus after a change of scene, and what it is worth beside frames."""

from math import inf
from typing import Any

import msgspec
import pytest

from agent.control.belief import Belief, Prior, agrees, fused, learned
from agent.control.estimate import Estimate
from agent.control.instrument import Instrument
from agent.messages import Optics

H_M = 1e-6
KNOWN = Instrument(alpha_rad=5e-3, stigmator_matrix_m=((20e-6, 0.0), (0.0, 20e-6)))
HEADER = Optics(
    session="a", source="electron/SE2", working_distance_m=5e-3, pixel_size_m=1e-8, landing_energy_ev=5e3,
    aperture_m=30e-6, lens_mode="high resolution", stage_x_m=0.0, stage_y_m=0.0, stage_z_m=0.0, stage_tilt_rad=0.0,
    t_start_ns=0, stigmator_x=0.0, stigmator_y=0.0,
)  # fmt: skip


def answer(z_m: float, sigma_m: float, **more: Any) -> Estimate:
    known: dict[str, Any] = {
        "working_distance_m": 5e-3, "defocus_m": z_m, "sigma_m": sigma_m, "astigmatism_m": (0.1e-6, 0.0),
        "sigma_astigmatism_m": 0.1e-6, "p_wrong_direction": 0.2, "alpha_rad": 5e-3, "half_depth_of_focus_m": H_M,
    }  # fmt: skip
    return Estimate(**{**known, **more})


def belief() -> Belief:
    found = learned(answer(0.0, 0.1e-6), HEADER)
    assert found is not None
    return found


def at(**changes: Any) -> Prior | None:
    return belief().at(msgspec.structs.replace(HEADER, **changes))


def test_the_next_site_is_known_by_how_far_it_is() -> None:
    sigmas = [prior.sigma_m for x_m in (0.0, 50e-6, 5e-3) if (prior := at(stage_x_m=x_m)) is not None]
    assert sigmas == pytest.approx([0.1e-6, 0.141e-6, 10e-6], rel=0.01)


def test_a_beam_shift_is_a_way_too_and_time_wears_what_is_known() -> None:
    shifted, later = at(beam_shift_x_m=1e-4, beam_shift_y_m=0.0), at(t_start_ns=round(600e9))
    assert shifted is None  # the header before did not tell where it was
    assert later is not None and later.sigma_m == pytest.approx(0.316e-6, rel=0.01)
    assert later.sigma_astigmatism_m < 0.11e-6


@pytest.mark.parametrize(
    "change",
    [
        {"landing_energy_ev": 2e3},
        {"aperture_m": 60e-6},
        {"lens_mode": "wide field"},
        {"pixel_size_m": 2e-7},
        {"source": "electron/BSE"},
        {"session": "b"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_column_is_not_believed_of(change: dict[str, Any]) -> None:
    assert at(**change) is None
    assert belief().lost(msgspec.structs.replace(HEADER, **change))


def test_a_tilted_stage_or_one_that_does_not_tell_where_it_is_leaves_nothing_known() -> None:
    assert at(stage_tilt_rad=0.1) is None
    assert at(stage_x_m=None) is None
    assert not belief().lost(msgspec.structs.replace(HEADER, stage_x_m=None))  # the model watches


def test_contrast_and_detector_settings_change_nothing() -> None:
    prior = at(brightness=0.3, contrast=0.9, scene_epoch=7)
    assert prior is not None and prior.sigma_m == pytest.approx(0.1e-6)


def test_focus_is_lost_where_it_is_known_no_better_than_half_an_h_of_the_finer_pixels() -> None:
    assert not belief().lost(msgspec.structs.replace(HEADER, stage_x_m=2e-4))
    assert belief().lost(msgspec.structs.replace(HEADER, stage_x_m=3e-4))
    assert belief().lost(msgspec.structs.replace(HEADER, stage_x_m=1e-4, pixel_size_m=2.5e-9))


def test_what_agrees_is_surer_together() -> None:
    prior = Prior(5e-3, 0.3e-6, (0.1e-6, 0.0), 0.1e-6, (0.0, 0.0))
    both = fused(answer(0.4e-6, 0.3e-6), prior, KNOWN, (0.0, 0.0))
    assert both.defocus_m == pytest.approx(0.2e-6, rel=1e-3)
    assert both.sigma_m == pytest.approx(0.3e-6 / 2**0.5)
    assert both.sigma_astigmatism_m == pytest.approx(0.1e-6 / 2**0.5)


def test_frames_are_right_where_they_differ_from_what_was_believed() -> None:
    prior, found = Prior(5e-3, 0.1e-6, (0.0, 0.0), 0.1e-6, (0.0, 0.0)), answer(3e-6, 0.2e-6)
    assert not agrees(found, prior)
    assert fused(found, prior, KNOWN, (0.0, 0.0)) == found


def test_astigmatism_is_believed_with_what_the_stigmators_were_turned_by() -> None:
    prior = Prior(5e-3, 0.1e-6, (0.5e-6, 0.0), 0.05e-6, (0.0, 0.0))
    both = fused(answer(0.0, 0.1e-6, astigmatism_m=(0.0, 0.0)), prior, KNOWN, (-0.025, 0.0))
    assert both.astigmatism_m == pytest.approx((0.0, 0.0), abs=1e-12)
    apart = fused(answer(0.0, 0.1e-6, astigmatism_m=(0.0, 0.0)), prior, KNOWN, (0.0, 0.0))
    assert (apart.astigmatism_m, apart.sigma_astigmatism_m) == ((0.0, 0.0), 0.1e-6)


def test_a_turned_scan_turns_astigmatism_which_is_then_not_known() -> None:
    prior = at(scan_rotation_rad=0.5)
    assert prior is not None and prior.sigma_astigmatism_m == inf


def test_an_abstention_stays_one() -> None:
    none = Estimate(5e-3, None, None, None, None, None, None, None, "ambiguous")
    assert fused(none, Prior(5e-3, 0.1e-6, (0.0, 0.0), 0.1e-6, (0.0, 0.0)), KNOWN, (0.0, 0.0)) == none
    assert learned(none, HEADER) is None
