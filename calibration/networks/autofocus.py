"""The autofocus network: (n, 1, h, w) uint8 and its condition in; score, log blur with its sigma, and content out.

Small enough for a CPU beside the instrument: plain convolutions, no interpolation, means over whole dimensions only,
so that the graph is the same at every size and on every backend. No convolution is padded: what a border of zeros adds
has another share in every size of frame (trained padded on 256 px, the blur was twice as wrong at 512).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 24, 48, 96, 128)  # the stem, then four stages at strides 4, 8, 16, 32
OCTAVES = 6  # of the structure function: differences over 1 to 64 pixels
LAGS = (1, 2)  # pixels of each octave's own picture, along both axes
STATISTICS = 4  # of the raw picture: spread, level, share black, share white
CONDITION = 2  # log10(pixel size / 25 nm), known
FEATURES = sum(WIDTHS) + WIDTHS[-1] + 2 * OCTAVES * len(LAGS) + STATISTICS
LOG_SIGMA_RANGE = (-4.0, 1.0)  # 2 % to a factor 2.7: outside lies a diverging loss, not a picture


def _stage(inputs: int, outputs: int, *, stride: int, second: int) -> nn.Sequential:
    """Two convolutions, the first 3x3 with the stride, the second `second` wide."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, second, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class AutofocusNet(nn.Module):
    """0.36 M weights. Pooled features enter the head as logarithms: ratios of powers tell blur at any contrast."""

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        stem, *rest = WIDTHS
        # 8x8 windows at stride 4 with more outputs than a 4x4 cell has pixels: half a pixel of blur survives the stem.
        self.stem = nn.Sequential(nn.Conv2d(1, stem, 8, 4, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        # The last convolution is 1x1: a picture of 128 px has one cell left there.
        shapes = ((1, 3), (2, 3), (2, 3), (2, 1))
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, stride=stride, second=second)
            for inputs, outputs, (stride, second) in zip(WIDTHS[:-1], rest, shapes, strict=True)
        )
        # Sparse scenes: a few cells hold the content, and a plain mean would drown them in noise.
        self.attention = nn.Conv2d(WIDTHS[-1], 1, 1)
        self.register_buffer("centre", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        self.head = nn.Sequential(
            nn.Linear(FEATURES + CONDITION, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 4)
        )

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (n, 1, h, w) uint8, condition (n, 2) -> score 0..10, ln blur_px, its sigma, content 0..1; each (n,)."""
        features = (self.features(image) - self.centre) / self.spread
        out = self.head(torch.cat([features, condition], dim=1))
        sigma = torch.exp(torch.clamp(out[:, 2], *LOG_SIGMA_RANGE))
        return 10.0 * torch.sigmoid(out[:, 0]), out[:, 1], sigma, torch.sigmoid(out[:, 3])

    def features(self, image: Tensor) -> Tensor:
        """(n, FEATURES): what the head sees of the picture."""
        standard, statistics = _standardise(image.float())
        x = self.stem(standard)
        pooled = [_log_mean(x)]
        for stage in self.stages:
            x = stage(x)
            pooled.append(_log_mean(x))
        weights = functional.softplus(self.attention(x)) + 1e-3
        attended = (x * weights).mean(dim=(2, 3)) / weights.mean(dim=(2, 3))
        return torch.cat([*pooled, torch.log(attended + 1e-2), _structure(standard), statistics], dim=1)

    @torch.no_grad()
    def settle(self, image: Tensor) -> None:
        """Centre and scale the features by what a first set of pictures gives; the weights do the rest."""
        features = self.features(image)
        self.centre.copy_(features.mean(dim=0))
        self.spread.copy_(features.std(dim=0) + 1e-2)

    @torch.no_grad()
    def widen(self, factor: float) -> None:
        """Multiply every sigma by one factor, after training."""
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        last.bias[2] += math.log(factor)


def _standardise(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset out of the picture, and back in as four numbers that tell black, white and clipped ones."""
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    spread = torch.sqrt(((pixels - mean) ** 2).mean(dim=(2, 3), keepdim=True) + 1e-6)
    black = (pixels < 0.5).float().mean(dim=(2, 3))
    white = (pixels > 254.5).float().mean(dim=(2, 3))
    level = (mean / 255.0).flatten(1)
    # One grey level keeps a blank picture blank instead of stretching its rounding to full contrast.
    standard = (pixels - mean) / (spread + 1.0)
    return standard, torch.cat([torch.log(spread + 1.0).flatten(1), level, black, white], dim=1)


def _structure(standard: Tensor) -> Tensor:
    """ln of the mean squared difference over 1, 2, 4 .. 64 pixels along each axis: white noise, texture and blur each
    have their own slope in it, and the two axes part where the beam is astigmatic."""
    columns = []
    x = standard
    for octave in range(OCTAVES):
        x = functional.avg_pool2d(x, 2) if octave else x
        for lag in LAGS:
            columns.append(((x[:, :, lag:] - x[:, :, :-lag]) ** 2).mean(dim=(2, 3)))
            columns.append(((x[:, :, :, lag:] - x[:, :, :, :-lag]) ** 2).mean(dim=(2, 3)))
    return torch.log(torch.cat(columns, dim=1) + 1e-4)


def _log_mean(x: Tensor) -> Tensor:
    return torch.log(x.mean(dim=(2, 3)) + 1e-2)
