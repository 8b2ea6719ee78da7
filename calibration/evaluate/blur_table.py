"""Frames of known blur against the sharpest of their sample: a folder with truth.csv in, one row a frame out.

The list's columns: file, kind, sample_seed, sigma_px, astig_ratio, astig_angle_rad, poisson_dose. Their ratio shrinks
the axis at `astig_angle_rad` and stretches the one across it. The reference of a sample is its sharpest round frame of
the highest dose.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from calibration.evaluate.relative_blur import RelativeBlurError, relative_blur

TRUTH = "truth.csv"
TARGET = 0.05  # of the added sigma
SURE_DEG = 3.0  # one standard deviation: what is known worse is no answer about the axis


class BlurTableError(Exception):
    """A folder that says nothing of blur."""


@dataclass(frozen=True)
class Frame:
    """A line of the list."""

    file: str
    sample: str  # kind and seed
    kind: str
    sigma_px: float  # Gaussian, geometric mean of the axes
    ratio: float
    angle_rad: float
    dose: float


@dataclass(frozen=True)
class Read:
    """One frame's answer beside its truth."""

    file: str
    kind: str
    sigma_px: float
    dose: float
    added_px: float  # true, root mean square of the axes
    read_px: float
    uncertainty_px: float
    relative_error: float
    misfit: float
    axis_error_deg: float | None  # None: round, or the angle is not known to SURE_DEG


@dataclass(frozen=True)
class Unread:
    """A frame that could not be compared."""

    file: str
    error: str


def listed(folder: Path) -> list[Frame]:
    """Raises BlurTableError where the list is missing or broken."""
    path = folder / TRUTH
    try:
        with path.open(newline="") as table:
            rows = list(csv.DictReader(table))
    except OSError as error:
        raise BlurTableError(f"{path}: {error.strerror}; a folder with {TRUTH} is needed") from error
    frames = [_frame(path, number, row) for number, row in enumerate(rows, start=2)]
    if not frames:
        raise BlurTableError(f"{path}: no frame in it")
    return frames


def _frame(path: Path, line: int, row: dict[str, str]) -> Frame:
    try:
        frame = Frame(
            file=row["file"],
            sample=f"{row['kind']} {row['sample_seed']}",
            kind=row["kind"],
            sigma_px=float(row["sigma_px"]),
            ratio=float(row["astig_ratio"]),
            angle_rad=float(row["astig_angle_rad"]),
            dose=float(row["poisson_dose"]),
        )
    except KeyError as error:
        raise BlurTableError(f"{path}: no column {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise BlurTableError(f"{path} line {line}: {error}") from error
    if not (0.0 < frame.sigma_px < np.inf and 0.0 < frame.ratio < np.inf and np.isfinite(frame.angle_rad)):
        raise BlurTableError(f"{path} line {line}: sigma {frame.sigma_px}, ratio {frame.ratio}: positive numbers only")
    return frame


def reference_of(frame: Frame, frames: list[Frame]) -> Frame | None:
    """The sharpest round one of the same sample, most electrons first; None where the frame is that one, or alone."""
    fit = [each for each in frames if each.sample == frame.sample and each.ratio == 1.0]
    best = min(fit, key=lambda each: (each.sigma_px, -each.dose), default=frame)
    return None if best.sigma_px >= frame.sigma_px else best


def compared(folder: Path, frame: Frame, reference: Frame) -> Read | Unread:
    """What the frame's blur is read as, beside what it is."""
    try:
        said = relative_blur(tifffile.imread(folder / frame.file), tifffile.imread(folder / reference.file))
    except (OSError, tifffile.TiffFileError, RelativeBlurError) as error:
        return Unread(frame.file, str(error))
    squared = 0.5 * frame.sigma_px**2 * (frame.ratio**2 + frame.ratio**-2)
    added = float(np.sqrt(squared - reference.sigma_px**2))
    known = frame.ratio > 1.0 and np.degrees(said.angle_uncertainty_rad) < SURE_DEG
    return Read(
        file=frame.file,
        kind=frame.kind,
        sigma_px=frame.sigma_px,
        dose=frame.dose,
        added_px=added,
        read_px=said.sigma_px,
        uncertainty_px=said.uncertainty_px,
        relative_error=said.sigma_px / added - 1.0,
        misfit=said.misfit,
        axis_error_deg=axis_error_deg(said.angle_rad, frame.angle_rad + np.pi / 2.0) if known else None,
    )


def axis_error_deg(angle_rad: float, other_rad: float) -> float:
    """Between two axes, -90 .. 90."""
    return float(np.degrees((angle_rad - other_rad + np.pi / 2.0) % np.pi - np.pi / 2.0))
