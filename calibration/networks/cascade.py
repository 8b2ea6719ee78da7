"""The cascade's graph: crops and features of n candidates in; defect or not, leaf class, how known it looks out.

Two parts, trained one after the other. `DeepNet` looks at the crops: a small plain-convolution tower, shared by the
crop and its surroundings. `Fusion` is a perceptron over what that saw, Zernike moments of the crop and of what differs
from the reference (a constant matrix product), and the features. `CascadeNet` is both, calibrated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engines.cascade_crops import PLANES, SIDE_PX
from engines.cascade_features import FEATURES, columns_of
from engines.defects import CLASSES
from engines.moments import LEAST_SUM, ORDERS, basis
from engines.scene import CONDITION

WIDTHS = (16, 24, 48)  # at strides 2, 4 and 8
DEEP = 64  # numbers that the crops become
MOMENTS = 2 * len(ORDERS) + 1  # of the crop, of what differs, and how much differs
HIDDEN, EMBEDDING = 96, 32
DROPPED = 0.2
FORGOTTEN = 0.1  # least spread of an input: a column that never changed in training says nothing later either
QUANTILES = 400  # of the strangeness of known defects: they tell a share to a quarter of a percent
INPUTS = {"deep": DEEP, "moments": MOMENTS, "features": FEATURES}  # of the perceptron, in this order


class DeepNet(nn.Module):
    """planes (n, 4, 64, 64) uint8, condition (n, 8) -> (n, DEEP); and, to be trained by, what it says alone."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.tower = nn.Sequential(
            *_layer(2, first, 5, 2), *_layer(first, second, 3, 2), *_layer(second, second, 3, 1),
            *_layer(second, third, 3, 2), *_layer(third, third, 3, 1),
        )  # fmt: skip
        self.joined = nn.Sequential(nn.Linear(4 * third + CONDITION, DEEP), nn.ReLU())
        self.defect, self.leaf = nn.Linear(DEEP, 1), nn.Linear(DEEP, len(CLASSES))

    def embed(self, planes: Tensor, condition: Tensor) -> Tensor:
        """(n, DEEP)."""
        mean, spread = condition[:, 0, None, None, None], condition[:, 1, None, None, None]
        levels = (planes.float() / 255.0 - mean) / spread
        views = []
        for start in range(0, PLANES, 2):
            frame, reference = levels[:, start : start + 1], levels[:, start + 1 : start + 2]
            seen = self.tower(torch.cat([frame, frame - reference], dim=1))
            views += [seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3))]
        return torch.as_tensor(self.joined(torch.cat([*views, condition], dim=1)))

    def forward(self, planes: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Logits: of a defect (n,), of each leaf (n, 14)."""
        deep = self.embed(planes, condition)
        return self.defect(deep)[:, 0], self.leaf(deep)


class Moments(nn.Module):
    """planes -> (n, MOMENTS): engines.moments.zernike, as two products with a constant matrix."""

    real: Tensor
    imaginary: Tensor
    inside: Tensor

    def __init__(self) -> None:
        super().__init__()
        real, imaginary = basis(SIDE_PX)
        self.register_buffer("real", torch.from_numpy(real).T.contiguous())
        self.register_buffer("imaginary", torch.from_numpy(imaginary).T.contiguous())
        self.register_buffer("inside", (self.real[:, :1] != 0.0).float())

    def forward(self, planes: Tensor) -> Tensor:
        frame, reference = planes[:, 0].float().flatten(1), planes[:, 1].float().flatten(1)
        differs = torch.abs(frame - reference)
        sums = differs @ self.inside
        return torch.cat([self.of(frame), self.of(differs), torch.log1p(sums / self.inside.sum())], dim=1)

    def of(self, flat: Tensor) -> Tensor:
        """(n, pixels) -> (n, 25)."""
        a, b = flat @ self.real, flat @ self.imaginary
        return torch.sqrt(a * a + b * b + 1e-20) / torch.clamp(flat @ self.inside, min=LEAST_SUM)


class Fusion(nn.Module):
    """(n, inputs) -> embedding (n, EMBEDDING), logits of a defect (n,) and of each leaf (n, 14).

    used: the inputs it may see; the others are multiplied by nothing, so that a table of what each is worth compares
    perceptrons of one size.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, used: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(len(used)))
        self.register_buffer("scale", used.float())
        self.hidden = nn.Sequential(nn.Linear(len(used), HIDDEN), nn.ReLU(), nn.Dropout(DROPPED))
        self.embed = nn.Linear(HIDDEN, EMBEDDING)
        self.defect, self.leaf = nn.Linear(EMBEDDING, 1), nn.Linear(EMBEDDING, len(CLASSES))

    @torch.no_grad()
    def settle(self, inputs: Tensor) -> None:
        """Centre and scale by the training set; a column that is the same in all of it is ignored for good."""
        spread = inputs.std(dim=0)
        self.centre.copy_(inputs.mean(dim=0))
        self.scale.mul_((spread > 0.0) / torch.clamp(spread, min=FORGOTTEN * float(spread[spread > 0.0].median())))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        told = torch.clamp((inputs - self.centre) * self.scale, -6.0, 6.0)
        embedding = self.embed(self.hidden(told))
        shown = torch.relu(embedding)
        return embedding, self.defect(shown)[:, 0], self.leaf(shown)


@dataclass(frozen=True)
class Calibration:
    """Fitted on candidates that no weight was fitted to; only means and whitening come from the training set."""

    defect_temperature: float
    leaf_temperature: float
    means: Tensor  # (classes, EMBEDDING)
    whitening: Tensor  # (EMBEDDING, EMBEDDING): of the covariance that all classes share
    energy: tuple[float, float]  # mean and spread over known defects
    distance: tuple[float, float]
    quantiles: Tensor  # (QUANTILES,) of how strange known defects are, rising


class CascadeNet(nn.Module):
    """planes (n, 4, 64, 64) uint8, features (n, FEATURES) -> defect (n,), leaf (n, 14), known (n,), embedding."""

    quantiles: Tensor

    def __init__(self, deep: DeepNet, fusion: Fusion, fitted: Calibration) -> None:
        super().__init__()
        self.deep, self.moments, self.fusion, self.fitted = deep, Moments(), fusion, fitted
        self.register_buffer("quantiles", fitted.quantiles)

    def forward(self, planes: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.said(gathered(self.deep, self.moments, planes, features))

    def said(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of what the perceptron is shown: (n, sum of INPUTS)."""
        embedding, defect, leaf = self.fusion(inputs)
        known = share_stranger(strangeness(embedding, leaf, self.fitted), self.quantiles)
        sure = torch.sigmoid(defect / self.fitted.defect_temperature)
        return sure, torch.softmax(leaf / self.fitted.leaf_temperature, dim=1), known, embedding


def share_stranger(strange: Tensor, quantiles: Tensor) -> Tensor:
    """(n,) the share of known defects that look at least as strange."""
    return (quantiles[None, :] >= strange[:, None]).float().mean(dim=1)


def gathered(deep: DeepNet, moments: Moments, planes: Tensor, features: Tensor) -> Tensor:
    """(n, sum of INPUTS): what the perceptron is shown."""
    seen = deep.embed(planes, features[:, columns_of("condition")])
    return torch.cat([seen, moments(planes), features], dim=1)


def strangeness(embedding: Tensor, leaf: Tensor, fitted: Calibration) -> Tensor:
    """(n,) energy and distance to the nearest class, each in spreads of known defects, added."""
    far, energy = distance_of(embedding, fitted.means @ fitted.whitening, fitted.whitening), energy_of(leaf)
    return (energy - fitted.energy[0]) / fitted.energy[1] + (far - fitted.distance[0]) / fitted.distance[1]


def energy_of(leaf: Tensor) -> Tensor:
    """(n,) large where no class is likely (Liu et al., arXiv:2010.03759)."""
    return -torch.logsumexp(leaf, dim=1)


def distance_of(embedding: Tensor, means: Tensor, whitening: Tensor) -> Tensor:
    """(n,) Mahalanobis distance to the nearest class (Lee et al., arXiv:1807.03888). means: whitened."""
    off = (embedding @ whitening)[:, None, :] - means[None, :, :]
    return torch.sqrt((off * off).sum(dim=2).amin(dim=1))


def _layer(inputs: int, outputs: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
