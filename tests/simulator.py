"""A second, small simulator that shares no code with the twin: what the estimator is held against.

Conventions of the physics page: h = px / (2 alpha), z > 0 focused below the surface, image axes x right, y down.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

PX_M, ALPHA_RAD = 10e-9, 5e-3
H_M = PX_M / (2 * ALPHA_RAD)  # 1 um
MARGIN = 128


def scene(kind: str, size: int, seed: int) -> NDArray[np.float64]:
    """cloud: a falling spectrum; blobs: round particles of many sizes; flat."""
    rng = np.random.default_rng(seed)
    if kind == "flat":
        return np.zeros((size, size))
    if kind == "cloud":
        fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
        falling = np.fft.rfft2(rng.standard_normal((size, size))) / (0.01 + np.hypot(fx, fy)) ** 1.2
        return np.fft.irfft2(falling, (size, size))
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for _ in range(size * size // 900):
        r = min(3 + 4 * rng.pareto(2.0), 40)
        cx, cy = rng.uniform(0, size, 2)
        rows = slice(max(0, int(cy - r - 2)), int(cy + r + 2))
        columns = slice(max(0, int(cx - r - 2)), int(cx + r + 2))
        d = np.hypot(x[rows, columns] - cx, y[rows, columns] - cy) / r
        inside = np.clip((1 - d) * r, 0, 1)
        shade = 0.5 + 0.5 * np.clip(d, 0, 1) ** 4 + 0.1 * rng.standard_normal()
        image[rows, columns] = image[rows, columns] * (1 - inside) + inside * shade
    return image


def transfer(q: NDArray[np.float64], pupil: str) -> NDArray[np.float64]:
    if pupil == "gaussian":
        return np.exp(-(q**2) / 8)
    return np.where(q > 1e-9, 2 * j1(q) / np.maximum(q, 1e-9), 1.0)


def frame(
    objects: NDArray[np.float64],
    *,
    z_m: float,
    astigmatism_m: tuple[float, float] = (0.0, 0.0),
    shift_px: tuple[float, float] = (0.0, 0.0),
    snr: float,
    rng: np.random.Generator,
    pupil: str = "disc",
    contrast: float = 1.0,
) -> NDArray[np.uint8]:
    """One 8-bit frame, MARGIN px smaller each side than its object. SNR: rms in-focus signal / rms noise."""
    size = objects.shape[0]
    ky = 2 * np.pi * np.fft.fftfreq(size)[:, None] / PX_M
    kx = 2 * np.pi * np.fft.rfftfreq(size)[None, :] / PX_M
    (ax, ay), (dx, dy) = astigmatism_m, shift_px
    q = ALPHA_RAD * np.hypot((z_m + ax) * kx + ay * ky, ay * kx + (z_m - ax) * ky)
    floor = np.exp(-0.5 * (0.4 * PX_M) ** 2 * (kx**2 + ky**2))
    spectrum = np.fft.rfft2(objects) * floor
    cut = slice(MARGIN, size - MARGIN)
    spread = np.fft.irfft2(spectrum, (size, size))[cut, cut].std()
    moved = spectrum * transfer(q, pupil) * np.exp(-1j * PX_M * (kx * dx + ky * dy))
    image = np.fft.irfft2(moved, (size, size))[cut, cut]
    noise = 1 / snr
    signal = (image - image.mean()) / spread if spread > 0 else image
    grey = 255 / (8 + 6 * noise)
    noisy = signal + noise * rng.standard_normal(image.shape)
    return (contrast * grey * noisy + 128).clip(0, 255).round().astype(np.uint8)


def series(
    kind: str,
    defocus_m: list[float],
    *,
    snr: float,
    seed: int,
    astigmatism_m: tuple[float, float] = (0.0, 0.0),
    pupil: str = "disc",
    contrast: list[float] | None = None,
    size: int = 512,
) -> list[NDArray[np.uint8]]:
    """Frames of one scene with drift (0.3 px a frame) and image shift with focus (0.2 px per um)."""
    rng = np.random.default_rng(seed)
    objects = scene(kind, size + 2 * MARGIN, seed)
    drift, shift = (np.array([np.cos(t), np.sin(t)]) for t in rng.uniform(0, 2 * np.pi, 2))
    frames = []
    for i, z in enumerate(defocus_m):
        dx, dy = 0.3 * i * drift + 0.2 * (z - defocus_m[0]) * 1e6 * shift
        frames.append(
            frame(
                objects,
                z_m=z,
                astigmatism_m=astigmatism_m,
                shift_px=(float(dx), float(dy)),
                snr=snr,
                rng=rng,
                pupil=pupil,
                contrast=contrast[i] if contrast else 1.0,
            )
        )
    return frames
