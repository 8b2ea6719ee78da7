"""An evaluation of defects on the screen: methods by split, leaves, targets, times, and a few sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.commands.overlay import said

if TYPE_CHECKING:
    from agent.commands.evaluate_defects import Account
    from calibration.evaluate.defects_account import Ablation, MethodRow, SetRow, SplitRow, Target
    from calibration.evaluate.defects_latency import Latency
    from calibration.evaluate.defects_leaves import Bin, Leaf
    from calibration.evaluate.defects_points import Point
    from calibration.evaluate.defects_share import AFrame, Share

WIDTH = 150  # columns, where there is no terminal to ask
RATES = (0.1, 0.01, 0.001)


def tell(account: "Account") -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for each in account.evaluation.sets:
        console.print(f"[bold]{each.folder}[/], {each.kind}", highlight=False)
        console.print(_methods(each))
        if each.splits and leaves_of(each.splits[0]):
            console.print(_leaves(each.splits[0]))
            console.print(_by_size_and_signal(each.splits[0]))
    if account.evaluation.ablation:
        console.print(_ablation(account.evaluation.ablation))
    console.print(_targets(account.evaluation.targets))
    console.print(_times(account.evaluation.latency))
    for line in sentences(account):
        console.print(line, highlight=False, soft_wrap=True)


def _methods(of: "SetRow") -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("split, method", no_wrap=True)
    table.add_column("thresholds by", no_wrap=True)
    rates = [f"{rate:g}, %" for rate in RATES]
    for heading in (*rates, "none false, %", "false/frame", "mAP", "end to end, %", "count off"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split in of.splits:
        table.add_row(f"[bold]{split.name}[/]", f"{split.must_be_found} of {split.visible} visible")
        for each in split.methods:
            for number, by in enumerate(sources(each)):
                table.add_row(*_cells(each, by, first=number == 0))
        table.add_section()
    return table


def _cells(each: "MethodRow", by: str, *, first: bool) -> tuple[str, ...]:
    """first: names and counts are told once, at the working point."""
    naming = each.naming if first else None
    at = point_at(each, RATES[0], by) or point_at(each, 0.0, by)
    return (
        f"  {each.name}" if first else "",
        by_words(by),
        *(percent(None if point is None else point.must) for point in (point_at(each, r, by) for r in (*RATES, 0.0))),
        "" if at is None else alarms(at.false_alarms),
        "" if each.precision is None or not first else f"{each.precision.value:.2f}",
        "" if naming is None or each.precision is None else percent(naming.end_to_end),
        "" if naming is None or naming.count_error is None else f"{naming.count_error.value:.2f}",
    )


def sources(each: "MethodRow") -> list[str]:
    """Who fixed thresholds for it, in the order of trust; the set's own layouts stand first also without any."""
    from calibration.evaluate.defects_points import EVERY, OWN, PACKAGE

    fixed = {point.by for point in each.points if point.threshold is not None}
    return [by for by in (OWN, EVERY, PACKAGE) if by in fixed] or [OWN]


def by_words(by: str) -> str:
    """Who fixed the threshold, in short."""
    from calibration.evaluate.defects_points import EVERY, PACKAGE

    return {EVERY: "all clean pictures", PACKAGE: "package"}.get(by, "clean layouts")


def point_at(each: "MethodRow", rate: float, by: str) -> "Point | None":
    """None where no threshold could be fixed."""
    return next((p for p in each.points if p.rate == rate and p.by == by and p.threshold is not None), None)


def percent(share: "Share | None") -> str:
    return "–" if share is None or share.value is None else f"{100 * share.value:.1f}"


def alarms(told: "AFrame | None") -> str:
    return "–" if told is None or told.value is None else f"{told.value:.2f}"


def _leaves(split: "SplitRow") -> Table:
    table = Table(box=SIMPLE_HEAD, title=f"{split.name}, leaf by leaf", title_justify="left")
    table.add_column("class", no_wrap=True)
    for heading in ("n", "captured %", "named %", "end to end %", "purity %"):
        table.add_column(heading, justify="right")
    table.add_column("mistaken for")
    for each in leaves_of(split):
        shares = (each.captured, each.named, each.end_to_end, each.purity)
        others = ", ".join(said(name) for name in each.mistaken_for)
        table.add_row(said(each.name), str(each.captured.n), *map(percent, shares), others)
    return table


def _by_size_and_signal(split: "SplitRow") -> Table:
    """Of the method that serves, at its working point."""
    table = Table(box=SIMPLE_HEAD, title=f"{split.name}, captured by size and signal", title_justify="left")
    for heading in ("by", "from", "below", "n", "captured %"):
        table.add_column(heading, justify="left" if heading == "by" else "right")
    for name, bins in bins_of(split):
        for number, each in enumerate(bins):
            high = "" if each.high is None else f"{each.high:g}"
            table.add_row("" if number else name, f"{each.low:g}", high, str(each.captured.n), percent(each.captured))
    return table


def bins_of(split: "SplitRow") -> "Iterator[tuple[str, Sequence[Bin]]]":
    """Those that hold a defect."""
    from calibration.evaluate.defects_targets import serving

    served = serving(split)
    if served is not None and served.naming is not None:
        told = served.naming
        names = ("size, px", "matched-filter SNR", "contrast to noise")
        rows = zip(names, (told.by_size, told.by_signal, told.by_contrast), strict=True)
        yield from ((name, bins) for name, bins in rows if bins)


def _ablation(rows: "Sequence[Ablation]") -> Table:
    """The cascade with less to go on, as its package measured it."""
    names = [name for name in rows[0].figures if not name.endswith(("_low", "_high"))]
    table = Table(box=SIMPLE_HEAD, title="The cascade with less to go on, by its own package", title_justify="left")
    table.add_column("given", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for each in rows:
        figures = (each.figures.get(name) for name in names)
        table.add_row(each.name, *("–" if value is None else f"{value:.3g}" for value in figures))
    return table


def leaves_of(split: "SplitRow") -> "Sequence[Leaf]":
    """Of the method that serves."""
    from calibration.evaluate.defects_targets import serving

    served = serving(split)
    return () if served is None or served.naming is None else served.naming.leaves


def _targets(targets: "Sequence[Target]") -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("target", "asked", "measured", "", "n"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for each in targets:
        verdict = "" if each.met is None else "met" if each.met else "missed"
        table.add_row(each.name, each.asked, each.measured, verdict, str(each.n))
    return table


def _times(latency: "Sequence[Latency]") -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("frame", "stage", "n", "p50, ms", "p99, ms"):
        table.add_column(heading, justify="left" if heading in ("frame", "stage") else "right")
    for each in latency:
        size = f"{each.rows}x{each.columns}"
        table.add_row(size, each.stage, str(each.n), f"{1e3 * each.p50_s:.0f}", f"{1e3 * each.p99_s:.0f}")
    return table


def sentences(account: "Account") -> Iterator[str]:
    """What the tables do not tell."""
    for each in account.evaluation.sets:
        yield f"{each.folder}: {tuning_words(each)}"
        for note in each.notes:
            yield f"{each.folder}: {note}."
        for split in each.splits:
            said_of = trust_words(split)
            if said_of:
                yield f"{each.folder}, {split.name}: {said_of}"
    told, machine = account.evaluation.unknown, account.machine
    yield (
        f"Unknown defects: {told.note}."
        if told.auroc is None
        else (f"Unknown defects: AUROC {told.auroc:.2f} {told.note} ({told.source}).")
    )
    yield (
        f"{', '.join(account.evaluation.models)}; {machine.processor}; {machine.threads} threads, load "
        f"{machine.load_before:.1f} before, {machine.load_after:.1f} after; {machine.took_s:.0f} s."
    )


def trust_words(split: "SplitRow") -> str:
    """How far the names of the method that serves go without a person; empty where nothing was found."""
    from calibration.evaluate.defects_targets import serving

    served = serving(split)
    if served is None or served.naming is None or served.naming.automatic is None:
        return ""
    naming = served.naming
    automatic = f"{100 * served.naming.automatic:.0f} % of the finds carry a name that is right in 95 of 100"
    if not naming.undecided.n:
        return f"{automatic}."
    parted = f"pits and particles: {percent(naming.parted)} % of {naming.parted.n} rightly parted"
    return f"{automatic}; {parted}, {percent(naming.undecided)} % of {naming.undecided.n} told to be undecidable."


def tuning_words(of: "SetRow") -> str:
    """How far the set's own clean frames go."""
    from calibration.evaluate.defects_points import VOUCHED, needed

    if not of.tuning_pictures:
        return "no clean frame to fix a threshold by; thresholds are the package's own."
    short = [rate for rate in RATES if of.tuning_frames < needed(rate)]
    fixed = f"{of.tuning_pictures} clean pictures ({of.tuning_frames:.1f} frames of 512 x 512) fix the thresholds"
    if not short:
        return f"{fixed}."
    lacks = ", ".join(
        f"{needed(rate):.0f} for {rate:g} ({VOUCHED * needed(rate):.0f} to vouch for it)" for rate in short
    )
    return f"{fixed}; too few for the rarest false alarms: {lacks} are needed."
