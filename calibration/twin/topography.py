"""The probe over topography: where the surface is higher it is nearer, and out of focus by that much.

I(x) = sum over x' of e(x') P(x - x'; z + height(x')) / sum of P(x - x'; z + height(x')): each point of the surface is
blurred by its own defocus, and each position of the beam hands out all of its current, no more and no less. In every
spatial frequency the transfer is an entire function of the height, of band limit alpha k; so it is interpolated between
Chebyshev nodes of the height, and a few uniform blurs stand for all. The nodes do not depend on the defocus: the
transforms of the surface are made once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.twin.probe import Probe, frequencies, mirror_pad, reach_px, transfer_of

Field = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

BLEND_ERROR = 0.01  # of the picture's contrast, rms
MOST_BLURS = 48  # beyond it a frame takes seconds; enough for some 60 half depths of focus of a crisp specimen
LEAST_LANDED = 0.1  # of the current: in a pit narrower than this the walls take the rest, and the division stops
RINGS = 48  # frequencies at which the error of the blend is asked for
FOCI = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # of half the span, and of pixel / alpha: how far the focus lies from the middle
TABLE = 4096  # heights at which the shares are tabulated


class TopographyError(ValueError):
    """Heights that do not belong to the emission, or that no sum of blurs can stand for."""


@dataclass(frozen=True)
class Relief:
    """A surface cut into slices of height: transforms of size (h, w // 2 + 1), one for each node."""

    nodes_m: tuple[float, ...]
    emitted: tuple[Spectrum, ...]  # of emission * share
    landed: tuple[Spectrum, ...]  # of share; the shares of a point sum to 1

    def through(self, transfer: Callable[[float], Field]) -> tuple[Spectrum, Spectrum]:
        """Signal and current, each through the transfer of its height (m, up)."""
        signal, current = np.zeros_like(self.emitted[0]), np.zeros_like(self.landed[0])
        for height_m, emitted, landed in zip(self.nodes_m, self.emitted, self.landed, strict=True):
            passed = transfer(height_m)
            signal += emitted * passed
            current += landed * passed
        return signal, current


def relief(emission: Field, height_m: Field, *, pixel_size_m: float, probe: Probe) -> Relief:
    """Both planes (h, w), as they are to be transformed: periodic or tapered."""
    low, high = checked(emission, height_m)
    half_span_m = 0.5 * (high - low)
    # Where all is alike one blur is as good as many.
    plain = half_span_m == 0.0 or float(np.ptp(emission)) == 0.0
    count = 1 if plain else blurs_needed(spectrum_rings(emission, pixel_size_m), half_span_m, probe=probe)
    nodes = 0.5 * (high + low) + half_span_m * _chebyshev(count)
    pairs = [_slice(emission, height_m, nodes, i) for i in range(count)]
    return Relief(tuple(float(n) for n in nodes), tuple(e for e, _ in pairs), tuple(c for _, c in pairs))


def blur_over(
    emission: Field,
    height_m: Field,
    *,
    pixel_size_m: float,
    probe: Probe,
    z_m: float,
    astigmatism_m: tuple[float, float] = (0.0, 0.0),
) -> Field:
    """The map seen by the probe, same shape. height_m: up from the plane where z is quoted; z > 0 focused below it."""
    low, high = checked(emission, height_m)
    (ax_m, ay_m), (h, w) = astigmatism_m, emission.shape
    furthest = max(abs(z_m + low), abs(z_m + high)) + float(np.hypot(ax_m, ay_m))
    margin = reach_px(probe, furthest, pixel_size_m=pixel_size_m)
    padded = mirror_pad(emission, margin)
    kx, ky = frequencies(padded.shape, pixel_size_m)
    cut = relief(padded, mirror_pad(height_m, margin), pixel_size_m=pixel_size_m, probe=probe)
    seen = cut.through(lambda up: transfer_of(kx, ky, z_m=z_m + up, ax_m=ax_m, ay_m=ay_m, probe=probe))
    return developed(*seen, size=(padded.shape[0], padded.shape[1]))[margin : margin + h, margin : margin + w]


def developed(signal: Spectrum, current: Spectrum, *, size: tuple[int, int]) -> Field:
    """The picture: signal for each electron that lands."""
    landed = np.maximum(np.fft.irfft2(current, s=size), LEAST_LANDED)
    return np.asarray(np.fft.irfft2(signal, s=size) / landed, np.float32)


def checked(emission: Field, height_m: Field) -> tuple[float, float]:
    """Lowest and highest."""
    if height_m.shape != emission.shape:
        raise TopographyError(f"heights of shape {height_m.shape} over an emission of {emission.shape}: give one each")
    low, high = float(height_m.min()), float(height_m.max())
    if not np.isfinite([low, high]).all():
        raise TopographyError("heights with NaN or infinity: fill the holes of the surface first")
    return low, high


def blurs_needed(rings: tuple[NDArray[np.float64], NDArray[np.float64]], half_span_m: float, *, probe: Probe) -> int:
    """The fewest nodes whose blend errs by less than BLEND_ERROR of the picture's contrast, wherever the focus lies.

    rings: angular frequencies (rad/m) and the emission's power there.
    """
    for count in range(1, MOST_BLURS + 1):
        if blend_error(rings, half_span_m, count=count, probe=probe) < BLEND_ERROR:
            return count
    raise TopographyError(
        f"heights span {2e6 * half_span_m:.3g} um, too many depths of focus at {1e3 * probe.alpha_rad:.3g} mrad for "
        f"{MOST_BLURS} blurs: use coarser pixels, a smaller angle, or flatten the surface"
    )


def blend_error(
    rings: tuple[NDArray[np.float64], NDArray[np.float64]], half_span_m: float, *, count: int, probe: Probe
) -> float:
    """Largest rms error over heights and foci, of the contrast that the exact blur leaves."""
    k, power = rings
    up = np.linspace(-1.0, 1.0, 33)
    pixel_m = np.pi / float(k[-1])
    worst = 0.0
    for offset_m in (*(f * half_span_m for f in FOCI), *(f * pixel_m / probe.alpha_rad for f in FOCI[1:])):
        exact = _radial(k, half_span_m * up + offset_m, probe)
        blend = _shares(up, count).T @ _radial(k, half_span_m * _chebyshev(count) + offset_m, probe)
        contrast = (power * exact**2).sum(axis=1)
        worst = max(worst, float(np.sqrt(((power * (blend - exact) ** 2).sum(axis=1) / contrast).max())))
    return worst


def spectrum_rings(emission: Field, pixel_size_m: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Angular frequencies (rad/m) of RINGS rings up to the Nyquist frequency, and the power in each."""
    kx, ky = frequencies(emission.shape, pixel_size_m)
    power = np.abs(np.fft.rfft2(emission - emission.mean())) ** 2
    edge = np.pi / pixel_size_m
    ring = np.minimum((np.hypot(kx, ky) * (RINGS / edge)).astype(np.intp), RINGS)
    sums = np.bincount(ring.ravel(), power.ravel(), minlength=RINGS + 1)[:RINGS]
    return np.asarray((np.arange(RINGS) + 0.5) * edge / RINGS, np.float64), np.asarray(sums, np.float64)


def _radial(k: NDArray[np.float64], z_m: NDArray[np.float64], probe: Probe) -> NDArray[np.float64]:
    """(z, k) transfer without astigmatism: it moves the zeros of the transfer and not its band limit in z."""
    rows = [transfer_of(k, 0.0 * k, z_m=float(z), ax_m=0.0, ay_m=0.0, probe=probe) for z in z_m]
    return np.asarray(rows, np.float64)


def _chebyshev(count: int) -> NDArray[np.float64]:
    return np.asarray(np.cos(np.pi * (np.arange(count) + 0.5) / count), np.float64)


def _shares(up: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(count, n) Lagrange polynomials of the Chebyshev nodes at `up`, -1..1; they sum to 1 everywhere."""
    order = np.arange(count)
    weight = np.where(order == 0, 1.0, 2.0) / count
    at_nodes = np.cos(order[:, None] * np.arccos(_chebyshev(count))[None, :])  # (order, node)
    at_up = np.cos(order[:, None] * np.arccos(np.clip(up, -1.0, 1.0))[None, :])
    return np.asarray((at_nodes * weight[:, None]).T @ at_up, np.float64)


def _slice(emission: Field, height_m: Field, nodes_m: NDArray[np.float64], index: int) -> tuple[Spectrum, Spectrum]:
    """Transforms of what one node stands for."""
    low, high = float(height_m.min()), float(height_m.max())
    if len(nodes_m) == 1 or high <= low:
        share: Field = np.ones_like(height_m)
    else:
        table = _shares(np.linspace(-1.0, 1.0, TABLE), len(nodes_m))[index].astype(np.float32)[None, :]
        place = (height_m - np.float32(low)) * np.float32((TABLE - 1) / (high - low))
        looked_up = cv2.remap(table, place, np.zeros_like(place), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = np.asarray(looked_up, np.float32)
    both = np.fft.rfft2(emission * share), np.fft.rfft2(share)
    return np.asarray(both[0], np.complex64), np.asarray(both[1], np.complex64)
