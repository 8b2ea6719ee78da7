"""A training that begins with the weights of a model package: the exported graph and some pictures in, a network out.

An exported graph has every normalisation inside the convolution before it. Here they are taken apart again, so that
the network says at first what the package says, and learns from there.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from calibration.train.package import Metrics
from engines import manifest
from engines.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

P = TypeVar("P", bound="DataclassInstance")

PICTURES = 256  # that show how each normalisation's input is spread
BATCH = 32
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of what was learnt, of which the best on a tuning set is kept
HARDLY = 0.03  # relative: about one standard error of the tuning sets
STEM = "trunk.stem.0.weight"  # what the channels of a picture come in by
GENTLER = 0.5  # of the learning rate from nothing: weights that know something are not thrown about


def weights_of(models: Path, task: str) -> bytes:
    """model.onnx of the task in a folder of packages. Raises ModelError where there is none, or an edited one."""
    folder = models / task
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such package; --start takes a models folder that holds {task}/model.onnx")
    return manifest.read(folder)[1]


def gentler(learning_rate: float, start: bytes | None) -> float:
    """The learning rate that suits a beginning; from nothing, the one given."""
    return learning_rate if start is None else GENTLER * learning_rate


def marked(plan: P, start: bytes | None) -> P:
    """A plan that knows what it begins with: a checkpoint of another beginning is not taken up."""
    return plan if start is None else dataclasses.replace(plan, start=manifest.digest(start))


def before(rows: Metrics) -> Metrics:
    """Figures of the model that a training began with, on the same pictures as its own."""
    return {f"before_{name}": row for name, row in rows.items()}


def between(first: bytes, last: bytes, share: float) -> bytes:
    """The graph whose weights lie between two of one network: `share` of the way from the first to the last.

    What lies between often knows both what the first knew and what was learnt (Wortsman et al., arXiv:2109.01903).
    Raises ModelError where they are two networks.
    """
    graph = onnx.load_model_from_string(last)
    stored = {each.name: each for each in onnx.load_model_from_string(first).graph.initializer}
    for each in graph.graph.initializer:
        to = numpy_helper.to_array(each)
        if "." not in each.name:  # a constant of the graph; weights have the names of their modules
            continue
        at = numpy_helper.to_array(stored[each.name]) if each.name in stored else None
        if at is None or at.shape != to.shape:
            raise ModelError(f"{each.name}: the two graphs are of different networks; nothing lies between them")
        mixed = np.asarray(at + np.float32(share) * (to - at), np.float32)
        each.CopyFrom(numpy_helper.from_array(mixed, each.name))
    return bytes(graph.SerializeToString())


def alike(first: bytes, last: bytes) -> bool:
    """Are two graphs of one network, so that something lies between them?"""
    return _weights(first) == _weights(last)


def _weights(model: bytes) -> dict[str, tuple[int, ...]]:
    stored = onnx.load_model_from_string(model).graph.initializer
    return {each.name: tuple(each.dims) for each in stored if "." in each.name}


def best_between(first: bytes, last: bytes, error: Callable[[bytes], float]) -> tuple[bytes, float]:
    """The graph between two that errs least, and its share; of those that err hardly more, the nearest to the first,
    which knows what the tuning set does not show. error: of a graph, on pictures no weight was fitted to."""
    graphs = {share: between(first, last, share) for share in SHARES}
    errors = {share: error(graph) for share, graph in graphs.items()}
    nearest = min(share for share in SHARES if errors[share] <= (1.0 + HARDLY) * min(errors.values()))
    return graphs[nearest], nearest


def begin(
    network: nn.Module,
    model: bytes,
    image: NDArray[np.uint8],
    condition: NDArray[np.float32],
    *,
    new: tuple[str, ...] = (),
) -> None:
    """Give the network the weights of an exported graph.

    image (n, h, w) or (n, c, h, w), condition (n, k): of the training to come. A channel that the graph has not is
    heard of with weight 0 at first; modules named in `new` that it has not begin from nothing. Raises ModelError where
    the graph is another network's.
    """
    stored = {each.name: numpy_helper.to_array(each) for each in onnx.load_model_from_string(model).graph.initializer}
    folded = _folded(network)
    unknown = tuple(f"{each}." for each in new if not any(name.startswith(f"{each}.") for name in stored))
    for name, own in [*network.named_parameters(), *network.named_buffers()]:
        if name.rpartition(".")[0] not in folded and not name.startswith(unknown):
            _take(own, stored, name)
    for name, normal in folded.items():
        _bypass(normal)
        _take(normal.bias, stored, f"{_before(name)}.bias")
    _spread(network, list(folded.values()), image, condition)


def _folded(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Normalisations by name: each stands behind a convolution in a sequence."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}


def _before(name: str) -> str:
    sequence, _, place = name.rpartition(".")
    return f"{sequence}.{int(place) - 1}"


@torch.no_grad()
def _take(own: Tensor, stored: dict[str, NDArray[np.float32]], name: str) -> None:
    if name == STEM and name in stored and stored[name].shape[1] < own.shape[1]:
        known = stored[name]
        own.zero_()
        own[:, : known.shape[1]].copy_(torch.from_numpy(np.array(known)))
        return
    if name not in stored or stored[name].shape != tuple(own.shape):
        found = "none" if name not in stored else f"shape {stored[name].shape}"
        raise ModelError(
            f"--start: {name} should have shape {tuple(own.shape)}, the package's model has {found}: "
            "it is another network; train without --start"
        )
    own.copy_(torch.from_numpy(np.array(stored[name])))


@torch.no_grad()
def _bypass(normal: nn.BatchNorm2d) -> None:
    assert normal.running_mean is not None and normal.running_var is not None
    normal.weight.fill_(1.0)
    normal.running_mean.zero_()
    normal.running_var.fill_(1.0 - normal.eps)


@torch.no_grad()
def _spread(
    network: nn.Module, normals: list[nn.BatchNorm2d], image: NDArray[np.uint8], condition: NDArray[np.float32]
) -> None:
    """Let each normalisation do by mean and spread what it did by weight and offset alone."""
    sums = {normal: (torch.zeros_like(normal.weight), torch.zeros_like(normal.weight)) for normal in normals}
    counts = dict.fromkeys(normals, 0)

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        mean, square = sums[module]
        mean += inputs[0].sum(dim=(0, 2, 3))
        square += inputs[0].square().sum(dim=(0, 2, 3))
        counts[module] += inputs[0].numel() // len(mean)

    hooks = [normal.register_forward_pre_hook(note) for normal in normals]
    network.eval()
    rows = np.linspace(0, len(image) - 1, min(len(image), PICTURES)).astype(np.intp)
    for batch in np.array_split(rows, max(len(rows) // BATCH, 1)):
        shown = torch.from_numpy(image[batch])
        network(shown if shown.ndim == 4 else shown[:, None], torch.from_numpy(condition[batch]))
    for hook in hooks:
        hook.remove()
    for normal in normals:
        assert normal.running_mean is not None and normal.running_var is not None
        mean = sums[normal][0] / counts[normal]
        variance = torch.clamp(sums[normal][1] / counts[normal] - mean.square(), min=0.0)
        normal.running_mean.copy_(mean)
        normal.running_var.copy_(variance)
        normal.weight.copy_(torch.sqrt(variance + normal.eps))
        normal.bias.add_(mean)
    network.train()
