"""The field of view on an endless specimen: shift, blur and scale in; the noiseless picture out. The Fourier transform
of the specimen is kept, and that of the blurred one, so that a frame costs one inverse transform."""

import numpy as np
from numpy.typing import NDArray

from calibration.twin.probe import fast_size, frequencies, transfer_of
from calibration.twin.scan import ramp, scale
from calibration.twin.specimen import window

Field = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

MARGIN = 96  # px beyond the frame: room for drift, for the widest probe, and for the border's taper
TAPER = 16
RECENTRE = 36  # px of shift before another window of the specimen is cut


class View:
    """plane: the specimen, mirrored outwards for ever; home: where the frame's first pixel lies on it (row, column)."""

    def __init__(self, plane: Field, shape: tuple[int, int], *, home: tuple[int, int], pixel_size_m: float) -> None:
        self.plane, self.shape, self.home = plane, shape, home
        self.size = (fast_size(shape[0] + 2 * MARGIN), fast_size(shape[1] + 2 * MARGIN))
        self.kx, self.ky = frequencies(self.size, pixel_size_m)
        self._taper = _taper(self.size)
        self._centre = (0, 0)
        self._window = self._cut()
        self._blurred: dict[tuple[float, ...], Spectrum] = {}

    def picture(
        self,
        *,
        z_m: float,
        ax_m: float,
        ay_m: float,
        alpha_rad: float,
        fw50_m: float,
        wavelength_m: float | None,
        shifts_px: NDArray[np.float64],  # (n, 2) x, y: several when scans are averaged
        magnified: float = 1.0,
    ) -> Field:
        """What the detector would see without noise, (h, w) of the frame."""
        self._recentre(float(shifts_px[:, 0].mean()), float(shifts_px[:, 1].mean()))
        spectrum = self._blur(z_m, ax_m, ay_m, alpha_rad, fw50_m, wavelength_m)
        ramps = [ramp(self.size, dx - self._centre[0], dy - self._centre[1]) for dx, dy in shifts_px]
        phase = ramps[0] if len(ramps) == 1 else np.mean(ramps, axis=0)
        image = np.fft.irfft2(spectrum * phase, s=self.size)
        h, w = self.shape
        # One margin more than the frame is scaled, so that the corners come from the specimen and not from a mirror.
        rim = MARGIN // 2
        wide = scale(np.asarray(image[rim : 2 * MARGIN + h - rim, rim : 2 * MARGIN + w - rim], np.float32), magnified)
        return np.ascontiguousarray(wide[MARGIN - rim : MARGIN - rim + h, MARGIN - rim : MARGIN - rim + w])

    def _recentre(self, dx: float, dy: float) -> None:
        if max(abs(dx - self._centre[0]), abs(dy - self._centre[1])) > RECENTRE:
            self._centre = (round(dx), round(dy))
            self._window = self._cut()
            self._blurred.clear()

    def _cut(self) -> Spectrum:
        top = self.home[0] - MARGIN - self._centre[1]
        left = self.home[1] - MARGIN - self._centre[0]
        cut = window(self.plane, top, left, shape=self.size)
        mean = np.float32(cut.mean())
        return np.asarray(np.fft.rfft2((cut - mean) * self._taper + mean), np.complex64)

    def _blur(
        self, z_m: float, ax_m: float, ay_m: float, alpha_rad: float, fw50_m: float, wavelength_m: float | None
    ) -> Spectrum:
        key = (z_m, ax_m, ay_m, alpha_rad, fw50_m, wavelength_m or 0.0)
        if key not in self._blurred:
            if len(self._blurred) > 8:
                self._blurred.clear()
            transfer = transfer_of(
                self.kx,
                self.ky,
                z_m=z_m,
                ax_m=ax_m,
                ay_m=ay_m,
                alpha_rad=alpha_rad,
                fw50_m=fw50_m,
                wavelength_m=wavelength_m,
            )
            self._blurred[key] = np.asarray(self._window * transfer, np.complex64)
        return self._blurred[key]


def _taper(size: tuple[int, int]) -> Field:
    """1 inside, falling to 0 at the border: a border that jumps would ring through the picture when it is shifted."""
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(TAPER) + 0.5) / TAPER)
    rows, columns = np.ones(size[0]), np.ones(size[1])
    for line in (rows, columns):
        line[:TAPER], line[-TAPER:] = rise, rise[::-1]
    return np.asarray(rows[:, None] * columns[None, :], np.float32)
