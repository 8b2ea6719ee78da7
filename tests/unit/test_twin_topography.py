"""Focus and heights together: a few blurs against the blur of every pixel by itself, and what must be exact."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.optics import probe_fw50_m, wavelength_m
from calibration.twin import view
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.possible import InstrumentError
from calibration.twin.probe import Probe, blur, frequencies, mirror_pad, reach_px, transfer_of
from calibration.twin.roughness import fractal
from calibration.twin.topography import TopographyError, blend_error, blur_over, blurs_needed, spectrum_rings

Field = NDArray[np.float32]

PX, ALPHA = 10e-9, 5e-3
H = PX / (2 * ALPHA)
FLOOR_M = probe_fw50_m(ALPHA, 5000.0)
DISC = Probe(alpha_rad=ALPHA, fw50_m=FLOOR_M)
FINE_PX = 2.5e-9
FINE_H = FINE_PX / (2 * ALPHA)
SHAPES = {
    "disc": (DISC, PX),
    "gaussian": (Probe(alpha_rad=ALPHA, fw50_m=FLOOR_M, gaussian=True), PX),
    "skirt": (Probe(alpha_rad=ALPHA, fw50_m=FLOOR_M, skirt=0.1), PX),
    "waves": (
        Probe(
            alpha_rad=ALPHA,
            fw50_m=probe_fw50_m(ALPHA, 1000.0, diffraction=False),
            wavelength_m=wavelength_m(1000.0),
        ),
        FINE_PX,
    ),
}


def textured(side: int, seed: int) -> Field:
    """Crisp to two or three pixels, with contrast like a specimen's."""
    rng = np.random.default_rng(seed)
    cells = (fractal((side, side), coarse_px=9.0, octaves=3, rng=rng) > 0.0).astype(np.float32)
    crisp = np.asarray(cv2.GaussianBlur(0.2 + 0.6 * cells, (0, 0), 0.7), np.float32)
    return np.asarray(crisp + 0.05 * fractal((side, side), coarse_px=6.0, octaves=3, rng=rng), np.float32)


def pixel_by_pixel(
    emission: Field, height_m: Field, *, pixel_size_m: float, probe: Probe, z_m: float, a_m: tuple[float, float]
) -> Field:
    """Every surface point by its own probe, summed one by one; each position of the beam hands out all its current."""
    furthest = abs(z_m) + float(np.abs(height_m).max()) + float(np.hypot(*a_m))
    margin = reach_px(probe, furthest, pixel_size_m=pixel_size_m)
    light, up = mirror_pad(emission, margin), mirror_pad(height_m, margin)
    kx, ky = frequencies(light.shape, pixel_size_m)
    steps = [np.exp(-1j * pixel_size_m * k.ravel()[None, :] * np.arange(n)[:, None])
             for k, n in ((kx, light.shape[1]), (ky, light.shape[0]))]  # fmt: skip
    signal, current = np.zeros((2, light.shape[0], kx.size), np.complex128)
    for height in np.unique(up):
        rows, columns = np.nonzero(up == height)
        passed = transfer_of(kx, ky, z_m=z_m + float(height), ax_m=a_m[0], ay_m=a_m[1], probe=probe)
        signal += passed * ((steps[1][rows] * light[rows, columns][:, None]).T @ steps[0][columns])
        current += passed * (steps[1][rows].T @ steps[0][columns])
    h, w = emission.shape
    seen = np.fft.irfft2(signal, s=light.shape) / np.fft.irfft2(current, s=light.shape)
    return np.asarray(seen[margin : margin + h, margin : margin + w], np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("span_h", "z_h", "a_h"), [(1.0, 0.0, 0.0), (8.0, 0.5, 0.7), (8.0, 6.0, 0.0)])
def test_a_few_blurs_are_the_blur_of_every_pixel_within_one_percent_of_the_contrast(
    shape: str, span_h: float, z_h: float, a_h: float
) -> None:
    probe, px = SHAPES[shape]
    half = px / (2 * ALPHA)
    emission = textured(48, 1)
    hills = fractal((48, 48), coarse_px=20.0, octaves=1, rng=np.random.default_rng(2))
    levels = np.round((hills - hills.min()) / np.ptp(hills) * 60.0) / 60.0 - 0.5  # 61 heights, so that the sum ends
    height_m = np.asarray(levels * span_h * half, np.float32)
    optics = {"pixel_size_m": px, "probe": probe, "z_m": z_h * half}
    exact = pixel_by_pixel(emission, height_m, a_m=(a_h * half, 0.3 * a_h * half), **optics)  # type: ignore[arg-type]
    blended = blur_over(emission, height_m, astigmatism_m=(a_h * half, 0.3 * a_h * half), **optics)  # type: ignore[arg-type]
    assert float((blended - exact).std()) < 0.01 * float(exact.std())
    flat = blur_over(emission, 0.0 * height_m, astigmatism_m=(a_h * half, 0.3 * a_h * half), **optics)  # type: ignore[arg-type]
    if span_h == 8.0 and shape != "waves":  # that the heights matter at all; waves hardly feel four h
        assert float((flat - exact).std()) > 0.015 * float(exact.std())


def test_no_fewer_blurs_would_do_and_their_number_grows_with_the_span() -> None:
    rings = spectrum_rings(textured(256, 3), PX)
    counts = [blurs_needed(rings, 0.5 * span * H, probe=DISC) for span in (0.05, 1.0, 3.0, 10.0)]
    assert counts == sorted(counts) and counts[0] == 1 and counts[1] <= 3 and counts[2] <= 4 and counts[3] <= 9
    for span, count in zip((1.0, 3.0, 10.0), counts[1:], strict=True):
        assert blend_error(rings, 0.5 * span * H, count=count, probe=DISC) < 0.01
        assert blend_error(rings, 0.5 * span * H, count=count - 1, probe=DISC) >= 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plateau_higher_by_t_looks_as_the_ground_does_at_a_working_distance_smaller_by_t(shape: str) -> None:
    probe, px = SHAPES[shape]
    half = px / (2 * ALPHA)
    emission, z, t = textured(192, 4), 3.0 * half, 5.0 * half
    plateau = np.zeros((192, 192), np.float32)
    plateau[:, 96:] = t
    stepped = blur_over(emission, plateau, pixel_size_m=px, probe=probe, z_m=z - t)
    ground = blur_over(emission, np.zeros_like(plateau), pixel_size_m=px, probe=probe, z_m=z)
    away = slice(130, 192)  # farther from the step than the probe is wide
    error = float((stepped - ground)[:, away].std())
    assert error < 0.01 * float(ground[:, away].std())


def test_of_a_step_that_side_is_sharp_which_the_focus_lies_on() -> None:
    emission, t = textured(192, 5), 8.0 * H
    plateau = np.zeros((192, 192), np.float32)
    plateau[:, 96:] = t

    def sharpness(z_m: float) -> tuple[float, float]:
        seen = blur_over(emission, plateau, pixel_size_m=PX, probe=DISC, z_m=z_m)
        edges = np.abs(cv2.Laplacian(seen, cv2.CV_32F))
        return float(edges[:, :70].mean()), float(edges[:, 122:].mean())

    foci = np.linspace(-12.0, 6.0, 19)
    left, right = np.array([sharpness(f * H) for f in foci]).T
    assert foci[left.argmax()] == pytest.approx(0.0, abs=0.01)
    assert foci[right.argmax()] == pytest.approx(-8.0, abs=0.01)


def test_on_flat_ground_the_mean_stays_and_a_field_of_one_tone_stays_so_over_any_relief() -> None:
    emission = textured(192, 6)
    flat = np.zeros((192, 192), np.float32)
    for probe, _ in SHAPES.values():
        seen = blur_over(emission, flat, pixel_size_m=PX, probe=probe, z_m=2.0 * H)
        assert float(seen.mean()) == pytest.approx(float(emission.mean()), rel=1e-3)
    hills = np.asarray(6.0 * H * fractal((192, 192), coarse_px=40.0, octaves=3, rng=np.random.default_rng(7)))
    even = blur_over(np.full((192, 192), 0.4, np.float32), hills, pixel_size_m=PX, probe=DISC, z_m=H)
    assert even == pytest.approx(0.4, rel=1e-3)


def test_the_skirt_takes_a_tenth_of_the_current_three_times_as_wide() -> None:
    point = np.zeros((257, 257), np.float32)
    point[128, 128] = 1.0
    sigma_m = 40e-9
    spot = blur(point, pixel_size_m=PX, z_m=0.0, alpha_rad=ALPHA, fw50_m=2.355 * sigma_m, skirt=0.1)
    x = np.arange(257) - 128.0
    assert float(spot.sum()) == pytest.approx(1.0, abs=1e-3)
    variance = float((spot.sum(0) * x**2).sum()) * PX**2
    assert variance == pytest.approx((0.9 + 0.1 * 9.0) * sigma_m**2, rel=0.01)


def test_heights_of_another_shape_and_heights_with_holes_are_refused() -> None:
    emission = textured(64, 8)
    with pytest.raises(TopographyError, match="shape"):
        blur_over(emission, np.zeros((64, 63), np.float32), pixel_size_m=PX, probe=DISC, z_m=0.0)
    holed = np.zeros((64, 64), np.float32)
    holed[3, 4] = np.nan
    with pytest.raises(TopographyError, match="NaN"):
        blur_over(emission, holed, pixel_size_m=PX, probe=DISC, z_m=0.0)
    with pytest.raises(TopographyError, match="too many depths of focus"):
        blurs_needed(spectrum_rings(emission, PX), 500.0 * H, probe=DISC)


# The microscope.

STILL = {"drift_px_per_frame": (0.0, 0.0), "shift_px_per_um": (0.0, 0.0), "scale_with_focus": False}


def scope(height_m: Field | None, **settings: object) -> VirtualMicroscope:
    common: dict[str, object] = {
        "shape": (192, 192), "picture": textured(256, 9), "start_defocus_m": 0.0, "astigmatism_m": (0.0, 0.0),
        "snr": 50.0, "bits": 16, "hysteresis_m": 0.0, **STILL,
    }  # fmt: skip
    return VirtualMicroscope(MicroscopeSettings(**{**common, "height_m": height_m, **settings}))  # type: ignore[arg-type]


def test_the_microscope_focuses_on_one_terrace_or_on_the_other() -> None:
    step = np.zeros((256, 256), np.float32)
    step[:, 100:] = 10 * H
    m = scope(step)
    edges = {}
    for z_h in (0.0, -10.0):  # z is quoted at the middle height, and more than half of the field lies high
        m.set_working_distance(m.drawn.in_focus_working_distance_m + (z_h + 10.0) * H)
        m.wait_until(m.settled_ns)
        edges[z_h] = np.abs(cv2.Laplacian(m.frame()[0].astype(np.float32), cv2.CV_32F))
    low, high = slice(0, 80), slice(120, 192)
    assert edges[-10.0][:, high].mean() > 2.0 * edges[0.0][:, high].mean()
    assert edges[0.0][:, low].mean() > 2.0 * edges[-10.0][:, low].mean()


def test_heights_of_less_than_a_twentieth_of_the_depth_of_focus_change_no_byte() -> None:
    hills = fractal((256, 256), coarse_px=40.0, octaves=3, rng=np.random.default_rng(10))
    small = np.asarray(hills / np.ptp(hills) * 0.04 * H, np.float32)
    assert np.array_equal(scope(small).frame()[0], scope(np.zeros_like(small)).frame()[0])
    assert not np.array_equal(scope(100.0 * small).frame()[0], scope(np.zeros_like(small)).frame()[0])


def test_a_frame_at_the_same_focus_makes_no_transfer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hills = fractal((256, 256), coarse_px=40.0, octaves=3, rng=np.random.default_rng(11))
    asked: list[float] = []

    def counted(*args: object, z_m: float, **rest: object) -> Field:
        asked.append(z_m)
        return transfer_of(*args, z_m=z_m, **rest)  # type: ignore[arg-type]

    m = scope(np.asarray(hills / np.ptp(hills) * 3.0 * H, np.float32))
    monkeypatch.setattr(view, "transfer_of", counted)
    m.frame()
    m.frame()
    assert asked == []  # in focus it had looked already, to set the dose
    m.set_working_distance(m.working_distance_m + 5 * H)
    m.wait_until(m.settled_ns)
    for _ in range(3):
        m.frame()
    assert 2 <= len(asked) <= 4


def test_a_named_specimen_brings_its_own_heights() -> None:
    common = {"shape": (128, 128), "specimen": "tin-balls", "alpha_rad": 10e-3, "snr": 50.0, "start_defocus_m": 2e-6}
    flat, tall = (VirtualMicroscope(MicroscopeSettings(topography=on, **common)) for on in (False, True))  # type: ignore[arg-type]
    assert not np.array_equal(flat.frame()[0], tall.frame()[0])


def test_heights_without_a_picture_of_their_shape_are_refused() -> None:
    for picture in (None, np.zeros((32, 31), np.float32)):
        with pytest.raises(InstrumentError, match="of one shape"):
            MicroscopeSettings(picture=picture, height_m=np.zeros((32, 32), np.float32))
