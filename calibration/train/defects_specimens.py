"""What the defect model is shown, before anybody looks at it: layouts of every kind with their defects, and all that
is no layout, where nothing is a defect. A recipe and a generator in, a `Specimen` out. numpy only.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train.develop import draw_pixel_m, times
from calibration.twin.contrast import Window, window
from calibration.twin.defects import scatter, tails
from calibration.twin.emission import sky_view
from calibration.twin.nuisances import Nuisance, roughened, stains, troubled
from calibration.twin.patterns import PATTERNS
from calibration.twin.relief import SURFACES
from calibration.twin.roughness import Roughness, roughened_outline
from calibration.twin.sketch import PITCH_PX, Feature, Sketch, surface_of
from calibration.twin.surface import Surface

Field = NDArray[np.float32]

SIDE = 256
MOST = 12  # defects in one picture
CLEAN_SHARE = 0.25
GOLDEN_AZIMUTHS = 8  # of the sky over a golden field, which is only compared with
OWN_EDGE_M = (0.3e-9, 2.2e-9)  # sigma by which the edges of two dies of one design differ
OWN_XI_M = (8e-9, 40e-9)
OWN_SHARE = 0.06  # of the pitch: no edge wanders further
AZIMUTHS = 12  # of the sky: 0.001 to 0.01 rms off the usual sixteen, for three quarters of the time
SHARES = {
    "lines": 0.25,
    "contacts": 0.21,
    "plain": 0.05,
    "relief": 0.06,
    "empty": 0.02,
    "pillars": 0.06,
    "tip_to_tip": 0.06,
    "jogs": 0.05,
    "manhattan": 0.07,
    "logic": 0.07,
    "natural": 0.1,
}
KINDS = tuple(SHARES)
# No layouts: whatever is in them is no defect. What is smooth and round there looks like pits and voids.
NO_LAYOUT = {
    "relief": ("pillars", "pits", "terraces"),
    "natural": ("balls", "rough", "tin_balls", "particles", "fibres", "grains", "cells"),
}
WIDEST_PX = PITCH_PX[1]  # pitch of the widest layout that is drawn without stretching
BEYOND = 1.15  # of it: so wide are stretched layouts at most, or a picture would hold a single line


@dataclass(frozen=True)
class Recipe:
    """What is drawn. dose: factor on every dose; stretch: factor on every length of a layout."""

    seed: int
    side: int = SIDE
    clean: float = CLEAN_SHARE  # share of layouts without a defect
    kinds: tuple[str, ...] = KINDS
    dose: float = 1.0
    stretch: float = 1.0
    maps: bool = False  # the whole truth too: masks and heights of every pixel


@dataclass(frozen=True)
class Specimen:
    """A field with its defects and without; and, of the same design on another die, a golden one."""

    field: Surface
    clean: Surface
    sky: Field
    golden: Surface | None  # None: nothing was designed
    golden_sky: Field
    windows: tuple[Window, ...]
    nuisances: tuple[Nuisance, ...]
    kind: str
    period_px: tuple[float, float]


def specimen(kind: str, recipe: Recipe, rng: np.random.Generator) -> Specimen:
    """One of KINDS but `empty`."""
    pixel_size_m = draw_pixel_m(rng)
    if kind in NO_LAYOUT:
        return _unpatterned(kind, recipe, pixel_size_m=pixel_size_m, rng=rng)
    design = layout(kind, recipe, pixel_size_m=pixel_size_m, rng=rng)
    clean, nuisances = troubled(roughened(design, rng), rng)
    per_field = (recipe.side / SIDE) ** 2  # a larger field holds as many to the area
    count = 0 if rng.random() < recipe.clean else round(int(rng.integers(1, 6)) * per_field)
    drawn, placed = scatter(clean, min(count, MOST), rng=rng)
    before, after = surface_of(clean), surface_of(drawn)
    golden = surface_of(another_die(design, rng))
    windows = [window(each, after.height_m, before.height_m, pixel_size_m=pixel_size_m) for each in placed]
    return Specimen(
        field=after,
        clean=before,
        sky=sky_view(after.height_m, pixel_size_m=pixel_size_m, azimuths=AZIMUTHS),
        golden=golden,
        golden_sky=sky_view(golden.height_m, pixel_size_m=pixel_size_m, azimuths=GOLDEN_AZIMUTHS),
        windows=tuple(windows),
        nuisances=(*nuisances, *tails(placed)),
        kind=kind,
        period_px=period_of(clean),
    )


def another_die(design: Sketch, rng: np.random.Generator) -> Sketch:
    """The same design printed once more: edges and grain of its own. Both dies keep the roughness that the design was
    drawn with, so the second one's own is as large as two would differ by."""
    sigma_px = float(np.exp(rng.uniform(*np.log(OWN_EDGE_M)))) / design.pixel_size_m
    own = Roughness(min(sigma_px, OWN_SHARE * design.pitch), float(rng.uniform(*OWN_XI_M)) / design.pixel_size_m)
    printed = (
        design if design.kind == "plain" else replace(design, inside=roughened_outline(design.inside, own, rng=rng))
    )
    return roughened(printed, rng)


def _unpatterned(kind: str, recipe: Recipe, *, pixel_size_m: float, rng: np.random.Generator) -> Specimen:
    names, shape = NO_LAYOUT[kind], (recipe.side, recipe.side)
    bare = SURFACES[names[int(rng.integers(len(names)))]](shape, pixel_size_m=pixel_size_m, rng=rng)
    factor, nuisances = stains(shape, rng)
    seen = replace(bare, material=times(bare.material, factor))
    sky = sky_view(seen.height_m, pixel_size_m=pixel_size_m, azimuths=AZIMUTHS)
    return Specimen(seen, seen, sky, None, sky, (), nuisances, kind, (0.0, 0.0))


def layout(kind: str, recipe: Recipe, *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """A clean layout of a kind; where the recipe stretches, one of a pitch that no training picture has."""
    side, factor = int(-(-recipe.side // recipe.stretch)), recipe.stretch
    if factor == 1.0:
        return PATTERNS[kind]((side, side), pixel_size_m=pixel_size_m, rng=rng)
    wide = {} if kind == "plain" else {"pitch_px": (WIDEST_PX / factor, BEYOND * WIDEST_PX / factor)}
    return stretched(PATTERNS[kind]((side, side), pixel_size_m=pixel_size_m, rng=rng, **wide), recipe.side, factor)


def stretched(drawn: Sketch, side: int, factor: float) -> Sketch:
    """The layout enlarged to side x side pixels, every length with it."""

    def enlarged(field: Field) -> Field:
        if field.size == 0:
            return field
        rows = cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)  # ramps stay ramps
        return np.asarray(rows * np.float32(factor), np.float32)

    lengths = ("height", "run", "rounding", "pitch", "width", "foot", "top")
    return replace(
        drawn,
        inside=enlarged(drawn.inside),
        across=enlarged(drawn.across),
        along=enlarged(drawn.along),
        features=tuple(Feature(f.x * factor, f.y * factor, f.radius * factor) for f in drawn.features),
        **{name: getattr(drawn, name) * factor for name in lengths},
    )


def period_of(drawn: Sketch) -> tuple[float, float]:
    """The vector from a line or a hole to the next, x and y; zeros where nothing repeats."""
    if drawn.lattice is None:
        return 0.0, 0.0
    dx, dy = drawn.across[0, 1] - drawn.across[0, 0], drawn.across[1, 0] - drawn.across[0, 0]
    return float(dx) * drawn.pitch, float(dy) * drawn.pitch
