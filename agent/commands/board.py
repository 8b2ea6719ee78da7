"""The tables that `beamside demo` shows while it runs: one line an episode, the last one alive; one line a field."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from calibration.twin.episode import Episode, Point
    from calibration.twin.inspecting import InspectedField
    from calibration.twin.instrument import MicroscopeSettings

SHOWN = 16  # lines: a terminal has 24
AROUND = 6  # lines that a second table needs beside its rows
FEWEST = 4
STYLES = {
    "measuring": "dim",
    "probing": "magenta",
    "correcting": "yellow",
    "verifying": "cyan",
    "converged": "bold green",
    "held": "bold yellow",
    "failed": "bold red",
    "inspected": "bold green",
}


class Board:
    """What is known so far; `table` draws it."""

    def __init__(self, planned: int, fields: int = 0) -> None:
        self.planned, self.fields = planned, fields
        self.done: list[Episode] = []
        self.inspected: list[InspectedField] = []
        self._settings: MicroscopeSettings | None = None
        self._track: list[Point] = []

    def begin(self, settings: "MicroscopeSettings") -> None:
        self._settings, self._track = settings, []

    def point(self, point: "Point") -> None:
        self._track.append(point)

    def end(self, episode: "Episode") -> None:
        self.done.append(episode)
        self._settings = None

    def field(self, inspected: "InspectedField") -> None:
        self.inspected.append(inspected)

    def table(self) -> Table | Group:
        """Both tables together keep to a terminal's height."""
        if not self.fields or len(self.done) < self.planned:
            return self._episodes(SHOWN)
        rows = min(self.fields, SHOWN // 2)
        return Group(self._episodes(max(SHOWN - AROUND - rows, FEWEST)), self._inspection(rows))

    def _episodes(self, rows: int) -> Table:
        table = Table(
            title="Finding focus on a virtual microscope",
            caption=self._caption(),
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("seed", justify="right", no_wrap=True, min_width=4)
        table.add_column("specimen", no_wrap=True, min_width=13, overflow="ellipsis")
        for heading, width in (("start µm", 8), ("now µm", 7), ("now h", 6), ("score", 5), ("frames", 6)):
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)
        table.add_column("the agent", min_width=12)
        for episode in self.done[-rows:]:
            table.add_row(*_ended(episode))
        if self._settings is not None:
            table.add_row(*_running(self._settings, self._track))
        return table

    def _inspection(self, rows: int) -> Table:
        table = Table(
            title="Looking for defects", caption=self._inspection_caption(), box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("seed", justify="right", no_wrap=True, min_width=4)
        table.add_column("specimen", no_wrap=True, min_width=13, overflow="ellipsis")
        for heading in ("hidden", "found", "missed", "false", "class ok", "s"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=4)
        table.add_column("the agent", min_width=12)
        for inspected in self.inspected[-rows:]:
            table.add_row(*_looked_at(inspected))
        return table

    def _caption(self) -> str:
        if not self.done and self._settings is None:
            return "the agent is loading its models"
        good = sum(e.end == "converged" and abs(e.residual_m) <= e.half_depth_of_focus_m for e in self.done)
        return f"{len(self.done)} of {self.planned} done, {good} in focus: within h, half a depth of focus"

    def _inspection_caption(self) -> str:
        if not self.inspected:
            return "fresh fields are drawn and inspected"
        hidden = sum(len(each.shown.defects) for each in self.inspected if each.inspected)
        seen = sum(len(each.pairs) for each in self.inspected)
        false = sum(len(each.false_alarms) for each in self.inspected)
        words = f"{len(self.inspected)} of {self.fields} inspected, {seen} of {hidden} defects found"
        return f"{words}, {false} false alarm{'s' if false != 1 else ''}"


def _ended(episode: "Episode") -> tuple[str | Text, ...]:
    score = next((p.score for p in reversed(episode.track) if p.score is not None), None)
    words = f"{episode.end}: {episode.reason}" if episode.reason else episode.end
    return (
        str(episode.seed),
        Path(episode.specimen).name,
        _um(episode.start_defocus_m),
        _um(episode.residual_m),
        f"{episode.residual_m / episode.half_depth_of_focus_m:+.2f}",
        _score(score),
        str(episode.frames),
        Text(words, STYLES[episode.end]),
    )


def _running(settings: "MicroscopeSettings", track: "Sequence[Point]") -> tuple[str | Text, ...]:
    """The settings' own seed and specimen, and the last frame's word."""
    name = Path(settings.specimen).name
    if not track:
        return (str(settings.seed), name, "", "", "", "", "", "")
    now = track[-1]
    phase = now.phase or ""
    return (
        str(settings.seed),
        name,
        _um(track[0].true_defocus_m),
        _um(now.true_defocus_m),
        f"{now.true_defocus_m / settings.half_depth_of_focus_m:+.2f}",
        _score(now.score),
        str(now.evidence_frames),
        Text(phase, STYLES.get(phase, "")),
    )


def _looked_at(inspected: "InspectedField") -> tuple[str | Text, ...]:
    word, hidden = inspected.word, len(inspected.shown.defects)
    words = f"{word.end}: {word.reason}" if word.reason else word.end
    name = (str(inspected.seed), inspected.shown.pattern, str(hidden))
    if not inspected.inspected:
        return (*name, "", "", "", "", "", Text(words, STYLES[word.end]))
    counts = (len(inspected.pairs), len(inspected.missed), len(inspected.false_alarms), inspected.class_right)
    return (*name, *map(str, counts), f"{sum(word.took_s.values()):.2f}", Text(words, STYLES[word.end]))


def _um(metres: float) -> str:
    return f"{metres * 1e6:+.2f}"


def _score(score: float | None) -> str:
    return "" if score is None else f"{score:.1f}"
