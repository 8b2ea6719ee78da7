"""One episode: a fresh specimen out of focus, an agent, and what became of it. Truth is read at the end, from the twin.

An episode ends when the agent's phase has been `converged` or `held` for LINGER_FRAMES, with nothing left to move.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from calibration.twin.controller import Controller, Taken
from calibration.twin.instrument import MicroscopeSettings
from calibration.twin.link import Message
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.script import Action
from calibration.twin.specimen import TEXTURED

FRAME_LIMIT = 120  # frames published; the agent uses few of them
LINGER_FRAMES = 2  # a restoring move may still follow the word `held`
ENDS = ("converged", "held")


@dataclass(frozen=True)
class Point:
    """One frame: where it was taken in truth, and what the agent said when it had seen it."""

    frame: int
    t_s: float
    working_distance_m: float | None  # as commanded
    true_defocus_m: float
    evidence_frames: int  # used so far; the estimate is of the last of them
    phase: str | None  # what the agent does next
    score: float | None
    defocus_m: float | None
    sigma_m: float | None


@dataclass(frozen=True)
class Episode:
    """The truth, never told to the agent. Distances in metres, signed."""

    seed: int
    specimen: str
    start_defocus_m: float
    residual_m: float
    moved_m: float  # last minus first commanded working distance
    half_depth_of_focus_m: float  # h_eff
    frames: int  # used as evidence, as the agent counted them
    end: str  # converged, held, failed
    reason: str
    took_s: float = 0.0  # virtual
    pixel_size_m: float | None = None
    outcomes: tuple[tuple[str, str], ...] = ()
    track: tuple[Point, ...] = field(default=(), repr=False)
    first: NDArray[Any] | None = field(default=None, repr=False)
    last: NDArray[Any] | None = field(default=None, repr=False)

    def told(self) -> dict[str, Any]:
        """The row of `demo --json`."""
        names = ("seed", "specimen", "start_defocus_m", "residual_m", "moved_m", "half_depth_of_focus_m", "frames")
        return {name: getattr(self, name) for name in (*names, "end", "reason")}


class Watcher:
    """Listens to the agent for one session: phase, evidence used, why it holds."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.focus: Message = {}
        self.phase: str | None = None
        self.evidence_frames = 0
        self.hold_reason = ""

    def __call__(self, told: Message) -> None:
        if told.get("session") != self.session:
            return
        if told.get("topic") == "hold":
            self.hold_reason = str(told.get("reason")) if told.get("state") == "begin" else ""
        if told.get("topic") == "focus":
            self.focus = told
        # A status counts once there was a word on this session's frames: its phase may be the last session's.
        if told.get("topic") in ("focus", "status") and self.focus and told.get("phase"):
            self.phase = told["phase"]
            self.evidence_frames = max(self.evidence_frames, int(told.get("evidence_frames") or 0))

    @property
    def ended(self) -> bool:
        return self.phase in ENDS


def plan(count: int, *, seed: int, specimens: Sequence[str] = TEXTURED, **common: Any) -> list[MicroscopeSettings]:
    """The settings of `count` episodes: seeds one after the other, specimens in turn unless `common` names one."""
    return [
        MicroscopeSettings(
            **{"specimen": specimens[i % len(specimens)], "seed": seed + i, "session": f"episode-{seed + i}", **common}
        )
        for i in range(count)
    ]


def run_episode(
    controller: Controller,
    settings: MicroscopeSettings,
    *,
    frame_limit: int = FRAME_LIMIT,
    script: Sequence[Action] = (),
    on_frame: Callable[[Point], None] = lambda _: None,
) -> Episode:
    """Begin a new session with these settings and publish frames until the agent is done, gone, or over the limit.

    The agent must be there already: `controller.wait_for_agent()`.
    """
    scope = VirtualMicroscope(settings, now_ns=controller.scope.now_ns)
    watcher = Watcher(scope.session)
    controller.begin_session(scope, script)
    controller.listeners.append(watcher)
    start = (scope.defocus_m, scope.working_distance_m, scope.now_ns)
    try:
        taken, track = _until_done(controller, watcher, frame_limit, on_frame)
    finally:
        controller.listeners.remove(watcher)
    return _judge(controller, watcher, start, taken, track)


def _until_done(
    controller: Controller, watcher: Watcher, frame_limit: int, on_frame: Callable[[Point], None]
) -> tuple[list[Taken], list[Point]]:
    """The first and the last frame, and the track."""
    kept: list[Taken] = []
    track: list[Point] = []
    standing = 0
    while len(track) < frame_limit and standing <= LINGER_FRAMES and (controller.alive or not track):
        taken = controller.scan()
        kept = [*kept[:1], taken]
        track.append(_point(watcher, taken))
        on_frame(track[-1])
        standing = standing + 1 if watcher.ended and not controller.busy else 0
    return kept, track


def _point(watcher: Watcher, taken: Taken) -> Point:
    told = watcher.focus
    return Point(
        frame=taken.number,
        t_s=(taken.optics.t_end_ns or 0) / 1e9,
        working_distance_m=taken.optics.working_distance_m,
        true_defocus_m=taken.defocus_m,
        evidence_frames=watcher.evidence_frames,
        phase=watcher.phase,
        score=told.get("score"),
        defocus_m=told.get("defocus_m"),
        sigma_m=told.get("sigma_m"),
    )


def _judge(
    controller: Controller, watcher: Watcher, start: tuple[float, float, int], taken: list[Taken], track: list[Point]
) -> Episode:
    scope, (defocus_m, working_distance_m, now_ns) = controller.scope, start
    end = watcher.phase if watcher.phase in ENDS else "failed"
    return Episode(
        seed=scope.settings.seed,
        specimen=scope.settings.specimen,
        start_defocus_m=defocus_m,
        residual_m=scope.defocus_m,
        moved_m=scope.working_distance_m - working_distance_m,
        half_depth_of_focus_m=scope.half_depth_of_focus_m,
        frames=watcher.evidence_frames,
        end=end,
        reason=_reason(controller, watcher, end),
        took_s=(scope.now_ns - now_ns) / 1e9,
        pixel_size_m=scope.settings.pixel_size_m,
        outcomes=tuple((number, outcome.value) for number, outcome in controller.outcomes),
        track=tuple(track),
        first=taken[0].pixels if taken else None,
        last=taken[-1].pixels if taken else None,
    )


def _reason(controller: Controller, watcher: Watcher, end: str) -> str:
    if end == "converged":
        return ""
    if end == "held":
        return watcher.hold_reason or "held"
    if not controller.alive:
        return "no heartbeat from the agent"
    words = f"frame limit in phase {watcher.phase or 'unknown'}"
    return f"{words}, {watcher.hold_reason}" if watcher.hold_reason else words
