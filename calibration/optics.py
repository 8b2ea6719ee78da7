"""The probe: its transfer function, its floor, its depth of focus. numpy only; the agent and the twin share it.

With A = [[z + ax, ay], [ay, z - ax]] a ray of slope t, |t| <= alpha, lands at A t (Erasmus & Smith 1982). All lengths
in metres, angles in rad, spatial frequencies k in rad/m.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ELECTRON_REST_TERM_PER_V = 0.979e-6  # relativistic correction of the wavelength, 1/V
DISC_TABLE_STEP = 0.02  # of q: linear interpolation is then good to 3e-5
DISC_TABLE_END = 160.0  # beyond it |2 J1(q)/q| < 8e-4
FW50_PER_SIGMA = 2.355  # full width that holds 50 % of a Gaussian beam's current


def wavelength_m(energy_ev: float) -> float:
    """Electron wavelength: 1.226 nm / sqrt(E (1 + 0.979e-6 E))."""
    return 1.226e-9 / float(np.sqrt(energy_ev * (1.0 + ELECTRON_REST_TERM_PER_V * energy_ev)))


def probe_fw50_m(
    alpha_rad: float,
    energy_ev: float,
    *,
    cs_m: float = 2e-3,
    cc_m: float = 2e-3,
    energy_spread_ev: float = 0.7,
    source_m: float = 1e-9,
    diffraction: bool = True,
) -> float:
    """In-focus probe diameter that holds half the current (Barth & Kruit 1996).

    `diffraction=False` leaves that term out: the wave transfer has it in the overlap of the two discs already.
    """
    d_a = 0.54 * wavelength_m(energy_ev) / alpha_rad if diffraction else 0.0
    d_s = 0.18 * cs_m * alpha_rad**3
    d_c = 0.34 * cc_m * alpha_rad * energy_spread_ev / energy_ev
    round_part = ((d_a**4 + d_s**4) ** (1.3 / 4) + source_m**1.3) ** (1 / 1.3)
    return float(np.hypot(round_part, d_c))


def half_depth_of_focus_m(pixel_size_m: float, alpha_rad: float, fw50_m: float = 0.0) -> float:
    """h_eff = sqrt(px^2 + d0^2) / (2 alpha): the defocus that adds one resolution element of blur."""
    return float(np.hypot(pixel_size_m, fw50_m)) / (2.0 * alpha_rad)


@lru_cache(maxsize=1)
def _disc_table() -> tuple[Array, Array]:
    q = np.arange(0.0, DISC_TABLE_END + DISC_TABLE_STEP, DISC_TABLE_STEP)
    # Bessel's integral; the trapezoid rule converges faster than any power once it has more nodes than q.
    nodes = 256
    tau = (np.arange(nodes) + 0.5) * np.pi / nodes
    j1 = np.cos(tau[None, :] - q[:, None] * np.sin(tau)[None, :]).mean(axis=1)
    values = np.ones_like(q)
    values[1:] = 2.0 * j1[1:] / q[1:]
    return q, values


def disc_transfer(q: Array) -> Array:
    """OTF of a uniform ellipse: 2 J1(q) / q with q = alpha |A k|."""
    grid, values = _disc_table()
    return np.interp(q, grid, values, right=0.0)


# A float's leading bits are its logarithm: without the last 13 they number bins a thousandth wide, good to 3e-4.
BIN_BITS = 13
BINNED = (1e-3, 3600.0)  # of q^2: below it the transfer is 1 to 2e-4, beyond it less than 4e-3


def _bins(square: NDArray[np.float32]) -> NDArray[np.int32]:
    return square.view(np.int32) >> BIN_BITS


@lru_cache(maxsize=1)
def _binned_table() -> tuple[int, NDArray[np.float32]]:
    """The number of the first bin, and the transfer in the middle of each."""
    first, last = _bins(np.array(BINNED, np.float32))
    middle = (np.arange(first, last + 1, dtype=np.int32) << BIN_BITS) + (1 << (BIN_BITS - 1))
    return int(first), disc_transfer(np.sqrt(middle.view(np.float32).astype(np.float64))).astype(np.float32)


def disc_transfer_of_square(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """`disc_transfer` of q by q^2, to 3e-4, by look-up; below 0 counts as 0. Asked ten thousand times a frame."""
    first, table = _binned_table()
    return table.take(_bins(square) - np.int32(first), mode="clip")


def bessel_j1(x: Array) -> Array:
    """J1 for 0 <= x <= 160, to 5e-5 x."""
    return disc_transfer(x) * x / 2.0


def displacement(kx: Array, ky: Array, z_m: float, ax_m: float, ay_m: float) -> tuple[Array, Array]:
    """A k, in rad: times alpha it is the argument of the transfer function."""
    return (z_m + ax_m) * kx + ay_m * ky, ay_m * kx + (z_m - ax_m) * ky


def probe_transfer(
    kx: Array,
    ky: Array,
    *,
    z_m: float,
    ax_m: float = 0.0,
    ay_m: float = 0.0,
    alpha_rad: float,
    wavelength_m: float | None = None,
) -> Array:
    """Transfer of a probe out of focus by z and astigmatic by (ax, ay), without the aberration floor.

    Geometric (uniform disc) without a wavelength; with one, the diffraction integral over the overlap of two pupils.
    Needed where px < 2 wavelength/alpha: there the disc damps far too much.
    """
    ux, uy = displacement(kx, ky, z_m, ax_m, ay_m)
    if wavelength_m is None:
        return disc_transfer(alpha_rad * np.hypot(ux, uy))
    k = np.hypot(kx, ky)
    safe = np.maximum(k, 1e-30)
    along, across = (ux * kx + uy * ky) / safe, (uy * kx - ux * ky) / safe
    separation = k * wavelength_m / (2.0 * np.pi * alpha_rad)
    return wave_transfer(np.abs(alpha_rad * along), np.abs(alpha_rad * across), separation)


WAVE_Q = np.concatenate([np.arange(0.0, 20.0, 0.5), np.arange(20.0, 81.0, 1.0)])
WAVE_S = np.linspace(0.0, 2.0, 21)  # displacement of the two pupils, of the pupil radius


@lru_cache(maxsize=1)
def wave_table() -> Array:
    """(separation, q along, q across) -> transfer; across the lens analytic, along it Gauss-Legendre."""
    node, weight = np.polynomial.legendre.leggauss(64)
    table = np.zeros((WAVE_S.size, WAVE_Q.size, WAVE_Q.size))
    for i, s in enumerate(WAVE_S[:-1]):
        half = 1.0 - s / 2.0
        x, w = half * node, half * weight
        height = np.sqrt(np.maximum(1.0 - (np.abs(x) + s / 2.0) ** 2, 0.0))
        across = 2.0 * height * np.sinc(WAVE_Q[:, None] * height / np.pi)  # (q across, node)
        along = np.cos(WAVE_Q[:, None] * x) * w  # (q along, node)
        table[i] = along @ across.T / np.pi
    return table


def wave_transfer(q_along: Array, q_across: Array, separation: Array) -> Array:
    """OTF(f) = 1/(pi alpha^2) * integral of exp(2 pi i f.A t) over two discs of radius alpha displaced by lambda f.

    q_along, q_across: alpha A k along and across k; separation: lambda f / alpha (0..2). Trilinear table.
    """
    table = wave_table()
    s, fs = _cell(separation, WAVE_S)
    a, fa = _cell(q_along, WAVE_Q)
    b, fb = _cell(q_across, WAVE_Q)
    value = np.zeros(np.broadcast(s, a, b).shape)
    for ds in (0, 1):
        for da in (0, 1):
            for db in (0, 1):
                share = (fs if ds else 1 - fs) * (fa if da else 1 - fa) * (fb if db else 1 - fb)
                value = value + share * table[s + ds, a + da, b + db]
    return value


def _cell(x: Array, grid: Array) -> tuple[NDArray[np.intp], Array]:
    clipped = np.clip(x, grid[0], grid[-1])
    index = np.clip(np.searchsorted(grid, clipped, side="right") - 1, 0, grid.size - 2)
    return index, (clipped - grid[index]) / (grid[index + 1] - grid[index])


def floor_transfer(k: Array, fw50_m: float) -> Array:
    """Gaussian transfer of the in-focus probe, sigma = FW50 / 2.355."""
    sigma = fw50_m / FW50_PER_SIGMA
    return np.exp(-0.5 * (sigma * k) ** 2)
