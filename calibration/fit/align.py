"""Where a line-space lies in a frame: its direction from the spectrum, its phase from the levels themselves."""

import math

import numpy as np
from numpy.typing import NDArray

from calibration.fit.errors import FitError
from calibration.fit.geometry import Lines, Measures
from calibration.fit.imaging import Chain, imaged
from calibration.twin.emission import SILICON_1KEV, render
from calibration.twin.profile import Charging, Spot

Field = NDArray[np.float32]
Plane = NDArray[np.float64]

PITCH_DOUBT = 0.08  # so far from the assumed pitch the period in the frame may be
SEEN = (
    8.0  # times the median power around: 1 in 3000 of noise alone at one place, and some hundred places are looked at
)
FINER = 2  # harmonics that may be the strongest: a line has two edges
PHASES = 48


def aligned(levels: Field, measures: Measures, pixel_size_m: float) -> Lines:
    """Raises FitError where no such period is seen, or where less than two lie in the frame."""
    pitch_px = measures.pitch_m / pixel_size_m
    if not 4.0 <= pitch_px <= max(levels.shape) / 2.0:
        raise FitError(
            f"a pitch of {pitch_px:.1f} px in a frame of {levels.shape[1]}x{levels.shape[0]} px: 4 px or more are "
            "needed, and two periods in the frame; is the pixel size right?"
        )
    shape = (levels.shape[0], levels.shape[1])
    angle = _direction(levels, pitch_px)
    flat = Lines(measures, shape, pixel_size_m, angle)
    return Lines(measures, shape, pixel_size_m, angle, _phase(levels, flat))


def _direction(levels: Field, pitch_px: float) -> float:
    """Way across the lines; the strongest place of the spectrum at the pitch's frequency or its double."""
    h, w = levels.shape
    window = np.hanning(h)[:, None] * np.hanning(w)[None, :]
    size = (2 * h, 2 * w)  # finer bins: the direction is read between them
    power = np.abs(np.fft.rfft2((levels - levels.mean()) * window, s=size)) ** 2
    fx, fy = np.fft.rfftfreq(size[1])[None, :], np.fft.fftfreq(size[0])[:, None]
    pitches = np.hypot(fx, fy) * pitch_px
    doubt = max(PITCH_DOUBT, 1.5 * pitch_px / max(h, w))
    wanted = np.zeros(power.shape, np.bool_)
    for times in range(1, FINER + 1):
        wanted |= np.abs(pitches - times) < doubt
    around = float(np.median(power[(pitches > 0.5) & (pitches < FINER + 1.0)]))
    at = np.unravel_index(int(np.argmax(np.where(wanted, power, -1.0))), power.shape)
    if float(power[at]) < SEEN * max(around, 1e-30) * math.log(2.0) ** -1:
        raise FitError(f"no period of {pitch_px:.1f} px stands out of the noise; wrong pitch, or wrong pixel size?")
    return _centroid_angle(power, fx + 0.0 * fy, fy + 0.0 * fx, (int(at[0]), int(at[1])))


def _centroid_angle(power: Plane, fx: Plane, fy: Plane, at: tuple[int, int]) -> float:
    rows = (np.arange(at[0] - 1, at[0] + 2)) % power.shape[0]
    columns = np.unique(np.abs(np.arange(at[1] - 1, at[1] + 2)).clip(max=power.shape[1] - 1))
    part = np.ix_(rows, columns)
    sign = np.sign(fx[at]) or 1.0
    x, y = float((power[part] * fx[part]).sum()), float((power[part] * fy[part]).sum())
    return math.atan2(sign * y, sign * x)


def _phase(levels: Field, lines: Lines) -> float:
    """Lines are brighter where the twin has them so: a positive gain tells lines from spaces."""
    phases = (np.arange(PHASES) / PHASES - 0.5) * lines.pitch_px
    return float(max(phases, key=lambda phase: _likeness(levels, lines, float(phase))))


def _likeness(levels: Field, lines: Lines, phase_px: float) -> float:
    relief = lines.relief(np.array([phase_px, lines.angle_rad]))
    emitted = render(relief.height_m, SILICON_1KEV, pixel_size_m=lines.pixel_size_m, sky=relief.sky)
    point = Spot(0.7 * lines.pixel_size_m, 0.7 * lines.pixel_size_m, 0.0)
    seen = imaged(emitted, Chain(point, Charging(0.0, 1.0), 0.0), pixel_size_m=lines.pixel_size_m)
    a, b = seen - seen.mean(), levels - levels.mean()
    return float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum()) + 1e-30))
