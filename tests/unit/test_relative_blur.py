"""Blur against a sharper frame of the same field: known answers, and the frames of another simulator."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from calibration.evaluate.relative_blur import RelativeBlur, RelativeBlurError, relative_blur
from calibration.twin.probe import Probe, frequencies, transfer_of
from calibration.twin.roughness import fractal

ARTIMAGEN = Path(__file__).parents[2].parent / "shared" / "data" / "artimagen"
NEEDS_ARTIMAGEN = pytest.mark.skipif(not ARTIMAGEN.exists(), reason="the shared data is not beside this checkout")
SHARPEST_PX = 0.7  # sigma of the sharpest frame of each sample


def noisy(picture: NDArray[np.float64], seed: int, noise: float = 0.05) -> NDArray[np.float64]:
    return picture + noise * np.random.default_rng(seed).standard_normal(picture.shape)


def through_the_twins_probe(picture: NDArray[np.float64], z: float, ax: float, ay: float) -> NDArray[np.float64]:
    kx, ky = frequencies(picture.shape, 1.0)
    probe = Probe(alpha_rad=2.0, gaussian=True)  # sigma along the axes is |z + |a|| and |z - |a|| then
    passed = transfer_of(kx, ky, z_m=z, ax_m=ax, ay_m=ay, probe=probe)
    return np.asarray(np.fft.irfft2(np.fft.rfft2(picture) * passed, s=picture.shape), np.float64)


@pytest.fixture(scope="module")
def field() -> NDArray[np.float64]:
    """Patches of every size with crisp outlines."""
    patches = fractal((256, 256), coarse_px=40.0, octaves=5, rng=np.random.default_rng(1)) > 0.0
    return np.asarray(0.2 + 0.6 * patches, np.float64)


@pytest.mark.parametrize(("z", "ax", "ay"), [(1.5, 0.0, 0.0), (3.0, 0.6, 0.4), (-3.0, 0.6, 0.4), (2.0, -0.5, 0.3)])
def test_the_twins_own_probe_is_read_back(field: NDArray[np.float64], z: float, ax: float, ay: float) -> None:
    said = relative_blur(noisy(through_the_twins_probe(field, z, ax, ay), 2), noisy(field, 3))
    a = float(np.hypot(ax, ay))
    assert said.sigma_px == pytest.approx(np.sqrt(z**2 + a**2), rel=0.05)
    assert said.misfit == pytest.approx(1.0, abs=0.1)
    if a > 0.3:
        streak = 0.5 * np.arctan2(ay, ax) + (0.0 if z > 0.0 else np.pi / 2)
        assert (said.major_px, said.minor_px) == pytest.approx((abs(z) + a, abs(z) - a), rel=0.1)
        assert abs(apart_deg(said.angle_rad, streak)) < 4.0


def test_shift_and_gain_between_the_frames_do_no_harm(field: NDArray[np.float64]) -> None:
    blurred = through_the_twins_probe(field, 2.0, 0.0, 0.0)
    said = relative_blur(40.0 + 80.0 * noisy(np.roll(blurred, (1, -2), axis=(0, 1)), 4), noisy(field, 5))
    assert said.sigma_px == pytest.approx(2.0, rel=0.05)
    assert said.gain == pytest.approx(80.0, rel=0.05)
    assert said.shift_px == pytest.approx((-2.0, 1.0), abs=0.1)


def test_the_uncertainty_grows_with_the_noise_and_says_how_far_off_the_answer_is(field: NDArray[np.float64]) -> None:
    blurred = through_the_twins_probe(field, 2.0, 0.0, 0.0)
    off, said = [], []
    for noise in (0.05, 0.2):
        answers = [relative_blur(noisy(blurred, 10 + i, noise), noisy(field, 30 + i, noise)) for i in range(6)]
        off.append(float(np.sqrt(np.mean([(a.sigma_px - 2.0) ** 2 for a in answers]))))
        said.append(float(np.mean([a.uncertainty_px for a in answers])))
    assert said[1] > 1.5 * said[0]
    assert off[0] < 2.0 * said[0] and off[1] < 2.0 * said[1]


def test_blank_foreign_and_small_pictures_are_refused(field: NDArray[np.float64]) -> None:
    with pytest.raises(RelativeBlurError, match="blank"):
        relative_blur(field, np.zeros_like(field))
    with pytest.raises(RelativeBlurError, match="one field, one shape"):
        relative_blur(field, field[:128])
    with pytest.raises(RelativeBlurError, match="64 or more"):
        relative_blur(field[:32, :32], field[:32, :32])
    with pytest.raises(RelativeBlurError, match="stands out of its noise"):
        relative_blur(field, np.random.default_rng(6).standard_normal(field.shape))


def apart_deg(angle_rad: float, other_rad: float) -> float:
    return float(np.degrees((angle_rad - other_rad + np.pi / 2) % np.pi - np.pi / 2))


def truth() -> list[dict[str, str]]:
    with (ARTIMAGEN / "truth.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def read(row: dict[str, str]) -> tuple[float, float, RelativeBlur]:
    """True added sigma (px, root mean square of the axes), true angle of the major axis, and what was read."""
    sharpest = f"{row['kind']}{row['sample_seed']}_s{SHARPEST_PX}_r1.0_a0.00_d200.tiff"
    said = relative_blur(tifffile.imread(ARTIMAGEN / row["file"]), tifffile.imread(ARTIMAGEN / sharpest))
    sigma, ratio = float(row["sigma_px"]), float(row["astig_ratio"])
    added = np.sqrt(sigma**2 * (ratio**2 + ratio**-2) / 2.0 - SHARPEST_PX**2)
    # Their ratio shrinks the axis at `astig_angle_rad` and stretches the one across it.
    return float(added), float(row["astig_angle_rad"]) + np.pi / 2, said


@NEEDS_ARTIMAGEN
@pytest.mark.parametrize(("kind", "from_px"), [("grains", 1.0), ("lines", 2.0)])
def test_artimagen_blur_within_five_percent_and_the_axis_within_three_degrees(kind: str, from_px: float) -> None:
    """Lines hold nothing finer than 0.25 rad/px along themselves: below 2 px their blur that way cannot be seen."""
    rows = [r for r in truth() if r["kind"] == kind and r["poisson_dose"] == "200" and float(r["sigma_px"]) >= from_px]
    angles = 0
    for row in rows:
        added, major_rad, said = read(row)
        assert said.sigma_px == pytest.approx(added, rel=0.05), row["file"]
        assert said.misfit == pytest.approx(1.0, abs=0.05), row["file"]
        # Along lines the axis is known as well as it says itself.
        if float(row["astig_ratio"]) > 1.0 and np.degrees(said.angle_uncertainty_rad) < 3.0:
            angles += 1
            assert abs(apart_deg(said.angle_rad, major_rad)) < 3.0, row["file"]
    assert (len(rows), angles) == {"grains": (19, 12), "lines": (13, 4)}[kind]


@NEEDS_ARTIMAGEN
def test_artimagen_at_a_seventh_of_the_dose_still_within_five_percent() -> None:
    for row in truth():
        if row["kind"] == "grains" and row["poisson_dose"] == "30" and row["sigma_px"] in ("1.5", "3.0", "9.0"):
            added, _, said = read(row)
            assert said.sigma_px == pytest.approx(added, rel=0.05), row["file"]
