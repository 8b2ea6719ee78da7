"""The hands of a sweep: moves inside the envelope from one side, frames that can be believed, and the way back.

A shot that lies in the recording is read instead of taken; so a sweep that goes on is the same code from the top.
"""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.control.envelope import ABSOLUTE, CUMULATIVE, Envelope, Move, gate
from agent.messages import Optics
from calibration.sweep.errors import InterruptedSweepError, RefusedError
from calibration.sweep.instrument import Microscope, Taken
from calibration.sweep.recording import Recording

PLAY_M = 2.5e-6  # more than the play of any lens: so far each approach starts beyond its end
SETTLE_S = 1.5  # where the microscope does not say when it has settled: longer than large changes take
RETAKES = 3  # of a frame whose header says that something was still moving
READ_BACK_M, READ_BACK_UNIT = 100e-9, 2e-3  # what is read back may differ by its own rounding
CLIPPED = 0.5  # share of the pixels at one end of the scale: there is no picture
MOST_STEPS = 400  # of one way: more is a limit that was set by mistake


class Driver:
    """One sweep's hold on a microscope. `start` is where it goes back to, whatever happens."""

    def __init__(self, microscope: Microscope, envelope: Envelope, recording: Recording, *, dose_frames: int) -> None:
        self.microscope, self.envelope, self.recording = microscope, envelope, recording
        self.dose_frames = dose_frames
        self.start = recording.start
        self.spent = 0
        self._settled_ns: int | None = None  # of the last move
        self.moved = False  # whether this process has moved anything
        self.restored = True
        self._shot = 0
        self._side = 0  # of the last approach; 0: unknown
        self._first: Optics | None = None
        self._last: NDArray[Any] | None = None

    # --- shots ---

    def shoot(self, wanted: Move, *, side: int = 1) -> Taken:
        """One settled frame at these settings, approached from below (+1) or from above (-1)."""
        recorded = self._recorded(wanted)
        if recorded is not None:
            return recorded[0][0]
        self._afford(1)
        t_ns = self.approach(wanted, side)
        taken = self.settled(wanted, side)
        self._keep(wanted, [taken], t_ns)
        return taken

    def step(self, before: Move, after: Move, *, frames: int, delay_s: float) -> tuple[list[Taken], int]:
        """A settled frame, then so many from `delay_s` after a change of working distance upwards, then a settled one.

        Also the time of the change. One shot: half of it is worth nothing.
        """
        recorded = self._recorded(after)
        if recorded is not None:
            return recorded
        self._afford(frames + 2)
        self.approach(before, 1)
        taken = [self.settled(before, 1)]
        allowed = gate(after, self.microscope.read(), self.start.working_distance_m, self.envelope)
        if allowed.limits:
            raise RefusedError(f"the limits do not allow {_told(after)} in one step ({', '.join(allowed.limits)})")
        t_ns, _ = self._ask(allowed)
        self.microscope.wait(delay_s)
        taken += [self._frame(after, 1) for _ in range(frames)]
        self.microscope.wait(SETTLE_S)
        taken.append(self.settled(after, 1))
        self._keep(after, taken, t_ns)
        return taken, t_ns

    def _recorded(self, wanted: Move) -> tuple[list[Taken], int] | None:
        found = self.recording.read(self._shot, wanted)
        if found is not None:
            self._shot += 1
            self.spent += len(found[0])
            self._first = self._first or found[0][0].optics
        return found

    def _afford(self, frames: int) -> None:
        if self.spent + frames > self.dose_frames:
            raise RefusedError(
                f"{self.dose_frames} frames are not enough: {self.spent} are spent and {frames} more are due; "
                "give more with --dose-frames"
            )

    def _keep(self, wanted: Move, taken: list[Taken], t_ns: int) -> None:
        try:
            self.recording.keep(wanted, taken, t_ns)
        except OSError as error:
            raise InterruptedSweepError(
                f"{self.recording.folder}: a frame cannot be kept: {error.strerror or error}"
            ) from error
        self._shot += 1

    # --- moves ---

    def window_m(self) -> tuple[float, float]:
        """Working distances that may be asked for."""
        home, e = self.start.working_distance_m, self.envelope
        return (
            max(e.working_distance_min_m, home - e.cumulative_m),
            min(e.working_distance_max_m, home + e.cumulative_m),
        )

    def approach(self, wanted: Move, side: int) -> int:
        """From beyond the play of the lens, unless the last one came this way too. Returns when it was asked."""
        here = self.microscope.read()
        ahead = side * (wanted.working_distance_m - here.working_distance_m) >= 0
        if not (ahead and self._side == side):
            low, high = self.window_m()
            beyond = min(max(wanted.working_distance_m - side * PLAY_M, low), high)
            self.go(replace(wanted, working_distance_m=beyond))
        self._side = side
        return self.go(wanted)

    def go(self, wanted: Move) -> int:
        """There, in as many steps as the envelope asks for. Raises RefusedError where it may not or does not go."""
        now, t_ns = self.microscope.read(), 0
        for _ in range(MOST_STEPS):
            allowed = gate(wanted, now, self.start.working_distance_m, self.envelope)
            if {ABSOLUTE, CUMULATIVE} & set(allowed.limits):
                raise RefusedError(
                    f"the limits end before {_told(wanted)} ({', '.join(allowed.limits)}): widen them, or begin nearer "
                    "to focus"
                )
            t_ns, now = self._ask(allowed)
            if _near(now, wanted):
                return t_ns
        raise RefusedError(f"{_told(wanted)} is more than {MOST_STEPS} steps away: allow larger ones")

    def _ask(self, allowed: Move) -> tuple[int, Move]:
        self.moved = True
        moved = self.microscope.move(allowed)
        if not _near(moved.at, allowed):
            raise RefusedError(_disobeyed(allowed, moved.at))
        self._settled_ns = moved.settled_ns
        return moved.t_ns, moved.at

    def restore(self) -> None:
        """Back to where the sweep began, from beyond the play as every other approach."""
        if self.moved:
            self.restored, self._side = False, 0
            self.approach(self.start, 1)
            self._wait()
            self.restored = True

    def _wait(self) -> None:
        if self._settled_ns is None:
            self.microscope.wait(SETTLE_S)
        else:
            self.microscope.wait_until(self._settled_ns)

    # --- frames ---

    def settled(self, at: Move, side: int) -> Taken:
        """A frame that began when nothing moved any more, as far as anybody says."""
        self._wait()
        for _ in range(RETAKES):
            taken = self._frame(at, side)
            if taken.optics.optics_epoch is not None or self._first is None or self._first.optics_epoch is None:
                self._first = self._first or taken.optics
                return taken
            self.microscope.wait(SETTLE_S)
        raise InterruptedSweepError(f"the microscope does not come to rest at {_told(at)}: its frames carry no epoch")

    def _frame(self, at: Move, side: int) -> Taken:
        pixels, optics = self.microscope.frame()
        self.spent += 1
        here = self.microscope.read()
        if not _near(here, at):
            raise InterruptedSweepError(
                f"somebody moved the microscope: it was left at {_told(at)} and stands at {_told(here)}"
            )
        self._check_scene(optics)
        shown = pixels[: pixels.shape[0] - (optics.databar_rows or 0)]
        self._check_signal(shown, optics)
        told = msgspec.structs.replace(
            optics,
            working_distance_m=here.working_distance_m,
            stigmator_x=here.stigmator_x,
            stigmator_y=here.stigmator_y,
        )
        return Taken(shown, told, here, side)

    def _check_scene(self, optics: Optics) -> None:
        """All frames of a sweep must be of one place, one voltage and one size."""
        if self._first is None:
            return
        for name in ("source", "scene_epoch", "pixel_size_m", "landing_energy_ev", "aperture_m", "lens_mode"):
            before, now = getattr(self._first, name), getattr(optics, name)
            if before != now:
                raise InterruptedSweepError(f"{name} changed from {before!r} to {now!r} during the sweep: begin anew")

    def _check_signal(self, pixels: NDArray[Any], optics: Optics) -> None:
        for name in ("blanked", "frozen", "auto_function_active", "stage_moving"):
            if getattr(optics, name):
                raise InterruptedSweepError(f"loss of signal: the header says {name}; mend it and go on")
        low, high = pixels.min(), pixels.max()
        if low == high:
            raise InterruptedSweepError(f"loss of signal: every pixel is {low}; look at beam and detector, and go on")
        if max(np.mean(pixels == low), np.mean(pixels == high)) > CLIPPED:
            raise InterruptedSweepError("loss of signal: half of the pixels are black or white; mind the contrast")
        if self._last is not None and np.array_equal(self._last, pixels):
            raise InterruptedSweepError("loss of signal: two frames are the same to the bit; unfreeze the scan")
        self._last = pixels


def _near(one: Move, other: Move) -> bool:
    return (
        abs(one.working_distance_m - other.working_distance_m) <= READ_BACK_M
        and abs(one.stigmator_x - other.stigmator_x) <= READ_BACK_UNIT
        and abs(one.stigmator_y - other.stigmator_y) <= READ_BACK_UNIT
    )


def _disobeyed(asked: Move, got: Move) -> str:
    """Names the knob that reads back something else than it was told."""
    if abs(asked.working_distance_m - got.working_distance_m) > READ_BACK_M:
        return (
            f"the working distance does not do as told: {asked.working_distance_m * 1e3:.6f} mm were asked for, "
            f"{got.working_distance_m * 1e3:.6f} mm are read back; look at the lens supply and at its own limits"
        )
    for axis in ("x", "y"):
        wanted, read = getattr(asked, f"stigmator_{axis}"), getattr(got, f"stigmator_{axis}")
        if abs(wanted - read) > READ_BACK_UNIT:
            return (
                f"stigmator {axis} does not do as told: {wanted:+.4f} was asked for, {read:+.4f} is read back; "
                "look at its supply and at its own limits"
            )
    return "the microscope does not do as told"


def _told(move: Move) -> str:
    return f"{move.working_distance_m * 1e3:.6f} mm, stigmators {move.stigmator_x:+.3f} {move.stigmator_y:+.3f}"
