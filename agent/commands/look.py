"""`beamside look IMAGE...`: the models on files. Paths in, one row of readings a file out, in the order given."""

import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Annotated, Self

import cv2
import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent import settings as configuration
from agent.commands.looking import Looked, Looker, Models, Told, printable
from agent.commands.outputs import Outputs
from agent.commands.overlay import said
from agent.commands.plate import told as in_words
from agent.commands.references import source_of
from agent.commands.score_scales import described, scale_for
from agent.errors import BeamsideError, UsageError
from agent.flags import CONDITIONS
from agent.messages import NO_REFERENCE
from agent.wire.outbound import plain
from engines.autofocus import SMALLEST_PX
from engines.defects import TRAINED_PIXEL_M
from engines.scene import STRIDE_PX

PATIENCE_S = 2.0  # before a progress bar appears
PIXEL_SIZES_M = (1e-13, 1e-3)  # as the wire takes them
VOLTAGES_V = (1.0, 1e6)
ADVICE = {  # of a file, where that differs from what a stream is told
    "no_pixel_size": "the file does not tell its pixel size; heights are left out; give --pixel-size-m",
    "blank": "the picture is empty: depth and defects were not looked for",
    "featureless": "hardly anything in the picture to judge focus by: its score and blur are little more than a guess",
    "averaging": "a recursive average: it may still hold an older picture",
    "nonlinear": "a gamma other than 1 bends the grey levels",
    "not_electron": "an ion picture: the models were trained on electron pictures",
}


UNTRAINED = (
    f"defects were told on pixels outside the {TRAINED_PIXEL_M[0] * 1e9:g} to {TRAINED_PIXEL_M[1] * 1e9:g} nm that the "
    "model was trained on, and on lines and contacts alone: take them as hints"
)


UNUSED = "--reference {}: this defect model reads a picture by itself and compares with nothing; it was not used"


class Unread(msgspec.Struct, frozen=True):
    """A file without readings, and why."""

    path: str
    error: str


Row = Looked | Unread


def look(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="TIFF, PNG, JPEG or BMP, told by content.")],
    pixel_size_m: Annotated[float | None, typer.Option(help="Of all files, whatever they say; metres.")] = None,
    accelerating_voltage_v: Annotated[float | None, typer.Option(help="Of all files, whatever they say.")] = None,
    depth_dir: Annotated[Path | None, typer.Option(help="Height maps: <stem>.npy (float32, m), <stem>.png.")] = None,
    overlay_dir: Annotated[Path | None, typer.Option(help="Pictures with the defects drawn in: <stem>.png.")] = None,
    score_scale: Annotated[Path | None, typer.Option(help="Tell scores on this scale of `calibrate rate`.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="self|none|FILE",
            help="What defects are compared with: the picture's own repetition (where it has one, if nothing is said), "
            "nothing, or a picture of the same place without defects.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Focus, height and defects of image files. A file that cannot be read is a row with its reason, and exit 1."""
    _quiet()
    told = Told(
        _within("--pixel-size-m", pixel_size_m, PIXEL_SIZES_M),
        _within("--accelerating-voltage-v", accelerating_voltage_v, VOLTAGES_V),
        source_of(reference),
    )
    engines = configuration.load().engines
    scale = None if score_scale is None else scale_for(score_scale, engines)
    outputs = Outputs(depth_dir, overlay_dir, images)
    models = Models.loaded(engines)
    rows = look_at(images, Looker(models, told, outputs, scale=scale))
    if as_json:
        print(json.dumps(plain(rows), allow_nan=False))
    else:
        Console().print(_table(rows))
        if scale is not None:
            print(f"Scores are on the scale {score_scale}: {described(scale)}.")
    unused = [] if reference is None or models.compare else [UNUSED.format(reference)]
    for line in [*unused, *problems(rows)]:
        print(f"beamside: {printable(line)}", file=sys.stderr)
    if any(isinstance(row, Unread) for row in rows):
        raise typer.Exit(1)


def look_at(images: Sequence[str], looker: Looker) -> list[Row]:
    """A row for each file, whatever became of the others."""
    rows: list[Row] = []
    with Bar(len(images)) as bar:
        for number, path in enumerate(images):
            bar.at(number, Path(path).name)
            rows.append(_row(path, looker, bar))
    return rows


def _row(path: str, looker: Looker, bar: "Bar") -> Row:
    done, name = bar.done, Path(path).name
    try:
        return looker.look(path, lambda share: bar.at(done + share, name))
    except BeamsideError as error:
        return Unread(path, str(error).removeprefix(f"{path}: "))
    except MemoryError:
        return Unread(path, "not enough memory for this picture; cut it, or close other programs")
    except OSError as error:
        return Unread(path, f"{error.filename}: cannot be written: {error.strerror}")


def _quiet() -> None:
    """What the readers of damaged files log is told in the file's row, once and in words."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)


def _within(option: str, value: float | None, limits: tuple[float, float]) -> float | None:
    if value is not None and not (math.isfinite(value) and limits[0] <= value <= limits[1]):
        raise UsageError(f"{option} {value:g}: expected {limits[0]:g} to {limits[1]:g}")
    return value


# --- for people ---


class Bar:
    """Progress on stderr, once it has taken longer than people wait without asking."""

    def __init__(self, files: int) -> None:
        columns = (BarColumn(), TextColumn("{task.fields[words]}", markup=False), TimeRemainingColumn())
        console = Console(stderr=True)
        # A terminal is left as it was; a log gets the last line of the bar.
        self._progress = Progress(*columns, console=console, transient=console.is_terminal)
        self._task = self._progress.add_task("", total=float(files), words="")
        self._files, self._began, self._shown = files, perf_counter(), False
        self.done = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._shown:
            self._progress.stop()

    def at(self, done: float, name: str) -> None:
        """done: files, with the share of the one at work."""
        self.done = done
        words = f"{min(int(done) + 1, self._files)} of {self._files}  {printable(name)}"
        self._progress.update(self._task, completed=done, words=words)
        if not self._shown and perf_counter() - self._began > PATIENCE_S:
            self._progress.start()
            self._shown = True


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("file", overflow="fold", min_width=14)
    for heading in ("px", "pixel", "score", "blur px", "height"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("defects", min_width=12)
    for row, name in zip(rows, _short([row.path for row in rows]), strict=True):
        table.add_row(escape(printable(name)), *_cells(row))
    return table


def _short(paths: Sequence[str]) -> list[str]:
    """Names, with as much of their folders as tells them apart."""
    names = [Path(path).name for path in paths]
    common = Counter(names)
    return [name if common[name] == 1 else path for name, path in zip(names, paths, strict=True)]


def _cells(row: Row) -> tuple[str, ...]:
    if isinstance(row, Unread):
        return ("", "", "", "", "", "not read")
    pixel, focus, depth = row.optics.pixel_size_m, row.focus, row.depth
    blurred = focus is not None and focus.blur_px is not None
    return (
        f"{row.shape[1]}x{row.shape[0]}",
        "" if pixel is None else in_words(pixel),
        "" if focus is None else f"{focus.score:.1f}",
        f"{focus.blur_px:.1f}±{focus.blur_uncertainty_px:.1f}" if focus is not None and blurred else "",
        "" if depth is None else in_words(depth.mean_m),
        _counted(row),
    )


def _counted(row: Looked) -> str:
    if not row.defects:
        return "" if "blank" in row.flags else "none"
    by_class = Counter(each.name for each in row.defects).most_common()
    return ", ".join(f"{count} {said(name)}" for name, count in by_class)


def problems(rows: Sequence[Row]) -> list[str]:
    """A line for each file that was not read or is too small, and one for each flag."""
    lines = [f"{row.path}: {row.error}" for row in rows if isinstance(row, Unread)]
    read = [row for row in rows if isinstance(row, Looked)]
    lines += [f"{row.path}: {_small(row)}" for row in read if row.focus is None]
    coarse = [row.path for row in read if row.count and _untrained(row.optics.pixel_size_m)]
    if coarse:
        lines.append(f"{_where(coarse)}: {UNTRAINED}")
    flagged: dict[str, list[str]] = {}
    for row in read:
        for code in row.flags:
            flagged.setdefault(code, []).append(row.path)
    lines += [f"no_reference, {row.path}: {row.unreferenced}" for row in read if NO_REFERENCE in row.flags]
    return lines + [_flag(code, paths) for code, paths in flagged.items() if code != NO_REFERENCE]


def _small(row: Looked) -> str:
    height, width = row.shape[0] - (row.optics.databar_rows or 0), row.shape[1]
    words = f"{width} x {height} px is too small to judge focus ({SMALLEST_PX} px a side at least)"
    if width % STRIDE_PX or height % STRIDE_PX:
        words += f"; for depth and defects it was mirrored out to multiples of {STRIDE_PX} px"
    return words


def _flag(code: str, paths: Sequence[str]) -> str:
    return f"{code}, {_where(paths)}: {ADVICE.get(code) or CONDITIONS[code].advice}"


def _where(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{len(paths)} files ({paths[0]} and others)"


def _untrained(pixel_size_m: float | None) -> bool:
    return pixel_size_m is not None and not TRAINED_PIXEL_M[0] <= pixel_size_m <= TRAINED_PIXEL_M[1]
