"""A defect package of two channels: a cell of 8 x 8 pixels is a pit where frame and reference differ in the mean.

The difference is told in spreads of the whole picture, so that a tile has to be told the levels of the whole.
"""

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from engines import manifest
from engines.defects import THRESHOLD, WORKING_POINT
from engines.load import MODELS
from engines.manifest import Manifest, digest

CELL_PX = 8
BEST = 32
LEAST = 0.2  # of the confidence: a cell that differs by 0.4 of the spread

GRAPH = """
<ir_version: 9, opset_import: ["" : 18]>
compares (uint8[1, 2, height, width] image, float[1, 8] condition)
    => (float[1, 32] confidence, int32[1, 32] class_index, float[1, 32, 4] box_px)
<float[1] two = {2.0}, float[1] whole = {255.0}, int64[1] best = {32}, int64[2] flat = {1, -1}, int64 third = {3},
 int64[1] second = {1}, int64[1] ended = {2}, int64[1] last = {2}, int64[1] none = {0}, float zero = {0.0},
 float one = {1.0}, float[1] cell = {8.0}>
{
    grey = Cast <to = 1> (image)
    frame, reference = Split <axis = 1, num_outputs = 2> (grey)
    off = Sub(frame, reference)
    mean_off = Conv <kernel_shape = [8, 8], strides = [8, 8]> (off, weights)
    far = Abs(mean_off)
    spread = Slice(condition, second, ended, second)
    levels = Mul(spread, whole)
    limit = Mul(levels, two)
    share = Div(far, limit)
    sure = Clip(share, zero, one)
    around = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (sure)
    summit = Equal(sure, around)
    kept = Where(summit, sure, zero)
    cells = Reshape(kept, flat)
    confidence, place = TopK <axis = 1> (cells, best)
    sizes = Shape(kept)
    columns = Gather(sizes, third)
    across = Mod(place, columns)
    down = Div(place, columns)
    x = Cast <to = 1> (across)
    y = Cast <to = 1> (down)
    x0 = Mul(x, cell)
    y0 = Mul(y, cell)
    x1 = Add(x0, cell)
    y1 = Add(y0, cell)
    left = Unsqueeze(x0, last)
    top = Unsqueeze(y0, last)
    right = Unsqueeze(x1, last)
    bottom = Unsqueeze(y1, last)
    box_px = Concat <axis = 2> (left, top, right, bottom)
    nothing = Mul(place, none)
    class_index = Cast <to = 6> (nothing)
}
"""


def model() -> bytes:
    graph = onnx.parser.parse_model(GRAPH)
    weights = np.full((1, 1, CELL_PX, CELL_PX), 1.0 / CELL_PX**2, np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    for number, node in enumerate(graph.graph.node):
        node.name = f"{node.op_type}_{number}"
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())


def described(of: bytes, channels: int = 2) -> Manifest:
    """As the shipped package's, of another graph."""
    shipped = manifest.read(MODELS / "defects")[0]
    image, condition = shipped.inputs
    told = shipped.outputs[:3]  # what it saw it keeps to itself
    outputs = (msgspec.structs.replace(each, shape=(1, BEST, *each.shape[2:])) for each in told)
    return msgspec.structs.replace(
        shipped,
        name="compares",
        sha256=digest(of),
        inputs=(msgspec.structs.replace(image, shape=(1, channels, "height", "width")), condition),
        outputs=tuple(outputs),
        metrics={WORKING_POINT: {THRESHOLD: LEAST}},
        variants=msgspec.UNSET,
        golden_sha256=msgspec.UNSET,
    )


def package(models: Path, channels: int = 2) -> Path:
    """models/defects, without a golden set. channels: what its manifest says."""
    folder, data = models / "defects", model()
    folder.mkdir(parents=True)
    (folder / manifest.MODEL_FILE).write_bytes(data)
    manifest.write(folder, described(data, channels))
    return folder
