"""One bench of the focus loop as it is told: rows of episodes in; methods, strata, targets, faults, machine out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibration.evaluate.focus_figures import Abstention, Figures
    from calibration.evaluate.focus_rows import Row
    from calibration.evaluate.focus_targets import Target


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command was told."""

    episodes: int
    seed: int
    specimens: tuple[str, ...]
    jobs: int
    minutes: float | None
    baselines: bool
    faults: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the times belong to."""

    processor: str
    cores: int
    load_before: float  # average of a minute
    load_after: float
    took_s: float
    date: str
    agent_s: float | None  # processor time of an episode: the agent's
    twin_s: float | None  # ... and the microscope's


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Some of the agent's episodes."""

    by: str
    name: str
    figures: "Figures"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method. figures: None where it could not run, and `note` says why."""

    name: str
    note: str
    figures: "Figures | None"
    abstention: "Abstention | None"


@dataclass(frozen=True, kw_only=True)
class FaultRow:
    """What the agent did while one thing was wrong."""

    name: str
    what: str
    figures: "Figures"


@dataclass(frozen=True, kw_only=True)
class Account:
    """All of it."""

    asked: Asked
    done: int  # episodes of the agent
    machine: Machine
    methods: tuple[Method, ...]  # the agent, then those it is compared with and the agent on the same episodes
    strata: tuple[Stratum, ...]  # of the agent
    targets: "tuple[Target, ...]"  # of the agent
    faults: tuple[FaultRow, ...]  # the first: nothing was wrong


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of the episodes. compared: by baseline, rows, or why there are none."""

    agent: "Sequence[Row]"
    compared: "Mapping[str, Sequence[Row] | str]"
    faulty: "Mapping[str, Sequence[Row]]"
    took_s: float
    load: float  # when it began

    @property
    def rows(self) -> "list[Row]":
        """Every episode of every method."""
        others = [row for told in self.compared.values() if not isinstance(told, str) for row in told]
        return [*self.agent, *others, *(row for rows in self.faulty.values() for row in rows)]


def account(asked: Asked, measured: Measured) -> Account:
    from calibration.evaluate.focus_figures import figures, strata
    from calibration.evaluate.focus_targets import targets

    return Account(
        asked=asked,
        done=len(measured.agent),
        machine=_machine(measured),
        methods=_methods(measured),
        strata=tuple(
            Stratum(by=by, name=name, figures=figures(some))
            for by, groups in strata(measured.agent).items()
            for name, some in groups.items()
        ),
        targets=targets(measured.agent),
        faults=_faults(measured),
    )


def _methods(measured: Measured) -> tuple[Method, ...]:
    from agent.commands.focus_agent import NAME

    told = [_method(NAME, measured.agent)]
    least = [len(rows) for rows in measured.compared.values() if not isinstance(rows, str)]
    if least and max(least) < len(measured.agent):
        told.append(_method(f"{NAME}, first {max(least)}", measured.agent[: max(least)]))
    return (*told, *(_method(name, rows) for name, rows in measured.compared.items()))


def _method(name: str, rows: "Sequence[Row] | str") -> Method:
    from calibration.evaluate.focus_figures import abstention, figures

    if isinstance(rows, str):
        return Method(name=name, note=rows, figures=None, abstention=None)
    return Method(name=name, note="", figures=figures(rows), abstention=abstention(rows))


def _faults(measured: Measured) -> tuple[FaultRow, ...]:
    from calibration.evaluate.focus_faults import FAULTS
    from calibration.evaluate.focus_figures import figures

    return tuple(
        FaultRow(name=name or "none", what=FAULTS[name].what, figures=figures(rows))
        for name, rows in measured.faulty.items()
    )


def _machine(measured: Measured) -> Machine:
    from agent.commands.report_facts import machine

    rows, count = measured.agent, len(measured.agent)
    return Machine(
        processor=machine(),
        cores=os.cpu_count() or 1,
        load_before=measured.load,
        load_after=os.getloadavg()[0],
        took_s=measured.took_s,
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        agent_s=sum(row.method_s for row in rows) / count if count else None,
        twin_s=sum(row.twin_s for row in rows) / count if count else None,
    )
