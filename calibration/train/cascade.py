"""Trains the cascade on the virtual microscope: a plan in, a measured model package out.

Pictures, candidates and checkpoints are kept in the work folder until the package is whole, so that a training that was
stopped goes on where it was.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.networks.cascade import CascadeNet, DeepNet, Fusion, strangeness
from calibration.train import cascade_data as data
from calibration.train import cascade_figures as figures
from calibration.train import defects_data
from calibration.train.cascade_data import NOT_A_DEFECT, Candidates
from calibration.train.cascade_describe import CASCADE
from calibration.train.cascade_export import to_onnx, write_golden
from calibration.train.cascade_figures import Said
from calibration.train.cascade_fit import fitted
from calibration.train.cascade_learn import USED, Plan, inputs_of, train_deep, train_fusion, used_up_to
from calibration.train.defects_data import Recipe
from calibration.train.defects_figures import FRAME_PX, RATES
from calibration.train.learn import Progress
from calibration.train.package import Metrics
from engines import manifest
from engines.cascade import TASK, Graph
from engines.cascade_levels import Limits
from engines.defects import CLASSES, WORKING_POINT
from engines.errors import ModelError

PICTURES_PER_MINUTE = 90  # of the whole training: the larger part of it draws them
TUNING_SHARE, HELD_OUT_SHARE = 0.15, 0.3
FEWEST = 80
EPOCHS, LEFT_OUT_EPOCHS = 12, 8
FRAME = defects_data.SIDE**2 / FRAME_PX  # frames a picture
SURE = 0.5  # confidence of a find, about the detector's working threshold
LEFT_OUT = ("merged_contact", "residue", "scratch")  # one of holes, one of films, one that runs across anything
# As likely as not; 95 % of the known kept; noise alone does as much in every second such box.
LIMITS = Limits(defect=0.5, known=0.05, chance=0.5)


@dataclass(frozen=True)
class Sets:
    """Candidates; no specimen of one is in another."""

    training: Candidates
    tuning: Candidates
    held_out: Candidates


def plan_for(minutes: float, *, seed: int) -> Plan:
    """A plan that two cores finish in about `minutes`."""
    pictures = max(int(PICTURES_PER_MINUTE * minutes), FEWEST)
    return Plan(
        seed=seed,
        pictures=pictures,
        tuning=max(int(TUNING_SHARE * pictures), FEWEST),
        held_out=max(int(HELD_OUT_SHARE * pictures), FEWEST),
        epochs=EPOCHS,
        left_out_epochs=LEFT_OUT_EPOCHS,
    )


def run(
    plan: Plan,
    *,
    out: Path,
    command: str,
    progress: Progress,
    outside_data: Path | None = None,
    start: bytes | None = None,
) -> manifest.Manifest:
    """Draw, train, calibrate, export, measure. The package is out/cascade when this returns.

    Raises ModelError where it is asked to begin with other weights or to look at other data: it can do neither.
    """
    if start is not None or outside_data is not None:
        raise ModelError("the cascade is trained from nothing and on its own data: leave --start and --validate-on out")
    work, package = out / f"{TASK}.work", out / TASK
    sets = drawn(plan, work=work, progress=progress)
    deep = train_deep(sets.training, plan, epochs=plan.epochs, checkpoint=work / "crops.pt", progress=progress)
    told = {name: inputs_of(deep, getattr(sets, name)) for name in Sets.__annotations__}
    network, rows = fused(deep, sets, told, seed=plan.seed)
    to_onnx(network, package / manifest.MODEL_FILE)
    graph = Graph((package / manifest.MODEL_FILE).read_bytes())
    steps = plan.steps(len(sets.training), plan.epochs)
    record = CASCADE.training(network, command=command, seed=plan.seed, samples=len(sets.training), steps=steps)
    metrics = measure(said_by(graph, sets.held_out), sets.held_out, plan.held_out) | rows
    CASCADE.write(package, record, metrics)
    metrics["unknown"] = unknown(sets, plan, work=work, progress=progress)
    CASCADE.write(package, record, metrics)
    write_golden(package, sets.held_out)
    shutil.rmtree(work)
    return manifest.read(package)[0]


def drawn(plan: Plan, *, work: Path, progress: Progress) -> Sets:
    """The candidates in the pictures of three sets of specimens."""
    seeds = {
        "training": (plan.pictures, defects_data.TRAINING),
        "tuning": (plan.tuning, defects_data.TUNING),
        "held_out": (plan.held_out, defects_data.HELD_OUT),
    }
    return Sets(**{
        name: _candidates(name, count, data.OWN_SEED + plan.seed + offset, work=work, progress=progress)
        for name, (count, offset) in seeds.items()
    })  # fmt: skip


def _candidates(name: str, count: int, seed: int, *, work: Path, progress: Progress) -> Candidates:
    stage, recipe = f"{name.replace('_', ' ')} set", Recipe(seed, clean=data.CLEAN)
    specimens = -(-count // defects_data.LOOKS)
    return data.generate(specimens, recipe, folder=work, progress=lambda done: progress(stage, done, specimens))


def fused(deep: DeepNet, sets: Sets, told: dict[str, torch.Tensor], *, seed: int) -> tuple[CascadeNet, Metrics]:
    """The network with all features, and the table of what each kind of them is worth."""
    rows: Metrics = {}
    network = None
    for name in USED:
        fusion = train_fusion(told["training"], sets.training.label, used_up_to(name), seed=seed)
        network = calibrated(deep, fusion, sets, told)
        rows[f"ablation_{name}"] = figures.row(said_of(network, told["held_out"]), sets.held_out, LIMITS)
    assert network is not None
    return network.eval(), rows


def calibrated(deep: DeepNet, fusion: Fusion, sets: Sets, told: dict[str, torch.Tensor]) -> CascadeNet:
    fit = fitted(fusion, (told["training"], sets.training.label), (told["tuning"], sets.tuning.label))
    return CascadeNet(deep, fusion, fit)


@torch.no_grad()
def said_of(network: CascadeNet, inputs: torch.Tensor) -> Said:
    """What it says of inputs that were kept."""
    defect, leaf, known, _ = network.eval().said(inputs)
    return Said(defect.numpy(), leaf.numpy(), known.numpy())


def said_by(graph: Graph, some: Candidates, at_once: int = 64) -> Said:
    """What the exported file says."""
    parts = [
        graph.run(some.planes[first : first + at_once], some.features[first : first + at_once])
        for first in range(0, len(some), at_once)
    ]
    return Said(*(np.concatenate([part[name] for part in parts]) for name in ("defect", "leaf", "known")))


def measure(said: Said, truth: Candidates, pictures: int) -> Metrics:
    """The table of the manifest; the thresholds are no result of it. pictures: that the candidates were found in."""
    named, pure = figures.by_class(said, truth, LIMITS)
    sure = np.nonzero(figures.confidence(truth) >= SURE)[0]
    return {
        WORKING_POINT: {"defect": LIMITS.defect, "known": LIMITS.known, "chance": LIMITS.chance},
        "held_out": figures.row(said, truth, LIMITS),
        "baseline_detector": figures.detectors_word(truth),
        "true_finds_kept": {
            f"at_{rate:g}_false_a_frame_by_{whose}": figures.kept(score, truth, false=int(rate * pictures * FRAME))
            for rate in RATES.values()
            for whose, score in (("cascade", said.defect), ("detector", figures.confidence(truth)))
        },
        "held_out_sure_finds": figures.row(said.rows(sure), truth.rows(sure), LIMITS),
        "baseline_detector_sure": figures.detectors_word(truth.rows(sure)),
        "held_out_named_right": named,
        "held_out_purity": pure,
        "pit_against_particle": figures.hollow_or_raised(said, truth),
        "noise_gate": figures.gate(truth, LIMITS),
    }


def unknown(sets: Sets, plan: Plan, *, work: Path, progress: Progress) -> dict[str, float]:
    """Does a cascade that never saw three of the classes know that it does not know them?"""
    few = Sets(*(without(getattr(sets, name)) for name in Sets.__annotations__))
    deep = train_deep(
        few.training, plan, epochs=plan.left_out_epochs, checkpoint=work / "three_left_out.pt", progress=progress
    )
    told = {name: inputs_of(deep, getattr(few, name)) for name in Sets.__annotations__}
    fusion = train_fusion(told["training"], few.training.label, used_up_to("all"), seed=plan.seed)
    network = calibrated(deep, fusion, few, told)
    strange = sets.held_out.rows(np.isin(sets.held_out.label, [CLASSES.index(name) for name in LEFT_OUT]))
    taught = few.held_out.rows(few.held_out.label != NOT_A_DEFECT)
    known = [-strangeness_of(network, each) for each in (taught, strange)]
    return figures.unknown(*known) | {f"without_{name}": 1.0 for name in LEFT_OUT}


def without(some: Candidates) -> Candidates:
    return some.rows(~np.isin(some.label, [CLASSES.index(name) for name in LEFT_OUT]))


@torch.no_grad()
def strangeness_of(network: CascadeNet, some: Candidates) -> NDArray[np.float32]:
    embedding, _, leaf = network.eval().fusion(inputs_of(network.deep, some))
    return np.asarray(strangeness(embedding, leaf, network.fitted), np.float32)
