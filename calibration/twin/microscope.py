"""The virtual microscope: knobs and a virtual clock in, frames with their headers out. It knows the truth and tells it
to nobody but its owner: a header carries only what a real instrument could read back."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.messages import Optics, Outcome
from calibration.certificate import Certificate
from calibration.twin import cad, charge, scan, specimen
from calibration.twin.column import Column
from calibration.twin.exposure import Exposure, Span
from calibration.twin.instrument import MicroscopeSettings, certify, draw
from calibration.twin.readback import ELECTRON_C, Applied, applied, header
from calibration.twin.view import MARGIN, View

BANDS_WHILE_MOVING = 4  # a frame during which the optics move is scanned in this many steps
STAGE_SETTLE_S = 0.3
FULL_RANGE = (0.06, 0.94)  # of full scale: where auto-contrast puts the darkest and the brightest
FELT_H = 0.05  # of h_eff: heights that span less change nothing that could be seen


class VirtualMicroscope:
    """Time is virtual: `frame()` takes a frame time, `wait()` lets time pass, and changes happen at `now_ns`."""

    def __init__(self, settings: MicroscopeSettings | None = None, *, now_ns: int = 0) -> None:
        self.settings = s = settings or MicroscopeSettings()
        self.drawn = draw(s)
        self.now_ns = self._born_ns = now_ns
        self.session = s.session or f"twin-{s.specimen}-{s.seed}"
        self.site = 0
        self.column = self._start()
        self.scene_epoch, self.scene_settled_ns = 1, now_ns
        self.brightness, self.contrast, self.averages = s.brightness, s.contrast, s.averages
        self.blanked = self.frozen = self.auto_function_active = False
        self.tell_frozen = True
        self.frames_taken = 0
        self._begun_ns: int | None = None
        self._last: NDArray[Any] | None = None
        self._rng = np.random.default_rng([s.seed, 103])
        self._exposure = Exposure(s, self._rng, now_ns=now_ns)
        self._view = self._look()
        self._first_lens_m = self.column.lens_m
        in_focus = self._signal(z_m=0.0, ax_m=0.0, ay_m=0.0)
        self.electrons_per_pixel = self._dose(in_focus)
        self._gain, self._offset = self._full_range(in_focus)

    # Truth: for the owner, never in a header.

    @property
    def defocus_m(self) -> float:
        """z now: where the lens really focuses minus where it should."""
        return float(self.column.motion.at(self.now_ns)[0]) - self.drawn.in_focus_working_distance_m

    @property
    def astigmatism_m(self) -> tuple[float, float]:
        return self._astigmatism(self.column.motion.at(self.now_ns))

    @property
    def half_depth_of_focus_m(self) -> float:
        """h_eff with the true in-focus probe."""
        return self.settings.half_depth_of_focus_m

    # What anybody may read.

    @property
    def working_distance_m(self) -> float:
        return self.column.working_distance_m

    @property
    def optics_epoch(self) -> int:
        return self.column.epoch

    @property
    def settled_ns(self) -> int:
        """When everything has settled, virtual clock."""
        return max(self.column.settled_ns, self.scene_settled_ns)

    @property
    def frame_time_s(self) -> float:
        return self.settings.frame_time_s * self.passes

    @property
    def passes(self) -> int:
        """Scans of each line within one frame; a recursive average takes its time from frame to frame."""
        return 1 if self.settings.averaging == "recursive" else self.averages

    # Time.

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def wait_until(self, t_ns: int) -> None:
        self.now_ns = max(self.now_ns, t_ns)

    def begin(self) -> int:
        """Start a frame now, so that what is changed before `frame()` falls into it. Returns when it will end."""
        self._begun_ns = self.now_ns
        return self.now_ns + round(self.frame_time_s * 1e9)

    # Knobs. Each is clipped to its range or refused, and says so.

    def set_working_distance(self, working_distance_m: float) -> Applied:
        limits, here = self.settings.limits, self.column.working_distance_m
        if not np.isfinite(working_distance_m) or abs(working_distance_m - here) > limits.step_m * (1 + 1e-9):
            return applied(self, Outcome.REJECTED)
        wanted = float(np.clip(working_distance_m, limits.working_distance_min_m, limits.working_distance_max_m))
        self.column.focus(wanted, self.now_ns)
        return applied(self, Outcome.APPLIED if wanted == working_distance_m else Outcome.CLIPPED)

    def set_stigmators(self, x: float, y: float) -> Applied:
        if not np.isfinite([x, y]).all():
            return applied(self, Outcome.REJECTED)
        low, high = self.settings.limits.stigmator_min, self.settings.limits.stigmator_max
        wanted = (float(np.clip(x, low, high)), float(np.clip(y, low, high)))
        self.column.stigmate(*wanted, self.now_ns)
        return applied(self, Outcome.APPLIED if wanted == (x, y) else Outcome.CLIPPED)

    def set_exposure(
        self, *, brightness: float | None = None, contrast: float | None = None, averages: int | None = None
    ) -> Applied:
        """Brightness: offset, 0.5 = as at the start, +0.1 = 10 % of full scale. Contrast: gain, proportional."""
        wanted = (
            self.brightness if brightness is None else brightness,
            self.contrast if contrast is None else contrast,
        )
        if not np.isfinite(wanted).all():
            return applied(self, Outcome.REJECTED)
        clipped = (float(np.clip(wanted[0], 0.0, 1.0)), float(np.clip(wanted[1], 0.01, 1.0)))
        if clipped != (self.brightness, self.contrast):
            self.brightness, self.contrast = clipped
            self._scene_changed()
        self.averages = int(np.clip(averages or self.averages, 1, 64))
        return applied(self, Outcome.APPLIED if clipped == wanted else Outcome.CLIPPED)

    def auto_contrast(self) -> Applied:
        """Gain and offset anew for the picture as it is; both knobs read 0.5 afterwards."""
        self._gain, self._offset = self._full_range(self._signal_at(self.now_ns, self.now_ns))
        self.brightness = self.contrast = 0.5
        self._scene_changed()
        return applied(self, Outcome.APPLIED)

    def move_stage(self, *, defocus_change_m: float = 0.0) -> Applied:
        """Another site of the same specimen, where the surface may lie higher or lower."""
        self.site += 1
        here = self.drawn.in_focus_working_distance_m
        self.drawn = replace(self.drawn, in_focus_working_distance_m=here - defocus_change_m)
        self._view = self._look()
        self._exposure.fresh_site(self.now_ns)
        self._scene_changed(STAGE_SETTLE_S)
        return applied(self, Outcome.APPLIED)

    def blank(self, on: bool = True) -> None:
        self.blanked = on
        self._scene_changed()

    def freeze(self, on: bool = True, *, tell: bool = True) -> None:
        """Repeat the last picture; `tell=False` is a producer that does not say so."""
        self.frozen, self.tell_frozen = on, tell

    # The picture.

    def frame(self) -> tuple[NDArray[Any], Optics]:
        """The frame begun by `begin()`, or begun now. The clock stands at its end afterwards."""
        start_ns = self.now_ns if self._begun_ns is None else self._begun_ns
        self._begun_ns = None
        self.wait_until(start_ns + round(self.frame_time_s * 1e9))
        if not self.frozen or self._last is None:
            self._last, start_ns = self._expose(start_ns)
        self.frames_taken += 1
        return self._last, header(self, start_ns)

    def certificate(self, *, alpha_error: float = 0.0, made: datetime | None = None) -> Certificate:
        """The true constants of this column; `alpha_error=-0.3` writes alpha 30 % too low and says nothing of it."""
        return certify(self.settings, self.drawn, alpha_error=alpha_error, made=made or datetime.now(UTC))

    # Inside.

    def _start(self) -> Column:
        lens = self.drawn.in_focus_working_distance_m + self.drawn.start_defocus_m
        commanded = lens + self.drawn.slack * self.settings.hysteresis_m / 2.0
        return Column(commanded, lens, self.settings.hysteresis_m, actuator=self.settings.actuator)

    def _look(self) -> View:
        s = self.settings
        plane, height_m, home = self._plane()
        if s.contamination:
            (h, w), (top, left), (x0, y0, x1, y1) = s.shape, home, s.contamination_box
            box = (left + w * x0, top + h * y0, left + w * x1, top + h * y1)
            plane = charge.contaminate(plane, box, darker=s.contamination)
        if height_m is not None:
            height_m = np.asarray(height_m - np.median(height_m), np.float32)  # z is quoted at the middle height
            if float(np.ptp(height_m)) < FELT_H * s.half_depth_of_focus_m:
                height_m = None
        return View(plane, s.shape, home=home, pixel_size_m=s.pixel_size_m, probe=s.probe, height_m=height_m)

    def _plane(self) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, tuple[int, int]]:
        """Emission and heights of this site, and where on them the frame's first pixel lies (row, column)."""
        s = self.settings
        seed = s.seed + 7919 * self.site
        if s.picture is not None and s.height_m is not None:
            return np.asarray(s.picture, np.float32), s.height_m, (0, 0)
        if s.picture is not None:
            return specimen.from_image(s.picture, s.shape, seed=seed), None, (0, 0)
        size, home = (s.shape[0] + 2 * MARGIN, s.shape[1] + 2 * MARGIN), (MARGIN, MARGIN)
        if s.layout is not None:
            seen = cad.surface(s.layout, size, pixel_size_m=s.pixel_size_m, seed=seed)
        else:
            seen = specimen.surface(s.specimen, size, pixel_size_m=s.pixel_size_m, seed=seed)
        felt = s.layout is not None or s.topography
        return specimen.shown(seen, s.lit), seen.height_m if felt else None, home

    def _dose(self, in_focus: NDArray[np.float32]) -> float:
        s = self.settings
        if s.beam_current_a is not None:
            return s.beam_current_a * s.dwell_s / ELECTRON_C
        return scan.electrons_for_snr(in_focus, s.snr, s.variance_factor)

    def _full_range(self, signal: NDArray[np.float32]) -> tuple[float, float]:
        counts = self._counts(signal, np.random.default_rng([self.settings.seed, 104]))
        low, high = (float(v) for v in np.percentile(counts, [0.05, 99.95]))
        high = max(high, float(signal.max()) * self.electrons_per_pixel, low + 1.0)
        gain = (FULL_RANGE[1] - FULL_RANGE[0]) / (high - low)
        return gain, FULL_RANGE[0] - gain * low

    def _counts(self, signal: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        return scan.expose(
            signal,
            electrons_per_pixel=self.electrons_per_pixel,
            rng=rng,
            variance_factor=self.settings.variance_factor,
            averages=self.passes,
        )

    def _expose(self, start_ns: int) -> tuple[NDArray[Any], int]:
        """The pixels, and the start of the oldest scan that is part of them."""
        s = self.settings
        signal = np.zeros(s.shape, np.float32) if self.blanked else self._scanned(start_ns)
        dose = 0.0 if self.blanked else self.electrons_per_pixel
        signal = self._exposure.disturbed(signal, self._span(start_ns), electrons_per_pixel=dose)
        counts = scan.amplifier(self._counts(signal, self._rng), s.amplifier_lag_px)
        gain, offset = self._gain * self.contrast / 0.5, self._offset + self.brightness - 0.5
        if s.averaging == "recursive":  # the memory holds grey levels: a turn of a knob shows as slowly as a move
            levels = np.asarray(counts * np.float32(gain) + np.float32(offset), np.float32)
            counts, start_ns = self._exposure.averaged(levels, start_ns, count=self.averages)
            gain, offset = 1.0, 0.0
        pixels = scan.digitise(counts, gain=gain, offset=offset, bits=s.bits, gamma=s.gamma)
        text = f"{s.accelerating_voltage_v / 1e3:.1f} kV  WD {self.working_distance_m * 1e3:.3f} mm"
        return scan.databar(pixels, s.databar_rows, text), start_ns

    def _span(self, start_ns: int) -> Span:
        by_line = self.settings.averaging == "line"
        return Span(start_ns=start_ns, end_ns=self.now_ns, passes=self.passes, by_line=by_line)

    def _scanned(self, start_ns: int) -> NDArray[np.float32]:
        """Row by row as time goes: where the optics move during the frame, each band sees its own."""
        span = self.now_ns - start_ns
        if start_ns >= self.column.settled_ns:
            return self._signal_at(start_ns, self.now_ns)
        rows = np.linspace(0, self.settings.shape[0], BANDS_WHILE_MOVING + 1).astype(int)
        times = [start_ns + span * (2 * i + 1) // (2 * BANDS_WHILE_MOVING) for i in range(BANDS_WHILE_MOVING)]
        bands = zip(rows[:-1], rows[1:], times, strict=True)
        return np.concatenate([self._signal_at(t, t)[a:b] for a, b, t in bands])

    def _signal_at(self, start_ns: int, end_ns: int) -> NDArray[np.float32]:
        state = self.column.motion.at((start_ns + end_ns) // 2)
        z = float(state[0]) - self.drawn.in_focus_working_distance_m
        ax, ay = self._astigmatism(state)
        return self._view.picture(
            z_m=z,
            ax_m=ax,
            ay_m=ay,
            shifts_px=np.array([self._shift_px(t, float(state[0])) for t in self._scan_times(start_ns, end_ns)]),
            magnified=1.0 + z / self.drawn.in_focus_working_distance_m if self.settings.scale_with_focus else 1.0,
            sheared_px=self._shear_px(),
        )

    def _signal(self, *, z_m: float, ax_m: float, ay_m: float) -> NDArray[np.float32]:
        return self._view.picture(z_m=z_m, ax_m=ax_m, ay_m=ay_m, shifts_px=np.zeros((1, 2)))

    def _scan_times(self, start_ns: int, end_ns: int) -> list[int]:
        """The middle of each scan that is averaged into the frame; line by line there is one long scan."""
        count = 1 if self.settings.averaging == "line" else self.passes
        each = (end_ns - start_ns) / count
        return [start_ns + round(each * (i + 0.5)) for i in range(count)]

    def _shear_px(self) -> tuple[float, float]:
        """Drift from the first line of a scan to the last, x and y."""
        s = self.settings
        if not s.drift_in_frame:
            return 0.0, 0.0
        passes = self.passes if s.averaging == "line" else 1
        frames = s.line_time_s * s.shape[0] * passes / s.frame_time_s
        drift_x, drift_y = self.drawn.drift_px_per_frame
        return drift_x * frames, drift_y * frames

    def _shift_px(self, t_ns: int, lens_m: float) -> tuple[float, float]:
        frames = (t_ns - self._born_ns) / 1e9 / self.settings.frame_time_s
        moved_um = (lens_m - self._first_lens_m) * 1e6
        (drift_x, drift_y), (per_x, per_y) = self.drawn.drift_px_per_frame, self.drawn.shift_px_per_um
        return drift_x * frames + per_x * moved_um, drift_y * frames + per_y * moved_um

    def _astigmatism(self, state: NDArray[np.float64]) -> tuple[float, float]:
        matrix = np.asarray(self.settings.stigmator_matrix_m)
        ax, ay = np.asarray(self.drawn.astigmatism_m) + matrix @ state[1:]
        return float(ax), float(ay)

    def _scene_changed(self, seconds: float = 0.0) -> None:
        self.scene_epoch += 1
        self.scene_settled_ns = self.now_ns + round(seconds * 1e9)
