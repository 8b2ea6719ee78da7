"""The probe's transfer where diffraction counts, for many hypotheses at once: the same integral as
`calibration.optics.wave_transfer`, looked up by OpenCV's bilinear map: 0.035 s for 600,000 values, a fifth of it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.optics import WAVE_Q, WAVE_S, wave_table

Real = NDArray[np.float64]
Real32 = NDArray[np.float32]

STEP, KNEE = 0.5, 20.0  # of WAVE_Q: half a unit apart up to the knee, one unit beyond
LONGEST = 30_000  # places a row: OpenCV's maps end at 32,767


class WaveTransfer:
    """Transfers in fixed cells of the spectrum. kx, ky: (cell,) rad/m."""

    def __init__(self, kx: Real, ky: Real, wavelength_m: float) -> None:
        k = np.hypot(kx, ky)
        c, s = kx / k, ky / k
        self._terms = np.stack([k, k * (c * c - s * s), k * 2.0 * c * s])
        self._apart = k * wavelength_m / (2.0 * np.pi)  # of the two pupils, times alpha
        table = wave_table().astype(np.float32)
        self._size = table.shape[1]
        self._slabs = np.ascontiguousarray(table.reshape(-1, table.shape[2]))  # (separation x along, across)

    def __call__(self, z_m: Real, ax_m: Real, ay_m: Real, alpha_rad: Real) -> Real32:
        """(hypothesis,) each -> (hypothesis, cell)."""
        along = np.stack([z_m, ax_m, ay_m], axis=1) * alpha_rad[:, None]
        across = np.stack([ay_m, -ax_m], axis=1) * alpha_rad[:, None]
        row = _place(np.abs(along @ self._terms))
        column = _place(np.abs(across @ self._terms[1:]))
        apart = np.clip(self._apart[None, :] / alpha_rad[:, None], WAVE_S[0], WAVE_S[-1]) / (WAVE_S[1] - WAVE_S[0])
        slab = np.minimum(apart.astype(np.int32), WAVE_S.size - 2)
        share = (apart - slab).astype(np.float32)
        row += slab * np.float32(self._size)
        near = self._looked_up(row, column)
        row += np.float32(self._size)
        return np.asarray(near + share * (self._looked_up(row, column) - near), np.float32)

    def _looked_up(self, row: Real32, column: Real32) -> Real32:
        flat_row, flat_column = row.reshape(-1), column.reshape(-1)
        found = np.empty(flat_row.size, np.float32)
        for start in range(0, flat_row.size, LONGEST):
            part = slice(start, start + LONGEST)
            found[part] = cv2.remap(
                self._slabs,
                flat_column[None, part],
                flat_row[None, part],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )[0]
        return found.reshape(row.shape)


def _place(q: Real) -> Real32:
    """Where q lies in WAVE_Q, in its own steps."""
    return np.asarray(np.minimum(np.minimum(q / STEP, q + (KNEE / STEP - KNEE)), WAVE_Q.size - 1), np.float32)
