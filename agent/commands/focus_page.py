"""What `beamside evaluate focus --report DIR` leaves for people: focus.html, on its own, no script, no address."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from agent.commands.focus_account import Account, FaultRow, Stratum
from agent.commands.focus_plots import coverage, frames, residuals
from agent.commands.focus_table import abstentions, circumstances, counted, percent, reasons
from agent.commands.report_html import both, bullets, grid, paragraph, section, table, words

if TYPE_CHECKING:
    from calibration.evaluate.focus_figures import Figures, Share, Spread
    from calibration.evaluate.focus_rows import Row
    from calibration.evaluate.focus_targets import Target

TITLE = "The focus loop on the virtual microscope"
STYLE = "td,th{padding-right:12px}.wide table{min-width:720px}td .soft{white-space:nowrap}"
HEADINGS = (
    "", "n", "Converged", "Within h", "Left, h", "Frames", "False", "Worse", "Wrong moves", "68 %", "95 %",
)  # fmt: skip
CAPTION = (
    "Left: distance from focus at the end in half depths of focus, median and below it the 95th percentile, all ends "
    "together. Frames: as evidence, of those that converged. False: of those that said `converged`, defocus or "
    "astigmatism above 1 h. Worse: by more than 0.25 h than if nobody had done anything. Wrong moves: episodes with a "
    "correction that ended more than 0.25 h further away. 68 % and 95 %: estimates with the truth within their "
    "interval. Below each share its 95 % interval (Wilson)."
)


def page(account: Account, rows: "Sequence[Row]") -> str:
    """rows: the agent's."""
    parts = (
        _heading(account),
        _short(account),
        _drawn(rows),
        _targets(account.targets),
        _methods(account),
        _strata(account.strata),
        _faults(account.faults),
        _how(account),
    )
    style = resources.files("agent.commands").joinpath("report.css").read_text(encoding="utf-8") + STYLE
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(TITLE)}</title><style>{style}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>{"".join(parts)}</main></body></html>\n'


def _heading(account: Account) -> str:
    lead = (
        "Each episode is a fresh virtual column and specimen, out of focus. The agent is shown frames, asks for moves, "
        "and says when it is done or cannot tell; the truth is read from the microscope afterwards."
    )
    facts = f"{account.machine.date} · seed {account.asked.seed} · {account.done} episodes"
    return f'<header><p class="soft">{words(facts)}</p><h1>{words(TITLE)}</h1>{paragraph(lead, "lead")}</header>'


def _short(account: Account) -> str:
    own = account.methods[0]
    if own.figures is None or own.figures.n == 0:
        return section("short", "In short", paragraph("No episode was finished."))
    told = own.figures
    met = [each for each in account.targets if each.met]
    known = [each for each in account.targets if each.met is not None]
    cards = (
        (counted(told.within_h), "episodes ended within 1 h"),
        (_number(told.residual_converged_h), "h left, median of the converged"),
        (_number(told.frames, 0), "frames to focus, median"),
        (counted(told.false_converged), "false among those that converged"),
        (counted(told.worse), "ended worse than they began"),
        (f"{len(met)} of {len(known)}", "targets met"),
    )
    drawn = "".join(f'<li><b>{words(a)}</b><span class="soft">{words(b)}</span></li>' for a, b in cards)
    return section("short", "In short", f'<ul class="cards">{drawn}</ul>')


def _drawn(rows: "Sequence[Row]") -> str:
    textured = [row for row in rows if row.textured]
    if not textured:
        return ""
    return section("drawn", "Where they ended", grid(residuals(textured), frames(textured), coverage(rows)))


def _targets(targets: "Sequence[Target]") -> str:
    rows = [
        [
            words(each.name) + (f'<span class="soft">{words(each.note)}</span>' if each.note else ""),
            _plainly(each.asked),
            _plainly(each.measured or "–"),
            _verdict(each),
            words(each.n),
        ]
        for each in targets
    ]
    caption = (
        "Met or missed by the measured value itself, and by how much; shares with their 95 % interval. The time is the "
        "processor's, on one thread."
    )
    return section("targets", "Targets", table(("Target", "Asked", "Measured", "", "n"), rows, caption=caption))


def _plainly(told: str) -> str:
    """Signs as people write them, on one line."""
    signs = told.replace("<=", "≤").replace(">=", "≥").replace("-", "–")
    return f'<span class="badge" style="font-weight:400">{words(signs)}</span>'


def _verdict(target: "Target") -> str:
    if target.met is None:
        return "–"
    kind, said = ("good", "met") if target.met else ("bad", "missed")
    return f'<span class="badge {kind}">{said}</span><span class="soft">by {words(target.by)}</span>'


def _methods(account: Account) -> str:
    rows = [_row(each.name, each.figures, each.note) for each in account.methods]
    return section("methods", "Methods", table(HEADINGS, rows, caption=CAPTION), bullets(abstentions(account)))


def _strata(strata: Sequence[Stratum]) -> str:
    names = {
        "start": "By defocus at the start",
        "snr": "By signal-to-noise ratio",
        "astigmatism": "By astigmatism at the start",
        "pixel": "By pixel size",
        "specimen": "By specimen",
    }
    parts = []
    for by, title in names.items():
        rows = [_row(each.name, each.figures) for each in strata if each.by == by]
        if rows:
            which = "All episodes." if by == "specimen" else "Textured specimens."
            parts += [f"<h3>{words(title)}</h3>", table(HEADINGS, rows, caption=which)]
    return section("strata", "The agent, stratum by stratum", *parts) if parts else ""


def _row(name: str, told: "Figures | None", note: str = "") -> list[str]:
    if told is None:
        return [f'{words(name)}<span class="soft">{words(note)}</span>', *["–"] * (len(HEADINGS) - 1)]
    shares = (told.false_converged, told.worse, told.wrong_moves, told.defocus.within_68, told.defocus.within_95)
    return [
        words(name),
        words(told.n),
        _share(told.converged),
        _share(told.within_h),
        _spread(told.residual_h, 2),
        _spread(told.frames, 0),
        *map(_share, shares),
    ]


def _faults(faults: Sequence[FaultRow]) -> str:
    if not faults:
        return ""
    headings = ("Fault", "n", "Converged", "Held", "Within h", "False", "Worse", "Why it did not converge")
    rows = [
        [
            both(each.name, each.what) if each.what else words(each.name),
            words(each.figures.n),
            *map(
                _share,
                (
                    each.figures.converged, each.figures.held, each.figures.within_h, each.figures.false_converged,
                    each.figures.worse,
                ),
            ),
            words(reasons(each.figures.reasons)),
        ]
        for each in faults
    ]  # fmt: skip
    caption = (
        "The same specimens for every fault, starts within 30 h. Worse: by more than 0.25 h than if nobody had done "
        "anything; where the stage moved, than at the new site. To hold is the right end where frames are no evidence."
    )
    return section("faults", "When something is wrong", table(headings, rows, caption=caption))


def _how(account: Account) -> str:
    told = [*circumstances(account), *CAVEATS]
    return section("how", "How it was measured", bullets(told))


CAVEATS = (
    "h is the half depth of focus: the defocus that blurs by one pixel or by the focused probe, whichever is wider.",
    "Drawn for each episode: start within 100 h and within 2 % of the working distance, in four strata and both signs; "
    "astigmatism to 3 h, half of the columns within 0.5 h; signal-to-noise 0.64, 1.3, 1.8 or 4 a pixel; pixels of 2 to "
    "100 nm; semi-convergence angles of 2 to 10 mrad, certified to 2 %; 1 to 20 kV; drift to 2 pixels a frame; play of "
    "the lens to 0.5 h; jitter, hum, lag, charging and contamination.",
    "Estimates of one episode share frames: the intervals of their shares are a little too narrow.",
    "All of it is a virtual microscope. A real column brings what nobody has drawn.",
)


def _share(known: "Share") -> str:
    if known.value is None or known.low is None or known.high is None:
        return "–"
    return both(f"{percent(known)} %", f"{100 * known.low:.0f}–{100 * known.high:.0f}")


def _spread(known: "Spread | None", decimals: int) -> str:
    return "–" if known is None else both(f"{known.median:.{decimals}f}", f"{known.p95:.{decimals}f}")


def _number(known: "Spread | None", decimals: int = 2) -> str:
    return "–" if known is None else f"{known.median:.{decimals}f}"
