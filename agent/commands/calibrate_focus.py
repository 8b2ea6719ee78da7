"""`beamside calibrate focus`: sweeps a microscope within its limits and writes its certificate."""

import json
import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agent.commands.specimens import (
    CellOption,
    InvertedOption,
    LayerOption,
    LayoutOptions,
    ProfileOption,
    ScaleOption,
    profile_settings,
    specimen_errors,
    specimen_settings,
)
from agent.commands.sweep_session import Asked, calibrated
from agent.errors import BeamsideError, UsageError
from calibration.certificate import Certificate, CertificateError, Limits

if TYPE_CHECKING:
    from calibration.sweep.run import Swept

PAGE = "focus-calibration.html"
MOST_DAYS = 3650
LIMIT_FIELDS = {
    "--limit-min-m": "working_distance_min_m",
    "--limit-max-m": "working_distance_max_m",
    "--limit-step-m": "step_m",
    "--limit-cumulative-m": "cumulative_m",
}
Metres = Annotated[float | None, typer.Option(help="Metres; default: the microscope's own.", min=0.0)]


def focus(
    out: Annotated[Path, typer.Option(help="The certificate; replaced only by a whole one.", show_default=False)],
    specimen: Annotated[
        str, typer.Option(help="A specimen's name, an image file to be looked at, or a layout (GDSII, OASIS, mask).")
    ] = "tin-balls",
    layout_scale_nm: ScaleOption = None,
    layout_layer: LayerOption = "",
    layout_cell: CellOption = "",
    layout_inverted: InvertedOption = False,
    profile: ProfileOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the specimen and of everything that is drawn.")] = 0,
    start_defocus_m: Annotated[
        float | None, typer.Option(help="Metres; default: from the seed, within 12 half depths of focus.")
    ] = None,
    snr: Annotated[float, typer.Option(min=0.01, max=100, help="Per pixel, in focus.")] = 1.8,
    pixel_size_m: Annotated[
        float | None, typer.Option(min=1e-11, max=1e-6, help="Metres; default 10 nm, for a layout by its pitch.")
    ] = None,
    drift_px: Annotated[
        float | None, typer.Option(min=0, max=5, help="Drift towards +x, pixels a frame; default: from the seed.")
    ] = None,
    databar_rows: Annotated[int, typer.Option(min=0, max=200, help="Rows covered by a data bar.")] = 0,
    bits: Annotated[int, typer.Option(min=8, max=16, help="8 or 16.")] = 8,
    alpha_rad: Annotated[float | None, typer.Option(min=1e-4, max=0.09, help="The virtual column's angle.")] = None,
    hysteresis_m: Annotated[float | None, typer.Option(min=0.0, max=1e-5, help="Play of the virtual lens.")] = None,
    limit_min_m: Metres = None,
    limit_max_m: Metres = None,
    limit_step_m: Metres = None,
    limit_cumulative_m: Metres = None,
    limit_stigmator: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Stigmators stay within plus and minus this.")
    ] = None,
    dose_frames: Annotated[int, typer.Option(min=1, help="Frames the sweep may take; it needs about 40.")] = 80,
    expires_days: Annotated[float, typer.Option(help="For how long the certificate counts.")] = 30.0,
    instrument: Annotated[str, typer.Option(help="What the certificate is of; default: the microscope's name.")] = "",
    report: Annotated[Path | None, typer.Option(help=f"Folder for a page with every fit, {PAGE}.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep that was interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Calibrate a microscope for focusing: sweep the virtual one, and write its certificate.

    Angle, stigmators and their cross-terms, play and settling of the lens, image shift and scale, each with its doubt.
    The start settings are restored whatever happens. Exit 1: refused or interrupted, and why; 130: Ctrl-C.
    """
    from calibration.sweep.virtual import VirtualColumn
    from calibration.twin.instrument import MicroscopeSettings
    from calibration.twin.microscope import VirtualMicroscope

    given = {
        "--specimen": specimen, "--layout-scale-nm": layout_scale_nm, "--layout-layer": layout_layer,
        "--layout-cell": layout_cell, "--layout-inverted": layout_inverted,
        "--profile": None if profile is None else str(profile), "--seed": seed, "--start-defocus-m": start_defocus_m,
        "--snr": snr, "--pixel-size-m": pixel_size_m, "--drift-px": drift_px, "--databar-rows": databar_rows,
        "--bits": bits, "--alpha-rad": alpha_rad, "--hysteresis-m": hysteresis_m, "--limit-min-m": limit_min_m,
        "--limit-max-m": limit_max_m, "--limit-step-m": limit_step_m, "--limit-cumulative-m": limit_cumulative_m,
        "--limit-stigmator": limit_stigmator,
    }  # fmt: skip
    if bits not in (8, 16):
        raise UsageError(f"--bits {bits}: 8 or 16")
    if not 0.0 < expires_days <= MOST_DAYS:  # a NaN fails too
        raise UsageError(f"--expires-days {expires_days:g}: more than 0 and at most {MOST_DAYS} are expected")
    layout = LayoutOptions(layout_scale_nm, layout_layer, layout_cell, layout_inverted)
    settings = profile_settings(profile) | specimen_settings(specimen, layout, pixel_size_m=pixel_size_m)
    for name, value in (("pixel_size_m", pixel_size_m), ("alpha_rad", alpha_rad), ("hysteresis_m", hysteresis_m)):
        settings |= {} if value is None else {name: value}
    settings |= {} if drift_px is None else {"drift_px_per_frame": (drift_px, 0.0)}
    microscope = MicroscopeSettings(
        seed=seed, start_defocus_m=start_defocus_m, snr=snr, bits=bits, databar_rows=databar_rows, **settings
    )
    asked_limits = (limit_min_m, limit_max_m, limit_step_m, limit_cumulative_m)
    limits = _limits(microscope.limits, dict(zip(LIMIT_FIELDS, asked_limits, strict=True)), limit_stigmator)
    _prepare(out, report)
    with specimen_errors():
        column = VirtualColumn(VirtualMicroscope(microscope))
    name = instrument or column.name
    asked = Asked({"microscope": column.name, **given}, limits, dose_frames, out, _previous(out, name))
    swept = calibrated(column, asked, resume=resume)
    made, valid = datetime.now(UTC), timedelta(days=expires_days)
    certificate = _certificate(swept, Case(name, limits, made, valid), out)
    if report is not None:
        _page(swept, certificate, report)
    _tell(swept, certificate, out, report=report, as_json=as_json)


@dataclass(frozen=True)
class Case:
    """What a certificate says beside the measurements."""

    instrument: str
    limits: Limits
    made: datetime
    valid: timedelta


# --- before ---


def _limits(own: Limits, given: dict[str, float | None], stigmator: float | None) -> Limits:
    """The narrower of the microscope's and those asked for."""
    narrowed = own
    for option, name in LIMIT_FIELDS.items():
        value = given[option]
        if value is not None:
            narrower = max if name == "working_distance_min_m" else min
            narrowed = replace(narrowed, **{name: narrower(value, getattr(own, name))})
    if stigmator is not None:
        low, high = max(own.stigmator_min, -stigmator), min(own.stigmator_max, stigmator)
        narrowed = replace(narrowed, stigmator_min=low, stigmator_max=high)
    if not narrowed.working_distance_min_m < narrowed.working_distance_max_m:
        raise UsageError(
            f"--limit-min-m, --limit-max-m: {narrowed.working_distance_min_m:g} to "
            f"{narrowed.working_distance_max_m:g} m leave nothing between"
        )
    for option in ("--limit-step-m", "--limit-cumulative-m"):
        if not getattr(narrowed, LIMIT_FIELDS[option]) > 0.0:
            raise UsageError(f"{option} 0: a length above zero is expected, in metres")
    return narrowed


def _prepare(out: Path, report: Path | None) -> None:
    """What cannot be written is said now, and not after the sweep."""
    for option, folder in (("--out", out.parent), ("--report", report)):
        if folder is None:
            continue
        probe = folder / f".{os.getpid()}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(f"{option} {folder}: cannot be written to: {error.strerror}") from error
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; give the certificate's file")


def _previous(path: Path, instrument: str) -> Certificate | None:
    """The certificate that is to be replaced, where it can be read and is of the same instrument."""
    try:
        found = Certificate.load(path) if path.exists() else None
    except CertificateError:
        return None
    return found if found is not None and found.instrument == instrument else None


# --- afterwards ---


def _certificate(swept: "Swept", case: Case, out: Path) -> Certificate:
    from calibration.sweep.run import certificate_of

    made = certificate_of(swept, instrument=case.instrument, limits=case.limits, made=case.made, valid=case.valid)
    try:
        made.save(out)
    except OSError as error:
        raise BeamsideError(f"--out {out}: the certificate cannot be written: {error.strerror}") from error
    return made


def _page(swept: "Swept", certificate: Certificate, folder: Path) -> None:
    from agent.commands.sweep_page import Account, write

    try:
        write(Account(swept, certificate), folder / PAGE)
    except OSError as error:
        raise BeamsideError(f"--report {folder / PAGE}: cannot be written: {error.strerror}") from error


def _tell(swept: "Swept", certificate: Certificate, out: Path, *, report: Path | None, as_json: bool) -> None:
    from agent.commands.sweep_figures import figures

    if as_json:
        certified = json.loads(out.read_text())
        told: dict[str, Any] = {
            "path": str(out),
            "report": None if report is None else str(report / PAGE),
            "frames": swept.frames,
            "certificate": certified,
        }
        print(json.dumps(told))
        return
    table = Table("constant", "value", "one sigma", "", title=f"{certificate.instrument}: certificate in {out}")
    for each in figures(swept, certificate):
        table.add_row(each.name, each.value, each.doubt, each.remark)
    console = Console()
    console.print(table)
    console.print(f"{swept.frames} frames; valid until {certificate.expires}; the start settings are restored")
    if report is not None:
        console.print(f"page: {report / PAGE}", soft_wrap=True)
