"""Many transfers with diffraction at once against one at a time."""

import numpy as np

from agent.control.wave import WaveTransfer
from calibration.optics import probe_transfer

PX_M, WAVE_M = 3e-9, 17e-12


def test_it_is_the_transfer_of_the_probe_at_every_hypothesis() -> None:
    rng = np.random.default_rng(0)
    kx, ky = rng.uniform(0, np.pi, 3000) / PX_M, rng.uniform(-np.pi, np.pi, 3000) / PX_M
    z, ax, ay = rng.normal(0, 3e-6, 40), rng.normal(0, 4e-7, 40), rng.normal(0, 4e-7, 40)
    alpha = rng.uniform(3e-3, 8e-3, 40)
    many = WaveTransfer(kx, ky, WAVE_M)(z, ax, ay, alpha)
    each = [
        probe_transfer(kx, ky, z_m=at[0], ax_m=at[1], ay_m=at[2], alpha_rad=at[3], wavelength_m=WAVE_M)
        for at in zip(z, ax, ay, alpha, strict=True)
    ]
    np.testing.assert_allclose(many, each, atol=1e-4)


def test_what_lies_beyond_the_table_is_as_good_as_nothing() -> None:
    far = WaveTransfer(np.array([1e8, 6e8]), np.array([1e8, 0.0]), WAVE_M)
    found = far(np.array([1e-3]), np.array([0.0]), np.array([0.0]), np.array([5e-3]))
    assert np.abs(found).max() < 0.02
