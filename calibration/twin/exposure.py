"""What scan, charge and averaging do to the noiseless picture on its way to grey levels. It remembers what an
instrument remembers: how charged the field is, and the picture that a recursive average still holds."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.twin import charge, scan
from calibration.twin.instrument import MicroscopeSettings

Field = NDArray[np.float32]

STALE = 0.05  # share of a recursive average below which its older scans no longer count as part of the frame
SLOW_LINE = 0.05  # of a mains period: a longer line is bent within itself, and not only moved


@dataclass(frozen=True, kw_only=True)
class Span:
    """When a frame is scanned, and in how many passes over each line."""

    start_ns: int
    end_ns: int
    passes: int
    by_line: bool  # all passes of a line before the next line

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def line_starts_s(self, rows: int, line_time_s: float) -> NDArray[np.float64]:
        """(rows, passes), by the clock that the mains follow."""
        row, one = np.arange(rows)[:, None], np.arange(self.passes)[None, :]
        if self.by_line:
            since = (row * self.passes + one) * line_time_s
        else:
            since = one * (self.seconds / self.passes) + row * line_time_s
        return np.asarray(self.start_ns / 1e9 + since, np.float64)


class Exposure:
    """The detector's side of one microscope; the same calls with the same generator give the same bytes."""

    def __init__(self, settings: MicroscopeSettings, rng: np.random.Generator, *, now_ns: int) -> None:
        self.settings, self._rng = settings, rng
        self._held: Field | None = None
        self._starts_ns: deque[int] = deque()
        self.fresh_site(now_ns)

    def fresh_site(self, now_ns: int) -> None:
        """Nothing was scanned here before."""
        self._charge = self._charge_after(0.0, 0.0, 0.0)
        self._charged_ns = now_ns

    # Before the electrons are counted.

    def disturbed(self, signal: Field, span: Span, *, electrons_per_pixel: float) -> Field:
        """Lines displaced, then charge: 0 electrons while the beam is blanked, which lets the charge run off."""
        before = self._charge_after(self._charge, (span.start_ns - self._charged_ns) / 1e9, 0.0)
        self._charge = self._charge_after(before, span.seconds, electrons_per_pixel * span.passes)
        self._charged_ns = span.end_ns
        return self._charged(self._displaced(signal, span), 0.5 * (before + self._charge))

    def _charge_after(self, level: float, seconds: float, electrons_per_pixel: float) -> float:
        s = self.settings
        return charge.charge_after(
            level,
            seconds,
            electrons_per_pixel=electrons_per_pixel,
            full_electrons=s.charging_electrons,
            relaxes_s=s.charging_relaxes_s,
        )

    def _displaced(self, signal: Field, span: Span) -> Field:
        s = self.settings
        rows = signal.shape[0]
        shift = np.zeros((rows, span.passes), np.float32)
        if s.line_jitter_px > 0.0:
            shift += self._jitter(rows, span)
        if s.hum_px > 0.0 and s.line_time_s * s.hum_hz > SLOW_LINE:
            signal = self._bent(signal, span)
        elif s.hum_px > 0.0:
            middles = span.line_starts_s(rows, s.line_time_s) + 0.5 * s.dwell_s * signal.shape[1]
            shift += scan.hum(middles, amplitude_px=s.hum_px, frequency_hz=s.hum_hz)
        if not shift.any():
            return signal
        return scan.displace_rows(signal, shift[:, 0] if span.passes == 1 else shift)

    def _jitter(self, rows: int, span: Span) -> Field:
        """(rows, passes), each pass drawn in the order in which it is scanned."""
        sigma = self.settings.line_jitter_px
        if span.by_line:
            return scan.jitter(rows * span.passes, sigma_px=sigma, rng=self._rng).reshape(rows, span.passes)
        return np.stack([scan.jitter(rows, sigma_px=sigma, rng=self._rng) for _ in range(span.passes)], axis=1)

    def _bent(self, signal: Field, span: Span) -> Field:
        """Slow lines: the stray field changes while a line is written."""
        s = self.settings
        along_s = np.arange(signal.shape[1]) * s.dwell_s
        starts = span.line_starts_s(signal.shape[0], s.line_time_s)
        passes = [
            scan.displace_pixels(signal, scan.hum(one[:, None] + along_s, amplitude_px=s.hum_px, frequency_hz=s.hum_hz))
            for one in starts.T
        ]
        return np.asarray(np.mean(passes, axis=0), np.float32)

    def _charged(self, signal: Field, level: float) -> Field:
        s = self.settings
        if s.charging:
            signal = scan.charging_tail(signal, strength=s.charging * level, length_px=s.charging_length_px)
        if s.halo:
            signal = charge.halo(signal, strength=s.halo * level, length_px=s.halo_length_px)
        if s.charging_brightness:
            signal = np.asarray(signal * np.float32(1.0 + s.charging_brightness * level), np.float32)
        return signal

    # After.

    def averaged(self, levels: Field, start_ns: int, *, count: int) -> tuple[Field, int]:
        """A recursive average, new share 1 / count: the picture held, and when the oldest scan that counts began."""
        if count <= 1:
            self._held = None
            self._starts_ns.clear()
            return levels, start_ns
        share = np.float32(1.0 / count)
        self._held = (
            levels if self._held is None else np.asarray(self._held + share * (levels - self._held), np.float32)
        )
        self._starts_ns.append(start_ns)
        # The scans before the newest n hold (1 - share)^n of the picture.
        lasting = int(np.ceil(np.log(STALE) / np.log(1.0 - 1.0 / count)))
        while len(self._starts_ns) > lasting:
            self._starts_ns.popleft()
        return self._held, self._starts_ns[0]
