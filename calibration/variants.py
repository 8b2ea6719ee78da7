"""Twins of the models in fewer bits, made, judged and kept beside them: `beamside calibrate variants`.

An FP16 twin is kept where the parity gate passes it on this CPU, which rounds each value to float16 and computes in
float32; on the GPU the gate asks again. An INT8 twin is kept where it passes and is faster than its model. Both are
asked about further sets too: the ranges of INT8 are fixed, and a picture beyond them is read as another one. (Of five
sets that an INT8 autofocus was tried on four passed; on the fifth the score was wrong by 3.4.)
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from calibration.golden import DRAW, answers, drawn_for
from calibration.quantise import eight_bit, half
from engines import manifest
from engines.channels import shape_of
from engines.errors import PackageError
from engines.golden import OUT, Golden, read_golden
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.parity import Report, check
from engines.timing import in_turns

RANGES, FURTHER = 1000, 2000  # added to the seed: ranges, golden set and further sets come from different pictures
RANGE_SETS, FURTHER_SETS = 2, 4
TIMED_SHAPE = (768, 1024)
RUNS = 12
PRECISIONS = ("fp16", "int8")


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One twin and what became of it."""

    model: str  # name@sha
    precision: str
    kept: bool
    why: str
    parity: Report  # of the golden set; where that passed and the further ones did not, of those
    bytes: int
    p50_s: float | None  # int8: at 768x1024, one thread of this CPU, in turns with the model
    p50_float32_s: float | None


def write_all(models: Path, *, seed: int, progress: Callable[[str, int, int], None]) -> list[Made]:
    """Both twins of each model of the folder. Raises PackageError."""
    packages = [models / task for task in DRAW if (models / task / manifest.MANIFEST_FILE).exists()]
    if not packages:
        raise PackageError(f"{models}: no model package; expected one of {', '.join(DRAW)}")
    made: list[Made] = []
    for package in packages:
        made += write(package, seed=seed)
        progress("variants", len(made), len(packages) * len(PRECISIONS))
    return made


def write(package: Path, *, seed: int) -> list[Made]:
    """Make and judge both; the manifest names those that are kept, the others' files go."""
    described, model = manifest.read(package)
    image, told = _drawn(described, [seed + RANGES + number for number in range(RANGE_SETS)])
    twins = {"fp16": half(model), "int8": eight_bit(model, image, told)}
    sets = _sets(package, described, model, seed=seed)
    made = [_judged(described, model, sets, precision=name, twin=twin) for name, twin in twins.items()]
    kept = {each.precision: manifest.digest(twins[each.precision]) for each in made if each.kept}
    for precision, twin in twins.items():
        _place(package / manifest.twin_file(precision), twin if precision in kept else None)
    manifest.write(package, msgspec.structs.replace(described, variants=kept))
    return made


def _drawn(described: Manifest, seeds: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    sets = [drawn_for(described, seed) for seed in seeds]
    return np.concatenate([each["image"] for each in sets]), np.concatenate([each["condition"] for each in sets])


def _sets(package: Path, described: Manifest, model: bytes, *, seed: int) -> list[Golden]:
    """The golden set, then further pictures with what the float32 model says of them."""
    golden = read_golden(package, described, model)
    image, told = _drawn(described, [seed + FURTHER + number for number in range(FURTHER_SETS)])
    said = answers(model, image, told)
    outputs = {name: said[f"{OUT}{name}"] for name in golden.outputs}
    return [golden, replace(golden, image=image, condition=told, outputs=outputs, stride=int(said["out_stride"]))]


def _judged(described: Manifest, model: bytes, sets: list[Golden], *, precision: str, twin: bytes) -> Made:
    run = OnnxEngine(twin).run
    reports = [check(run, each, precision=precision) for each in sets]
    report = next((each for each in reports if not each.passed), reports[0])
    ours, theirs = _speeds(described, model, twin) if precision == "int8" else (None, None)
    slower = ours is not None and theirs is not None and ours >= theirs
    why = "; ".join(report.failures) or ("it is not faster than float32 here" if slower else "passed the parity gate")
    return Made(
        model=described.label,
        precision=precision,
        kept=report.passed and not slower,
        why=why,
        parity=report,
        bytes=len(twin),
        p50_s=ours,
        p50_float32_s=theirs,
    )


def _speeds(described: Manifest, model: bytes, twin: bytes) -> tuple[float, float]:
    """Seconds of the twin and of the model."""
    picture = np.random.default_rng(0).integers(0, 256, shape_of(described.channels, TIMED_SHAPE), np.uint8)
    told = np.zeros(int(described.inputs[1].shape[1]), np.float32)
    told[1] = 1.0  # the dense models divide by a spread
    runs = {name: OnnxEngine(data, threads=1).run for name, data in (("twin", twin), ("model", model))}
    took = in_turns({name: partial(run, picture, told) for name, run in runs.items()}, RUNS)
    return took["twin"].p50_s, took["model"].p50_s


def _place(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
