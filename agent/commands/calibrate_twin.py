"""`beamside calibrate twin`: fits the twin to a handful of frames; writes a profile that it renders by afterwards."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent.commands.run import version
from agent.commands.twin_fit_page import Account, quantity, title_of
from agent.commands.twin_fit_page import write as write_page
from agent.commands.twin_frames import samples_in
from agent.commands.twin_geometry import Asked, Drawn
from agent.errors import BeamsideError, UsageError

if TYPE_CHECKING:
    from calibration.fit.geometry import Measures
    from calibration.fit.sample import Sample
    from calibration.fit.twin import Fitted
    from calibration.twin.profile import Profile

PAGE = "twin-fit.html"
Length = Annotated[float | None, typer.Option(help="Of the assumed line-space, metres.")]


def twin(
    frames: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FRAMES...", help="Pictures, counts (.npy), or a folder with scenes.json."),
    ] = None,
    heights: Annotated[
        Path | None, typer.Option(help="Folder of height maps: NAME_height_px_nm.npy (nm) or NAME.npy (m).")
    ] = None,
    design: Annotated[
        Path | None, typer.Option(help="Drawn layout of the frame's place, binary; or a folder, one a frame's name.")
    ] = None,
    design_inverted: Annotated[
        bool, typer.Option("--design-inverted", help="Material stands where the design is black.")
    ] = False,
    pitch_m: Length = None,
    cd_m: Length = None,
    height_m: Annotated[float | None, typer.Option(help="Of the assumed line-space or the design, metres.")] = None,
    side_wall_deg: Annotated[float, typer.Option(help="Of the assumed walls; 90 is upright.")] = 88.0,
    pixel_size_m: Annotated[float | None, typer.Option(help="Where the frame does not say it.")] = None,
    black_level: Annotated[
        float | None, typer.Option(help="Level without signal: 0 for counts, fitted for others.")
    ] = None,
    free_offset: Annotated[bool, typer.Option("--free-offset", help="Fit an offset to electron counts too.")] = False,
    fit_probe: Annotated[bool, typer.Option("--fit-probe", help="Find the probe of scenes that tell theirs.")] = False,
    window_px: Annotated[int, typer.Option(help="Of larger frames the middle is used.", min=32, max=1024)] = 256,
    instrument: Annotated[str, typer.Option(help="What the profile is of.")] = "unnamed",
    description: Annotated[str, typer.Option(help="Recipe, specimen, anything worth knowing later.")] = "",
    out: Annotated[Path, typer.Option(help="The profile.")] = Path("twin-profile.json"),
    report: Annotated[Path | None, typer.Option(help=f"Folder for a page of pictures, {PAGE}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Fit the virtual microscope to frames of known or assumed geometry; what they do not tell keeps its prior."""
    asked = Asked(
        heights=_folder(heights),
        measures=None if design else _measures(pitch_m, cd_m, height_m, side_wall_deg=side_wall_deg),
        drawn=_drawn(design, height_m, side_wall_deg=side_wall_deg, inverted=design_inverted),
        pixel_size_m=_size(pixel_size_m),
        black=black_level,
        free_offset=free_offset,
        fit_probe=fit_probe,
        window_px=window_px,
    )
    _need_scipy()
    samples = samples_in(frames or [], asked)
    if report is not None:
        _made(report)
    fitted = _fit(samples)
    profile = _profile(fitted, instrument, description)
    _written(profile, out)
    if report is not None:
        _page(Account(profile, tuple(samples), fitted.shown), report / PAGE)
    if as_json:
        sys.stdout.write(profile.to_json() + "\n")
        return
    _tell(profile, out, report)


def _measures(
    pitch_m: float | None, cd_m: float | None, height_m: float | None, *, side_wall_deg: float
) -> "Measures | None":
    from calibration.fit.errors import FitError
    from calibration.fit.geometry import Measures

    given = {"--pitch-m": pitch_m, "--cd-m": cd_m, "--height-m": height_m}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if pitch_m is None or cd_m is None or height_m is None:
        raise UsageError(f"{missing[0]} is missing: a line-space is given by {', '.join(given)}")
    try:
        return Measures(pitch_m, cd_m, height_m, side_wall_deg)
    except FitError as error:
        raise UsageError(f"the assumed line-space cannot be: {error}") from error


def _drawn(design: Path | None, height_m: float | None, *, side_wall_deg: float, inverted: bool) -> Drawn | None:
    from calibration.fit.designed import Standing
    from calibration.fit.errors import FitError

    if design is None:
        return None
    if not design.exists():
        raise UsageError(f"--design {design}: no such file or folder")
    if height_m is None:
        raise UsageError("--height-m is missing: a design has outlines and no heights")
    try:
        return Drawn(design, Standing(height_m, side_wall_deg), inverted)
    except FitError as error:
        raise UsageError(f"--design: {error}") from error


def _folder(heights: Path | None) -> Path | None:
    if heights is not None and not heights.is_dir():
        raise UsageError(f"--heights {heights}: no such folder")
    return heights


def _size(pixel_size_m: float | None) -> float | None:
    if pixel_size_m is not None and not 0.0 < pixel_size_m < 1.0:
        raise UsageError(f"--pixel-size-m {pixel_size_m:g}: a length above zero is expected, in metres (3e-9 is 3 nm)")
    return pixel_size_m


def _need_scipy() -> None:
    if find_spec("scipy") is None:
        raise BeamsideError("a fit needs scipy: pip install 'beamside[calibrate]'")


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: cannot be made: {error.strerror}; give a folder to write to") from error


def _fit(samples: "list[Sample]") -> "Fitted":
    from calibration.fit.errors import FitError
    from calibration.fit.twin import fit

    columns = TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with Progress(*columns, console=Console(stderr=True)) as bars:
            return fit(samples, progress=_teller(bars))
    except FitError as error:
        raise BeamsideError(str(error)) from error


def _teller(bars: Progress) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def tell(stage: str, done: int, of: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=of)
        bars.update(tasks[stage], completed=done, total=of)

    return tell


def _profile(fitted: "Fitted", instrument: str, description: str) -> "Profile":
    from calibration.twin.profile import Profile

    return Profile(
        instrument=instrument,
        description=description,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version(),
        frames=fitted.frames,
        parameters=fitted.parameters,
        correlated=fitted.correlated,
    )


def _written(profile: "Profile", path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        profile.save(path)
    except OSError as error:
        raise BeamsideError(f"{path}: the profile cannot be written: {error.strerror}") from error


def _page(account: Account, path: Path) -> None:
    try:
        write_page(account, path)
    except OSError as error:
        raise BeamsideError(f"{path}: the page cannot be written: {error.strerror}") from error


def _tell(profile: "Profile", out: Path, report: Path | None) -> None:
    console = Console()
    table = Table("constant", "value", "one sigma", "", title=f"{profile.instrument}: profile in {out}")
    for each in profile.parameters:
        value, sigma = quantity(each.name, each.value), quantity(each.name, each.sigma, 2)
        table.add_row(title_of(each.name), value, sigma if each.determined else "", each.note)
    console.print(table)
    frames = Table("frame", "geometry", "NRMSE", title="what is left")
    for frame in profile.frames:
        frames.add_row(frame.name, frame.geometry, f"{100.0 * frame.nrmse:.1f} %")
    console.print(frames)
    for pair in profile.correlated:
        console.print(
            f"told only together: {title_of(pair.first)} and {title_of(pair.second)} ({pair.correlation:+.2f})"
        )
    if report is not None:
        console.print(f"page: {report / PAGE}")
