"""What `beamside demo` leaves behind: one PNG that shows how focus was found, and how every episode ended.

Above the episode with the longest way: its track, the agent's score, its first and last frame. Below all of them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.canvas import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    RULE,
    SKY,
    SOFT,
    VERMILLION,
    Axes,
    Canvas,
    Colour,
    length,
    number,
    ticks,
)

if TYPE_CHECKING:
    from calibration.twin.episode import Episode, Point

WIDTH, HEIGHT = 1760, 1230
MARGIN = 44
FRAME_PX = 372  # side of a frame as it is shown, one to one where the frame is as large
PHASES: dict[str, Colour] = {
    "measuring": FAINT,
    "probing": PURPLE,
    "correcting": ORANGE,
    "verifying": SKY,
    "converged": GREEN,
    "held": VERMILLION,
    "idle": RULE,
}
ENDS: dict[str, tuple[str, Colour, str]] = {  # shape, colour, words
    "converged": ("circle", BLUE, "where it ended: converged"),
    "held": ("square", VERMILLION, "held, and said why"),
    "failed": ("triangle", INK, "failed"),
}
FEWEST_H, MOST_H = 0.01, 100.0  # of the chart below, half depths of focus
NAMED = 12  # so many episodes have room for their specimen's name
BESIDE = 1.08  # frames: an estimate stands a little to the right of its truth, lest one hide the other
BAND = 2.0  # sigma either side: 95 % of the truth should lie within


def draw(episodes: "Sequence[Episode]", path: Path) -> None:
    """Write the picture. Raises OSError when it cannot be written."""
    page = Canvas(WIDTH, HEIGHT)
    _heading(page, episodes)
    if episodes:
        shown = most_instructive(episodes)
        _track(page, shown)
        _frames(page, shown)
        _facts(page, shown)
        _all(page, episodes)
    done, data = cv2.imencode(".png", page.image)
    if not done:
        raise OSError(0, "OpenCV could not encode the picture", str(path))
    path.write_bytes(data.tobytes())


def most_instructive(episodes: "Sequence[Episode]") -> "Episode":
    """The longest way that led into focus; where none did, the longest track."""
    return max(episodes, key=lambda e: (e.end == "converged" and bool(e.track), abs(_in_h(e)[0]), len(e.track)))


def in_focus(episode: "Episode") -> bool:
    return episode.end == "converged" and abs(episode.residual_m) <= episode.half_depth_of_focus_m


def _in_h(episode: "Episode") -> tuple[float, float]:
    """Start and residual, signed, in half depths of focus."""
    h = episode.half_depth_of_focus_m
    return episode.start_defocus_m / h, episode.residual_m / h


# --- heading ---


def _heading(page: Canvas, episodes: "Sequence[Episode]") -> None:
    page.text((MARGIN, 56), "Finding focus on a virtual microscope", size=32, weight=600)
    page.text((MARGIN, 88), _summary(episodes), size=19, colour=SOFT)


def _summary(episodes: "Sequence[Episode]") -> str:
    if not episodes:
        return "No episode was run."
    good = [e for e in episodes if in_focus(e)]
    words = [f"{len(good)} of {len(episodes)} ended in focus, within half a depth of focus"]
    if good:
        used = [e.frames for e in good]
        words.append(f"after {np.median(used):.0f} frames in the median and {max(used)} at most")
    others = [f"{sum(e.end == end for e in episodes)} {end}" for end in ("held", "failed")]
    words += [each for each in others if not each.startswith("0")]
    return ", ".join(words)


# --- one episode ---


def _track(page: Canvas, episode: "Episode") -> None:
    box = (MARGIN + 62.0, 196.0, 900.0)
    way = "The longest way" if episode.end == "converged" else f"One that {episode.end}"
    page.text((MARGIN, 140), f"{way}: {_name(episode)}, seed {episode.seed}", size=21, weight=600)
    if not episode.track:
        page.text((MARGIN, 180), "No frame of it was published.", size=17, colour=SOFT)
        return
    first, last = 0.5, max(len(episode.track) + 0.5, 2.5)
    defocus = Axes(box[0], box[1] + 34, box[2], 566, (first, last), _range_um(episode))
    score = Axes(box[0], 612, box[2], 712, (first, last), (0.0, 10.0))
    _track_legend(page, episode)
    _phase_bar(page, episode.track, defocus)
    _defocus_grid(page, defocus, episode)
    _estimates(page, defocus, episode)
    _truth(page, defocus, episode)
    _score(page, score, episode.track)


def _range_um(episode: "Episode") -> tuple[float, float]:
    h = episode.half_depth_of_focus_m * 1e6
    values = [point.true_defocus_m * 1e6 for point in episode.track]
    low, high = min(*values, -1.6 * h, 0.0), max(*values, 1.6 * h, 0.0)
    return low - 0.1 * (high - low), high + 0.1 * (high - low)


def _track_legend(page: Canvas, episode: "Episode") -> None:
    x, y = float(MARGIN), 176.0
    page.mark((x + 8, y - 6), "circle", BLUE)
    x += 24 + page.text((x + 22, y), "true defocus of each frame, + below the surface", size=16) + 30
    page.line([(x + 8, y - 15), (x + 8, y + 3)], VERMILLION, 2)
    page.mark((x + 8, y - 6), "diamond", VERMILLION)
    x += 24 + page.text((x + 22, y), f"the agent's estimate ±{BAND:.0f}σ", size=16) + 30
    page.box((x, y - 14), (x + 22, y + 2), GREEN, 0.22)
    page.text((x + 30, y), f"in focus: ±{length(episode.half_depth_of_focus_m)}", size=16)


def _phase_bar(page: Canvas, track: "Sequence[Point]", axes: Axes) -> None:
    """What the agent was doing, above the frames that made it do so; names below where some found no room."""
    y, start, unnamed = axes.top - 34, 0, False
    for i in range(1, len(track) + 1):
        if i < len(track) and track[i].phase == track[start].phase:
            continue
        phase = track[start].phase or "idle"
        left, right = axes.x(start + 0.5) + 1, axes.x(i + 0.5) - 1
        page.box((left, y), (right, y + 6), PHASES.get(phase, RULE))
        if page.width(phase, size=15) < right - left:
            page.text(((left + right) / 2, y + 23), phase, size=15, colour=SOFT, align="middle")
        else:
            unnamed = True
        start = i
    if unnamed:
        _phase_legend(page, {point.phase or "idle" for point in track})


def _phase_legend(page: Canvas, present: set[str]) -> None:
    x, y = float(MARGIN), 766.0
    for phase in (name for name in PHASES if name in present):
        page.box((x, y - 8), (x + 22, y - 2), PHASES[phase])
        x += 30 + page.text((x + 30, y), phase, size=15, colour=SOFT) + 24


def _defocus_grid(page: Canvas, axes: Axes, episode: "Episode") -> None:
    h = episode.half_depth_of_focus_m * 1e6
    page.box((axes.left, axes.y(h)), (axes.right, axes.y(-h)), GREEN, 0.22)
    _rules(page, axes, ticks(*axes.y_range))
    page.line([(axes.left, axes.y(0.0)), (axes.right, axes.y(0.0))], GREEN, 2)
    page.text((MARGIN, axes.top - 20), "µm", size=15, colour=SOFT)


def _rules(page: Canvas, axes: Axes, values: list[float]) -> None:
    step = values[1] - values[0] if len(values) > 1 else 1.0
    for value in values:
        page.line([(axes.left, axes.y(value)), (axes.right, axes.y(value))], RULE)
        page.text((axes.left - 10, axes.y(value) + 5), number(value, step), size=15, colour=SOFT, align="right")


def _estimates(page: Canvas, axes: Axes, episode: "Episode") -> None:
    """The agent's belief where it is new: with each frame that became evidence."""
    known = [
        (i + BESIDE, point.defocus_m * 1e6, point.sigma_m * 1e6)
        for i, point in enumerate(episode.track)
        if point.defocus_m is not None and point.sigma_m is not None and _is_evidence(episode.track, i)
    ]
    upper = [axes.spot(x, z + BAND * sigma) for x, z, sigma in known]
    lower = [axes.spot(x, z - BAND * sigma) for x, z, sigma in known]
    if len(known) > 1:
        page.fill([*upper, *lower[::-1]], VERMILLION, 0.12)
    for (x, z, _), high, low in zip(known, upper, lower, strict=True):
        page.line([high, low], VERMILLION, 2)
        for end in (high, low):
            page.line([(end[0] - 5, end[1]), (end[0] + 5, end[1])], VERMILLION, 2)
        page.mark(axes.spot(x, z), "diamond", VERMILLION, radius=7)


def _is_evidence(track: "Sequence[Point]", index: int) -> bool:
    before = track[index - 1].evidence_frames if index else 0
    return track[index].evidence_frames > before


def _truth(page: Canvas, axes: Axes, episode: "Episode") -> None:
    spots = [axes.spot(i + 1, point.true_defocus_m * 1e6) for i, point in enumerate(episode.track)]
    page.line(spots, BLUE, 2)
    radius = 6.0 if len(spots) <= 30 else 3.5
    for spot in spots:
        page.mark(spot, "circle", BLUE, radius=radius)


def _score(page: Canvas, axes: Axes, track: "Sequence[Point]") -> None:
    page.text((MARGIN, axes.top - 18), "Score of the autofocus model, 0 to 10", size=16)
    _rules(page, axes, [0.0, 5.0, 10.0])
    known = [(i + 1, point.score) for i, point in enumerate(track) if point.score is not None]
    spots = [axes.spot(x, score) for x, score in known]
    page.line(spots, INK, 2) if len(spots) > 1 else None
    for spot in spots:
        page.mark(spot, "circle", INK, radius=4.5 if len(spots) <= 30 else 3.0)
    if not known:
        page.text((axes.left + 12, axes.y(5.0) - 8), "the model gave no score", size=15, colour=SOFT)
    for tick in ticks(1, len(track), most=15, least=1):
        if tick >= 1:
            page.text((axes.x(tick), axes.bottom + 24), number(tick), size=15, colour=SOFT, align="middle")
    page.text((MARGIN, axes.bottom + 24), "frame", size=15, colour=SOFT)


# --- its frames ---


def _frames(page: Canvas, episode: "Episode") -> None:
    left = WIDTH - MARGIN - 2 * FRAME_PX - 20
    shown = [(episode.first, 0, "First frame"), (episode.last, -1, "Last frame")]
    for i, (pixels, index, title) in enumerate(shown):
        x = left + i * (FRAME_PX + 20)
        page.text((x, 140), title, size=21, weight=600)
        page.box((x, 196), (x + FRAME_PX, 196 + FRAME_PX), RULE)
        if pixels is None or not episode.track:
            page.text((x + FRAME_PX / 2, 196 + FRAME_PX / 2), "no frame", size=17, colour=SOFT, align="middle")
            continue
        page.text((x, 176), _where(episode.track[index].true_defocus_m, episode), size=16, colour=SOFT)
        grey, magnified = cut(pixels)
        page.picture((x + (FRAME_PX - grey.shape[1]) // 2, 196 + (FRAME_PX - grey.shape[0]) // 2), grey)
        _scale_bar(page, (x + 14, 196 + FRAME_PX - 14), episode.pixel_size_m, magnified)


def _where(defocus_m: float, episode: "Episode") -> str:
    side = "below" if defocus_m > 0 else "above"
    words = f"focused {length(abs(defocus_m), episode.half_depth_of_focus_m)} {side} the surface"
    return f"in focus, {words[8:]}" if abs(defocus_m) <= episode.half_depth_of_focus_m else words


def cut(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], float]:
    """The middle of a frame, one to one so that sharpness shows; small frames enlarged by a whole number."""
    height, width = pixels.shape
    down, right = max((height - FRAME_PX) // 2, 0), max((width - FRAME_PX) // 2, 0)
    cut = np.asarray(pixels[down : down + FRAME_PX, right : right + FRAME_PX], np.float32)
    low, high = np.percentile(cut, (0.5, 99.5)) if pixels.dtype != np.uint8 else (0.0, 255.0)
    grey = np.clip((cut - low) * (255.0 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)
    times = max(1, FRAME_PX // max(grey.shape))
    return np.kron(grey, np.ones((times, times), np.uint8)), float(times)


def _scale_bar(page: Canvas, corner: tuple[float, float], pixel_size_m: float | None, magnified: float) -> None:
    if pixel_size_m is None:
        return
    shown_m = pixel_size_m / magnified
    metres = next(m for m in ticks(0.0, 0.4 * FRAME_PX * shown_m, most=3) if m > 0)
    long, (x, y) = metres / shown_m, corner
    page.box((x - 8, y - 36), (x + max(long, 60) + 10, y + 8), INK, 0.72)
    page.box((x, y - 6), (x + long, y), PAPER)
    page.text((x, y - 14), length(metres).replace(".0 ", " "), size=16, weight=500, colour=PAPER)


def _facts(page: Canvas, episode: "Episode") -> None:
    left, y = WIDTH - MARGIN - 2 * FRAME_PX - 20, 612.0
    start, residual = _in_h(episode)
    h = episode.half_depth_of_focus_m
    rows = [
        ("Started", f"{length(abs(episode.start_defocus_m), h)} from focus, {abs(start):.1f} half depths of focus"),
        ("Ended", f"{length(abs(episode.residual_m), h)} from focus, {abs(residual):.2f} half depths of focus"),
        ("The agent's last word", _last_word(episode)),
        ("Took", f"{_frames_used(episode)} as evidence, {episode.took_s:.1f} s of microscope time"),
        ("Half a depth of focus", f"{length(h)}" + _pixels_are(episode.pixel_size_m)),
    ]
    for name, words in rows:
        page.text((left, y), name, size=16, colour=SOFT)
        page.text((left + 184, y), words, size=16)
        y += 28


def _last_word(episode: "Episode") -> str:
    words = f"{episode.end}: {episode.reason}" if episode.reason else episode.end
    for point in reversed(episode.track):
        if point.defocus_m is not None and point.sigma_m is not None:
            h = episode.half_depth_of_focus_m
            return f"{words}, {length(point.defocus_m, h)} ± {length(point.sigma_m, h)} from focus"
    return words


def _frames_used(episode: "Episode") -> str:
    return f"{episode.frames} frame{'s' if episode.frames != 1 else ''}"


def _pixels_are(pixel_size_m: float | None) -> str:
    return "" if pixel_size_m is None else f"; pixels are {length(pixel_size_m)}"


def _name(episode: "Episode") -> str:
    return Path(episode.specimen).name


# --- all episodes ---


def _all(page: Canvas, episodes: "Sequence[Episode]") -> None:
    page.text((MARGIN, 806), "All episodes", size=21, weight=600)
    page.text((MARGIN + 140, 806), "distance from focus at the start and at the end, in half depths of focus", size=16)
    axes = Axes(MARGIN + 62, 868, WIDTH - MARGIN, 1150, (0.5, len(episodes) + 0.5), (FEWEST_H, MOST_H), log_y=True)
    page.box((axes.left, axes.y(1.0)), (axes.right, axes.bottom), GREEN, 0.14)
    for value in (0.01, 0.1, 1.0, 10.0, 100.0):
        page.line([(axes.left, axes.y(value)), (axes.right, axes.y(value))], RULE)
        words = f"{value:g}" if value > FEWEST_H else f"≤ {value:g}"
        page.text((axes.left - 10, axes.y(value) + 5), words, size=15, colour=SOFT, align="right")
    page.line([(axes.left, axes.y(1.0)), (axes.right, axes.y(1.0))], GREEN, 2)
    _all_legend(page, {episode.end for episode in episodes})
    for i, episode in enumerate(episodes):
        _one(page, axes, i + 1, episode)
    _names(page, axes, episodes)


def _all_legend(page: Canvas, ends: set[str]) -> None:
    x, y = float(MARGIN), 840.0
    page.mark((x + 8, y - 6), "ring", SOFT)
    x += 24 + page.text((x + 22, y), "where it began", size=16) + 30
    for end, (shape, colour, words) in ENDS.items():
        if end in ends:
            page.mark((x + 8, y - 6), shape, colour)
            x += 24 + page.text((x + 22, y), words, size=16) + 30
    page.box((x, y - 14), (x + 22, y + 2), GREEN, 0.18)
    page.text((x + 30, y), "in focus", size=16)


def _one(page: Canvas, axes: Axes, x: float, episode: "Episode") -> None:
    begin, end = (axes.spot(x, abs(value)) for value in _in_h(episode))
    radius = min(7.0, max(3.5, 0.3 * (axes.x(1) - axes.x(0))))
    page.line([begin, end], FAINT, 2)
    page.mark(begin, "ring", SOFT, radius=radius)
    shape, colour, _ = ENDS.get(episode.end, ENDS["failed"])
    page.mark(end, shape, colour, radius=radius)


def _names(page: Canvas, axes: Axes, episodes: "Sequence[Episode]") -> None:
    """Specimens below their episodes where there is room; seeds otherwise."""
    room = axes.x(2) - axes.x(1) if len(episodes) > 1 else axes.right - axes.left
    if len(episodes) <= NAMED:
        for i, episode in enumerate(episodes):
            page.text((axes.x(i + 1), axes.bottom + 24), _fitting(page, _name(episode), room), size=15, align="middle")
            told = f"{_frames_used(episode)}, {episode.reason}" if episode.reason else _frames_used(episode)
            words = _fitting(page, told, room)
            page.text((axes.x(i + 1), axes.bottom + 46), words, size=15, colour=SOFT, align="middle")
        return
    for tick in ticks(1, len(episodes), most=25, least=1):
        if tick >= 1:
            seed = episodes[round(tick) - 1].seed
            page.text((axes.x(tick), axes.bottom + 24), str(seed), size=15, colour=SOFT, align="middle")
    page.text((MARGIN, axes.bottom + 24), "seed", size=15, colour=SOFT)


def _fitting(page: Canvas, words: str, room: float) -> str:
    if page.width(words, size=15) <= room - 8:
        return words
    while words and page.width(words + "...", size=15) > room - 8:
        words = words[:-1]
    return words + "..."
