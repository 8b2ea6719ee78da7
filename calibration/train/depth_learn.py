"""The training loop of the depth network: pictures with exact heights in, weights out. Goes on from a checkpoint."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.networks.depth import UNIT_PX, DepthNet
from calibration.train import begin
from calibration.train.cycle import Cycle
from calibration.train.depth_data import SIDE, Fields, above_lowest_px
from calibration.train.learn import Progress

BATCH = 24
LEARNING_RATE = 4e-3
FORGET = 0.15  # share of batches shown without dose and voltage
FACTS = slice(4, 8)  # of the condition: dose and voltage; the pixel size is always known where depth is read
STEP_WEIGHT = 0.3  # of the error of neighbouring pixels' difference: edges stay edges
ONE_SIGMA = 0.683


@dataclass(frozen=True)
class Plan:
    """What is trained on what. The same plan gives the same model."""

    seed: int
    pictures: int
    held_out: int  # and half as many to set the width of the intervals
    epochs: int
    coarse_epochs: int  # the first of them, on quarters of the pictures at a quarter of the cost
    threads: int = 1
    start: str = ""  # sha256 of the model whose weights are the first
    short: bool = False  # multiply in bfloat16: half the time where the processor can, fourteen times it where not

    def steps(self, count: int) -> int:
        return self.epochs * (count // BATCH)


def train(fields: Fields, plan: Plan, *, checkpoint: Path, progress: Progress, start: bytes | None = None) -> DepthNet:
    """For the plan's epochs. start: an exported model whose weights are the first."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network, per_epoch = DepthNet(), len(fields) // BATCH
    if start is not None:
        begin.begin(network, start, fields.image, fields.condition)
    rate = begin.gentler(LEARNING_RATE, start)
    cycle = Cycle(network, asdict(plan), steps=plan.steps(len(fields)), learning_rate=rate)
    cycle.resume(checkpoint)
    while cycle.epoch < plan.epochs:
        rng = np.random.default_rng([plan.seed, cycle.epoch])
        side = SIDE // 2 if cycle.epoch < plan.coarse_epochs else SIDE
        network.train()
        order = rng.permutation(len(fields))
        for number in range(per_epoch):
            rows = order[number * BATCH : (number + 1) * BATCH]
            image, condition, height = batch(fields, rows, side=side, rng=rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.short):  # the weights stay single precision
                said = network.raw(image, condition)
            cycle.step(loss((said[0].float(), said[1].float()), height))
            progress("training", cycle.epoch * per_epoch + number + 1, plan.steps(len(fields)))
        cycle.epoch += 1
        cycle.save(checkpoint)
    network.eval()
    return network


def loss(said: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Laplace's likelihood of each height, and the plain error of the steps between neighbours. Units of UNIT_PX."""
    height, log_scale = said
    off = (height - target).abs()
    likelihood = (off * torch.exp(-log_scale) + log_scale).mean()
    rows = (height.diff(dim=2) - target.diff(dim=2)).abs().mean()
    columns = (height.diff(dim=3) - target.diff(dim=3)).abs().mean()
    return likelihood + off.mean() + STEP_WEIGHT * (rows + columns)


def batch(
    fields: Fields, rows: NDArray[np.intp], *, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures cut, turned and mirrored together with their heights, above the lowest plateau that is in the cut."""
    top, left = rng.integers(0, SIDE - side + 1, 2)
    cut = np.s_[rows, top : top + side, left : left + side]
    image, height = _turned(fields.image[cut], fields.height_px[cut], rng)
    condition = fields.condition[rows].copy()
    if rng.random() < FORGET:
        condition[:, FACTS] = 0.0
    target = torch.from_numpy(above_lowest_px(height) / np.float32(UNIT_PX))[:, None]
    return torch.from_numpy(np.ascontiguousarray(image))[:, None], torch.from_numpy(condition), target


def _turned(
    image: NDArray[np.uint8], height: NDArray[np.float16], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    image, height = np.rot90(image, turns, axes=(1, 2)), np.rot90(height, turns, axes=(1, 2))
    return (image[:, :, ::-1], height[:, :, ::-1]) if mirrored else (image, height)


@torch.no_grad()
def set_width(network: DepthNet, tuning: Fields) -> float:
    """Widen or narrow all scales by one factor so that 68 % of pixels are covered, on reliefs never trained on."""
    ratios = []
    for rows in np.array_split(np.arange(len(tuning)), max(len(tuning) // BATCH, 1)):
        image = torch.from_numpy(tuning.image[rows])[:, None]
        height, scale = network(image, torch.from_numpy(tuning.condition[rows]))
        truth = torch.from_numpy(above_lowest_px(tuning.height_px[rows]))[:, None]
        ratios.append(((height - truth).abs() / scale)[:, :, ::7, ::7].flatten())
    factor = float(torch.cat(ratios).quantile(ONE_SIGMA)) / -math.log(1.0 - ONE_SIGMA)
    network.widen(factor)
    return factor
