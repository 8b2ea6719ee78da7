"""Trains the depth model on the virtual microscope: a plan in, a measured model package out; in an hour or less.

Pictures, and a checkpoint after each epoch, are kept in the work folder until the package is whole, so that a training
that was stopped goes on where it was.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from calibration.train import begin, depth_data, export
from calibration.train.cycle import short_multiplies
from calibration.train.depth_data import HELD_OUT, TRAINING, TUNING, Fields
from calibration.train.depth_describe import DEPTH
from calibration.train.depth_figures import Intensity, Maps, by_kind, figures
from calibration.train.depth_learn import Plan, set_width, train
from calibration.train.depth_outside import outside
from calibration.train.learn import Progress
from calibration.train.package import Metrics
from engines import manifest
from engines.depth import TASK, Depth
from engines.load import load
from engines.onnx import OnnxEngine
from engines.scene import CONDITION

PICTURES_PER_MINUTE = 200  # of the whole training
EPOCHS, COARSE_EPOCHS = 14, 10
BEGUN_EPOCHS, BEGUN_COARSE_EPOCHS = 5, 1  # of a training that begins with a package: it knows edges already
FEWEST, HELD_OUT_PICTURES = 180, 1440


def plan_for(minutes: float, *, seed: int) -> Plan:
    """A plan that two cores finish in about `minutes`."""
    pictures = max(int(PICTURES_PER_MINUTE * minutes), FEWEST)
    held_out = min(max(pictures // 7, FEWEST), HELD_OUT_PICTURES)
    return Plan(
        seed=seed,
        pictures=pictures,
        held_out=held_out,
        epochs=EPOCHS,
        coarse_epochs=COARSE_EPOCHS,
        short=short_multiplies(),
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
    """Draw, train, set the intervals, export, measure. The package is out/depth when this returns.

    outside_data: scenes of another simulator, for the table only.
    start: model.onnx of a package to go on from.
    """
    work, package = out / f"{TASK}.work", out / TASK
    if start is not None:
        plan = begin.marked(
            replace(plan, epochs=min(plan.epochs, BEGUN_EPOCHS), coarse_epochs=BEGUN_COARSE_EPOCHS), start
        )
    training = _fields(plan.pictures, "pictures", seed=plan.seed + TRAINING, work=work, progress=progress)
    tuning = _fields(plan.held_out // 2, "tuning set", seed=plan.seed + TUNING, work=work, progress=progress)
    held_out = _fields(plan.held_out, "held-out set", seed=plan.seed + HELD_OUT, work=work, progress=progress)
    network = train(training, plan, checkpoint=work / "checkpoint.pt", progress=progress, start=start)
    model, share = package / manifest.MODEL_FILE, 1.0
    if start is not None:
        export.to_onnx(network, model, condition=CONDITION, outputs=DEPTH.output_names)
        mixed, share = begin.best_between(start, model.read_bytes(), partial(_error, tuning))
        begin.begin(network, mixed, training.image, training.condition)
        network.eval()
    set_width(network, tuning)
    export.to_onnx(network, model, condition=CONDITION, outputs=DEPTH.output_names)
    record = DEPTH.training(
        network,
        command=command,
        seed=plan.seed,
        samples=len(training),
        steps=plan.steps(len(training)),
        start=plan.start,
        learnt=share,
    )
    metrics = measure(model.read_bytes(), training=training, held_out=held_out)
    if start is not None:
        metrics |= begin.before(judged(held_out, *maps(start, held_out)))
    DEPTH.write(package, record, metrics)
    if outside_data is not None:
        metrics |= outside(Depth(load(TASK, models=out, backend="onnxruntime")), outside_data)
        DEPTH.write(package, record, metrics)
    shutil.rmtree(work)
    return manifest.read(package)[0]


def _fields(count: int, stage: str, *, seed: int, work: Path, progress: Progress) -> Fields:
    return depth_data.generate(count, seed=seed, folder=work, progress=lambda done: progress(stage, done, count))


def _error(tuning: Fields, model: bytes) -> float:
    """Median error of a graph, of each field's own spread."""
    return figures(tuning, *maps(model, tuning))["median_rmse_of_spread"]


def measure(model: bytes, *, training: Fields, held_out: Fields) -> Metrics:
    """The table of the manifest: what the exported file says of held-out fields, and the baselines beside it."""
    said, scale = maps(model, held_out)
    some = slice(None, None, max(len(training) // 600, 1))
    sample = Fields(**{name: getattr(training, name)[some] for name in Fields.__dataclass_fields__})
    flat = np.full_like(said, depth_data.above_lowest_px(sample.height_px).mean())
    bright = Intensity.fit(sample).read(held_out.image)
    return {
        **judged(held_out, said, scale),
        "intensity_correlation_by_kind": by_kind(held_out, bright),
        "baseline_intensity": figures(held_out, bright),
        "baseline_constant": figures(held_out, flat),
    }


def judged(held_out: Fields, said: Maps, scale: Maps) -> Metrics:
    """What was said of held-out fields beside their truth."""
    return {"held_out": figures(held_out, said, scale), "correlation_by_kind": by_kind(held_out, said)}


def maps(model: bytes, fields: Fields) -> tuple[Maps, Maps]:
    """Heights and scales in pixels, (n, h, w), by the engine that will serve the file."""
    engine = OnnxEngine(model, threads=2)
    said, scale = [], []
    for image, told in zip(fields.image, fields.condition, strict=True):
        out = engine.run(image, told)
        said.append(out["height_px"][0, 0].copy())
        scale.append(out["scale_px"][0, 0].copy())
    return np.stack(said), np.stack(scale)
