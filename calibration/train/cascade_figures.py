"""Honest figures for the cascade: what it said of held-out candidates against what they are. numpy only.

Intervals are 95 %, by drawing specimens again: candidates of one specimen are no independent ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.train.cascade_data import NOT_A_DEFECT, Candidates
from engines.cascade_features import columns_of
from engines.cascade_levels import HOLLOW_OR_RAISED, NOT_DEFECT, OTHER, RAISED, SHADED, UNKNOWN, Limits
from engines.defects import CLASSES

DRAWS = 200
ENDS = (0.025, 0.975)
BINS = 15
PURE = 0.95
KEPT = 0.95  # of the known, where the false positive rate of the unknown is told
EITHER = tuple(CLASSES.index(name) for name in HOLLOW_OR_RAISED)

Figure = Callable[["Said", Candidates], float]


@dataclass(frozen=True)
class Said:
    """The graph's answers on n candidates."""

    defect: NDArray[np.float32]  # (n,)
    leaf: NDArray[np.float32]  # (n, classes)
    known: NDArray[np.float32]  # (n,)

    def rows(self, which: NDArray[np.intp]) -> "Said":
        return Said(self.defect[which], self.leaf[which], self.known[which])


def row(said: Said, truth: Candidates, limits: Limits) -> dict[str, float]:
    """One row of the table; a figure that cannot be told is left out."""
    truth = replace(truth, planes=truth.planes[:, :0], features=truth.features[:, :0])  # crops are not drawn again
    figures: dict[str, Figure] = {
        "accuracy_end_to_end": lambda s, t: accuracy(names(s, t, limits), t),
        "defects_named_right": lambda s, t: accuracy(names(s, t, limits), t, of=t.label != NOT_A_DEFECT),
        "others_rejected": lambda s, t: accuracy(names(s, t, limits), t, of=t.label == NOT_A_DEFECT),
        "leaf_accuracy": leaf_accuracy,
        "defect_auroc": lambda s, t: auroc(s.defect[t.label != NOT_A_DEFECT], s.defect[t.label == NOT_A_DEFECT]),
        "defect_ece": lambda s, t: calibration_error(*whether(s, t)),
        "leaf_ece": lambda s, t: calibration_error(*which(s, t)),
        "automatic_share_at_95_purity": lambda s, t: automatic_share(s, t, limits),
    }
    told = {"candidates": float(len(truth)), "defects": float((truth.label != NOT_A_DEFECT).sum())}
    if not len(truth):
        return told
    for name, figure in figures.items():
        value = figure(said, truth)
        if np.isfinite(value):
            told |= {name: value} | _interval(name, figure, said, truth)
    return told


def _interval(name: str, figure: Figure, said: Said, truth: Candidates) -> dict[str, float]:
    own = {each: np.nonzero(truth.specimen == each)[0] for each in np.unique(truth.specimen)}
    rng, drawn = np.random.default_rng(0), []
    for _ in range(DRAWS):
        rows = np.concatenate([own[each] for each in rng.choice(list(own), len(own))])
        drawn.append(figure(said.rows(rows), truth.rows(rows)))
    there = [value for value in drawn if np.isfinite(value)]
    low, high = np.quantile(there, ENDS) if there else (np.nan, np.nan)
    return {f"{name}_low": float(low), f"{name}_high": float(high)} if there else {}


def names(said: Said, truth: Candidates, limits: Limits) -> NDArray[np.str_]:
    """(n,) where each candidate's path ends, as engines.cascade_levels has it."""
    best = said.leaf.argmax(axis=1)
    told = np.array(CLASSES)[best]
    told = np.where(np.isin(best, EITHER) & ~decidable(truth), OTHER, told)
    told = np.where(truth.chance > limits.chance, NOT_DEFECT, told)
    told = np.where(said.known < limits.known, UNKNOWN, told)
    return np.where(said.defect < limits.defect, NOT_DEFECT, told)


def decidable(truth: Candidates) -> NDArray[np.bool_]:
    """Height or shading parts a pit from a particle."""
    return np.asarray((np.nan_to_num(truth.relief) >= RAISED) | (np.abs(truth.shading) >= SHADED), np.bool_)


def true_names(truth: Candidates) -> NDArray[np.str_]:
    return np.array([*CLASSES, NOT_DEFECT])[truth.label]  # label -1 is the last


def accuracy(told: NDArray[np.str_], truth: Candidates, *, of: NDArray[np.bool_] | None = None) -> float:
    right = told == true_names(truth)
    right = right if of is None else right[of]
    return float(right.mean()) if len(right) else float("nan")


def leaf_accuracy(said: Said, truth: Candidates) -> float:
    """The likeliest class of true defects, whatever the levels above said."""
    return float(which(said, truth)[1].mean()) if (truth.label != NOT_A_DEFECT).any() else float("nan")


def whether(said: Said, truth: Candidates) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidence that the first level is right, and whether it is."""
    there, yes = truth.label != NOT_A_DEFECT, said.defect >= 0.5
    return np.where(yes, said.defect, 1.0 - said.defect), yes == there


def which(said: Said, truth: Candidates) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Confidence in the likeliest class of each true defect, and whether it is right."""
    there = truth.label != NOT_A_DEFECT
    leaf = said.leaf[there]
    return leaf.max(axis=1), leaf.argmax(axis=1) == truth.label[there]


def calibration_error(sure: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over BINS of equal width."""
    if not len(sure):
        return float("nan")
    at = np.minimum((sure * BINS).astype(int), BINS - 1)
    off = [abs(float(right[at == each].mean()) - float(sure[at == each].mean())) * (at == each).mean()
           for each in np.unique(at)]  # fmt: skip
    return float(np.sum(off))


def auroc(high: NDArray[np.float32], low: NDArray[np.float32]) -> float:
    """That a number of the first is above one of the second, ties counting half."""
    if not len(high) or not len(low):
        return float("nan")
    ordered = np.sort(low)
    below, up_to = np.searchsorted(ordered, high, "left"), np.searchsorted(ordered, high, "right")
    return float((below + up_to).mean() / 2.0 / len(low))


def automatic_share(said: Said, truth: Candidates, limits: Limits) -> float:
    """Of the candidates said to be defects, those that need nobody: the surest, as many as are right to 95 %."""
    told = names(said, truth, limits)
    there = np.isin(told, CLASSES)
    if not there.any():
        return 0.0
    sure = (said.defect * said.leaf.max(axis=1))[there]
    right = (told == true_names(truth))[there][np.argsort(-sure, kind="stable")]
    pure = np.nonzero(np.cumsum(right) >= PURE * np.arange(1, len(right) + 1))[0]
    return float((pure[-1] + 1) / len(right)) if len(pure) else 0.0


def by_class(said: Said, truth: Candidates, limits: Limits) -> tuple[dict[str, float], dict[str, float]]:
    """End to end: the share of each class that is named right, and of each name that is right (purity)."""
    told, there = names(said, truth, limits), true_names(truth)
    right = told == there
    every = (*CLASSES, NOT_DEFECT)
    named = {name: float(right[there == name].mean()) for name in every if (there == name).any()}
    return named, {name: float(right[told == name].mean()) for name in every if (told == name).any()}


def kept(score: NDArray[np.float32], truth: Candidates, *, false: int) -> float:
    """Share of the true finds that stand above all but `false` of the others: which of two scores ranks better where
    false alarms are few."""
    there = truth.label != NOT_A_DEFECT
    others = np.sort(score[~there])[::-1]
    least = others[false] if len(others) > false else -np.inf
    return float((score[there] > least).mean()) if there.any() else float("nan")


def hollow_or_raised(said: Said, truth: Candidates) -> dict[str, float]:
    """Pits against particles: where height or shading decides, and the share where nothing does."""
    either = np.isin(truth.label, EITHER)
    clear = either & decidable(truth)
    if not either.any():
        return {}
    more = said.leaf[:, EITHER[1]] > said.leaf[:, EITHER[0]]
    right = np.where(more, EITHER[1], EITHER[0]) == truth.label
    told = {"pits_and_particles": float(either.sum()), "undecidable_share": float(1.0 - clear.sum() / either.sum())}
    if clear.any():
        told["accuracy_where_decidable"] = float(right[clear].mean())
    if (either & ~clear).any():
        told["accuracy_elsewhere"] = float(right[either & ~clear].mean())
    return told


def detectors_word(finds: Candidates) -> dict[str, float]:
    """The class that the detector itself gave its finds, of those that are defects."""
    there = finds.label != NOT_A_DEFECT
    if not there.any():
        return {}
    columns = columns_of("word")
    told = finds.features[there, columns.start : columns.start + len(CLASSES)].argmax(axis=1)
    return {"leaf_accuracy": float((told == finds.label[there]).mean()), "defects": float(there.sum())}


def confidence(finds: Candidates) -> NDArray[np.float32]:
    """(n,) of the detector."""
    logit = finds.features[:, columns_of("word")][:, len(CLASSES)]
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float32)


def gate(truth: Candidates, limits: Limits) -> dict[str, float]:
    """What the noise gate alone takes away."""
    passes, there = truth.chance <= limits.chance, truth.label != NOT_A_DEFECT
    return {"defects_kept": float(passes[there].mean()), "others_kept": float(passes[~there].mean())}


def unknown(known: NDArray[np.float32], strange: NDArray[np.float32]) -> dict[str, float]:
    """`known` of defects of classes that were taught, and of classes that were not."""
    limit = float(np.quantile(known, 1.0 - KEPT))
    return {
        "auroc": auroc(known, strange),
        "fpr_at_95": float((strange >= limit).mean()),
        "taught": float(len(known)),
        "left_out": float(len(strange)),
    }
