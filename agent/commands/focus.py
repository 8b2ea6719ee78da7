"""`beamside focus SERIES.csv`: the estimator on recorded frames. A CSV of pictures and settings in, defocus out."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agent.bridges.files import read_image
from agent.commands.focus_report import PAGE, Account, write
from agent.control.estimate import Estimate, estimate
from agent.control.instrument import Instrument
from agent.control.spectra import patch_spectra
from agent.control.surface import surface
from agent.errors import BeamsideError, ImageError, UsageError
from agent.messages import Evidence
from calibration.certificate import Certificate, CertificateError

REQUIRED = ("path", "working_distance_m", "stigmator_x", "stigmator_y", "pixel_size_m")
ALPHA, ALPHA_SIGMA = "semi_convergence_angle_rad", "semi_convergence_angle_sigma_rad"
SMALLEST_PX = 64
GAIN_SIGMA = 0.01  # of files nobody vouches that contrast stayed the same


def focus(
    series: Annotated[Path, typer.Argument(metavar="SERIES.csv", help=f"Columns {', '.join(REQUIRED)}[, {ALPHA}].")],
    certificate: Annotated[Path | None, typer.Option(help="The instrument's certificate.")] = None,
    report: Annotated[Path | None, typer.Option(help=f"Folder for a page of pictures, {PAGE}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Defocus and astigmatism of the first frame of a series; an abstention with its reason is an answer too."""
    rows = read_series(series)
    instrument = _instrument(rows, certificate)
    evidence = [_evidence(row, i) for i, row in enumerate(rows)]
    if report is None:
        found = _at_first(estimate(evidence, instrument), rows)
    else:
        answer, seen = surface(evidence, instrument)
        found = _at_first(answer, rows)
        distances = tuple(float(row["working_distance_m"]) for row in rows)
        paths = tuple(row["path"] for row in rows)
        _write(Account(found, seen, paths, distances, rows[0]["pixels"]), report / PAGE)
    told = _told(found)
    if as_json:
        print(json.dumps(told))
    else:
        _show(told)


def _write(account: Account, path: Path) -> None:
    try:
        write(account, path)
    except OSError as error:
        raise UsageError(f"--report {path.parent}: cannot be written: {error.strerror}; give another folder") from error


def read_series(path: Path) -> list[dict[str, Any]]:
    """The rows with their numbers and pictures. Raises UsageError naming row, column, value and what was expected."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: {error}") from error
    if not rows:
        raise UsageError(f"{path}: no rows; expected a header {','.join(REQUIRED)} and a line a frame")
    missing = [name for name in REQUIRED if name not in rows[0]]
    if missing:
        raise UsageError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(REQUIRED)}")
    return [_row(path, number, row) for number, row in enumerate(rows, start=2)]


def _row(path: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    where = f"{path} line {number}"
    read: dict[str, Any] = {name: _number(where, name, row.get(name)) for name in REQUIRED[1:]}
    for name in (ALPHA, ALPHA_SIGMA):
        read[name] = _number(where, name, row[name]) if row.get(name) else None
    if read["pixel_size_m"] <= 0 or (read[ALPHA] is not None and read[ALPHA] <= 0):
        raise UsageError(f"{where}: pixel size and convergence angle must be above zero")
    picture = Path(row["path"])
    try:
        pixels, optics = read_image(picture if picture.is_absolute() else path.parent / picture)
    except ImageError as error:
        raise BeamsideError(f"{where}: {error}") from error
    pixels = pixels[: pixels.shape[0] - (optics.databar_rows or 0)]
    if min(pixels.shape) < SMALLEST_PX:
        raise UsageError(f"{where}: {pixels.shape[1]}x{pixels.shape[0]} px; at least {SMALLEST_PX} a side are needed")
    return {
        **read,
        "path": picture,
        "pixels": pixels,
        "energy": optics.landing_energy_ev or optics.accelerating_voltage_v,
    }


def _number(where: str, name: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: {name} = {text!r}; expected a number")
    return value


def _instrument(rows: list[dict[str, Any]], certificate: Path | None) -> Instrument:
    """The certificate's constants; the angle of the series outranks them."""
    if len({row["pixel_size_m"] for row in rows}) > 1 or len({row["pixels"].shape for row in rows}) > 1:
        raise UsageError("all frames of a series must have one pixel size and one shape")
    instrument = Instrument(gain_sigma=GAIN_SIGMA)
    if certificate is not None:
        try:
            known = Certificate.load(certificate)
        except CertificateError as error:
            raise UsageError(f"certificate {error}") from error
        instrument = Instrument(
            known.alpha_rad,
            known.alpha_sigma_rad,
            known.fw50_m,
            known.stigmator_matrix_m,
            known.scale_per_m,
            GAIN_SIGMA,
        )
    first = rows[0]
    if first[ALPHA] is None:
        return instrument
    return replace(instrument, alpha_rad=first[ALPHA], alpha_sigma_rad=first[ALPHA_SIGMA] or 0.0)


def _evidence(row: dict[str, Any], index: int) -> Evidence:
    patches = patch_spectra(row["pixels"])
    return Evidence(
        frame=index,
        session=None,
        source="series",
        optics_epoch=index,
        scene_epoch=0,
        t_start_ns=index,
        working_distance_m=row["working_distance_m"],
        stigmator_x=row["stigmator_x"],
        stigmator_y=row["stigmator_y"],
        pixel_size_m=row["pixel_size_m"],
        pixel_size_y_m=row["pixel_size_m"],
        semi_convergence_angle_rad=row[ALPHA],
        landing_energy_ev=row["energy"],
        frame_time_s=None,
        centres_px=patches.centres_px,
        spectra=patches.spectra,
        noise=patches.noise,
        independent=patches.independent,
    )


def _at_first(found: Estimate, rows: list[dict[str, Any]]) -> Estimate:
    """The estimator answers for the last frame; the series asks for the first."""
    if found.defocus_m is None:
        return found
    first = float(rows[0]["working_distance_m"])
    return replace(found, defocus_m=found.defocus_m + first - found.working_distance_m, working_distance_m=first)


def _told(found: Estimate) -> dict[str, Any]:
    ax, ay = found.astigmatism_m or (None, None)
    return {
        "defocus_m": found.defocus_m,
        "sigma_m": found.sigma_m,
        "astigmatism_x_m": ax,
        "astigmatism_y_m": ay,
        "sigma_astigmatism_m": found.sigma_astigmatism_m,
        "abstained": not found.answered,
        "reason": found.reason,
    }


def _show(told: dict[str, Any]) -> None:
    table = Table("quantity", "value")
    if told["abstained"]:
        table.add_row("abstained", str(told["reason"]))
    else:
        table.add_row("defocus of the first frame", f"{told['defocus_m'] * 1e6:+.3f} ± {told['sigma_m'] * 1e6:.3f} um")
        for axis in ("x", "y"):
            value, sigma = told[f"astigmatism_{axis}_m"] * 1e6, told["sigma_astigmatism_m"] * 1e6
            table.add_row(f"astigmatism {axis}", f"{value:+.3f} ± {sigma:.3f} um")
    Console().print(table)
