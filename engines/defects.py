"""The defect model as a reading: a picture in, a list of boxes with class and confidence out; when it is due."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.begun import begun
from engines.built import lacks
from engines.errors import PackageError
from engines.load import Loaded
from engines.readings import Defects, FoundDefect
from engines.scene import Levels, Scene, check_shape, condition, levels_of, within

TASK = "defects"
CLASSES = (  # the channels of the heat map, in their order
    "pit",
    "particle",
    "bridge",
    "microbridge",
    "break",
    "necking",
    "missing_contact",
    "closed_contact",
    "merged_contact",
    "residue",
    "collapse",
    "scratch",
    "void",
    "other",
)
SEEN = 96  # numbers that a network tells of what it saw at each find, for the cascade
TRAINED_PIXEL_M = (0.8e-9, 8e-9)  # a pixel beyond it is told as its end
WORKING_POINT = "working_point"  # row of the manifest's metrics
THRESHOLD = "threshold"  # its figure: the confidence that clean frames exceed 0.1 times a frame
SMALLEST_PX = 64
OVERLAP = 0.5  # intersection over union from which two finds of any class are one defect


class DefectFinder:
    """Reads one frame at a time; raises InferenceError instead of answering with numbers that are none."""

    def __init__(self, loaded: Loaded) -> None:
        self._engine = loaded.engine
        self.name = loaded.manifest.label  # name@sha
        self.backend = loaded.engine.backend
        self.reason = loaded.reason
        self.wants_reference = loaded.manifest.channels > 1
        try:
            self.threshold = loaded.manifest.metrics[WORKING_POINT][THRESHOLD]
        except KeyError:
            raise PackageError(f"{self.name}: the manifest has no {WORKING_POINT}.{THRESHOLD}") from None

    def lacks(self, shape: tuple[int, ...]) -> bool:
        """Would a picture of this shape be read by a slower backend, for want of an engine?"""
        return lacks(self._engine, (shape[0], shape[1]))

    def read(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
        threshold: float | None = None,
    ) -> Defects:
        """image (h, w) uint8, both multiples of 32; the most confident first.

        levels: those of the whole picture, where `image` is a tile of it. reference: what the picture would be without
        defects, of the same shape; a model that compares takes the picture itself where there is none, and one that
        does not takes no notice of it. threshold: another than the package's own.
        """
        return self.begin(image, scene, levels, reference=reference, threshold=threshold)()

    def begin(
        self,
        image: NDArray[np.uint8],
        scene: Scene,
        levels: Levels | None = None,
        *,
        reference: NDArray[np.uint8] | None = None,
        threshold: float | None = None,
    ) -> Callable[[], Defects]:
        """As `read`, in two halves: other models may be begun before this one's answer is waited for."""
        check_shape(image)
        told = condition(levels or levels_of(image), within(scene, TRAINED_PIXEL_M))
        finish = begun(self._engine, self._shown(image, reference), told)
        least = self.threshold if threshold is None else threshold

        def found() -> Defects:
            out = finish()
            seen = out["seen"][0] if "seen" in out else None  # older packages keep it to themselves
            return defects_of(out["confidence"][0], out["class_index"][0], out["box_px"][0], least, image.shape, seen)

        return found

    def _shown(self, image: NDArray[np.uint8], reference: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """(h, w), or (2, h, w) where there is something to compare with."""
        if reference is None or not self.wants_reference:
            return _enlarged(image)
        if reference.shape != image.shape:
            raise ValueError(f"a {reference.shape} reference of a {image.shape} picture: both must be padded alike")
        return np.stack([_enlarged(image), _enlarged(reference)])


def defects_of(
    confidence: NDArray[np.float32],  # (k,) falling
    class_index: NDArray[np.int32],  # (k,)
    box_px: NDArray[np.float32],  # (k, 4)
    threshold: float,
    shape: tuple[int, ...],
    seen: NDArray[np.float32] | None = None,  # (k, SEEN)
) -> Defects:
    """The peaks above the threshold, clipped to the picture; of two that overlap, the more confident one."""
    kept: list[FoundDefect] = []
    for number, (sure, index, box) in enumerate(zip(confidence, class_index, box_px, strict=True)):
        if sure < threshold:
            break
        told = () if seen is None else tuple(seen[number].tolist())
        found = FoundDefect(CLASSES[int(index)], float(sure), clipped(box, shape), told)
        if all(overlap(found.box_px, other.box_px) < OVERLAP for other in kept):
            kept.append(found)
    return tuple(kept)


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirrored to the smallest size that has as many cells as the graph returns peaks."""
    down, right = max(SMALLEST_PX - image.shape[0], 0), max(SMALLEST_PX - image.shape[1], 0)
    if not down and not right:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT), np.uint8)


def clipped(box: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The part of a box inside the picture, a pixel wide at least."""
    height, width = shape
    x0, y0 = min(max(float(box[0]), 0.0), width - 1.0), min(max(float(box[1]), 0.0), height - 1.0)
    x1, y1 = min(max(float(box[2]), x0 + 1.0), float(width)), min(max(float(box[3]), y0 + 1.0), float(height))
    return x0, y0, x1, y1


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0.0 or h <= 0.0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)
