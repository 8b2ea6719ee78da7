"""Who may see what: the splits, their shares, and seeds that never give two of them the same geometry."""

import math
from dataclasses import dataclass

from calibration.dataset.errors import OrderError


@dataclass(frozen=True)
class Shift:
    """How a test set differs from all that was trained on; how much by is in `shifted`."""

    stretch: bool = False  # lengths beyond the trained range
    half_dose: bool = False
    material: bool = False  # a yield beyond the trained range
    charging: bool = False  # tails up to twice as strong as any trained one


@dataclass(frozen=True)
class Kind:
    """One split. share: of the frames where no split is asked for by name; 0: only when asked for."""

    purpose: str
    share: float
    shift: Shift = Shift()


NONE = Shift()
SHIFTED = "shifted"  # names all of them at once
FAMILY = "shifted-unseen-family"
OTHER_SIMULATOR, REAL = "other-simulator", "real"
DRAWN: dict[str, Kind] = {  # the order is the seed's: new ones only at the end
    "train": Kind("to learn from", 0.72),
    "tune": Kind("to choose by while learning", 0.08),
    "test": Kind("the same distribution, geometries of its own", 0.1),
    "shifted-unseen-pitch": Kind("lengths beyond the trained ones", 0.025, Shift(stretch=True)),
    "shifted-unseen-material": Kind("yields beyond the trained ones", 0.025, Shift(material=True)),
    "shifted-half-dose": Kind("half the electrons", 0.025, Shift(half_dose=True)),
    "shifted-double-charging": Kind("charging tails twice as strong as the trained ones", 0.025, Shift(charging=True)),
    FAMILY: Kind("families of layout that were held out of training", 0.0),
}
OUTSIDE = {
    OTHER_SIMULATOR: "scenes of another simulator, with exact heights and defects",
    REAL: "frames of real microscopes, without truth",
}
SEEDS = 16  # generator seeds to a dataset's seed: room for more splits
LARGEST_SEED = 2**48


def generator_seed(seed: int, split: str) -> int:
    """Another for every dataset seed and split: (seed, split) -> 16 seed + place of the split is one to one."""
    return seed * SEEDS + list(DRAWN).index(split)


def chosen(names: tuple[str, ...], *, held_out: bool) -> tuple[str, ...]:
    """The drawn splits that are meant; none named: all that have a share. Raises OrderError for an unknown name."""
    if not names:
        return tuple(name for name in DRAWN if DRAWN[name].share or (name == FAMILY and held_out))
    known = {*DRAWN, *OUTSIDE, SHIFTED}
    for name in names:
        if name not in known:
            raise OrderError(f"unknown split {name!r}; known are {', '.join((*DRAWN, SHIFTED, *OUTSIDE))}")
    if FAMILY in names and not held_out:
        raise OrderError(f"split {FAMILY} needs a family of its own: hold one out with --hold-out KIND")
    wanted = set(names)
    if SHIFTED in wanted:
        wanted |= {name for name in DRAWN if name.startswith(SHIFTED) and (name != FAMILY or held_out)}
    return tuple(name for name in DRAWN if name in wanted)


def least_count(names: tuple[str, ...]) -> int:
    """Of frames, so that each of these splits has one."""
    weights = _weights(names).values()
    return max(len(weights), math.ceil(round(sum(weights) / min(weights), 6))) if weights else 0


def shared_out(count: int, names: tuple[str, ...]) -> dict[str, int]:
    """Frames by split, `count` in all: by their shares, the largest remainders rounded up."""
    weights = _weights(names)
    exact = {name: count * weight / sum(weights.values()) for name, weight in weights.items()}
    frames = {name: int(share) for name, share in exact.items()}
    for name in sorted(names, key=lambda name: frames[name] - exact[name])[: count - sum(frames.values())]:
        frames[name] += 1
    return {name: number for name, number in frames.items() if number}


def _weights(names: tuple[str, ...]) -> dict[str, float]:
    return {name: DRAWN[name].share or DRAWN["test"].share for name in names}
