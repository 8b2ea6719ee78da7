"""ResNet18 and a ResNet50-like network as score models: the pictures and the condition of the autofocus network in, its
four numbers out, so that one training loop serves all three (He et al., arXiv:1512.03385).

One grey channel; the log pixel size is joined to the pooled features before the head, as the seed paper joins its
magnification. Nothing is pretrained: what others have learnt on photographs is not in the table.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.autofocus import CONDITION, LOG_SIGMA_RANGE

WIDTHS = (64, 128, 256, 512)  # of the four stages, as published
HALF_RANGE = 127.5  # grey levels: pixels enter as -1..1
OUTPUTS = 4  # score, ln blur, its ln sigma, content

Block = Callable[[int, int, int], nn.Module]  # channels in, width, stride


class Residual(nn.Module):
    """A chain of convolutions beside a short cut; the short cut is a 1x1 convolution where the shape changes."""

    def __init__(self, chain: nn.Sequential, *, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.chain = chain
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, side=1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.chain(x) + self.short(x))


def _convolution(inputs: int, outputs: int, *, side: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A padded convolution and its normalisation."""
    bare = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    return bare, nn.BatchNorm2d(outputs)


def plain(inputs: int, width: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    first, second = _convolution(inputs, width, side=3, stride=stride), _convolution(width, width, side=3)
    return Residual(nn.Sequential(*first, nn.ReLU(), *second), inputs=inputs, outputs=width, stride=stride)


def bottleneck(inputs: int, width: int, stride: int) -> Residual:
    """1x1 narrower, 3x3 with the stride, 1x1 four times wider."""
    narrow = _convolution(inputs, width, side=1)
    middle = _convolution(width, width, side=3, stride=stride)
    wide = _convolution(width, 4 * width, side=1)
    chain = nn.Sequential(*narrow, nn.ReLU(), *middle, nn.ReLU(), *wide)
    return Residual(chain, inputs=inputs, outputs=4 * width, stride=stride)


class ResNet(nn.Module):
    """A 7x7 stem at stride 2, a maximum at stride 2, four stages, a mean over the picture, one linear layer."""

    def __init__(self, block: Block, depths: Sequence[int], *, expansion: int) -> None:
        super().__init__()
        stem = nn.Conv2d(1, WIDTHS[0], 7, 2, padding=3, bias=False)
        parts = [stem, nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
        inputs = WIDTHS[0]
        for number, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            for place in range(depth):
                parts.append(block(inputs, width, 2 if number and not place else 1))
                inputs = expansion * width
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(inputs + CONDITION, OUTPUTS)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """image (n, 1, h, w) uint8, condition (n, 2) -> score 0..10, ln blur_px, its sigma, content 0..1; each (n,)."""
        pooled = self.body(image.float() / HALF_RANGE - 1.0).mean(dim=(2, 3))
        out = self.head(torch.cat([pooled, condition], dim=1))
        sigma = torch.exp(torch.clamp(out[:, 2], *LOG_SIGMA_RANGE))
        return 10.0 * torch.sigmoid(out[:, 0]), out[:, 1], sigma, torch.sigmoid(out[:, 3])


def resnet18() -> ResNet:
    """11.2 M weights."""
    return ResNet(plain, (2, 2, 2, 2), expansion=1)


def resnet50() -> ResNet:
    """23.5 M weights. Like the published one, with the stride in the 3x3 convolution as most have it since."""
    return ResNet(bottleneck, (3, 4, 6, 3), expansion=4)
