"""The depth network: a height and its Laplace scale for each pixel, both in pixels. The trunk at stride 4, then 16
channels become the 4x4 pixels of their cell."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.dense import SHARED, Trunk

CELL = 4
UNIT_PX = 8.0  # the network's own unit of height: patterns are some pixels high
LOG_SCALE_RANGE = (-5.0, 4.0)  # of the unit


class DepthNet(nn.Module):
    """image (n, 1, h, w) uint8, condition (n, 8) -> height_px, scale_px, each (n, 1, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.head = nn.Sequential(nn.Conv2d(SHARED, SHARED, 3, 1, 1), nn.ReLU(), nn.Conv2d(SHARED, 2 * CELL**2, 1))

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        height, log_scale = self.raw(image, condition)
        return height * UNIT_PX, torch.exp(log_scale) * UNIT_PX

    @torch.no_grad()
    def widen(self, factor: float) -> None:
        """Multiply every scale by one factor, after training."""
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.bias[CELL**2 :] += math.log(factor)

    def raw(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Height in units and the logarithm of its scale: what the loss is made of."""
        height, log_scale = self.head(self.trunk(image, condition)).chunk(2, dim=1)
        return functional.pixel_shuffle(height, CELL), torch.clamp(
            functional.pixel_shuffle(log_scale, CELL), *LOG_SCALE_RANGE
        )
