"""What the packages under test say of themselves: thresholds, what was left out of their training, what was in it."""

from calibration.dataset.errors import DatasetError
from calibration.evaluate import defects_dataset
from calibration.evaluate.defects_account import Ablation, Unknown
from calibration.evaluate.defects_points import RATES
from calibration.evaluate.defects_truth import PictureSet
from calibration.train.defects_data import TRAINING, TUNING
from engines.defects import THRESHOLD, WORKING_POINT
from engines.manifest import Manifest

STRANGE = "left_out"  # ... and how many of them there were
LEFT_OUT = "without_"  # figure of its row on unknown classes: which they were
ABLATION = "ablation_"  # rows of the cascade's manifest


def thresholds_of(manifest: Manifest) -> dict[float, float]:
    """False alarms a frame -> the confidence that clean frames pass so often, as the training measured it."""
    said = manifest.metrics.get(WORKING_POINT, {})
    named = {rate: THRESHOLD if rate == RATES[0] else f"{THRESHOLD}_at_{rate:g}" for rate in RATES}
    return {rate: said[name] for rate, name in named.items() if name in said}


def seen_in_training(of: PictureSet, seed: int) -> tuple[str, ...]:
    """Splits drawn by a seed that the package learnt from, told as a note: their figures are no test."""
    if of.kind != "dataset":
        return ()
    learnt = {seed + TRAINING, seed + TUNING}
    try:
        drawn = defects_dataset.seeds(of.folder)
    except DatasetError:
        return ()
    same = [name for name, generator in drawn.items() if generator in learnt]
    return tuple(f"split {name} was drawn as the package's own training was: its figures are no test" for name in same)


def ablation(manifest: Manifest | None) -> tuple[Ablation, ...]:
    """What the cascade is worth with less to go on."""
    metrics = {} if manifest is None else manifest.metrics
    rows = [(name, row) for name, row in metrics.items() if name.startswith(ABLATION)]
    return tuple(Ablation(name.removeprefix(ABLATION).replace("_", " "), row) for name, row in rows)


def unknown(manifest: Manifest | None) -> Unknown:
    """manifest: the cascade's; None where there is no cascade."""
    if manifest is None:
        return Unknown("", None, None, "no cascade package: nothing here says `unknown`")
    rows = [(name, row) for name, row in manifest.metrics.items() if "unknown" in name]
    for name, row in rows:
        auroc = next((value for key, value in row.items() if key.startswith("auroc")), None)
        fpr = next((value for key, value in row.items() if key.startswith("fpr")), None)
        if auroc is not None:
            left = [key.removeprefix(LEFT_OUT).replace("_", " ") for key in row if key.startswith(LEFT_OUT)]
            told = ", ".join(left) or "classes"
            note = f"on {told}, left out of a training like it"
            return Unknown(f"{manifest.label}, {name}", auroc, fpr, note, n=round(row.get(STRANGE, 0.0)))
    return Unknown(manifest.label, None, None, "its manifest tells nothing of classes left out")
