"""One image file through the models: a path in, a row of readings out. Memory is bounded by the tile, not the map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.bridges.files import read_image
from agent.commands import heatmap, overlay
from agent.commands.outputs import Outputs, Targets, save
from agent.commands.references import Beside
from agent.commands.relief import Relief
from agent.errors import EngineError
from agent.messages import NO_REFERENCE, Defect, Frame, Lane, Optics, ReferenceSource
from agent.perceive import BLANK_LEVELS, SATURATED, eight_bits, picture, saturated_share, scene_of
from agent.placing import height_above_surroundings, placed
from agent.settings import Engines
from engines.autofocus import Autofocus
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.errors import InferenceError, ModelError
from engines.load import Loaded, load
from engines.readings import JUDGEABLE, DepthMap, FocusReading, FoundDefect
from engines.scene import Levels, Scene, levels_of, padded
from engines.score_scale import ScoreScale
from engines.tiles import (
    DefectReader,
    DepthReader,
    FocusReader,
    Tile,
    Whole,
    joined,
    read_defects,
    read_depth,
    read_focus,
    tiles,
)

OWN = ReferenceSource()  # the picture's own repetition, where it has one
BAND_ROWS = 512  # counted at a time: a mask of a whole large picture would be as large again


class FocusRow(msgspec.Struct, frozen=True, kw_only=True):
    """Blur is None where the picture is blank: its score of 0 is all there is to say."""

    score: float
    score_physical: float | msgspec.UnsetType = msgspec.UNSET  # where `score` is on an operator's scale
    blur_px: float | None
    blur_uncertainty_px: float | None


class DepthRow(msgspec.Struct, frozen=True, kw_only=True):
    """`map`: the .npy file, float32 (h, w) metres, of the rows above the data bar."""

    map: str | None
    calibrated: bool
    mean_m: float


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What the models say of one file."""

    path: str
    shape: tuple[int, int]  # as the file has it, data bar included
    optics: Optics
    focus: FocusRow | None
    depth: DepthRow | None
    defects: tuple[Defect, ...]
    count: int
    flags: tuple[str, ...]
    unreferenced: str | msgspec.UnsetType = msgspec.UNSET  # of flag no_reference: why there is none
    took_s: dict[str, float]  # by stage


@dataclass(frozen=True)
class Told:
    """What the user says of all files; it outranks what a file says."""

    pixel_size_m: float | None = None
    accelerating_voltage_v: float | None = None
    reference: ReferenceSource = OWN  # that defects are compared with


@dataclass(frozen=True)
class Models:
    """Readers of any make with these signatures."""

    autofocus: FocusReader
    depth: DepthReader
    defects: DefectReader

    @classmethod
    def loaded(cls, engines: Engines | None = None) -> Self:
        """The models that the configuration names. Raises EngineError."""
        wanted = engines or Engines()

        def start(task: str) -> Loaded:
            return load(task, models=wanted.models, backend=wanted.backend, threads=wanted.threads)

        try:
            return cls(Autofocus(start("autofocus")), Depth(start("depth")), DefectFinder(start("defects")))
        except ModelError as error:
            raise EngineError(str(error)) from error


@dataclass
class Watch:
    """Seconds by stage, and how far the file is done."""

    advance: Callable[[float], None]  # share of the file, 0..1
    took_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = perf_counter()
        yield
        self.took_s[name] = self.took_s.get(name, 0.0) + perf_counter() - began


@dataclass(frozen=True)
class View:
    """One picture, ready for the models."""

    frame: Frame
    levels: NDArray[np.uint8]  # (h, w) without the data bar
    padded: NDArray[np.uint8]  # (h', w') to the models' stride
    scene: Scene
    whole: Levels
    flags: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.levels.shape[0], self.levels.shape[1]

    @property
    def blank(self) -> bool:
        return "blank" in self.flags


class Looker:
    """`look` raises ImageError for a file that cannot be read, EngineError where a model fails, OSError for outputs."""

    def __init__(self, models: Models, told: Told, outputs: Outputs, *, scale: ScoreScale | None = None) -> None:
        """scale: an operator's, that scores are told on."""
        self._models, self._told, self._outputs, self._scale = models, told, outputs, scale

    def look(self, path: str, advance: Callable[[float], None]) -> Looked:
        watch = Watch(advance)
        with watch.stage("read"):
            pixels, optics = read_image(Path(path))
        with watch.stage("convert"):
            view = view_of(pixels, _with(optics, self._told))
        targets = self._outputs.targets(Path(path))
        try:
            looked = self._read(path, view, targets, watch)
        except (InferenceError, ArithmeticError) as error:
            raise EngineError(f"{path}: {error}") from error
        if targets.overlay is not None:
            shown = overlay.draw(view.levels, looked.defects, view.scene.pixel_size_m, caption=caption(looked))
            save(shown, targets.overlay)
        return looked

    def _read(self, path: str, view: View, targets: Targets, watch: Watch) -> Looked:
        with watch.stage("autofocus"):
            read = self._models.autofocus
            focus = None if view.blank else read_focus(read, view.padded, view.scene.pixel_size_m)
        beside = Beside(view.levels, self._told.reference)
        depth, defects = (None, ()) if view.blank else self._dense(view, beside, targets=targets, watch=watch)
        featureless = focus is not None and focus.content < JUDGEABLE
        height, width = view.frame.pixels.shape
        return Looked(
            path=path,
            shape=(height, width),
            optics=view.frame.optics,
            focus=_focus_row(focus, view.blank, self._scale),
            depth=depth,
            defects=defects,
            count=len(defects),
            flags=(*view.flags, *(["featureless"] if featureless else []), *([NO_REFERENCE] if beside.missing else [])),
            unreferenced=beside.missing or msgspec.UNSET,
            took_s=watch.took_s,
        )

    def _dense(
        self, view: View, beside: Beside, *, targets: Targets, watch: Watch
    ) -> tuple[DepthRow | None, tuple[Defect, ...]]:
        """Depth and defects; heights need a pixel size."""
        deep = view.scene.pixel_size_m is not None
        with Relief(view.shape, targets.depth if deep else None) as relief:
            heights = self._tiles(view, beside, relief=relief, watch=watch)
        defects = tuple(
            msgspec.structs.replace(placed(each, None, view.frame), height_m=heights[each])
            for each in joined(tuple(heights))
        )
        if not deep:
            return None, defects
        if targets.heat_map is not None:
            _draw_heights(view, relief, targets.heat_map)
        written = None if targets.depth is None else str(targets.depth)
        return DepthRow(map=written, calibrated=False, mean_m=relief.mean_m), defects

    def _tiles(self, view: View, beside: Beside, *, relief: Relief, watch: Watch) -> dict[FoundDefect, float | None]:
        """The finds of all tiles that lie in the picture, each with its height where that is known."""
        found: dict[FoundDefect, float | None] = {}
        finder, whole = self._models.defects, Whole(view.padded, view.scene, view.whole)
        parts = tiles((view.padded.shape[0], view.padded.shape[1]))
        for number, tile in enumerate(parts, start=1):
            with watch.stage("depth"):
                depth = read_depth(self._models.depth, whole, tile)
                if depth is not None:
                    relief.take(tile, depth.height_m)
            reference = None
            if finder.wants_reference:
                with watch.stage("reference"):
                    reference = beside.of(tile)
            with watch.stage("defects"):
                some = read_defects(finder, whole, tile, reference)
            for each in filter(None, (_clipped(one, view.shape) for one in some)):
                found[each] = None if depth is None else _height(each, depth, tile)
            watch.advance(number / len(parts))
        return found


# --- before the models ---


def view_of(pixels: NDArray[Any], optics: Optics) -> View:
    """pixels (h, w) as the file has them -> what the models are shown and told."""
    frame = Frame(number=0, pixels=pixels, optics=optics, lane=Lane.INSPECT, received_ns=0)
    shown = picture(frame)
    levels = eight_bits(shown, optics)
    whole = levels_of(levels)
    flags = tuple(code for code, raised in _conditions(shown, whole, optics) if raised)
    return View(frame, levels, padded(levels), scene_of(optics), whole, flags)


def _conditions(shown: NDArray[Any], whole: Levels, optics: Optics) -> Iterator[tuple[str, bool]]:
    blank = whole.spread < BLANK_LEVELS
    yield "no_pixel_size", optics.pixel_size_m is None
    yield "blank", blank
    yield "saturated", not blank and _saturated(shown, optics) > SATURATED
    yield "not_electron", (optics.source or "").startswith("ion")
    yield "nonlinear", optics.gamma not in (None, 1.0)
    yield "averaging", optics.averaging == "recursive"


def _saturated(shown: NDArray[Any], optics: Optics) -> float:
    bands = (shown[top : top + BAND_ROWS] for top in range(0, len(shown), BAND_ROWS))
    return sum(saturated_share(band, optics) * len(band) for band in bands) / len(shown)


def _with(optics: Optics, told: Told) -> Optics:
    if told.pixel_size_m is not None:
        optics = msgspec.structs.replace(
            optics,
            pixel_size_m=told.pixel_size_m,
            pixel_size_y_m=told.pixel_size_m,
            horizontal_field_width_m=None,  # of another pixel size
            full_width_px=None,
            magnification=None,
            magnification_reference_width_m=None,
        )
    if told.accelerating_voltage_v is not None:
        optics = msgspec.structs.replace(
            optics, accelerating_voltage_v=told.accelerating_voltage_v, landing_energy_ev=None
        )
    return optics


# --- after the models ---


def _focus_row(focus: FocusReading | None, blank: bool, scale: ScoreScale | None) -> FocusRow | None:
    if blank:
        row = FocusRow(score=0.0, blur_px=None, blur_uncertainty_px=None)
    elif focus is None:
        return None
    else:
        row = FocusRow(score=focus.score, blur_px=focus.blur_px, blur_uncertainty_px=focus.blur_uncertainty_px)
    if scale is None:
        return row
    return msgspec.structs.replace(row, score=scale.told(row.score), score_physical=row.score)


def _clipped(found: FoundDefect, shape: tuple[int, int]) -> FoundDefect | None:
    """Without the part that lies in the padding; None for a mirror image whose middle is there."""
    (x0, y0, x1, y1), (height, width) = found.box_px, shape
    if x0 + x1 >= 2.0 * width or y0 + y1 >= 2.0 * height:
        return None
    return FoundDefect(found.name, found.confidence, (x0, y0, min(x1, float(width)), min(y1, float(height))))


def _height(found: FoundDefect, depth: DepthMap, tile: Tile) -> float | None:
    x, y = tile.columns.start, tile.rows.start
    x0, y0, x1, y1 = found.box_px
    return height_above_surroundings((x0 - x, y0 - y, x1 - x, y1 - y), depth.height_m, found.name)


def _draw_heights(view: View, relief: Relief, path: Path) -> None:
    assert view.scene.pixel_size_m is not None
    height, width = relief.preview.shape
    small = view.levels
    if relief.reduced > 1:
        small = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    save(heatmap.draw(relief.preview, small, view.scene.pixel_size_m * relief.reduced, False), path)


def printable(path: str) -> str:
    """A file's name may hold bytes that are no text."""
    return path.encode("utf-8", "replace").decode()


def caption(looked: Looked) -> str:
    """One line under an overlay."""
    name, focus = printable(Path(looked.path).name), looked.focus
    if focus is None:
        return f"{name}: too small to judge focus"
    if focus.blur_px is None or focus.blur_uncertainty_px is None:
        return f"{name}: blank, so nothing was looked for"
    blur = f"blur {focus.blur_px:.1f} ± {focus.blur_uncertainty_px:.1f} px"
    return f"{name}: focus score {focus.score:.1f} of 10, {blur}"
