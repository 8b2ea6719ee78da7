"""What a search for focus stands on: the frames as the likelihood sees them, what is fitted, what is believed. Pure.

Fitted are z, ax and ay in h, the logarithm of the angle, and, where no scene epoch vouches for it, the logarithm of
each frame's contrast against the last one's: `theta`, in this order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.control.instrument import Instrument, distinct
from agent.control.likelihood import Column, Hypothesis, Scene, View
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, wavelength_m

Real = NDArray[np.float64]

ALPHA_GRID_RAD = np.geomspace(1e-3, 30e-3, 9)
ALPHA_LEAST = 0.02  # relative error of any certificate's angle, whatever it says: lenses are turned between two of them
# Lines all one way cannot tell astigmatism from defocus: a weak belief that columns are stigmated to about h decides.
ASTIGMATISM_H = 0.5
STEP = (0.12, 0.12, 0.12, 0.03)  # finite differences: z, ax, ay in h, ln alpha
GAIN_STEP = 0.03  # and the logarithm of a frame's contrast
# Windows mix what the model keeps apart, so the likelihood speaks too loud: measured scatter squared over curvature.
TEMPER = 5.0
SAME_NOISE = 1.04  # times the lowest: what lies above it shows content


@dataclass(frozen=True, eq=False)
class Search:
    """The scene is registered and weighed anew as the search goes on; the rest stays."""

    evidence: Sequence[Evidence]
    instrument: Instrument
    scene: Scene
    h: float
    fit_alpha: bool
    gains: int  # how many contrasts are fitted

    @property
    def reference(self) -> Evidence:
        """The frame that the answer is for."""
        return self.evidence[-1]

    @property
    def free(self) -> list[int]:
        return [i for i in range(4 + self.gains) if i != 3 or self.fit_alpha]

    @property
    def step(self) -> Real:
        return np.array([*STEP, *[GAIN_STEP] * self.gains])

    @property
    def alpha_spread(self) -> float:
        """Relative error of the angle: what is claimed, or what any column drifts by."""
        known = self.instrument.alpha_rad or 1.0
        return max(self.instrument.alpha_sigma_rad / known, ALPHA_LEAST)

    def half_depth_m(self, alpha_rad: float) -> float:
        return half_depth_of_focus_m(self.reference.pixel_size_m, alpha_rad, self.instrument.fw50_m)

    def at(self, theta: Real) -> Hypothesis:
        z, ax, ay = (float(x) * self.h for x in theta[:3])
        gains = (*(float(g) for g in theta[4:]), 0.0) if self.gains else ()
        return Hypothesis(z, ax, ay, float(np.exp(theta[3])), gains)

    def sides(self, theta: Real, index: int) -> tuple[Real, Real]:
        """A step either way along one of what is fitted."""
        unit = np.zeros(4 + self.gains)
        unit[index] = self.step[index]
        return theta + unit, theta - unit

    def surprise(self, theta: Real) -> float:
        """Minus the logarithm of the prior, as loud as one frame's word that is not tempered."""
        total = 0.5 * float(theta[1] ** 2 + theta[2] ** 2) / ASTIGMATISM_H**2
        if self.fit_alpha and self.instrument.alpha_rad is not None:
            total += float(np.log1p(0.5 * (theta[3] / self.alpha_spread) ** 2))  # far tails: certificates can be wrong
        if self.gains:
            total += float(np.log1p((theta[4:] / self.instrument.gain_sigma) ** 2).sum())
        return total

    def prior_curvature(self, theta: Real) -> Real:
        """As loud as the likelihood."""
        belief = 1.0 / ASTIGMATISM_H**2
        alpha = 0.0
        if self.instrument.alpha_rad is not None and self.instrument.alpha_sigma_rad > 0.0:
            alpha = 2.0 / (2.0 * self.alpha_spread**2 + float(theta[3]) ** 2)
        gains: Real | list[float] = 2.0 / (self.instrument.gain_sigma**2 + theta[4:] ** 2) if self.gains else []
        return TEMPER * np.array([1e-4, belief, belief, alpha, *gains])


def begun(evidence: Sequence[Evidence], instrument: Instrument) -> Search:
    """With the angle that is known, or else one to begin with."""
    bracketed = len(distinct([e.working_distance_m for e in evidence])) > 2
    scene = scene_of(evidence, instrument)
    return Search(
        evidence,
        instrument,
        scene,
        h=half_depth_of_focus_m(evidence[-1].pixel_size_m, scene.column.alpha_rad, instrument.fw50_m),
        fit_alpha=instrument.alpha_rad is None or (bracketed and instrument.alpha_sigma_rad > 0.0),
        gains=_gains(evidence, instrument),
    )


def scene_of(evidence: Sequence[Evidence], instrument: Instrument) -> Scene:
    """The frames as the likelihood sees them, against the last of them."""
    first = evidence[-1]
    alpha_rad = instrument.alpha_rad or float(np.median(ALPHA_GRID_RAD))
    wave = wavelength_m(first.landing_energy_ev) if first.landing_energy_ev else None
    coarse = wave is None or first.pixel_size_m > 2.0 * wave / alpha_rad
    column = Column(alpha_rad, first.pixel_size_m, first.pixel_size_y_m, wavelength_m=None if coarse else wave)
    common = _common_noise([e.noise * max(e.averages, 1) for e in evidence])
    # Where contrasts differ, noises may.
    own = _gains(evidence, instrument) > 0
    noises = [np.asarray(e.noise if own else common / max(e.averages, 1), np.float32) for e in evidence]
    views = [_view(e, first, instrument=instrument, noise=noise) for e, noise in zip(evidence, noises, strict=True)]
    return Scene(views, column, independent=first.independent)


def _gains(evidence: Sequence[Evidence], instrument: Instrument) -> int:
    """How many contrasts are fitted: the last frame's is what the others are held against."""
    return len(evidence) - 1 if instrument.gain_sigma > 0.0 else 0


def _view(e: Evidence, first: Evidence, *, instrument: Instrument, noise: NDArray[np.float32]) -> View:
    matrix = instrument.stigmator_matrix_m or ((0.0, 0.0), (0.0, 0.0))
    dx, dy = e.stigmator_x - first.stigmator_x, e.stigmator_y - first.stigmator_y
    added = (matrix[0][0] * dx + matrix[0][1] * dy, matrix[1][0] * dx + matrix[1][1] * dy)
    offset = e.working_distance_m - first.working_distance_m
    return View(e.spectra, e.centres_px, noise, offset, added, e.grown)


def _common_noise(noises: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One scene has one noise: frames in focus show theirs with content on top, so the lowest few are believed."""
    lowest = min(float(noise.mean()) for noise in noises)
    return np.asarray(np.mean([noise for noise in noises if noise.mean() < SAME_NOISE * lowest], axis=0), np.float32)
