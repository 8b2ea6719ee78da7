"""`beamside microscope`: the virtual SEM alone. It binds frames, obeys the agent's suggestions, acknowledges them."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from agent.errors import BeamsideError, UsageError
from agent.settings import endpoints, load

if TYPE_CHECKING:
    from calibration.twin.controller import Controller


def microscope(
    specimen: Annotated[
        str, typer.Option(help="A specimen's name, an image file to be looked at, or a layout (GDSII, OASIS, mask).")
    ] = "tin-balls",
    layout_scale_nm: ScaleOption = None,
    layout_layer: LayerOption = "",
    layout_cell: CellOption = "",
    layout_inverted: InvertedOption = False,
    profile: ProfileOption = None,
    frames: Annotated[str, typer.Option(help="Endpoint to bind; default as `beamside run` connects to.")] = "",
    advice: Annotated[str, typer.Option(help="The agent's advice endpoint.")] = "",
    commands: Annotated[str, typer.Option(help="The agent's command endpoint.")] = "",
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
    certificate: Annotated[Path | None, typer.Option(help="Write this column's certificate here, and go on.")] = None,
    alpha_error: Annotated[
        float, typer.Option(min=-0.9, max=9, help="Relative error of the certificate's angle, on purpose.")
    ] = 0.0,
    duration: Annotated[float, typer.Option(min=0, help="Seconds until it stops; 0 = until interrupted.")] = 0.0,
    frames_count: Annotated[int, typer.Option(min=0, help="Frames until it stops; 0 = until interrupted.")] = 0,
    control: Annotated[bool, typer.Option(help="Ask the agent for control and obey it.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """A virtual scanning electron microscope on the wire."""
    from calibration.twin.controller import Controller
    from calibration.twin.instrument import MicroscopeSettings
    from calibration.twin.link import Link
    from calibration.twin.microscope import VirtualMicroscope

    if bits not in (8, 16):
        raise UsageError(f"--bits {bits}: 8 or 16")
    layout = LayoutOptions(layout_scale_nm, layout_layer, layout_cell, layout_inverted)
    given = profile_settings(profile) | specimen_settings(specimen, layout, pixel_size_m=pixel_size_m)
    given |= {"pixel_size_m": pixel_size_m} if pixel_size_m else {}
    given |= {"drift_px_per_frame": (drift_px, 0.0)} if drift_px is not None else {}
    settings = MicroscopeSettings(
        seed=seed, start_defocus_m=start_defocus_m, snr=snr, bits=bits, databar_rows=databar_rows,
        session=f"microscope-{time.time_ns()}", **given,
    )  # fmt: skip
    with specimen_errors():
        scope = VirtualMicroscope(settings)
    if certificate is not None:
        _certify(scope, certificate, alpha_error)
    wanted = zip((frames, advice, commands), endpoints(load()), strict=True)
    link = Link(*(given_one or default for given_one, default in wanted))
    controller = Controller(link, scope, wants_control=control)
    controller.says = lambda words: print(f"microscope: {words}", file=sys.stderr)
    controller.says(f"{settings.specimen}, frames on {link.frames_endpoint}")
    try:
        _publish(controller, duration_s=duration, count=frames_count)
    finally:
        link.close()
    _tell(controller, as_json)


def _certify(scope: Any, path: Path, alpha_error: float) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scope.certificate(alpha_error=alpha_error).save(path)
    except OSError as error:
        raise BeamsideError(f"cannot write the certificate to {path}: {error.strerror}") from error


def _publish(controller: "Controller", *, duration_s: float, count: int) -> None:
    """Frame after frame; an interrupt or SIGTERM is a normal end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_s = time.monotonic() + duration_s if duration_s else float("inf")
    try:
        while time.monotonic() < end_s and (not count or controller.number < count):
            controller.scan()
    except KeyboardInterrupt:
        controller.says("stopped")


def _tell(controller: "Controller", as_json: bool) -> None:
    scope = controller.scope
    told = {
        "session": scope.session,
        "specimen": scope.settings.specimen,
        "seed": scope.settings.seed,
        "pixel_size_m": scope.settings.pixel_size_m,
        "frames": controller.number,
        "start_defocus_m": scope.drawn.start_defocus_m,
        "residual_m": scope.defocus_m,
        "half_depth_of_focus_m": scope.half_depth_of_focus_m,
        "outcomes": [{"suggestion": number, "outcome": outcome} for number, outcome in controller.outcomes],
    }
    if as_json:
        print(json.dumps(told))
        return
    z_um, start_um = scope.defocus_m * 1e6, scope.drawn.start_defocus_m * 1e6
    print(f"{controller.number} frames; defocus {start_um:+.2f} um -> {z_um:+.2f} um, {len(controller.outcomes)} moves")
