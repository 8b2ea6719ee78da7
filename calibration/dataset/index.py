"""`dataset.json`: what a dataset holds, for whom and how it was drawn. Written whole; no date, no path in it."""

from pathlib import Path

import msgspec

from calibration.dataset.errors import DatasetError
from calibration.dataset.shards import place

INDEX = "dataset.json"
FORMAT = 2  # 2: the exact probe beside autofocus frames, the exact pixel size beside defects


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One array of a shard: its first axis counts the frames."""

    name: str
    shape: tuple[int | None, ...]  # of one frame; None: differs from frame to frame
    dtype: str
    unit: str
    meaning: str


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    file: str  # below the dataset's folder
    split: str
    frames: int
    geometries: int
    bytes: int
    sha256: str
    kinds: dict[str, int]  # frames by layout family


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    purpose: str
    generator_seed: int | None  # first word of every geometry's seed; None: nobody drew it here
    frames: int  # planned; all of them are there once the dataset is complete
    kinds: tuple[str, ...]  # layout families; the column `kind` counts from 0 in here
    columns: tuple[Column, ...] = ()


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split that was asked for and is empty."""

    split: str
    why: str


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must agree before shards may stand beside each other."""

    task: str
    seed: int
    generator: str  # hash of the source files that draw
    held_out: tuple[str, ...]  # families that train, tune and test do not have
    frames_per_shard: int
    format: int = FORMAT
    given: str = ""  # hash of the layouts and the profile it was made with; empty: none


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: Identity
    count: int  # frames, planned
    complete: bool
    classes: tuple[str, ...]  # the columns with a label count from 0 in here
    splits: tuple[Split, ...]
    shards: tuple[Shard, ...]
    nuisances: tuple[str, ...] = ()  # the column `nuisance` counts from 0 in here
    left_out: tuple[LeftOut, ...] = ()  # splits that were asked for and that no frame fell to

    def split(self, name: str) -> Split:
        """Raises DatasetError for a split that is not there."""
        for each in self.splits:
            if each.name == name:
                return each
        held = ", ".join(each.name for each in self.splits)
        raise DatasetError(f"there is no split {name!r} in this dataset; it holds {held}")


def read(folder: Path) -> Index:
    """Raises DatasetError: no index, not readable, not an index."""
    path = folder / INDEX
    try:
        data = path.read_bytes()
    except OSError as error:
        why = "no such file or folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise DatasetError(f"{path}: {why}; give the folder that `beamside calibrate dataset` wrote") from error
    try:
        return msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not an index of a dataset: {error}; --force makes the dataset anew") from error


def write(folder: Path, index: Index) -> None:
    place(folder / INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n")
