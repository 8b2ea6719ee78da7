"""The cascade's calibration: what a perceptron says of candidates with known labels in, constants of the graph out.

Temperatures (Guo et al., arXiv:1706.04599) and the quantiles of strangeness come from candidates that no weight was
fitted to; the class means and the covariance they share from the training set.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calibration.networks.cascade import EMBEDDING, QUANTILES, Calibration, Fusion, distance_of, energy_of, strangeness
from calibration.train.cascade_data import NOT_A_DEFECT
from engines.defects import CLASSES

TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(6.0), 120))
SHRUNK = 0.1  # of the covariance towards a sphere: a few hundred candidates do not tell each direction
FEWEST = 5  # candidates of a class that have a mean; a class with fewer is as far as the mean of all
LEAST_SPREAD = 1e-3

Labels = NDArray[np.int8]


@torch.no_grad()
def fitted(fusion: Fusion, training: tuple[Tensor, Labels], tuning: tuple[Tensor, Labels]) -> Calibration:
    """Of inputs and labels of both sets."""
    means, whitening = classes(fusion, *training)
    _, defect, _ = fusion(tuning[0])
    there = torch.from_numpy(tuning[1] != NOT_A_DEFECT)
    embedding, _, leaf = fusion(tuning[0][there])
    label = torch.from_numpy(tuning[1].astype(np.int64))[there]
    ready = Calibration(
        defect_temperature=_temperature(lambda t: _binary(defect / t, there)),
        leaf_temperature=_temperature(lambda t: float(functional.cross_entropy(leaf / t, label))),
        means=means,
        whitening=whitening,
        energy=_middle_and_spread(energy_of(leaf)),
        distance=_middle_and_spread(distance_of(embedding, means @ whitening, whitening)),
        quantiles=torch.zeros(QUANTILES),
    )
    shares = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    return replace(ready, quantiles=torch.quantile(strangeness(embedding, leaf, ready), shares))


@torch.no_grad()
def classes(fusion: Fusion, inputs: Tensor, label: Labels) -> tuple[Tensor, Tensor]:
    """Mean embedding of each class, and what makes the covariance around them a sphere."""
    embedding = fusion(inputs)[0]
    there = torch.from_numpy(label != NOT_A_DEFECT)
    means, off = embedding[there].mean(dim=0).repeat(len(CLASSES), 1), []
    for index in range(len(CLASSES)):
        own = embedding[torch.from_numpy(label == index)]
        if len(own) >= FEWEST:
            means[index] = own.mean(dim=0)
            off.append(own - means[index])
    around = torch.cat(off) if off else torch.zeros(1, EMBEDDING)
    covariance = around.T @ around / max(len(around), 1)
    sphere = torch.eye(EMBEDDING) * torch.clamp(covariance.diagonal().mean(), min=1e-6)
    values, vectors = torch.linalg.eigh((1.0 - SHRUNK) * covariance + SHRUNK * sphere)
    return means, vectors @ torch.diag(values.rsqrt()) @ vectors.T


def _temperature(loss: Callable[[float], float]) -> float:
    return float(min(TEMPERATURES, key=loss))


def _binary(logits: Tensor, truth: Tensor) -> float:
    return float(functional.binary_cross_entropy_with_logits(logits, truth.float()))


def _middle_and_spread(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), max(float(values.std()), LEAST_SPREAD)
