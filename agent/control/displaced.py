"""What frames of one object do not have in common though each shows it: rows that mains and jitter displace. Pure.

What is fine along the scan line is there in the power of all frames and not in their products, as if one of them were
blurred. Powers and products of the cells in; out what is left of an amplitude that two frames share, and which share
of a cell's power is nobody else's.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from agent.control.cells import cells, gather

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]

DISPLACED_PX = np.arange(0.0, 0.51, 0.02)  # rms of rows, beyond which nobody would measure on them
SHARP = 0.25  # of full transfer: a frame that shows less of a group may show it turned over
LEAST_COMMON = 0.3  # of an amplitude: products below it are noise, and are not to be made larger by more
SURE_CHANCES = 10.0  # times what chance makes of it: a power that tells a share


@dataclass(frozen=True, eq=False)
class Compared:
    """Frames side by side, registered, in the cells that are heard."""

    active: NDArray[np.intp]  # (cell,) which of all
    samples: Real  # (cell,) that its means are worth
    excess: Real32  # (frame, cell) power above noise
    products: Real32  # (pair, cell) divided by `believed`; pairs in the order of combinations
    believed: Real  # (cell,) of its amplitude, what two frames were taken to have in common
    transfer: Real32  # (frame, cell)


@dataclass(frozen=True, eq=False)
class Shared:
    """Of each cell."""

    common: Real  # of its amplitude, what two frames have in common
    incoherent: Real  # of its power, what they do not


def shared(seen: Compared) -> Shared:
    """One number tells how far rows are displaced; what is left of it, drift within a frame and the like, is the
    largest eigenvalue's short of the power."""
    fx, fy = (each[seen.active] for each in (cells().fx, cells().fy))
    frames, groups, weight = len(seen.excess), gather(fx, fy), seen.samples
    matrix = np.zeros((groups.starts.size, frames, frames))
    for i in range(frames):
        matrix[:, i, i] = groups.sum(weight * seen.excess[i])
    for pair, (i, j) in enumerate(combinations(range(frames), 2)):
        matrix[:, i, j] = matrix[:, j, i] = groups.sum(weight * seen.products[pair] * seen.believed)
    total = groups.sum(weight)
    sharp = groups.sum(weight * seen.transfer) / total > SHARP
    square = groups.sum(weight * fx**2) / total
    displaced = displaced_px(matrix * sharp.T[:, :, None], np.sqrt(total), square)
    common = np.maximum(np.exp(-((2.0 * np.pi * fx * displaced) ** 2)), LEAST_COMMON)
    of_group = groups.sum(weight * common) / total
    matrix /= np.where(np.eye(frames, dtype=bool), 1.0, of_group[:, None, None])
    power = np.maximum(np.einsum("gii->g", matrix), 1e-9)
    share = np.clip(1.0 - np.linalg.eigvalsh(matrix)[:, -1] / power, 0.0, 1.0)
    each = np.empty(fx.size)
    each[groups.order] = np.repeat(share, np.diff(np.r_[groups.starts, fx.size]))
    return Shared(common, each + 1.0 - common**2)


def displaced_px(matrix: Real, chance: Real, square: Real) -> float:
    """Rms displacement of a row along itself, of one frame against another by root two, from sums over groups.

    matrix: (group, n, n) powers and products, of frames that show nothing turned over; chance: (group,) of a power;
    square: mean of the squared frequency.
    """
    power = np.einsum("gii->gi", matrix)
    sure = np.maximum(power, 0.0) * (power > SURE_CHANCES * chance[:, None])
    expected = np.sqrt(sure[:, :, None] * sure[:, None, :])
    heard = np.where(expected > 0.0, matrix, 0.0)
    off = ~np.eye(matrix.shape[1], dtype=bool)
    both, alone = heard[:, off].sum(axis=1), expected[:, off].sum(axis=1)
    # As sure as they are loud, up to where a model errs by as much: else one line of a spectrum speaks for all.
    weight = 1.0 / (alone * (chance + SURE_CHANCES**-1 * alone) + 1e-9)
    kept = np.exp(-np.outer(DISPLACED_PX**2, (2.0 * np.pi) ** 2 * square))
    return float(DISPLACED_PX[np.argmin((weight * (both - alone * kept) ** 2).sum(axis=1))])
