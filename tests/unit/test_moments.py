"""Zernike moments: the numbers that mahotas gives, and what they are for."""

import mahotas
import numpy as np
import pytest

from engines.moments import DEGREE, ORDERS, basis, zernike

SIDE = 64


def test_moments_are_those_of_mahotas() -> None:
    crops = np.random.default_rng(0).integers(1, 256, (3, SIDE, SIDE), np.uint8)
    middle = ((SIDE - 1) / 2, (SIDE - 1) / 2)
    expected = [mahotas.features.zernike_moments(crop, SIDE // 2, degree=DEGREE, cm=middle) for crop in crops]
    np.testing.assert_allclose(zernike(crops), expected, atol=1e-6)


def test_a_turned_crop_has_the_same_moments_and_a_brighter_one_too() -> None:
    crop = np.random.default_rng(1).integers(1, 120, (SIDE, SIDE), np.uint8)
    told = zernike(np.stack([crop, np.rot90(crop), 2 * crop]))
    np.testing.assert_allclose(told[1], told[0], atol=1e-6)
    np.testing.assert_allclose(told[2], told[0], atol=1e-6)


def test_a_black_crop_has_moments_of_nothing() -> None:
    assert not zernike(np.zeros((1, SIDE, SIDE), np.uint8)).any()


def test_the_polynomials_are_orthogonal_on_the_circle() -> None:
    real, imaginary = basis(SIDE)
    whole = real.astype(np.float64) + 1j * imaginary
    product = np.abs(whole @ whole.conj().T)
    scale = np.sqrt(np.outer(product.diagonal(), product.diagonal()))
    assert whole.shape == (len(ORDERS), SIDE * SIDE)
    assert (product / scale - np.eye(len(ORDERS))).max() == pytest.approx(
        0.0, abs=0.05
    )  # a disc of pixels is not round
