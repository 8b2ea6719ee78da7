"""The report's part on focus: all episodes in a table, then the longest way with its frames and curves. HTML out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agent.commands.picture import cut, in_focus, most_instructive
from agent.commands.plate import round_below, told
from agent.commands.report_curves import INTERVAL, in_um, signed_um, through_focus, track, where
from agent.commands.report_html import (
    Drawing,
    both,
    figure,
    grid,
    paragraph,
    section,
    table,
    words,
)

if TYPE_CHECKING:
    from calibration.twin.episode import Episode, Point

LOGGED = 30  # frames of the longest way that are listed; a failed episode can have 120


def focus_section(episodes: "Sequence[Episode]") -> str:
    if not episodes:
        return section("focus", "Finding focus", paragraph("No focus episode was run."))
    intro = (
        "Each episode begins with a specimen the agent has never seen, out of focus. From frames at two or more "
        "working distances it estimates how far the beam is focused above or below the surface, and asks for a "
        "correction. "
        "Distances are compared with half a depth of focus, h: within h a picture cannot be told from a sharp one."
    )
    return section("focus", "Finding focus", paragraph(intro), _all(episodes), _longest(most_instructive(episodes)))


# --- all episodes ---


def _all(episodes: "Sequence[Episode]") -> str:
    headings = ("Specimen", "Start, µm", "End, µm", "1σ told, µm", "Frames", "Ending")
    rows = [_row(episode) for episode in episodes]
    caption = (
        "All episodes. Start and end: true distance from focus, + focused below the surface, in half depths of focus "
        "underneath. 1σ told: the agent's own uncertainty of the end."
    )
    return table(headings, rows, caption=caption)


def _row(episode: "Episode") -> list[str]:
    h = episode.half_depth_of_focus_m
    last = last_estimate(episode)
    sigma = both(in_um(last[1]), f"{last[1] / h:.2f}\u00a0h") if last else words("–")
    return [
        both(specimen_name(episode), f"seed {episode.seed}"),
        both(signed_um(episode.start_defocus_m), f"{abs(episode.start_defocus_m) / h:.1f}\u00a0h"),
        both(signed_um(episode.residual_m), f"{abs(episode.residual_m) / h:.2f}\u00a0h"),
        sigma,
        words(episode.frames),
        ending(episode),
    ]


def ending(episode: "Episode") -> str:
    """A badge: sign, word and colour."""
    if episode.end == "converged" and in_focus(episode):
        return '<span class="badge good">● in focus</span>'
    if episode.end == "converged":
        return '<span class="badge bad">▲ converged</span><span class="soft">but out of focus</span>'
    kind, sign = ("warn", "■") if episode.end == "held" else ("bad", "▲")
    badge = f'<span class="badge {kind}">{sign} {words(episode.end)}</span>'
    return f'{badge}<span class="soft">{words(episode.reason)}</span>'


def specimen_name(episode: "Episode") -> str:
    return Path(episode.specimen).name


def last_estimate(episode: "Episode") -> tuple[float, float] | None:
    """(defocus, sigma), metres, as the agent told them last."""
    for point in reversed(episode.track):
        if point.defocus_m is not None and point.sigma_m is not None:
            return point.defocus_m, point.sigma_m
    return None


# --- the longest way ---


def _longest(episode: "Episode") -> str:
    lost = "believed to be in focus and was not" if episode.end == "converged" else episode.end
    way = "The longest way" if in_focus(episode) else f"One episode that {lost}"
    title = f"<h3>{words(way)}: {words(specimen_name(episode))}, seed {episode.seed}</h3>"
    if not episode.track:
        return title + paragraph("No frame of it was published.")
    return title + grid(*_frames(episode)) + grid(track(episode), through_focus(episode)) + _log(episode)


def _frames(episode: "Episode") -> list[str]:
    shown = ((episode.first, episode.track[0], "Before"), (episode.last, episode.track[-1], "After"))
    return [
        figure(str(_frame(pixels, episode, when)), f"{when}: {where(point, episode)}.")
        for pixels, point, when in shown
        if pixels is not None
    ]


def _frame(pixels: NDArray[np.generic], episode: "Episode", when: str) -> Drawing:
    grey, magnified = cut(pixels)
    height, width = grey.shape
    drawing = Drawing(width, height, f"{when}: the middle of a frame of {specimen_name(episode)}", font=width / 24)
    drawing.picture(grey)
    scale_bar(drawing, None if episode.pixel_size_m is None else episode.pixel_size_m / magnified)
    return drawing


def scale_bar(drawing: Drawing, pixel_size_m: float | None) -> None:
    """A round length at the lower left, on a dark ground so that it shows on any picture."""
    if pixel_size_m is None:
        return
    metres = round_below(0.35 * drawing.width * pixel_size_m)
    long, font = metres / pixel_size_m, drawing.font
    left, bottom = 0.9 * font, drawing.height - 0.8 * font
    ground = max(long, 3.6 * font) + 0.8 * font
    drawing.box((left - 0.4 * font, bottom - 1.9 * font), (left - 0.4 * font + ground, bottom + 0.35 * font), "shade")
    drawing.box((left, bottom - 0.3 * font), (left + long, bottom), "f-paper")
    drawing.text((left, bottom - 0.65 * font), told(metres), kind="f-paper")


# --- the log ---


def _log(episode: "Episode") -> str:
    rows = [_logged(i + 1, point) for i, point in enumerate(episode.track[:LOGGED])]
    more = len(episode.track) - len(rows)
    left_out = f"; {more} more frames are left out" if more > 0 else ""
    caption = f"The same in numbers; underneath each frame what the agent did next{left_out}."
    headings = ("Frame", "Working distance, mm", "True defocus, µm", "Estimate ± 95 %, µm", "Score")
    return table(headings, rows, caption=caption)


def _logged(i: int, point: "Point") -> list[str]:
    known = point.defocus_m is not None and point.sigma_m is not None
    estimate = (
        both(signed_um(point.defocus_m or 0.0), f"± {in_um(INTERVAL * (point.sigma_m or 0.0))}") if known else "–"
    )
    at = point.working_distance_m
    return [
        both(str(i), point.phase or ""),
        words("–" if at is None else f"{at * 1e3:.4f}"),
        words(signed_um(point.true_defocus_m)),
        estimate,
        words("–" if point.score is None else f"{point.score:.1f}"),
    ]
