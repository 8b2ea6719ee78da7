"""The training loop of the autofocus network: labelled pictures in, weights out. Seeded; goes on from a checkpoint."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calibration.networks.autofocus import AutofocusNet
from calibration.train import begin
from calibration.train.cycle import Cycle
from calibration.train.data import CROP, SCENES_PER_CHUNK, Samples
from calibration.train.figures import JUDGEABLE

BATCH = 32
LEARNING_RATE = 3e-3
FORGET_CONDITION = 0.15  # share of batches shown without a pixel size, so that an unknown one is no surprise
SETTLE = 256  # pictures that set the scale of the features before the first step
ONE_SIGMA = 0.683

Progress = Callable[[str, int, int], None]  # stage, done, of


@dataclass(frozen=True)
class Plan:
    """What is trained on what. The same plan gives the same model."""

    seed: int
    samples: int
    held_out: int  # and as many again to set the width of the intervals
    epochs: int
    coarse_epochs: int = 0  # the first of them, on quarters of the pictures at a quarter of the cost
    threads: int = 1  # two are 1.7 times as fast on idle cores and 33 times slower beside one busy neighbour
    without: str = ""  # a kind of specimen left out of the training
    chunk: int = SCENES_PER_CHUNK
    start: str = ""  # sha256 of the model whose weights are the first

    def steps(self, count: int) -> int:
        return self.epochs * (count // BATCH)


def train(
    samples: Samples, plan: Plan, *, checkpoint: Path, progress: Progress, start: bytes | None = None
) -> AutofocusNet:
    """AdamW over one cycle of the learning rate, for the plan's epochs. start: a model whose weights are the first."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network, steps = AutofocusNet(), plan.steps(len(samples))
    settled = np.linspace(0, len(samples) - 1, min(len(samples), SETTLE)).astype(np.intp)
    network.settle(torch.from_numpy(samples.image[settled])[:, None])
    if start is not None:
        begin.begin(network, start, samples.image, samples.condition)
    rate = begin.gentler(LEARNING_RATE, start)
    cycle = Cycle(network, asdict(plan), steps=steps, learning_rate=rate)
    cycle.resume(checkpoint)
    while cycle.epoch < plan.epochs:
        rng = np.random.default_rng([plan.seed, cycle.epoch])
        network.train()
        done = cycle.epoch * (len(samples) // BATCH)
        side = CROP // 2 if cycle.epoch < plan.coarse_epochs else CROP
        for rows in _batches(len(samples), rng):
            inputs, targets = _inputs(samples, rows, side=side, rng=rng), _targets(samples, rows)
            cycle.step(loss(network(*inputs), targets))
            done += 1
            progress("training", done, steps)
        cycle.epoch += 1
        cycle.save(checkpoint)
    network.eval()
    return network


def loss(said: tuple[Tensor, ...], target: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Squared error of the score, Gaussian likelihood of ln blur, cross-entropy of content."""
    score, log_blur, sigma, content = said
    likelihood = (0.5 * ((log_blur - target[1]) / sigma) ** 2 + torch.log(sigma)).mean()
    squared = functional.mse_loss(score, target[0])
    return 0.5 * squared + likelihood + functional.binary_cross_entropy(content, target[2])


def _batches(count: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
    order = rng.permutation(count)
    return [order[i * BATCH : (i + 1) * BATCH] for i in range(count // BATCH)]


def _inputs(samples: Samples, rows: NDArray[np.intp], *, side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch cut, turned and mirrored at random: none of the labels knows a place or a direction."""
    top, left = rng.integers(0, CROP - side + 1, 2)
    image = samples.image[rows, top : top + side, left : left + side]
    image = np.rot90(image, int(rng.integers(4)), axes=(1, 2))
    image = image[:, :, ::-1] if rng.random() < 0.5 else image
    condition = samples.condition[rows] * np.float32(rng.random() >= FORGET_CONDITION)
    return torch.from_numpy(np.ascontiguousarray(image))[:, None], torch.from_numpy(condition)


def _targets(samples: Samples, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(samples.score[rows]),
        torch.from_numpy(samples.log_blur[rows]),
        torch.from_numpy(samples.content[rows]),
    )


@torch.no_grad()
def set_width(network: AutofocusNet, tuning: Samples) -> float:
    """Widen or narrow all intervals by one factor so that 68 % cover, on pictures no weight was fitted to."""
    judgeable = np.nonzero(tuning.content >= JUDGEABLE)[0]
    z = []
    for rows in np.array_split(judgeable, max(len(judgeable) // BATCH, 1)):
        image, condition = torch.from_numpy(tuning.image[rows])[:, None], torch.from_numpy(tuning.condition[rows])
        _, log_blur, sigma, _ = network(image, condition)
        z.append((torch.from_numpy(tuning.log_blur[rows]) - log_blur) / sigma)
    factor = float(torch.cat(z).abs().quantile(ONE_SIGMA))
    network.widen(factor)
    return factor
