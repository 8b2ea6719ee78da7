"""Which live frames may be evidence: the header and the stream's history in, None or the reason against it out. Pure.

A frame counts for the settings in its own header, if it began after the change that made its epoch had settled. The
producer's clock is compared with itself only.
"""

from dataclasses import dataclass, replace

from agent.messages import Frame, Optics

RECURSIVE_SHARE = 0.05  # of an older picture in a recursive average that is still no evidence of the present
SLOW_FRAME = 10.0  # settle times: in a scan so long the first lines alone are late, and a second scan costs minutes
OTHER_COLUMNS = ("ion", "fib", "optical", "camera")  # whose pictures say nothing of the electron column
LEAP = 10_000  # frame numbers skipped at once: no queue loses so many
STEP_BACK_NS = 1_000_000  # a clock that goes back by more is another clock
PASSED_OVER = ("two_sessions", "frame_repeated")  # such a frame says nothing of the stream


@dataclass(frozen=True)
class Stream:
    """What is remembered of the source that focus uses."""

    session: str | None = None
    retired: tuple[str, ...] = ()  # sessions that ended; one that comes back is a second producer
    number: int | None = None
    t_start_ns: int | None = None
    optics_epoch: int | None = None
    scene_epoch: int | None = None
    settled_ns: int | None = None  # producer's clock: frames begun before are no evidence

    def later_than(self, frame: Frame) -> bool:
        """Was it taken before the last one that came? Then it shows nobody's hand of now."""
        if self.number is None or self.t_start_ns is None or frame.optics.t_start_ns is None:
            return False
        return frame.number < self.number and frame.optics.t_start_ns < self.t_start_ns

    def acknowledged(self, optics_epoch: int | None, t_settled_ns: int | None) -> "Stream":
        """The controller said when its change had settled."""
        if t_settled_ns is None:
            return self
        return replace(
            self, optics_epoch=self.optics_epoch if optics_epoch is None else optics_epoch, settled_ns=t_settled_ns
        )


def follow(stream: Stream, frame: Frame, settle_s: float) -> tuple[Stream, str | None, bool]:
    """The next frame -> the stream with it, why it is no evidence (or None), and whether its scene is a new one."""
    optics = frame.optics
    stream, reason, fresh = _session(stream, frame)
    reason = reason or _order(stream, frame)
    if reason in PASSED_OVER:
        return stream, reason, False
    if reason == "clock_jump":
        stream = replace(stream, optics_epoch=None, settled_ns=None)  # what had settled did so by another clock
    new_scene = fresh or (optics.scene_epoch is not None and optics.scene_epoch != stream.scene_epoch)
    stream = _epochs(stream, frame, settle_s, new_scene)
    stream = replace(stream, number=frame.number, t_start_ns=optics.t_start_ns)
    reason = reason or standing_reason(optics) or _settling(stream, optics)
    return stream, reason, new_scene


def standing_reason(optics: Optics) -> str | None:
    """Why a frame with this header is no evidence, whatever came before it."""
    if optics.source is not None and optics.source.split("/")[0].lower() in OTHER_COLUMNS:
        return "not_electron"
    for said, reason in (
        (optics.blanked, "blank"),
        (optics.frozen, "frozen"),
        (optics.auto_function_active, "auto_function"),
        (optics.stage_moving, "stage_moving"),
        (optics.stage_linked, "stage_linked"),
    ):
        if said:
            return reason
    if optics.averaging == "recursive" and 1.0 - 1.0 / max(optics.average_count or 2, 1) > RECURSIVE_SHARE:
        return "averaging"
    if optics.complete is False:
        return "averaging"
    if optics.gamma is not None and abs(optics.gamma - 1.0) > 0.02:
        return "nonlinear"
    if optics.optics_epoch is None or optics.scene_epoch is None or optics.t_start_ns is None:
        return "no_epochs"
    if optics.pixel_size_m is None:
        return "no_pixel_size"
    return "no_epochs" if optics.working_distance_m is None else None


def _session(stream: Stream, frame: Frame) -> tuple[Stream, str | None, bool]:
    session = frame.optics.session or ""
    if session == stream.session:
        return stream, None, False
    if session in stream.retired:
        return stream, "two_sessions", False
    retired = (*stream.retired[-7:], stream.session) if stream.session is not None else stream.retired
    return Stream(session=session, retired=retired), None, True


def _order(stream: Stream, frame: Frame) -> str | None:
    if stream.number is not None:
        if frame.number == stream.number:
            return "frame_repeated"
        if frame.number < stream.number or frame.number - stream.number > LEAP:
            return "frame_jumped"
    began = frame.optics.t_start_ns
    if stream.t_start_ns is not None and began is not None and began < stream.t_start_ns - STEP_BACK_NS:
        return "clock_jump"
    return None


def _epochs(stream: Stream, frame: Frame, settle_s: float, new_scene: bool) -> Stream:
    """A new epoch that no acknowledgement explained settles `settle_s` after its first frame began."""
    optics = frame.optics
    if optics.optics_epoch is None or optics.scene_epoch is None or optics.t_start_ns is None:
        return stream
    if optics.optics_epoch == stream.optics_epoch and not new_scene:
        return stream
    if not new_scene and _late(stream, optics.optics_epoch, optics.t_start_ns):
        return stream
    slow = (optics.frame_time_s or 0.0) >= SLOW_FRAME * settle_s
    known = optics.optics_epoch == stream.optics_epoch and stream.settled_ns is not None and not new_scene
    settled = stream.settled_ns if known else optics.t_start_ns + (0 if slow else round(settle_s * 1e9))
    return replace(stream, optics_epoch=optics.optics_epoch, scene_epoch=optics.scene_epoch, settled_ns=settled)


def _late(stream: Stream, optics_epoch: int, t_start_ns: int) -> bool:
    """A frame from before an acknowledged change, that was still on its way."""
    if stream.optics_epoch is None or stream.settled_ns is None:
        return False
    return optics_epoch < stream.optics_epoch and t_start_ns < stream.settled_ns


def _settling(stream: Stream, optics: Optics) -> str | None:
    if stream.settled_ns is None or optics.t_start_ns is None or optics.t_start_ns >= stream.settled_ns:
        return None
    return "settling"
