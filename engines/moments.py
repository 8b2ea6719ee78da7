"""Zernike moments of square crops, as a constant matrix: (n, side, side) in, magnitudes (n, 25) out. numpy only.

A magnitude does not change when the crop is turned. The cascade's graph holds the same matrix and multiplies by it.
"""

from math import factorial

import numpy as np
from numpy.typing import NDArray

DEGREE = 8
ORDERS = tuple((n, m) for n in range(DEGREE + 1) for m in range(n + 1) if (n - m) % 2 == 0)
LEAST_SUM = 1e-3  # grey levels: a crop that is black has no shape, and moments of 0


def basis(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Real and imaginary part of the conjugate polynomials, each (25, side * side); 0 outside the inscribed circle.

    V = R(rho) exp(i m theta), times (n + 1) / pi (Teague, JOSA 70:920, 1980); rho = 1 at side / 2 from the centre.
    """
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / (side / 2)
    rho, theta = np.maximum(np.hypot(x, y), 1e-9), np.arctan2(y, x)
    inside = rho <= 1.0
    whole = [(n + 1) / np.pi * _radial(n, m, rho) * np.exp(-1j * m * theta) * inside for n, m in ORDERS]
    stacked = np.stack(whole).reshape(len(ORDERS), -1)
    return stacked.real.astype(np.float32), stacked.imag.astype(np.float32)


def zernike(crops: NDArray[np.generic]) -> NDArray[np.float32]:
    """(n, side, side) of what is nowhere negative -> (n, 25), over the sum of what lies in the circle."""
    count, side = crops.shape[0], crops.shape[-1]
    flat = crops.reshape(count, -1).astype(np.float32)
    real, imaginary = basis(side)
    sums = flat @ (real[0] != 0.0).astype(np.float32)
    size = np.hypot(flat @ real.T, flat @ imaginary.T)
    return np.asarray(size / np.maximum(sums, LEAST_SUM)[:, None], np.float32)


def _radial(n: int, m: int, rho: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros_like(rho)
    for s in range((n - m) // 2 + 1):
        below = factorial(s) * factorial((n + m) // 2 - s) * factorial((n - m) // 2 - s)
        total += (-1) ** s * factorial(n - s) / below * rho ** (n - 2 * s)
    return total
