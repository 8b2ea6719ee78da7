"""The worst misses and the worst false alarms of a set: which they are, and each as a picture beside its reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.commands.overlay import said
from agent.commands.plate import told
from agent.commands.report_html import Drawing, figure

if TYPE_CHECKING:
    from calibration.evaluate.defects_methods import Views
    from calibration.evaluate.defects_outcome import Outcome, Said
    from calibration.evaluate.defects_run import Ran
    from calibration.evaluate.defects_truth import Box, TrueDefect

MOST = 6  # of either kind in one set
SIDE_PX, AROUND = 72, 3.0  # of what is shown: at least, and in sides of the defect
PANEL, GAP = 220.0, 10.0  # drawn
LINE_PX = 1.0  # between a defect and its box, so that the line does not cover what it points at
LEAST_SPAN = 24.0  # grey levels either way that the difference is drawn with
DARKER, BRIGHTER = (178, 114, 0), (0, 94, 213)  # blue, green, red
CAPTIONS = ("frame", "reference", "difference")

Window = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Worst:
    """One thing that went wrong."""

    outcome: "Outcome"
    defect: "TrueDefect | None"  # missed; None: a false alarm
    find: "Said | None"  # the false alarm, or what was said of the missed one below the threshold
    threshold: float

    @property
    def box_px(self) -> "Box":
        if self.defect is not None:
            return self.defect.box_px
        assert self.find is not None
        return self.find.box_px

    @property
    def rank(self) -> tuple[bool, float]:
        """The clearer a missed defect was, the worse; the surer a false alarm."""
        if self.defect is None:
            return True, 0.0 if self.find is None else self.find.confidence
        clear = self.defect.size_px if self.defect.matched is None else self.defect.matched
        return self.defect.must_be_found, clear


def worst_first(several: Sequence[Worst]) -> list[Worst]:
    """Those of all splits together."""
    return _one_each(sorted(several, key=lambda worst: worst.rank, reverse=True))


def misses(outcomes: "Sequence[Outcome]", least: float) -> list[Worst]:
    """The clearest first, one a specimen; those that must be found before those that can be seen."""
    found = []
    for each in outcomes:
        hit = each.captured(least)
        weak = each.captured(0.0)
        for row, defect in enumerate(each.case.truth):
            if defect.visible and row not in hit:
                found.append(Worst(each, defect, weak.get(row), least))
    return worst_first(found)


def false_alarms(outcomes: "Sequence[Outcome]", least: float) -> list[Worst]:
    """The surest first, one a specimen."""
    from calibration.evaluate.defects_outcome import Fate

    found = [
        Worst(each, None, find, least) for each in outcomes for find in each.above(least) if find.fate is Fate.FALSE
    ]
    return worst_first(found)


def _one_each(ranked: Sequence[Worst]) -> list[Worst]:
    seen: set[str] = set()
    chosen: list[Worst] = []
    for each in ranked:
        if each.outcome.case.specimen not in seen and len(chosen) < MOST:
            seen.add(each.outcome.case.specimen)
            chosen.append(each)
    return chosen


def drawn(ran: "Ran", chosen: Sequence[Worst]) -> list[str]:
    """Figures in the order given; the pictures are read once more, one in memory at a time."""
    from calibration.evaluate.defects_methods import views

    wanted = {each.outcome.case.key for each in chosen}
    figures: dict[int, str] = {}
    for picture in ran.of.read() if wanted else ():
        if picture.case.key in wanted:
            seen = views(picture)
            own = [(i, each) for i, each in enumerate(chosen) if each.outcome.case.key == picture.case.key]
            figures |= {i: _figure(each, seen) for i, each in own}
    return [figures[i] for i in sorted(figures)]


# --- one ---


def _figure(worst: Worst, seen: "Views") -> str:
    case = seen.case
    at = window(worst.box_px, case.shape)
    reference = seen.own if seen.golden is None else seen.golden
    panels = _panels(seen.picture.image, reference, at)
    title = _title(worst)
    drawing = Drawing(len(CAPTIONS) * (PANEL + GAP) - GAP, PANEL + 22, f"{title} in {case.key}", font=14)
    for number, caption in enumerate(CAPTIONS):
        left = number * (PANEL + GAP)
        if number < len(panels):
            drawing.image(panels[number], (PANEL, PANEL), at=(left, 0.0))
            _outline(drawing, worst, View(at, left))
            drawing.text((left, PANEL + 16), caption, kind="f-soft")
    if reference is None:
        drawing.text((PANEL + GAP, PANEL / 2), "nothing repeats here: no reference", kind="f-soft")
    kind = "none" if reference is None else "own repetition" if seen.golden is None else "golden"
    return figure(str(drawing), f"{title}. {_described(worst, at, kind)}")


def window(box: "Box", shape: tuple[int, int]) -> Window:
    """A square around the box, as large as helps and inside the picture where it can be."""
    height, width = shape
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    side = round(min(max(SIDE_PX, AROUND * max(box[2] - box[0], box[3] - box[1])), height, width))
    x0 = int(min(max(x - side / 2, 0), width - side))
    y0 = int(min(max(y - side / 2, 0), height - side))
    return x0, y0, x0 + side, y0 + side


def _panels(image: NDArray[np.uint8], reference: NDArray[np.uint8] | None, at: Window) -> list[NDArray[np.uint8]]:
    x0, y0, x1, y1 = at
    parts = [image[y0:y1, x0:x1]]
    if reference is None:
        return [_enlarged(parts[0])]
    parts.append(reference[y0:y1, x0:x1])
    return [*map(_enlarged, parts), _enlarged(coloured(*parts))]


def _enlarged(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """To about the screen's pixels, so that none is blurred by a browser; very large ones smaller."""
    side = int(2 * PANEL)
    how = cv2.INTER_NEAREST if part.shape[0] < side else cv2.INTER_AREA
    return np.asarray(cv2.resize(part, (side, side), interpolation=how), np.uint8)


def coloured(part: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """White where they agree, blue where the frame is darker, vermillion where it is brighter. -> blue, green, red."""
    off = cv2.GaussianBlur(part.astype(np.float32) - reference.astype(np.float32), (0, 0), 1.0)
    span = max(float(np.percentile(np.abs(off), 99.5)), LEAST_SPAN)
    share = np.clip(off / span, -1.0, 1.0)[..., None]
    darker, brighter = (np.array(colour, np.float32) for colour in (DARKER, BRIGHTER))
    towards = np.where(share < 0.0, darker, brighter)
    return np.asarray(255.0 + np.abs(share) * (towards - 255.0) + 0.5, np.uint8)


def _outline(drawing: Drawing, worst: Worst, view: "View") -> None:
    """True boxes dashed; finds above the threshold in full, the false ones in vermillion."""
    from calibration.evaluate.defects_outcome import Fate

    for defect in worst.outcome.case.truth:
        view.box(drawing, defect.box_px, "s-orange dash" if defect is worst.defect else "s-sky dash")
    for each in worst.outcome.above(worst.threshold):
        view.box(drawing, each.box_px, "s-vermillion" if each.fate is Fate.FALSE else "s-blue")


@dataclass(frozen=True)
class View:
    """A panel: where it lies on the page, and the part of the picture in it."""

    window: Window
    left: float

    def box(self, drawing: Drawing, box: "Box", kind: str) -> None:
        """The part of it that lies in the panel."""
        x0, y0, x1, y1 = self.window
        low = max(box[0] - LINE_PX, x0), max(box[1] - LINE_PX, y0)
        high = min(box[2] + LINE_PX, x1), min(box[3] + LINE_PX, y1)
        if low[0] < high[0] and low[1] < high[1]:
            drawing.box(self._spot(*low), self._spot(*high), kind, 2.0)

    def _spot(self, x: float, y: float) -> tuple[float, float]:
        factor = PANEL / (self.window[2] - self.window[0])
        return self.left + (x - self.window[0]) * factor, (y - self.window[1]) * factor


def _described(worst: Worst, at: Window, reference: str) -> str:
    case, parts = worst.outcome.case, []
    if worst.defect is not None:
        defect = worst.defect
        parts.append(f"{defect.size_px:.0f} px")
        if defect.pitch_share is not None:
            parts.append(f"{defect.pitch_share:.2f} of the pitch")
        if defect.matched is not None:
            parts.append(f"matched-filter SNR {defect.matched:.0f}")
        if defect.to_noise is not None:
            parts.append(f"contrast {defect.to_noise:.2f} sigma of a pixel")
    field = f"{at[2] - at[0]} px" + ("" if case.pixel_size_m is None else f" of {told(case.pixel_size_m)}")
    parts += [f"field {field}", f"reference: {reference}", f"{case.split}: {case.key}"]
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _title(worst: Worst) -> str:
    if worst.defect is None:
        assert worst.find is not None
        return f"False alarm: {said(worst.find.name)}, confidence {worst.find.confidence:.2f}"
    name = f"Missed {said(worst.defect.name)}"
    if worst.find is None:
        return f"{name}: nothing said there"
    return f"{name}: {said(worst.find.name)} at {worst.find.confidence:.2f}, threshold {worst.threshold:.2f}"
