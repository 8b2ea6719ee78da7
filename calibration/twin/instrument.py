"""What a virtual microscope is made of: one page of numbers, and those the seeds choose."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.certificate import Certificate, Limits
from calibration.optics import FW50_PER_SIGMA, half_depth_of_focus_m, probe_fw50_m, wavelength_m
from calibration.twin.column import SMALL_CHANGE_SETTLE_S, Actuator
from calibration.twin.emission import SILICON_1KEV, Emission, at_voltage
from calibration.twin.mask import Design
from calibration.twin.possible import check
from calibration.twin.probe import DIFFRACTION_FW50, Probe, needs_waves
from calibration.twin.profile import SIGMA, Profile
from calibration.twin.scan import VARIANCE_FACTOR

Matrix = tuple[tuple[float, float], tuple[float, float]]

NOMINAL_WORKING_DISTANCE_M = 5e-3
VALID_FOR = timedelta(days=365)
MISALIGNED_RAD = 5e-3  # 0.5 px per um at 10 nm pixels
START_H = 12.0  # of h_eff: default starts are uniform within this
STEP_M, STEP_H = 100e-6, 60.0  # largest step: the larger of the two; coarse pixels mean long ways


@dataclass(frozen=True, kw_only=True)
class MicroscopeSettings:
    """None: chosen by the seed. `seed` is the specimen and the day, `instrument_seed` the column itself."""

    specimen: str = "tin-balls"  # a name, or the picture's when `picture` is given
    picture: NDArray[Any] | None = field(default=None, repr=False)  # texture only
    height_m: NDArray[np.float32] | None = field(default=None, repr=False)  # with it `picture` is the emission itself
    layout: Design | None = field(default=None, repr=False)  # printed and rendered; its heights take part in the focus
    topography: bool = False  # a named specimen's own heights take part in the focus
    emission: Emission | None = None  # of named specimens and layouts; None: silicon at this voltage
    seed: int = 0
    instrument_seed: int = 0
    session: str | None = None
    source: str = "electron/SE2"
    shape: tuple[int, int] = (512, 512)  # rows, columns; the databar covers the last rows
    pixel_size_m: float = 10e-9
    alpha_rad: float = 5e-3
    accelerating_voltage_v: float = 5000.0
    focused_fw50_m: float | None = None  # what a profile measured; None: what the column's aberrations leave
    skirt: float = 0.0  # share of the current three times as wide as the focused probe; 0.1 is usual
    dwell_s: float = 0.936e-6
    beam_current_a: float | None = None  # None: what `snr` needs
    snr: float = 1.8  # rms of the in-focus object signal / rms noise, per pixel
    variance_factor: float = VARIANCE_FACTOR
    in_focus_working_distance_m: float | None = None  # None: 5 mm +- 50 um
    start_defocus_m: float | None = None  # None: uniform within +-12 h_eff
    astigmatism_m: tuple[float, float] | None = None  # None: up to 0.5 h_eff, any direction
    drift_px_per_frame: tuple[float, float] | None = None  # None: up to 0.5, any direction
    shift_px_per_um: tuple[float, float] | None = None  # of working distance; None: a beam up to 5 mrad off axis
    scale_with_focus: bool = True  # the image grows by D / working distance
    hysteresis_m: float = 0.1e-6
    stigmator_matrix_m: Matrix = ((19.6e-6, 2.1e-6), (-1.7e-6, 20.3e-6))
    bits: int = 8
    databar_rows: int = 0
    brightness: float = 0.5
    contrast: float = 0.5
    gamma: float = 1.0  # shown = level^(1 / gamma)
    averaging: str = "frame"  # how `averages` scans become one: line, frame, recursive
    averages: int = 1  # at the start; recursive: the newest scan's share is 1 / averages
    line_jitter_px: float = 0.0
    hum_px: float = 0.0  # amplitude of the mains' stray field
    hum_hz: float = 50.0
    drift_in_frame: bool = False  # whether drift tears the picture while it is scanned, and not only from scan to scan
    amplifier_lag_px: float = 0.0  # time constant; 0.1 to 0.5 is usual
    charging: float = 0.0  # of the tail along the line
    charging_length_px: float = 40.0
    halo: float = 0.0  # signed; of the wide halo around what is lit
    halo_length_px: float = 80.0
    charging_brightness: float = 0.0  # signed; relative change of the whole picture once it is charged
    charging_electrons: float = 0.0  # a pixel, until 63 % charged; 0: at once
    charging_relaxes_s: float = 30.0
    contamination: float = 0.0  # share of the signal that is missing where was scanned before
    contamination_box: tuple[float, float, float, float] = (0.25, 0.25, 0.75, 0.75)  # x0, y0, x1, y1 of the frame
    tell_alpha: bool = False  # whether the header carries the semi-convergence angle
    actuator: Actuator = Actuator.SOUND
    own_limits: Limits | None = None  # None: as large as the pixel size asks for

    def __post_init__(self) -> None:
        """Raises InstrumentError, one line with the field's name, for what no instrument can be."""
        check(self)

    @property
    def frame_time_s(self) -> float:
        """Of one scan: dwell * pixels * 1.1 + 0.08 s."""
        return self.dwell_s * self.shape[0] * self.shape[1] * 1.1 + 0.08

    @property
    def line_time_s(self) -> float:
        """From the start of a line to that of the next."""
        return self.dwell_s * self.shape[1] * 1.1

    @property
    def lit(self) -> Emission:
        """How named specimens and layouts shine; a picture has its own light."""
        if self.emission is not None:
            return self.emission
        return at_voltage(SILICON_1KEV, self.accelerating_voltage_v, pixel_size_m=self.pixel_size_m)

    @property
    def probe(self) -> Probe:
        """The beam but for its focus: waves where pixels are fine, the geometric disc elsewhere."""
        waves = self._has_waves
        return Probe(
            alpha_rad=self.alpha_rad,
            fw50_m=self._floor_m if waves else self.fw50_m,
            wavelength_m=wavelength_m(self.accelerating_voltage_v) if waves else None,
            skirt=self.skirt,
        )

    @property
    def limits(self) -> Limits:
        """How far it lets itself be moved, whoever asks."""
        step = max(STEP_M, STEP_H * self.half_depth_of_focus_m)
        return self.own_limits or Limits(1e-3, 20e-3, step_m=step, cumulative_m=2.0 * step, stigmator_step=1.0)

    @property
    def fw50_m(self) -> float:
        """The true in-focus probe, diffraction included."""
        if self.focused_fw50_m is None:
            return probe_fw50_m(self.alpha_rad, self.accelerating_voltage_v)
        # Nothing is finer than what diffraction leaves, where pixels are fine enough to show that.
        return float(np.hypot(self._floor_m, self._diffraction_m)) if self._has_waves else self.focused_fw50_m

    @property
    def _has_waves(self) -> bool:
        return needs_waves(self.pixel_size_m, self.alpha_rad, self.accelerating_voltage_v)

    @property
    def _diffraction_m(self) -> float:
        return DIFFRACTION_FW50 * wavelength_m(self.accelerating_voltage_v) / self.alpha_rad

    @property
    def _floor_m(self) -> float:
        """The in-focus probe but for diffraction, which the waves bring themselves."""
        if self.focused_fw50_m is None:
            return probe_fw50_m(self.alpha_rad, self.accelerating_voltage_v, diffraction=False)
        return float(np.sqrt(max(self.focused_fw50_m**2 - self._diffraction_m**2, 0.0)))

    @property
    def half_depth_of_focus_m(self) -> float:
        """h_eff."""
        return half_depth_of_focus_m(self.pixel_size_m, self.alpha_rad, self.fw50_m)


def fitted(profile: Profile) -> dict[str, Any]:
    """What a profile says of a microscope, by the names of its settings.

    The probe only where the frames told it, and round: its ellipse is the stigmators' affair.
    """
    charging = profile.charging
    found: dict[str, Any] = {
        "emission": profile.emission,
        "variance_factor": profile.variance_factor,
        "charging": charging.strength,
        "charging_length_px": charging.length_px,
        "amplifier_lag_px": profile.lag_px,
    }
    if profile.determined(SIGMA):
        found["focused_fw50_m"] = FW50_PER_SIGMA * profile.value(SIGMA)
    return found


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The settings with nothing left open."""

    in_focus_working_distance_m: float
    start_defocus_m: float
    astigmatism_m: tuple[float, float]
    drift_px_per_frame: tuple[float, float]
    shift_px_per_um: tuple[float, float]
    slack: float  # where in its play the lens starts, -1..1


def draw(s: MicroscopeSettings) -> Drawn:
    """Every number is drawn whether it is needed or not, so that one given value changes no other."""
    day = np.random.default_rng([s.seed, 101])
    column = np.random.default_rng([s.instrument_seed, 102])
    h = s.half_depth_of_focus_m
    drawn = Drawn(
        in_focus_working_distance_m=NOMINAL_WORKING_DISTANCE_M + 50e-6 * float(day.uniform(-1.0, 1.0)),
        start_defocus_m=START_H * h * float(day.uniform(-1.0, 1.0)),
        astigmatism_m=_vector(day, 0.5 * h),
        drift_px_per_frame=_vector(day, 0.5),
        slack=float(day.uniform(-1.0, 1.0)),
        shift_px_per_um=_vector(column, MISALIGNED_RAD * 1e-6 / s.pixel_size_m),
    )
    given = {name: getattr(s, name) for name in vars(drawn) if getattr(s, name, None) is not None}
    return replace(drawn, **given)


def certify(s: MicroscopeSettings, drawn: Drawn, *, alpha_error: float, made: datetime) -> Certificate:
    """The column's constants, true but for alpha, which is wrong by the relative error asked for."""
    shift_x, shift_y = drawn.shift_px_per_um
    return Certificate(
        instrument=f"virtual microscope {s.instrument_seed}",
        made=made.isoformat(timespec="seconds"),
        expires=(made + VALID_FOR).isoformat(timespec="seconds"),
        alpha_rad=s.alpha_rad * (1.0 + alpha_error),
        alpha_sigma_rad=0.02 * s.alpha_rad,
        stigmator_matrix_m=s.stigmator_matrix_m,
        limits=s.limits,
        fw50_m=s.fw50_m,
        hysteresis_m=s.hysteresis_m,
        settle_s=SMALL_CHANGE_SETTLE_S,
        shift_px_per_m=(shift_x * 1e6, shift_y * 1e6),
        scale_per_m=1.0 / NOMINAL_WORKING_DISTANCE_M if s.scale_with_focus else 0.0,
    )


def _vector(rng: np.random.Generator, longest: float) -> tuple[float, float]:
    length, angle = longest * float(rng.uniform()), 2.0 * np.pi * float(rng.uniform())
    return length * float(np.cos(angle)), length * float(np.sin(angle))
