"""Trains the defect model on the virtual microscope: a plan in, a measured model package out.

Pictures, and a checkpoint after each epoch, are kept in the work folder until the package is whole, so that a training
that was stopped goes on where it was.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from calibration.networks.defects import CHANNELS
from calibration.train import begin, export
from calibration.train import defects_data as data
from calibration.train.cycle import short_multiplies
from calibration.train.defects_data import Fields, Recipe
from calibration.train.defects_describe import DEFECTS
from calibration.train.defects_figures import (
    RATES,
    by_class,
    by_contrast,
    figures,
    finds,
    self_reference,
    threshold,
)
from calibration.train.defects_learn import Plan, train
from calibration.train.defects_outside import outside
from calibration.train.learn import Progress
from calibration.train.package import Metrics
from engines import manifest
from engines.defects import TASK, THRESHOLD, WORKING_POINT, DefectFinder
from engines.load import load
from engines.scene import CONDITION

PICTURES_PER_MINUTE = 100  # of the whole training: a third of it draws them, the rest learns from them
EPOCHS, COARSE_EPOCHS = 22, 12
FEWEST = 160
REFERENCES = {"golden": "another_die", "image": "no_reference"}  # column of Fields -> suffix of a row
HELD_OUT = 400
CLEAN_FACTOR = 2  # clean pictures for each picture with defects: a rare event needs many
PATTERNED = ("lines", "contacts")  # what is inspected most, and so what is scored and sets the threshold
LAYOUTS = ("pillars", "tip_to_tip", "jogs", "manhattan", "logic")  # scored beside them


def plan_for(minutes: float, *, seed: int) -> Plan:
    """A plan that two cores finish in about `minutes`."""
    pictures = max(int(PICTURES_PER_MINUTE * minutes), FEWEST)
    return Plan(
        seed=seed,
        pictures=pictures,
        held_out=min(max(pictures // 8, FEWEST), HELD_OUT),
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
    """Draw, train, export, set the threshold, measure. The package is out/defects when this returns.

    outside_data: a folder with pictures of other makers, for the table only.
    start: model.onnx of a package to go on from.
    """
    work, package = out / f"{TASK}.work", out / TASK
    plan = begin.marked(plan, start)
    training = _pictures("pictures", plan.pictures, Recipe(plan.seed), work=work, progress=progress)
    network = train(training, plan, checkpoint=work / "checkpoint.pt", progress=progress, start=start)
    model, share = package / manifest.MODEL_FILE, 1.0
    export.to_onnx(network, model, condition=CONDITION, outputs=DEFECTS.output_names, channels=CHANNELS)
    if start is not None and begin.alike(start, model.read_bytes()):
        mixed, share = best_between(start, model.read_bytes(), plan, work=work, progress=progress)
        model.write_bytes(mixed)
    record = DEFECTS.training(
        network,
        command=command,
        seed=plan.seed,
        samples=len(training),
        steps=plan.steps(len(training)),
        start=plan.start,
        learnt=share,
    )
    drawn = {
        name: _pictures(name.replace("_", " "), count, recipe, work=work, progress=progress)
        for name, (count, recipe) in held_out_sets(plan).items()
    }
    metrics = measure(model.read_bytes(), drawn) | {"baseline_self_reference": baseline(drawn)}
    if start is not None:
        metrics |= begin.before(measure(start, drawn))
    DEFECTS.write(package, record, metrics)
    if outside_data is not None:
        finder = DefectFinder(load(TASK, models=out, backend="onnxruntime"))
        metrics |= outside(finder, outside_data / "montecarlo")
        DEFECTS.write(package, record, metrics)
    shutil.rmtree(work)
    return manifest.read(package)[0]


def best_between(start: bytes, learnt: bytes, plan: Plan, *, work: Path, progress: Progress) -> tuple[bytes, float]:
    """The graph between both that misses least at RATES' first rate, on specimens that no table is measured on."""
    few, tuning = plan.held_out // 2, Recipe(plan.seed + data.TUNING, kinds=PATTERNED, clean=0.0)
    shown = _pictures("tuning set", few, tuning, work=work, progress=progress)
    clean = _pictures("clean tuning", CLEAN_FACTOR * few, replace(tuning, clean=1.0), work=work, progress=progress)

    def missed(model: bytes) -> float:
        least = {"": threshold(finds(model, clean), pixels=clean.image.size, rate=RATES[""])}
        return 1.0 - figures(shown, finds(model, shown), least)["capture_rate"]

    return begin.best_between(start, learnt, missed)


def measure(model: bytes, drawn: dict[str, Fields]) -> Metrics:
    """The table of the manifest. The threshold comes from clean pictures that no row is measured on."""
    found = {name: finds(model, fields) for name, fields in drawn.items()}
    clean = drawn["clean_tuning"]
    thresholds = {end: threshold(found["clean_tuning"], pixels=clean.image.size, rate=r) for end, r in RATES.items()}
    unseen = figures(drawn["clean"], found["clean"], thresholds)
    rows: Metrics = {
        WORKING_POINT: {THRESHOLD + end: value for end, value in thresholds.items()}
        | {f"false_alarms_per_frame{end}": unseen[f"false_alarms_per_frame{end}"] for end in RATES}
        | {"clean_frames": unseen["frames"]}
    }
    for name in ("held_out", "unseen_pitch", "half_dose", "other_layouts"):
        rows[name] = figures(drawn[name], found[name], thresholds)
    for column, name in REFERENCES.items():  # at the thresholds of the reference in itself
        for drawn_as in ("held_out", "clean", "other_layouts"):
            rows[f"{drawn_as}_{name}"] = figures(drawn[drawn_as], finds(model, drawn[drawn_as], column), thresholds)
    rows["held_out_capture_by_class"] = by_class(drawn["held_out"], found["held_out"], thresholds[""])
    rows["held_out_capture_by_contrast"] = by_contrast(drawn["held_out"], found["held_out"], thresholds[""])
    return rows


def held_out_sets(plan: Plan) -> dict[str, tuple[int, Recipe]]:
    """Name -> how many pictures of what; no specimen of one is in another or was trained on."""
    few, many = plan.held_out, CLEAN_FACTOR * plan.held_out
    layouts = Recipe(plan.seed + data.HELD_OUT, kinds=PATTERNED, clean=0.0)
    return {
        "clean_tuning": (many, Recipe(plan.seed + data.TUNING, kinds=PATTERNED, clean=1.0)),
        "clean": (many, replace(layouts, clean=1.0)),
        "held_out": (few, layouts),
        "unseen_pitch": (few // 2, replace(layouts, seed=plan.seed + data.SHIFTED, stretch=1.5)),
        "half_dose": (few // 2, replace(layouts, seed=plan.seed + data.SHIFTED, dose=0.5)),
        "other_layouts": (few // 2, replace(layouts, kinds=LAYOUTS)),
    }


def baseline(drawn: dict[str, Fields]) -> dict[str, float]:
    """The difference to a self-reference at the same false alarms, from the same clean pictures."""
    clean = drawn["clean_tuning"]
    quiet = self_reference(clean)
    thresholds = {end: threshold(quiet, pixels=clean.image.size, rate=rate) for end, rate in RATES.items()}
    row = figures(drawn["held_out"], self_reference(drawn["held_out"]), thresholds)
    return {name: value for name, value in row.items() if name not in ("class_accuracy", "box_iou_median")}


def _pictures(stage: str, count: int, recipe: Recipe, *, work: Path, progress: Progress) -> Fields:
    def tell(done: int) -> None:
        progress(stage, done, count)

    return data.generate(count, recipe, folder=work, progress=tell)
