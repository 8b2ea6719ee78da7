"""Likelihood of defocus and astigmatism from spectra of one unknown object seen at known settings. Pure numpy.

Whitened samples w_i(k) of n frames are sqrt(P(k)) h(k) exp(-i k d_i) plus white noise, h the frames' transfer and P
the object's power, unknown. Along u = h/|h| lies all of the signal, whatever P is: so the sum of trust |u.w|^2 is
largest at the truth for any weights that do not know the hypothesis. (Maximising over P in every cell instead reads
the blur too strong where samples are few.) The shifts d enter as phases and are maximised jointly with everything
else: an aligner of its own goes wrong where the transfer changes sign.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.cells import STILL_PX, Samples, cells, gather
from agent.control.displaced import Compared, shared
from agent.control.hearing import Averaged, heard_signal, mean_power, trusted
from agent.control.spectra import PATCH_PX
from agent.control.wave import WaveTransfer
from calibration.optics import disc_transfer_of_square

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Complex = NDArray[np.complex64]

SCALE_NATS = 20.0  # most columns keep the magnification: so much must speak against it
MIXING = 1 / 4  # bins squared: how far a sine window spreads each axis of the spectrum
FEW = 6  # hypotheses at a time: their transfers stay in the processor's cache
FULL = 4600  # cells of a picture that is heard everywhere
DARK = 1e-4  # of full transfer squared: no real pupil follows a uniform disc in its far rings


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

    def __init__(self, views: Sequence[View], column: Column, *, independent: float, power_alone: bool = False) -> None:
        """power_alone: only `incoherent` will be asked, which needs no cross spectra."""
        self.views = list(views)
        self.column = column
        self.n = len(self.views)
        self.independent, self.patches = independent, self.views[0].spectra.shape[0]
        self.weight = independent * self.patches * cells().count
        self.pairs = [(i, j) for i in range(self.n) for j in range(i + 1, self.n)]
        self._k = (2 * np.pi * cells().fx / column.pixel_size_m, 2 * np.pi * cells().fy / column.pixel_size_y_m)
        self.shifts = np.zeros((self.n, 2))  # px, of frame i against frame 0
        power = [mean_power(view.spectra) / view.noise for view in self.views]
        trust = self.weight * trusted(heard_signal(np.sum(power, axis=0), Averaged(self.n, self.patches, independent)))
        self.active = np.flatnonzero(trust)
        self.trust = trust[self.active]
        self.heard = np.stack([cells().mean(p)[self.active] for p in power]).astype(np.float32)
        self.belief = np.ones_like(self.heard)  # of each frame in each cell, against its noise alone
        self.common = np.ones(self.active.size)  # of each cell's amplitude, what two frames have in common
        kx, ky = self._k = self._k[0][self.active], self._k[1][self.active]
        self._terms = np.stack([kx**2 + ky**2, kx**2 - ky**2, 2.0 * kx * ky]).astype(np.float32)
        self._diffraction: WaveTransfer | None = None
        self._scanned: dict[tuple[Column, tuple[Hypothesis, ...]], Real32] = {}
        if power_alone:
            return
        self.samples = Samples(self.active)
        self.whitened = [self._whitened(view) for view in self.views]  # (patch, sample) each
        self.crosses: dict[float, Complex] = {}
        self.set_scale(0.0)

    def set_scale(self, scale_per_m: float) -> None:
        """Sum over patches with the magnification change a working distance brings (per metre)."""
        self.scale_per_m = scale_per_m
        if scale_per_m not in self.crosses:
            self.crosses[scale_per_m] = self._crossed(self._unscaled())
        self.cross = self.crosses[scale_per_m]
        self._registered: dict[bytes, Real] = {}  # shifts to half a coarse pixel -> refined
        self.align(self.shifts)

    def _unscaled(self) -> list[Complex]:
        return [self._undo_scale(*each, self.scale_per_m) for each in zip(self.whitened, self.views, strict=True)]

    def aligned(self) -> list[Complex]:
        """Of each frame the whitened samples of every patch, magnification and shifts undone: (patch, sample)."""
        turns = (self.samples.turn(shift) for shift in self.shifts)
        return [each * turn for each, turn in zip(self._unscaled(), turns, strict=True)]

    def _crossed(self, aligned: Sequence[Complex]) -> Complex:
        """(pair, sample): mean over patches of the first times the second's conjugate."""
        cross = np.zeros((len(self.pairs), self.samples.flat.size), np.complex64)
        turned = [np.conj(each) for each in aligned]
        for row, (i, j) in zip(cross, self.pairs, strict=True):
            np.einsum("ps,ps->s", aligned[i], turned[j], out=row)
        return cross / np.float32(len(aligned[0]))

    def set_pupil(self, pupil: str) -> None:
        """Take the beam's angles as an even disc or as a Gaussian of the same spread."""
        self.column = replace(self.column, pupil=pupil)

    def elsewhere(self, frames: Sequence[int], by_m: float) -> "Scene":
        """The same pictures, of which some were taken so much further out than they say."""
        other = copy(self)
        other.views = [replace(v, offset_m=v.offset_m + by_m * (i in frames)) for i, v in enumerate(self.views)]
        return other

    def align(self, shifts: Real) -> None:
        """Use these shifts (frame, xy), px, for the coherent likelihood."""
        self.shifts = shifts
        self._coherent: Real32 | None = None

    @property
    def coherent(self) -> Real32:
        """(pair, cell): real parts of the cross spectra with the present shifts undone."""
        if self._coherent is None:
            self._coherent = self._turned(self.shifts)
        return self._coherent

    def _turned(self, shifts: Real) -> Real32:
        turns = [self.samples.turn(shift) for shift in shifts]
        real = np.empty(self.cross.shape, np.float32)
        for row, cross, (i, j) in zip(real, self.cross, self.pairs, strict=True):
            row[:] = (cross * turns[i] * np.conj(turns[j])).real
        return np.asarray(self.samples.mean(real) / self.common, np.float32)

    def transfer(self, hypotheses: Sequence[Hypothesis]) -> Real32:
        """H of each hypothesis and frame in each cell that is heard: (hypothesis, frame, cell)."""
        z = np.array([[at.z_m + view.offset_m for view in self.views] for at in hypotheses])
        ax = np.array([[at.ax_m + view.stigmation_m[0] for view in self.views] for at in hypotheses])
        ay = np.array([[at.ay_m + view.stigmation_m[1] for view in self.views] for at in hypotheses])
        alpha = np.array([[self.column.alpha_rad * at.alpha_factor] for at in hypotheses])
        h = self.transfer_at(z, ax, ay, alpha)
        return np.asarray(h * _gains(hypotheses), np.float32) if hypotheses[0].gains else h

    def transfer_at(self, z: Real, ax: Real, ay: Real, alpha: Real) -> Real32:
        """Of what each frame is out of focus by, (hypothesis, frame) each; alpha (hypothesis, 1)."""
        if self.column.wavelength_m is not None:
            return self._wave(z, ax, ay, np.broadcast_to(alpha, z.shape))
        # |A k|^2 = k^2 (z^2 + |a|^2) + 2 z [ax (kx^2 - ky^2) + 2 ay kx ky], as one product over all hypotheses
        factors = np.stack([z**2 + ax**2 + ay**2, 2.0 * z * ax, 2.0 * z * ay], axis=-1) * alpha[..., None] ** 2
        square = factors.astype(np.float32) @ self._terms
        if self.column.pupil == "gaussian":
            return np.asarray(np.exp(np.maximum(square, np.float32(0.0)) * np.float32(-0.125)), np.float32)
        return disc_transfer_of_square(square)

    def _wave(self, z: Real, ax: Real, ay: Real, alpha: Real) -> Real32:
        assert self.column.wavelength_m is not None
        if self._diffraction is None:
            self._diffraction = WaveTransfer(*self._k, self.column.wavelength_m)
        flat = (np.ascontiguousarray(each).ravel() for each in (z, ax, ay, alpha))
        return self._diffraction(*flat).reshape(*z.shape, -1)

    def incoherent(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """Log likelihood from the power of each frame alone: needs no shifts, knows less."""
        self._scanned = {(self.column, few): self.transfer(few) for few in _few(hypotheses)}
        return np.concatenate([self._by_power(h) for h in self._scanned.values()])

    def by_power(self, z: Real, ax: Real, ay: Real, alpha: Real, *, rounds: int = 3) -> Real:
        """The same where each frame has a defocus of its own: (hypothesis, frame) each; alpha (hypothesis, 1)."""
        parts = self._parts(len(z))
        return np.concatenate(
            [self._by_power(self.transfer_at(z[p], ax[p], ay[p], alpha[p]), rounds=rounds) for p in parts]
        )

    def by_transfer(self, h: Real32, *, rounds: int = 3) -> Real:
        """The same where the transfers are there already: (hypothesis, frame, cell)."""
        return np.concatenate([self._by_power(h[part], rounds=rounds) for part in self._parts(len(h))])

    def _parts(self, hypotheses: int) -> list[slice]:
        few = max(1, FEW * FULL // max(self.active.size, 1))
        return [slice(i, i + few) for i in range(0, hypotheses, few)]

    def _by_power(self, h: Real32, *, rounds: int = 3) -> Real:
        power = h**2 + np.float32(DARK)
        excess = self.heard - np.float32(1.0)
        weighted = power
        for _ in range(rounds):  # reweighted moments of the object's power: the maximum likelihood within its noise
            top = np.einsum("hfc,fc->hc", weighted, excess)
            found = np.maximum(top, 0) / np.maximum(np.einsum("hfc,hfc->hc", weighted, power), np.float32(1e-12))
            expected = 1 + found[:, None] * power
            weighted = power / expected**2
        each = (self.heard - self.heard / expected - np.log(expected)).sum(axis=1)
        return np.asarray(each.astype(np.float64) @ self.weight[self.active])

    def gathered(self) -> "Scene":
        """For searches by power alone: the heard cells in groups of like frequency, a tenth as many.

        Powers add up, so a group says nothing false; it only forgets how the object's power differs within it.
        """
        groups = gather(*(each[self.active] for each in (cells().fx, cells().fy)))
        weight, samples = self.trust, self.weight[self.active]
        total = groups.sum(weight)
        few = copy(self)
        few.heard = (groups.sum(weight * self.heard) / total).astype(np.float32)
        # As many samples as their mean is worth: strong cells among weak ones count for more than all the others.
        loud = weight * self.heard.mean(axis=0)
        few.weight = groups.sum(loud) ** 2 / groups.sum(loud**2 / samples)
        few.active = np.arange(total.size)
        few.trust = few.weight
        kx, ky = few._k = (groups.sum(weight * self._k[0]) / total, groups.sum(weight * self._k[1]) / total)
        few._terms = np.stack([kx**2 + ky**2, kx**2 - ky**2, 2.0 * kx * ky]).astype(np.float32)
        few._diffraction = None
        return few

    def likelihood(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """Log likelihood with the present shifts: how much of the signal lies along the expected direction."""
        return np.asarray(self._along(self.transfer(hypotheses), [self.coherent])[0])

    def likelihoods(self, hypotheses: Sequence[Hypothesis], registrations: Sequence[Real]) -> Real:
        """The same with each of several sets of shifts: (registration, hypothesis)."""
        coherent = [self._turned(shifts) for shifts in registrations]
        known = self._scanned  # the scan by power asks for the same ones
        each = (known.get((self.column, few)) for few in _few(hypotheses))
        found = (self.transfer(few) if h is None else h for few, h in zip(_few(hypotheses), each, strict=True))
        return np.hstack([self._along(h, coherent) for h in found])

    def around(self, points: Sequence[Hypothesis], steps: Real) -> tuple[Real, Real]:
        """Log likelihood of a point and of pairs at +-step from it, and the expected curvature by the pairs."""
        h = self.transfer(points)
        return self._along(h, [self.coherent])[0], self.information(h[1:], steps)

    def _along(self, h: Real32, coherent: Sequence[Real32]) -> Real:
        """(coherent, hypothesis)"""
        weighted = h * self.belief
        strength = (h * weighted).sum(axis=1) + np.float32(DARK)
        alone = (weighted * weighted * (self.heard - 1)).sum(axis=1)
        signals = self._together(weighted, coherent) + alone
        return np.asarray((signals / strength).astype(np.float64) @ self.trust, np.float64)

    def _together(self, h: Real32, coherent: Sequence[Real32]) -> Real32:
        """h^T W h in each cell off the diagonal: (hypothesis, frame, cell) -> (coherent, hypothesis, cell)."""
        total = np.zeros((len(coherent), h.shape[0], h.shape[2]), np.float32)
        product = np.empty_like(total[0])
        share = np.empty_like(product)
        for pair, (i, j) in enumerate(self.pairs):
            np.multiply(h[:, i], h[:, j], out=product)
            for sum_, each in zip(total, coherent, strict=True):
                np.multiply(product, each[pair], out=share)
                sum_ += share
        total *= 2
        return total

    def allow_for_errors(self, at: Hypothesis) -> None:
        """Believe each frame less where the model must err by more than noise, as far as `at` can tell.

        A window mixes neighbouring samples: where a frame's transfer is steep, that share of the object's power does
        not follow it. So does what a displacement moved out of the window. Without this the rings of a frame far out
        of focus, which are nothing but such errors, outvote everything once a sharp frame shows how strong the
        object is. The weights stay fixed while hypotheses are compared.
        """
        h, slope = self.transfer([at])[0], self._slopes(at)
        strength = (h**2).sum(axis=0) + DARK
        signal = (h**2 * (self.heard - 1)).sum(axis=0) + self._together(h[None], [self.coherent])[0, 0]
        object_power = np.maximum(signal / strength, 0.0) / strength
        away = self.shifts - self.shifts.mean(axis=0)
        lost = ((2.0 * np.pi / PATCH_PX) ** 2 * (away**2).sum(axis=1) / 3.0)[:, None]
        self.belief = (1.0 / (1.0 + object_power * (MIXING * slope**2 + lost * h**2))).astype(np.float32)
        signal = (np.maximum(self.heard - 1.0, 0.0) * self.belief).sum(axis=0)
        self.trust = self.weight[self.active] * trusted(signal, self._compare(h))

    def _compare(self, h: Real32) -> Real:
        """Set `common`, and tell which share of each cell's power the frames do not have in common even so."""
        samples, excess = self.weight[self.active], self.heard - 1.0
        seen = Compared(self.active, samples, excess, products=self.coherent, believed=self.common, transfer=h)
        found = shared(seen)
        self.common = found.common
        self.align(self.shifts)
        return found.incoherent

    def _slopes(self, at: Hypothesis) -> Real:
        """Change of each frame's transfer from one sample to the next, by a step outwards."""
        bins = np.hypot(cells().fx, cells().fy)[self.active] * PATCH_PX
        stretched = replace(at, alpha_factor=at.alpha_factor * 1.01)
        # The transfer depends on alpha k: stretching alpha by a per cent is a step of k / 100.
        h, further = self.transfer([at, stretched])
        return np.asarray((further - h) / (0.01 * bins), np.float64)

    def unmoved(self) -> float:
        """Log likelihood that nothing changed between the frames, whatever their settings say."""
        return float(self._along(np.ones((1, self.n, self.active.size), np.float32), [self.coherent])[0, 0])

    def one_way(self) -> float:
        """How much of what is heard lies one way: 0 for a picture alike in all directions, 1 for straight lines."""
        signal = np.maximum(self.heard.sum(axis=0) - self.n, 0.0)
        weight = self.trust * signal / (1.0 + signal)
        turned = np.exp(2j * np.arctan2(self._k[1], self._k[0]))
        return float(abs((weight * turned).sum()) / max(float(weight.sum()), 1e-12))

    def information(self, h: Real32, steps: Real) -> Real:
        """Expected curvature: 2 sum of trust times signal times du.du, from pairs of points at +-step per parameter."""
        u = h * np.sqrt(self.belief)
        u /= np.sqrt((u**2).sum(axis=1, keepdims=True) + np.float32(DARK))
        signal = np.maximum(((self.heard - 1.0) * self.belief).sum(axis=0), 0.0)
        slopes = (u[0::2] - u[1::2]) * np.sqrt(self.trust * signal).astype(np.float32)
        slopes = slopes.reshape(len(steps), -1) / (2.0 * steps[:, None]).astype(np.float32)
        return np.asarray(2.0 * (slopes @ slopes.T), np.float64)

    def find_shifts(self, at: Hypothesis, *, reach_px: int = 60) -> None:
        """Shifts by the correlation that is optimal under this hypothesis, then sub-pixel on the full band."""
        filters = self._filters(at)
        reference = int(np.argmax([f.sum() for f in filters]))
        shifts = np.zeros((self.n, 2))
        for i in range(self.n):
            if i != reference:
                product = self._pair(i, reference) * filters[i] * filters[reference]
                shifts[i] = self.samples.peak(product, reach_px)
        shifts -= shifts[0]
        known = self._registered.get(shifts.tobytes())  # several hypotheses meet in the same correlation peaks
        self.align(shifts if known is None else known)
        if known is None:
            self.refine_shifts(at)
            self._registered[shifts.tobytes()] = self.shifts

    def refine_shifts(self, at: Hypothesis) -> None:
        """Newton steps on the phases: each frame against all the others."""
        filters = self._filters(at)
        weighted = {(i, j): self._pair(i, j) * (filters[i] * filters[j]) for i, j in self.pairs}
        weighted |= {(j, i): np.conj(product) for (i, j), product in weighted.items()}
        shifts = self.shifts.copy()
        turns = [self.samples.turn(-shift) for shift in shifts]
        for _ in range(2):
            before = shifts.copy()
            for i in range(1, self.n):
                others = sum(weighted[i, j] * turns[j] for j in range(self.n) if j != i)
                shifts[i] = self.samples.climb(np.asarray(others, np.complex64), shifts[i])
                turns[i] = self.samples.turn(-shifts[i])
            if np.abs(shifts - before).max() < STILL_PX:
                break
        self.align(shifts)

    def choose_scale(self, at: Hypothesis, per_m: float) -> None:
        """No change of magnification with working distance, or the uncompensated one of either sign."""
        scored = []
        for scale in (0.0, per_m, -per_m):
            self.set_scale(scale)
            scored.append((float(self.likelihood([at])[0]) + (SCALE_NATS if scale == 0.0 else 0.0), scale))
        self.set_scale(max(scored)[1])

    def _pair(self, i: int, j: int) -> Complex:
        cross = self.cross[self.pairs.index((min(i, j), max(i, j)))]
        return np.asarray(cross if i < j else np.conj(cross))

    def _filters(self, at: Hypothesis) -> list[Real32]:
        """h_i sqrt(P/(1 + P |h|^2)) in every sample: their products weight the cross spectra."""
        h = self.transfer([at])[0]
        strength = (h**2).sum(axis=0) + DARK
        object_power = np.maximum((h**2 * (self.heard - 1.0)).sum(axis=0) / (strength**2), 0.0)
        root = np.sqrt(object_power / (1.0 + object_power * strength))
        return list((h * root).astype(np.float32)[:, self.samples.cell])

    def _whitened(self, view: View) -> Complex:
        deviation = np.sqrt(view.noise)[self.samples.column]
        return np.asarray(self.samples.of(view.spectra) / deviation, np.complex64)

    def _undo_scale(self, whitened: Complex, view: View, scale_per_m: float) -> Complex:
        """Phases that bring each patch back to where the reference frame has it."""
        grown = view.grown + scale_per_m * view.offset_m
        if grown == 0.0:
            return whitened
        return whitened * np.stack([self.samples.turn(centre * grown) for centre in view.centres_px])


def _gains(hypotheses: Sequence[Hypothesis]) -> Real32:
    """(hypothesis, frame or 1, 1)"""
    return np.exp(np.array([at.gains or (0.0,) for at in hypotheses], np.float32))[:, :, None]


def _few(hypotheses: Sequence[Hypothesis]) -> list[tuple[Hypothesis, ...]]:
    return [tuple(hypotheses[i : i + FEW]) for i in range(0, len(hypotheses), FEW)]
