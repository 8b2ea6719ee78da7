"""The cascade: what a detector found in a picture in; a path down the tree for each find out, and why.

Levels: is it a defect; is it of a known kind, and large or small by the recipe's sizes; is it above the noise; which
leaf class. The graph answers the first, the second's unknown and the last, of all candidates at once; sizes and the
noise gate are rules. It runs on the CPU: a handful of crops is measured there, and would wait for a GPU longer than it
takes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.cascade_crops import PLANES, SIDE_PX, shown
from engines.cascade_features import FEATURES, columns_of
from engines.cascade_levels import Answer, Judged, Limits, Sizes, judged
from engines.cascade_seen import Beside, Seen, seen
from engines.defects import CLASSES, WORKING_POINT
from engines.errors import InferenceError, PackageError
from engines.load import MODELS
from engines.manifest import Manifest, read
from engines.onnx import CPU_PROVIDER, REFUSALS
from engines.outputs import check_finite
from engines.readings import FoundDefect
from engines.scene import Scene, condition, levels_of

__all__ = ["TASK", "Beside", "Cascade", "Judged", "Sizes", "load_cascade", "shown"]

TASK = "cascade"
INPUTS = ("planes", "features")
OUTPUTS = ("defect", "leaf", "known", "embedding")
MOST = 128  # candidates of one picture, as many as a detector tells

Array = NDArray[Any]


class Graph:
    """The model's session. Not for two threads at once."""

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        """Raises PackageError."""
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what fails is raised, once
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, options, providers=[CPU_PROVIDER])
        except REFUSALS as error:
            raise PackageError(f"ONNX Runtime refuses the cascade: {error}") from error
        names = tuple(n.name for n in self._session.get_inputs()), tuple(n.name for n in self._session.get_outputs())
        if names != (INPUTS, OUTPUTS):
            raise PackageError(f"the cascade's graph has {names[0]} -> {names[1]}; expected {INPUTS} -> {OUTPUTS}")

    def run(self, planes: NDArray[np.uint8], features: NDArray[np.float32]) -> dict[str, Array]:
        """planes (n, 4, 64, 64), features (n, FEATURES) -> outputs by name. Raises InferenceError."""
        try:
            said = self._session.run(list(OUTPUTS), dict(zip(INPUTS, (planes, features), strict=True)))
        except REFUSALS as error:
            raise InferenceError(f"the cascade cannot read {planes.shape} crops: {error}") from error
        named = dict(zip(OUTPUTS, said, strict=True))
        check_finite(named)
        return named


class Cascade:
    """Judges the finds of one picture at a time."""

    def __init__(self, graph: Graph, manifest: Manifest) -> None:
        """Raises PackageError where the manifest has no working point, or the graph cannot read a first crop."""
        self._graph, self.name = graph, manifest.label  # name@sha
        try:
            told = manifest.metrics[WORKING_POINT]
            self.limits = Limits(defect=told["defect"], known=told["known"], chance=told["chance"])
        except KeyError as error:
            raise PackageError(f"{self.name}: the manifest has no {WORKING_POINT}.{error.args[0]}") from None
        self._first()

    def judge(
        self,
        image: NDArray[np.uint8],
        found: Sequence[FoundDefect],
        *,
        beside: Beside = Beside(),  # noqa: B008 - frozen
        sizes: Sizes | None = None,
    ) -> tuple[Judged, ...]:
        """image (h, w) uint8 without padding; one answer for each find, in their order.

        Beyond MOST finds the rest is left as the detector named it. Raises ValueError for a reference of another shape,
        InferenceError.
        """
        if not found:
            return ()
        some = found[:MOST]
        looked = seen(image, [find.box_px for find in some], beside, words=some)
        answers = self._answers(looked)
        told = zip(answers, looked.facts, strict=True)
        pixel_size_m = beside.scene.pixel_size_m
        first = tuple(judged(a, f, self.limits, sizes=sizes, pixel_size_m=pixel_size_m) for a, f in told)
        return first + tuple(Judged(find.name, ("defect", find.name), (), None) for find in found[MOST:])

    def _answers(self, looked: Seen) -> list[Answer]:
        said = self._graph.run(looked.planes, looked.features)
        rows = zip(said["defect"], said["leaf"], said["known"], strict=True)
        return [Answer(float(defect), leaf, float(known)) for defect, leaf, known in rows]

    def _first(self) -> None:
        crop = np.random.default_rng(0).integers(0, 256, (1, PLANES, SIDE_PX, SIDE_PX), np.uint8)
        features = np.zeros((1, FEATURES), np.float32)
        features[:, columns_of("condition")] = condition(levels_of(crop[0, 0]), Scene())
        try:
            said = self._graph.run(crop, features)
        except InferenceError as error:
            raise PackageError(f"{self.name}: {error}") from error
        if said["leaf"].shape != (1, len(CLASSES)):
            raise PackageError(f"{self.name}: the cascade names {said['leaf'].shape[-1]} classes, not {len(CLASSES)}")


def load_cascade(models: Path | None = None, *, threads: int = 1) -> Cascade | None:
    """The package in the folder, checked and started; None where there is none. Raises PackageError."""
    package = (models or MODELS) / TASK
    if not package.is_dir():
        return None
    manifest, model = read(package)
    if manifest.task != TASK:
        raise PackageError(f"{package}: the manifest is for task {manifest.task!r}, not {TASK!r}")
    try:
        return Cascade(Graph(model, threads=threads), manifest)
    except PackageError as error:
        raise PackageError(f"{package}: {error}") from error
