"""The inspection episode: fresh patterned fields published as frames to inspect, and what the agent says of each.

The truth (boxes, classes, heights) stays on this side; the frames carry only what an instrument would tell.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.messages import Optics
from calibration.twin.controller import Controller
from calibration.twin.inspection import InspectedFrame, TrueDefect, inspected_frame
from calibration.twin.link import ARRAY, Message
from calibration.twin.nuisances import cause
from calibration.twin.readback import ELECTRON_C
from engines.defects import overlap

SHAPE = (512, 512)  # rows, columns
# A line-space field and a contact array in turn; how many defects are hidden there. Some fields are clean, because an
# agent that cries wolf shows only there.
DRAWN = (("line-space", 3), ("contact-holes", 3), ("line-space", 0), ("contact-holes", 2))
DWELL_S = 1e-6
DIE_M = (10e-3, 12e-3)  # pitch of the dies on the wafer
DRAW_S = 60.0  # to draw a field, on a machine that does other things too
WORD_S = 15.0  # for the agent's word on one frame: its own step limit on a CPU is 10 s
MAP_S = 1.0  # a depth map that is not there so long after the defects was not sent
MAP_EVERY_S = 1.1  # maps go out once a second at most: fields that come faster would have none
SAME = 0.3  # intersection over union from which two boxes mean one defect

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class PlannedField:
    """One field before it is drawn. defects: how many to hide; None: as the seed has it."""

    pattern: str
    seed: int
    defects: int | None = None
    shape: tuple[int, int] = SHAPE


@dataclass(frozen=True)
class Find:
    """One defect as the agent told it."""

    name: str
    box_px: Box
    confidence: float
    height_m: float | None


@dataclass(frozen=True)
class Word:
    """What the agent said of one frame."""

    end: str  # inspected, failed
    reason: str = ""
    found: tuple[Find, ...] = ()
    height_m: NDArray[np.float32] | None = field(default=None, repr=False)  # (h, w) of the map; None: none was sent
    calibrated: bool | None = None
    took_s: dict[str, float] = field(default_factory=dict)  # by stage


@dataclass(frozen=True)
class InspectedField:
    """The truth of one field beside the agent's word on it."""

    seed: int
    shown: InspectedFrame = field(repr=False)
    word: Word
    pairs: tuple[tuple[int, int], ...]  # (index of the truth, index of the find) that mean the same place

    @property
    def inspected(self) -> bool:
        return self.word.end == "inspected"

    @property
    def missed(self) -> tuple[TrueDefect, ...]:
        seen = {truth for truth, _ in self.pairs}
        return tuple(each for i, each in enumerate(self.shown.defects) if i not in seen)

    @property
    def false_alarms(self) -> tuple[Find, ...]:
        right = {find for _, find in self.pairs}
        return tuple(each for i, each in enumerate(self.word.found) if i not in right)

    @property
    def causes(self) -> tuple[str | None, ...]:
        """What each false alarm touches that was drawn there and is no defect."""
        return tuple(cause(each.box_px, self.shown.nuisances) for each in self.false_alarms)

    @property
    def class_right(self) -> int:
        return sum(self.shown.defects[t].name == self.word.found[f].name for t, f in self.pairs)

    def told(self) -> dict[str, Any]:
        """The row of `demo --json`."""
        truth = [{"class": t.name, "box_px": list(t.box_px), "height_m": t.height_m} for t in self.shown.defects]
        found = [
            {"class": f.name, "box_px": list(f.box_px), "confidence": f.confidence, "height_m": f.height_m}
            for f in self.word.found
        ]
        return {
            "seed": self.seed,
            "specimen": self.shown.pattern,
            "truth": truth,
            "found": found,
            "count": len(found),
            "matched": len(self.pairs),
            "missed": len(self.missed),
            "false_alarms": len(self.false_alarms),
            "false_alarm_causes": list(self.causes),
            "nuisances": [{"name": n.name, "box_px": list(n.box_px)} for n in self.shown.nuisances],
            "class_right": self.class_right,
            "took_s": self.word.took_s,
            "end": self.word.end,
            "reason": self.word.reason,
        }


def plan_fields(count: int, *, seed: int) -> list[PlannedField]:
    """Seeds one after the other; patterns and numbers of defects in turn."""
    return [PlannedField(DRAWN[i % len(DRAWN)][0], seed + i, DRAWN[i % len(DRAWN)][1]) for i in range(count)]


def run_inspection(
    controller: Controller,
    planned: Sequence[PlannedField],
    *,
    draw: Callable[[PlannedField], InspectedFrame] | None = None,
    on_field: Callable[[InspectedField], None] = lambda _: None,
) -> list[InspectedField]:
    """One field after the other; the agent must be there already. draw: another source of fields."""
    done: list[InspectedField] = []
    with ThreadPoolExecutor(1, "fields") as pool:
        for i, plan in enumerate(planned):
            due_s = time.monotonic() + (MAP_EVERY_S if done else 0.0)
            drawing = pool.submit(draw or drawn, plan)
            controller.listen(drawing.done, DRAW_S)  # a lease lasts only while it is asked for
            shown = drawing.result()
            _wait_until(controller, due_s)
            word = show(controller, shown, session=f"inspection-{planned[0].seed}", place=i)
            done.append(InspectedField(plan.seed, shown, word, match(shown.defects, word.found)))
            on_field(done[-1])
    return done


def _wait_until(controller: Controller, due_s: float) -> None:
    controller.listen(lambda: time.monotonic() >= due_s, MAP_EVERY_S)


def drawn(plan: PlannedField) -> InspectedFrame:
    return inspected_frame(plan.pattern, plan.shape, seed=plan.seed, defects=plan.defects)


def show(controller: Controller, shown: InspectedFrame, *, session: str, place: int) -> Word:
    """Publish one field and wait for the agent's word on it."""
    optics = header(shown, session=session, place=place, now_ns=controller.scope.now_ns)
    controller.scope.wait(optics.frame_time_s or 0.0)
    listener = Listener(session, controller.number)
    controller.listeners.append(listener)
    try:
        controller.publish(shown.pixels, optics)
        if controller.listen(lambda: listener.spoke or not controller.alive, WORD_S) and listener.defects is not None:
            controller.listen(lambda: listener.depth is not None, MAP_S)
    finally:
        controller.listeners.remove(listener)
    return listener.word(alive=controller.alive)


def header(shown: InspectedFrame, *, session: str, place: int, now_ns: int) -> Optics:
    """What an instrument tells of a frame: one die further each time, in focus, nothing of what is wrong there."""
    height, width = shown.pixels.shape
    frame_time_s = DWELL_S * height * width * 1.1
    return Optics(
        session=session,
        source="electron/SE2",
        optics_epoch=1,
        scene_epoch=place + 1,
        t_start_ns=now_ns,
        t_end_ns=now_ns + round(frame_time_s * 1e9),
        averaging="none",
        average_count=1,
        complete=True,
        rows_valid=height,
        working_distance_m=3e-3,
        stigmator_x=0.0,
        stigmator_y=0.0,
        pixel_size_m=shown.pixel_size_m,
        pixel_size_y_m=shown.pixel_size_m,
        horizontal_field_width_m=shown.pixel_size_m * width,
        full_width_px=width,
        dwell_time_s=DWELL_S,
        frame_time_s=frame_time_s,
        accelerating_voltage_v=shown.accelerating_voltage_v,
        landing_energy_ev=shown.accelerating_voltage_v,
        beam_current_a=shown.electrons_per_pixel * ELECTRON_C / DWELL_S,
        bits_significant=8,
        full_scale=255.0,
        gamma=1.0,
        inverted=False,
        stage_x_m=(place % 5) * DIE_M[0],
        stage_y_m=(place // 5) * DIE_M[1],
        stage_z_m=0.0,
        stage_rotation_rad=0.0,
        stage_tilt_rad=0.0,
        stage_moving=False,
        stage_linked=False,
        scan_rotation_rad=0.0,
        blanked=False,
        frozen=False,
        auto_function_active=False,
        inspect=True,
        lot="DEMO-1",
        wafer="W01",
        die_x=place % 5,
        die_y=place // 5,
        databar_rows=0,
    )


class Listener:
    """Collects what the agent says of one frame."""

    def __init__(self, session: str, number: int) -> None:
        self.session, self.number = session, number
        self.defects: Message | None = None
        self.depth: Message | None = None
        self.refused = ""
        self._focus_s: float | None = None

    def __call__(self, told: Message) -> None:
        if told.get("frame") != self.number:
            return
        if told.get("topic") == "flag" and told.get("code") == "uninspected":
            self.refused = str(told.get("detail") or "uninspected")
        if told.get("session") != self.session:
            return
        match told.get("topic"):
            case "defects":
                self.defects = told
            case "depth":
                self.depth = told
            case "focus" if self._focus_s is None:
                self._focus_s = time.monotonic()

    @property
    def spoke(self) -> bool:
        """Its word is there, or will not come: an agent that tells focus tells defects in the same breath."""
        silent = self._focus_s is not None and time.monotonic() - self._focus_s > MAP_S
        return self.defects is not None or bool(self.refused) or silent

    def word(self, *, alive: bool) -> Word:
        if self.defects is None:
            return Word("failed", self._why(alive))
        heights = height_map(self.depth) if self.depth else None
        calibrated = None if heights is None or self.depth is None else self.depth.get("calibrated") is True
        found = tuple(map(_find, self.defects["defects"]))
        return Word("inspected", "", found, heights, calibrated, dict(self.defects.get("took_s") or {}))

    def _why(self, alive: bool) -> str:
        if self.refused:
            return self.refused
        if not alive:
            return "no heartbeat from the agent"
        if self._focus_s is not None:
            return "the agent told focus and no defects: does it have a defect model?"
        return f"no word within {WORD_S:g} s"


def height_map(told: Message) -> NDArray[np.float32] | None:
    """(h, w) metres, or None where the third part is not as large as it is said to be."""
    data, shape = told.get(ARRAY), told.get("shape")
    if not isinstance(data, bytes) or not isinstance(shape, list) or len(data) != 4 * int(np.prod(shape)):
        return None
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)


def match(truth: Sequence[TrueDefect], found: Sequence[Find]) -> tuple[tuple[int, int], ...]:
    """(truth, find) of one place each: the most confident find chooses first, the truth it covers best.

    One place: the centre of either lies in the other's box, or the boxes share SAME of their union.
    """
    free = list(range(len(truth)))
    pairs = []
    for f in sorted(range(len(found)), key=lambda i: -found[i].confidence):
        near = [t for t in free if same_place(truth[t].box_px, found[f].box_px)]
        if near:
            best = max(near, key=lambda t: overlap(truth[t].box_px, found[f].box_px))
            free.remove(best)
            pairs.append((best, f))
    return tuple(sorted(pairs))


def same_place(a: Box, b: Box) -> bool:
    return _inside(a, b) or _inside(b, a) or overlap(a, b) >= SAME


def _inside(a: Box, b: Box) -> bool:
    """Is the centre of a inside b?"""
    x, y = (a[0] + a[2]) / 2.0, (a[1] + a[3]) / 2.0
    return b[0] <= x < b[2] and b[1] <= y < b[3]


def _find(told: Message) -> Find:
    x0, y0, x1, y1 = (float(value) for value in told["box_px"])
    height_m = told.get("height_m")
    return Find(str(told["class"]), (x0, y0, x1, y1), float(told["confidence"]), height_m)
