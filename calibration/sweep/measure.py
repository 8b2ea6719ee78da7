"""What frames say of one another: the agent's own estimator and likelihood on the frames of a sweep.

`bracket` asks the estimator for defocus, astigmatism and angle of a series. `place` asks the likelihood where one
frame must have been, given others; `pair` how far and how much larger the second of two is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.control.estimate import Estimate, estimate
from agent.control.instrument import Instrument
from agent.control.likelihood import Column, Hypothesis, Scene, View
from agent.control.search import STEP, TEMPER
from agent.control.spectra import patch_spectra, resampled
from agent.messages import Evidence
from calibration.optics import half_depth_of_focus_m, probe_fw50_m, wavelength_m
from calibration.sweep.errors import RefusedError
from calibration.sweep.instrument import Taken

Real = NDArray[np.float64]
Axes = tuple[float, float]

HERE = Hypothesis(0.0)  # every view carries its own defocus and astigmatism
ALPHA_SIGMA = 0.05  # relative: what a first estimate of the angle may be off by, and free to be found again
SYSTEMATIC_ALPHA = 0.004  # of the angle: pupil shape, and what brackets of one scene share
CLIMBS = 3  # Newton steps from where the estimator stands
GRID = 13  # hypotheses of one unknown before the parabola
NEIGHBOURS = 4  # frames by which another one is placed: the nearest tell most
LEAST_SPREAD = 0.05  # of `directions`: lines all one way have 0.01 to 0.02, anything with corners 0.1 and more


@dataclass(frozen=True)
class Optic:
    """The column as far as it is known, and what a frame's size and voltage make of it."""

    alpha_rad: float
    alpha_sigma_rad: float
    pixel_size_m: float
    landing_energy_ev: float | None
    pupil: str = "disc"
    scale_per_m: float = 0.0  # by which pictures are brought to the size they have at `reference_m`; 0: not known yet
    reference_m: float = 0.0

    @property
    def fw50_m(self) -> float:
        """By theory, with aberrations that are usual: nothing here measures the in-focus probe."""
        return 0.0 if self.landing_energy_ev is None else probe_fw50_m(self.alpha_rad, self.landing_energy_ev)

    @property
    def half_depth_of_focus_m(self) -> float:
        return half_depth_of_focus_m(self.pixel_size_m, self.alpha_rad, self.fw50_m)

    @property
    def instrument(self) -> Instrument:
        scale_per_m = 0.0 if self.scale_per_m else None  # undone in the pictures already
        return Instrument(self.alpha_rad, self.alpha_sigma_rad, self.fw50_m, scale_per_m=scale_per_m)

    @property
    def column(self) -> Column:
        wave = None if self.landing_energy_ev is None else wavelength_m(self.landing_energy_ev)
        coarse = wave is None or self.pixel_size_m > 2.0 * wave / self.alpha_rad
        return Column(self.alpha_rad, self.pixel_size_m, self.pixel_size_m, self.pupil, None if coarse else wave)


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame where it is believed to be."""

    evidence: Evidence
    z_m: float
    astigmatism_m: Axes


@dataclass(frozen=True)
class Bracket:
    """One answer of the estimator. Values belong to the working distance of the last frame."""

    working_distance_m: float
    z_m: float
    sigma_m: float
    astigmatism_m: Axes
    sigma_astigmatism_m: float
    alpha_rad: float

    def z_at(self, working_distance_m: float) -> float:
        return self.z_m + working_distance_m - self.working_distance_m


@dataclass(frozen=True)
class Found:
    """One number by the likelihood."""

    value: float
    sigma: float


@dataclass(frozen=True)
class Pair:
    """The second frame of two against the first."""

    displacement_px: Axes
    sigma_px: float
    magnified: Found  # minus 1


def evidence_of(taken: Taken, number: int, rows: slice = slice(None), *, grown: float = 0.0) -> Evidence:
    """All of a frame, or a band of its rows; a known growth of the picture is undone."""
    o = taken.optics
    patches = patch_spectra(taken.pixels[rows])
    noise = patches.noise  # of the picture as it came: resampling takes from the noise's highest frequencies
    if grown != 0.0:
        patches = patch_spectra(resampled(taken.pixels, 1.0 + grown)[rows])
    if float(noise.min()) <= 0.0:
        raise RefusedError(f"frame {number} has no noise: no detector's picture; take it without filters")
    if o.pixel_size_m is None:
        raise RefusedError("the frames do not tell their pixel size: the sweep cannot count in metres")
    return Evidence(
        frame=number,
        session=o.session,
        source=o.source or "",
        optics_epoch=o.optics_epoch,
        scene_epoch=o.scene_epoch,
        t_start_ns=o.t_start_ns or 0,
        working_distance_m=taken.at.working_distance_m,
        stigmator_x=taken.at.stigmator_x,
        stigmator_y=taken.at.stigmator_y,
        pixel_size_m=o.pixel_size_m,
        pixel_size_y_m=o.pixel_size_y_m or o.pixel_size_m,
        semi_convergence_angle_rad=o.semi_convergence_angle_rad,
        landing_energy_ev=o.landing_energy_ev or o.accelerating_voltage_v,
        frame_time_s=o.frame_time_s,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=noise,
        independent=patches.independent,
    )


def evidence_at(taken: Taken, number: int, optic: Optic, *, rows: slice = slice(None)) -> Evidence:
    """The same, at the size that all frames have in common where the scale is known."""
    grown = optic.scale_per_m * (taken.at.working_distance_m - optic.reference_m)
    return evidence_of(taken, number, rows, grown=grown)


def bracket(evidence: Sequence[Evidence], known: Instrument, what: str) -> Bracket:
    """Raises RefusedError where the estimator abstains."""
    found: Estimate = estimate(evidence, known)
    if (
        found.defocus_m is None
        or found.sigma_m is None
        or found.astigmatism_m is None
        or found.sigma_astigmatism_m is None
        or found.alpha_rad is None
    ):
        raise RefusedError(f"{what}: {WHY.get(found.reason or '', f'the estimator abstains ({found.reason})')}")
    where = found.working_distance_m
    return Bracket(
        where, found.defocus_m, found.sigma_m, found.astigmatism_m, found.sigma_astigmatism_m, found.alpha_rad
    )


WHY = {
    "actuator_dead": "the working distance is unresponsive: frames at different settings show one and the same focus; "
    "look at the lens supply",
    "actuator_inverted": "the working distance is inverted: pictures get worse where they should get better; look at "
    "the sign of the lens supply",
    "clipped": "the working distance stops short of where it is told to go; look at the lens supply and its limits",
    "featureless": "the specimen is featureless: nothing in the frames tells focus; go to a site with fine detail all "
    "ways, or raise dose or contrast",
    "ambiguous": "the frames do not tell which side of focus they are on; go to a site with more detail, or raise the "
    "dose",
    "budget": "focus was not found within the frames that a focus routine may spend; begin nearer to focus",
}


def scene_of(seen: Sequence[Seen], optic: Optic) -> Scene:
    quietest = min((each.evidence.noise for each in seen), key=lambda noise: float(noise.mean()))
    scene = Scene([_view(each, quietest) for each in seen], optic.column, independent=seen[0].evidence.independent)
    if scene.active.size == 0:
        raise RefusedError(WHY["featureless"])
    return scene


def _view(seen: Seen, noise: NDArray[np.float32]) -> View:
    e = seen.evidence
    return View(e.spectra, e.centres_px, noise, seen.z_m, seen.astigmatism_m, e.grown)


def likelier_pupil(seen: Sequence[Seen], optic: Optic) -> Optic:
    """How the beam fills its angles, as the estimator chose it for the same frames."""
    if optic.column.wavelength_m is not None:
        return optic
    values = []
    for pupil in ("disc", "gaussian"):
        scene = scene_of(seen, replace(optic, pupil=pupil))
        scene.find_shifts(HERE)
        values.append((float(scene.likelihood([HERE])[0]), pupil))
    return replace(optic, pupil=max(values)[1])


def angle_sigma_rad(seen: Sequence[Seen], optic: Optic) -> float:
    """What the frames leave open of the angle, with defocus and astigmatism as unknown as it is."""
    scene, h = scene_of(seen, optic), optic.half_depth_of_focus_m
    scene.find_shifts(HERE)
    scene.allow_for_errors(HERE)
    steps = np.array(STEP)
    points = [HERE]
    for i, step in enumerate(steps):
        for sign in (1.0, -1.0):
            at = np.zeros(4)
            at[i] = sign * step
            points.append(Hypothesis(at[0] * h, at[1] * h, at[2] * h, float(np.exp(at[3]))))
    _, information = scene.around(points, steps)
    covariance = TEMPER * np.linalg.pinv(information)
    return optic.alpha_rad * float(np.hypot(np.sqrt(max(covariance[3, 3], 0.0)), SYSTEMATIC_ALPHA))


def without_prior(seen: Sequence[Seen], optic: Optic, found: Bracket) -> Bracket:
    """The same answer by the likelihood alone.

    The estimator believes that columns are stigmated by less than h; where stigmators were turned on purpose, that
    belief takes a few per cent off what they do. Of the doubt only that of the astigmatism is found anew.
    """
    scene, h = scene_of(seen, optic), optic.half_depth_of_focus_m
    scene.find_shifts(HERE)
    scene.allow_for_errors(HERE)
    at, steps = np.zeros(3), np.array(STEP[:3])
    for _ in range(CLIMBS):
        values, information = scene.around([Hypothesis(*(h * point)) for point in (at, *_about(at, steps))], steps)
        gradient = (values[1::2] - values[2::2]) / (2.0 * steps)
        at = at + np.clip(np.linalg.solve(information + 1e-6 * np.eye(3), gradient), -0.5, 0.5)
        scene.refine_shifts(Hypothesis(*(h * at)))
    z, ax, ay = (float(value) for value in h * at)
    before = found.astigmatism_m
    _, information = scene.around([Hypothesis(*(h * point)) for point in (at, *_about(at, steps))], steps)
    covariance = TEMPER * np.linalg.pinv(information)
    return replace(
        found,
        z_m=found.z_m + z,
        astigmatism_m=(before[0] + ax, before[1] + ay),
        sigma_astigmatism_m=h * float(np.sqrt(max(0.5 * (covariance[1, 1] + covariance[2, 2]), 0.0))),
    )


def _about(at: Real, steps: Real) -> list[Real]:
    """A step either way along each axis."""
    return [at + sign * step * unit for unit, step in zip(np.eye(len(at)), steps, strict=True) for sign in (1.0, -1.0)]


def place(target: Seen, others: Sequence[Seen], optic: Optic, *, reach_m: float) -> Found:
    """Defocus of the target within `reach_m` of where it is expected, by all the others."""
    near = sorted(others, key=lambda each: abs(each.z_m - target.z_m))[:NEIGHBOURS]
    scene = scene_of([*near, target], optic)
    scene.find_shifts(HERE)
    scene.allow_for_errors(HERE)
    offsets = np.linspace(-reach_m, reach_m, GRID)

    def heard(at_m: float) -> float:
        scene.views[-1] = replace(scene.views[-1], offset_m=target.z_m + at_m)
        return float(scene.likelihood([HERE])[0])

    first = _summit(heard, offsets)
    scene.views[-1] = replace(scene.views[-1], offset_m=target.z_m + first.value)
    scene.find_shifts(HERE)
    found = _summit(heard, first.value + offsets[:: GRID // 4] / 4.0)
    return Found(target.z_m + found.value, found.sigma)


def pair(first: Seen, second: Seen, optic: Optic, *, most_grown: float) -> Pair:
    """How the second picture lies on the first, and how much larger it is: at most `most_grown`, 0 is not asked for."""
    scene = scene_of([first, second], optic)
    scene.find_shifts(HERE)
    scene.allow_for_errors(HERE)
    scene.refine_shifts(HERE)
    magnified = Found(0.0, 0.0) if most_grown == 0.0 else _magnified(scene, most_grown)
    dx, dy = (float(value) for value in scene.shifts[1] - scene.shifts[0])
    return Pair((dx, dy), _shift_sigma_px(scene), magnified)


def _magnified(scene: Scene, most: float) -> Found:
    def heard(grown: float) -> float:
        scene.set_scale(grown / (scene.views[1].offset_m - scene.views[0].offset_m))
        scene.refine_shifts(HERE)
        return float(scene.likelihood([HERE])[0])

    found = _summit(heard, np.linspace(-most, most, 5))
    heard(found.value)
    return found


def _shift_sigma_px(scene: Scene) -> float:
    """By the curvature of the likelihood along x and y."""
    step, kept = 0.1, scene.shifts.copy()
    curvature = []
    for axis in (0, 1):
        values = []
        for sign in (-1.0, 0.0, 1.0):
            moved = kept.copy()
            moved[1, axis] += sign * step
            scene.align(moved)
            values.append(float(scene.likelihood([HERE])[0]))
        curvature.append((2.0 * values[1] - values[0] - values[2]) / step**2)
    scene.align(kept)
    return float(np.sqrt(TEMPER / max(min(curvature), 1e-3)))


def _summit(heard: Callable[[float], float], grid: Real) -> Found:
    """Where a likelihood is highest, by the parabola through three points about it, and its one sigma."""
    values = [heard(float(at)) for at in grid]
    best, step = float(grid[int(np.argmax(values))]), float(grid[1] - grid[0])
    for _ in range(2):
        low, middle, high = (heard(best + sign * step) for sign in (-1.0, 0.0, 1.0))
        bend = 2.0 * middle - low - high
        if bend <= 0.0:
            return Found(best, float(grid[-1] - grid[0]))
        best = float(np.clip(best + 0.5 * step * (high - low) / bend, grid[0], grid[-1]))
        curvature, step = bend / step**2, 0.4 * step
    return Found(best, float(np.sqrt(TEMPER / curvature)))


def directions(evidence: Sequence[Evidence], optic: Optic) -> float:
    """How well the specimen's detail tells astigmatism from defocus: 0 for lines one way, 0.5 for detail all ways."""
    scene = scene_of([Seen(each, 0.0, (0.0, 0.0)) for each in evidence], optic)
    signal = np.maximum(scene.heard.sum(axis=0) - len(evidence), 0.0)
    weight = np.repeat(signal, scene.samples.count.astype(int))
    kx, ky = scene.samples.k
    square = kx**2 + ky**2
    terms = np.stack([np.ones_like(kx), (kx**2 - ky**2) / square, 2.0 * kx * ky / square]).astype(np.float64)
    gram = (terms * weight) @ terms.T / max(float(weight.sum()), 1e-9)
    return float(np.linalg.eigvalsh(gram)[0])
