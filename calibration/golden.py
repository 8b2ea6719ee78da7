"""Golden sets: pictures, what a model is told of them, and what ONNX Runtime says on the CPU, to hold other engines to.

golden.npz beside a model.onnx, compressed; the same seed and model give the same bytes. For n crops of h x w pixels:

  model           str          sha256 of the model.onnx that answered
  image           uint8        (n, h, w), or (n, 2, h, w) of a model that compares: the crop and its reference
  condition       float32      (n, k) as the model's manifest has it
  out_<output>    as the graph (n, ...) what the graph said of each crop, its batch dimension taken off

and with the defect model, m defects that can be seen, in the order of the crops:

  defect_crop     int32        (m,) which crop
  defect_class    int32        (m,) index into engines.defects.CLASSES
  defect_box_px   float32      (m, 4) x0, y0, x1, y1

Maps of the depth model are kept at every `out_stride`-th (int32) row and column, (n, 1, 52, 52): whole ones would be
too large for git. All other outputs are whole.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.twin.inspection import InspectedFrame, inspected_frame
from engines import manifest
from engines.defects import CLASSES
from engines.errors import PackageError
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.reference import self_reference
from engines.scene import Scene, condition, levels_of

GOLDEN_FILE = "golden.npz"
CROPS = 32
SIDE = 256
PER_CROP = 10  # defects asked for; a coarse pattern has room for fewer
PATTERNS = ("line-space", "contact-holes")
UNTOLD_EVERY = 4  # of the crops: the model is told nothing of the frame
ALONE_EVERY = 5  # of the crops: there is no reference
MAP_STRIDE = 5  # of a height map: five is no multiple of the network's cell, so that every part of a cell is kept

Arrays = dict[str, NDArray[Any]]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One golden set on disk."""

    model: str  # name@sha
    path: str
    crops: int
    defects: int | None  # None: not a defect model
    bytes: int


def write_all(models: Path, *, seed: int, progress: Callable[[str, int, int], None]) -> list[Written]:
    """A golden set beside each model of the folder. Raises PackageError where there is none."""
    packages = [models / task for task in DRAW if (models / task / manifest.MANIFEST_FILE).exists()]
    if not packages:
        raise PackageError(f"{models}: no model package; expected one of {', '.join(DRAW)}")
    written = []
    for package in packages:
        written.append(write(package, seed=seed))
        progress("golden sets", len(written), len(packages))
    return written


def write(package: Path, *, seed: int) -> Written:
    """Draw the crops, ask the model, keep both; the manifest vouches for them from now on."""
    described, model = manifest.read(package)
    drawn = drawn_for(described, seed)
    said = answers(model, drawn["image"], drawn["condition"])
    path, partial = package / GOLDEN_FILE, package / f"{GOLDEN_FILE}.partial"
    everything: Arrays = {"model": np.array(described.sha256)} | drawn | said
    with partial.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **everything)
    data = partial.read_bytes()
    partial.replace(path)
    manifest.write(package, msgspec.structs.replace(described, golden_sha256=manifest.digest(data)))
    defects = len(drawn["defect_crop"]) if "defect_crop" in drawn else None
    return Written(model=described.label, path=str(path), crops=len(drawn["image"]), defects=defects, bytes=len(data))


def drawn_for(described: Manifest, seed: int) -> Arrays:
    """The crops that a package is asked about, with as many channels as its graph takes."""
    drawn = DRAW[described.task](seed)
    return drawn if described.channels == 1 else drawn | {"image": with_references(drawn["image"])}


def with_references(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, h, w) -> (n, 2, h, w): by its own repetition, where a crop has one; every fifth stands alone."""
    return np.stack([np.stack([crop, _reference(number, crop)]) for number, crop in enumerate(image)])


def _reference(number: int, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    own = None if number % ALONE_EVERY == ALONE_EVERY - 1 else self_reference(crop)
    return crop if own is None else own


def answers(model: bytes, image: NDArray[np.uint8], told: NDArray[np.float32]) -> Arrays:
    """out_<name> of each output, and the stride that maps were thinned by."""
    engine = OnnxEngine(model, threads=1)  # more would sum in another order from run to run
    said: dict[str, list[NDArray[Any]]] = {f"out_{name}": [] for name in engine.outputs}
    for picture, condition_of in zip(image, told, strict=True):
        for name, value in engine.run(picture, condition_of).items():
            said[f"out_{name}"].append(thinned(value[0]))
    columns: Arrays = {name: np.stack(values) for name, values in said.items()}
    return columns | {"out_stride": np.array(MAP_STRIDE, np.int32)}


def thinned(output: NDArray[Any]) -> NDArray[Any]:
    """A map (1, h, w) at every MAP_STRIDE-th pixel; anything else as it is."""
    if output.shape[-2:] != (SIDE, SIDE):
        return output.copy()
    return output[..., ::MAP_STRIDE, ::MAP_STRIDE].copy()


def autofocus_crops(seed: int) -> Arrays:
    """Every blur of four scenes."""
    from calibration.train import data

    drawn = data.small(-(-CROPS // data.PER_SCENE), seed=seed)
    return {"image": drawn.image[:CROPS], "condition": drawn.condition[:CROPS]}


def depth_crops(seed: int) -> Arrays:
    """Reliefs of every kind, each under several looks."""
    from calibration.train import depth_data

    drawn = depth_data.small(-(-CROPS // depth_data.LOOKS), seed=seed)
    return {"image": drawn.image[:CROPS], "condition": drawn.condition[:CROPS]}


def defect_crops(seed: int) -> Arrays:
    """Layouts full of defects."""
    frames = [
        inspected_frame(PATTERNS[crop % len(PATTERNS)], (SIDE, SIDE), seed=seed * CROPS + crop, defects=PER_CROP)
        for crop in range(CROPS)
    ]
    where = [(crop, defect) for crop, frame in enumerate(frames) for defect in frame.defects]
    return {
        "image": np.stack([frame.pixels for frame in frames]),
        "condition": np.stack([_told(crop, frame) for crop, frame in enumerate(frames)]),
        "defect_crop": np.array([crop for crop, _ in where], np.int32),
        "defect_class": np.array([CLASSES.index(defect.name) for _, defect in where], np.int32),
        "defect_box_px": np.array([defect.box_px for _, defect in where], np.float32),
    }


DRAW: dict[str, Callable[[int], Arrays]] = {
    "autofocus": autofocus_crops,
    "depth": depth_crops,
    "defects": defect_crops,
}


def _told(crop: int, frame: InspectedFrame) -> NDArray[np.float32]:
    facts = Scene(frame.pixel_size_m, frame.electrons_per_pixel, frame.accelerating_voltage_v)
    return condition(levels_of(frame.pixels), Scene() if crop % UNTOLD_EVERY == 0 else facts)
