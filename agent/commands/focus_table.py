"""A bench of the focus loop on the screen: methods, strata, targets, faults, and a few sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.commands.focus_account import Account, FaultRow, Method, Stratum

if TYPE_CHECKING:
    from calibration.evaluate.focus_figures import Figures, Share, Spread
    from calibration.evaluate.focus_targets import Target

WIDTH = 132  # columns, where there is no terminal to ask
HEADINGS = ("n", "conv. %", "within h %", "rest h", "p95", "frames", "p95", "false %", "worse %", "68 %", "95 %")


def tell(account: Account) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(_methods(account.methods))
    console.print(_strata(account.strata))
    console.print(_targets(account.targets))
    if account.faults:
        console.print(_faults(account.faults))
    for line in sentences(account):
        console.print(line, highlight=False, soft_wrap=True)


def _methods(methods: Sequence[Method]) -> Table:
    table = _figured("method")
    for each in methods:
        if each.figures is not None:
            table.add_row(each.name, *_cells(each.figures))
    return table


def _strata(strata: Sequence[Stratum]) -> Table:
    table, by = _figured("textured, by"), ""
    for each in strata:
        if each.by != by:
            table.add_section()
        by = each.by
        table.add_row(each.name, *_cells(each.figures))
    return table


def _figured(first: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(told: "Figures") -> tuple[str, ...]:
    defocus = told.defocus
    return (
        str(told.n), percent(told.converged), percent(told.within_h), *_pair(told.residual_h, 2),
        *_pair(told.frames, 0), percent(told.false_converged), percent(told.worse),
        percent(defocus.within_68), percent(defocus.within_95),
    )  # fmt: skip


def _targets(targets: "Sequence[Target]") -> Table:
    table = Table("target", "asked", "measured", "", "by", box=SIMPLE_HEAD)
    table.add_column("n", justify="right")
    for each in targets:
        met = "" if each.met is None else "met" if each.met else "[bold]missed[/]"
        table.add_row(each.name, each.asked, each.measured, met, each.by, str(each.n))
    return table


def _faults(faults: Sequence[FaultRow]) -> Table:
    table = Table("fault", box=SIMPLE_HEAD)
    for heading in ("n", "conv. %", "held %", "within h %", "false %", "worse %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reasons")
    for each in faults:
        told = each.figures
        shares = (told.converged, told.held, told.within_h, told.false_converged, told.worse)
        table.add_row(each.name, str(told.n), *map(percent, shares), reasons(told.reasons))
    return table


def sentences(account: Account) -> Iterator[str]:
    """What the tables do not say."""
    yield from (f"{each.name}: {each.note}" for each in account.methods if each.note)
    yield from abstentions(account)
    yield from circumstances(account)


def abstentions(account: Account) -> Iterator[str]:
    """How often each method held, and whether it knew when to."""
    for each in account.methods:
        known = each.abstention
        if known is None or each.figures is None or each.figures.n == 0:
            continue
        auroc = "" if known.auroc is None else f" (as a warning of wrong answers: AUROC {known.auroc:.2f})"
        told = (
            f"{each.name} held on {counted(known.textured)} textured and {counted(known.featureless)} flat and sparse"
        )
        why = f"; reasons: {reasons(each.figures.reasons)}" if each.figures.reasons else ""
        yield f"{told} specimens{auroc}{why}."


def circumstances(account: Account) -> Iterator[str]:
    """When, where, on what load, at what cost."""
    asked, machine = account.asked, account.machine
    if account.done < asked.episodes:
        yield f"Stopped after {machine.took_s / 60:.1f} minutes: {account.done} of {asked.episodes} episodes."
    if machine.agent_s is not None and machine.twin_s is not None:
        yield (
            f"Seed {asked.seed}, {machine.date}, {machine.processor}, load {machine.load_before:.1f} to "
            f"{machine.load_after:.1f}, {machine.took_s:.0f} s on {asked.jobs} processes; an episode costs "
            f"{machine.agent_s:.2f} s of processor time for the agent and {machine.twin_s:.2f} s for the microscope."
        )


def reasons(told: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in told.items()) or "none"


def percent(known: "Share") -> str:
    return "–" if known.value is None else f"{100 * known.value:.1f}"


def counted(known: "Share") -> str:
    return f"{known.k} of {known.n}"


def _pair(known: "Spread | None", decimals: int) -> tuple[str, str]:
    return ("–", "–") if known is None else (f"{known.median:.{decimals}f}", f"{known.p95:.{decimals}f}")
