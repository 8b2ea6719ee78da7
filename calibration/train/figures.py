"""Honest figures for a focus reader: what it said of held-out samples against their labels, baselines beside it."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.data import Samples

Column = NDArray[np.float32]

JUDGEABLE = 0.5  # content from which a blur figure counts


@dataclass(frozen=True)
class Answers:
    """What a reader said of each sample; baselines know no sigma."""

    score: Column
    log_blur: Column
    content: Column
    log_blur_sigma: Column | None = None


def figures(truth: Samples, said: Answers) -> dict[str, float]:
    """One row of the table. Blur figures where content >= 0.5; score over all; coverage where sigma is told."""
    seen = truth.content >= JUDGEABLE
    error = (said.log_blur - truth.log_blur)[seen]
    beyond = seen & (truth.defocus_h > 1.0)
    row = {
        "n": float(len(truth)),
        "score_rmse": rmse(said.score, truth.score),
        "score_spearman": spearman(said.score, truth.score),
        "score_vs_defocus_spearman": -spearman(said.score[beyond], truth.defocus_h[beyond]),
        "blur_median_relative_error": float(np.median(np.abs(np.expm1(error)))),
        "blur_p90_relative_error": float(np.quantile(np.abs(np.expm1(error)), 0.9)),
        "blur_median_relative_error_from_1px": float(np.median(np.abs(np.expm1(error[truth.log_blur[seen] >= 0.0])))),
        "blur_spearman": spearman(said.log_blur[seen], truth.log_blur[seen]),
        "content_auroc": auroc(said.content, seen),
    }
    if said.log_blur_sigma is not None:
        row |= _coverage(error / said.log_blur_sigma[seen])
    return row


def _coverage(z: Column) -> dict[str, float]:
    return {
        "blur_coverage_68": float(np.mean(np.abs(z) <= 1.0)),
        "blur_coverage_95": float(np.mean(np.abs(z) <= 1.96)),
    }


def rmse(a: Column, b: Column) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def spearman(a: Column, b: Column) -> float:
    """Rank correlation, ties sharing their mean rank. Nan-free: 0 where one side is constant."""
    ra, rb = _ranks(a), _ranks(b)
    spread = float(ra.std() * rb.std())
    return float(((ra - ra.mean()) * (rb - rb.mean())).mean() / spread) if spread > 0.0 else 0.0


def auroc(value: Column, positive: NDArray[np.bool_]) -> float:
    """Chance that a positive has the larger value."""
    ranks, count = _ranks(value), int(positive.sum())
    others = len(value) - count
    if count == 0 or others == 0:
        return 0.5
    return float((ranks[positive].sum() - count * (count - 1) / 2.0) / (count * others))


def _ranks(values: Column) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2.0)[inverse], np.float64)


def laplacian_variance(image: NDArray[np.uint8]) -> float:
    return float(cv2.Laplacian(image, cv2.CV_32F).var())


def absolute_variance(image: NDArray[np.uint8]) -> float:
    return float(image.astype(np.float32).var())


def tenengrad(image: NDArray[np.uint8]) -> float:
    return float((cv2.Sobel(image, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(image, cv2.CV_32F, 0, 1) ** 2).mean())


BASELINES: dict[str, Callable[[NDArray[np.uint8]], float]] = {
    "laplacian_variance": laplacian_variance,
    "absolute_variance": absolute_variance,
    "tenengrad": tenengrad,
}


def baseline(name: str, *, training: Samples, held_out: Samples) -> Answers:
    """A sharpness number, mapped by least squares on the training set to score and ln blur.

    The map is given the picture's variance and pixel size too, and squares of all: more than its users give it.
    """
    terms = _terms(name, training)
    targets = np.stack([training.score, training.log_blur, training.content], axis=1)
    weights = np.linalg.lstsq(terms, targets, rcond=None)[0]
    said = np.asarray(_terms(name, held_out) @ weights, np.float32)
    return Answers(np.clip(said[:, 0], 0.0, 10.0), said[:, 1], said[:, 2])


def _terms(name: str, samples: Samples) -> NDArray[np.float64]:
    sharp = np.array([BASELINES[name](image) for image in samples.image])
    variance = np.array([absolute_variance(image) for image in samples.image])
    columns = [np.log(sharp + 0.1), np.log(variance + 0.1), samples.condition[:, 0].astype(np.float64)]
    squares = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return np.stack([np.ones(len(samples)), *columns, *squares], axis=1)
