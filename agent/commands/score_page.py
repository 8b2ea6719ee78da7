"""What `beamside evaluate score --report DIR` leaves for people: score.html, on its own, no script, no address."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.report_html import both, bullets, document, figure, grid, paragraph, section, table, words
from agent.commands.score_account import OWN, RMSE, Account, Target, verdict
from agent.commands.score_plots import by_magnification, scatter
from agent.commands.score_table import lines, sentences

if TYPE_CHECKING:
    from calibration.evaluate.score_cells import Measured
    from calibration.evaluate.score_figures import Figures, Row, Total

TITLE = "The focus score on what it has not seen"
STYLE = (
    ".s-green{stroke:var(--green)}.f-green{fill:var(--green)}td .soft{white-space:nowrap}"
    ".grid{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}"
)
LEAD = (
    "Each reader learns the score from pictures of the virtual microscope, with one kind of specimen or one "
    "magnification left out, and is then asked about what was left out. 0 is noise, white or black, 1 just "
    "recognisable, 10 perfect."
)
WAYS = {"specimen": "One specimen left out", "magnification": "One magnification left out"}
FOLDS = (
    "Root mean square error in points of 0..10; below it the 95 % interval, scenes drawn again. “as shipped” has seen "
    "every specimen and magnification and is there to compare with."
)
TOTALS = (
    "Over the folds that a reader has finished, and on the right over those that every taught reader has finished. "
    "Spearman: of the score with −|z|/h, pictures with |z| above h and something to see."
)


def page(account: Account, measured: "Measured") -> str:
    parts = (
        _heading(account),
        _short(account),
        _targets(account.targets),
        _totals(account.totals),
        _magnifications(account),
        *(_folds(account, measured, by) for by in WAYS),
        _how(account),
    )
    return document(TITLE, parts, style=STYLE)


def _heading(account: Account) -> str:
    facts = f"{account.date} · seed {account.asked.seed} · {account.drawn} pictures"
    return f'<header><p class="soft">{words(facts)}</p><h1>{words(TITLE)}</h1>{paragraph(LEAD, "lead")}</header>'


def _short(account: Account) -> str:
    own = [each for each in account.totals if each.reader == OWN]
    cards = [
        (_rmse(each.finished), f"{each.by}s left out: RMSE, {each.folds} of {each.of} folds finished") for each in own
    ]
    cards.append((f"{account.cells - len(account.unfinished)} of {account.cells}", "cells finished"))
    drawn = "".join(f'<li><b>{words(a)}</b><span class="soft">{words(b)}</span></li>' for a, b in cards)
    undone = [line for line in sentences(account) if "not finished" in line or "were drawn" in line]
    return section("short", "In short", f'<ul class="cards">{drawn}</ul>', *(paragraph(line) for line in undone))


def _targets(targets: Sequence[Target]) -> str:
    rows = [
        [
            words(each.name.replace("-|", "−|")),
            words(each.asked.replace("<=", "≤").replace(">=", "≥")),
            "–" if each.measured is None else f"{each.measured:.2f}",
            _verdict(each),
            words(each.n),
        ]
        for each in targets
    ]
    caption = f"{OWN}, over the folds that are finished."
    return section("targets", "Targets", table(("Target", "Asked", "Measured", "", "n"), rows, caption=caption))


def _verdict(target: Target) -> str:
    kind = {True: "good", False: "bad", None: "soft"}[target.met]
    return f'<span class="badge {kind}">{words(verdict(target))}</span>'


def _totals(totals: "Sequence[Total]") -> str:
    parts = []
    headings = ("Reader", "Folds", "n", "RMSE", "Bias", "Spearman", "Folds of all", "RMSE there")
    for by, title in WAYS.items():
        rows = [_total(each) for each in totals if each.by == by]
        if rows:
            parts += [f"<h3>{words(title)}</h3>", table(headings, rows, caption=TOTALS)]
    return section("readers", "Readers", *parts) if parts else ""


def _total(total: "Total") -> list[str]:
    told, folds = total.finished, f"{total.folds} of {total.of}"
    if told is None:
        return [words(total.reader), folds, *["–"] * 6]
    return [
        words(total.reader),
        folds,
        words(told.n),
        _with_interval(told),
        f"{told.bias:+.2f}".replace("-", "−"),
        _ranked(told),
        words(total.shared_folds),
        "–" if total.shared is None else _with_interval(total.shared),
    ]


def _magnifications(account: Account) -> str:
    if not account.by_magnification:
        return ""
    names = {each.reader: _named(each) for each in account.totals if each.by == "specimen"}
    drawn = by_magnification(account.by_magnification, names, limit=RMSE)
    return section("by-magnification", "By magnification", drawn)


def _named(total: "Total") -> str:
    return total.reader if total.folds == total.of else f"{total.reader} ({total.folds} of {total.of} folds)"


def _folds(account: Account, measured: "Measured", by: str) -> str:
    known = [row for row in account.rows if row.by == by]
    if not known:
        return ""
    readers = list(dict.fromkeys(row.reader for row in known))
    body = [
        [words(fold), _count(line), *(_cell(line[reader]) for reader in readers)]
        for (_, fold), line in lines(known).items()
    ]
    drawn = table(("Left out", "n", *readers), body, caption=FOLDS)
    return section(by, WAYS[by], drawn, _scatters(measured, by))


def _count(line: "dict[str, Row]") -> str:
    return next((words(row.figures.n) for row in line.values() if row.figures is not None), "–")


def _cell(row: "Row") -> str:
    return '<span class="soft">not finished</span>' if row.figures is None else _with_interval(row.figures)


def _scatters(measured: "Measured", by: str) -> str:
    """Ours, a drawing a fold."""
    from calibration.evaluate.score_figures import figures

    samples = measured.samples
    if samples is None:
        return ""
    drawn = [
        scatter(cell, samples, figures(samples, cell.fold.asked, cell.said))
        for cell in measured.cells
        if cell.fold.by == by and cell.reader == OWN and cell.said is not None
    ]
    if not drawn:
        return figure("", f"No fold of {OWN} is finished.")
    return f"<h3>{words(OWN)}: said against label, fold by fold</h3>{grid(*drawn)}"


def _how(account: Account) -> str:
    from calibration.evaluate.score_learn import COARSE_EPOCHS, EPOCHS

    told = (
        *sentences(account),
        f"Networks learn by the same loss (score, blur, content) for {EPOCHS} passes, {COARSE_EPOCHS} on quarters of "
        "the pictures, from nothing: shorter than the shipped model's training. One processor thread each.",
        "Sharpness measures are mapped to the score by the best monotone curve for each magnification, fitted to the "
        "pictures that may be learnt from; where a magnification is left out, the mean of its neighbours' curves.",
        "Kinds of specimen in equal parts; pictures of nothing are learnt from and never asked. Pixel sizes, angles, "
        "voltages, doses, charging, jitter and exposure are drawn anew for each, as in the shipped model's training.",
        f"Took {account.took_s / 60.0:.1f} min at a load of {account.load:.1f}, earlier runs not counted.",
        "All of it is a virtual microscope. A real column brings what nobody has drawn.",
    )
    return section("how", "How it was measured", bullets(told))


def _rmse(told: "Figures | None") -> str:
    return "–" if told is None else f"{told.rmse:.2f}"


def _with_interval(told: "Figures") -> str:
    return both(f"{told.rmse:.2f}", f"{told.rmse_low:.2f}–{told.rmse_high:.2f}")


def _ranked(told: "Figures") -> str:
    if told.spearman is None or told.spearman_low is None or told.spearman_high is None:
        return "–"
    return both(f"{told.spearman:.3f}", f"{told.spearman_low:.2f}–{told.spearman_high:.2f}")
