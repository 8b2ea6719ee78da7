"""Training fields for the defect model: a seed and an index in, pictures with boxes and classes out. numpy only.

One specimen is looked at twice: the sky view is the dear part, another material, dose and probe are cheap. About a
third of the pictures hold no defect, but all that may be taken for one.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.train import picture
from calibration.train.chunks import Arrays, gather, joined
from calibration.train.develop import Look, develop, draw_look, draw_material, draw_pixel_m
from calibration.twin import sketch
from calibration.twin.contrast import Surface, Window, contrast, visible, window
from calibration.twin.defects import Placed, plain, roughened, scatter
from calibration.twin.emission import sky_view
from calibration.twin.relief import RELIEFS
from calibration.twin.sketch import Feature, Sketch, surface_m
from engines.defects import CLASSES
from engines.scene import Scene, condition, levels_of

Field = NDArray[np.float32]

SIDE = 256
LOOKS = 2  # at one specimen
PER_CHUNK = 40  # specimens: half a minute's work at most is lost to an interruption
MOST = 12  # defects in one picture
SHARES = {"lines": 0.46, "contacts": 0.38, "plain": 0.06, "relief": 0.08, "empty": 0.02}
KINDS = tuple(SHARES)
STRANGE = ("pillars", "pits", "terraces", "rough")  # reliefs that are no layout: whatever is in them is no defect
CLEAN_SHARE = 0.25
TEAR_SHARE = 0.1
LARGEST_TEAR_PX = 4
WIDEST_PX = 72.0  # pitch of the widest layout that is drawn without stretching
TRAINING, TUNING, HELD_OUT, SHIFTED = 0, 500_009, 1_000_003, 1_500_007  # added to the seed
DRAWN = {"lines": sketch.lines, "contacts": sketch.contacts, "plain": plain}


@dataclass(frozen=True)
class Fields:
    """n pictures and their truth; the first `count` of the MOST rows of each are used."""

    image: NDArray[np.uint8]  # (n, side, side)
    condition: NDArray[np.float32]  # (n, 8)
    box_px: NDArray[np.float32]  # (n, MOST, 4)
    label: NDArray[np.int8]  # (n, MOST) index into CLASSES; -1: unused
    visible: NDArray[np.bool_]  # (n, MOST) False: neither a capture nor a false alarm
    matched: NDArray[np.float32]  # (n, MOST) signal to noise of the matched filter
    period_px: NDArray[np.float32]  # (n, 2) vector of the pattern's period, x and y; zeros: none
    kind: NDArray[np.uint8]  # (n,) index into KINDS

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Recipe:
    """What is drawn. dose: factor on every dose; stretch: factor on every length of a layout."""

    seed: int
    side: int = SIDE
    clean: float = CLEAN_SHARE  # share of layouts without a defect
    kinds: tuple[str, ...] = KINDS
    dose: float = 1.0
    stretch: float = 1.0


@dataclass(frozen=True)
class Specimen:
    """A field with its defects and without, before anybody looks at it."""

    height_m: Field
    clean_m: Field
    material: Field | None
    clean_material: Field | None
    sky: Field
    windows: tuple[Window, ...]
    kind: str
    pixel_size_m: float
    period_px: tuple[float, float]


def generate(count: int, recipe: Recipe, *, folder: Path, progress: Callable[[int], None]) -> Fields:
    """`count` pictures, rounded up to whole chunks; chunks already in the folder are read back."""
    specimens = -(-count // LOOKS)

    def tell(done: int) -> None:
        progress(min(done * LOOKS, count))

    make = partial(fields_of, recipe=recipe)
    stem = folder / f"defects-{recipe.seed}-{recipe.side}-{recipe.clean:g}-{recipe.dose:g}-{recipe.stretch:g}"
    return Fields(**gather(make, specimens, per_chunk=PER_CHUNK, stem=stem, progress=tell))


def small(specimens: int, recipe: Recipe) -> Fields:
    """A few in this process."""
    return Fields(**joined([fields_of(index, recipe=recipe) for index in range(specimens)]))


def fields_of(index: int, *, recipe: Recipe) -> Arrays:
    """The pictures of one specimen; the same recipe and index give the same bytes."""
    rng = np.random.default_rng([recipe.seed, index])
    shares = np.array([SHARES[name] for name in recipe.kinds])
    kind = recipe.kinds[int(rng.choice(len(shares), p=shares / shares.sum()))]
    if kind == "empty":
        rows = [_empty_row(recipe.side, rng) for _ in range(LOOKS)]
    else:
        seen = _specimen(kind, recipe, rng)
        rows = [_row(seen, recipe, rng) for _ in range(LOOKS)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _specimen(kind: str, recipe: Recipe, rng: np.random.Generator) -> Specimen:
    pixel_size_m, shape = draw_pixel_m(rng), (recipe.side, recipe.side)
    if kind == "relief":
        name = STRANGE[int(rng.integers(len(STRANGE)))]
        height_m = RELIEFS[name](shape, pixel_size_m=pixel_size_m, rng=rng)
        sky = sky_view(height_m, pixel_size_m=pixel_size_m)
        return Specimen(height_m, height_m, None, None, sky, (), kind, pixel_size_m, (0.0, 0.0))
    clean = roughened(layout(kind, recipe, pixel_size_m=pixel_size_m, rng=rng), rng)
    per_field = (recipe.side / SIDE) ** 2  # a larger field holds as many to the area
    count = 0 if rng.random() < recipe.clean else round(int(rng.integers(1, 6)) * per_field)
    drawn, placed = scatter(clean, min(count, MOST), rng=rng)
    height_m, clean_m = surface_m(drawn), surface_m(clean)
    return Specimen(
        height_m=height_m,
        clean_m=clean_m,
        material=drawn.material,
        clean_material=clean.material,
        sky=sky_view(height_m, pixel_size_m=pixel_size_m),
        windows=tuple(window(each, height_m, clean_m, pixel_size_m=pixel_size_m) for each in placed),
        kind=kind,
        pixel_size_m=pixel_size_m,
        period_px=period_of(clean),
    )


def layout(kind: str, recipe: Recipe, *, pixel_size_m: float, rng: np.random.Generator) -> Sketch:
    """A clean layout of a kind; where the recipe stretches, one of a pitch that no training picture has."""
    small = -(-recipe.side // recipe.stretch)
    while True:
        drawn = DRAWN[kind]((int(small), int(small)), pixel_size_m=pixel_size_m, rng=rng)
        if recipe.stretch == 1.0:
            return drawn
        if kind == "plain" or drawn.pitch * recipe.stretch > WIDEST_PX:
            return stretched(drawn, recipe.side, recipe.stretch)


def stretched(drawn: Sketch, side: int, factor: float) -> Sketch:
    """The layout enlarged to side x side pixels, every length with it."""

    def enlarged(field: Field) -> Field:
        rows = cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)  # ramps stay ramps
        return np.asarray(rows * np.float32(factor), np.float32)

    return replace(
        drawn,
        inside=enlarged(drawn.inside),
        across=enlarged(drawn.across),
        along=enlarged(drawn.along),
        height=drawn.height * factor,
        run=drawn.run * factor,
        rounding=drawn.rounding * factor,
        pitch=drawn.pitch * factor,
        width=drawn.width * factor,
        features=tuple(Feature(f.x * factor, f.y * factor, f.radius * factor) for f in drawn.features),
    )


def period_of(drawn: Sketch) -> tuple[float, float]:
    """The vector from a line or a hole to the next, x and y; zeros where there is none."""
    if drawn.kind == "plain":
        return 0.0, 0.0
    dx, dy = drawn.across[0, 1] - drawn.across[0, 0], drawn.across[1, 0] - drawn.across[0, 0]
    return float(dx) * drawn.pitch, float(dy) * drawn.pitch


def _row(seen: Specimen, recipe: Recipe, rng: np.random.Generator) -> dict[str, Any]:
    look = _dosed(draw_look(rng, pixel_size_m=seen.pixel_size_m), recipe.dose)
    again = copy.deepcopy(rng)  # the same material on the clean field
    top, clean_top = draw_material(seen.height_m, rng), draw_material(seen.clean_m, again)
    surface = Surface(seen.height_m, _times(seen.material, top))
    clean = Surface(seen.clean_m, _times(seen.clean_material, clean_top))
    how = [contrast(each, look, field=surface, clean=clean) for each in seen.windows]
    tear = _tear(recipe.side, rng)
    shown = develop(
        torn(seen.height_m, tear),
        look,
        pixel_size_m=seen.pixel_size_m,
        sky=torn(seen.sky, tear),
        material=None if surface.material is None else torn(surface.material, tear),
        rng=rng,
    )
    placed = [each.defect for each in seen.windows]
    return _truth(placed, tear) | {
        "image": shown.pixels,
        "condition": condition(levels_of(shown.pixels), shown.scene),
        "visible": _padded([visible(d, h) for d, h in zip(placed, how, strict=True)], np.bool_),
        "matched": _padded([h.matched for h in how], np.float32),
        "period_px": np.array(seen.period_px, np.float32),
        "kind": np.uint8(KINDS.index(seen.kind)),
    }


def _empty_row(side: int, rng: np.random.Generator) -> dict[str, Any]:
    """Black, white or noise: nothing to flag."""
    pixels = picture.empty((side, side), rng).pixels
    return _truth([], (0, 0)) | {
        "image": pixels,
        "condition": condition(levels_of(pixels), Scene()),
        "visible": _padded([], np.bool_),
        "matched": _padded([], np.float32),
        "period_px": np.zeros(2, np.float32),
        "kind": np.uint8(KINDS.index("empty")),
    }


def _truth(placed: list[Placed], tear: tuple[int, int]) -> dict[str, NDArray[Any]]:
    box = np.zeros((MOST, 4), np.float32)
    for number, each in enumerate(placed):
        box[number] = torn_box(each.box_px, tear)
    label = np.full(MOST, -1, np.int8)
    label[: len(placed)] = [CLASSES.index(each.name) for each in placed]
    return {"box_px": box, "label": label}


def _padded(values: list[Any], kind: Any) -> NDArray[Any]:
    column = np.zeros(MOST, kind)
    column[: len(values)] = values
    return column


def _tear(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """The row from which the field has drifted, and by how many pixels; (0, 0): it has not."""
    if rng.random() > TEAR_SHARE:
        return 0, 0
    return int(rng.integers(side // 8, side)), int(rng.choice([-1, 1]) * rng.integers(1, LARGEST_TEAR_PX + 1))


def torn(field: Field, tear: tuple[int, int]) -> Field:
    """Rows from tear[0] on moved by tear[1] pixels towards +x; what comes in at the side is the edge again."""
    row, by = tear
    if by == 0:
        return field
    moved = field.copy()
    columns = np.clip(np.arange(field.shape[1]) - by, 0, field.shape[1] - 1)
    moved[row:] = field[row:][:, columns]
    return moved


def torn_box(box: tuple[int, int, int, int], tear: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    row, by = tear
    if by == 0 or y1 <= row:
        return box
    return (x0 + by, y0, x1 + by, y1) if y0 >= row else (x0 + min(by, 0), y0, x1 + max(by, 0), y1)


def _times(one: Field | None, other: Field | None) -> Field | None:
    if one is None or other is None:
        return one if other is None else other
    return np.asarray(one * other, np.float32)


def _dosed(look: Look, factor: float) -> Look:
    return replace(look, electrons_per_pixel=look.electrons_per_pixel * factor)
