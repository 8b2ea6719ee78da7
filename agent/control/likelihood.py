"""Likelihood of defocus and astigmatism from spectra of one unknown object seen at known settings. Pure numpy.

Whitened samples w_i(k) of n frames are sqrt(P(k)) h(k) exp(-i k d_i) plus white noise, h the frames' transfer and P
the object's power, unknown. Along u = h/|h| lies all of the signal, whatever P is: so the sum of trust |u.w|^2 is
largest at the truth for any weights that do not know the hypothesis. (Maximising over P in every cell instead reads
the blur too strong where samples are few.) The shifts d enter as phases and are maximised jointly with everything
else: an aligner of its own goes wrong where the transfer changes sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.spectra import PATCH_PX
from calibration.optics import disc_transfer_fast, probe_transfer

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Complex = NDArray[np.complex64]

LOW_BINS = 2.0  # leakage of the mean and slow shading live below
HIGH_BINS = 116.0  # the noise is measured beyond
FINE_BINS = 40.0  # below it every sample is a cell of its own: wide discs ring there
CELL = 3  # above it 3 x 3 samples share one object power
COARSE_PX = 128  # the correlation that finds shifts needs no more than half the band
MODEL_ERROR = 0.05**2  # of the transfer squared: gain, drift within a frame, edges that moved in or out
SCALE_NATS = 20.0  # most columns keep the magnification: so much must speak against it
INAUDIBLE = 0.1  # signal to noise of a cell below which a slightly wrong noise would speak for it
MIXING = 1 / 4  # bins squared: how far a sine window spreads each axis of the spectrum
AUDIBLE_WIDE = 0.08  # the same over 31 x 31 samples, where chance has less say
DARK = 1e-4  # of full transfer squared: no real pupil follows a uniform disc in its far rings


@dataclass(frozen=True)
class Cells:
    """The half-plane of a patch spectrum, sorted into cells."""

    order: NDArray[np.intp]  # flat samples, cell by cell
    starts: NDArray[np.intp]
    count: Real  # samples in each cell
    fx: Real  # cycles per pixel, mean of each cell
    fy: Real
    of_sample: NDArray[np.intp]  # (256*129) cell of each sample, -1 outside


@lru_cache(maxsize=1)
def cells() -> Cells:
    by = np.fft.fftfreq(PATCH_PX, 1.0 / PATCH_PX)[:, None] * np.ones((1, PATCH_PX // 2 + 1))
    bx = np.ones((PATCH_PX, 1)) * np.arange(PATCH_PX // 2 + 1)[None, :]
    radius = np.hypot(bx, by)
    # The column bx = 0 holds each sample twice (k and -k): keep one half.
    used = (radius >= LOW_BINS) & (radius <= HIGH_BINS) & ~((bx == 0) & (by < 0))
    fine = radius < FINE_BINS
    key = np.where(
        fine,
        (by + 200) * 1000 + bx,
        1_000_000 + np.floor((by + 201) / CELL) * 1000 + np.floor(bx / CELL),
    )
    flat = np.flatnonzero(used.ravel())
    values, inverse = np.unique(key.ravel()[flat], return_inverse=True)
    order = flat[np.argsort(inverse, kind="stable")]
    count = np.bincount(inverse, minlength=values.size).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.intp)
    of_sample = np.full(by.size, -1, np.intp)
    of_sample[flat] = inverse
    mean_x = np.add.reduceat(bx.ravel()[order], starts) / count / PATCH_PX
    mean_y = np.add.reduceat(by.ravel()[order], starts) / count / PATCH_PX
    return Cells(order, starts, count, mean_x, mean_y, of_sample)


@dataclass(frozen=True)
class View:
    """One frame as the likelihood sees it."""

    spectra: Complex  # (patch, 256, 129)
    centres_px: Real32  # (patch, 2)
    noise: Real32  # (129,) by column
    offset_m: float  # working distance minus that of the reference frame
    stigmation_m: tuple[float, float]  # astigmatism added by the stigmators, relative to the reference frame
    grown: float = 0.0  # magnification known to be above the others'


@dataclass(frozen=True)
class Column:
    """The optics common to all frames."""

    alpha_rad: float
    pixel_size_m: float
    pixel_size_y_m: float
    pupil: str = "disc"  # the beam's angles fill it evenly, or "gaussian"
    wavelength_m: float | None = None  # given where the pixels are fine enough for diffraction to count


@dataclass(frozen=True)
class Hypothesis:
    """Defocus and astigmatism of the reference frame, metres; alpha as a factor of the column's."""

    z_m: float
    ax_m: float = 0.0
    ay_m: float = 0.0
    alpha_factor: float = 1.0
    gains: tuple[float, ...] = ()  # logarithm of each frame's contrast against the reference's; empty: all alike


class Scene:
    """Frames of one scene: cross spectra summed over patches, and the likelihood of hypotheses about them."""

    def __init__(self, views: Sequence[View], column: Column, *, independent: float) -> None:
        self.views = list(views)
        self.column = column
        self.n = len(self.views)
        self.weight = independent * self.views[0].spectra.shape[0] * cells().count
        self.pairs = [(i, j) for i in range(self.n) for j in range(i + 1, self.n)]
        self._k = (2 * np.pi * cells().fx / column.pixel_size_m, 2 * np.pi * cells().fy / column.pixel_size_y_m)
        self.shifts = np.zeros((self.n, 2))  # px, of frame i against frame 0
        whitened = [self._whitened(view) for view in self.views]
        power = [np.mean(w.real**2 + w.imag**2, axis=0) for w in whitened]
        self.auto = np.stack([self._cell_mean(p) for p in power])
        trust = self.weight * _trust(self._signal(np.sum(power, axis=0)))
        self.active = np.flatnonzero(trust)
        self.trust = trust[self.active]
        self.heard = self.auto[:, self.active]
        self.belief = np.ones((self.n, self.active.size))  # of each frame in each cell, against its noise alone
        self.crosses: dict[float, list[Complex]] = {}
        self.set_scale(0.0)

    def set_scale(self, scale_per_m: float) -> None:
        """Sum over patches with the magnification change a working distance brings (per metre)."""
        self.scale_per_m = scale_per_m
        if scale_per_m not in self.crosses:
            aligned = [self._whitened(view) * self._undo_scale(view, scale_per_m) for view in self.views]
            self.crosses[scale_per_m] = [np.mean(aligned[i] * np.conj(aligned[j]), axis=0) for i, j in self.pairs]
        self.cross = self.crosses[scale_per_m]
        self.align(self.shifts)

    def set_pupil(self, pupil: str) -> None:
        """Take the beam's angles as an even disc or as a Gaussian of the same spread."""
        self.column = replace(self.column, pupil=pupil)

    def align(self, shifts: Real) -> None:
        """Use these shifts (frame, xy), px, for the coherent likelihood."""
        self.shifts = shifts
        self.coherent = (
            np.stack(
                [
                    self._cell_mean((cross * _phase(shifts[i] - shifts[j])).real)[self.active]
                    for cross, (i, j) in zip(self.cross, self.pairs, strict=True)
                ]
            )
            if self.pairs
            else np.zeros((0, self.active.size))
        )

    def transfer(self, hypotheses: Sequence[Hypothesis]) -> Real32:
        """H of each hypothesis and frame in each cell that is heard: (hypothesis, frame, cell)."""
        z = np.array([[at.z_m + view.offset_m for view in self.views] for at in hypotheses])
        ax = np.array([[at.ax_m + view.stigmation_m[0] for view in self.views] for at in hypotheses])
        ay = np.array([[at.ay_m + view.stigmation_m[1] for view in self.views] for at in hypotheses])
        alpha = np.array([[self.column.alpha_rad * at.alpha_factor] for at in hypotheses])
        kx, ky = self._k[0][self.active], self._k[1][self.active]
        if self.column.wavelength_m is not None:
            return self._wave(z, ax, ay, np.broadcast_to(alpha, z.shape)) * _gains(hypotheses)
        # |A k|^2 = k^2 (z^2 + |a|^2) + 2 z [ax (kx^2 - ky^2) + 2 ay kx ky], as one product over all hypotheses
        terms = np.stack([kx**2 + ky**2, kx**2 - ky**2, 2.0 * kx * ky])
        factors = np.stack([z**2 + ax**2 + ay**2, 2.0 * z * ax, 2.0 * z * ay], axis=-1) * alpha[..., None] ** 2
        square = (factors @ terms).astype(np.float32)
        if self.column.pupil == "gaussian":
            h = np.exp(np.maximum(square, np.float32(0.0)) * np.float32(-0.125))
        else:
            h = disc_transfer_fast(np.sqrt(np.maximum(square, np.float32(0.0))))
        return np.asarray(h * _gains(hypotheses), np.float32)

    def _wave(self, z: Real, ax: Real, ay: Real, alpha: Real) -> Real32:
        kx, ky = self._k[0][self.active], self._k[1][self.active]
        rows = [
            probe_transfer(
                kx, ky, z_m=at[0], ax_m=at[1], ay_m=at[2], alpha_rad=at[3], wavelength_m=self.column.wavelength_m
            )
            for at in zip(z.ravel(), ax.ravel(), ay.ravel(), alpha.ravel(), strict=True)
        ]
        return np.asarray(rows, np.float32).reshape(*z.shape, -1)

    def incoherent(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """Log likelihood from the power of each frame alone: needs no shifts, knows less."""
        power = self.transfer(hypotheses) ** 2 + DARK
        excess = self.heard[None] - 1.0
        trust = np.ones_like(power)
        for _ in range(3):  # reweighted moments of the object's power: the maximum likelihood within its noise
            top = (trust * power * excess).sum(axis=1)
            found = np.maximum(top, 0.0) / np.maximum((trust * power**2).sum(axis=1), 1e-12)
            trust = 1.0 / (1.0 + found[:, None] * power) ** 2
        expected = 1.0 + found[:, None] * power
        each = (self.heard[None] - self.heard[None] / expected - np.log(expected)).sum(axis=1)
        return np.asarray((self.weight[self.active] * each).sum(axis=1))

    def likelihood(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """Log likelihood with the present shifts: how much of the signal lies along the expected direction."""
        return self._along(self.transfer(hypotheses))

    def _along(self, h: Real32) -> Real:
        weighted = h * self.belief[None]
        strength = (h * weighted).sum(axis=1) + DARK
        return np.asarray((self.trust * self._projected(weighted) / strength).sum(axis=1))

    def allow_for_errors(self, at: Hypothesis) -> None:
        """Believe each frame less where the model must err by more than noise, as far as `at` can tell.

        A window mixes neighbouring samples: where a frame's transfer is steep, that share of the object's power does
        not follow it. So does what a displacement moved out of the window. Without this the rings of a frame far out
        of focus, which are nothing but such errors, outvote everything once a sharp frame shows how strong the
        object is. The weights stay fixed while hypotheses are compared.
        """
        h, slope = self.transfer([at])[0], self._slopes(at)
        strength = (h**2).sum(axis=0) + DARK
        object_power = np.maximum(self._projected(h[None])[0] / strength, 0.0) / strength
        away = self.shifts - self.shifts.mean(axis=0)
        lost = ((2.0 * np.pi / PATCH_PX) ** 2 * (away**2).sum(axis=1) / 3.0)[:, None]
        self.belief = 1.0 / (1.0 + object_power * (MIXING * slope**2 + lost * h**2))
        signal = (np.maximum(self.heard - 1.0, 0.0) * self.belief).sum(axis=0)
        self.trust = self.weight[self.active] * _trust(signal)

    def _slopes(self, at: Hypothesis) -> Real:
        """Change of each frame's transfer from one sample to the next, by a step outwards."""
        bins = np.hypot(cells().fx, cells().fy)[self.active] * PATCH_PX
        stretched = replace(at, alpha_factor=at.alpha_factor * 1.01)
        # The transfer depends on alpha k: stretching alpha by a per cent is a step of k / 100.
        h, further = self.transfer([at, stretched])
        return np.asarray((further - h) / (0.01 * bins), np.float64)

    def unmoved(self) -> float:
        """Log likelihood that nothing changed between the frames, whatever their settings say."""
        return float(self._along(np.ones((1, self.n, self.active.size), np.float32))[0])

    def information(self, points: Sequence[Hypothesis], steps: Real) -> Real:
        """Expected curvature: 2 sum of trust times signal times du.du, from pairs of points at +-step per parameter."""
        h = self.transfer(points) * np.sqrt(self.belief)[None]
        u = h / np.sqrt((h**2).sum(axis=1, keepdims=True) + DARK)
        slopes = (u[0::2] - u[1::2]) / (2.0 * steps[:, None, None])
        signal = np.maximum(((self.heard - 1.0) * self.belief).sum(axis=0), 0.0)
        return np.asarray(2.0 * np.einsum("aic,bic,c->ab", slopes, slopes, self.trust * signal, optimize=True))

    def _projected(self, h: NDArray[np.floating]) -> Real:
        """h^T (W - 1) h in each cell: the signal along h."""
        total = (h**2 * (self.heard[None] - 1.0)).sum(axis=1)
        for index, (i, j) in enumerate(self.pairs):
            total += 2.0 * h[:, i] * h[:, j] * self.coherent[index]
        return np.asarray(total)

    def find_shifts(self, at: Hypothesis, *, reach_px: int = 60) -> None:
        """Shifts by the correlation that is optimal under this hypothesis, then sub-pixel on the full band."""
        filters = self._filters(at)
        reference = int(np.argmax([f.sum() for f in filters]))
        shifts = np.zeros((self.n, 2))
        for i in range(self.n):
            if i != reference:
                product = self._pair(i, reference) * filters[i] * filters[reference]
                shifts[i] = _peak(product, reach_px)
        self.align(shifts - shifts[0])
        self.refine_shifts(at)

    def refine_shifts(self, at: Hypothesis) -> None:
        """Newton steps on the phases: each frame against all the others."""
        filters = self._filters(at)
        shifts = self.shifts.copy()
        for _ in range(2):
            for i in range(1, self.n):
                others = [
                    self._pair(i, j) * filters[i] * filters[j] * _phase(-shifts[j]) for j in range(self.n) if j != i
                ]
                shifts[i] = _newton(np.sum(others, axis=0), shifts[i])
        self.align(shifts)

    def choose_scale(self, at: Hypothesis, per_m: float) -> None:
        """No change of magnification with working distance, or the uncompensated one of either sign."""
        scored = []
        for scale in (0.0, per_m, -per_m):
            self.set_scale(scale)
            scored.append((float(self.likelihood([at])[0]) + (SCALE_NATS if scale == 0.0 else 0.0), scale))
        self.set_scale(max(scored)[1])

    def _pair(self, i: int, j: int) -> Complex:
        if i < j:
            return self.cross[self.pairs.index((i, j))]
        return np.conj(self.cross[self.pairs.index((j, i))])

    def _filters(self, at: Hypothesis) -> list[Real32]:
        """h_i sqrt(P/(1 + P |h|^2)) in every sample: their products weight the cross spectra."""
        h = self.transfer([at])[0]
        strength = (h**2).sum(axis=0) + DARK
        object_power = np.maximum((h**2 * (self.heard - 1.0)).sum(axis=0) / (strength**2), 0.0)
        root = np.sqrt(object_power / (1.0 + object_power * strength))
        shape = (PATCH_PX, PATCH_PX // 2 + 1)
        full = np.zeros((self.n, cells().count.size + 1), np.float32)  # the last cell is where samples are unused
        full[:, self.active] = h * root
        return [row[cells().of_sample].reshape(shape) for row in full]

    @staticmethod
    def _whitened(view: View) -> Complex:
        return np.asarray(view.spectra / np.sqrt(view.noise), np.complex64)

    @staticmethod
    def _undo_scale(view: View, scale_per_m: float) -> Complex:
        """Phases that bring each patch back to where the reference frame has it."""
        grown = view.grown + scale_per_m * view.offset_m
        if grown == 0.0:
            return np.ones((1, 1, 1), np.complex64)
        return np.stack([_phase(centre * grown) for centre in view.centres_px])

    def _signal(self, power: Real32) -> Real:
        """Power above noise of all frames together, smoothed over more samples the weaker it is expected to be."""
        excess = power - np.float32(self.n)
        near, far, wide = (self._cell_mean(_smooth(excess, size)) for size in (5, 11, 31))
        radius = np.hypot(cells().fx, cells().fy) * PATCH_PX
        return np.where(radius < FINE_BINS, near, np.where(wide > AUDIBLE_WIDE, far, 0.0))

    def _cell_mean(self, samples: Real32) -> Real:
        grid = cells()
        return np.asarray(np.add.reduceat(samples.ravel()[grid.order], grid.starts) / grid.count)


def detected_nats(spectra: Complex, noise: Real32, independent: float) -> float:
    """How much better one frame is explained with an object in it than as noise alone."""
    power = np.mean(spectra.real**2 + spectra.imag**2, axis=0) / noise - np.float32(1.0)
    grid = cells()
    near, wide = (_smooth(power, size).ravel()[grid.order] for size in (5, 31))
    radius = np.hypot(grid.fx, grid.fy) * PATCH_PX
    inner = np.repeat(radius < FINE_BINS, grid.count.astype(np.intp))
    signal = np.maximum(np.where(inner, near, wide) - INAUDIBLE, 0.0)
    return float(independent * spectra.shape[0] * np.sum(signal - np.log1p(signal)))


def _trust(signal: Real) -> Real:
    """Weight of each cell: s/(1+s) of its signal to noise s, less where s is so high that the model errs first.

    From the sum over frames, which no hypothesis and no direction changes: so the weights cannot bend the answer.
    """
    heard = np.maximum(signal - INAUDIBLE, 0.0)
    return np.asarray(heard / (1.0 + heard) / (1.0 + MODEL_ERROR * heard))


def _smooth(power: Real32, size: int) -> Real32:
    """Box mean over the half-plane, wrapping in y and mirrored in x as the spectrum of a real picture is."""
    pad = size // 2
    wrapped = np.concatenate([power[-pad:], power, power[:pad]])
    return np.asarray(cv2.blur(wrapped, (size, size), borderType=cv2.BORDER_REFLECT_101)[pad:-pad])


def _gains(hypotheses: Sequence[Hypothesis]) -> Real32:
    """(hypothesis, frame or 1, 1)"""
    return np.exp(np.array([at.gains or (0.0,) for at in hypotheses], np.float32))[:, :, None]


def _phase(shift_px: NDArray[np.floating]) -> Complex:
    """exp(+i k d): undoes a displacement of d pixels."""
    fy = np.fft.fftfreq(PATCH_PX)[:, None]
    fx = np.fft.rfftfreq(PATCH_PX)[None, :]
    return np.asarray(
        np.exp(2j * np.pi * fy * shift_px[1]).astype(np.complex64)
        * np.exp(2j * np.pi * fx * shift_px[0]).astype(np.complex64)
    )


def _peak(product: Complex, reach_px: int) -> Real:
    """Displacement of the first frame against the second, to half a coarse pixel."""
    half = COARSE_PX // 2
    rows = np.r_[0:half, PATCH_PX - half : PATCH_PX]
    small = product[rows, : half + 1]
    correlation = np.fft.irfft2(small, (COARSE_PX, COARSE_PX))
    step = PATCH_PX / COARSE_PX
    reach = int(reach_px / step)
    window = np.roll(correlation, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = np.unravel_index(int(np.argmax(window)), window.shape)
    return np.array([(x - reach) * step, (y - reach) * step], float)


def _newton(product: Complex, start_px: Real) -> Real:
    """Climb sum Re(product exp(ikd)) from start; steps are bounded to a coarse pixel."""
    fy = 2 * np.pi * np.fft.fftfreq(PATCH_PX)[:, None]
    fx = 2 * np.pi * np.fft.rfftfreq(PATCH_PX)[None, :]
    shift = start_px.copy()
    for _ in range(3):
        turned = product * _phase(shift)
        sine, cosine = turned.imag, turned.real
        gradient = -np.array([(fx * sine).sum(), (fy * sine).sum()])
        bend = np.array(
            [
                [(fx * fx * cosine).sum(), (fx * fy * cosine).sum()],
                [(fx * fy * cosine).sum(), (fy * fy * cosine).sum()],
            ]
        )
        eigenvalues, vectors = np.linalg.eigh(bend)
        step = vectors @ ((vectors.T @ gradient) / np.maximum(eigenvalues, 1e-6 + 0.05 * np.abs(eigenvalues).max()))
        shift = shift + np.clip(step, -2.0, 2.0)
    return shift
