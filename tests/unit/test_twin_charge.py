"""Charge, halo, contamination: known answers."""

import numpy as np
import pytest

from calibration.twin import charge


def test_a_halo_is_an_exponential_around_a_point_in_every_direction() -> None:
    point = np.zeros((257, 257), np.float32)
    point[128, 128] = 1e4
    length = 12.0
    glow = charge.halo(point, strength=1.0, length_px=length) - point
    ground = float(glow[4, 4])
    expected = 1e4 / (2 * np.pi * length**2) * np.exp(-np.array([15.0, 30.0, 45.0]) / length)
    for row, column in ((0, 1), (1, 0), (0, -1)):
        seen = [float(glow[128 + row * r, 128 + column * r]) - ground for r in (15, 30, 45)]
        assert seen == pytest.approx(expected, rel=0.03, abs=0.02 * float(expected[0]))


@pytest.mark.parametrize("strength", [-0.4, 0.4])
def test_a_halo_brightens_or_darkens_what_lies_around_and_keeps_the_mean(strength: float) -> None:
    picture = np.full((200, 200), 0.3, np.float32)
    picture[80:120, 80:120] = 1.0
    seen = charge.halo(picture, strength=strength, length_px=60.0)
    assert seen.mean() == pytest.approx(picture.mean(), abs=2e-3)
    beside, far = float(seen[100, 130]), float(seen[5, 5])
    assert np.sign(beside - far) == np.sign(strength)
    assert np.array_equal(charge.halo(picture, strength=0.0, length_px=60.0), picture)


def test_charge_grows_with_the_dose_and_runs_off_with_time() -> None:
    grown = charge.charge_after(0.0, 0.0, electrons_per_pixel=100.0, full_electrons=100.0, relaxes_s=30.0)
    assert grown == pytest.approx(1 - np.exp(-1))
    idle = charge.charge_after(grown, 30.0, electrons_per_pixel=0.0, full_electrons=100.0, relaxes_s=30.0)
    assert idle == pytest.approx(grown * np.exp(-1))
    # Both at once: half of full, where both rates are alike; and in two steps as in one.
    long = charge.charge_after(0.0, 3000.0, electrons_per_pixel=1e4, full_electrons=100.0, relaxes_s=30.0)
    assert long == pytest.approx(0.5)
    half = charge.charge_after(0.2, 4.0, electrons_per_pixel=40.0, full_electrons=100.0, relaxes_s=30.0)
    twice = charge.charge_after(half, 4.0, electrons_per_pixel=40.0, full_electrons=100.0, relaxes_s=30.0)
    once = charge.charge_after(0.2, 8.0, electrons_per_pixel=80.0, full_electrons=100.0, relaxes_s=30.0)
    assert twice == pytest.approx(once)
    assert charge.charge_after(0.0, 1.0, electrons_per_pixel=0.0, full_electrons=0.0, relaxes_s=30.0) == 1.0


def test_the_box_is_darker_by_the_stated_share_and_nothing_else_is() -> None:
    plane = np.full((100, 120), 0.5, np.float32)
    seen = charge.contaminate(plane, (30.0, 20.0, 90.0, 70.0), darker=0.2)
    assert seen[45, 60] == pytest.approx(0.4, abs=1e-4)
    assert seen[5, 5] == pytest.approx(0.5, abs=1e-4) and seen[90, 110] == pytest.approx(0.5, abs=1e-4)
