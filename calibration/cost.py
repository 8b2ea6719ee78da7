"""What a model must do for one picture, whatever runs it: operations of its convolutions and bytes it cannot avoid."""

from dataclasses import dataclass
from math import prod

import numpy as np
import onnx


@dataclass(frozen=True)
class Cost:
    """For one picture. A lower bound: no intermediate result is counted as leaving the chip."""

    operations: float  # a multiplication and an addition are two
    bytes: float  # weights, inputs and outputs, each once


def cost(model: bytes, shape: tuple[int, int]) -> Cost:
    """shape: h, w. Raises ValueError where the graph's sizes are not known for it."""
    graph = onnx.load_from_string(model)
    height, width = graph.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_value, width.dim_value = shape
    del graph.graph.value_info[:]
    for output in graph.graph.output:
        output.type.tensor_type.ClearField("shape")
    known = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
    sizes = {value.name: _size(value) for value in (*known.value_info, *known.input, *known.output)}
    weights = {each.name: each for each in known.initializer}
    operations = 0.0
    for node in known.node:
        if node.op_type == "Conv":
            out = sizes.get(node.output[0])
            if out is None:
                raise ValueError(f"the size of {node.output[0]} is not known at {shape[0]}x{shape[1]}")
            operations += 2.0 * out[0] * prod(weights[node.input[1]].dims[1:])
    ends = sum(
        elements * width_b for elements, width_b in (sizes[x.name] or (0, 0) for x in (*known.input, *known.output))
    )
    return Cost(operations, float(ends + sum(len(each.raw_data) for each in weights.values())))


def _size(value: onnx.ValueInfoProto) -> tuple[int, int] | None:
    """Elements and bytes of each; None where a side is free."""
    tensor = value.type.tensor_type
    sides = [dim.dim_value for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or not all(sides):
        return None
    return prod(sides), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
