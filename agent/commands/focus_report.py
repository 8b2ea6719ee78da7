"""What `beamside focus --report DIR` leaves for people: likelihood, through-focus curve and patches, on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import Axes
from agent.commands.report_html import (
    Drawing,
    document,
    figure,
    grid,
    legend,
    paragraph,
    section,
    table,
    words,
    write_page,
)
from agent.control.estimate import Estimate
from agent.control.spectra import PATCH_PX
from agent.control.surface import PatchAnswer, Surface

PAGE = "focus.html"
SIZE, SQUARE = (500.0, 320.0), (430.0, 430.0)
MARGINS = (64.0, 32.0, 16.0, 46.0)  # left, top, right, bottom
UM = 1e6
DEEPEST = -60.0  # nats shown below the best
SIGMA_LEVELS = ((-0.5, "1"), (-2.0, "2"))  # of a Gaussian: nats below the best at so many sigmas
SHOWN_PX = 420  # longer side of the field
OUTLYING_SIGMAS = 3.0


@dataclass(frozen=True)
class Account:
    """All that the page tells. first: the first frame's picture."""

    found: Estimate  # of the first frame
    surface: Surface | None
    paths: tuple[Path, ...]
    working_distances_m: tuple[float, ...]
    first: NDArray[Any]  # (h, w)


def write(account: Account, path: Path) -> None:
    """Whole or not at all. Raises OSError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(page(account), path)


def page(account: Account) -> str:
    parts = [_heading(account), _frames(account)]
    if account.surface is not None:
        likelihood = grid(_along(account, account.surface), _astigmatism(account, account.surface))
        fields = grid(_through(account, account.surface), _field(account, account.surface))
        parts += [section("likelihood", "How sure", likelihood), section("frames-seen", "Frame by frame", fields)]
    return document("Focus of a series", parts)


def _heading(account: Account) -> str:
    found = account.found
    if found.defocus_m is None or found.sigma_m is None or not found.answered:
        title, lead = f"No answer: {found.reason}", "The frames do not tell where focus is; what they tell is below."
    else:
        title = f"Defocus {_signed(found.defocus_m)} ± {found.sigma_m * UM:.2f} µm"
        lead = f"Of the first frame; positive: focused below the surface. In focus at {_focus_mm(found)} mm."
    return f"<header><h1>{words(title)}</h1>{paragraph(lead, 'lead')}</header>"


def _focus_mm(found: Estimate) -> str:
    return f"{1e3 * (found.in_focus_working_distance_m or 0.0):.4f}"


def _frames(account: Account) -> str:
    known = account.surface
    rows = []
    for index, (path, distance) in enumerate(zip(account.paths, account.working_distances_m, strict=True)):
        answer = "" if known is None else words(_signed(float(known.frames_m[index])))
        left = "" if known is None else words(f"{100.0 * float(known.passed[index]):.0f} %")
        rows.append([words(f"{index + 1}. {path.name}"), words(f"{1e3 * distance:.4f}"), answer, left])
    rows += _facts(account.found)
    headings = ("Frame", "Working distance, mm", "Defocus by the answer, µm", "Signal left")
    caption = (
        "Signal left: the share of the specimen's power that is heard in the frame, of what all frames show of it."
    )
    return section("series", "The series", table(headings, rows, caption=caption))


def _facts(found: Estimate) -> list[list[str]]:
    if found.astigmatism_m is None or found.half_depth_of_focus_m is None:
        return []
    ax, ay = (_signed(each) for each in found.astigmatism_m)
    sigma = (found.sigma_astigmatism_m or 0.0) * UM
    facts = [
        [words("astigmatism x, y, µm"), "", words(f"{ax}, {ay} ± {sigma:.2f}"), ""],
        [words("half depth of focus, µm"), "", words(f"{found.half_depth_of_focus_m * UM:.2f}"), ""],
        [words("convergence angle, mrad"), "", words(f"{1e3 * (found.alpha_rad or 0.0):.2f}"), ""],
    ]
    if found.slope is not None:
        facts.append([words("surface rises towards x, y"), "", words(", ".join(_degrees(s) for s in found.slope)), ""])
    return facts


def _degrees(slope: float) -> str:
    return f"{np.degrees(np.arctan(slope)):+.1f}°".replace("-", "−")


def _axes(size: tuple[float, float], x: tuple[float, float], y: tuple[float, float]) -> Axes:
    left, top, right, bottom = MARGINS
    return Axes(left, top, size[0] - right, size[1] - bottom, x, y)


def _named(drawing: Drawing, axes: Axes, x: str, y: str) -> None:
    drawing.text((2, 14), y, kind="f-soft")
    drawing.text((axes.right, drawing.height - 6), x, kind="f-soft", align="end")


def _along(account: Account, known: Surface) -> str:
    """Log likelihood over the defocus of the first frame."""
    x = known.defocus_m * UM
    drawing = Drawing(*SIZE, "Log likelihood over defocus")
    axes = _axes(SIZE, (float(x[0]), float(x[-1])), (DEEPEST, 3.0))
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    found = account.found
    if found.defocus_m is not None and found.sigma_m is not None:
        ends = [float(np.clip((found.defocus_m + side * found.sigma_m) * UM, *axes.x_range)) for side in (-1, 1)]
        drawing.box((axes.x(ends[0]), axes.top), (axes.x(ends[1]), axes.bottom), "band")
    spots = zip(x, np.maximum(known.nats, DEEPEST), strict=True)
    drawing.line([axes.spot(float(a), float(b)) for a, b in spots], "s-blue", 2.5)
    _named(drawing, axes, "defocus of the first frame, µm", "ln likelihood, best = 0")
    keys = legend(
        ("line", "s-blue", "all else at its best"), ("band", "band", "one sigma, doubts of the model included")
    )
    caption = f"A second summit would be another answer. Less than {DEEPEST:g} is drawn at the bottom."
    return figure(str(drawing) + keys, caption)


def _astigmatism(account: Account, known: Surface) -> str:
    """Likelihood over both components, brighter = likelier."""
    span = float(known.astigmatism_m[-1]) * UM
    drawing = Drawing(*SQUARE, "Likelihood over astigmatism")
    axes = _axes(SQUARE, (-span, span), (span, -span))
    shade = np.exp(np.maximum(known.astigmatism_nats, DEEPEST) / 8.0)
    colours = cv2.applyColorMap(np.asarray(255 * shade, np.uint8), cv2.COLORMAP_CIVIDIS)
    large = np.asarray(cv2.resize(colours, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC), np.uint8)
    drawing.image(large, (axes.right - axes.left, axes.bottom - axes.top), at=(axes.left, axes.top))
    drawing.scale_x(axes)
    drawing.scale_y(axes)
    if account.found.astigmatism_m is not None:
        ax, ay = (float(np.clip(each * UM, -span, span)) for each in account.found.astigmatism_m)
        drawing.mark(axes.spot(ax, ay), "diamond", "f-vermillion", 7.0)
    _named(drawing, axes, "astigmatism x, µm", "astigmatism y, µm")
    return figure(
        str(drawing),
        "Brighter is likelier, at the best defocus; the mark is the answer. A ridge is what lines leave open.",
    )


def _through(account: Account, known: Surface) -> str:
    """Signal left in each frame over its defocus, and what the answer expects."""
    x = known.through_m * UM
    top = 1.1 * max(float(known.expected.max()), float(known.passed.max()), 1e-3) * 100.0
    drawing = Drawing(*SIZE, "Signal left in each frame over its defocus")
    axes = _axes(SIZE, (float(x[0]), float(x[-1])), (0.0, top))
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    curve = zip(x, 100.0 * known.expected, strict=True)
    drawing.line([axes.spot(float(a), float(b)) for a, b in curve], "s-soft dash", 2.0)
    for number, (at, left) in enumerate(zip(known.frames_m, known.passed, strict=True), 1):
        spot = axes.spot(float(at) * UM, float(np.clip(100.0 * left, 0.0, top)))
        drawing.mark(spot, "circle", "f-blue", 6.0)
        drawing.text((spot[0] + 9, spot[1] - 6), str(number), kind="f-soft")
    _named(drawing, axes, "defocus by the answer, µm", "signal left, %")
    keys = legend(("circle", "f-blue", "frames, by their number"), ("dashed", "s-soft", "as the answer has it"))
    return figure(str(drawing) + keys, "Frames far off the curve are not what their settings say.")


def _field(account: Account, known: Surface) -> str:
    """What each patch says by itself, over the first frame."""
    height, width = account.first.shape[:2]
    scale = SHOWN_PX / max(height, width)
    shown = cv2.resize(_grey(account.first), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    drawing = Drawing(float(shown.shape[1]), float(shown.shape[0]), "Patches of the field and their own defocus")
    drawing.picture(np.asarray(shown, np.uint8))
    for each in known.patches:
        _patch(drawing, each, _off(each, known), (scale, width, height))
    return figure(str(drawing), _of_patches(known))


def _of_patches(known: Surface) -> str:
    told = [each for each in known.patches if each.defocus_m is not None]
    left = sum(not each.used for each in known.patches)
    tilted = any(known.slope_m_per_px)
    whole = "than the centre of the field, which is tilted" if tilted else "than the whole field"
    against = "the tilted plane" if tilted else "it"
    out = f" Crossed: {left} that did not go with the others and were left out." if left else ""
    return (
        f"{len(told)} of {len(known.patches)} patches of {PATCH_PX} px say something by themselves: how much further "
        f"from focus {whole}, µm. Red ones disagree with {against} by more than three sigmas.{out}"
    )


def _off(each: PatchAnswer, known: Surface) -> tuple[float, bool] | None:
    """How far a patch is from the centre's focus, and whether the answer has it there; None: it says nothing."""
    if each.defocus_m is None or each.sigma_m is None:
        return None
    off = each.defocus_m - float(known.frames_m[-1])
    plane = float(np.dot(known.slope_m_per_px, each.centre_px))
    return off, abs(off - plane) <= OUTLYING_SIGMAS * each.sigma_m


def _patch(drawing: Drawing, each: PatchAnswer, told: tuple[float, bool] | None, frame: tuple[float, int, int]) -> None:
    scale, width, height = frame
    x, y = (each.centre_px[0] + width / 2) * scale, (each.centre_px[1] + height / 2) * scale
    if not each.used:
        for side in (-1.0, 1.0):
            drawing.line([(x - 9, y - 9 * side), (x + 9, y + 9 * side)], "s-vermillion", 3.0)
    elif told is None:
        drawing.mark((x, y), "circle", "f-soft", 4.0)
    else:
        drawing.box((x - 34, y - 13), (x + 34, y + 9), "f-paper")
        drawing.text((x, y + 4), _signed(told[0]), kind="f-blue" if told[1] else "f-vermillion", align="middle")


def _grey(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, (0.5, 99.5))
    level = (pixels.astype(np.float32) - low) / max(float(high - low), 1e-6)
    return np.asarray(255 * np.clip(level, 0, 1), np.uint8)


def _signed(metres: float) -> str:
    return f"{metres * UM:+.2f}".replace("-", "−")
