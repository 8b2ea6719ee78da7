"""Frames of known or assumed geometry in; out: the constants they determine, and those that stay at their prior."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.fit.doubt import BOX_PX, doubt, pairs, undetermined
from calibration.fit.noise import Noise
from calibration.fit.priors import NOISE, Prior, priors, reach_m, start
from calibration.fit.sample import Sample, check
from calibration.fit.solve import Begin, Solved, solve
from calibration.twin.profile import SIGMA, STRETCH_X, STRETCH_XY, FrameFit, Pair, Parameter, stretch_of

Field = NDArray[np.float32]
Vector = NDArray[np.float64]

AT_BOUND = 0.002  # share of the range
SPOT = (SIGMA, STRETCH_X, STRETCH_XY)


@dataclass(frozen=True)
class Fitted:
    """What goes into a profile, and the pictures of the page."""

    parameters: tuple[Parameter, ...]
    frames: tuple[FrameFit, ...]
    correlated: tuple[Pair, ...]
    shown: tuple[Field, ...]  # each frame as the twin has it, in its own levels
    renders: int


def fit(samples: Sequence[Sample], *, progress: Callable[[str, int, int], None] = lambda s, n, of: None) -> Fitted:
    """Raises FitError where there is nothing to fit."""
    finest = min((each.pixel_size_m for each in samples), default=1e-9)
    check(list(samples), len(priors(finest)))
    everything = priors(finest, *_typical(samples))
    given = _given_spot(samples)
    free = tuple(prior for prior in everything if prior.name not in given)
    fixed = {prior.name: given.get(prior.name, prior.value) for prior in everything}
    lost: dict[str, float] = {}
    solved = solve(samples, free, fixed, begin=Begin(start(free)), progress=progress)
    renders = solved.renders
    while gone := undetermined(solved.information, len(free), inflation=solved.inflation):
        alone = doubt(solved.information, solved.inflation).sigma
        lost |= {free[k].name: float(alone[k]) for k in gone}
        keep = [k for k in range(len(free)) if k not in gone]
        free, begin = tuple(free[k] for k in keep), Begin(solved.shares[keep], solved.places, solved.seen)
        solved = solve(samples, free, fixed, begin=begin, progress=progress)
        renders += solved.renders
    return _fitted(samples, solved, _Account(everything, free, given, lost, renders))


@dataclass(frozen=True)
class _Account:
    """What became of every constant."""

    everything: tuple[Prior, ...]
    free: tuple[Prior, ...]  # and determined
    given: dict[str, float]
    lost: dict[str, float]  # not determined: one sigma as the frames alone have it, share of the range
    renders: int


def _typical(samples: Sequence[Sample]) -> tuple[float | None, str | None]:
    """Voltage and material of the frame whose electrons go the middle way; of those that tell their voltage, if any."""
    told = [each for each in samples if each.voltage_v is not None] or list(samples)
    middle = sorted(told, key=lambda each: reach_m(each.voltage_v, each.material))[len(told) // 2]
    return middle.voltage_v, middle.material


def _given_spot(samples: Sequence[Sample]) -> dict[str, float]:
    """Of the sharpest frame, where every frame's probe is known; where one is not, the probe is to be found."""
    spots = [each.spot for each in samples if each.spot is not None]
    if len(spots) < len(samples) or not spots:
        return {}
    sharpest = min(spots, key=lambda spot: spot.major_m * spot.minor_m)
    return dict(zip(SPOT, stretch_of(sharpest), strict=True))


def _fitted(samples: Sequence[Sample], solved: Solved, account: _Account) -> Fitted:
    known = doubt(solved.information, solved.inflation)
    count = len(account.free)
    sigma = {prior.name: float(s) for prior, s in zip(account.free, known.sigma[:count], strict=True)}
    share = {prior.name: float(x) for prior, x in zip(account.free, solved.shares, strict=True)}
    parameters = tuple(_parameter(prior, share, sigma, account) for prior in account.everything)
    placed = np.split(known.sigma[count:], np.cumsum([m.places for m in solved.models])[:-1])
    frames = tuple(_frame(samples[i], solved, i, np.asarray(placed[i])) for i in range(len(samples)))
    names = [prior.name for prior in account.free]
    together = tuple(Pair(names[i], names[k], r) for i, k, r in pairs(known, count))
    shown = tuple(each.levels for each in solved.seen)
    return Fitted((*parameters, _noise_factor(samples, solved.noise)), frames, together, shown, account.renders)


def _parameter(prior: Prior, share: dict[str, float], sigma: dict[str, float], account: _Account) -> Parameter:
    bounds = {"prior": prior.value, "low": prior.low, "high": prior.high}
    if prior.name in account.given:
        return Parameter(prior.name, account.given[prior.name], 0.0, True, **bounds, note="given with the frames")
    if prior.name not in share:
        return Parameter(prior.name, prior.value, None, False, **bounds, note=_lost(account.lost[prior.name]))
    x = share[prior.name]
    edge = "lower" if x < AT_BOUND else "upper" if x > 1.0 - AT_BOUND else ""
    note = f"at its {edge} bound, which is all that keeps it from going on" if edge else ""
    x = float(round(x)) if edge else x
    return Parameter(prior.name, prior.at(x), prior.sigma(x, sigma[prior.name]), True, **bounds, note=note)


def _lost(share_sigma: float) -> str:
    told = "no effect on these frames" if share_sigma > 100.0 else f"one sigma is {share_sigma:.1f} of its range"
    return f"not determined: kept at its prior ({told})"


def _noise_factor(samples: Sequence[Sample], noise: Sequence[Noise]) -> Parameter:
    """1 + delta + b from frames in electrons; grey levels tell it only times their gain."""
    bounds = {"prior": NOISE.value, "low": NOISE.low, "high": NOISE.high}
    told = [n for s, n in zip(samples, noise, strict=True) if s.counts and np.isfinite(n.slope_sigma) and n.slope > 0.0]
    if not told:
        why = "not determined: kept at its prior (grey levels tell only gain x factor: see each frame's noise slope)"
        return Parameter(NOISE.name, NOISE.value, None, False, **bounds, note=why)
    weight = np.array([1.0 / n.slope_sigma**2 for n in told])
    slope = np.array([n.slope for n in told])
    value = float((weight * slope).sum() / weight.sum())
    scatter = float((weight * (slope - value) ** 2).sum() / max(len(told) - 1, 1))
    sigma = float(np.sqrt(max(scatter, 1.0) / weight.sum()))
    return Parameter(NOISE.name, value, sigma, True, **bounds, note="variance / mean of electrons: 1 + delta + b")


def _frame(sample: Sample, solved: Solved, index: int, sigma: Vector) -> FrameFit:
    seen, noise, model = solved.seen[index], solved.noise[index], solved.models[index]
    placed = model.placed(solved.places[index])
    names = sample.geometry.free
    return FrameFit(
        name=sample.name,
        sha256=sample.sha256,
        geometry=sample.geometry.kind,
        shape=(sample.levels.shape[0], sample.levels.shape[1]),
        pixel_size_m=sample.pixel_size_m,
        gain=seen.gain / sample.brightness,  # the model renders silicon
        offset=seen.offset,
        nrmse=nrmse(sample.levels, seen.levels, noise, sample.valid),
        noise_slope=noise.slope,
        noise_slope_sigma=noise.slope_sigma if np.isfinite(noise.slope_sigma) else None,
        counts=sample.counts,
        placed={p.name: float(v) for p, v in zip(names, placed, strict=True)},
        placed_sigma={p.name: float(s * (p.high - p.low)) for p, s in zip(names, sigma, strict=True)},
    )


def nrmse(levels: Field, fit: Field, noise: Noise, valid: NDArray[np.bool_]) -> float:
    """sqrt(max(0, mean((T - M)^2) - noise/25)) / (p99 - p1 of M), T and M after a 5x5 box; noise as it was measured."""
    box = (BOX_PX, BOX_PX)
    t, m, power = (
        cv2.blur(np.asarray(each, np.float64), box, borderType=cv2.BORDER_REFLECT)
        for each in (fit, levels, noise.variance(fit))
    )
    low, high = np.percentile(m[valid], (1.0, 99.0))
    excess = float(np.mean((t - m)[valid] ** 2)) - float(power[valid].mean()) / BOX_PX**2
    return float(np.sqrt(max(excess, 0.0))) / max(float(high - low), 1e-9)
