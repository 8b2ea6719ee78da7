"""Twins of a model in fewer bits: the float32 graph in, FP16 and INT8 graphs with the same borders out.

Only what lies between the first and the last convolution changes its type. Before it, statistics of the whole picture
are taken, after it boxes, exponents and coordinates are made: sums of thousands of pixels overflow float16, and none of
this costs time. Inputs and outputs keep their types, so a reading cannot tell a twin from its model.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

INSIDE = ("Conv", "Relu", "Add", "Mul", "Resize", "MaxPool")  # what may be computed in fewer bits
PLAIN_INPUTS = {"Resize": (1, 2, 3)}  # inputs that are float32 whatever the type of the data
HALF_MAX = 65504.0


# --- float16 ---


def half(model: bytes) -> bytes:
    """The FP16 twin. Raises ValueError where a weight does not fit into float16 or nothing can be converted."""
    graph = onnx.load_from_string(model)
    zone = inside(graph)
    if not zone:
        raise ValueError("the graph has no convolution: there is nothing to convert to float16")
    _Halver(graph.graph, zone).convert()
    del graph.graph.value_info[:]  # types of before
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())


def inside(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes between the first and the last convolution, both included."""
    nodes = list(model.graph.node)
    convolutions = {node.name for node in nodes if node.op_type == "Conv"}
    after, made = set(convolutions), _made_by(nodes)
    for node in nodes:  # the order of a graph is its data's
        if any(made.get(name) in after for name in node.input):
            after.add(node.name)
    before, used = set(convolutions), _used_by(nodes)
    for node in reversed(nodes):
        if any(user in before for name in node.output for user in used.get(name, ())):
            before.add(node.name)
    return {node.name for node in nodes if node.name in after & before and node.op_type in INSIDE}


class _Halver:
    """Rewrites one graph: float16 in the zone, a cast wherever data crosses its border."""

    def __init__(self, graph: onnx.GraphProto, zone: set[str]) -> None:
        self._graph, self._zone = graph, zone
        self._constants = {each.name: each for each in graph.initializer}
        self._shadows: dict[str, str] = {}  # float32 tensor -> its float16 twin

    def convert(self) -> None:
        """Tensors keep their names in float32 and get a twin `<name>_half` in float16."""
        nodes = [made for node in self._graph.node for made in self._converted(node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        self._drop_unused()

    def _converted(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        if node.name not in self._zone:
            yield node
            return
        for place, name in enumerate(node.input):
            if name and place not in PLAIN_INPUTS.get(node.op_type, ()):
                if name not in self._shadows:
                    yield from self._shadow(name)
                node.input[place] = self._shadows[name]
        plain, node.output[0] = node.output[0], f"{node.output[0]}_half"
        self._shadows[plain] = node.output[0]
        yield node
        yield helper.make_node("Cast", [node.output[0]], [plain], name=f"{node.name}_float", to=TensorProto.FLOAT)

    def _shadow(self, name: str) -> Iterator[onnx.NodeProto]:
        self._shadows[name] = f"{name}_half"
        constant = self._constants.get(name)
        if constant is None:
            yield helper.make_node("Cast", [name], [f"{name}_half"], name=f"{name}_to_half", to=TensorProto.FLOAT16)
            return
        values = numpy_helper.to_array(constant)
        if np.abs(values).max(initial=0.0) > HALF_MAX:
            raise ValueError(f"weight {name} reaches {np.abs(values).max():.3g}, beyond float16")
        self._graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))

    def _drop_unused(self) -> None:
        """Casts back that nobody reads, and weights that only their twins are read of."""
        wanted = {each.name for each in self._graph.output} | {n for node in self._graph.node for n in node.input}
        for node in [node for node in self._graph.node if node.op_type == "Cast" and node.output[0] not in wanted]:
            self._graph.node.remove(node)
        wanted = {name for node in self._graph.node for name in node.input}
        for constant in [each for each in self._graph.initializer if each.name not in wanted]:
            self._graph.initializer.remove(constant)


def _made_by(nodes: list[onnx.NodeProto]) -> dict[str, str]:
    return {name: node.name for node in nodes for name in node.output}


def _used_by(nodes: list[onnx.NodeProto]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node.name)
    return users


# --- eight bits ---


def eight_bit(
    model: bytes,
    image: NDArray[np.uint8],  # (n, h, w) or (n, c, h, w)
    condition: NDArray[np.float32],  # (n, k)
) -> bytes:
    """The INT8 twin for ONNX Runtime on a CPU: Q/DQ, weights signed and symmetric per channel, activations unsigned.

    The pictures tell the range of each activation.
    """
    # Imported here: the package reaches for torch-sized parts that only this function needs.
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "done"))
        plain.write_bytes(model)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        prepared = onnx.load(ready)
        zone = inside(prepared)
        quantize_static(
            ready,
            done,
            _Pictures(image, condition),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=sorted(zone),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return done.read_bytes()


class _Pictures:
    """What the quantiser asks for, picture by picture."""

    def __init__(self, image: NDArray[np.uint8], condition: NDArray[np.float32]) -> None:
        self._left = list(zip(image, condition, strict=True))

    def get_next(self) -> dict[str, NDArray[np.uint8] | NDArray[np.float32]] | None:
        if not self._left:
            return None
        picture, told = self._left.pop(0)
        return {"image": picture.reshape(1, -1, *picture.shape[-2:]), "condition": told[None]}
