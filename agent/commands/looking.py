"""One image file through the models: a path in, a row of readings out. Memory is bounded by the tile, not the map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Self

import cv2
import msgspec
import numpy as np

from agent.bridges.files import read_image
from agent.commands import heatmap, overlay
from agent.commands.look_finds import Part, clipped, judged_in, told
from agent.commands.look_view import View, view_of
from agent.commands.outputs import Outputs, Targets, save
from agent.commands.references import Beside
from agent.commands.relief import Relief
from agent.comparing import Compared
from agent.errors import EngineError
from agent.judging import judged
from agent.messages import NO_REFERENCE, Defect, Optics, ReferenceSource
from agent.models import CascadeModel
from agent.settings import Engines
from engines.autofocus import Autofocus
from engines.cascade import load_cascade
from engines.defects import DefectFinder
from engines.depth import Depth
from engines.errors import InferenceError, ModelError
from engines.load import Loaded, load
from engines.readings import JUDGEABLE, FocusReading, FoundDefect
from engines.scene import padded
from engines.score_scale import ScoreScale
from engines.tiles import (
    DefectReader,
    DepthReader,
    FocusReader,
    Whole,
    joined,
    read_defects,
    read_depth,
    read_focus,
    tiles,
)

OWN = ReferenceSource()  # the picture's own repetition, where it has one


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
    cascade: CascadeModel | None = None  # judges what was found

    @property
    def compare(self) -> bool:
        """Is there any use for a reference?"""
        return self.defects.wants_reference or self.cascade is not None

    @classmethod
    def loaded(cls, engines: Engines | None = None) -> Self:
        """The models that the configuration names. Raises EngineError."""
        wanted = engines or Engines()

        def start(task: str) -> Loaded:
            return load(task, models=wanted.models, backend=wanted.backend, threads=wanted.threads)

        try:
            autofocus, depth, defects = (start(task) for task in ("autofocus", "depth", "defects"))
            judge = load_cascade(wanted.models, threads=wanted.threads)
            return cls(Autofocus(autofocus), Depth(depth), DefectFinder(defects), judge)
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
            found = self._tiles(view, beside, relief=relief, watch=watch)
        defects = tuple(found[each] for each in joined(tuple(found)))
        if not deep:
            return None, defects
        if targets.heat_map is not None:
            _draw_heights(view, relief, targets.heat_map)
        written = None if targets.depth is None else str(targets.depth)
        return DepthRow(map=written, calibrated=False, mean_m=relief.mean_m), defects

    def _tiles(self, view: View, beside: Beside, *, relief: Relief, watch: Watch) -> dict[FoundDefect, Defect]:
        """What was found in all tiles and lies in the picture; a find near a seam may be there twice."""
        found: dict[FoundDefect, Defect] = {}
        whole = Whole(view.padded, view.scene, view.whole)
        parts = tiles((view.padded.shape[0], view.padded.shape[1]))
        for number, tile in enumerate(parts, start=1):
            with watch.stage("depth"):
                depth = read_depth(self._models.depth, whole, tile)
                if depth is not None:
                    relief.take(tile, depth.height_m)
            for each in self._defects(Part(view, tile, depth), whole, beside, watch):
                found[FoundDefect(each.name, each.confidence, each.box_px)] = each
            watch.advance(number / len(parts))
        return found

    def _defects(self, part: Part, whole: Whole, beside: Beside, watch: Watch) -> tuple[Defect, ...]:
        """Those of one tile, compared and judged as the agent does."""
        finder, cascade = self._models.defects, self._models.cascade
        first = finder.wants_reference or (self._told.reference.expected and cascade is not None)
        known = self._compared(part, beside, watch) if first else None
        reference = None if known is None or known.reference is None else padded(known.reference)
        with watch.stage("defects"):
            some = read_defects(finder, whole, part.tile, reference)
        found = tuple(filter(None, (clipped(one, part.view.shape) for one in some)))
        defects = told(found, part)
        if cascade is None or not found:
            return defects
        known = known or self._compared(part, beside, watch)
        with watch.stage("cascade"):
            return judged(defects, judged_in(part, found, cascade, known))

    def _compared(self, part: Part, beside: Beside, watch: Watch) -> Compared:
        with watch.stage("reference"):
            return beside.of(part.tile)


# --- before the models ---


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
