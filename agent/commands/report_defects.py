"""What `beamside evaluate defects --report DIR` leaves for people: defects.html, on its own, no script, no address."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.report_defects_split import CAPTURE, NAMES, split_parts
from agent.commands.report_defects_table import sentences
from agent.commands.report_defects_worst import Worst, drawn, false_alarms, misses, worst_first
from agent.commands.report_html import both, bullets, document, grid, legend, paragraph, section, table, words

if TYPE_CHECKING:
    from agent.commands.evaluate_defects import Account
    from calibration.evaluate.defects_account import SetRow, Target
    from calibration.evaluate.defects_latency import Latency
    from calibration.evaluate.defects_run import Ran

TITLE = "Defects: found, named and counted"
STYLE = "td,th{padding-right:12px}.wide table{min-width:720px}td .soft{white-space:nowrap}"
LEAD = (
    "Pictures with known defects were shown to the models that serve. A find counts where its centre lies in the true "
    "box, grown by 4 px; of what nobody can see, nothing is asked. Thresholds come from frames without a defect that "
    "are used for nothing else."
)


def page(account: "Account", ran: "Sequence[Ran]") -> str:
    """ran: the outcomes behind the account, in its order; its pictures are read once more for those that are shown."""
    evaluation = account.evaluation
    parts = [_heading(account), _targets(evaluation.targets)]
    for number, (each, run) in enumerate(zip(evaluation.sets, ran, strict=True), 1):
        parts.append(_set(number, each, run))
    parts += [
        _unknown(account),
        _times(evaluation.latency),
        section("how", "How it was measured", bullets(sentences(account))),
    ]
    return document(TITLE, parts, style=STYLE)


def _heading(account: "Account") -> str:
    facts = f"{account.machine.date} · {', '.join(account.evaluation.models)}"
    return f'<header><p class="soft">{words(facts)}</p><h1>{words(TITLE)}</h1>{paragraph(LEAD, "lead")}</header>'


def _targets(targets: "Sequence[Target]") -> str:
    rows = [
        [words(_signs(t.name)), words(_signs(t.asked)), words(_signs(t.measured)), _verdict(t), words(t.n)]
        for t in targets
    ]
    caption = "Met or missed by the measured value itself; n: defects or frames behind it."
    return section("targets", "Targets", table(("Target", "Asked", "Measured", "", "n"), rows, caption=caption, left=4))


def _signs(told: str) -> str:
    return told.replace("<=", "≤").replace(">=", "≥")


def _verdict(target: "Target") -> str:
    if target.met is None:
        return "–"
    kind, told = ("good", "met") if target.met else ("bad", "missed")
    return f'<span class="badge {kind}">{told}</span>'


# --- one set ---


def _set(number: int, each: "SetRow", run: "Ran") -> str:
    name = each.folder.rstrip("/").rpartition("/")[2]
    kinds = {"dataset": "drawn by the virtual microscope", "scenes": "another simulator", "boxes": "real pictures"}
    parts = [_shown(each), paragraph(CAPTURE, "soft"), paragraph(NAMES, "soft")]
    for split in each.splits:
        parts += split_parts(split, each)
    parts += _worst(each, run)
    return section(f"set-{number}", f"{name}: {kinds[each.kind]}", *parts)


def _shown(each: "SetRow") -> str:
    headings = ("Split", "Pictures", "Frames", "Clean", "Specimens", "Labelled", "Visible", "Must be found")
    rows = [
        [
            both(split.name, split.purpose),
            words(split.pictures),
            words(f"{split.frames:.1f}"),
            words(split.clean_pictures),
            words(split.specimens),
            *map(words, (split.defects, split.visible, split.must_be_found)),
        ]
        for split in each.splits
    ]
    caption = (
        f"What was shown. Frames: of 512 × 512 px. {each.tuning_pictures} clean pictures "
        f"({each.tuning_frames:.1f} frames) fix thresholds and are counted nowhere else."
    )
    return table(headings, rows, caption=caption)


# --- what went wrong ---


def _worst(each: "SetRow", run: "Ran") -> list[str]:
    from calibration.evaluate.defects_targets import serving

    missed: list[Worst] = []
    false: list[Worst] = []
    for split in each.splits:
        served = serving(split)
        if served is not None and served.at is not None and served.at.threshold is not None:
            here = run.halves(served.name).of(split.name)
            missed += misses(here, served.at.threshold)
            false += false_alarms(here, served.at.threshold)
    keys = legend(
        ("dashed-frame", "s-orange", "missed"),
        ("dashed-frame", "s-sky", "another true defect"),
        ("frame", "s-blue", "found, and there"),
        ("frame", "s-vermillion", "false alarm"),
    )
    note = paragraph(
        "Difference: vermillion where the frame is brighter than its reference, blue where it is darker.", "soft"
    )
    parts = ["<h3>Worst misses and false alarms</h3>", keys, note]
    shown = drawn(run, worst_first(missed))
    parts.append(grid(*shown) if shown else paragraph("No visible defect was missed."))
    shown = drawn(run, worst_first(false))
    parts.append(grid(*shown) if shown else paragraph("No false alarm at the working point."))
    return parts


# --- what the packages say, and times ---


def _unknown(account: "Account") -> str:
    told, rows = account.evaluation.unknown, account.evaluation.ablation
    said = told.note if told.auroc is None else f"AUROC {told.auroc:.3f} {told.note}"
    more = "" if told.fpr_at_95 is None else f"; {100 * told.fpr_at_95:.0f} % of them pass where 95 % of the known do"
    parts = [paragraph(f"Telling the unknown: {said}{more}.")]
    if rows:
        names = sorted({name for row in rows for name in row.figures if not name.endswith(("_low", "_high"))})
        cells = [[words(row.name), *(_figure(row.figures.get(name)) for name in names)] for row in rows]
        caption = "The cascade with less to go on, as its own package measured it on held-out specimens."
        parts.append(table(("Given", *(name.replace("_", " ") for name in names)), cells, caption=caption))
    return section("unknown", "What the cascade's package says", *parts)


def _figure(value: float | None) -> str:
    return "–" if value is None else words(f"{value:.3g}")


def _times(latency: "Sequence[Latency]") -> str:
    rows = [
        [
            words(f"{t.columns} × {t.rows}"),
            words(t.stage),
            words(t.n),
            words(f"{1e3 * t.p50_s:.0f}"),
            words(f"{1e3 * t.p99_s:.0f}"),
        ]
        for t in latency
    ]
    caption = "Wall clock, milliseconds; whatever else the machine did is in it: see its load below."
    headings = ("Frame, px", "Stage", "n", "p50", "p99")
    return section("times", "Time a frame", table(headings, rows, caption=caption, left=2))
