"""The virtual microscope as an instrument: headers, epochs, knobs, and a truth that stays at home."""

from datetime import UTC, datetime
from itertools import pairwise

import cv2
import numpy as np
import pytest

from agent.messages import Outcome
from calibration.certificate import Limits
from calibration.twin.episode import plan
from calibration.twin.instrument import MicroscopeSettings, draw
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.possible import InstrumentError
from calibration.twin.roughness import fractal
from calibration.twin.specimen import TEXTURED

STILL = {"drift_px_per_frame": (0.0, 0.0), "shift_px_per_um": (0.0, 0.0), "scale_with_focus": False}


def scope(**settings: object) -> VirtualMicroscope:
    common = {"shape": (192, 192), "specimen": "grains", "seed": 4}
    return VirtualMicroscope(MicroscopeSettings(**{**common, **settings}))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    runs = []
    for seed in (4, 4, 5):
        m = scope(seed=seed)
        first = m.frame()[0]
        m.set_working_distance(m.working_distance_m + 3e-6)
        runs.append((first, m.frame()[0], m.frame()[0]))
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_a_frame_takes_dwell_times_pixels_times_1_1_plus_80_ms() -> None:
    m = scope(shape=(512, 512), specimen="flat")
    _, optics = m.frame()
    assert m.frame_time_s == pytest.approx(0.35, abs=0.01)
    assert (optics.t_end_ns or 0) - (optics.t_start_ns or 0) == round(m.frame_time_s * 1e9) == m.now_ns


def test_epochs_grow_with_a_change_and_frames_say_none_until_it_has_settled() -> None:
    m = scope()
    assert m.frame()[1].optics_epoch == 1
    m.begin()
    m.wait(0.02)
    m.set_working_distance(m.working_distance_m + 2e-6)
    during = m.frame()[1]
    settling = m.frame()[1]
    m.wait_until(m.settled_ns)
    after = m.frame()[1]
    assert (during.optics_epoch, settling.optics_epoch, after.optics_epoch) == (None, None, 2)
    assert during.scene_epoch == settling.scene_epoch == after.scene_epoch == 1


def test_brightness_changes_the_scene_epoch_and_not_the_optics() -> None:
    m = scope()
    m.begin()
    m.wait(0.01)
    m.set_exposure(brightness=0.6)
    during, after = m.frame()[1], m.frame()[1]
    assert (during.scene_epoch, after.scene_epoch, after.optics_epoch) == (None, 2, 1)


def test_brightness_adds_its_share_of_full_scale_and_contrast_multiplies() -> None:
    m = scope(bits=16, **STILL)
    before = m.frame()[0].mean() / 65535
    m.set_exposure(brightness=0.6, contrast=0.4)
    after = m.frame()[0].mean() / 65535
    offset = m._offset
    assert after == pytest.approx((before - offset) * 0.8 + offset + 0.1, abs=2e-3)


def test_auto_contrast_puts_the_picture_back_into_range() -> None:
    m = scope()
    m.set_exposure(brightness=1.0)
    assert (m.frame()[0] == 255).mean() > 0.2
    m.auto_contrast()
    pixels = m.frame()[0]
    assert (pixels == 255).mean() < 0.01 and (pixels == 0).mean() < 0.01


def test_signal_to_noise_is_what_was_asked_in_focus() -> None:
    m = scope(shape=(384, 384), start_defocus_m=0.0, astigmatism_m=(0.0, 0.0), snr=1.8, bits=16, **STILL)
    a, b = (m.frame()[0].astype(np.float64) for _ in range(2))
    noise = (a - b).var() / 2
    assert np.sqrt((a.var() - noise) / noise) == pytest.approx(1.8, rel=0.05)


def test_the_header_carries_read_backs_and_no_truth() -> None:
    m = scope(start_defocus_m=5e-6)
    _, optics = m.frame()
    assert optics.working_distance_m == m.working_distance_m
    assert optics.semi_convergence_angle_rad is None
    assert m.defocus_m == pytest.approx(5e-6)
    # The commanded value hides the lens's play: the truth cannot be read off.
    assert abs(m.working_distance_m - m.drawn.in_focus_working_distance_m - m.defocus_m) <= 0.05e-6 + 1e-12


def test_requests_out_of_range_are_clipped_and_said_to_be() -> None:
    limits = Limits(4.9e-3, 5.1e-3, step_m=300e-6, cumulative_m=1e-3)
    m = scope(own_limits=limits, in_focus_working_distance_m=5e-3, start_defocus_m=0.0)
    clipped = m.set_working_distance(5.2e-3)
    assert (clipped.outcome, clipped.working_distance_m) == (Outcome.CLIPPED, 5.1e-3)
    assert m.set_working_distance(4.7e-3).outcome is Outcome.REJECTED
    assert m.set_working_distance(float("nan")).outcome is Outcome.REJECTED
    assert m.working_distance_m == 5.1e-3
    assert m.set_stigmators(1.5, 0.0).stigmator_x == 1.0


def test_stigmators_act_through_the_matrix() -> None:
    m = scope(astigmatism_m=(1e-6, 0.0), stigmator_matrix_m=((20e-6, 2e-6), (-1e-6, 19e-6)))
    m.set_stigmators(0.1, -0.05)
    m.wait_until(m.settled_ns)
    assert m.astigmatism_m == pytest.approx((1e-6 + 2e-6 - 0.1e-6, -0.1e-6 - 0.95e-6))


def centroid(picture: np.ndarray) -> tuple[float, float]:
    """Of the only bright thing in the picture; a threshold would bias it, so its surroundings are weighed in."""
    weight = picture.astype(np.float64) - np.median(picture)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    at_y, at_x = np.unravel_index(np.argmax(cv2.GaussianBlur(weight, (0, 0), 4)), weight.shape)
    weight[np.maximum(abs(y - at_y), abs(x - at_x)) > 18] = 0.0
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


def one_dot(x: int, y: int, side: int = 256) -> np.ndarray:
    picture = np.zeros((side, side), np.uint8)
    picture[y - 4 : y + 5, x - 4 : x + 5] = 255
    return picture


def test_focusing_by_d_scales_the_picture_by_d_over_working_distance() -> None:
    own = Limits(1e-3, 20e-3, step_m=1.0, cumulative_m=1.0)
    m = scope(
        picture=one_dot(230, 20), shape=(256, 256), pixel_size_m=1e-6, snr=400.0, start_defocus_m=0.0, own_limits=own,
        in_focus_working_distance_m=5e-3, hysteresis_m=0.0, drift_px_per_frame=(0.0, 0.0), shift_px_per_um=(0.0, 0.0),
    )  # fmt: skip
    before = centroid(m.frame()[0])
    m.set_working_distance(5.1e-3)
    m.wait_until(m.settled_ns)
    after = centroid(m.frame()[0])
    assert after[0] - before[0] == pytest.approx(0.02 * (230 - 127.5), abs=0.1)
    assert after[1] - before[1] == pytest.approx(0.02 * (20 - 127.5), abs=0.1)


def test_drift_and_focus_shift_move_the_picture_by_the_stated_pixels() -> None:
    m = scope(
        picture=one_dot(128, 128), shape=(256, 256), snr=400.0, start_defocus_m=0.0, hysteresis_m=0.0,
        scale_with_focus=False, drift_px_per_frame=(0.4, -0.2), shift_px_per_um=(0.3, 0.5),
    )  # fmt: skip
    before = centroid(m.frame()[0])
    for _ in range(9):
        m.frame()
    drifted = centroid(m.frame()[0])
    assert np.subtract(drifted, before) == pytest.approx((4.0, -2.0), abs=0.05)
    m.set_working_distance(m.working_distance_m + 4e-6)
    m.wait(0.8 * m.frame_time_s)
    m.wait_until(m.settled_ns)
    t = m.now_ns
    moved = centroid(m.frame()[0])
    frames = (t / 1e9 / m.frame_time_s) - 10
    assert np.subtract(moved, drifted) == pytest.approx((1.2 + 0.4 * frames, 2.0 - 0.2 * frames), abs=0.1)


def test_a_picture_that_drifts_far_never_ends() -> None:
    m = scope(drift_px_per_frame=(25.0, -25.0))
    spread = [m.frame()[0].std() for _ in range(30)]
    assert min(spread) > 0.5 * max(spread)


def test_averaging_says_so_and_lowers_the_noise() -> None:
    m = scope(specimen="flat", **STILL, bits=16)
    single = m.frame()[0].std()
    m.set_exposure(averages=4)
    pixels, optics = m.frame()
    assert (optics.averaging, optics.average_count) == ("frame", 4)
    assert pixels.std() == pytest.approx(single / 2, rel=0.05)
    assert (optics.t_end_ns or 0) - (optics.t_start_ns or 0) == pytest.approx(4e9 * m.settings.frame_time_s, rel=1e-6)


def test_blanked_frozen_and_moved_are_told() -> None:
    m = scope()
    first = m.frame()[0]
    m.freeze()
    again, optics = m.frame()
    assert optics.frozen and np.array_equal(first, again)
    m.freeze(False)
    m.blank()
    dark, optics = m.frame()
    assert optics.blanked and dark.mean() < 0.5 * first.mean()
    m.blank(False)
    m.move_stage(defocus_change_m=3e-6)
    z, epoch = m.defocus_m, m.scene_epoch
    moving, arrived = m.frame()[1], [m.frame()[1] for _ in range(4)][-1]
    assert moving.stage_moving and moving.scene_epoch is None
    assert not arrived.stage_moving and arrived.scene_epoch == epoch
    assert z == pytest.approx(m.drawn.start_defocus_m + 3e-6)


def test_the_databar_covers_the_last_rows_and_is_told() -> None:
    pixels, optics = scope(databar_rows=30).frame()
    assert optics.databar_rows == 30 and optics.rows_valid == 162
    assert np.median(pixels[-25:]) == 0


def test_waves_are_used_where_the_disc_would_fail() -> None:
    m = scope(pixel_size_m=2.5e-9, accelerating_voltage_v=1000.0, start_defocus_m=2e-6)
    assert m.frame()[0].std() > 0


def test_half_depth_of_focus_counts_the_true_probe() -> None:
    m = scope()
    assert m.half_depth_of_focus_m == pytest.approx(np.hypot(10e-9, m.settings.fw50_m) / 1e-2)
    assert abs(m.drawn.start_defocus_m) <= 12 * m.half_depth_of_focus_m


def test_the_certificate_is_true_or_wrong_by_what_was_asked() -> None:
    m, made = scope(), datetime(2026, 1, 1, tzinfo=UTC)
    true, wrong = m.certificate(made=made), m.certificate(made=made, alpha_error=-0.3)
    assert true.alpha_rad == 5e-3 and wrong.alpha_rad == pytest.approx(3.5e-3)
    assert true.stigmator_matrix_m == m.settings.stigmator_matrix_m
    assert not true.expired(datetime(2026, 12, 1, tzinfo=UTC)) and true.expired(datetime(2027, 1, 2, tzinfo=UTC))
    assert true.shift_px_per_m[0] == pytest.approx(m.drawn.shift_px_per_um[0] * 1e6)


def test_one_given_number_changes_no_other_that_is_drawn() -> None:
    free, given = draw(MicroscopeSettings(seed=8)), draw(MicroscopeSettings(seed=8, start_defocus_m=1e-6))
    assert given.start_defocus_m == 1e-6
    assert given.astigmatism_m == free.astigmatism_m and given.drift_px_per_frame == free.drift_px_per_frame


def test_a_plan_takes_seeds_one_after_the_other_and_specimens_in_turn() -> None:
    rows = plan(7, seed=10, shape=(64, 64))
    assert [row.seed for row in rows] == list(range(10, 17))
    assert [row.specimen for row in rows] == [*TEXTURED, *TEXTURED[:2]]
    assert len({row.session for row in rows}) == 7
    assert {row.specimen for row in plan(3, seed=0, specimen="flat")} == {"flat"}


def test_the_column_is_the_same_on_another_day() -> None:
    one, other = draw(MicroscopeSettings(seed=1)), draw(MicroscopeSettings(seed=2))
    assert one.shift_px_per_um == other.shift_px_per_um
    assert one.drift_px_per_frame != other.drift_px_per_frame
    coarse = draw(MicroscopeSettings(seed=1, pixel_size_m=100e-9))
    assert coarse.shift_px_per_um == pytest.approx(np.asarray(one.shift_px_per_um) / 10)


# The fault bench: what is off by default, one at a time.


def patches(side: int = 192) -> np.ndarray:
    """Crisp outlines of every size."""
    return (60 + 130 * (fractal((side, side), coarse_px=30.0, octaves=4, rng=np.random.default_rng(6)) > 0)).astype(
        np.uint8
    )


def bench(**settings: object) -> VirtualMicroscope:
    """In focus, so that what is left is the fault."""
    common = {"picture": patches(), "start_defocus_m": 0.0, "astigmatism_m": (0.0, 0.0), "hysteresis_m": 0.0}
    return scope(**{**common, **settings})


FLAT = np.full((192, 192), 90, np.uint8)


def test_recursive_averaging_has_a_memory_and_less_noise() -> None:
    m = bench(picture=FLAT, bits=16, averaging="recursive", **STILL)
    single = m.frame()[0].std()
    assert m.frame()[1].averaging == "none"
    m.set_exposure(averages=5)
    pixels = [m.frame()[0] for _ in range(60)]
    settled = np.stack(pixels[30:]).astype(np.float64)
    share = 1 / 5
    assert settled.std(axis=(1, 2)).mean() == pytest.approx(single * np.sqrt(share / (2 - share)), rel=0.06)
    steps = settled[1:] - settled[:-1]
    assert steps.std() == pytest.approx(single * np.sqrt(2 * share**2 / (2 - share)), rel=0.06)
    _, optics = m.frame()
    assert (optics.averaging, optics.average_count) == ("recursive", 5)
    # It takes one scan's time, and holds scans back to where their share falls below 5 %: 0.8^14.
    assert m.frame_time_s == m.settings.frame_time_s
    assert (optics.t_end_ns or 0) - (optics.t_start_ns or 0) == pytest.approx(14e9 * m.frame_time_s, rel=1e-6)


def test_a_recursive_average_shows_the_old_focus_until_it_has_forgotten_it() -> None:
    m = bench(averaging="recursive", averages=4, snr=50.0, **STILL)
    sharp = [m.frame() for _ in range(3)][-1][0].astype(float)
    m.set_working_distance(m.working_distance_m + 10e-6)
    m.wait_until(m.settled_ns)
    frames = [m.frame() for _ in range(20)]
    blurred = frames[-1][0].astype(float)
    away = [((f[0] - blurred) * (sharp - blurred)).sum() / ((sharp - blurred) ** 2).sum() for f in frames[:4]]
    assert away == pytest.approx([0.75, 0.75**2, 0.75**3, 0.75**4], abs=0.05)
    told = [f[1].optics_epoch for f in frames]
    assert told[:9] == [None] * 9 and told[-1] == m.optics_epoch  # 0.75^11 is below 5 %


def test_line_averaging_takes_its_time_and_is_not_blurred_by_drift_along_the_frame() -> None:
    kept = {"snr": 400.0, "shift_px_per_um": (0.0, 0.0)}
    spread = {}
    for averaging in ("line", "frame"):
        m = bench(drift_px_per_frame=(1.5, 0.0), averaging=averaging, averages=8, **kept)
        pixels, optics = m.frame()
        assert (optics.averaging, optics.average_count) == (averaging, 8)
        assert m.frame_time_s == pytest.approx(8 * m.settings.frame_time_s)
        spread[averaging] = (np.diff(pixels.astype(float), axis=1) ** 2).mean()
    assert spread["line"] > 2.0 * spread["frame"]


def test_drift_within_the_frame_tears_lines_by_the_drift_of_a_frame() -> None:
    upright = np.zeros((256, 256), np.uint8)
    upright[:, 120:132] = 255
    lean = {}
    for torn in (False, True):
        m = scope(
            picture=upright, shape=(256, 256), snr=400.0, start_defocus_m=0.0, scale_with_focus=False,
            drift_px_per_frame=(4.0, 0.0), shift_px_per_um=(0.0, 0.0), drift_in_frame=torn,
        )  # fmt: skip
        pixels = m.frame()[0].astype(np.float64)
        weight = np.clip(pixels - np.median(pixels), 30.0, None) - 30.0
        at = (weight * np.arange(256)).sum(axis=1) / weight.sum(axis=1)
        lean[torn] = np.polyfit(np.arange(256), at, 1)[0] * 256
    lit = 256 * m.settings.line_time_s / m.settings.frame_time_s  # the fly-back is no part of the picture
    assert lean[False] == pytest.approx(0.0, abs=0.05)
    assert lean[True] == pytest.approx(4.0 * lit, abs=0.1)


def test_hum_bends_lines_with_the_mains_period_and_follows_the_clock() -> None:
    upright = np.zeros((256, 256), np.uint8)
    upright[:, 120:132] = 255
    m = scope(
        picture=upright, shape=(256, 256), snr=400.0, start_defocus_m=0.0, hum_px=1.0, hum_hz=50.0, **STILL,
    )  # fmt: skip
    for _ in range(2):
        pixels, optics = m.frame()
        weight = np.clip(pixels.astype(np.float64) - np.median(pixels), 30.0, None) - 30.0
        at = (weight * np.arange(256)).sum(axis=1) / weight.sum(axis=1)
        times = (optics.t_start_ns or 0) / 1e9 + np.arange(256) * m.settings.line_time_s
        expected = np.sin(2 * np.pi * 50.0 * times)
        assert np.corrcoef(at, expected)[0, 1] > 0.95
        assert (at - at.mean()).std() == pytest.approx(expected.std(), rel=0.1)


def test_hum_on_slow_lines_bends_each_line() -> None:
    slow = {"dwell_s": 50e-6, "shape": (64, 192), "snr": 400.0, **STILL}
    still, humming = bench(**slow).frame()[0].astype(float), bench(hum_px=1.0, **slow).frame()[0].astype(float)
    assert bench(**slow).settings.line_time_s * 50.0 > 0.5
    assert np.abs(still - humming).mean() > 2.0


def test_charge_builds_up_frame_by_frame_runs_off_while_blanked_and_is_gone_at_a_fresh_site() -> None:
    kept = {"bits": 16, "charging_relaxes_s": 20.0, "contrast": 0.3, **STILL}
    dose = bench(**kept).electrons_per_pixel
    m = bench(charging_brightness=0.5, charging_electrons=4.0 * dose, **kept)
    black = m._offset * 65535
    bright = [float(m.frame()[0].mean()) - black for _ in range(12)]
    assert all(b > a for a, b in pairwise(bright[:7]))
    # In one frame a quarter of 63 % comes and t / 20 s runs off; the middles of the first and of the last frame count.
    grows, runs_off = 0.25, m.frame_time_s / 20.0
    level = grows / (grows + runs_off) * (1 - np.exp(-(grows + runs_off) * np.arange(13)))
    middle = 0.5 * (level[:-1] + level[1:])
    assert bright[11] / bright[0] == pytest.approx((1 + 0.5 * middle[11]) / (1 + 0.5 * middle[0]), rel=0.01)
    m.wait(200.0)
    assert float(m.frame()[0].mean()) - black == pytest.approx(bright[0], rel=0.01)
    for _ in range(10):
        m.frame()
    m.move_stage()
    assert float(m.frame()[0].mean()) - black == pytest.approx(bright[0], rel=0.01)


def test_where_was_scanned_before_is_darker_and_moves_with_the_specimen() -> None:
    kept = {"picture": FLAT, "bits": 16, "snr": 50.0, "shift_px_per_um": (0.0, 0.0)}
    clean = bench(drift_px_per_frame=(0.0, 0.0), **kept)
    m = bench(contamination=0.3, drift_px_per_frame=(3.0, 0.0), **kept)

    def dark(pixels: np.ndarray) -> np.ndarray:
        level = pixels[80:110].astype(float).mean(axis=0)
        return np.flatnonzero(level < 0.5 * (level.max() + level.min()))

    first = dark(m.frame()[0])
    for _ in range(9):
        last = dark(m.frame()[0])
    assert len(first) == pytest.approx(96, abs=2) and first[0] == pytest.approx(48 + 1.5, abs=2)
    assert last[0] - first[0] == pytest.approx(27, abs=2)
    assert clean.frame()[0].std() < 0.5 * m.frame()[0].std()


def test_amplifier_lag_gamma_halo_and_skirt_change_the_picture_and_gamma_is_told() -> None:
    plain = bench().frame()[0].astype(float)
    for fault in ({"amplifier_lag_px": 0.5}, {"gamma": 2.2}, {"halo": 0.4}, {"skirt": 0.1}, {"charging": -0.3}):
        assert np.abs(bench(**fault).frame()[0] - plain).mean() > 0.3, fault
    assert bench(gamma=2.2).frame()[1].gamma == 2.2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"beam_current_a": -1e-12}, "beam_current_a"),
        ({"snr": 0.0}, "snr"),
        ({"alpha_rad": float("nan")}, "alpha_rad"),
        ({"skirt": 1.2}, "skirt"),
        ({"averages": 0}, "averages"),
        ({"averages": 65}, "averages"),
        ({"averaging": "recursively"}, "line, frame, recursive"),
        ({"gamma": 0.0}, "gamma"),
        ({"bits": 4}, "bits"),
        ({"dwell_s": -1e-6}, "dwell_s"),
        ({"pixel_size_m": 0.0}, "pixel_size_m"),
        ({"halo": float("inf")}, "halo"),
        ({"hum_px": -0.1}, "hum_px"),
        ({"charging_relaxes_s": 0.0}, "charging_relaxes_s"),
        ({"charging_electrons": -1.0}, "charging_electrons"),
        ({"contamination": 1.5}, "contamination"),
        ({"contamination_box": (0.6, 0.2, 0.4, 0.8)}, "contamination_box"),
        ({"databar_rows": 192}, "databar_rows"),
        ({"drift_px_per_frame": (float("nan"), 0.0)}, "drift_px_per_frame"),
        ({"amplifier_lag_px": -0.2}, "amplifier_lag_px"),
        ({"shape": (0, 64)}, "shape"),
    ],
)
def test_what_no_instrument_can_be_is_refused_by_name_when_the_settings_are_made(fault: dict, words: str) -> None:
    with pytest.raises(InstrumentError, match=words):
        MicroscopeSettings(**{"shape": (192, 192), **fault})
