"""Trains the autofocus model on the virtual microscope: a plan in, a measured model package out; minutes on two cores.

Pictures, and a checkpoint after each epoch, are kept in the work folder until the package is whole, so that a training
that was stopped goes on where it was.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from calibration.networks.autofocus import CONDITION
from calibration.train import begin, data, export, learn
from calibration.train.describe import AUTOFOCUS
from calibration.train.figures import BASELINES, Answers, baseline, figures, rmse
from calibration.train.learn import Plan, Progress
from calibration.train.outside import outside
from calibration.train.package import Metrics
from calibration.train.scenes import KINDS, SIDE
from engines import manifest
from engines.autofocus import TASK, Autofocus
from engines.load import load
from engines.onnx import OnnxEngine

SAMPLES_PER_MINUTE = 800  # of the whole training: a third of it draws pictures, the rest learns from them
EPOCHS, COARSE_EPOCHS = 13, 10
FEWEST = 400
HELD_OUT = 2000
WHOLE_SHARE = 20  # held-out pictures to one scene, twice blurred, read whole: another size than the training's


def plan_for(minutes: float, *, seed: int) -> Plan:
    """A plan that two cores finish in about `minutes`."""
    samples = max(int(SAMPLES_PER_MINUTE * minutes), FEWEST)
    return Plan(
        seed=seed,
        samples=samples,
        held_out=min(max(samples // 8, FEWEST), HELD_OUT),
        epochs=EPOCHS,
        coarse_epochs=COARSE_EPOCHS,
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
    """Draw, train, set the intervals, export, measure. The package is out/autofocus when this returns.

    outside_data: pictures of other makers, for the table only.
    start: model.onnx of a package to go on from.
    """
    work, package = out / f"{TASK}.work", out / TASK
    plan = begin.marked(plan, start)
    training = _pictures(plan, data.TRAINING, work=work, progress=progress)
    tuning = _pictures(plan, data.TUNING, work=work, progress=progress)
    held_out = _pictures(plan, data.HELD_OUT, work=work, progress=progress)
    network = learn.train(training, plan, checkpoint=work / "checkpoint.pt", progress=progress, start=start)
    learn.set_width(network, tuning)
    model = package / manifest.MODEL_FILE
    export.to_onnx(network, model, condition=CONDITION, outputs=AUTOFOCUS.output_names)
    record = AUTOFOCUS.training(
        network,
        command=command,
        seed=plan.seed,
        samples=len(training),
        steps=plan.steps(len(training)),
        start=plan.start,
    )
    metrics = measure(model.read_bytes(), training=training, held_out=held_out, seed=plan.seed)
    if start is not None:
        metrics |= begin.before(judged(held_out, answers(start, held_out)))
    AUTOFOCUS.write(package, record, metrics)
    if outside_data is not None:
        metrics |= outside(Autofocus(load(TASK, models=out, backend="onnxruntime")), outside_data)
        AUTOFOCUS.write(package, record, metrics)
    shutil.rmtree(work)
    return manifest.read(package)[0]


def _pictures(plan: Plan, split: int, *, work: Path, progress: Progress) -> data.Samples:
    stage = {data.TRAINING: "pictures", data.TUNING: "tuning set", data.HELD_OUT: "held-out set"}[split]
    count = plan.samples if split == data.TRAINING else plan.held_out

    def tell(done: int) -> None:
        progress(stage, min(done, count), count)

    # A specimen left out of the training is left out of the tuning too, and in the held-out set the one that counts.
    without = plan.without if split != data.HELD_OUT else ""
    source = data.Source(plan.seed + split, without, plan.chunk)
    return data.generate(count, source, folder=work, progress=tell)


def measure(model: bytes, *, training: data.Samples, held_out: data.Samples, seed: int) -> Metrics:
    """The table of the manifest: what the exported file says of held-out pictures, and the baselines beside it."""
    said = answers(model, held_out)
    unknown = dataclasses.replace(held_out, condition=np.zeros_like(held_out.condition))
    whole = data.small(-(-len(held_out) // WHOLE_SHARE), seed=seed + data.HELD_OUT + 1, crop=SIDE)
    rows = {
        **judged(held_out, said),
        "held_out_pixel_size_unknown": figures(unknown, answers(model, unknown)),
        "held_out_512px": figures(whole, answers(model, whole)),
    }
    for name in BASELINES:
        rows[f"baseline_{name}"] = figures(held_out, baseline(name, training=training, held_out=held_out))
    return rows


def judged(held_out: data.Samples, said: Answers) -> Metrics:
    """What was said of held-out pictures beside their truth."""
    return {"held_out": figures(held_out, said), "score_rmse_by_specimen": by_kind(held_out, said)}


def by_kind(truth: data.Samples, said: Answers) -> dict[str, float]:
    """Score RMSE for each kind of specimen."""
    names = (*KINDS, "empty")
    present = np.unique(truth.kind)
    return {names[k]: rmse(said.score[truth.kind == k], truth.score[truth.kind == k]) for k in present}


def answers(model: bytes, samples: data.Samples) -> Answers:
    """What the exported file says of each sample, through the engine that will serve it."""
    engine = OnnxEngine(model, threads=2)
    said: dict[str, list[float]] = {name: [] for name in AUTOFOCUS.output_names}
    for image, condition in zip(samples.image, samples.condition, strict=True):
        for name, value in engine.run(image, condition).items():
            said[name].append(float(value[0]))
    columns = {name: np.array(values, np.float32) for name, values in said.items()}
    return Answers(columns["score"], columns["log_blur"], columns["content"], columns["log_blur_sigma"])
