"""Which numbers a microscope can have. Settings in; nothing out, or one InstrumentError that names the field."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from calibration.twin.instrument import MicroscopeSettings

AVERAGING = ("line", "frame", "recursive")
MOST_AVERAGES = 64
POSITIVE = (
    "pixel_size_m", "alpha_rad", "accelerating_voltage_v", "dwell_s", "snr", "variance_factor", "gamma", "hum_hz",
    "charging_length_px", "halo_length_px", "charging_relaxes_s", "in_focus_working_distance_m",
)  # fmt: skip
NOT_NEGATIVE = (
    "beam_current_a", "hysteresis_m", "line_jitter_px", "hum_px", "amplifier_lag_px", "charging_electrons",
)  # fmt: skip
WITHIN = {
    "skirt": (0.0, 1.0),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "contamination": (0.0, 1.0),
    "charging": (-1.0, 1.0),
    "halo": (-1.0, 1.0),
    "charging_brightness": (-0.9, 9.0),
    "alpha_rad": (0.0, 0.5),
    "gamma": (0.1, 10.0),
    "amplifier_lag_px": (0.0, 64.0),
}
FINITE = ("start_defocus_m", "astigmatism_m", "drift_px_per_frame", "shift_px_per_um", "stigmator_matrix_m")


class InstrumentError(ValueError):
    """Settings that no instrument can have."""


def check(s: "MicroscopeSettings") -> None:
    """Raises InstrumentError for the first number that cannot be."""
    for name in POSITIVE:
        _demand(s, name, np.nextafter(0.0, 1.0), np.inf, "above 0")
    for name in NOT_NEGATIVE:
        _demand(s, name, 0.0, np.inf, "0 or more")
    for name, (low, high) in WITHIN.items():
        _demand(s, name, low, high, f"from {low:g} to {high:g}")
    for name in FINITE:
        _demand(s, name, -np.inf, np.inf, "a finite number")
    _check_picture(s)
    if s.averaging not in AVERAGING:
        raise InstrumentError(f"averaging {s.averaging!r}: one of {', '.join(AVERAGING)} is needed")
    if not 1 <= s.averages <= MOST_AVERAGES:
        raise InstrumentError(f"averages {s.averages}: 1 to {MOST_AVERAGES} scans make a frame")
    if s.bits not in range(8, 17):
        raise InstrumentError(f"bits {s.bits}: 8 to 16 are needed")


def _demand(s: "MicroscopeSettings", name: str, low: float, high: float, words: str) -> None:
    value = getattr(s, name)
    if value is None:
        return
    numbers = np.asarray(value, np.float64)
    if not (np.isfinite(numbers) & (numbers >= low) & (numbers <= high)).all():
        raise InstrumentError(f"{name} {value}: {words} is needed")


def _check_picture(s: "MicroscopeSettings") -> None:
    if min(s.shape) < 1:
        raise InstrumentError(f"shape {s.shape}: rows and columns are needed")
    if not 0 <= s.databar_rows < s.shape[0]:
        raise InstrumentError(f"databar_rows {s.databar_rows}: 0 to {s.shape[0] - 1} of {s.shape[0]} rows are possible")
    x0, y0, x1, y1 = s.contamination_box
    if not (x0 < x1 and y0 < y1):
        raise InstrumentError(f"contamination_box {s.contamination_box}: x0 < x1 and y0 < y1 are needed")
    if s.height_m is None:
        return
    if s.picture is None or s.picture.shape != s.height_m.shape:
        seen = "none" if s.picture is None else s.picture.shape
        raise InstrumentError(f"height_m of shape {s.height_m.shape}, picture {seen}: give both, of one shape")
    if not np.isfinite(s.height_m).all():
        raise InstrumentError("height_m with NaN or infinity: fill the holes of the surface first")
