"""A trained network becomes a model package: model.onnx (opset 18, free height and width) and its manifest."""

import copy
import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.scene import STRIDE_PX

OPSET = 18
TRACED_PX = (192, 256)  # parity is checked at other sizes


def to_onnx(network: nn.Module, path: Path, *, condition: int, outputs: tuple[str, ...], channels: int = 1) -> None:
    """Write the graph: image uint8 [1, channels, height, width], multiples of 32; condition float32 [1, k]."""
    folded = fold_normalisation(network)
    height, width = (torch.export.Dim(name, min=2, max=256) for name in ("height_32", "width_32"))
    example = (torch.zeros(1, channels, *TRACED_PX, dtype=torch.uint8), torch.zeros(1, condition))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter deprecates its own parts in the middle of its work
        program = torch.onnx.export(
            folded,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image", "condition"],
            output_names=list(outputs),
            dynamic_shapes=({2: STRIDE_PX * height, 3: STRIDE_PX * width}, None),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # only the old exporter, which writes a file itself, returns nothing
    onnx.checker.check_model(program.model_proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stripped(program.model_proto).SerializeToString())


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes: they hold stack traces with the paths of the machine, and half change each time."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    graph = bare.graph
    for part in (bare, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return bare


def fold_normalisation(network: nn.Module) -> nn.Module:
    """A copy for inference in which every convolution has taken its batch normalisation in."""
    folded = copy.deepcopy(network).eval()
    for module in list(folded.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return folded


def _fold(sequence: nn.Sequential) -> None:
    for index in range(len(sequence) - 1):
        first, second = sequence[index], sequence[index + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            sequence[index], sequence[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
