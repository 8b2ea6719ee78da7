"""What options say of the virtual microscope's specimen and of a tool's profile: options in, settings out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from agent.bridges.files import read_image
from agent.errors import UsageError

if TYPE_CHECKING:
    from calibration.twin.gds import Layer
    from calibration.twin.profile import Profile

NM = 1e-9
LAYOUT_SUFFIXES = (".gds", ".gdsii", ".oas", ".oasis", ".png", ".tif", ".tiff", ".bmp")

ScaleOption = Annotated[
    float | None,
    typer.Option(
        "--layout-scale-nm",
        min=1e-3,
        max=1e4,
        help="Nanometres a pixel of a binary mask picture: it is printed as a layout, with heights.",
    ),
]
LayerOption = Annotated[
    str, typer.Option("--layout-layer", help="NUMBER or NUMBER/DATATYPE in a GDSII or OASIS file of several layers.")
]
CellOption = Annotated[str, typer.Option("--layout-cell", help="Cell of a GDSII or OASIS file of several top cells.")]
InvertedOption = Annotated[
    bool, typer.Option("--layout-inverted", help="Material where the layout is dark or empty: trenches and holes.")
]
ProfileOption = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="A tool's profile by `calibrate twin`: its emission (not of images), noise, charging, amplifier, and "
        "the width of its probe where the frames told it.",
    ),
]


@dataclass(frozen=True)
class LayoutOptions:
    """The options of a layout as they were given; those left out are empty."""

    scale_nm: float | None = None
    layer: str = ""
    cell: str = ""
    inverted: bool = False

    @property
    def given(self) -> list[str]:
        options = {
            "--layout-scale-nm": self.scale_nm is not None,
            "--layout-layer": bool(self.layer),
            "--layout-cell": bool(self.cell),
            "--layout-inverted": self.inverted,
        }
        return [name for name, is_given in options.items() if is_given]


def specimen_settings(
    specimen: str, how: LayoutOptions = LayoutOptions(), *, pixel_size_m: float | None = None
) -> dict[str, Any]:
    """A specimen's name, a layout, or an image: its texture without the data bar, and of its metadata only the pixel
    size. pixel_size_m: asked for; a layout is drawn at it."""
    from calibration.twin.cad import is_cad
    from calibration.twin.specimen import NAMES

    if specimen in NAMES:
        if how.given:
            raise UsageError(f"{how.given[0]}: {specimen} is drawn here; give --specimen a layout's file with it")
        return {"specimen": specimen}
    path = Path(specimen)
    if not path.exists():
        raise UsageError(f"specimen {specimen!r}: known are {', '.join(NAMES)}, or the file of an image or a layout")
    if is_cad(path) or how.scale_nm is not None:
        return _layout(path, how, pixel_size_m)
    if how.given:
        raise UsageError(
            f"{how.given[0]}: {path} is no GDSII or OASIS, and a picture has no scale; "
            "give --layout-scale-nm (nanometres a pixel) to print it as a layout"
        )
    return _texture(path)


def profile_settings(path: Path | None) -> dict[str, Any]:
    """What a profile says, by the microscope's settings; nothing without one."""
    from calibration.twin.instrument import MicroscopeSettings, fitted
    from calibration.twin.possible import InstrumentError

    if path is None:
        return {}
    found = fitted(load_profile(path))
    try:
        MicroscopeSettings(**found)
    except InstrumentError as error:
        raise UsageError(f"--profile {path}: {error}; the virtual microscope cannot have it") from error
    return found


@contextmanager
def specimen_errors() -> Iterator[None]:
    """What a specimen turns out to be only when it is drawn, in one sentence: a layout of which nothing prints."""
    from calibration.twin.surface import SpecimenError

    try:
        yield
    except SpecimenError as error:
        raise UsageError(str(error)) from error


def load_profile(path: Path) -> "Profile":
    from calibration.twin.profile import ProfileError, load

    try:
        return load(path)
    except ProfileError as error:
        raise UsageError(f"--profile {error}") from error


def layout_files(given: str) -> list[Path]:
    """Of a folder, all below it that have a layout's suffix; else the file, or those that a pattern means."""
    path = Path(given)
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in LAYOUT_SUFFIXES and each.is_file())
    else:
        pattern = str(path.relative_to(path.anchor))
        found = [path] if path.is_file() else sorted(Path(path.anchor).glob(pattern))
    if not found:
        raise UsageError(f"--layouts {given}: no layout there; expected files that end in {', '.join(LAYOUT_SUFFIXES)}")
    return found


def layer_of(text: str) -> "Layer | None":
    """17 is 17/0; empty: the only one."""
    if not text:
        return None
    number, _, datatype = text.partition("/")
    try:
        return int(number), int(datatype or 0)
    except ValueError as error:
        raise UsageError(f"--layout-layer {text}: expected a number, or NUMBER/DATATYPE as in 17/0") from error


def _layout(path: Path, how: LayoutOptions, pixel_size_m: float | None) -> dict[str, Any]:
    from calibration.twin.cad import Layout, read

    scale_m = None if how.scale_nm is None else how.scale_nm * NM
    layout = Layout(path, scale_m, layer_of(how.layer), how.cell or None, how.inverted)
    with specimen_errors():
        design, size_m = read(layout, pixel_size_m=pixel_size_m)
    return {"specimen": str(path), "layout": design, "pixel_size_m": size_m}


def _texture(path: Path) -> dict[str, Any]:
    pixels, optics = read_image(path)
    shown = pixels[: pixels.shape[0] - (optics.databar_rows or 0)]
    if np.unique(shown).size <= 2:  # a mask as often as not
        print(
            f"{path} has two levels and is looked at as a flat texture; "
            "to print it as a layout give --layout-scale-nm (nanometres a pixel)",
            file=sys.stderr,
        )
    known = {"pixel_size_m": optics.pixel_size_m} if optics.pixel_size_m else {}
    return {"specimen": str(path), "picture": shown, **known}
