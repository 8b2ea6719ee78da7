"""Training fields for the defect model: a seed and an index in, pictures with references, boxes, classes out.

One specimen is looked at twice: the sky view is the dear part, another material, dose and probe are cheap. About a
third of the pictures hold no defect, but all that may be taken for one, and that by name.
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
from calibration.train.defects_specimens import (
    CLEAN_SHARE,
    KINDS,
    MOST,
    SHARES,
    SIDE,
    Recipe,
    Specimen,
    specimen,
)
from calibration.train.develop import Look, develop, draw_look, draw_material, times
from calibration.twin.contrast import Contrast, contrast, visible
from calibration.twin.defects import Placed
from calibration.twin.nuisances import NUISANCES, WHOLE, Nuisance, Tear, draw_tear
from calibration.twin.surface import Surface
from engines.defects import CLASSES
from engines.reference import GoldenError, golden_reference, self_reference
from engines.scene import Scene, condition, levels_of

__all__ = ["CLEAN_SHARE", "KINDS", "MOST", "SHARES", "SIDE", "Fields", "Recipe", "fields_of", "generate", "small"]

Field = NDArray[np.float32]
Row = dict[str, Any]
Coat = Callable[[Specimen, np.random.Generator], tuple[Surface, Surface]]  # the fields with the defects, and without
Tail = Callable[[np.random.Generator], float]

OFF_PX = 2.0  # sigma of a golden frame's place, each way
LOOKS = 2  # at one specimen
PER_CHUNK = 40  # specimens: half a minute's work at most is lost to an interruption
MOST_NUISANCES = 16  # in one picture
TRAINING, TUNING, HELD_OUT, SHIFTED = 0, 500_009, 1_000_003, 1_500_007  # added to the seed


@dataclass(frozen=True)
class Fields:
    """n pictures and their truth; unused rows of the MOST and MOST_NUISANCES have the label -1."""

    image: NDArray[np.uint8]  # (n, side, side)
    golden: NDArray[np.uint8]  # (n, side, side) the same design on another die, no defect; where there is none, image
    own: NDArray[np.uint8]  # (n, side, side) the reference that image has in itself; where nothing repeats, image
    condition: NDArray[np.float32]  # (n, 8)
    box_px: NDArray[np.float32]  # (n, MOST, 4)
    label: NDArray[np.int8]  # (n, MOST) index into CLASSES; -1: unused
    visible: NDArray[np.bool_]  # (n, MOST) False: neither a capture nor a false alarm
    matched: NDArray[np.float32]  # (n, MOST) signal to noise of the matched filter
    period_px: NDArray[np.float32]  # (n, 2) vector of the pattern's period, x and y; zeros: none
    kind: NDArray[np.uint8]  # (n,) index into KINDS
    height_m: NDArray[np.float32]  # (n, MOST) the largest change, signed; 0 where only the material differs
    area_px: NDArray[np.int32]  # (n, MOST) of the mask
    pitch_share: NDArray[np.float32]  # (n, MOST) side of a square of that area, in pitches
    to_noise: NDArray[np.float32]  # (n, MOST) |mean of the defect - mean of the reference| / sigma of a pixel
    drowned: NDArray[np.bool_]  # (n, MOST) no larger than the pattern's own roughness
    nuisance: NDArray[np.int8]  # (n, MOST_NUISANCES) index into NUISANCES; -1: unused
    nuisance_px: NDArray[np.float32]  # (n, MOST_NUISANCES, 4) boxes

    def __len__(self) -> int:
        return len(self.image)


def generate(count: int, recipe: Recipe, *, folder: Path, progress: Callable[[int], None]) -> Fields:
    """`count` pictures, rounded up to whole chunks; chunks already in the folder are read back."""
    specimens = -(-count // LOOKS)

    def tell(done: int) -> None:
        progress(min(done * LOOKS, count))

    make = partial(fields_of, recipe=recipe)
    stem = folder / f"defects-{recipe.seed}-{recipe.side}-{recipe.clean:g}-{recipe.dose:g}-{recipe.stretch:g}"
    return _table(gather(make, specimens, per_chunk=PER_CHUNK, stem=stem, progress=tell))


def small(specimens: int, recipe: Recipe) -> Fields:
    """A few in this process."""
    return _table(joined([fields_of(index, recipe=recipe) for index in range(specimens)]))


def _table(rows: Arrays) -> Fields:
    """Without the maps, which are for who asks for them by index."""
    return Fields(**{name: rows[name] for name in Fields.__annotations__})


def fields_of(index: int, *, recipe: Recipe, coat: Coat | None = None, tail: Tail | None = None) -> Arrays:
    """The pictures of one specimen; the same recipe and index give the same bytes.

    Columns as `Fields`; where the recipe asks for maps also `mask` (n, side, side) uint8, 0 or 1 + row of the defect,
    `surface_m` (n, side, side) float32 and `pixel_size_m` (n,), NaN where nothing was looked at. coat: another stuff on
    the fields than training lays on them; tail: strength of a charging tail that all have.
    """
    rng = np.random.default_rng([recipe.seed, index])
    shares = np.array([SHARES[name] for name in recipe.kinds])
    kind = recipe.kinds[int(rng.choice(len(shares), p=shares / shares.sum()))]
    if kind == "empty":
        rows = [_empty_row(recipe, rng) for _ in range(LOOKS)]
    else:
        seen = specimen(kind, recipe, rng)
        rows = [_row(seen, recipe, rng, coat=coat or coated, tail=tail) for _ in range(LOOKS)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _row(seen: Specimen, recipe: Recipe, rng: np.random.Generator, *, coat: Coat, tail: Tail | None) -> Row:
    """One look."""
    look = _dosed(draw_look(rng, pixel_size_m=seen.field.pixel_size_m), recipe.dose)
    golden = None if seen.golden is None else coat(replace(seen, clean=seen.golden), copy.deepcopy(rng))[1]
    shown, bare = coat(seen, rng)
    how = [contrast(each, look, field=shown, clean=bare) for each in seen.windows]
    tear = draw_tear(shown.shape, rng)
    taken = develop(
        shown.height_m,
        look,
        pixel_size_m=shown.pixel_size_m,
        sky=seen.sky,
        material=shown.material,
        drift=tear.torn,
        tail=None if tail is None else tail(rng),
        rng=rng,
    )
    placed = [each.defect for each in seen.windows]
    row: Row = {"image": taken.pixels, "condition": condition(levels_of(taken.pixels), taken.scene)}
    row |= {"own": _own(taken.pixels), "golden": taken.pixels}
    if golden is not None:
        row["golden"] = _golden(
            develop(
                golden.height_m,
                look,
                pixel_size_m=golden.pixel_size_m,
                sky=seen.golden_sky,
                material=golden.material,
                tail=None if tail is None else tail(rng),
                rng=rng,
            ).pixels,
            taken.pixels,
            rng=rng,
        )
    row |= _truth(placed, how, tear) | _nuisances((*map(tear.moved, seen.nuisances), *tear.named(shown.shape)))
    row |= {"period_px": np.array(seen.period_px, np.float32), "kind": np.uint8(KINDS.index(seen.kind))}
    if not recipe.maps:
        return row
    return row | _maps(placed, tear, tear.torn(shown.height_m)) | {"pixel_size_m": np.float32(shown.pixel_size_m)}


def _own(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = self_reference(pixels)
    return pixels if found is None else found


def _golden(taken: NDArray[np.uint8], pixels: NDArray[np.uint8], *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The other die under the same column, off by as much as a stage is, brought onto the picture."""
    move = rng.normal(0.0, OFF_PX, 2)
    size = (pixels.shape[1], pixels.shape[0])
    moved = cv2.warpAffine(
        taken, np.array([[1.0, 0.0, move[0]], [0.0, 1.0, move[1]]]), size, borderMode=cv2.BORDER_REFLECT_101
    )
    try:
        return golden_reference(pixels, np.asarray(moved, np.uint8))
    except GoldenError:  # drowned in noise: its users are told so, and have none
        return pixels


def coated(seen: Specimen, rng: np.random.Generator) -> tuple[Surface, Surface]:
    """The field with its defects and without, under the same material."""
    again = copy.deepcopy(rng)
    return _coated(seen.field, rng), _coated(seen.clean, again)


def _coated(surface: Surface, rng: np.random.Generator) -> Surface:
    return replace(surface, material=times(surface.material, draw_material(surface.height_m, rng)))


def _empty_row(recipe: Recipe, rng: np.random.Generator) -> Row:
    """Black, white or noise: nothing to flag."""
    pixels = picture.empty((recipe.side, recipe.side), rng).pixels
    row: Row = {"image": pixels, "condition": condition(levels_of(pixels), Scene())}
    row |= {"own": _own(pixels), "golden": pixels}
    row |= _truth([], [], WHOLE) | _nuisances(())
    row |= {"period_px": np.zeros(2, np.float32), "kind": np.uint8(KINDS.index("empty"))}
    if not recipe.maps:
        return row
    nothing = np.zeros(pixels.shape, np.float32)
    return row | _maps([], WHOLE, nothing) | {"pixel_size_m": np.float32(np.nan)}  # a pixel of nothing has no size


def _truth(placed: list[Placed], how: list[Contrast], tear: Tear) -> Row:
    """A row a defect, in each of its columns."""
    box = np.zeros((MOST, 4), np.float32)
    for number, each in enumerate(placed):
        box[number] = tear.torn_box(each.box_px)
    return {
        "box_px": box,
        "label": _padded([CLASSES.index(each.name) for each in placed], np.int8, MOST, empty=-1),
        "visible": _padded([visible(d, h) for d, h in zip(placed, how, strict=True)], np.bool_, MOST),
        "matched": _padded([each.matched for each in how], np.float32, MOST),
        "height_m": _padded([each.height_m for each in placed], np.float32, MOST),
        "area_px": _padded([each.area_px for each in placed], np.int32, MOST),
        "pitch_share": _padded([each.pitch_share for each in placed], np.float32, MOST),
        "to_noise": _padded([each.to_noise for each in how], np.float32, MOST),
        "drowned": _padded([each.drowned for each in placed], np.bool_, MOST),
    }


def _nuisances(named: tuple[Nuisance, ...]) -> Row:
    kept = named[:MOST_NUISANCES]
    box = np.zeros((MOST_NUISANCES, 4), np.float32)
    for number, each in enumerate(kept):
        box[number] = each.box_px
    label = _padded([NUISANCES.index(each.name) for each in kept], np.int8, MOST_NUISANCES, empty=-1)
    return {"nuisance": label, "nuisance_px": box}


def _maps(placed: list[Placed], tear: Tear, surface_m: Field) -> Row:
    """The defects' pixels as they lie in the torn picture, and its heights."""
    mask = np.zeros(surface_m.shape, np.float32)
    for number, each in enumerate(placed):
        x0, y0, x1, y1 = each.box_px
        mask[y0:y1, x0:x1][each.mask] = number + 1
    return {"mask": tear.torn(mask).astype(np.uint8), "surface_m": surface_m}


def _padded(values: list[Any], kind: Any, most: int, *, empty: int = 0) -> NDArray[Any]:
    column = np.full(most, empty, kind)
    column[: len(values)] = values
    return column


def _dosed(look: Look, factor: float) -> Look:
    return replace(look, electrons_per_pixel=look.electrons_per_pixel * factor)
