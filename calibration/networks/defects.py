"""The defect network: a picture beside its reference in; a heat map a class, size and offset at stride 4.

The graph itself finds the best peaks.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.dense import SHARED, Trunk
from engines.defects import CLASSES

STRIDE_PX = 4
CHANNELS = 2  # the picture and its reference
BEST = 128  # peaks that leave the graph
RARE = 0.01  # share of cells a class is expected in, before anything is learnt


class DefectNet(nn.Module):
    """image (n, 2, h, w) uint8, a picture and its reference, condition (n, 8) -> confidence (n, k) falling,
    class_index (n, k), box_px (n, k, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(CHANNELS)
        self.heat = _head(len(CLASSES))
        self.shape = _head(4)  # ln width, ln height in cells; offset of the centre in cells
        last = self.heat[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, math.log(RARE / (1.0 - RARE)))

    def raw(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, classes, h/4, w/4) and shape (n, 4, h/4, w/4): what the loss is made of."""
        shared = self.trunk(image, condition)
        return self.heat(shared), self.shape(shared)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return peaks(*self.raw(image, condition))


def peaks(logits: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The BEST local maxima (3x3) of the chance that a defect of any class is here, with class and box.

    A thread that may be a bridge or a microbridge is a defect all the same: the classes' chances add up, as
    1 - product of (1 - p), before they are compared with a threshold.
    """
    any_class = 1.0 - torch.sigmoid(-logits).prod(dim=1, keepdim=True)
    index = logits.argmax(dim=1, keepdim=True)
    summit = any_class * (functional.max_pool2d(any_class, 3, 1, 1) == any_class)
    confidence, place = torch.topk(summit.flatten(1), BEST, dim=1)
    named = index.flatten(1).gather(1, place)
    log_w, log_h, dx, dy = (plane.flatten(1).gather(1, place) for plane in shape.unbind(dim=1))
    columns, rows = _cells(shape[:, 0])
    x = columns.flatten(1).gather(1, place) + 0.5 + dx
    y = rows.flatten(1).gather(1, place) + 0.5 + dy
    w, h = torch.exp(torch.clamp(log_w, -3.0, 6.0)), torch.exp(torch.clamp(log_h, -3.0, 6.0))
    box = torch.stack([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0], dim=2) * float(STRIDE_PX)
    return confidence, named.to(torch.int32), box


def _cells(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row number of each cell, in the shape of `plane`: no exporter divides by a free width."""
    columns = torch.arange(plane.shape[2], device=plane.device, dtype=torch.float32)[None, None, :].expand_as(plane)
    rows = torch.arange(plane.shape[1], device=plane.device, dtype=torch.float32)[None, :, None].expand_as(plane)
    return columns, rows


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(SHARED, SHARED, 3, 1, 1), nn.ReLU(), nn.Conv2d(SHARED, outputs, 1))
