"""The trunk that depth and defects share: (n, channels, h, w) uint8 and its condition in, features at stride 4 out.

Plain convolutions, linear enlargement, no reduction over the picture: each output depends on its own neighbourhood
only, so that a tile is read as the same place of the whole, on every backend.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from engines.scene import CONDITION

WIDTHS = (32, 64, 96, 128)  # strides 4, 8, 16, 32
SHARED = 48  # channels of the pyramid that the heads read
HIDDEN = 32


class Trunk(nn.Module):
    """0.8 M weights; what is known of the frame turns the features of each stage (FiLM)."""

    def __init__(self, channels: int = 1) -> None:
        """channels: 2 where each picture comes with its reference, which is shown as what differs from it."""
        super().__init__()
        # 8x8 windows at stride 4 overlap: an edge is seen whole wherever it falls in the grid.
        windows = nn.Conv2d(channels, WIDTHS[0], 8, 4, 2, bias=False)
        self.stem = nn.Sequential(windows, nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        self.channels = channels
        strides = (1, 2, 2, 2)
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        self.stages = nn.ModuleList(_stage(a, b, s) for a, b, s in zip(inputs, WIDTHS, strides, strict=True))
        self.turns = nn.ModuleList(nn.Linear(HIDDEN, 2 * width) for width in WIDTHS)
        self.told = nn.Sequential(nn.Linear(CONDITION, HIDDEN), nn.ReLU())
        self.laterals = nn.ModuleList(nn.Conv2d(width, SHARED, 1) for width in WIDTHS)
        self.smooth = nn.Sequential(nn.Conv2d(SHARED, SHARED, 3, 1, 1, bias=False), nn.BatchNorm2d(SHARED), nn.ReLU())
        for turn in self.turns:
            assert isinstance(turn, nn.Linear)
            nn.init.zeros_(turn.weight)
            nn.init.zeros_(turn.bias)

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """-> (n, SHARED, h / 4, w / 4)."""
        mean, spread = condition[:, 0, None, None, None], condition[:, 1, None, None, None]
        grey = image.float() / 255.0
        shown = (grey[:, :1] - mean) / spread
        if self.channels == 2:
            # Where there is no reference the picture is its own, and nothing differs, not even the noise.
            shown = torch.cat([shown, (grey[:, :1] - grey[:, 1:]) / spread], dim=1)
        x = self.stem(shown)
        told = self.told(condition)
        levels = []
        for stage, turn in zip(self.stages, self.turns, strict=True):
            x = stage(x)
            gain, offset = turn(told)[:, :, None, None].chunk(2, dim=1)
            x = x * (1.0 + gain) + offset
            levels.append(x)
        shared = self.laterals[-1](levels[-1])
        for lateral, level in zip(reversed(list(self.laterals)[:-1]), reversed(levels[:-1]), strict=True):
            # Linear: what only the coarse levels know comes out smooth, not in blocks of their stride.
            wide = functional.interpolate(shared, scale_factor=2.0, mode="bilinear", align_corners=False)
            shared = lateral(level) + wide
        return torch.as_tensor(self.smooth(shared))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
