"""Two curves of a focus episode as SVG: what happened frame by frame, and the same through focus."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.commands.canvas import Axes, length
from agent.commands.report_html import Drawing, figure, legend

if TYPE_CHECKING:
    from calibration.twin.episode import Episode, Point

INTERVAL = 1.96  # sigma either side: 95 %
SIZE = (500.0, 320.0)  # of a curve: readable at its own size and on a phone
BESIDE = 0.1  # frames: an estimate stands a little to the right of its truth, lest one hide the other


def _estimates(episode: "Episode") -> "list[tuple[int, Point, float, float]]":
    """(frame from 1, point, defocus, half of the 95 % interval), um, where a frame brought a new estimate."""
    known, before = [], 0
    for i, point in enumerate(episode.track):
        if point.evidence_frames > before and point.defocus_m is not None and point.sigma_m is not None:
            known.append((i + 1, point, point.defocus_m * 1e6, INTERVAL * point.sigma_m * 1e6))
        before = max(before, point.evidence_frames)
    return known


def _y_range(episode: "Episode") -> tuple[float, float]:
    """Truth and estimates, um, with room for their intervals; only a very wide one may run out of it."""
    h = episode.half_depth_of_focus_m * 1e6
    known = _estimates(episode)
    values = [point.true_defocus_m * 1e6 for point in episode.track] + [z for _, _, z, _ in known]
    low, high = min(*values, -2.0 * h), max(*values, 2.0 * h)
    room = 0.5 * (high - low)
    ends = [end for _, _, z, half in known for end in (z - half, z + half)]
    low, high = max(min(low, *ends, low), low - room), min(max(high, *ends, high), high + room)
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def track(episode: "Episode") -> str:
    label = f"Defocus over {len(episode.track)} frames: {where(episode.track[0], episode)} at first, "
    drawing = Drawing(*SIZE, label + f"{where(episode.track[-1], episode)} at the end")
    last = max(len(episode.track) + 0.5, 2.5)
    axes = Axes(58, 26, SIZE[0] - 12, SIZE[1] - 44, (0.5, last), _y_range(episode))
    h = episode.half_depth_of_focus_m * 1e6
    drawing.box((axes.left, axes.y(h)), (axes.right, axes.y(-h)), "band")
    drawing.scale_y(axes)
    drawing.scale_x(axes, most=10, least=1.0)
    drawing.text((2, 14), "defocus, µm", kind="f-soft")
    drawing.text((axes.right, SIZE[1] - 6), "frame", kind="f-soft", align="end")
    spots = [axes.spot(i + 1, point.true_defocus_m * 1e6) for i, point in enumerate(episode.track)]
    drawing.line(spots, "s-blue", 2.0)
    for spot in spots:
        drawing.mark(spot, "circle", "f-blue", 5.5 if len(spots) <= 30 else 3.0)
    for i, _, z, half in _estimates(episode):
        _estimate(drawing, axes, i + BESIDE, z, half)
    keys = legend(
        ("circle", "f-blue", "true defocus of each frame"),
        ("diamond", "f-vermillion", "the agent's estimate, 95 % interval"),
        ("band", "band", f"in focus: ±{length(episode.half_depth_of_focus_m)}"),
    )
    return figure(str(drawing) + keys, "The track: what was true, and what the agent believed, frame by frame.")


def _estimate(drawing: Drawing, axes: Axes, x: float, z: float, half: float) -> None:
    drawing.error_bar(axes.spot(x, z), axes.y(z - half), axes.y(z + half), "s-vermillion")
    drawing.mark(axes.spot(x, z), "diamond", "f-vermillion", 6.0)


def through_focus(episode: "Episode") -> str:
    """Score and estimate over the commanded working distance, counted from the one that is truly in focus."""
    known = [(i + 1, point) for i, point in enumerate(episode.track) if point.working_distance_m is not None]
    if not known:
        return ""
    focus_m = (known[-1][1].working_distance_m or 0.0) - known[-1][1].true_defocus_m
    places = {i: ((point.working_distance_m or 0.0) - focus_m) * 1e6 for i, point in known}
    across = _around(list(places.values()), episode.half_depth_of_focus_m * 1e6)
    drawing = Drawing(*SIZE, f"Score and estimated defocus at {len(known)} working distances around true focus")
    score = Axes(58, 26, SIZE[0] - 12, 112, across, (0.0, 10.0))
    defocus = Axes(58, 156, SIZE[0] - 12, SIZE[1] - 44, across, _y_range(episode))
    _scores(drawing, score, [(places[i], i, point) for i, point in known], episode)
    _believed(drawing, defocus, places, episode)
    drawing.text((2, 14), "score of the autofocus model, 0 to 10; numbers: frames", kind="f-soft")
    drawing.text((2, 144), "estimated defocus, µm", kind="f-soft")
    beside = "commanded working distance from true focus, µm"
    drawing.text((defocus.right, SIZE[1] - 6), beside, kind="f-soft", align="end")
    keys = legend(
        ("circle", "f-ink", "score"),
        ("diamond", "f-vermillion", "the agent's estimate, 95 % interval"),
        ("dashed", "s-blue", "truth"),
        ("band", "band", "in focus"),
    )
    return figure(
        str(drawing) + keys, f"Through focus: the same frames by working distance. {_focus_told(episode, focus_m)}"
    )


def _around(places: list[float], h: float) -> tuple[float, float]:
    low, high = min(*places, 0.0), max(*places, 0.0)
    room = max(0.12 * (high - low), 1.2 * h)
    return low - room, high + room


def _believed(drawing: Drawing, axes: Axes, places: dict[int, float], episode: "Episode") -> None:
    """The estimates, on the line where they should lie."""
    h = episode.half_depth_of_focus_m * 1e6
    drawing.box((axes.x(-h), axes.top), (axes.x(h), axes.bottom), "band")
    drawing.scale_y(axes, 4)
    drawing.scale_x(axes)
    ends = max(axes.x_range[0], axes.y_range[0]), min(axes.x_range[1], axes.y_range[1])
    drawing.line([axes.spot(end, end) for end in ends], "s-blue dash", 1.5)
    for i, _, z, half in _estimates(episode):
        if i in places:
            _estimate(drawing, axes, places[i], z, half)


def _focus_told(episode: "Episode", focus_m: float) -> str:
    """Where the agent had focus in the end, and where it is."""
    for point in reversed(episode.track):
        if None not in (point.defocus_m, point.sigma_m, point.working_distance_m):
            believed_m = (point.working_distance_m or 0.0) - (point.defocus_m or 0.0)
            believed = f"{believed_m * 1e3:.4f} mm ± {in_um(INTERVAL * (point.sigma_m or 0.0))} µm"
            return f"In the end the agent had focus at {believed}; it is at {focus_m * 1e3:.4f} mm."
    return f"True focus is at {focus_m * 1e3:.4f} mm; the agent never told an estimate."


def _scores(drawing: Drawing, axes: Axes, known: "list[tuple[float, int, Point]]", episode: "Episode") -> None:
    h = episode.half_depth_of_focus_m * 1e6
    drawing.box((axes.x(-h), axes.top), (axes.x(h), axes.bottom), "band")
    drawing.scale_y(axes, 2)
    spots = sorted((axes.x(at), axes.y(point.score), i) for at, i, point in known if point.score is not None)
    drawing.line([(x, y) for x, y, _ in spots], "s-soft", 1.0)
    for x, y, _ in spots:
        drawing.mark((x, y), "circle", "f-ink", 4.5)
    for x, y, shared in _gathered(spots):
        drawing.text((x, y - 9 if y > axes.top + 18 else y + 20), shared, kind="f-soft", align="middle", size=12)
    if not spots:
        drawing.text((axes.left + 10, axes.y(5.0) + 5), "the model gave no score", kind="f-soft")


def _gathered(spots: list[tuple[float, float, int]]) -> list[tuple[float, float, str]]:
    """Frames that stand at one place share their label: numbers on top of one another tell nothing."""
    groups: list[list[tuple[float, float, int]]] = []
    for spot in spots:
        if groups and spot[0] - groups[-1][0][0] < 24.0:
            groups[-1].append(spot)
        else:
            groups.append([spot])
    return [(group[0][0], group[0][1], runs(sorted(i for _, _, i in group))) for group in groups]


def runs(numbers: Sequence[int]) -> str:
    """1, 4-7"""
    parts: list[list[int]] = []
    for i in numbers:
        if parts and i == parts[-1][-1] + 1:
            parts[-1].append(i)
        else:
            parts.append([i])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


# --- in words ---


def where(point: "Point", episode: "Episode") -> str:
    h, z = episode.half_depth_of_focus_m, point.true_defocus_m
    side = "below" if z > 0 else "above"
    how_far = f"{length(abs(z), h)} {side} the surface ({abs(z) / h:.1f} h)"
    return f"in focus, {how_far}" if abs(z) <= h else f"focused {how_far}"


def in_um(metres: float) -> str:
    """Two decimals up to 100 um; coarse pixels mean long ways, and none below."""
    return f"{metres * 1e6:.{2 if abs(metres) < 1e-4 else 0}f}"


def signed_um(metres: float) -> str:
    return ("+" if metres > 0 else "−" if metres < 0 else "") + in_um(abs(metres))
