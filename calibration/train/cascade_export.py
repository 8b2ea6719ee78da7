"""The trained cascade as a graph for any number of candidates, and its golden set: crops and what it says of them."""

import logging
import warnings
from pathlib import Path

import msgspec
import numpy as np
import onnx
import torch

from calibration.networks.cascade import CascadeNet
from calibration.train.cascade_data import Candidates
from calibration.train.export import OPSET, fold_normalisation, stripped
from engines import manifest
from engines.cascade import INPUTS, OUTPUTS, Graph
from engines.cascade_crops import PLANES, SIDE_PX
from engines.cascade_features import FEATURES
from engines.golden import GOLDEN_FILE, OUT

TRACED = 3  # candidates; parity is checked with other numbers of them
MOST = 4096
GOLDEN = 48  # candidates in the set


def to_onnx(network: CascadeNet, path: Path) -> None:
    """Write the graph: planes uint8 [n, 4, 64, 64] and features float32 [n, k]."""
    folded = fold_normalisation(network)
    example = (torch.zeros(TRACED, PLANES, SIDE_PX, SIDE_PX, dtype=torch.uint8), torch.zeros(TRACED, FEATURES))
    count = torch.export.Dim("candidates", min=1, max=MOST)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter deprecates its own parts in the middle of its work
        program = torch.onnx.export(
            folded,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: count}, {0: count}),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # only the old exporter, which writes a file itself, returns nothing
    onnx.checker.check_model(program.model_proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stripped(program.model_proto).SerializeToString())


def write_golden(package: Path, some: Candidates) -> None:
    """golden.npz beside the model, and its checksum in the manifest. The same candidates give the same bytes."""
    described, model = manifest.read(package)
    rows = np.linspace(0, len(some) - 1, min(GOLDEN, len(some))).astype(np.intp)
    planes, features = some.planes[rows], some.features[rows]
    said = {f"{OUT}{name}": value for name, value in Graph(model).run(planes, features).items()}
    path, partial = package / GOLDEN_FILE, package / f"{GOLDEN_FILE}.partial"
    with partial.open("wb") as out:
        np.savez_compressed(
            out, allow_pickle=False, model=np.array(described.sha256), planes=planes, features=features, **said
        )
    data = partial.read_bytes()
    partial.replace(path)
    manifest.write(package, msgspec.structs.replace(described, golden_sha256=manifest.digest(data)))
