"""What there is to make: splits and their shards, from a task, a count and a seed. Pure; no file is touched here."""

from dataclasses import dataclass

from calibration.dataset import sources
from calibration.dataset.errors import OrderError
from calibration.dataset.index import Identity, Index, LeftOut, Split
from calibration.dataset.rows_given import Given
from calibration.dataset.sources import TASKS, Source
from calibration.dataset.splits import DRAWN, LARGEST_SEED, chosen, least_count, shared_out

FRAMES_PER_SHARD = 240  # whole geometries of every task; half a minute's work at most is lost to an interruption
INDICES_PER_SHARD = 1_000_000  # of geometries, that a shard may try: many are passed over where a family is held out


@dataclass(frozen=True)
class Order:
    """What was asked for. splits: by name; none: all that have a share."""

    task: str
    count: int
    seed: int
    splits: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    frames_per_shard: int = FRAMES_PER_SHARD
    given: Given | None = None  # layouts and a profile


@dataclass(frozen=True)
class Piece:
    """One shard to make; can be pickled."""

    source: Source
    number: int
    frames: int

    @property
    def file(self) -> str:
        return f"{self.source.split}/{self.number:05d}.npz"

    @property
    def indices(self) -> range:
        return range(self.number * INDICES_PER_SHARD, (self.number + 1) * INDICES_PER_SHARD)


def identity_of(order: Order) -> Identity:
    """Raises OrderError for an order that cannot be filled."""
    if order.task not in TASKS:
        raise OrderError(f"unknown task {order.task!r}; known are {', '.join(TASKS)}")
    if order.count < 1:
        raise OrderError(f"a count of {order.count} is no dataset; ask for at least one frame")
    if not 0 <= order.seed < LARGEST_SEED:
        raise OrderError(f"seed {order.seed} is out of range; give one of 0 to {LARGEST_SEED - 1}")
    if order.given is not None and order.task != "depth":
        raise OrderError(f"layouts and profiles are for depth; frames for {order.task} are drawn without them")
    held_out = tuple(sorted(set(order.held_out)))
    sources.check_held_out(order.task, held_out, order.given)
    generator = sources.generator(order.task, order.given)
    given = "" if order.given is None else order.given.told
    return Identity(order.task, order.seed, generator, held_out, order.frames_per_shard, given=given)


def splits_of(order: Order) -> tuple[Split, ...]:
    """The splits that this order fills, with their frames."""
    names = chosen(order.splits, held_out=bool(order.held_out))
    planned = shared_out(order.count, names) if names else {}
    return tuple(
        Split(
            name=name,
            purpose=DRAWN[name].purpose,
            generator_seed=Source(order.task, name, order.seed).generator_seed,
            frames=frames,
            kinds=sources.kinds_of(order.task, order.given),
        )
        for name, frames in planned.items()
    )


def left_out(order: Order, held: tuple[Split, ...], there: Index | None) -> tuple[LeftOut, ...]:
    """Splits that were asked for, now or by an earlier order of this folder, and that no frame fell to."""
    names = chosen(order.splits, held_out=bool(order.held_out))
    why = f"no frame of {order.count} fell to it; a count of {least_count(names)} gives each split one"
    told = {each.split: each.why for each in (there.left_out if there else ())} | dict.fromkeys(names, why)
    have = {split.name for split in held}
    return tuple(LeftOut(name, told[name]) for name in DRAWN if name in told and name not in have)


def pieces(identity: Identity, split: Split, given: Given | None = None) -> list[Piece]:
    """The shards of one split, the last as long as what is left."""
    source = Source(identity.task, split.name, identity.seed, identity.held_out, given)
    starts = range(0, split.frames, identity.frames_per_shard)
    return [
        Piece(source, number, min(identity.frames_per_shard, split.frames - start))
        for number, start in enumerate(starts)
    ]


def differs(there: Identity, asked: Identity) -> str:
    """What keeps new shards from standing beside those in a folder, in words; empty: nothing."""
    words = {"task": "task", "seed": "seed", "held_out": "held-out families", "frames_per_shard": "frames a shard"}
    for field, name in words.items():
        one, other = getattr(there, field), getattr(asked, field)
        if one != other:
            return f"its {name} is {_said(one)}, not {_said(other)}"
    if there.given != asked.given:
        return "it was made with other layouts, scales or another profile, or without"
    if (there.generator, there.format) != (asked.generator, asked.format):
        return f"it was drawn by another version of the generator ({there.generator}, now {asked.generator})"
    return ""


def together(there: Index | None, splits: tuple[Split, ...]) -> tuple[Split, ...]:
    """The splits of a folder with those of a new order in their place or behind them."""
    asked = {split.name: split for split in splits}
    kept = [asked.pop(split.name, split) for split in (there.splits if there else ())]
    return (*kept, *asked.values())


def _said(value: object) -> str:
    return (", ".join(value) or "none") if isinstance(value, tuple) else str(value)
