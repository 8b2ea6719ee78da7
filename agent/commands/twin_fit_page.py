"""What `beamside calibrate twin --report DIR` leaves for people: one page with every frame beside its fit, and what is
known of each constant. Pictures are inline; no script, no address.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.heatmap import coloured, span_of
from agent.commands.plate import told
from agent.commands.report_html import (
    Drawing,
    both,
    bullets,
    document,
    paragraph,
    png,
    section,
    table,
    words,
    write_page,
)
from agent.commands.report_twin import STYLE
from agent.commands.report_twin_scene import BOX_PX, SPAN, diverging

if TYPE_CHECKING:
    from calibration.fit.sample import Sample
    from calibration.twin.profile import FrameFit, Parameter, Profile

Field = NDArray[np.float32]

TITLE = "Fit of the twin to a tool"
NAMES = {
    "emission.exponent": "Yield exponent",
    "emission.steepest": "Steepest slope that counts, 1/cos",
    "emission.side": "Side escape at edges",
    "emission.side_length_m": "Side escape: reach",
    "emission.side_height_m": "Side escape: half-height",
    "emission.swallow": "Swallowed beside walls",
    "emission.swallow_height_m": "Swallowed: half-height",
    "emission.shadow": "Shadow, power of the sky view",
    "emission.floor": "Left of an endless hole",
    "emission.indirect": "Share by backscattered electrons",
    "emission.range_m": "Their range",
    "emission.asymmetry": "Detector asymmetry",
    "probe.sigma_m": "Probe, sigma",
    "probe.stretch_x": "Probe: astigmatism along x",
    "probe.stretch_xy": "Probe: astigmatism along the diagonal",
    "charging.strength": "Charging tail: strength",
    "charging.length_px": "Charging tail: length",
    "amplifier.keep": "Amplifier: kept of the pixel before",
    "noise.factor": "Noise, variance / mean",
}
IN_PERCENT = ("amplifier.keep", "charging.strength", "emission.indirect", "emission.floor")
BAR = (170.0, 26.0)  # px of a constant's drawing
EDGE = 6.0
SHARP = 0.02  # of the bar: thinner doubts are drawn as wide
TAILS = (0.5, 99.5)  # percentiles of a frame that are shown black and white
GEOMETRY = {
    "scene": "heights known exactly",
    "heights": "heights measured",
    "lines": "line-space as assumed",
    "design": "design of the place, as printed",
}


@dataclass(frozen=True)
class Account:
    """All that the page tells. shown: each frame as the twin has it, in its own levels."""

    profile: "Profile"
    samples: "tuple[Sample, ...]"
    shown: tuple[Field, ...]


def write(account: Account, path: Path) -> None:
    """Raises OSError when it cannot be written."""
    write_page(page(account), path)


def page(account: Account) -> str:
    parts = (_heading(account), _summary(account), _constants(account), _frames(account), _pictures(account), _limits())
    return document(f"{TITLE}: {account.profile.instrument}", parts, style=STYLE)


def title_of(name: str) -> str:
    return NAMES.get(name, name.replace(".", ": ").replace("_", " "))


def quantity(name: str, value: float | None, digits: int = 3) -> str:
    """With its unit."""
    if value is None:
        return ""
    scale, unit = 1.0, " px" if name.endswith("_px") else ""
    if name.endswith("_m"):
        scale, unit = 1e9, " nm"
    elif name in IN_PERCENT:
        scale, unit = 100.0, " %"
    shown = value * scale
    told_ = f"{shown:.0f}" if 10.0 ** (digits - 1) <= abs(shown) < 1e6 else f"{shown:.{digits}g}"
    return f"{told_}{unit}".replace("-", "−")


# --- words and tables ---


def _heading(account: Account) -> str:
    profile = account.profile
    when = f"{profile.made} · beamside {profile.version}"
    lead = (
        "The virtual microscope was fitted to the frames below: one set of constants for all, and for each its gain, "
        "offset and, where needed, its place. What the frames do not determine keeps the value it had before."
    )
    about = paragraph(profile.description, "soft")
    title = f"{TITLE}: {profile.instrument}"
    return f'<header><p class="soft">{words(when)}</p><h1>{words(title)}</h1>{about}{paragraph(lead, "lead")}</header>'


def _summary(account: Account) -> str:
    profile = account.profile
    known = sum(each.determined for each in profile.parameters)
    errors = [frame.nrmse for frame in profile.frames]
    cards = (
        (str(len(errors)), "frame" if len(errors) == 1 else "frames"),
        (_percent(float(np.median(errors))), "NRMSE beyond noise, median"),
        (_percent(max(errors)), "NRMSE of the worst frame"),
        (f"{known} of {len(profile.parameters)}", "constants known"),
    )
    shown = "".join(f'<li><b>{words(figure)}</b><span class="soft">{words(what)}</span></li>' for figure, what in cards)
    return section("summary", "In short", f'<ul class="cards">{shown}</ul>')


def _constants(account: Account) -> str:
    rows = [_constant(each) for each in account.profile.parameters]
    caption = (
        "Value with one standard deviation, scaled up by what the twin misses. Bar: what was allowed; blue: one sigma "
        "either side; line: the value; grey diamond: the prior."
    )
    shown = table(("Constant", "Value", "Within its range", "Remark"), rows, caption=caption, left=4)
    pairs = [
        f"{title_of(pair.first)} and {title_of(pair.second)}: correlation {_signed(pair.correlation)}"
        for pair in account.profile.correlated
    ]
    together = paragraph("Told only together, so that one may make up for the other:") + bullets(pairs) if pairs else ""
    return section("constants", "What is known of each constant", shown, together)


def _constant(each: "Parameter") -> list[str]:
    doubt = f"± {quantity(each.name, each.sigma, 2)}" if each.sigma else ""
    value = both(quantity(each.name, each.value), doubt)
    kind = "soft" if each.determined else "warn"
    return [words(title_of(each.name)), value, _bar(each), f'<span class="{kind}">{words(each.note)}</span>']


def _bar(each: "Parameter") -> str:
    at, low, high = _share(each, each.value), 0.0, 1.0
    if each.sigma is not None:
        low, high = (_share(each, each.value + sign * each.sigma) for sign in (-1.0, 1.0))
        low, high = min(low, at - SHARP / 2), max(high, at + SHARP / 2)
    drawing = Drawing(*BAR, f"{title_of(each.name)}: {quantity(each.name, each.value)}")
    middle = BAR[1] / 2
    drawing.box((EDGE, middle - 1.0), (BAR[0] - EDGE, middle + 1.0), "f-soft")
    if each.determined:
        drawing.box((_x(low), middle - 6.0), (_x(high), middle + 6.0), "f-sky")
        drawing.line([(_x(at), middle - 10.0), (_x(at), middle + 10.0)], "s-blue", 2.5)
    drawing.mark((_x(_share(each, each.prior)), middle), "diamond", "f-soft", 4.0)
    return str(drawing)


def _share(each: "Parameter", value: float) -> float:
    """Along the bar; lengths that span decades by their logarithm."""
    low, high = each.low, each.high
    if low > 0.0 and high / low > 10.0:
        low, high, value = np.log(low), np.log(high), np.log(max(value, each.low))
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))


def _x(share: float) -> float:
    return EDGE + share * (BAR[0] - 2.0 * EDGE)


def _frames(account: Account) -> str:
    rows = [_frame(each) for each in account.profile.frames]
    headings = ("Frame", "Geometry", "NRMSE", "Gain", "Offset", "Variance / signal", "Place")
    caption = (
        "Level = gain × relative yield + offset. Variance over signal is gain × (1 + δ + b) of the detector chain."
    )
    return section("frames", "Frame by frame", table(headings, rows, caption=caption, left=2))


def _frame(each: "FrameFit") -> list[str]:
    place = ", ".join(_placed(name, value, each.placed_sigma[name]) for name, value in each.placed.items())
    slope = (
        "one level only" if each.noise_slope_sigma is None else f"{each.noise_slope:.3g} ± {each.noise_slope_sigma:.1g}"
    )
    size = f"{each.shape[1]}x{each.shape[0]} px of {told(each.pixel_size_m)}"
    return [
        both(each.name, size),
        both(GEOMETRY.get(each.geometry, each.geometry), "levels are electrons" if each.counts else "grey levels"),
        words(_percent(each.nrmse)),
        words(f"{each.gain:.4g}"),
        words(f"{each.offset:.4g}".replace("-", "−")),
        words(slope),
        words(place or "as given"),
    ]


def _placed(name: str, value: float, sigma: float) -> str:
    if name.endswith("_rad"):
        return f"{name.removesuffix('_rad')} {np.degrees(value):.2f} ± {np.degrees(sigma):.2f}°".replace("-", "−")
    unit = " px" if name.endswith("_px") else ""
    return f"{name.removesuffix('_px').replace('_', ' ')} {value:.2f} ± {sigma:.2f}{unit}".replace("-", "−")


# --- pictures ---


def _pictures(account: Account) -> str:
    rows = zip(account.profile.frames, account.samples, account.shown, strict=True)
    worst_first = sorted(rows, key=lambda row: -row[0].nrmse)
    span = f"{100 * SPAN:.0f} %"
    scale = (
        f"Difference after a {BOX_PX}x{BOX_PX} box: white where both agree, full blue where the twin is darker by "
        f"{span} of the frame's range or more, full orange where it is brighter. Worst frame first."
    )
    strips = "".join(f'<div class="scene">{_strip(*row)}</div>' for row in worst_first)
    return section("pictures", "Frames and fits", paragraph(scale), strips)


def _strip(frame: "FrameFit", sample: "Sample", shown: Field) -> str:
    low, high = (float(x) for x in np.percentile(sample.levels, TAILS))
    relief = sample.geometry.relief(np.array(list(frame.placed.values())))
    heights = coloured(relief.height_m, span_of(relief.height_m, sample.pixel_size_m))
    tall = float(np.ptp(relief.height_m))
    pictures = (
        (_grey(sample.levels, low, high), f"Frame, {told(sample.levels.shape[1] * sample.pixel_size_m)} wide."),
        (_grey(shown, low, high), "Twin, same grey scale."),
        (diverging(_difference(sample.levels, shown)), "Twin minus frame."),
        (heights, f"Height beneath, {told(tall)} in all." if tall > 0.0 else "Height beneath: flat."),
    )
    figures = "".join(
        f'<figure><img src="{png(pixels)}" alt="{words(caption)}"><figcaption>{words(caption)}</figcaption></figure>'
        for pixels, caption in pictures
    )
    error = f'<span class="soft">NRMSE {_percent(frame.nrmse)}</span>'
    return f'<h3>{words(frame.name)} {error}</h3><div class="strip">{figures}</div>'


def _grey(levels: Field, low: float, high: float) -> NDArray[np.uint8]:
    return np.asarray(np.round(np.clip((levels - low) / max(high - low, 1e-9), 0.0, 1.0) * 255.0), np.uint8)


def _difference(levels: Field, shown: Field) -> NDArray[np.float64]:
    """(h, w) as a share of the range between the 1st and 99th percentile."""
    smooth, boxed = (
        cv2.blur(np.asarray(each, np.float64), (BOX_PX, BOX_PX), borderType=cv2.BORDER_REFLECT)
        for each in (shown - levels, levels)
    )
    low, high = np.percentile(boxed, (1.0, 99.0))
    return np.asarray(smooth / max(float(high - low), 1e-9), np.float64)


def _limits() -> str:
    told_ = (
        "Constants are those of the twin's own formulas: another formula that fits as well would have others.",
        "Doubts are by the curvature at the best fit; a second, quite different solution would not show in them.",
        "An assumed geometry counts as true: a wrong height or side wall goes into the constants.",
        "Where the offset is fitted, side escape, shadow and exponent share one scale with the gain.",
        "Grey levels tell the noise only times the gain; electrons a level must come from elsewhere.",
    )
    return section("limits", "What these numbers do not tell", bullets(told_))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
