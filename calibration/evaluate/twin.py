"""One simulated scene against the twin: the same heights rendered, only gain and offset fitted, every figure of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.evaluate.scenes import Recording, Scene, SceneError, load
from calibration.evaluate.twin_edges import EdgePeaks, Profile, compared, profile, walls_of
from calibration.evaluate.twin_error import FANO, Baselines, Error, Fit, baselines, check_fit, error_of, fitted, scaled
from calibration.evaluate.twin_floors import Floor, Pictures, floors
from calibration.evaluate.twin_render import rendered
from calibration.evaluate.twin_spectrum import Spectrum, spectrum
from calibration.twin.emission import Emission

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """All that is known of one scene."""

    recording: Recording
    twin: Field  # (h, w) counts: the render after gain and offset
    fit: Fit
    error: Error
    gain_only: Error  # with an offset of nothing
    baselines: Baselines
    profiles: tuple[Profile, Profile] | None  # twin, Monte Carlo across the walls; None where there are none
    edges: EdgePeaks | None  # None too where no edge shines
    floors: tuple[Floor, ...]
    spectrum: Spectrum


@dataclass(frozen=True)
class Row:
    """A scene in numbers."""

    name: str
    group: str
    kind: str
    nrmse: float
    nrmse_low: float
    nrmse_high: float
    nrmse_gain_only: float
    noise_floor: float
    range_counts: float
    gain: float
    offset: float
    edge_peak: EdgePeaks | None
    floors: tuple[Floor, ...]
    spectrum_db: float | None
    baselines: Baselines
    fitted: bool | None = None  # were the constants fitted to this scene? None: nobody says


def compare(recording: Recording, how: Emission, fano: float = FANO) -> Comparison:
    """fano: variance over mean of the counts, which noise leaves on flat ground. Raises SceneError as `judged`."""
    return judged(recording, rendered(recording, how), fano)


def judged(recording: Recording, render: Field, fano: float = FANO) -> Comparison:
    """render: (h, w) in any unit that is linear in yield. Raises SceneError for a render that is not of this scene."""
    counts, pixel_size_m = recording.counts, recording.scene.pixel_size_m
    fit = fitted(render, counts)
    check_fit(fit, recording, render, fano)
    twin = fit.apply(render)
    pictures = Pictures(twin, counts, np.asarray(recording.height_m / pixel_size_m, np.float32))
    walls = walls_of(pictures.height_px)
    profiles = None if walls is None else (profile(twin, walls), profile(counts, walls))
    return Comparison(
        recording=recording,
        twin=twin,
        fit=fit,
        error=error_of(twin, counts, fano),
        gain_only=error_of(scaled(render, counts).apply(render), counts, fano),
        baselines=baselines(recording, fano),
        profiles=profiles,
        edges=None if walls is None or profiles is None else compared(*profiles, walls=walls, fano=fano),
        floors=() if walls is None else floors(pictures, walls, pixel_size_m=pixel_size_m, fano=fano),
        spectrum=spectrum(twin, counts, fano),
    )


def row(compared: Comparison) -> Row:
    scene, error = compared.recording.scene, compared.error
    return Row(
        name=scene.name,
        group=scene.group,
        kind=scene.kind,
        nrmse=error.nrmse,
        nrmse_low=error.low,
        nrmse_high=error.high,
        nrmse_gain_only=compared.gain_only.nrmse,
        noise_floor=error.noise_floor,
        range_counts=error.range_counts,
        gain=compared.fit.gain,
        offset=compared.fit.offset,
        edge_peak=compared.edges,
        floors=compared.floors,
        spectrum_db=compared.spectrum.db,
        baselines=compared.baselines,
        fitted=scene.fitted,
    )


@dataclass(frozen=True)
class MeasuredFano:
    """Variance over mean by scenes that were simulated again with other electrons: what `fano` ought to be."""

    value: float
    sigma: float
    pairs: int


def measured_fano(folder: Path, scenes: Iterable[Scene]) -> MeasuredFano | None:
    """None where nothing was simulated twice."""
    known = {scene.name: scene for scene in scenes}
    pairs = [(scene, known[scene.repeat_of]) for scene in known.values() if scene.repeat_of in known]
    ratios, weights = [], []
    for again, first in pairs:
        try:
            a, b = (load(folder, scene).counts.astype(np.float64) for scene in (again, first))
        except SceneError:
            continue  # its own row says so
        if a.shape == b.shape:
            ratios.append(float(np.mean((a - b) ** 2) / (a.mean() + b.mean())))
            weights.append(a.size)
    if not ratios:
        return None
    value = float(np.average(ratios, weights=weights))
    return MeasuredFano(value, value * float(np.sqrt(2.0 / sum(weights))), len(ratios))
