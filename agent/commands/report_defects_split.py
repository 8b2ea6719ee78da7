"""One split of an evaluation on the page: capture, curves, names, counts, families. Markup out."""

from typing import TYPE_CHECKING

from agent.commands.overlay import said
from agent.commands.report_defects_plots import capture_bins, capture_curves
from agent.commands.report_defects_table import RATES, by_words, leaves_of, point_at, sources
from agent.commands.report_html import both, bullets, grid, table, words

if TYPE_CHECKING:
    from calibration.evaluate.defects_account import MethodRow, SetRow, SplitRow
    from calibration.evaluate.defects_points import Point
    from calibration.evaluate.defects_precision import Precision
    from calibration.evaluate.defects_share import AFrame, Share

CAPTURE = (
    "Capture at a rate of false alarms a frame of 512 × 512 px: of the defects that must be found (6 px or half a "
    "pitch, matched-filter SNR 10). Below each share its 95 % interval by specimen (bootstrap), and the share of all "
    "visible ones. “None false”: at the threshold that no clean frame for tuning passes, however few. A dash: "
    "too few clean frames to fix that threshold. Clean layouts are what is inspected; all clean pictures have others "
    "too, such as fibres, balls or noise, in which whatever there is, is no defect."
)
NAMES = (
    "Names are told at the working point. Captured: by any name. Accuracy: of the captured, by the right name. "
    "End to end: of all visible ones, captured and rightly named. Purity: of the finds of this name, those that are "
    "it. Intervals: 95 %, Wilson."
)


def split_parts(split: "SplitRow", each: "SetRow") -> list[str]:
    """Its heading, tables and drawings; where nothing can be seen, capture alone."""
    curves = [curve for curve in each.curves if curve.split == split.name and curve.spots]
    if not split.visible or not curves:
        return [f"<h3>{words(split.name)}</h3>", _capture(split)]
    pictures = [
        capture_curves(curves, split.name),
        capture_bins(split.methods, "by_size", "size, px"),
        capture_bins(split.methods, "by_signal", "matched-filter SNR"),
        capture_bins(split.methods, "by_contrast", "contrast over a pixel's noise"),
    ]
    return [
        f"<h3>{words(split.name)}</h3>",
        _capture(split),
        grid(*filter(None, pictures)),
        _leaves(split),
        _counted(split),
        _kinds(split),
    ]


def _capture(split: "SplitRow") -> str:
    headings = ("Method", "Thresholds by", "0.1", "0.01", "0.001", "None false", "False a clean frame", "mAP at 0.5")
    rows = [
        _capture_row(method, by, first=number == 0)
        for method in split.methods
        for number, by in enumerate(sources(method))
    ]
    return table(headings, rows, caption="Captured at so many false alarms a frame.", left=2)


def _capture_row(each: "MethodRow", by: str, *, first: bool) -> list[str]:
    """first: a method is named once."""
    points = [point_at(each, rate, by) for rate in RATES]
    at = points[0] or point_at(each, 0.0, by)
    return [
        both(each.name, each.note) if first else "",
        f'<span class="badge" style="font-weight:400">{words(by_words(by))}</span>',
        *map(_cell, (*points, point_at(each, 0.0, by))),
        "–" if at is None else _alarms(at.false_alarms),
        "" if each.precision is None or not first else _precision(each.precision),
    ]


def _cell(point: "Point | None") -> str:
    if point is None or point.must is None or point.must.value is None:
        return "–"
    whole = point.captured
    every = "" if whole is None or whole.value is None else f"; all {_percent(whole.value)}"
    return both(f"{_percent(point.must.value)} %", f"{_interval(point.must)}{every}")


def _precision(each: "Precision") -> str:
    return both(f"{each.value:.2f}", f"{each.low:.2f}–{each.high:.2f}; any class {each.any_class:.2f}")


def _interval(share: "Share") -> str:
    if share.specimen_low is None or share.specimen_high is None:
        return ""
    return f"{100 * share.specimen_low:.0f}–{100 * share.specimen_high:.0f}"


def _alarms(told: "AFrame | None") -> str:
    if told is None or told.value is None or told.low is None or told.high is None:
        return "–"
    return both(f"{told.value:.2f}", f"{told.n} in {told.frames:.1f}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _leaves(split: "SplitRow") -> str:
    headings = ("Class", "Captured", "Accuracy", "End to end", "Purity", "Mistaken for")
    rows = [
        [
            words(said(leaf.name)),
            *map(_of, (leaf.captured, leaf.named, leaf.end_to_end, leaf.purity)),
            words(", ".join(map(said, leaf.mistaken_for)) or "–"),
        ]
        for leaf in leaves_of(split)
    ]
    return table(headings, rows, caption="Names.") if rows else ""


def _of(share: "Share") -> str:
    if share.value is None or share.low is None or share.high is None:
        return "–"
    return both(f"{_percent(share.value)} %", f"{share.k} of {share.n}, {100 * share.low:.0f}–{100 * share.high:.0f}")


def _counted(split: "SplitRow") -> str:
    from calibration.evaluate.defects_targets import serving

    served = serving(split)
    if served is None or served.naming is None or served.at is None:
        return ""
    naming = served.naming
    told = [f"Working point of the {served.name}: threshold {naming.threshold:.2f}, {_fixed(served.at)}."]
    if naming.accuracy.value is not None:
        told.append(f"Rightly named: {_percent(naming.accuracy.value)} % of the captured.")
    if naming.count_error is not None and naming.count_share is not None:
        told.append(
            f"Counts are off by {naming.count_error.value:.2f} a picture ({naming.count_error.low:.2f} to "
            f"{naming.count_error.high:.2f}); {100 * naming.count_share:.0f} % of the number of visible "
            "defects was counted."
        )
    if naming.undecided.n:
        told.append(
            f"Pits and particles: {_shared(naming.parted)} rightly parted where it decides; "
            f"{_shared(naming.undecided)} cannot be told apart, it says."
        )
    if naming.automatic is not None:
        told.append(
            f"{100 * naming.automatic:.0f} % of the finds, the surest first, carry a name that is right in 95 of 100."
        )
    return bullets(told)


def _shared(share: "Share") -> str:
    return "none" if share.value is None else f"{_percent(share.value)} % ({share.k} of {share.n})"


def _fixed(point: "Point") -> str:
    rate = f"for {point.rate:g} false alarms a frame" if point.rate else "for no false alarm at all"
    return f"{rate}, by {point.by}"


def _kinds(split: "SplitRow") -> str:
    """Where it finds and where it cries wolf, family by family."""
    from calibration.evaluate.defects_targets import serving

    served = serving(split)
    if served is None or not served.kinds:
        return ""
    rows = [
        [
            both(each.kind.replace("_", " "), "" if each.layout else "no layout: fixes no threshold"),
            _of(each.captured),
            _alarms(each.false_alarms),
        ]
        for each in served.kinds
    ]
    caption = (
        "By family, at the working point: capture of what must be found, false alarms a frame in its clean pictures."
    )
    return table(("Family", "Captured", "False a clean frame"), rows, caption=caption)
