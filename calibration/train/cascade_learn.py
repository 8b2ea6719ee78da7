"""The two trainings of the cascade: what looks at crops, and what fuses that with measured features. Seeded.

The first is the dear one and goes on from a checkpoint. What it says of each candidate is kept, so that the second,
and a table of what each kind of feature is worth, take seconds.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.networks.cascade import INPUTS, DeepNet, Fusion, Moments, gathered
from calibration.train.cascade_data import NOT_A_DEFECT, Candidates
from calibration.train.cycle import Cycle
from calibration.train.learn import Progress
from engines.cascade_features import columns_of

BATCH, FUSED_BATCH = 64, 256
LEARNING_RATE, FUSED_RATE = 3e-3, 2e-3
FUSED_EPOCHS = 25
FORGET = 0.15  # share of candidates shown without pixel size, dose and voltage
FACTS = slice(2, 8)  # of the condition
SMOOTHED = 0.05  # of the labels: two classes of one look are not told apart by more certainty
CHUNK = 256  # candidates at once where nothing is learnt

USED = {  # what each row of the table of ablations may see, each with all that stands before it
    "deep_alone": ("deep", "condition", "seen"),
    "with_texture": ("texture",),
    "with_moments": ("moments",),
    "with_height": ("height",),
    "with_shape": ("shape", "contrast"),
    "all": ("word", "fractions"),
}


@dataclass(frozen=True)
class Plan:
    """What is trained on what. The same plan gives the same model."""

    seed: int
    pictures: int
    tuning: int  # pictures that temperatures and quantiles are fitted on
    held_out: int  # ... and that the table is measured on
    epochs: int
    left_out_epochs: int  # of the network that never saw LEFT_OUT
    threads: int = 1

    def steps(self, count: int, epochs: int) -> int:
        return epochs * max(count // BATCH, 1)


def train_deep(known: Candidates, plan: Plan, *, epochs: int, checkpoint: Path, progress: Progress) -> DeepNet:
    """Crops and condition alone."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network, per_epoch = DeepNet(), max(len(known) // BATCH, 1)
    cycle = Cycle(network, asdict(plan), steps=plan.steps(len(known), epochs), learning_rate=LEARNING_RATE)
    cycle.resume(checkpoint)
    while cycle.epoch < epochs:
        rng = np.random.default_rng([plan.seed, cycle.epoch])
        network.train()
        order = rng.permutation(len(known))
        for number in range(per_epoch):
            rows = order[number * BATCH : (number + 1) * BATCH]
            planes, condition = _shown(known, rows, rng)
            cycle.step(loss(network(planes, condition), torch.from_numpy(known.label[rows].astype(np.int64))))
            progress(checkpoint.stem.replace("_", " "), cycle.epoch * per_epoch + number + 1, epochs * per_epoch)
        cycle.epoch += 1
        cycle.save(checkpoint)
    return network.eval()


def loss(said: tuple[Tensor, Tensor], label: Tensor) -> Tensor:
    """Is it a defect, of all; which, of those that are."""
    defect, leaf = said
    there = label != NOT_A_DEFECT
    whether = functional.binary_cross_entropy_with_logits(defect, there.float())
    if not bool(there.any()):
        return whether
    return whether + functional.cross_entropy(leaf[there], label[there], label_smoothing=SMOOTHED)


def _shown(known: Candidates, rows: NDArray[np.intp], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored at random along either axis; not turned by a quarter, for streaks and charging lie along the scan."""
    planes = known.planes[rows]
    for axis in (2, 3):
        turned = rng.random(len(rows)) < 0.5
        planes[turned] = np.flip(planes[turned], axis)
    condition = known.features[rows, columns_of("condition")].copy()
    condition[rng.random(len(rows)) < FORGET, FACTS] = 0.0
    return torch.from_numpy(planes), torch.from_numpy(condition)


@torch.no_grad()
def inputs_of(deep: DeepNet, some: Candidates) -> Tensor:
    """(n, inputs of the perceptron): computed once, for all that is trained on them."""
    moments, parts = Moments(), []
    for start in range(0, len(some), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(some)))
        planes, features = torch.from_numpy(some.planes[rows]), torch.from_numpy(some.features[rows])
        parts.append(gathered(deep, moments, planes, features))
    return torch.cat(parts)


def used_up_to(row: str) -> Tensor:
    """(inputs,) 1 where the row of the table may look."""
    mask = torch.zeros(sum(INPUTS.values()))
    for name, groups in USED.items():
        for group in groups:
            mask[_columns(group)] = 1.0
        if name == row:
            break
    return mask


def _columns(group: str) -> slice:
    """Of a group of features, or of a whole part, in what the perceptron is shown."""
    starts = dict(zip(INPUTS, np.cumsum([0, *INPUTS.values()]).tolist(), strict=False))
    if group in ("deep", "moments"):
        return slice(starts[group], starts[group] + INPUTS[group])
    columns = columns_of(group)
    return slice(starts["features"] + columns.start, starts["features"] + columns.stop)


def train_fusion(inputs: Tensor, label: NDArray[np.int8], used: Tensor, *, seed: int) -> Fusion:
    """A perceptron on what is kept of the candidates; seconds."""
    torch.manual_seed(seed)
    network = Fusion(used)
    network.settle(inputs)
    labels, rng = torch.from_numpy(label.astype(np.int64)), np.random.default_rng(seed)
    per_epoch = max(len(labels) // FUSED_BATCH, 1)
    cycle = Cycle(network, {}, steps=FUSED_EPOCHS * per_epoch, learning_rate=FUSED_RATE)
    network.train()
    for _ in range(FUSED_EPOCHS):
        order = rng.permutation(len(labels))
        for number in range(per_epoch):
            rows = torch.from_numpy(order[number * FUSED_BATCH : (number + 1) * FUSED_BATCH])
            _, defect, leaf = network(inputs[rows])
            cycle.step(loss((defect, leaf), labels[rows]))
    return network.eval()


def parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())
