"""What there is to make: splits and their shards, from a task, a count and a seed. Pure; no file is touched here."""

from dataclasses import dataclass

from calibration.dataset import sources
from calibration.dataset.errors import OrderError
from calibration.dataset.index import Identity, Index, Split
from calibration.dataset.sources import TASKS, Source
from calibration.dataset.splits import DRAWN, LARGEST_SEED, chosen, shared_out

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
    held_out = tuple(sorted(set(order.held_out)))
    sources.check_held_out(order.task, held_out)
    generator = sources.generator(order.task)
    return Identity(order.task, order.seed, generator, held_out, order.frames_per_shard)


def splits_of(order: Order) -> tuple[Split, ...]:
    """The splits that this order fills, with their frames."""
    lacking = TASKS[order.task].lacks
    names = tuple(name for name in chosen(order.splits, held_out=bool(order.held_out)) if name not in lacking)
    refused = [name for name in order.splits if name in lacking]
    if refused:
        raise OrderError(f"{order.task} has no {refused[0]}: its generator cannot draw it")
    planned = shared_out(order.count, names) if names else {}
    return tuple(
        Split(
            name=name,
            purpose=DRAWN[name].purpose,
            generator_seed=Source(order.task, name, order.seed).generator_seed,
            frames=frames,
            kinds=TASKS[order.task].kinds,
        )
        for name, frames in planned.items()
    )


def pieces(identity: Identity, split: Split) -> list[Piece]:
    """The shards of one split, the last as long as what is left."""
    source = Source(identity.task, split.name, identity.seed, identity.held_out)
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
