"""What the microscope's maker wrote into a TIFF page -> Optics in SI units, with the rows of the databar.

Tags 34682 (Thermo/FEI), 34118 (Zeiss SmartSEM), 50431 (Tescan). A field that is absent, zero where zero is no
measurement, or of an unknown unit is None. `blanked` and `frozen` are never filled: a saved picture is always frozen.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from agent.messages import Optics

FEI, ZEISS, TESCAN = 34682, 34118, 50431
TESCAN_THUMBNAIL, TESCAN_FIB = 1, 5  # kinds of block
ZEISS_CANVAS_PX = 1024  # SmartSEM gives its pixel size for this width, whatever the stored one
ROUNDED = 0.02  # vendors print two to four digits: a longer number that differs by more is another quantity

UNITS = {
    "m": 1.0,
    "mm": 1e-3,
    "µm": 1e-6,
    "nm": 1e-9,
    "pm": 1e-12,
    "fm": 1e-15,
    "kV": 1e3,
    "V": 1.0,
    "A": 1.0,
    "mA": 1e-3,
    "µA": 1e-6,
    "nA": 1e-9,
    "pA": 1e-12,
    "fA": 1e-15,
    "Mins": 60.0,
    "Secs": 1.0,
    "s": 1.0,
    "ms": 1e-3,
    "µs": 1e-6,
    "ns": 1e-9,
    "°": math.pi / 180,
    "%": 0.01,
}

Shape = tuple[int, int]  # rows, columns as stored, databar included


def optics_of(tag: int, value: object, shape: Shape) -> Optics:
    """Read one vendor tag: tifffile's dict for Thermo and Zeiss, the raw bytes for Tescan."""
    if tag == FEI and isinstance(value, dict):
        return fei(value, shape)
    if tag == ZEISS and isinstance(value, dict):
        return zeiss(value, shape)
    if tag == TESCAN and isinstance(value, bytes):
        return tescan(value, shape)
    return Optics()


# Thermo / FEI: an INI text; SI units and radians throughout.


def fei(ini: Mapping[str, Any], shape: Shape) -> Optics:
    rows, columns = shape
    at = _sections(ini)
    column = "I" if str(at("Beam", "Beam")).startswith("I") else "E"
    beam, scan, detector = f"{column}Beam", f"{column}Scan", str(at("Detectors", "Name") or "")
    # Pixel sizes hold for the resolution they were scanned at, not for a picture scaled or cropped since.
    as_scanned = at("Image", "ResolutionX") in (None, columns)
    width = _positive(at(scan, "HorFieldsize") or at(beam, "HFW")) if as_scanned else None
    canvas = _positive(at("Image", "MagCanvasRealWidth"))
    averaging, count = _fei_averaging(at, scan)
    return Optics(
        source=_source(column == "I", detector),
        averaging=averaging,
        average_count=count,
        working_distance_m=_positive(at(beam, "WD")),
        stigmator_x=_number(at(beam, "StigmatorX")),
        stigmator_y=_number(at(beam, "StigmatorY")),
        pixel_size_m=_positive(at(scan, "PixelWidth")) if as_scanned else None,
        pixel_size_y_m=_positive(at(scan, "PixelHeight")) if as_scanned else None,
        horizontal_field_width_m=width,
        full_width_px=columns if width else None,
        magnification=canvas / width if canvas and width else None,  # as the databar prints it
        magnification_reference_width_m=canvas if width else None,  # one without the other says nothing
        dwell_time_s=_positive(at(scan, "Dwell")),
        frame_time_s=_positive(at(scan, "FrameTime")),
        accelerating_voltage_v=_positive(at(beam, "HV")),
        landing_energy_ev=_positive(at("EBeamDeceleration", "LandingEnergy")) if column == "E" else None,
        beam_current_a=_positive(at(beam, "BeamCurrent")),
        aperture_m=_positive(at(beam, "ApertureDiameter")),
        lens_mode=str(at(beam, "LensMode") or "") or None,
        brightness=_scaled(at(detector, "Brightness"), 0.01),
        contrast=_scaled(at(detector, "Contrast"), 0.01),
        gamma=_positive(at("Image", "DigitalGamma")),
        stage_x_m=_number(at("Stage", "StageX")),
        stage_y_m=_number(at("Stage", "StageY")),
        stage_z_m=_number(at("Stage", "StageZ")),
        stage_rotation_rad=_number(at("Stage", "StageR")),
        stage_tilt_rad=_number(at("Stage", "StageT")),
        beam_shift_x_m=_number(at(beam, "BeamShiftX")),
        beam_shift_y_m=_number(at(beam, "BeamShiftY")),
        scan_rotation_rad=_unsigned_rotation(_number(at(beam, "ScanRotation"))),
        dynamic_focus=_switch(at(beam, "DynamicFocusIsOn")),
        tilt_correction=_switch(at(beam, "TiltCorrectionIsOn")),
        databar_rows=_fei_databar(at("Image", "ResolutionY"), rows) if as_scanned else None,
    )


def _sections(ini: Mapping[str, Any]) -> Any:
    def at(section: str, key: str) -> Any:
        inside = ini.get(section)
        value = inside.get(key) if isinstance(inside, dict) else None
        return None if value == "" else value

    return at


def _fei_averaging(at: Any, scan: str) -> tuple[str | None, int | None]:
    counts = {
        "frame": _count(at("Image", "Integrate")),
        "recursive": _count(at("Image", "Average")),  # xT's "average" weighs the past down, it never forgets it
        "line": _count(at(scan, "LineIntegration")),
    }
    for name, count in counts.items():
        if count and count > 1:
            return name, count
    return ("none", 1) if any(count is not None for count in counts.values()) else (None, None)


def _fei_databar(resolution_y: Any, rows: int) -> int | None:
    scanned = _count(resolution_y)
    return rows - scanned if scanned and rows // 2 < scanned <= rows else None


# Zeiss SmartSEM: name -> (label, value, unit), and a preamble of plain numbers with more digits.


def zeiss(tag: Mapping[str, Any], shape: Shape) -> Optics:
    columns = shape[1]
    ion = str(_text(tag, "dp_fib_imaging")).startswith("FIB")
    stored = re.match(r"\d+", _text(tag, "dp_image_store"))
    width = _zeiss_width(tag) if stored is None or int(stored[0]) == columns else None
    pixel = width / columns if width else None
    averaging, count = _zeiss_averaging(tag)
    seen = Optics(
        source=_source(ion, _text(tag, "dp_detector_channel")),
        averaging=averaging,
        average_count=count,
        pixel_size_m=pixel,
        pixel_size_y_m=pixel,
        horizontal_field_width_m=width,
        full_width_px=columns if width else None,
        magnification=_positive(_si(tag.get("ap_mag"))),
        frame_time_s=_positive(_si(tag.get("ap_frame_time"))),
        stage_x_m=_si(tag.get("ap_stage_at_x")),
        stage_y_m=_si(tag.get("ap_stage_at_y")),
        stage_z_m=_si(tag.get("ap_stage_at_z")),
        stage_rotation_rad=_si(tag.get("ap_stage_at_r")),
        stage_tilt_rad=_si(tag.get("ap_stage_at_t")),
        inverted=_switch(_value(tag, "dp_invert")),
    )
    return seen if ion else _zeiss_electrons(tag, seen)


def _zeiss_electrons(tag: Mapping[str, Any], seen: Optics) -> Optics:
    x, y = _number(_value(tag, "ap_stig_x")), _number(_value(tag, "ap_stig_y"))
    rotated = _switch(_value(tag, "dp_scan_rot"))
    return msgspec.structs.replace(
        seen,
        working_distance_m=_zeiss_finer(tag, 9, _positive(_si(tag.get("ap_wd")))),
        stigmator_x=x,
        stigmator_y=y,
        stigmator_unit="%" if x is not None or y is not None else None,
        accelerating_voltage_v=_positive(_si(tag.get("ap_actualkv"))),
        beam_current_a=_positive(_si(tag.get("ap_iprobe"))),
        aperture_m=_positive(_si(tag.get("ap_aperturesize"))),
        brightness=_si(tag.get("ap_brightness")),
        contrast=_si(tag.get("ap_contrast")),
        beam_shift_x_m=_si(tag.get("ap_beam_offset_x")),
        beam_shift_y_m=_si(tag.get("ap_beam_offset_y")),
        # The angle stands in the file also while the rotation is switched off.
        scan_rotation_rad=0.0 if rotated is False else _unsigned_rotation(_si(tag.get("ap_scanrotation"))),
        dynamic_focus=_switch(_value(tag, "dp_dynfocus")),
        tilt_correction=_switch(_value(tag, "dp_tilt_correction")),
    )


def _zeiss_width(tag: Mapping[str, Any]) -> float | None:
    printed = _positive(_si(tag.get("ap_width")))
    finer = _zeiss_finer(tag, 3, printed / ZEISS_CANVAS_PX if printed else None)
    return finer * ZEISS_CANVAS_PX if finer else None


def _zeiss_finer(tag: Mapping[str, Any], place: int, printed: float | None) -> float | None:
    # The preamble repeats eight numbers for each of four zones; the zone shown is the one that agrees with the text.
    numbers = tag.get("")
    if printed is None or not isinstance(numbers, tuple):
        return printed
    for value in numbers[place:34:8]:
        found = _positive(value)
        if found is not None and abs(found - printed) < ROUNDED * printed:
            return found
    return printed


def _zeiss_averaging(tag: Mapping[str, Any]) -> tuple[str | None, int | None]:
    said = _text(tag, "dp_noise_reduction")
    if not said:
        return None, None
    if said.startswith("Line"):
        return "line", _count(_value(tag, "ap_line_average_count"))
    if said.startswith("Frame Int"):
        return "frame", _count(_value(tag, "ap_frame_int_count"))
    if said.startswith(("Frame", "Continuous")):
        count = _count(_value(tag, "ap_frame_average_count"))
        return ("none", 1) if count == 1 else ("recursive", count)
    return "none", 1  # pixel averaging: a longer dwell


def _si(entry: Any) -> float | None:
    """A SmartSEM entry in SI units: ('WD', 4.5, 'mm') is 0.0045, ('Mag', '4.53 K X') is 4530."""
    if not isinstance(entry, tuple) or len(entry) < 2:
        return None
    if len(entry) == 2 or entry[2] == "X":
        thousands = re.fullmatch(r"\s*([\d.]+)\s*K(\s*X)?\s*", str(entry[1]))
        return float(thousands[1]) * 1e3 if thousands else _number(entry[1])
    scale = UNITS.get(str(entry[2]).replace("μ", "µ"))
    return _scaled(entry[1], scale) if scale else None


def _value(tag: Mapping[str, Any], key: str) -> Any:
    entry = tag.get(key)
    return entry[1] if isinstance(entry, tuple) and len(entry) > 1 else None


def _text(tag: Mapping[str, Any], key: str) -> str:
    value = _value(tag, key)
    return value.strip() if isinstance(value, str) else ""


# Tescan: blocks of (uint32 size, uint16 kind, data), the first often a JPEG thumbnail, the others key=value lines.


def tescan(data: bytes, shape: Shape) -> Optics:
    rows, columns = shape
    said, ion = _tescan_fields(data)
    averaged = _count(said.get("AccFrames"))
    pixel, strip = _positive(said.get("PixelSizeX")), _number(said.get("ImageStripSize"))
    x, y = _number(said.get("StigmatorX")), _number(said.get("StigmatorY"))
    return Optics(
        source=_source(ion, said.get("Detector0") or said.get("Detector") or ""),
        averaging=None if averaged is None else "frame" if averaged > 1 else "none",
        average_count=averaged,
        working_distance_m=_positive(said.get("WD")),
        stigmator_x=x,
        stigmator_y=y,
        stigmator_unit="%" if x is not None or y is not None else None,
        pixel_size_m=pixel,
        pixel_size_y_m=_positive(said.get("PixelSizeY")),
        horizontal_field_width_m=pixel * columns if pixel else None,
        full_width_px=columns if pixel else None,
        magnification=_positive(said.get("Magnification")),
        magnification_reference_width_m=_positive(said.get("MagnificationReference")),
        dwell_time_s=_positive(said.get("DwellTime")),
        accelerating_voltage_v=_positive(said.get("HV") or said.get("AcceleratorVoltage")),
        beam_current_a=_positive(said.get("PredictedBeamCurrent") or said.get("BeamCurrent")),
        lens_mode=said.get("ScanMode") or None,
        gamma=_positive(said.get("LUTGamma")),
        stage_x_m=_number(said.get("StageX")),
        stage_y_m=_number(said.get("StageY")),
        stage_z_m=_number(said.get("StageZ")),
        stage_rotation_rad=_scaled(said.get("StageRotation"), UNITS["°"]),
        stage_tilt_rad=_scaled(said.get("StageTilt"), UNITS["°"]),
        beam_shift_x_m=_number(said.get("ImageShiftX")),
        beam_shift_y_m=_number(said.get("ImageShiftY")),
        scan_rotation_rad=_unsigned_rotation(_number(said.get("ScanRotation"))),
        databar_rows=int(strip) if strip is not None and 0 <= strip < rows // 2 else None,
    )


def _tescan_fields(data: bytes) -> tuple[dict[str, str], bool]:
    blocks = list(_tescan_blocks(data)) or [(0, data)]  # no chain of blocks: search the whole of it
    ion = any(kind == TESCAN_FIB for kind, _ in blocks)
    said: dict[str, str] = {}
    for kind, block in blocks:
        if kind != TESCAN_THUMBNAIL:
            # A block's head ends in a zero byte, so a key is always at the start of a line or after a zero.
            for key, value in re.findall(rb"(?:^|[\0\r\n])([A-Za-z]\w*)=([^\0\r\n]*)", block):
                said.setdefault(key.decode("ascii", "replace"), value.decode("utf-8", "replace").strip())
    return said, ion


def _tescan_blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The chain of blocks, or nothing at all where the sizes do not lead to the end."""
    found, place = [], 0
    while place + 6 <= len(data):
        size, kind = struct.unpack_from("<IH", data, place)
        if size < 2 or place + 4 + size > len(data):
            return
        found.append((kind, data[place + 6 : place + 4 + size]))
        place += 4 + size
    if any(b"PixelSizeX=" in block for _, block in found):
        yield from found


# Values


def _source(ion: bool, detector: str) -> str:
    name = detector.strip()
    return f"{'ion' if ion else 'electron'}/{name}" if name else ("ion" if ion else "electron")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _scaled(value: Any, scale: float) -> float | None:
    number = _number(value)
    return number * scale if number is not None else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number > 0 and number == int(number) else None


def _switch(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    said = str(value).strip().lower()
    return True if said in ("yes", "on", "true") else False if said in ("no", "off", "false") else None


def _unsigned_rotation(angle: float | None) -> float | None:
    # No maker's sample here fixes which way a positive angle turns: only "not rotated" is certain.
    return 0.0 if angle == 0 else None
