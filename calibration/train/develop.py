"""From heights to the 8-bit picture a dense model is trained on: emission, probe, dose, every nuisance. numpy only.

The constants are drawn from ranges: a model must not know the twin's own silicon by heart. CENTRED lies around what an
electron Monte Carlo of silicon at 1 keV asks for (`calibration.twin.emission.Emission`), WIDE holds it and much else.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.picture import STRETCH_PERCENTILES, disturb, lag, line_noise
from calibration.twin import scan
from calibration.twin.emission import POSSIBLE, SILICON_1KEV, Emission, at_voltage, range_m, render
from engines.scene import Scene

Field = NDArray[np.float32]

PIXEL_M = (0.8e-9, 8e-9)
VOLTAGE_V = (300.0, 5000.0)
ELECTRONS = (8.0, 400.0)  # primaries a pixel
WHITE_PERCENTILE = 99.7  # of a picture stored without an offset: black is no electron at all
KNOWN = {"pixel_size_m": 0.85, "electrons_per_pixel": 0.6, "accelerating_voltage_v": 0.8}  # share of headers


Range = tuple[float, float]


@dataclass(frozen=True)
class Shading:
    """Ranges of the emission's constants; lengths in metres, drawn by their logarithm."""

    exponent: Range
    steepest: Range
    side: Range
    side_length_m: Range
    side_height_m: Range
    swallow: Range
    swallow_height_m: Range
    shadow: Range
    floor: Range
    indirect: Range


WIDE = Shading(
    exponent=(0.3, 1.3),
    steepest=(1.3, 6.0),
    side=(0.4, 3.6),
    side_length_m=(3e-9, 16e-9),
    side_height_m=(2.5e-9, 16e-9),
    swallow=(0.0, 1.0),
    swallow_height_m=(6e-9, 60e-9),
    shadow=(0.1, 1.0),
    floor=(0.0, 0.25),
    indirect=(0.0, 0.4),
)
CENTRED = Shading(
    exponent=(0.5, 1.2),
    steepest=(1.4, 2.6),
    side=(1.2, 3.2),
    side_length_m=(5e-9, 14e-9),
    side_height_m=(4e-9, 12e-9),
    swallow=(0.5, 1.0),
    swallow_height_m=(10e-9, 36e-9),
    shadow=(0.18, 0.6),
    floor=(0.0, 0.15),
    indirect=(0.0, 0.3),
)
IN_METRES = ("side_length_m", "side_height_m", "swallow_height_m")
WIDE_EDGE_SHARE = 0.5  # of looks: at higher voltages edges light up as far as backscattered electrons range
KNOWN_SHARE = 0.5  # of looks: silicon as the Monte Carlo has it; where all constants are wide, no picture tells heights
NEARLY = 0.12  # sigma of the logarithm of each of its constants
SLIGHT = {"floor": 0.05, "indirect": 0.1}  # at most, of what that silicon has none of
EDGE_OF_RANGE = 0.25  # the side's length over Kanaya and Okayama's range, as it is at 1 keV
WIDEST_EDGE_PX = 12.0
FARTHEST_PX = 60.0  # that backscattered electrons are followed


@dataclass(frozen=True)
class Look:
    """Everything between a shape and its picture."""

    emission: Emission
    voltage_v: float
    electrons_per_pixel: float  # primaries
    detected: float  # counts a primary where the yield is 1
    burst: float  # variance / mean of counts
    probe_px: tuple[float, float]  # sigma of the probe along x and y
    skirt: float  # share of the probe three times as wide


@dataclass(frozen=True)
class Developed:
    """A picture and what its labels need."""

    pixels: NDArray[np.uint8]  # (h, w)
    scene: Scene  # what the header tells; facts are left out at random
    electrons_per_pixel: float
    clean: Field  # without noise, grey levels
    noise: float  # one standard deviation, grey levels


def draw_pixel_m(rng: np.random.Generator) -> float:
    return _log_uniform(PIXEL_M, rng)


def draw_look(rng: np.random.Generator, *, pixel_size_m: float, shading: Shading = WIDE) -> Look:
    """A material, a detector, a dose and a probe."""
    voltage = _log_uniform(VOLTAGE_V, rng)
    sharp = float(rng.uniform(0.2, 1.1)) if rng.random() < 0.8 else float(rng.uniform(1.0, 3.0))
    oval = float(np.exp(rng.normal(0.0, 0.12)))
    return Look(
        emission=_draw_emission(shading, voltage, pixel_size_m=pixel_size_m, rng=rng),
        voltage_v=voltage,
        electrons_per_pixel=_log_uniform(ELECTRONS, rng),
        detected=float(rng.uniform(0.25, 1.0)),
        burst=float(rng.uniform(1.2, 2.0)),
        probe_px=(sharp * oval, sharp / oval),
        skirt=0.1 if rng.random() < 0.5 else 0.0,
    )


def _draw_emission(shading: Shading, voltage_v: float, *, pixel_size_m: float, rng: np.random.Generator) -> Emission:
    asymmetry = float(np.clip(rng.normal(0.0, 0.2), -0.8, 0.8)) if rng.random() < 0.3 else 0.0
    if rng.random() < KNOWN_SHARE:
        how = _nearly_silicon(voltage_v, pixel_size_m=pixel_size_m, rng=rng)
    else:
        how = _some_material(shading, voltage_v, pixel_size_m=pixel_size_m, rng=rng)
    return replace(how, asymmetry=asymmetry)


def _nearly_silicon(voltage_v: float, *, pixel_size_m: float, rng: np.random.Generator) -> Emission:
    fitted = at_voltage(SILICON_1KEV, voltage_v, pixel_size_m=pixel_size_m)
    constants = {name: float(rng.uniform(0.0, most)) for name, most in SLIGHT.items()}
    for each in fields(Shading):
        if each.name not in SLIGHT:
            by = float(np.exp(rng.normal(0.0, NEARLY)))
            constants[each.name] = float(np.clip(getattr(fitted, each.name) * by, *POSSIBLE[each.name]))
    return replace(fitted, **constants, range_m=min(fitted.range_m, FARTHEST_PX * pixel_size_m))


def _some_material(shading: Shading, voltage_v: float, *, pixel_size_m: float, rng: np.random.Generator) -> Emission:
    drawn = {each.name: getattr(shading, each.name) for each in fields(shading)}
    constants = {
        name: _log_uniform(ends, rng) if name in IN_METRES else float(rng.uniform(*ends))
        for name, ends in drawn.items()
    }
    reach = range_m(voltage_v) * float(rng.uniform(0.5, 1.5))
    wide = min(EDGE_OF_RANGE * reach, WIDEST_EDGE_PX * pixel_size_m) / constants["side_length_m"]
    if rng.random() < WIDE_EDGE_SHARE and wide > 1.0:
        constants |= {name: constants[name] * wide for name in IN_METRES}
    return Emission(**constants, range_m=float(np.clip(reach, 5e-9, FARTHEST_PX * pixel_size_m)))


def draw_material(height_m: Field, rng: np.random.Generator) -> Field | None:
    """Now and then another material above half height: brightness is no safe sign of height."""
    if rng.random() > 0.25:
        return None
    low, high = np.percentile(height_m, (2.0, 98.0))
    top = np.clip((height_m - low) / max(float(high - low), 1e-12) * 3.0 - 1.0, 0.0, 1.0)
    return np.asarray(1.0 + float(rng.uniform(-0.3, 0.6)) * top, np.float32)


def times(one: Field | None, other: Field | None) -> Field | None:
    """Two relative yields, either of which may be 1 everywhere."""
    if one is None or other is None:
        return one if other is None else other
    return np.asarray(one * other, np.float32)


def develop(
    height_m: Field,
    look: Look,
    *,
    pixel_size_m: float,
    sky: Field,
    material: Field | None = None,
    drift: Callable[[Field], Field] | None = None,
    tail: float | None = None,
    rng: np.random.Generator,
) -> Developed:
    """One exposure, digitised as a hand or a program would. drift: what the scan does to the signal's rows.

    tail: strength of a charging tail that it must have; None: as chance has it.
    """
    signal = probed(render(height_m, look.emission, pixel_size_m=pixel_size_m, sky=sky, material=material), look)
    if drift is not None:
        signal = drift(signal)  # of the picture, not of the heights: a tear has no walls
    steady = np.asarray(np.maximum(shaded(disturb(signal, rng, tail=tail), rng), 0.0), np.float32)
    dose = look.electrons_per_pixel * look.detected
    counts = scan.expose(steady, electrons_per_pixel=dose, rng=rng, variance_factor=look.burst)
    counts, noise = lag(steady * np.float32(dose), counts - np.float32(dose) * steady, rng)
    sigma = float(noise.std())
    shown = counts + line_noise(counts.shape, sigma, rng)
    gain, offset = _digitisation(shown, rng)
    return Developed(
        pixels=np.asarray(np.clip(shown * gain + offset + 0.5, 0, 255), np.uint8),
        scene=_header(look, pixel_size_m, rng),
        electrons_per_pixel=look.electrons_per_pixel,
        clean=np.asarray(np.clip(steady * dose * gain + offset, 0, 255), np.float32),
        noise=sigma * gain,
    )


def probed(signal: Field, look: Look) -> Field:
    """Seen through the probe: a Gaussian, and its skirt."""
    sharp = _gauss(signal, *look.probe_px)
    if look.skirt == 0.0:
        return sharp
    wide = _gauss(signal, 3.0 * look.probe_px[0], 3.0 * look.probe_px[1])
    return np.asarray((1.0 - look.skirt) * sharp + look.skirt * wide, np.float32)


def shaded(signal: Field, rng: np.random.Generator) -> Field:
    """A detector that sees one side better, now and then."""
    if rng.random() > 0.2:
        return signal
    y, x = np.mgrid[-1 : 1 : signal.shape[0] * 1j, -1 : 1 : signal.shape[1] * 1j].astype(np.float32)
    angle, strength = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.0, 0.15))
    return np.asarray(signal * (1.0 + strength * (np.cos(angle) * x + np.sin(angle) * y)), np.float32)


def _digitisation(counts: Field, rng: np.random.Generator) -> tuple[float, float]:
    """Gain and offset: stored from zero, stretched between percentiles, or set by hand."""
    kind = rng.random()
    if kind < 0.35:
        return 255.0 / max(float(np.percentile(counts, WHITE_PERCENTILE)), 1e-6), 0.0
    if kind < 0.6:
        low, high = (float(x) for x in np.percentile(counts, STRETCH_PERCENTILES))
        gain = 255.0 / max(high - low, 1e-6)
        return gain, -low * gain
    gain = float(rng.uniform(12.0, 50.0)) / max(float(counts.std()), 1e-6)
    return gain, float(rng.uniform(70.0, 170.0)) - float(counts.mean()) * gain


def _header(look: Look, pixel_size_m: float, rng: np.random.Generator) -> Scene:
    facts = {
        "pixel_size_m": pixel_size_m,
        "electrons_per_pixel": look.electrons_per_pixel,
        "accelerating_voltage_v": look.voltage_v,
    }
    return Scene(**{name: value for name, value in facts.items() if rng.random() < KNOWN[name]})


def _gauss(field: Field, x_px: float, y_px: float) -> Field:
    blurred = cv2.GaussianBlur(field, (0, 0), sigmaX=x_px, sigmaY=y_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))
