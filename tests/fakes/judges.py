"""A cascade package whose answers follow from single features, to be seen at work without a training.

What holds silicon is residue, anything else a bridge; beside a reference it is surer that something is a defect.
"""

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from engines import manifest
from engines.cascade import INPUTS, TASK
from engines.cascade_features import ELEMENTS, FEATURES, columns_of
from engines.defects import CLASSES, WORKING_POINT
from engines.load import MODELS
from engines.manifest import Manifest, digest

ALONE, BESIDE = 0.8, 0.95  # probability of a defect, without a reference and with one
KNOWN = 0.6

GRAPH = f"""
<ir_version: 9, opset_import: ["" : 18]>
judges (uint8[n, 4, 64, 64] planes, float[n, {FEATURES}] features)
    => (float[n] defect, float[n, {len(CLASSES)}] leaf, float[n] known, float[n, {len(CLASSES)}] embedding)
<int64[1] last = {{1}}, float none = {{0.0}}>
{{
    embedding_raw = MatMul(features, by_feature)
    embedding = Add(embedding_raw, usual)
    leaf = Softmax <axis = 1> (embedding)
    sure = MatMul(features, by_reference)
    wide = Add(sure, alone)
    defect_wide = Sigmoid(wide)
    defect = Squeeze(defect_wide, last)
    off = Mul(defect, none)
    known = Add(off, strange)
}}
"""


def model() -> bytes:
    by_feature = np.zeros((FEATURES, len(CLASSES)), np.float32)
    by_feature[columns_of("fractions").start + ELEMENTS.index("Si"), CLASSES.index("residue")] = 20.0
    usual = np.zeros(len(CLASSES), np.float32)
    usual[CLASSES.index("bridge")] = 5.0
    by_reference = np.zeros((FEATURES, 1), np.float32)
    by_reference[columns_of("contrast").stop - 1] = _logit(BESIDE) - _logit(ALONE)
    graph = onnx.parser.parse_model(GRAPH)
    for name, values in {
        "by_feature": by_feature,
        "usual": usual,
        "by_reference": by_reference,
        "alone": np.array(_logit(ALONE), np.float32),
        "strange": np.array(KNOWN, np.float32),
    }.items():
        graph.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())


def _logit(share: float) -> float:
    return float(np.log(share / (1.0 - share)))


def described(of: bytes) -> Manifest:
    """As a shipped package's, of another graph. Its limits let everything pass."""
    shipped = manifest.read(MODELS / "defects")[0]
    inputs = (msgspec.structs.replace(shipped.inputs[0], name=name) for name in INPUTS)
    return msgspec.structs.replace(
        shipped,
        name="judges",
        task=TASK,
        sha256=digest(of),
        inputs=tuple(inputs),
        metrics={WORKING_POINT: {"defect": 0.5, "known": 0.05, "chance": 1.0}},
        variants=msgspec.UNSET,
        golden_sha256=msgspec.UNSET,
    )


def package(models: Path) -> Path:
    """models/cascade."""
    folder, data = models / TASK, model()
    folder.mkdir(parents=True)
    (folder / manifest.MODEL_FILE).write_bytes(data)
    manifest.write(folder, described(data))
    return folder
