"""The table of score readers on the screen: totals, folds, targets, and a few sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from agent.commands.score_account import OWN, Account, Target, verdict

if TYPE_CHECKING:
    from calibration.evaluate.score_figures import Figures, Row, Total

WIDTH = 132  # columns, where there is no terminal to ask
LISTED = 6  # unfinished cells by name


def tell(account: Account) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    if account.totals:
        console.print(_totals(account.totals))
        console.print(_folds(account.rows))
        console.print(_targets(account.targets))
    for line in sentences(account):
        console.print(line, highlight=False, soft_wrap=True)


def _totals(totals: "Sequence[Total]") -> Table:
    table, by = Table(box=SIMPLE_HEAD), ""
    table.add_column("left out, reader", no_wrap=True)
    for heading in ("folds", "n", "RMSE", "95 %", "bias", "Spearman", "folds of all", "RMSE there"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in totals:
        if each.by != by:
            table.add_section()
            table.add_row(f"[bold]{each.by}[/]")
        by = each.by
        table.add_row(f"  {each.reader}", f"{each.folds}/{each.of}", *_cells(each))
    return table


def _cells(total: "Total") -> tuple[str, ...]:
    told, shared = total.finished, total.shared
    if told is None:
        return ("",) * 7
    return (
        str(told.n),
        f"{told.rmse:.2f}",
        interval(told),
        f"{told.bias:+.2f}",
        rank(told),
        str(total.shared_folds),
        "" if shared is None else f"{shared.rmse:.2f}",
    )


def _folds(rows: "Sequence[Row]") -> Table:
    """RMSE of each reader on each fold."""
    readers = list(dict.fromkeys(row.reader for row in rows))
    table, by = Table("RMSE", box=SIMPLE_HEAD), ""
    for reader in ("n", *readers):
        table.add_column(reader, justify="right")
    for (kind, fold), line in lines(rows).items():
        if kind != by:
            table.add_section()
        by = kind
        n = next((str(row.figures.n) for row in line.values() if row.figures is not None), "")
        table.add_row(fold, n, *(brief(line[reader]) for reader in readers))
    return table


def lines(rows: "Sequence[Row]") -> "dict[tuple[str, str], dict[str, Row]]":
    """By way of leaving out and fold, the row of each reader."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.by, row.fold), {})[row.reader] = row
    return found


def brief(row: "Row") -> str:
    return "not yet" if row.figures is None else f"{row.figures.rmse:.2f}"


def interval(told: "Figures") -> str:
    return f"{told.rmse_low:.2f} to {told.rmse_high:.2f}"


def rank(told: "Figures") -> str:
    return "" if told.spearman is None else f"{told.spearman:.3f}"


def _targets(targets: Sequence[Target]) -> Table:
    table = Table(f"{OWN}: target", "asked", "measured", "", "n", box=SIMPLE_HEAD)
    for each in targets:
        value = "" if each.measured is None else f"{each.measured:.2f}"
        table.add_row(each.name, each.asked, value, verdict(each), str(each.n))
    return table


def sentences(account: Account) -> Iterator[str]:
    """What was not done, and what the figures rest on."""
    if account.drawn < account.asked.pictures:
        yield (
            f"{account.drawn} of {account.asked.pictures} pictures were drawn when the time was over; nothing was "
            "measured. The same command goes on."
        )
        return
    if account.unfinished:
        shown = "; ".join(account.unfinished[:LISTED])
        more = f" and {len(account.unfinished) - LISTED} more" if len(account.unfinished) > LISTED else ""
        yield (
            f"{len(account.unfinished)} of {account.cells} cells are not finished: {shown}{more}. "
            f"The same command with more minutes goes on from {account.work}."
        )
    if account.label_spearman is not None:
        yield (
            f"The label itself, with its content and astigmatism, ranks as -|z|/h does to {account.label_spearman:.3f} "
            "where |z| > h and content is 1/2 or more."
        )
    yield (
        f"{account.asked.pictures} pictures of 256 px, seed {account.asked.seed}; “as shipped” is {account.model}, "
        "which has learnt every specimen and magnification, longer and on other pictures."
    )
