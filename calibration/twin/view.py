"""The field of view on an endless specimen: shift, blur and scale in; the noiseless picture out. The Fourier transform
of the specimen is kept, and that of the blurred one, so that a frame costs one inverse transform, or two where the
surface has heights that the probe feels."""

import numpy as np
from numpy.typing import NDArray

from calibration.twin.probe import Probe, fast_size, frequencies, transfer_of
from calibration.twin.scan import ramp, warp
from calibration.twin.specimen import window
from calibration.twin.topography import Relief, checked, developed, relief

Field = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

MARGIN = 96  # px beyond the frame: room for drift, for the widest probe, and for the border's taper
TAPER = 16
RECENTRE = 36  # px of shift before another window of the specimen is cut
KEPT = 8  # blurred transforms: a routine goes back to where it was


class View:
    """plane: the specimen, mirrored outwards for ever; home: where the frame's first pixel lies on it (row, column);
    height_m: of the same size, up from where z is quoted; None: flat, or so flat that the probe does not feel it."""

    def __init__(
        self,
        plane: Field,
        shape: tuple[int, int],
        *,
        home: tuple[int, int],
        pixel_size_m: float,
        probe: Probe,
        height_m: Field | None = None,
    ) -> None:
        if height_m is not None:
            checked(plane, height_m)
        self.plane, self.height_m, self.shape, self.home = plane, height_m, shape, home
        self.pixel_size_m, self.probe = pixel_size_m, probe
        self.size = (fast_size(shape[0] + 2 * MARGIN), fast_size(shape[1] + 2 * MARGIN))
        self.kx, self.ky = frequencies(self.size, pixel_size_m)
        self._taper = _taper(self.size)
        self._centre = (0, 0)
        self._surface = self._cut()
        self._blurred: dict[tuple[float, float, float], tuple[Spectrum, ...]] = {}

    def picture(
        self,
        *,
        z_m: float,
        ax_m: float,
        ay_m: float,
        shifts_px: NDArray[np.float64],  # (n, 2) x, y: several when scans are averaged
        magnified: float = 1.0,
        sheared_px: tuple[float, float] = (0.0, 0.0),  # x, y: drift from the first row to the last
    ) -> Field:
        """What the detector would see without noise, (h, w) of the frame."""
        self._recentre(float(shifts_px[:, 0].mean()), float(shifts_px[:, 1].mean()))
        phase = self._phase(shifts_px)
        seen = [spectrum * phase for spectrum in self._blur(z_m, ax_m, ay_m)]
        image = np.fft.irfft2(seen[0], s=self.size) if len(seen) == 1 else developed(*seen, size=self.size)
        h, w = self.shape
        # One margin more than the frame is scaled, so that the corners come from the specimen and not from a mirror.
        rim = MARGIN // 2
        inner = np.asarray(image[rim : 2 * MARGIN + h - rim, rim : 2 * MARGIN + w - rim], np.float32)
        wide = warp(inner, magnified, drift_px=sheared_px, rows=h)
        return np.ascontiguousarray(wide[MARGIN - rim : MARGIN - rim + h, MARGIN - rim : MARGIN - rim + w])

    def _phase(self, shifts_px: NDArray[np.float64]) -> NDArray[np.complex64]:
        ramps = [ramp(self.size, dx - self._centre[0], dy - self._centre[1]) for dx, dy in shifts_px]
        return ramps[0] if len(ramps) == 1 else np.asarray(np.mean(ramps, axis=0), np.complex64)

    def _recentre(self, dx: float, dy: float) -> None:
        if max(abs(dx - self._centre[0]), abs(dy - self._centre[1])) > RECENTRE:
            self._centre = (round(dx), round(dy))
            self._surface = self._cut()
            self._blurred.clear()

    def _cut(self) -> Spectrum | Relief:
        emission = self._tapered(self.plane)
        if self.height_m is None:
            return np.asarray(np.fft.rfft2(emission), np.complex64)
        return relief(emission, self._tapered(self.height_m), pixel_size_m=self.pixel_size_m, probe=self.probe)

    def _tapered(self, plane: Field) -> Field:
        """The window of a plane, fading to its mean at the border."""
        top = self.home[0] - MARGIN - self._centre[1]
        left = self.home[1] - MARGIN - self._centre[0]
        cut = window(plane, top, left, shape=self.size)
        mean = np.float32(cut.mean())
        return np.asarray((cut - mean) * self._taper + mean, np.float32)

    def _blur(self, z_m: float, ax_m: float, ay_m: float) -> tuple[Spectrum, ...]:
        """The blurred surface; over topography the current that lands, too."""
        key = (z_m, ax_m, ay_m)
        if key not in self._blurred:
            if len(self._blurred) > KEPT:
                self._blurred.clear()
            self._blurred[key] = self._through(z_m, ax_m, ay_m)
        return self._blurred[key]

    def _through(self, z_m: float, ax_m: float, ay_m: float) -> tuple[Spectrum, ...]:
        def transfer(up_m: float) -> Field:
            return transfer_of(self.kx, self.ky, z_m=z_m + up_m, ax_m=ax_m, ay_m=ay_m, probe=self.probe)

        if isinstance(self._surface, Relief):
            return self._surface.through(transfer)
        return (np.asarray(self._surface * transfer(0.0), np.complex64),)


def _taper(size: tuple[int, int]) -> Field:
    """1 inside, falling to 0 at the border: a border that jumps would ring through the picture when it is shifted."""
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(TAPER) + 0.5) / TAPER)
    rows, columns = np.ones(size[0]), np.ones(size[1])
    for line in (rows, columns):
        line[:TAPER], line[-TAPER:] = rise, rise[::-1]
    return np.asarray(rows[:, None] * columns[None, :], np.float32)
