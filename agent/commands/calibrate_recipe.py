"""`beamside calibrate recipe`: frames without a defect fix the confidence from which a recipe tells of one.

They are read as `run` reads them, by the recipe's own rules; what is left of finds are false alarms. The threshold is
the lowest whose rate is, by its 95 % bound, no more than the recipe asks for.
"""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent import settings as configuration
from agent.bridges.files import RECORDING, images_in, read_image
from agent.commands import run as running
from agent.commands.recipe_references import drawn
from agent.commands.report_html import write_page
from agent.control.alarm_rate import Found, needed, threshold_for
from agent.control.inspecting import Look, asked
from agent.control.recipe import NOTHING, Measured, Recipe, Rules
from agent.control.recipe_rules import Pixel, sift
from agent.errors import BeamsideError, ImageError, UsageError
from agent.messages import Findings, Frame, Lane, Wanted
from agent.perceive import Perceiver
from agent.recipes import fingerprint, read, served

FLOOR = 0.05  # confidence below which nothing is a find: it bounds what is looked at, not the answer
TABLE = re.compile(r"^\[measured\].*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
DIGITS = 6  # of a threshold in the file: single precision has no more


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: the command's JSON document."""

    recipe: str
    threshold: float
    asked_per_frame: float
    frames: int
    alarms: int
    upper_per_frame: float  # 95 %
    unreferenced: int  # frames read without the reference that the recipe counts on
    model: str


@dataclass(frozen=True)
class Alarms:
    """Confidences of all false alarms; inf: of a class with a threshold of its own, which no other can silence."""

    confidences: tuple[float, ...]
    frames: int
    unreferenced: int


def recipe(
    path: Annotated[Path, typer.Argument(help="The recipe; its table [measured] is written.", show_default=False)],
    frames: Annotated[list[Path], typer.Argument(help="Frames without a defect, or folders.", show_default=False)],
    config: Annotated[Path | None, typer.Option(help="TOML file of the agent, for its models.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Fix a recipe's threshold on frames without a defect, for the false alarms a frame that it asks for."""
    rules = read(path)
    rate = rules.false_alarms_per_frame
    if rate is None:
        raise UsageError(f"recipe {path} names no false_alarms_per_frame: there is nothing to measure; add it")
    pictures = _pictures(frames)
    if len(pictures) < needed(rate):
        raise UsageError(_too_few(len(pictures), rate))
    perceiver, _ = running.models(configuration.load(config))
    if perceiver.defects is None:
        raise BeamsideError("no defect model is in service: nothing can be measured")
    seen = alarms(perceiver, served(path, drawn), pictures)
    found = threshold_for(rate, seen.confidences, frames=seen.frames, floor=FLOOR)
    if found is None:
        raise UsageError(_too_few(seen.frames, rate))
    if found.threshold > 1.0:
        raise BeamsideError(_not_clean(path, seen))
    account = _account(path.stem, rate, found, seen=seen, model=perceiver.defects.name)
    write(path, rules, measured(account, fingerprint(rules), datetime.now(UTC)))
    _tell(account, path, as_json)


def alarms(perceiver: Perceiver, known: Recipe, pictures: Sequence[Path]) -> Alarms:
    """What the recipe would tell of frames that hold nothing, from the lowest confidence on."""
    lowest = msgspec.structs.replace(known, threshold=FLOOR)
    confidences: list[float] = []
    unreferenced = 0
    for number, path in _counted(pictures):
        frame = _frame(number, path, known.name)
        findings = perceiver.look(frame, asked(Wanted(inspection=True), frame, lowest, own_threshold=FLOOR))
        if findings.unseen is not None or findings.defects is None:
            raise ImageError(f"{path}: {findings.unseen or 'was not read'}; leave it out")
        unreferenced += findings.unreferenced is not None
        confidences += _left(frame, findings, lowest)
    return Alarms(tuple(confidences), len(pictures), unreferenced)


def _left(frame: Frame, findings: Findings, lowest: Recipe) -> Iterator[float]:
    pixel = Pixel(frame.optics.pixel_size_m, frame.optics.pixel_size_y_m)
    look = Look(findings.shown, lowest)
    for each in sift(findings.defects or (), lowest, pixel=pixel, nuisance=look.reason).kept:
        own = lowest.rules.classes.get(each.name, NOTHING).threshold
        yield each.confidence if own is None else math.inf


def _frame(number: int, path: Path, name: str) -> Frame:
    pixels, optics = read_image(path)
    optics = msgspec.structs.replace(optics, inspect=True, recipe=name)
    return Frame(number=number, pixels=pixels, optics=optics, lane=Lane.INSPECT, received_ns=0)


def _pictures(given: Sequence[Path]) -> list[Path]:
    """Each once: a frame that counts twice makes a rate look surer than it is."""
    found = [path for each in given for path in images_in(each) if path.suffix != RECORDING]
    seen: set[Path] = set()
    for path in found:
        if path.resolve() in seen:
            raise UsageError(f"{path} is given twice: give each frame once")
        seen.add(path.resolve())
    return found


def _counted(pictures: Sequence[Path]) -> Iterator[tuple[int, Path]]:
    columns = TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("clean frames", total=len(pictures))
        for number, path in enumerate(pictures, 1):
            yield number, path
            bars.advance(task)


# --- the file ---


def measured(account: Account, rules: str, now: datetime) -> Measured:
    return Measured(
        threshold=account.threshold,
        false_alarms_per_frame=account.asked_per_frame,
        frames=account.frames,
        alarms=account.alarms,
        upper_per_frame=account.upper_per_frame,
        date=now.date(),
        model=account.model,
        rules=rules,
    )


def write(path: Path, rules: Rules, new: Measured) -> None:
    """The table in the place of the old one; all else stays as somebody wrote it. Raises BeamsideError."""
    text = path.read_text(encoding="utf-8")
    kept = TABLE.sub("", text).rstrip("\n")
    lines = [f"{name} = {_toml(getattr(new, name))}" for name in new.__struct_fields__]
    table = "\n".join(["[measured]  # by beamside calibrate recipe", *lines])
    partial = path.with_name(f".{path.name}.check")
    try:
        write_page(f"{kept}\n\n{table}\n".lstrip("\n"), partial)
        if msgspec.structs.replace(read(partial), measured=None) != msgspec.structs.replace(rules, measured=None):
            raise BeamsideError(f"recipe {path}: its table [measured] cannot be replaced; take it out by hand")
        partial.replace(path)
    except OSError as error:
        raise BeamsideError(f"recipe {path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


# --- words ---


def _account(name: str, rate: float, found: Found, *, seen: Alarms, model: str) -> Account:
    return Account(
        recipe=name,
        threshold=math.ceil(found.threshold * 10**DIGITS) / 10**DIGITS,
        asked_per_frame=rate,
        frames=found.frames,
        alarms=found.alarms,
        upper_per_frame=round(found.upper_per_frame, DIGITS),
        unreferenced=seen.unreferenced,
        model=model,
    )


def _too_few(frames: int, rate: float) -> str:
    return (
        f"{frames} clean frames cannot show {rate:g} false alarms a frame: {needed(rate)} are needed even when none of "
        "them raises an alarm; give more, or ask for a higher rate"
    )


def _not_clean(path: Path, seen: Alarms) -> str:
    own = sum(math.isinf(each) for each in seen.confidences)
    why = f"{own} alarms are of classes with a threshold of their own" if own else "some alarms are as sure as can be"
    return (
        f"recipe {path}: no threshold keeps its rate on these {seen.frames} frames: {why}; are they without a defect?"
    )


def _tell(account: Account, path: Path, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(account).decode() + "\n")
        return
    print(
        f"{path}: threshold {account.threshold:.4f} for {account.asked_per_frame:g} false alarms a frame: "
        f"{account.alarms} in {account.frames} clean frames, at most {account.upper_per_frame:.4f} a frame (95 %); "
        f"{account.model}"
    )
    if account.unreferenced:
        print(f"{account.unreferenced} of them had no reference: nothing repeats there, or it does not fit")
