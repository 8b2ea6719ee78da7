"""Training pictures for the autofocus model: a seed and an index in, labelled 256x256 uint8 crops out. numpy only.

Each scene is blurred twice by the twin's own probe and cut into four crops, each with its own dose, line noise, gain,
clip and quantisation. Chunks are kept on disk, so that an interrupted training goes on where it stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.optics import wavelength_m
from calibration.train import labels, picture
from calibration.train.chunks import Arrays, gather, joined
from calibration.train.scenes import KINDS, SIDE, Field, draw_kind, scene
from calibration.twin import probe
from engines.autofocus import condition

CROP = 256
BLURS = 2  # of one scene
PER_SCENE = BLURS * (SIDE // CROP) ** 2
SCENES_PER_CHUNK = 50  # half a minute's work at most is lost to an interruption
TRAINING, TUNING, HELD_OUT = 0, 500_009, 1_000_003  # added to the seed: specimens of one are never seen by another

Draw = Callable[[str, labels.Probe, np.random.Generator], Field]
Look = Callable[[Field, labels.Probe, str, int, np.random.Generator], Iterator[tuple[picture.Picture, str]]]
Beside = Callable[[labels.Probe], dict[str, Any]]


@dataclass(frozen=True)
class Samples:
    """n labelled crops. Facts that are no label are kept for the tables."""

    image: NDArray[np.uint8]  # (n, CROP, CROP)
    condition: NDArray[np.float32]  # (n, 2)
    score: NDArray[np.float32]  # (n,) 0..10
    log_blur: NDArray[np.float32]  # (n,) ln of blur_px
    content: NDArray[np.float32]  # (n,) 0..1
    defocus_h: NDArray[np.float32]  # (n,) |z| / h_eff
    snr: NDArray[np.float32]  # (n,) rms of the in-focus signal / rms noise
    kind: NDArray[np.uint8]  # (n,) index into KINDS; len(KINDS) = no specimen at all

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Source:
    """A stream of scenes; the same source gives the same bytes."""

    seed: int
    without: str = ""  # a kind of specimen left out
    chunk: int = SCENES_PER_CHUNK

    def stem(self, folder: Path) -> Path:
        return folder / f"{self.seed}-{self.without or 'all'}-{self.chunk}"


def generate(count: int, source: Source, *, folder: Path, progress: Callable[[int], None]) -> Samples:
    """`count` samples (rounded up to whole chunks) in two processes; chunks already in the folder are read back."""
    scenes = -(-count // PER_SCENE)
    make = partial(samples_of, seed=source.seed, without=source.without)
    stem = source.stem(folder)
    made = gather(make, scenes, per_chunk=source.chunk, stem=stem, progress=lambda done: progress(done * PER_SCENE))
    return Samples(**made)


def small(scenes: int, *, seed: int, crop: int = CROP) -> Samples:
    """A few samples in this process; crop = SIDE gives whole scenes."""
    return Samples(**joined([samples_of(index, seed=seed, crop=crop) for index in range(scenes)]))


def drawn(kind: str, used: labels.Probe, rng: np.random.Generator) -> Field:
    """The scene under a probe."""
    return scene(kind, pixel_size_m=used.pixel_size_m, voltage_v=used.energy_ev, rng=rng)


def developed(
    emission: Field, used: labels.Probe, kind: str, crop: int, rng: np.random.Generator
) -> Iterator[tuple[picture.Picture, str]]:
    """The crops of a scene and what each shows; some are empty."""
    blurred = blur(emission, used)
    for cut in cuts(crop):
        if rng.random() < picture.EMPTY_SHARE:
            yield picture.empty((crop, crop), rng), ""
        else:
            yield picture.develop(blurred[cut], in_focus=emission[cut], rng=rng), kind


def cuts(crop: int) -> list[tuple[slice, slice]]:
    """Of a scene, row by row."""
    starts = range(0, SIDE, crop)
    return [np.s_[top : top + crop, left : left + crop] for top in starts for left in starts]


def samples_of(
    index: int,
    *,
    seed: int,
    without: str = "",
    crop: int = CROP,
    draw: Draw = drawn,
    look: Look = developed,
    beside: Beside = lambda used: {},
) -> Arrays:
    """The samples of one scene; the same seed and index give the same bytes.

    draw, look: how a scene and its crops come about, where not as in training; beside: further columns, by the probe.
    """
    rng = np.random.default_rng([seed, index])
    kind = draw_kind(rng, without=without)
    first = draw_probe(rng)
    emission = draw(kind, first, rng)
    rows: list[dict[str, Any]] = []
    for number in range(BLURS):
        used = first if number == 0 else draw_defocus(first, rng)
        rows += [_row(shown, used, name) | beside(used) for shown, name in look(emission, used, kind, crop, rng)]
    whole = {"image", "kind"}
    columns: Arrays = {
        name: np.array([row[name] for row in rows], np.uint8 if name in whole else np.float32) for name in rows[0]
    }
    return columns


def _row(shown: picture.Picture, used: labels.Probe, kind: str) -> dict[str, Any]:
    blur_px = labels.blur_px(used)
    content = labels.content(shown.clean, noise_variance=shown.noise_variance, sigma_px=blur_px)
    return {
        "image": shown.pixels,
        "condition": condition(used.pixel_size_m),
        "score": labels.sharpness(used) * content,
        "log_blur": np.log(blur_px),
        "content": content,
        "defocus_h": abs(used.z_m) / used.half_depth_m,
        "snr": shown.snr,
        "kind": KINDS.index(kind) if kind else len(KINDS),
    }


def blur(emission: Field, used: labels.Probe) -> Field:
    """The twin's probe, wave or disc as the pixel size asks."""
    return probe.blur(
        emission,
        pixel_size_m=used.pixel_size_m,
        z_m=used.z_m,
        ax_m=used.ax_m,
        ay_m=used.ay_m,
        alpha_rad=used.alpha_rad,
        fw50_m=used.floor_m,
        wavelength_m=wavelength_m(used.energy_ev) if used.waves else None,
    )


def draw_probe(rng: np.random.Generator) -> labels.Probe:
    """An instrument, a magnification and a defocus: 2..250 nm, 2..12 mrad, 0.5..30 keV."""
    bare = labels.Probe(
        pixel_size_m=float(np.exp(rng.uniform(np.log(2e-9), np.log(250e-9)))),
        alpha_rad=float(np.exp(rng.uniform(np.log(2e-3), np.log(12e-3)))),
        energy_ev=float(np.exp(rng.uniform(np.log(500.0), np.log(30e3)))),
        z_m=0.0,
        ax_m=0.0,
        ay_m=0.0,
    )
    return draw_defocus(bare, rng)


def draw_defocus(bare: labels.Probe, rng: np.random.Generator) -> labels.Probe:
    """Another working distance on the same instrument: one in eight in focus, the rest log-uniform to 30 px of blur."""
    sigma_px = float(np.exp(rng.uniform(np.log(0.15), np.log(30.0)))) if rng.random() > 0.125 else 0.0
    z_m = sigma_px * 2.0 * bare.pixel_size_m / bare.alpha_rad * (1.0 if rng.random() < 0.5 else -1.0)
    ratio = float(rng.choice([0.0, rng.uniform(0.0, 0.5), rng.uniform(0.5, 1.2)], p=[0.5, 0.35, 0.15]))
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    a_m = ratio * abs(z_m)
    return labels.Probe(
        pixel_size_m=bare.pixel_size_m,
        alpha_rad=bare.alpha_rad,
        energy_ev=bare.energy_ev,
        z_m=z_m,
        ax_m=a_m * float(np.cos(angle)),
        ay_m=a_m * float(np.sin(angle)),
    )
