"""What `beamside evaluate twin --report DIR` leaves for people: twin.html and its pictures. No script, no address."""

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from agent.commands.canvas import Axes
from agent.commands.outputs import save
from agent.commands.report_html import Drawing, both, bullets, figure, grid, legend, paragraph, section, table, words
from agent.commands.report_twin_scene import PICTURES, SPAN, diverging, pictures, scene

if TYPE_CHECKING:
    from agent.commands.evaluate import Account
    from calibration.evaluate.twin import Comparison, Row
    from calibration.evaluate.twin_summary import Summary

PAGE = "twin.html"
TITLE = "The twin against a Monte Carlo"
STYLE = (
    ".strip{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:12px;margin:10px 0}"
    ".strip img{display:block;width:100%;height:auto;image-rendering:pixelated;border:1px solid var(--rule)}"
    "h3 .soft{font-weight:400;white-space:nowrap}.scene{border-top:1px solid var(--rule);margin-top:28px}"
    ".scene h3{margin-top:14px}.scene .grid{grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr))}"
    "@media (max-width:600px){.strip{grid-template-columns:repeat(2,minmax(0,1fr))}h3 .soft{display:block}}"
)
TARGET, AIM = 0.08, 0.05  # NRMSE in the median
BIN = 0.01  # of the histogram
SIZE = (500.0, 300.0)
MARKED = 0.08  # floors should be within it


class Page:
    """Scenes are drawn as they come; the page is put together at the end, worst first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scenes: list[tuple[float, str]] = []

    def add(self, compared: "Comparison") -> None:
        """Raises OSError when a picture cannot be written."""
        at = self._folder / PICTURES
        at.mkdir(exist_ok=True)
        for end, shown in pictures(compared).items():
            save(shown, at / f"{compared.recording.scene.name}_{end}.png")
        self._scenes.append((compared.error.nrmse, f'<div class="scene">{scene(compared)}</div>'))

    def finish(self, account: "Account") -> None:
        """Raises OSError when the page cannot be written."""
        worst_first = [drawn for _, drawn in sorted(self._scenes, key=lambda each: -each[0])]
        (self._folder / PAGE).write_text(page(account, worst_first), encoding="utf-8")


def page(account: "Account", scenes: list[str]) -> str:
    """scenes: markup, in the order they shall stand in."""
    from calibration.evaluate.twin import Row

    rows = [each for each in account.scenes if isinstance(each, Row)]
    parts = [_heading(account), _failed(account)]
    if account.summary is not None:
        parts += [_overview(account, account.summary, rows), _all(rows), _pictured(scenes)]
    style = resources.files("agent.commands").joinpath("report.css").read_text(encoding="utf-8") + STYLE
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(TITLE)}</title><style>{style}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _heading(account: "Account") -> str:
    lead = (
        "Every scene is rendered from its exact heights and compared with the electrons that were simulated one by "
        "one. Only gain and offset are fitted to a scene."
    )
    facts = f"{account.folder} · emission: {account.profile} · Fano factor {account.fano:g}"
    return f'<header><p class="soft">{words(facts)}</p><h1>{words(TITLE)}</h1>{paragraph(lead, "lead")}</header>'


def _failed(account: "Account") -> str:
    from calibration.evaluate.scenes import Unread

    told = [f"{each.name}: {each.error}" for each in account.scenes if isinstance(each, Unread)]
    return section("failed", "Not evaluated", bullets(told)) if told else ""


# --- overview ---


def _overview(account: "Account", summary: "Summary", rows: "list[Row]") -> str:
    cards = "".join(f'<li><b>{words(a)}</b><span class="soft">{words(b)}</span></li>' for a, b in _cards(summary))
    drawn = grid(_histogram(rows, summary), _floors(rows))
    return section("summary", "In short", f'<ul class="cards">{cards}</ul>', _kinds(summary), drawn, _fano(account))


def _cards(summary: "Summary") -> list[tuple[str, str]]:
    told = [(_percent(summary.nrmse.median), f"NRMSE in the median of {summary.nrmse.n} scenes")]
    if summary.edges is not None:
        edges = summary.edges
        told.append((f"{edges.median_position_error_px:.2f} px", "place of the edges' light, off in the median"))
        told.append((f"{edges.median_height_ratio:.2f}", "height of it, over the Monte Carlo's"))
    if summary.floors is not None:
        floors = summary.floors
        told.append((_percent(floors.rms_without_noise), f"signal of {floors.n} floors, rms off beyond noise"))
    if summary.median_spectrum_db is not None:
        told.append((f"{summary.median_spectrum_db:.1f} dB", "power spectrum, off in the median"))
    return told


def _kinds(summary: "Summary") -> str:
    split = {"fitted to": summary.fitted, "never seen by the fit": summary.unfitted}
    spreads = {"all": summary.nrmse, **{k: s for k, s in split.items() if s is not None}, **summary.by_kind}
    rows = [
        [words(name), words(s.n), _percent(s.median), f"{_percent(s.lower_quartile)} – {_percent(s.upper_quartile)}"]
        for name, s in spreads.items()
    ]
    alone = 'all<span class="soft">only a gain fitted: contrast as the twin has it</span>'
    rows.append([alone, words(summary.nrmse.n), _percent(summary.median_nrmse_gain_only), "–"])
    knows = {"constant": "nothing", "height": "the height map itself", "gradient": "the smoothed slope"}
    for name, what in knows.items():
        told = f'baseline<span class="soft">{words(what)}</span>'
        rows.append([told, words(summary.nrmse.n), _percent(getattr(summary.baselines, name)), "–"])
    caption = (
        "NRMSE: root mean square of twin minus Monte Carlo after a 5x5 box, the electrons' noise taken off, over the "
        "Monte Carlo's range from its 1st to its 99th percentile."
    )
    return table(("Kind", "Scenes", "Median", "Quartiles"), rows, caption=caption)


def _histogram(rows: "list[Row]", summary: "Summary") -> str:
    values = np.array([each.nrmse for each in rows])
    most = max(float(values.max()), summary.baselines.constant, TARGET + BIN)
    count = min(int(np.ceil(most / BIN)) + 1, 100)  # what lies beyond is all alike: useless
    counts, _ = np.histogram(np.minimum(values, (count - 0.5) * BIN), bins=count, range=(0.0, count * BIN))
    top = max(int(counts.max()), 1) * 1.12
    axes = Axes(44, 26, SIZE[0] - 12, SIZE[1] - 44, (0.0, 100.0 * count * BIN), (0.0, top))
    drawing = Drawing(*SIZE, f"Histogram of NRMSE, median {_percent(summary.nrmse.median)}")
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    for i, n in enumerate(counts):
        low, high = axes.x(100.0 * i * BIN) + 1.0, axes.x(100.0 * (i + 1) * BIN) - 1.0
        if n:
            drawing.box((low, axes.y(float(n))), (high, axes.bottom), "f-blue")
    _limits(drawing, axes, summary)
    drawing.text((2, 14), "scenes", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), "NRMSE, %", kind="f-soft", align="end")
    keys = legend(
        ("line", "s-vermillion", f"target for the median: {100 * TARGET:g} %; dashed, aim: {100 * AIM:g} %"),
        ("line", "s-soft", "best baseline, median"),
    )
    return figure(str(drawing) + keys, "How many scenes are met how well.")


def _limits(drawing: Drawing, axes: Axes, summary: "Summary") -> None:
    best = min(summary.baselines.constant, summary.baselines.height, summary.baselines.gradient)
    for value, kind in ((TARGET, "s-vermillion"), (AIM, "s-vermillion dash"), (best, "s-soft")):
        x = axes.x(100.0 * value)
        drawing.line([(x, axes.top), (x, axes.bottom)], kind, 2.0)


def _floors(rows: "list[Row]") -> str:
    known = [floor for each in rows for floor in each.floors]
    if not known:
        return ""
    most = 1.06 * max(max(floor.twin, floor.monte_carlo) for floor in known)
    axes = Axes(44, 26, SIZE[0] - 12, SIZE[1] - 44, (0.0, most), (0.0, most))
    drawing = Drawing(*SIZE, f"Signal of {len(known)} floors, twin against Monte Carlo")
    edge = most / (1.0 + MARKED)
    within = [(0.0, 0.0), (edge, most), (most, most), (most, most * (1.0 - MARKED))]
    drawing.fill([axes.spot(*at) for at in within], "band")
    drawing.scale_y(axes)
    drawing.scale_x(axes)
    for floor in known:
        drawing.mark(axes.spot(floor.monte_carlo, max(floor.twin, 0.0)), "circle", "f-vermillion", 3.5)
    drawing.text((2, 14), "twin, counts", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), "Monte Carlo, counts", kind="f-soft", align="end")
    keys = legend(("circle", "f-vermillion", "a floor"), ("band", "band", f"within {100 * MARKED:g} %"))
    chance = 100.0 * float(np.median([floor.sigma for floor in known]))
    caption = f"Mean signal of each pit, hole and space; chance alone scatters a floor by {chance:.0f} % in the median."
    return figure(str(drawing) + keys, caption)


def _fano(account: "Account") -> str:
    known = account.measured_fano
    if known is None:
        return ""
    told = f"{known.value:.3f} ± {known.sigma:.3f}, from {known.pairs} pairs of pictures of one sample"
    return paragraph(f"Fano factor by this Monte Carlo itself: {told}; used: {account.fano:g}.", "soft")


# --- scenes ---


def _all(rows: "list[Row]") -> str:
    headings = ("Scene", "NRMSE", "Edge, px", "Width, px", "Height", "Floors", "dB", "Gain", "Offset")
    told = [_told(each) for each in sorted(rows, key=lambda each: -each.nrmse)]
    explained = (
        "Below the NRMSE: from where to where chance may have moved it (one sigma). Edge and width: twin minus Monte "
        "Carlo. Height: of the edge's light, twin over Monte Carlo. Floors: median of the errors without sign. "
        "Counts are gain times relative yield, plus offset."
    )
    drawn = table(headings, told, caption="Links lead to the pictures.")
    return section("scenes", "Every scene, worst first", paragraph(explained, "soft"), drawn)


def _told(row: "Row") -> list[str]:
    edges, off = row.edge_peak, [abs(floor.relative_error) for floor in row.floors]
    width = None if edges is None else edges.width_error_px
    return [
        f'<a href="#{quote(row.name)}">{words(row.name)}</a>',
        both(_percent(row.nrmse), f"{100 * row.nrmse_low:.1f}–{100 * row.nrmse_high:.1f}"),
        "–" if edges is None else _signed(edges.position_error_px),
        "–" if width is None else _signed(width),
        "–" if edges is None else f"{edges.height_ratio:.2f}",
        _percent(float(np.median(off))) if off else "–",
        "–" if row.spectrum_db is None else f"{row.spectrum_db:.1f}",
        f"{row.gain:.2f}",
        _signed(row.offset),
    ]


def _pictured(scenes: list[str]) -> str:
    return section("pictures", "Pictures, worst first", _scale(), *scenes)


def _scale() -> str:
    """The colours of all differences."""
    drawing = Drawing(400, 52, "Colours of the differences")
    ramp = np.linspace(-SPAN, SPAN, 61)[None, :].repeat(2, axis=0)
    drawing.image(diverging(ramp), (320, 18), at=(40, 4))
    for share, x in ((-SPAN, 40.0), (0.0, 200.0), (SPAN, 360.0)):
        sign = "+" if share > 0 else "−" if share < 0 else ""
        drawing.text((x, 42), f"{sign}{100 * abs(share):.0f} %", kind="f-soft", align="middle")
    caption = "Differences: blue where the twin is too dark, orange where it is too bright, in percent of the range."
    return figure(str(drawing).replace("role=", 'style="max-width:400px" role=', 1), caption)


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # no minus before nothing
