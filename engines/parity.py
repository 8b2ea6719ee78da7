"""The gate: an engine in, a report out. It must say of the golden set what the float32 model says, task by task.

An engine whose report did not pass does not serve. The report is JSON and is kept beside the engine; each failure names
the output, the figure, the limit and the size of picture.

How "the same" is counted, each over all pictures and the worst of them:
  autofocus   the largest difference of the score; of ln(blur), its sigma and the content
  depth       the difference that 99.9 % of a picture's pixels stay within, over its range of heights, and none beyond
              five times as much; the largest difference of ln(scale)
  defects     matched / (matched + missed + invented) of all defects above the working threshold, a match being of one
              class with boxes that share half of their union
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines import autofocus, defects, depth
from engines.channels import size_of
from engines.defects import OVERLAP, defects_of, overlap
from engines.errors import ModelError
from engines.golden import Case, Golden, Outputs
from engines.readings import Defects

Run = Callable[[NDArray[np.uint8], NDArray[np.float32]], Mapping[str, NDArray[Any]]]

SCORE = 0.05  # of 10
BLUR = 0.05  # of ln(blur) and its sigma: a sixth of the model's own error
CONTENT = 0.05
HEIGHT = {"fp32": 0.002, "fp16": 0.002, "int8": 0.01}  # of a picture's range
MOST = 0.999  # of the pixels: the very largest difference grows with the number of pixels that were looked at
OUTLIER = 5.0  # times the limit, for the rest
SCALE = 0.05  # of ln(scale): a doubt needs no more than a twentieth
SAME = 0.995  # of the defects
FLATTEST_PX = 1.0  # a picture with less range of heights is measured against this: nothing divides by a flat field
STRONGER = 0.9  # of a full list: ranks near its end change with the last bit
TOLD = 8  # failures in a report; the rest repeat them


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison, the worst over all pictures."""

    output: str
    measure: str
    value: float
    limit: float
    shape: tuple[int, int]  # of the worst picture
    passed: bool


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate found."""

    model: str  # name@sha of the float32 model
    task: str
    precision: str
    passed: bool
    pictures: int
    shapes: tuple[tuple[int, int], ...]
    figures: tuple[Figure, ...]
    failures: tuple[str, ...]  # one sentence each; empty where it passed

    def json(self) -> bytes:
        return msgspec.json.encode(self)


def check(run: Run, golden: Golden, *, precision: str, shape: tuple[int, int] | None = None) -> Report:
    """shape: of an engine that was built for one; without it the golden set as it is and at odd sizes."""
    count = _Count(COMPARE[golden.task], golden.threshold or 0.0, precision)
    for case in golden.cases(shape):
        try:
            said = run(case.image, case.condition)
        except ModelError as error:
            count.fail(case, str(error))
            break  # an engine that raises is refused whatever it says of the others
        count.add(case, said)
    return count.report(golden)


@dataclass(frozen=True)
class Difference:
    """One figure of one picture."""

    output: str
    measure: str
    value: float
    limit: float


@dataclass
class _Count:
    """What was seen so far."""

    compare: Callable[["_Count", Case, Outputs], list[Difference]]
    threshold: float
    precision: str
    pictures: int = 0
    shapes: dict[tuple[int, int], None] = field(default_factory=dict)
    worst: dict[str, Figure] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    matched: int = 0
    different: int = 0

    def add(self, case: Case, said: Mapping[str, NDArray[Any]]) -> None:
        self.pictures += 1
        self.shapes[_shape(case)] = None
        whole = {name: thinned(said[name], case.stride) for name in case.expected if name in said}
        broken = faults(case, said, whole)
        for fault in broken:
            self.fail(case, fault)
        if not broken:
            for difference in self.compare(self, case, whole):
                self._keep(difference, case)

    def fail(self, case: Case, why: str) -> None:
        height, width = _shape(case)
        self.failures.append(f"{why} (a {height}x{width} picture)")

    def _keep(self, found: Difference, case: Case) -> None:
        known = self.worst.get(found.output + found.measure)
        if known is None or found.value > known.value:
            self.worst[found.output + found.measure] = Figure(
                output=found.output,
                measure=found.measure,
                value=found.value,
                limit=found.limit,
                shape=_shape(case),
                passed=found.value <= found.limit,
            )

    def report(self, golden: Golden) -> Report:
        if golden.task == defects.TASK and not self.failures:
            self._judge_defects(self.matched + self.different)
        told = [
            f"output {f.output}: {f.measure} is {f.value:.4g} at {f.shape[0]}x{f.shape[1]}, the limit is {f.limit:g}"
            for f in self.worst.values()
            if not f.passed
        ]
        failures = tuple(dict.fromkeys([*self.failures, *told]))
        return Report(
            model=golden.label,
            task=golden.task,
            precision=self.precision,
            passed=not failures and self.pictures > 0,
            pictures=self.pictures,
            shapes=tuple(self.shapes),
            figures=tuple(self.worst.values()),
            failures=failures[:TOLD],
        )

    def _judge_defects(self, seen: int) -> None:
        if not seen:
            self.failures.append("the golden set shows no defect above the working threshold: nothing was compared")
            return
        share, where = self.matched / seen, tuple(self.shapes)[-1]
        self.worst["same"] = Figure(
            output="confidence", measure=SAME_MEASURE, value=share, limit=SAME, shape=where, passed=share >= SAME
        )


SAME_MEASURE = "share of the same defects"


def thinned(output: NDArray[Any], stride: int) -> NDArray[Any]:
    """A map (1, 1, h, w) at every stride-th row and column; anything else as it is."""
    return output[..., ::stride, ::stride] if output.ndim == 4 else output


def faults(case: Case, said: Mapping[str, NDArray[Any]], whole: Outputs) -> list[str]:
    """What is no answer at all: an output that is missing, has another shape, or is not finite."""
    found = []
    for name, expected in case.expected.items():
        if name not in said:
            found.append(f"output {name} is missing")
        elif whole[name].shape != expected.shape:
            found.append(f"output {name} has shape {said[name].shape}")
        elif not math.isfinite(float(said[name].sum(dtype=np.float64))):
            found.append(f"output {name} is not finite")
    return found


# --- by task ---


def _autofocus(count: _Count, case: Case, said: Outputs) -> list[Difference]:
    limits = {"score": SCORE, "log_blur": BLUR, "log_blur_sigma": BLUR, "content": CONTENT}
    return [
        Difference(name, "largest difference", float(np.abs(said[name] - case.expected[name]).max()), limit)
        for name, limit in limits.items()
    ]


def _depth(count: _Count, case: Case, said: Outputs) -> list[Difference]:
    height, scale = case.expected["height_px"], case.expected["scale_px"]
    difference = np.abs(said["height_px"] - height) / max(float(np.ptp(height)), FLATTEST_PX)
    limit = HEIGHT[count.precision]
    if float(said["scale_px"].min()) <= 0.0:
        return [Difference("scale_px", "least value below", 1.0, 0.0)]
    ratio = float(np.abs(np.log(said["scale_px"] / scale)).max())
    return [
        Difference("height_px", "99.9 % difference over range", float(np.quantile(difference, MOST)), limit),
        Difference("height_px", "largest difference over range", float(difference.max()), OUTLIER * limit),
        Difference("scale_px", "largest difference of ln", ratio, SCALE),
    ]


def _defects(count: _Count, case: Case, said: Outputs) -> list[Difference]:
    classes = said["class_index"]
    if classes.min() < 0 or classes.max() >= len(defects.CLASSES):
        return [Difference("class_index", "largest class", float(np.abs(classes).max()), len(defects.CLASSES) - 1.0)]
    threshold = _told_from(case.expected["confidence"][0], count.threshold)
    there, found = (_read(each, threshold, _shape(case)) for each in (case.expected, said))
    same = matches(there, found)
    count.matched += same
    count.different += len(there) + len(found) - 2 * same
    return []


COMPARE: dict[str, Callable[[_Count, Case, Outputs], list[Difference]]] = {
    autofocus.TASK: _autofocus,
    depth.TASK: _depth,
    defects.TASK: _defects,
}


def matches(there: Defects, found: Defects) -> int:
    """Defects of one class whose boxes share half of their union; each counts once."""
    free = list(found)
    for one in there:
        for other in free:
            if one.name == other.name and overlap(one.box_px, other.box_px) >= OVERLAP:
                free.remove(other)
                break
    return len(found) - len(free)


def _told_from(confidence: NDArray[np.float32], threshold: float) -> float:
    """A list that is full to its end says nothing of what is weaker: then its stronger part is compared."""
    if confidence[-1] < threshold:
        return threshold
    weakest = confidence[int(STRONGER * len(confidence)) - 1]
    return float(np.nextafter(np.float32(weakest), np.float32(np.inf)))


def _read(outputs: Outputs, threshold: float, shape: tuple[int, ...]) -> Defects:
    return defects_of(outputs["confidence"][0], outputs["class_index"][0], outputs["box_px"][0], threshold, shape)


def _shape(case: Case) -> tuple[int, int]:
    return size_of(case.image)
