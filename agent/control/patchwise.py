"""What each patch of the field says by itself: the fused likelihood, taken apart by patches. Pure.

All patches share the weights, the registration and the transfer of the whole field: so their log likelihoods add up
to the fused one, and what one of them says can be held against the others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.control.likelihood import DARK, Hypothesis, Scene

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Complex = NDArray[np.complex64]

FEW = 8  # hypotheses at a time


class Patchwise:
    """Powers and cross spectra of the patches of a registered scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        aligned = scene.aligned()  # of each frame: (patch, sample), registered
        power = [scene.samples.mean(_product(frame, frame)) for frame in aligned]
        products = (_product(aligned[i], aligned[j]) for i, j in scene.pairs)
        common = (2.0 / scene.common).astype(np.float32)
        pairs = [scene.samples.mean(product) * common for product in products]
        self.excess = np.stack(power, axis=1) - np.float32(1.0)  # (patch, frame, cell)
        self._data = np.concatenate([self.excess, np.stack(pairs, axis=1)], axis=1)
        self.patches = len(self._data)
        self._share = (scene.trust / self.patches).astype(np.float32)

    def likelihood(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """(patch, hypothesis); the sum over patches is the scene's own likelihood."""
        few = [hypotheses[i : i + FEW] for i in range(0, len(hypotheses), FEW)]
        flat = self._data.reshape(self.patches, -1)
        told = [flat @ self._weights(each).reshape(len(each), -1).T for each in few]
        return np.asarray(np.concatenate(told, axis=1), np.float64)

    def of_each(self, hypotheses: Sequence[Hypothesis]) -> Real:
        """(patch,): each patch by a hypothesis of its own."""
        weights = self._weights(hypotheses)
        return np.asarray(np.einsum("ptc,ptc->p", self._data, weights), np.float64)

    def unexplained(self, at: Hypothesis) -> tuple[Real, float]:
        """Of each patch: power that does not lie where the hypothesis has all signal, and how much chance makes of it.

        Both of the size of log likelihoods; what changed between the frames lies there.
        """
        heard = np.einsum("pfc,fc,c->p", self.excess, self.scene.belief, self._share)
        return heard - self.likelihood([at])[:, 0], self._chance()

    def _chance(self) -> float:
        """Of as many samples as there are, across the one direction that is explained."""
        samples = self.scene.weight[self.scene.active] / self.patches
        return float(np.sqrt((self._share.astype(float) ** 2 / samples).sum() * (self.scene.n - 1)))

    def _weights(self, hypotheses: Sequence[Hypothesis]) -> Real32:
        """(hypothesis, frame and pair, cell)"""
        h = self.scene.transfer(hypotheses)
        weighted = h * self.scene.belief
        share = self._share / ((h * weighted).sum(axis=1) + np.float32(DARK))
        products = [weighted[:, i] * weighted[:, j] for i, j in self.scene.pairs]
        return np.asarray(
            np.concatenate([weighted**2, np.stack(products, axis=1)], axis=1) * share[:, None], np.float32
        )


def _product(first: Complex, second: Complex) -> Real32:
    """Real part of the first times the second's conjugate."""
    return np.asarray(first.real * second.real + first.imag * second.imag, np.float32)
