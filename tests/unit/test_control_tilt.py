"""A tilted specimen under the virtual microscope's probe: focus at the centre and the slope, not an average."""

from functools import lru_cache

import numpy as np
import pytest

from agent.control.estimate import Estimate, estimate
from agent.control.surface import surface
from agent.messages import Evidence
from calibration.twin.probe import Probe
from calibration.twin.topography import blur_over
from tests.simulator import ALPHA_RAD, H_M, MARGIN, PX_M, scene
from tests.unit.test_control_estimate import KNOWN, error_h, evidence

PLACES_H = (9.0, 3.0, -4.0)
SNR = 1.8
HALF_PX = 256
PROBE = Probe(alpha_rad=ALPHA_RAD, fw50_m=0.9 * PX_M)


@lru_cache(maxsize=4)
def frames(rise_h: tuple[float, float], seed: int = 1) -> tuple[Evidence, ...]:
    """rise_h: of the surface, from the centre to the right and to the lower edge."""
    size = 2 * (HALF_PX + MARGIN)
    rng, flat = np.random.default_rng(seed), scene("blobs", size, seed)
    emission = ((flat - flat.mean()) / flat.std()).astype(np.float32)
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / HALF_PX
    height = ((rise_h[0] * x + rise_h[1] * y) * H_M).astype(np.float32)
    cut = slice(MARGIN, size - MARGIN)
    taken = []
    for number, z in enumerate(PLACES_H):
        image = blur_over(emission, height, pixel_size_m=PX_M, probe=PROBE, z_m=z * H_M)[cut, cut]
        grey = 128.0 + 255.0 / (8.0 + 6.0 / SNR) * (image + rng.standard_normal(image.shape) / SNR)
        seen = grey.clip(0, 255).round().astype(np.uint8)
        taken.append(evidence(seen, (z - PLACES_H[0]) * H_M, number))
    return tuple(taken)


@lru_cache(maxsize=4)
def found(rise_h: tuple[float, float]) -> Estimate:
    return estimate(frames(rise_h), KNOWN)


@pytest.mark.parametrize("rise_h", [(1.0, 0.0), (2.0, -1.0)])
def test_the_centre_of_a_tilted_field_is_right_to_a_tenth_of_h_and_the_slope_is_told(
    rise_h: tuple[float, float],
) -> None:
    answer = found(rise_h)
    assert abs(error_h(answer, PLACES_H[-1])) < 0.1
    assert answer.slope is not None
    np.testing.assert_allclose(np.array(answer.slope) * HALF_PX * PX_M / H_M, rise_h, atol=0.2)
    assert np.hypot(*(answer.astigmatism_m or (9.0, 9.0))) < 0.15 * H_M


def test_a_level_field_is_called_level_and_errs_no_more() -> None:
    answer = found((0.0, 0.0))
    assert answer.slope is None
    assert abs(error_h(answer, PLACES_H[-1])) < 0.1


def test_every_patch_lies_on_the_plane_that_is_told() -> None:
    _, known = surface(frames((2.0, -1.0)), KNOWN)
    assert known is not None
    off_h = [
        (each.defocus_m - known.frames_m[-1] - np.dot(known.slope_m_per_px, each.centre_px)) / H_M
        for each in known.patches
        if each.defocus_m is not None
    ]
    assert len(off_h) == 9
    assert np.abs(off_h).max() < 0.3
