"""By how much the shifted test sets lie beyond the training: yields, contrasts, pitches, charging tails. Pure draws."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.train.picture import STRONGEST_TAIL
from calibration.twin.sketch import PITCH_PX

Field = NDArray[np.float32]
Range = tuple[float, float]

FINER = (2.6, 3.0)  # specimens for autofocus are trained shrunk by up to 2.5
UNSEEN_PITCH_PX: tuple[Range, Range] = (  # below and above all that is trained; a picture still holds a whole one
    (0.6 * PITCH_PX[0], 0.9 * PITCH_PX[0]),
    (1.1 * PITCH_PX[1], 1.4 * PITCH_PX[1]),
)
TAIL = (STRONGEST_TAIL, 2.0 * STRONGEST_TAIL)  # share of the signal that a charging tail carries
BRIGHT, DARK = (1.8, 2.6), (0.35, 0.55)  # yield of what lies high against what lies low; 0.7 to 1.6 is trained
BENT = (0.7, 1.0)  # ln of the tone curve's power; up to 0.4 is trained


@dataclass(frozen=True)
class Coat:
    """Another material above half height."""

    factor: float  # relative yield
    low_m: float
    high_m: float

    def over(self, height_m: Field) -> Field:
        """(h, w) relative yield; 1 below."""
        top = np.clip((height_m - self.low_m) / max(self.high_m - self.low_m, 1e-12) * 3.0 - 1.0, 0.0, 1.0)
        return np.asarray(1.0 + (self.factor - 1.0) * top, np.float32)


def strange(height_m: Field, rng: np.random.Generator) -> Coat:
    """A material brighter or darker against what lies low than any that was trained."""
    low, high = np.percentile(height_m, (2.0, 98.0))
    return Coat(float(rng.uniform(*(BRIGHT if rng.random() < 0.5 else DARK))), float(low), float(high))


def tail(rng: np.random.Generator) -> float:
    """Strength of a charging tail, bright or dark: twice what a training picture may have."""
    return float(rng.uniform(*TAIL)) * (1.0 if rng.random() < 0.5 else -1.0)


def pitch_px(rng: np.random.Generator) -> Range:
    """A range to draw a pitch from, finer or coarser than every trained one."""
    return UNSEEN_PITCH_PX[int(rng.integers(len(UNSEEN_PITCH_PX)))]


def bent(emission: Field, rng: np.random.Generator) -> Field:
    """Materials that no tone curve of the training gives: darks far darker, or lights far lighter."""
    power = np.exp(float(rng.uniform(*BENT)) * (1.0 if rng.random() < 0.5 else -1.0))
    return np.asarray(np.clip(emission, 0.0, 1.0) ** np.float32(power), np.float32)


def contrasted(field: Field, factor: float) -> Field:
    mean = field.mean()
    return np.asarray(mean + np.float32(factor) * (field - mean), np.float32)
