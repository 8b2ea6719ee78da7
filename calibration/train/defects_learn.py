"""The training loop of the defect network: pictures with boxes in, weights out. Seeded; goes on from a checkpoint.

Centres are learnt as heat: a Gaussian as large as the defect asks for (as CenterNet, arXiv:1904.07850), one map for all
classes, and where a defect is, its class.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calibration.networks.defects import STRIDE_PX, DefectNet, Maps
from calibration.train import begin
from calibration.train.cycle import Cycle
from calibration.train.defects_data import SIDE, Fields
from calibration.train.learn import Progress
from engines.defects import CLASSES

BATCH = 16
LEARNING_RATE = 2e-3
COARSE, CROP = 128, 192  # px; the first epochs on small crops, the rest on two periods of the widest layout and more
OWN, GOLDEN = 0.5, 0.3  # share of crops shown with the reference in themselves, and with another die; else with none
FORGET = 0.15  # share of pictures shown without pixel size, dose and voltage
FACTS = slice(2, 8)  # of the condition
WHOLE = 0.5  # share of a box that must be in a crop; with less of it the defect is neither asked for nor forbidden
TOWARDS = 0.75  # share of crops that are laid over a defect, where there is one
SMALLEST_CELLS = 1.0  # a box is taken to be one cell wide at least
CLASS_WEIGHT, SHAPE_WEIGHT = 0.5, 0.3
NEAR = 0.5  # heat from which a cell beside the centre is asked for the defect too: the summit may be there
NEW = ("objectness",)  # heads that older packages have not


@dataclass(frozen=True)
class Plan:
    """What is trained on what. The same plan gives the same model."""

    seed: int
    pictures: int
    held_out: int  # for each table of figures; as many clean ones set the threshold
    epochs: int
    coarse_epochs: int  # the first of them
    threads: int = 1  # two are slower on a machine with anything else to do
    start: str = ""  # sha256 of the model whose weights are the first
    short: bool = False  # multiply in bfloat16: 1.7 times as fast where the processor can

    def steps(self, count: int) -> int:
        return self.epochs * (count // BATCH)


@dataclass(frozen=True)
class Targets:
    """What the network should have said of a batch; cells are STRIDE_PX wide."""

    heat: Tensor  # (n, 1, h, w) 0..1; 1 at a centre alone
    asked: Tensor  # (n, classes, h, w) share of each cell in a defect, that of one defect adds up to 1
    shape: Tensor  # (n, 4, h, w) ln width, ln height, offset x, offset y, in cells
    weight: Tensor  # (n, 1, h, w) of the shape: 0 away from any centre
    judged: Tensor  # (n, 1, h, w) 0 where a defect is that nobody can see


def train(fields: Fields, plan: Plan, *, checkpoint: Path, progress: Progress, start: bytes | None = None) -> DefectNet:
    """For the plan's epochs. start: an exported model whose weights are the first."""
    torch.set_num_threads(plan.threads)
    torch.manual_seed(plan.seed)
    network, per_epoch = DefectNet(), len(fields) // BATCH
    if start is not None:
        shown = np.stack([fields.image, fields.own], axis=1)
        begin.begin(network, start, shown, fields.condition, new=NEW)
    rate = begin.gentler(LEARNING_RATE, start)
    cycle = Cycle(network, asdict(plan), steps=plan.steps(len(fields)), learning_rate=rate)
    cycle.resume(checkpoint)
    while cycle.epoch < plan.epochs:
        rng = np.random.default_rng([plan.seed, cycle.epoch])
        side = COARSE if cycle.epoch < plan.coarse_epochs else CROP
        network.train()
        order = rng.permutation(len(fields))
        for number in range(per_epoch):
            rows = order[number * BATCH : (number + 1) * BATCH]
            image, condition, targets = batch(fields, rows, rng=rng, crop=side)
            cycle.step(loss(_said(network, image, condition, short=plan.short), targets))
            progress("training", cycle.epoch * per_epoch + number + 1, plan.steps(len(fields)))
        cycle.epoch += 1
        cycle.save(checkpoint)
    network.eval()
    return network


def _said(network: DefectNet, image: Tensor, condition: Tensor, *, short: bool) -> Maps:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=short):
        maps = network.raw(image, condition)
    return Maps(*(each.float() for each in maps))


def loss(said: Maps, target: Targets) -> Tensor:
    """Penalty-reduced focal loss of the objectness, and the errors of class and shape where a defect is, per defect."""
    count, asked = torch.clamp(target.asked.sum(), min=1.0), target.asked.sum(dim=1, keepdim=True)
    logits = said.objectness
    there, sure, unsure = torch.sigmoid(logits), functional.logsigmoid(logits), functional.logsigmoid(-logits)
    found = asked * (1.0 - there) ** 2 * sure
    # What lies beside a centre is no defect of its own, but hardly wrong either.
    quiet = target.judged * (asked == 0.0) * (1.0 - target.heat) ** 4 * there**2 * unsure
    named = target.asked * functional.log_softmax(said.heat, dim=1)
    off = functional.smooth_l1_loss(said.shape, target.shape, reduction="none", beta=0.2).sum(dim=1, keepdim=True)
    shaped = (off * target.weight).sum() / torch.clamp(target.weight.sum(), min=1.0)
    return -(found.sum() + quiet.sum() + CLASS_WEIGHT * named.sum()) / count + SHAPE_WEIGHT * shaped


def batch(
    fields: Fields, rows: NDArray[np.intp], *, rng: np.random.Generator, crop: int
) -> tuple[Tensor, Tensor, Targets]:
    """Pictures cut, turned and mirrored together with their boxes."""
    images, targets = [], []
    for row in rows:
        image, box, label, visible = _cut(fields, int(row), crop, rng)
        images.append(image)
        targets.append(targets_of(box, label, visible, crop))
    condition = fields.condition[rows].copy()
    condition[rng.random(len(rows)) < FORGET, FACTS] = 0.0
    stacked = [torch.from_numpy(np.stack(column)) for column in zip(*targets, strict=True)]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(condition), Targets(*stacked)


def _cut(
    fields: Fields, row: int, crop: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int8], NDArray[np.bool_]]:
    """One picture's crop with its reference (2, crop, crop), its boxes, classes, and which of them are asked for."""
    used = fields.label[row] >= 0
    box, label, visible = fields.box_px[row][used], fields.label[row][used], fields.visible[row][used]
    left, top = _corner(box[visible], crop, rng)
    shown = np.stack([fields.image[row], _reference(fields, row, rng)])
    image = shown[:, top : top + crop, left : left + crop]
    inside = np.clip(box - np.array([left, top, left, top], np.float32), 0.0, crop)
    share = _area(inside) / np.maximum(_area(box), 1e-6)
    image, inside = turned(image, inside, turns=int(rng.integers(4)), mirrored=bool(rng.random() < 0.5))
    there = share > 0.0
    return image, inside[there], label[there], (visible & (share >= WHOLE))[there]


def _reference(fields: Fields, row: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of those that its users may have."""
    chance = rng.random()
    shown = fields.own if chance < OWN else fields.golden if chance < OWN + GOLDEN else fields.image
    return np.asarray(shown[row], np.uint8)


def _corner(box: NDArray[np.float32], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Left and top of a crop: over one of the boxes for most, anywhere for the rest."""
    free = SIDE - crop
    left, top = (int(value) for value in rng.integers(0, free + 1, 2))
    if len(box) and rng.random() < TOWARDS:
        x0, y0, x1, y1 = box[int(rng.integers(len(box)))]
        reach = rng.uniform(0.05, 0.95, 2) * crop
        left = int(np.clip((x0 + x1) / 2 - reach[0], 0, free))
        top = int(np.clip((y0 + y1) / 2 - reach[1], 0, free))
    return left, top


def turned(
    image: NDArray[np.uint8], box: NDArray[np.float32], *, turns: int, mirrored: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Square pictures (..., side, side) turned counter-clockwise by quarters, then mirrored left to right."""
    side = np.float32(image.shape[-1])
    for _ in range(turns):  # x' = y, y' = side - x
        box = np.stack([box[:, 1], side - box[:, 2], box[:, 3], side - box[:, 0]], axis=1)
    image = np.rot90(image, turns, axes=(-2, -1))
    if mirrored:
        box = np.stack([side - box[:, 2], box[:, 1], side - box[:, 0], box[:, 3]], axis=1)
        image = image[..., ::-1]
    return np.ascontiguousarray(image), box


Arrays = tuple[NDArray[np.float32], ...]


def targets_of(box: NDArray[np.float32], label: NDArray[np.int8], asked: NDArray[np.bool_], crop: int) -> Arrays:
    """heat, asked, shape, weight and judged of one picture, as in Targets."""
    cells = crop // STRIDE_PX
    heat, share = np.zeros((1, cells, cells), np.float32), np.zeros((len(CLASSES), cells, cells), np.float32)
    shape, weight = np.zeros((4, cells, cells), np.float32), np.zeros((1, cells, cells), np.float32)
    judged = np.ones((1, cells, cells), np.float32)
    rows, columns = np.mgrid[:cells, :cells].astype(np.float32) + np.float32(0.5)
    for (x0, y0, x1, y1), name, wanted in zip(box / STRIDE_PX, label, asked, strict=True):
        if not wanted:
            judged[0, max(int(y0) - 1, 0) : int(y1) + 2, max(int(x0) - 1, 0) : int(x1) + 2] = 0.0
            continue
        x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, max(x1 - x0, SMALLEST_CELLS), max(y1 - y0, SMALLEST_CELLS)
        blob = np.exp(-0.5 * (((columns - x) / _spread(w)) ** 2 + ((rows - y) / _spread(h)) ** 2))
        centre = min(int(y), cells - 1), min(int(x), cells - 1)
        blob[centre] = 1.0
        heat[0] = np.maximum(heat[0], blob)
        near = (blob > NEAR) & (blob > weight[0])
        shape[:, near] = np.stack(
            [np.full(near.sum(), np.log(w)), np.full(near.sum(), np.log(h)), x - columns[near], y - rows[near]]
        )
        weight[0][near] = blob[near]
        close = np.where(blob > NEAR, blob, 0.0)
        share[name] = np.where(close > 0.0, close / close.sum(), share[name])
    return heat, share, shape, weight, judged


def _spread(cells: float) -> float:
    """Sigma of the heat along one axis: how far off a centre may be before the box is another one."""
    return float(np.clip(cells / 6.0, 0.6, 6.0))


def _area(box: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(box[:, 2] - box[:, 0], 0.0) * np.maximum(box[:, 3] - box[:, 1], 0.0), np.float32)
