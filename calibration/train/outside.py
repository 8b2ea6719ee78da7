"""The autofocus model on pictures that nobody here made: other simulators', and real ones blurred by the twin's probe.

For the manifest's table only; nothing here ever reaches a training. Folders as in the project's shared data.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from calibration.train.figures import spearman
from calibration.twin import probe, specimen
from engines.autofocus import Autofocus
from engines.readings import FocusReading
from engines.scene import STRIDE_PX

GAUSSIAN_BLUR_PX = (0.0, 0.7, 1.0, 1.5, 2.2, 3.3, 5.0, 7.5, 11.0, 16.0)

Case = tuple[NDArray[np.uint8], float | None, float]  # picture, pixel size, true sigma in pixels


def outside(model: Autofocus, folder: Path) -> dict[str, dict[str, float]]:
    """One row for each set that is there."""
    sets: dict[str, list[Case]] = {}
    if (folder / "artimagen" / "truth.csv").exists():
        for kind in ("lines", "grains"):
            for dose in ("200", "30"):
                sets[f"outside_artimagen_{kind}_dose{dose}"] = list(artimagen(folder / "artimagen", kind, dose))
    if (folder / "montecarlo" / "scenes.json").exists():
        for series in ("focus_holes", "focus_rough"):
            sets[f"outside_montecarlo_{series}"] = list(montecarlo(folder / "montecarlo", series))
    pictures = sorted(p for p in (folder / "thermo_frames").glob("*") if p.suffix in {".tif", ".tiff", ".png"})
    for picture in pictures:
        sets[f"outside_{picture.stem}_blurred"] = list(blurred(picture))
    return {name: row(model, cases) for name, cases in sets.items() if cases}


def row(model: Autofocus, cases: list[Case]) -> dict[str, float]:
    """Rank correlations with the truth, and how far off the blur is where a pixel or more was there to see."""
    said = [(reading, sigma) for image, px, sigma in cases if (reading := model.read(image, px)) is not None]
    truth = np.array([sigma for _, sigma in said], np.float32)
    blur = np.array([reading.blur_px for reading, _ in said], np.float32)
    score = np.array([reading.score for reading, _ in said], np.float32)
    wide = truth >= 1.0
    return {
        "n": float(len(said)),
        "blur_spearman": spearman(blur, truth),
        "score_spearman": -spearman(score, truth),
        "blur_median_relative_error_from_1px": float(np.median(np.abs(blur[wide] / truth[wide] - 1.0))),
        "blur_coverage_68": _covered([reading for reading, _ in said], truth, 1.0),
        "blur_coverage_95": _covered([reading for reading, _ in said], truth, 1.96),
    }


def _covered(readings: list[FocusReading], truth: NDArray[np.float32], width: float) -> float:
    blur = np.array([reading.blur_px for reading in readings])
    sigma = np.arcsinh(np.array([reading.blur_uncertainty_px for reading in readings]) / blur)
    floored = np.maximum(truth, 0.3)
    return float(np.mean(np.abs(np.log(floored / blur)) <= width * sigma))


def artimagen(folder: Path, kind: str, dose: str) -> Iterator[Case]:
    """NIST's image generator: sigma is known, geometric mean of the axes; it has no pixel size."""
    with (folder / "truth.csv").open(newline="") as table:
        for line in csv.DictReader(table):
            if line["kind"] == kind and line["poisson_dose"] == dose:
                # The ratio stretches one axis and shrinks the other, so that sigma stays their geometric mean.
                yield _cut(tifffile.imread(folder / line["file"])), None, float(line["sigma_px"])


def montecarlo(folder: Path, series: str) -> Iterator[Case]:
    """Electron Monte Carlo of one scene under probes of several sizes."""
    for scene in json.loads((folder / "scenes.json").read_text()):
        if scene.get("series") == series:
            sigma_m = float(np.sqrt(scene["probe_sigma_m"][0] * scene["probe_sigma_m"][1]))
            image = _to_8_bits(np.load(folder / f"{scene['name']}_SE.npy"))
            yield _cut(image), scene["pixel_size_m"], sigma_m / scene["pixel_size_m"]


def blurred(path: Path) -> Iterator[Case]:
    """A real frame at half size, which takes its own noise and blur away, blurred by a Gaussian probe, noise added."""
    emission = specimen.from_image(path, (512, 768), seed=1)
    rng = np.random.default_rng(1)
    for sigma in GAUSSIAN_BLUR_PX:
        soft = probe.blur(emission, pixel_size_m=1.0, z_m=0.0, alpha_rad=1.0, fw50_m=2.355 * sigma)
        noisy = soft + 0.05 * rng.standard_normal(soft.shape)
        yield np.asarray(np.clip(noisy * 255.0 + 0.5, 0, 255), np.uint8), None, sigma


def _to_8_bits(counts: NDArray[np.uint16]) -> NDArray[np.uint8]:
    low, high = np.percentile(counts, [0.1, 99.9])
    return np.asarray(np.clip((counts - low) * 255.0 / max(float(high - low), 1.0) + 0.5, 0, 255), np.uint8)


def _cut(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest part from the corner that the network takes."""
    h, w = (side // STRIDE_PX * STRIDE_PX for side in image.shape[:2])
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(grey[:h, :w])
