"""`beamside calibrate dataset`: frames with exact truth in checked shards: made, taken up again, verified, shown."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.commands.outputs import save
from agent.commands.specimens import NM, ScaleOption, layout_files, load_profile
from agent.errors import BeamsideError, UsageError

if TYPE_CHECKING:
    from calibration.dataset.build import Built, Outside
    from calibration.dataset.index import Index
    from calibration.dataset.outside import Picture
    from calibration.dataset.plan import Order
    from calibration.dataset.read import Found
    from calibration.dataset.rows_given import Given

QUIET_S = 2.0  # what is done within it needs no bar
MOST_WORKERS = 64
MB = 1e6

Task = Annotated[str, typer.Argument(help="autofocus, depth or defects.", show_default=False)]
Count = Annotated[int, typer.Option(help="Frames in all; those from outside come on top.")]
Splits = Annotated[
    list[str] | None, typer.Option("--split", help="Only this split ('shifted': all shifted ones); may be repeated.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the dataset.", show_default="out/datasets/TASK-SEED")]
HoldOut = Annotated[
    list[str] | None, typer.Option(help="A layout family that train, tune and test never see; may be repeated.")
]
MonteCarlo = Annotated[Path | None, typer.Option(help="Folder with scenes.json: split other-simulator.")]
Real = Annotated[list[Path] | None, typer.Option(help="Folder or image of real frames: split real; may be repeated.")]
Layouts = Annotated[
    list[str] | None,
    typer.Option(
        help="depth: layouts to print instead of the twin's own, each a family: a folder, a file or a pattern "
        "(DIR/*/mask.png) of GDSII, OASIS or binary pictures; may be repeated."
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        help="depth: a tool's profile by `calibrate twin`: its emission, noise, charging, and its probe where the "
        "frames told it."
    ),
]
Verify = Annotated[Path | None, typer.Option(help="Check every checksum of this dataset; make nothing.")]
Sheet = Annotated[Path | None, typer.Option(help="Write a contact sheet (PNG) of examples with their truth.")]


def dataset(
    task: Task = "",
    count: Count = 1000,
    seed: Annotated[int, typer.Option(help="The same seed, count and task give the same bytes.")] = 1,
    out: Out = None,
    split: Splits = None,
    hold_out: HoldOut = None,
    montecarlo: MonteCarlo = None,
    real: Real = None,
    layouts: Layouts = None,
    layout_scale_nm: ScaleOption = None,
    profile: Profile = None,
    workers: Annotated[int, typer.Option(help="Processes that draw, one thread each.")] = 2,
    force: Annotated[bool, typer.Option("--force", help="Replace another dataset in the folder.")] = False,
    verify: Verify = None,
    sheet: Sheet = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a dataset, or what is missing of it. Exit 0: all of it is there and whole; 1: it is not, and why."""
    from calibration.dataset.errors import DatasetError, OrderError

    try:
        if verify is not None:
            _verify(verify, task, sheet=sheet, as_json=as_json)
            return
        order = _order(task, count, seed=seed, splits=split or [], held_out=hold_out or [])
        _check_workers(workers)
        order = replace(order, given=_given(layouts or [], layout_scale_nm, profile))
        folder = out or Path("out/datasets") / f"{task}-{seed}"
        _make(order, folder, _Way(workers, force, montecarlo, tuple(real or ())), sheet=sheet, as_json=as_json)
    except OrderError as error:
        raise UsageError(str(error)) from error
    except DatasetError as error:
        raise BeamsideError(str(error)) from error


@dataclass(frozen=True)
class _Way:
    """How a dataset is made, which no byte of what is drawn depends on."""

    workers: int
    force: bool
    montecarlo: Path | None
    real: tuple[Path, ...]


def _order(task: str, count: int, *, seed: int, splits: list[str], held_out: list[str]) -> "Order":
    from calibration.dataset.plan import Order

    if not task:
        raise UsageError("which dataset? give a task (autofocus, depth or defects), or --verify DIR")
    return Order(task, count, seed, tuple(splits), tuple(held_out))


def _given(layouts: list[str], scale_nm: float | None, profile: Path | None) -> "Given | None":
    """Layouts and profile; None: neither."""
    if scale_nm is not None and not layouts:
        raise UsageError("--layout-scale-nm: of which layouts? give their files with --layouts")
    if not layouts and profile is None:
        return None
    from calibration.dataset.rows_given import Given, check, named
    from calibration.twin.cad import Layout, is_cad

    scale_m = None if scale_nm is None else scale_nm * NM
    paths = tuple(path for each in layouts for path in layout_files(each))
    bare = next((path for path in paths if scale_m is None and not is_cad(path)), None)
    if bare is not None:
        raise UsageError(f"--layouts {bare}: a picture has no scale; give --layout-scale-nm (nanometres a pixel)")
    families = tuple((name, Layout(path, None if is_cad(path) else scale_m)) for name, path in named(paths))
    given = Given(families, None if profile is None else load_profile(profile))
    check(given)
    return given


def _check_workers(workers: int) -> None:
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers {workers}: give 1 to {MOST_WORKERS}, about as many as there are cores")


def _make(order: "Order", folder: Path, way: _Way, *, sheet: Path | None, as_json: bool) -> None:
    from calibration.dataset.build import build

    outside = _outside(order, way)
    with _Bar("frames") as bar:
        built = build(order, folder, workers=way.workers, force=way.force, progress=bar.tell, outside=outside)
    if sheet is not None:
        _draw(folder, sheet)
    if as_json:
        _say(_account(built, folder))
        return
    _table(built.index)
    for line in (_words(built, folder, way.workers), *_missing(built)):
        Console().print(line, soft_wrap=True, highlight=False)


# --- frames from outside ---


def _outside(order: "Order", way: _Way) -> "Outside":
    from calibration.dataset import outside
    from calibration.dataset.splits import OTHER_SIMULATOR, REAL

    for name, option, given in (
        (OTHER_SIMULATOR, "--montecarlo DIR", way.montecarlo),
        (REAL, "--real DIR", way.real),
    ):
        if name in order.splits and not given:
            raise UsageError(f"split {name} is not drawn here: give its frames with {option}")
    found: Outside = {}
    if way.montecarlo is not None:
        found[OTHER_SIMULATOR] = outside.montecarlo(way.montecarlo)
    if way.real:
        found[REAL] = outside.real(_pictures(way.real))
    return found


def _pictures(paths: tuple[Path, ...]) -> "Iterator[Picture]":
    """Real frames without their data bars, in the order of their folders and names."""
    from agent.bridges.files import RECORDING, images_in, read_image
    from calibration.dataset.outside import Picture

    for folder in paths:
        for path in images_in(folder):
            if path.suffix.lower() != RECORDING:
                pixels, optics = read_image(path)
                yield Picture(path.name, pixels[: pixels.shape[0] - (optics.databar_rows or 0)], optics.pixel_size_m)


# --- what is told ---


def _verify(folder: Path, task: str, *, sheet: Path | None, as_json: bool) -> None:
    from calibration.dataset.read import verify

    with _Bar("shards") as bar:
        found = verify(folder, bar.tell)
    if task and task != found.task:
        raise UsageError(f"{folder} is a dataset for {found.task}, not for {task}")
    if sheet is not None and not found.bad:
        _draw(folder, sheet)
    if as_json:
        _say(found)
    else:
        _counts(found.by_split, title=f"{found.task}, seed {found.seed}, generator {found.generator}")
        Console().print(f"{found.frames} frames of {found.geometries} geometries, {found.bytes / MB:.0f} MB")
    if not found.good:
        raise BeamsideError(_complaint(found, folder))


def _complaint(found: "Found", folder: Path) -> str:
    if found.bad:
        more = f" (and {len(found.bad) - 1} more)" if len(found.bad) > 1 else ""
        return f"{found.bad[0]}{more}"
    if found.shared:
        return f"{folder}: the same geometry is in {', '.join(found.shared)}; make it anew with --force"
    return f"{folder}: {found.missing_frames} frames are still to be made; run the command that began it again"


def _account(built: "Built", folder: Path) -> dict[str, object]:
    held = built.index
    return {
        "folder": str(folder),
        "task": held.identity.task,
        "seed": held.identity.seed,
        "generator": held.identity.generator,
        "frames": held.count,
        "frames_made": built.frames_made,
        "frames_kept": built.frames_kept,
        "wall_s": round(built.wall_s, 3),
        "crops_per_hour": _rate(built.frames_made, built.wall_s),
        "crops_per_core_hour": _rate(built.frames_made, built.cpu_s),
        "splits": {split.name: split.frames for split in held.splits},
        "left_out": {each.split: each.why for each in held.left_out},
    }


def _rate(frames: int, seconds: float) -> int | None:
    """Frames an hour; None where none was made."""
    return round(3600.0 * frames / seconds) if frames and seconds > 0.0 else None


def _words(built: "Built", folder: Path, workers: int) -> str:
    told = f"{folder}: {_many(built.frames_made)} made, {built.frames_kept} were there or came from outside"
    if not built.frames_made:
        return told
    hourly, core = _rate(built.frames_made, built.wall_s), _rate(built.frames_made, built.cpu_s)
    many = "1 worker" if workers == 1 else f"{workers} workers"
    return f"{told}; {hourly:,} crops an hour with {many}, {core:,} an hour of one core's own time"


def _missing(built: "Built") -> Iterator[str]:
    """A set that is not there must not be missed only when it is needed."""
    for each in built.index.left_out:
        yield f"no {each.split}: {each.why}"


def _many(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames} frames"


def _table(held: "Index") -> None:
    counts: dict[str, Counter[str]] = {split.name: Counter() for split in held.splits}
    for shard in held.shards:
        counts[shard.split].update(shard.kinds)
    _counts(counts, title=f"{held.identity.task}, seed {held.identity.seed}, generator {held.identity.generator}")


def _counts(by_split: Mapping[str, Mapping[str, int]], *, title: str) -> None:
    table = Table("split", "frames", "by family", title=title)
    for name, kinds in by_split.items():
        said = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        table.add_row(name, str(sum(kinds.values())), said)
    Console().print(table)


def _draw(folder: Path, path: Path) -> None:
    from agent.commands.dataset_sheet import draw

    try:
        save(draw(folder), path)
    except OSError as error:
        raise BeamsideError(f"--sheet {path}: cannot be written: {error.strerror}") from error


def _say(document: object) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


class _Bar:
    """A progress bar on stderr, once the work has taken longer than anybody waits without one."""

    def __init__(self, what: str) -> None:
        columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task: TaskID | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.stop()

    def tell(self, done: int, of: int) -> None:
        if self._task is None and time.monotonic() - self._began > QUIET_S:
            self._progress.start()
            self._task = self._progress.add_task("", total=of)
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=of)
