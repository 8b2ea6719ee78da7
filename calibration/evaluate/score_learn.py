"""One network taught the score on some of the pictures: the same loss, cuts and number of looks whatever the network.

A checkpoint after each epoch: a bench that was stopped goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.evaluate.score_clock import Deadline
from calibration.networks.autofocus import AutofocusNet
from calibration.networks.resnet import resnet18, resnet50
from calibration.train import learn
from calibration.train.cycle import Cycle
from calibration.train.data import CROP, Samples

EPOCHS, COARSE_EPOCHS = 8, 7  # the coarse ones on quarters of the pictures; the last makes a network meet whole ones
LOOKS_AHEAD = 32  # pictures asked at once

Column = NDArray[np.float32]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Taught:
    """A network by name. learning_rate: AdamW's highest of the one cycle."""

    name: str
    make: Callable[[], nn.Module]
    learning_rate: float


NETWORKS = (
    Taught("beamside", AutofocusNet, learn.LEARNING_RATE),
    # Ten to sixty times the weights diverge at that rate now and then.
    Taught("ResNet18", resnet18, learn.LEARNING_RATE / 3.0),
    Taught("ResNet50-like", resnet50, learn.LEARNING_RATE / 3.0),
)


@dataclass(frozen=True)
class Lesson:
    """What is learnt from, and where a stopped one is kept."""

    samples: Samples
    learnt: Rows
    seed: int
    checkpoint: Path
    deadline: Deadline


def answers(taught: Taught, lesson: Lesson, asked: Rows) -> Column:
    """(len(asked),): scores of the rows asked, by a network that learnt from the others. Raises OutOfTimeError."""
    network = trained(taught, lesson)
    lesson.checkpoint.unlink(missing_ok=True)
    return _told(network, lesson.samples, asked)


def trained(taught: Taught, lesson: Lesson) -> nn.Module:
    """AdamW over one cycle of the learning rate; the same lesson gives the same network."""
    torch.set_num_threads(1)
    torch.manual_seed(lesson.seed)
    network, batches = taught.make(), len(lesson.learnt) // learn.BATCH
    _settle(network, lesson)
    plan = {"name": taught.name, "seed": lesson.seed, "pictures": len(lesson.learnt), "epochs": EPOCHS}
    cycle = Cycle(network, plan, steps=EPOCHS * batches, learning_rate=taught.learning_rate)
    cycle.resume(lesson.checkpoint)
    while cycle.epoch < EPOCHS:
        _epoch(cycle, lesson)
        cycle.epoch += 1
        cycle.save(lesson.checkpoint)
    return network.eval()


def _settle(network: nn.Module, lesson: Lesson) -> None:
    if isinstance(network, AutofocusNet):
        shown = lesson.learnt[:: max(len(lesson.learnt) // learn.SETTLE, 1)][: learn.SETTLE]
        network.settle(torch.from_numpy(lesson.samples.image[shown])[:, None])


def _epoch(cycle: Cycle, lesson: Lesson) -> None:
    rng = np.random.default_rng([lesson.seed, cycle.epoch])
    side = CROP // 2 if cycle.epoch < COARSE_EPOCHS else CROP
    order = rng.permutation(lesson.learnt)
    cycle.network.train()
    for first in range(0, len(order) - learn.BATCH + 1, learn.BATCH):
        lesson.deadline.check()
        rows = order[first : first + learn.BATCH]
        inputs, targets = _inputs(lesson.samples, rows, side, rng), _targets(lesson.samples, rows)
        cycle.step(learn.loss(cycle.network(*inputs), targets))


def _inputs(samples: Samples, rows: Rows, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch cut, turned and mirrored at random. The pixel size is always told: so it is when they are asked."""
    top, left = rng.integers(0, CROP - side + 1, 2)
    image = samples.image[rows, top : top + side, left : left + side]
    image = np.rot90(image, int(rng.integers(4)), axes=(1, 2))
    image = image[:, :, ::-1] if rng.random() < 0.5 else image
    return torch.from_numpy(np.ascontiguousarray(image))[:, None], torch.from_numpy(samples.condition[rows])


def _targets(samples: Samples, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    score, log_blur, content = (column[rows] for column in (samples.score, samples.log_blur, samples.content))
    return torch.from_numpy(score), torch.from_numpy(log_blur), torch.from_numpy(content)


@torch.no_grad()
def _told(network: nn.Module, samples: Samples, asked: Rows) -> Column:
    parts = []
    for rows in np.array_split(asked, max(len(asked) // LOOKS_AHEAD, 1)):
        image, condition = torch.from_numpy(samples.image[rows])[:, None], torch.from_numpy(samples.condition[rows])
        parts.append(network(image, condition)[0])
    return np.asarray(torch.cat(parts).numpy(), np.float32)
