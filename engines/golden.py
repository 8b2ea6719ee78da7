"""A package's golden set as the parity gate uses it: golden.npz in; pictures of any shape, what the model is told of
each, and what the float32 model says of it on the CPU, out. calibration/golden.py writes these files.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.channels import each_channel, frame_of, shape_of, size_of
from engines.defects import TASK as DEFECTS
from engines.defects import THRESHOLD, WORKING_POINT
from engines.errors import PackageError
from engines.manifest import Manifest, digest
from engines.onnx import OnnxEngine
from engines.scene import CONDITION, Scene, condition, levels_of

GOLDEN_FILE = "golden.npz"
OUT = "out_"  # before the names of outputs
# Neither the size of the export nor that of the set: cropped along one axis and mirrored along the other.
ODD_SHAPES = ((192, 320), (320, 224))
PIXELS_A_SHAPE = 16_000_000  # of all pictures of one asked shape: 20 of 768x1024, 2 of 2048x3072
FEWEST = 2
LEVELS = 2  # of a dense model's condition: mean and spread of the whole picture come first

Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """One question to an engine, and the answer of the float32 model."""

    image: NDArray[np.uint8]  # (h, w) or (c, h, w)
    condition: NDArray[np.float32]  # (k,)
    expected: Outputs  # with the batch dimension
    stride: int  # expected maps hold every stride-th row and column


@dataclass(frozen=True)
class Golden:
    """The set of one package."""

    label: str  # name@sha of the model that answered
    task: str
    threshold: float | None  # the working threshold of a defect model
    model: bytes  # its float32 ONNX
    image: NDArray[np.uint8]  # (n, h, w) or (n, c, h, w)
    condition: NDArray[np.float32]  # (n, k)
    outputs: Outputs  # each (n, ...)
    stride: int

    def cases(self, shape: tuple[int, int] | None = None) -> Iterator[Case]:
        """Without a shape: the set itself and its pictures cut and padded to odd sizes. With one: pictures of it."""
        if shape is None:
            yield from self._own()
            yield from self._asked(self._odd())
        else:
            yield from self._asked(self._filling(shape))

    def _own(self) -> Iterator[Case]:
        for index, (image, told) in enumerate(zip(self.image, self.condition, strict=True)):
            expected = {name: values[index : index + 1] for name, values in self.outputs.items()}
            yield Case(image, told, expected, self.stride)

    def _asked(self, pictures: Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]) -> Iterator[Case]:
        """The float32 model answers now, on the CPU of this machine."""
        reference = OnnxEngine(self.model)
        for image, told in pictures:
            expected = {name: value.copy() for name, value in reference.run(image, told).items()}
            yield Case(image, told, expected, 1)

    def _odd(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        for index, image in enumerate(self.image):
            picture = fitted(image, ODD_SHAPES[index % len(ODD_SHAPES)])
            yield picture, told_of(self.condition[index], picture)

    def _filling(self, shape: tuple[int, int]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
        count = min(max(PIXELS_A_SHAPE // (shape[0] * shape[1]), FEWEST), len(self.image))
        for index in range(count):
            start = index * len(self.image) // count
            picture = self._filled(start, shape)
            yield picture, told_of(self.condition[start], picture)

    def _filled(self, start: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Dense models judge each place for itself and get a mosaic; a focus has one blur: one crop, mirrored."""
        if self.condition.shape[1] != CONDITION:
            return fitted(self.image[start], shape)
        height, width = size_of(self.image[start])
        rows, columns = -(-shape[0] // height), -(-shape[1] // width)
        order = (start + np.arange(rows * columns)) % len(self.image)
        lines = [np.concatenate(list(self.image[line]), axis=-1) for line in order.reshape(rows, columns)]
        whole = np.concatenate(lines, axis=-2)
        return np.ascontiguousarray(whole[..., : shape[0], : shape[1]])


def read_golden(package: Path, manifest: Manifest, model: bytes) -> Golden:
    """Raises PackageError where the set is missing, changed, unreadable, or of another model."""
    path = package / GOLDEN_FILE
    arrays = _arrays(path, _checked(path, manifest))
    try:
        return _golden(arrays, manifest, model)
    except (KeyError, ValueError, IndexError) as error:
        raise PackageError(f"{path}: not a golden set of {manifest.label}: {error}; {AGAIN}") from error


AGAIN = "beamside calibrate golden writes it again"


def _checked(path: Path, manifest: Manifest) -> bytes:
    """What the manifest vouches for; of a manifest that names no set, what is there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise PackageError(f"{path}: missing from the model package; {AGAIN}") from error
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error}; {AGAIN}") from error
    expected, found = manifest.golden_sha256, digest(data)
    if isinstance(expected, str) and found != expected:
        raise PackageError(
            f"{path}: sha256 is {found[:12]}.., the manifest says {expected[:12]}..: the set was changed; {AGAIN}"
        )
    return data


def _arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PackageError(f"{path}: cannot be read: {error}; {AGAIN}") from error


def _golden(arrays: dict[str, NDArray[Any]], manifest: Manifest, model: bytes) -> Golden:
    if str(arrays["model"]) != manifest.sha256:
        raise ValueError(f"it was made with model {str(arrays['model'])[:8]}")
    outputs = {tensor.name: arrays[f"{OUT}{tensor.name}"] for tensor in manifest.outputs}
    image, told = arrays["image"], arrays["condition"]
    if image.dtype != np.uint8 or not len(image) or told.ndim != 2:
        raise ValueError(f"image is {image.dtype} {image.shape}, condition {told.shape}")
    if image.shape[1:-2] != shape_of(manifest.channels, size_of(image))[:-2]:
        raise ValueError(f"its pictures are {image.shape[1:]}, those of the model have {manifest.channels} channels")
    if any(len(values) != len(image) for values in (told, *outputs.values())):
        raise ValueError("its arrays are of different lengths")
    return Golden(
        label=manifest.label,
        task=manifest.task,
        threshold=manifest.metrics[WORKING_POINT][THRESHOLD] if manifest.task == DEFECTS else None,
        model=model,
        image=image,
        condition=np.asarray(told, np.float32),
        outputs=outputs,
        stride=int(arrays["out_stride"]),
    )


def fitted(image: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut, or mirrored again and again, to the shape (h, w)."""
    return each_channel(image, lambda channel: _fitted(channel, shape))


def _fitted(channel: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    down, right = max(shape[0] - channel.shape[0], 0), max(shape[1] - channel.shape[1], 0)
    whole = cv2.copyMakeBorder(channel, 0, down, 0, right, cv2.BORDER_REFLECT)
    return np.ascontiguousarray(np.asarray(whole, np.uint8)[: shape[0], : shape[1]])


def told_of(crop: NDArray[np.float32], picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The crop's own condition; for the dense models with the levels of the picture that was made of it."""
    if len(crop) != CONDITION:
        return crop
    return np.concatenate([condition(levels_of(frame_of(picture)), Scene())[:LEVELS], crop[LEVELS:]])
