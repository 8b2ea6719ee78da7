"""The defect network: a picture beside its reference in; objectness, a heat map a class, size and offset at stride 4.

The graph itself finds the best peaks.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.dense import SHARED, Trunk
from engines.defects import CLASSES, SEEN

STRIDE_PX = 4
CHANNELS = 2  # the picture and its reference
BEST = 128  # peaks that leave the graph
RARE = 0.01  # share of cells a defect is expected in, before anything is learnt


class Maps(NamedTuple):
    """At each cell of stride 4; (n, channels, h/4, w/4)."""

    objectness: Tensor  # one logit: is a defect of any class centred here?
    heat: Tensor  # a logit a class; their softmax is the class of a defect here, and times the objectness a heat map
    shape: Tensor  # ln width, ln height, offset x, offset y, in cells
    seen: Tensor  # what the first two were made of


class DefectNet(nn.Module):
    """image (n, 2, h, w) uint8, a picture and its reference, condition (n, 8) -> confidence (n, k) falling,
    class_index (n, k), box_px (n, k, 4), seen (n, k, SEEN)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk(CHANNELS)
        self.objectness = _head(1)
        self.heat = _head(len(CLASSES))
        self.shape = _head(4)  # ln width, ln height in cells; offset of the centre in cells
        assert SEEN == 2 * SHARED
        last = self.objectness[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, math.log(RARE / (1.0 - RARE)))

    def raw(self, image: Tensor, condition: Tensor) -> Maps:
        """What the loss is made of."""
        shared = self.trunk(image, condition)
        hidden, named = self.objectness[:-1](shared), self.heat[:-1](shared)
        there, heat = self.objectness[-1](hidden), self.heat[-1](named)
        return Maps(there, heat, self.shape(shared), torch.cat([hidden, named], dim=1))

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return peaks(self.raw(image, condition))


def peaks(maps: Maps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The BEST local maxima (3x3) of the chance that a defect of any class is here, with class, box and what was seen.

    A thread that may be a bridge or a microbridge is a defect all the same: whether there is one is asked once, of the
    objectness alone, and only then which.
    """
    there, shape = torch.sigmoid(maps.objectness), maps.shape
    index = maps.heat.argmax(dim=1, keepdim=True)
    summit = there * (functional.max_pool2d(there, 3, 1, 1) == there)
    confidence, place = torch.topk(summit.flatten(1), BEST, dim=1)
    named = index.flatten(1).gather(1, place)
    log_w, log_h, dx, dy = (plane.flatten(1).gather(1, place) for plane in shape.unbind(dim=1))
    columns, rows = _cells(shape[:, 0])
    x = columns.flatten(1).gather(1, place) + 0.5 + dx
    y = rows.flatten(1).gather(1, place) + 0.5 + dy
    w, h = torch.exp(torch.clamp(log_w, -3.0, 6.0)), torch.exp(torch.clamp(log_h, -3.0, 6.0))
    box = torch.stack([x - w / 2.0, y - h / 2.0, x + w / 2.0, y + h / 2.0], dim=2) * float(STRIDE_PX)
    seen = maps.seen.flatten(2).gather(2, place[:, None, :].expand(-1, maps.seen.shape[1], -1))
    return confidence, named.to(torch.int32), box, seen.transpose(1, 2)


def _cells(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row number of each cell, in the shape of `plane`: no exporter divides by a free width."""
    columns = torch.arange(plane.shape[2], device=plane.device, dtype=torch.float32)[None, None, :].expand_as(plane)
    rows = torch.arange(plane.shape[1], device=plane.device, dtype=torch.float32)[None, :, None].expand_as(plane)
    return columns, rows


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(SHARED, SHARED, 3, 1, 1), nn.ReLU(), nn.Conv2d(SHARED, outputs, 1))
