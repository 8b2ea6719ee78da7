"""How much of a spectrum is heard above its noise, and how far each cell of it is trusted. Pure.

From the power of all frames together, which no hypothesis and no direction changes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.control.cells import FINE_BINS, cells
from agent.control.spectra import PATCH_PX
from agent.messages import Evidence

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]
Complex = NDArray[np.complex64]

MODEL_ERROR = 0.05**2  # of the transfer squared: gain, drift within a frame, edges that moved in or out
INAUDIBLE = 0.1  # signal to noise of a cell below which a slightly wrong noise would speak for it
AUDIBLE_WIDE = 0.08  # the same over 31 x 31 samples, where chance has less say
CLEARLY = 3.0  # times what chance makes of it: by so much less a cell hears than its neighbourhood


@dataclass(frozen=True)
class Averaged:
    """What a sum of powers was taken over."""

    frames: int
    patches: int
    independent: float  # share of the samples that are independent of one another


def heard_signal(power: Real32, over: Averaged) -> Real:
    """Power above noise of all frames together, smoothed over more samples the weaker it is expected to be.

    A cell that by itself clearly hears less than its neighbourhood is believed: beside a line of a spectrum there
    is nothing, however wide the line's own power is smeared.
    """
    excess = power - np.float32(over.frames)
    own, near, far, wide = (cells().mean(_smooth(excess, size)) for size in (3, 5, 11, 31))
    radius = np.hypot(cells().fx, cells().fy) * PATCH_PX
    around = np.where(radius < FINE_BINS, near, np.where(wide > AUDIBLE_WIDE, far, 0.0))
    samples = over.frames * 9.0 * over.independent * over.patches
    chance = (over.frames + 2.0 * np.maximum(around, 0.0)) / np.sqrt(samples)
    return np.where(own < around - CLEARLY * chance, own, around)


def trusted(signal: Real, incoherent: Real | float = 0.0) -> Real:
    """Weight of each cell: s/(1+s) of its signal to noise s, less where s is so high that the model errs first, or
    where a share of it is not common to the frames.

    From the sum over frames, which no hypothesis and no direction changes: so the weights cannot bend the answer.
    """
    heard = np.maximum(signal - INAUDIBLE, 0.0)
    return np.asarray(heard / (1.0 + heard) / (1.0 + (MODEL_ERROR + incoherent) * heard))


def mean_power(spectra: Complex) -> Real32:
    """Mean over patches of the squared modulus, (256, 129)."""
    parts = np.ascontiguousarray(spectra).view(np.float32)
    squares = np.einsum("pyx,pyx->yx", parts, parts) / np.float32(len(parts))
    return np.asarray(squares[:, 0::2] + squares[:, 1::2], np.float32)


def object_nats(e: Evidence) -> float:
    """How much better one frame is explained with an object in it than as noise alone."""
    power = mean_power(e.spectra) / e.noise - np.float32(1.0)
    grid = cells()
    near, wide = (_smooth(power, size).ravel()[grid.order] for size in (5, 31))
    radius = np.hypot(grid.fx, grid.fy) * PATCH_PX
    inner = np.repeat(radius < FINE_BINS, grid.count.astype(np.intp))
    signal = np.maximum(np.where(inner, near, wide) - INAUDIBLE, 0.0)
    return float(e.independent * e.spectra.shape[0] * np.sum(signal - np.log1p(signal)))


def _smooth(power: Real32, size: int) -> Real32:
    """Box mean over the half-plane, wrapping in y and mirrored in x as the spectrum of a real picture is."""
    pad = size // 2
    wrapped = np.concatenate([power[-pad:], power, power[:pad]])
    return np.asarray(cv2.blur(wrapped, (size, size), borderType=cv2.BORDER_REFLECT_101)[pad:-pad])
