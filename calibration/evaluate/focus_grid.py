"""The episodes of the focus bench: a seed and a number in, one case out. The first N of a seed are a stratified sample
for every N of 50 or more, so that a run that was cut short is a smaller bench and no other one.

Lengths are in half depths of focus (h_eff) until the column is drawn; signs as everywhere: positive is below.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.specimen import TEXTURED

FEATURELESS = ("flat", "sparse")  # a stratum of their own: nothing, or next to nothing, to focus on
EVERY = 8  # one episode in so many is of that stratum
NEAR = (0.0, 3.0, 12.0, 30.0, 100.0)  # edges of the strata of start defocus, h
SNRS = (0.64, 1.3, 1.8, 4.0)  # per pixel, in focus
STIGMATED_H = 0.5  # half of the columns are stigmated to within this; the others are up to the next line off
MOST_ASTIGMATISM_H = 3.0
REACH = 0.02  # of the working distance: no start is further from focus than that
WORKING_DISTANCE_M = 5e-3
PIXEL_M = (2e-9, 100e-9)
ALPHA_RAD = (2e-3, 10e-3)
VOLTAGES_V = (1e3, 2e3, 5e3, 10e3, 20e3)
ALPHA_SIGMA = 0.02  # relative, as the twin's certificate has it: one standard deviation of its error
HYSTERESIS_M = (20e-9, 1e-6)
MOST_HYSTERESIS_H = 0.5  # a lens with more play than that cannot be brought to where the targets are
STIGMATOR_M = 20e-6  # of a whole stigmator unit, as the twin has it
STIGMATOR_RANGE = 0.6  # of that unit: what the largest astigmatism asks of the knobs at most
WAITING = (
    7 / 8
)  # of the controllers scan on only when all has settled; the others go on, and many of their frames are lost
LATENCY_FRAMES = (0.1, 1.5)
TRIES = 1000  # columns drawn until one allows a start as far off as its stratum asks for


@dataclass(frozen=True, kw_only=True)
class Case:
    """One episode, before any method has seen it."""

    number: int
    specimen: str
    textured: bool
    stratum: int  # of start defocus: NEAR[stratum] .. NEAR[stratum + 1]
    snr: float
    defocus_h: float  # signed
    astigmatism_h: float
    alpha_error: float  # of the certificate, relative
    latency_s: float  # from a suggestion to the knob; 0: the scan waits until everything has settled
    settings: MicroscopeSettings

    @property
    def h_m(self) -> float:
        """h_eff of the true column."""
        return self.settings.half_depth_of_focus_m


def draw(number: int, *, seed: int, specimens: Sequence[str] = ()) -> Case:
    """Case `number` (from 0) of a seed. specimens: names that are looked at in turn; none: the textured ones, and one
    episode in EVERY of the featureless. The case does not depend on how many others there are."""
    name, index = _specimen(number, specimens)
    stratum, snr, sign, stigmated = _cell(index, seed)
    rng = np.random.default_rng([seed, number, 11])
    defocus_h = sign * float(rng.uniform(NEAR[stratum], NEAR[stratum + 1]))
    least, most = (0.0, STIGMATED_H) if stigmated else (STIGMATED_H, MOST_ASTIGMATISM_H)
    astigmatism_h = float(rng.uniform(least, most))
    settings = _column(rng, abs(defocus_h), MicroscopeSettings(specimen=name, seed=seed + number, snr=snr))
    settings = _placed(rng, settings, defocus_h, astigmatism_h)
    waits, latency_frames = rng.uniform() < WAITING, float(rng.uniform(*LATENCY_FRAMES))
    return Case(
        number=number,
        specimen=name,
        textured=name not in FEATURELESS,
        stratum=stratum,
        snr=snr,
        defocus_h=defocus_h,
        astigmatism_h=astigmatism_h,
        alpha_error=ALPHA_SIGMA * float(np.random.default_rng([seed, number, 13]).normal()),
        latency_s=0.0 if waits else latency_frames * settings.frame_time_s,
        settings=settings,
    )


def _specimen(number: int, specimens: Sequence[str]) -> tuple[str, int]:
    """The name, and the index among its like, by which the strata are gone through."""
    if specimens:
        return specimens[number % len(specimens)], number
    block, place = divmod(number, EVERY)
    if place == EVERY - 1:
        return FEATURELESS[block % len(FEATURELESS)], block
    index = number - block
    return TEXTURED[index % len(TEXTURED)], index


def _cell(index: int, seed: int) -> tuple[int, float, float, bool]:
    """Stratum of defocus, SNR, sign and whether it is stigmated: all combinations once in 64, all pairs of the first
    two once in 16, in an order of the seed."""
    strata, levels = len(NEAR) - 1, len(SNRS)
    block, place = divmod(index, strata * levels)
    cell = int(np.random.default_rng([seed, block, 12]).permutation(strata * levels)[place])
    bits = np.random.default_rng([seed, cell, 13]).permutation(4)[block % 4]
    return cell // levels, SNRS[cell % levels], 1.0 if bits & 1 else -1.0, bool(bits & 2)


def _column(rng: np.random.Generator, defocus_h: float, settings: MicroscopeSettings) -> MicroscopeSettings:
    """Pixel size, angle and voltage, of which so many h still lie within reach."""
    for _ in range(TRIES):
        drawn = replace(
            settings,
            pixel_size_m=_log_uniform(rng, *PIXEL_M),
            alpha_rad=float(rng.uniform(*ALPHA_RAD)),
            accelerating_voltage_v=VOLTAGES_V[int(rng.integers(len(VOLTAGES_V)))],
        )
        if defocus_h * drawn.half_depth_of_focus_m <= REACH * WORKING_DISTANCE_M:
            return drawn
    raise ValueError(f"no column reaches {defocus_h:g} half depths of focus")


def _placed(
    rng: np.random.Generator, settings: MicroscopeSettings, defocus_h: float, astigmatism_h: float
) -> MicroscopeSettings:
    """Where the episode begins, and all that makes a picture less than ideal."""
    h, angle = settings.half_depth_of_focus_m, float(rng.uniform(0.0, 2.0 * np.pi))
    drift, way = float(rng.uniform(0.0, 2.0)), float(rng.uniform(0.0, 2.0 * np.pi))
    # Coarse pixels on a column whose stigmators were made for them.
    stronger = max(1.0, MOST_ASTIGMATISM_H * h / (STIGMATOR_RANGE * STIGMATOR_M))
    (xx, xy), (yx, yy) = settings.stigmator_matrix_m
    return replace(
        settings,
        in_focus_working_distance_m=WORKING_DISTANCE_M + 50e-6 * float(rng.uniform(-1.0, 1.0)),
        start_defocus_m=defocus_h * h,
        astigmatism_m=(astigmatism_h * h * float(np.cos(angle)), astigmatism_h * h * float(np.sin(angle))),
        stigmator_matrix_m=((stronger * xx, stronger * xy), (stronger * yx, stronger * yy)),
        drift_px_per_frame=(drift * float(np.cos(way)), drift * float(np.sin(way))),
        instrument_seed=settings.seed,
        hysteresis_m=min(_log_uniform(rng, *HYSTERESIS_M), MOST_HYSTERESIS_H * h),
        drift_in_frame=bool(rng.uniform() < 0.25),
        line_jitter_px=float(rng.uniform(0.0, 0.3)),
        hum_px=float(rng.uniform(0.0, 0.3)),
        amplifier_lag_px=float(rng.uniform(0.0, 0.3)),
        skirt=0.1 if rng.uniform() < 0.5 else 0.0,
        charging=float(rng.uniform(-0.1, 0.1)),
        contamination=0.0 if settings.specimen == "flat" else float(rng.uniform(0.0, 0.1)),  # a box is a feature
        topography=bool(rng.uniform() < 0.25),
        bits=16 if rng.uniform() < 0.25 else 8,
        session=f"bench-{settings.seed}",
    )


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
