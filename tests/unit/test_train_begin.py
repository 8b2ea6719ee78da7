"""A training that begins with the weights of a package: the same answers at first, refusals where it cannot be."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from calibration.networks.autofocus import AutofocusNet
from calibration.networks.defects import DefectNet
from calibration.networks.dense import Trunk
from calibration.networks.depth import DepthNet
from calibration.train import begin, data, defects_data, defects_learn, depth_data, depth_learn, export
from calibration.train.depth_describe import DEPTH
from engines.errors import ModelError
from engines.load import MODELS
from engines.manifest import digest
from engines.onnx import OnnxEngine
from engines.scene import CONDITION

NETWORKS = {"autofocus": AutofocusNet, "depth": DepthNet, "defects": DefectNet}


class Alone(torch.nn.Module):
    """A trunk under its name in a network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = Trunk(channels)

    def forward(self, image: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.trunk(image, condition))


def shown(task: str) -> tuple[np.ndarray, np.ndarray]:
    torch.set_num_threads(1)  # two wait for each other beside anything else
    if task == "autofocus":
        samples = data.small(3, seed=5)
        return samples.image, samples.condition
    if task == "depth":
        fields = depth_data.small(9, seed=5)
        return fields.image, fields.condition
    inspected = defects_data.small(9, defects_data.Recipe(5))
    return np.stack([inspected.image, inspected.own], axis=1), inspected.condition


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A depth network whose normalisations have seen something."""
    torch.manual_seed(4)
    network = DepthNet().train()
    image, condition = shown("depth")
    with torch.no_grad():
        for turn in network.trunk.turns.parameters():
            turn.normal_(std=0.1)  # zeros at first, and of equal numbers an exported graph keeps one
        for _ in range(8):
            network(torch.from_numpy(image)[:, None], torch.from_numpy(condition))
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export.to_onnx(network.eval(), path, condition=CONDITION, outputs=DEPTH.output_names)
    return path.read_bytes()


@pytest.mark.parametrize("task", ["autofocus", "depth"])
def test_a_network_that_begins_with_a_model_says_what_the_model_says(task: str, exported: bytes) -> None:
    torch.manual_seed(3)
    image, condition = shown(task)
    model = begin.weights_of(MODELS, task) if task == "autofocus" else exported
    network = NETWORKS[task]()
    begin.begin(network, model, image, condition)
    network.eval()
    engine = OnnxEngine(model)
    for row in range(2):
        with torch.no_grad():
            told = network(torch.from_numpy(image[row : row + 1])[:, None], torch.from_numpy(condition[row : row + 1]))
        expected = list(engine.run(image[row], condition[row]).values())
        assert len(told) == len(expected)
        for mine, theirs in zip(told, expected, strict=True):
            np.testing.assert_allclose(mine.numpy().squeeze(), theirs.squeeze(), atol=2e-3 * (np.ptp(theirs) + 1.0))


@pytest.mark.parametrize("task", NETWORKS)
def test_it_learns_on_from_there_and_not_from_nothing(task: str) -> None:
    """In training each normalisation goes by its own batch: the answers stay near those of the package."""
    torch.manual_seed(3)
    image, condition = shown(task)
    rows = torch.from_numpy(image if image.ndim == 4 else image[:, None]), torch.from_numpy(condition)
    known, blank = NETWORKS[task](), NETWORKS[task]()
    begin.begin(known, begin.weights_of(MODELS, task), image, condition, new=defects_learn.NEW)
    with torch.no_grad():
        trusted = said(known.eval(), rows)
        learning = said(known.train(), rows)
        other = said(blank.train(), rows)
    assert np.corrcoef(trusted.ravel(), learning.ravel())[0, 1] > 0.9
    assert np.abs(learning - trusted).mean() < 0.5 * np.abs(other - trusted).mean()


def said(network: torch.nn.Module, rows: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """The first output; of the defect network its heat, for older packages have no objectness."""
    first = network.raw(*rows).heat if isinstance(network, DefectNet) else network(*rows)[0]
    return np.asarray(first.numpy())


def test_a_channel_that_the_package_has_not_is_heard_of_with_weight_0_at_first(tmp_path: Path) -> None:
    torch.manual_seed(5)
    path, old = tmp_path / "model.onnx", Alone(1)
    image, condition = shown("defects")
    with torch.no_grad():
        for each in old.trunk.turns.parameters():
            each.normal_(std=0.1)  # zeros at first, and of equal numbers an exported graph keeps one
        old.train()(torch.from_numpy(image[:, :1]), torch.from_numpy(condition))
    export.to_onnx(old.eval(), path, condition=CONDITION, outputs=("features",))
    network = Alone(2)
    begin.begin(network, path.read_bytes(), image, condition)
    network.eval()
    with torch.no_grad():
        compared = network(torch.from_numpy(image), torch.from_numpy(condition))
        alone = network(torch.from_numpy(image[:, [0, 0]]), torch.from_numpy(condition))
    assert torch.equal(compared, alone)
    expected = OnnxEngine(path.read_bytes()).run(image[0, 0], condition[0])["features"][0]
    np.testing.assert_allclose(alone[0].numpy(), expected, atol=2e-3 * (np.ptp(expected) + 1.0))


def test_the_plan_knows_its_beginning_and_a_checkpoint_of_another_is_not_taken_up(tmp_path: Path) -> None:
    few = depth_data.small(6, seed=5)
    model = begin.weights_of(MODELS, "depth")
    bare = depth_learn.Plan(seed=1, pictures=len(few), held_out=6, epochs=0, coarse_epochs=0)
    assert begin.marked(bare, None) == bare
    plan = begin.marked(bare, model)
    assert plan.start == digest(model)

    def silent(stage: str, done: int, of: int) -> None:
        assert done <= of

    begun = depth_learn.train(few, plan, checkpoint=tmp_path / "a.pt", progress=silent, start=model)
    first = next(iter(begun.parameters()))
    assert np.array_equal(first.detach().numpy(), stored(model)["trunk.stem.0.weight"])


def stored(model: bytes) -> dict[str, np.ndarray]:
    import onnx
    from onnx import numpy_helper

    return {each.name: numpy_helper.to_array(each) for each in onnx.load_model_from_string(model).graph.initializer}


def test_another_networks_package_is_refused_by_the_name_and_shape_of_the_first_that_differs() -> None:
    image, condition = shown("depth")
    with pytest.raises(ModelError, match=r"--start: trunk\.stem\.0\.weight .* has none: it is another network"):
        begin.begin(DepthNet(), begin.weights_of(MODELS, "autofocus"), image, condition)
    with pytest.raises(
        ModelError, match=r"stem\.0\.weight should have shape \(32, 1, 8, 8\), .* has shape \(32, 2, 8, 8\)"
    ):
        begin.begin(DepthNet(), begin.weights_of(MODELS, "defects"), image, condition)


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such package"):
        begin.weights_of(tmp_path, "depth")


def nudged(model: bytes) -> bytes:
    """Another set of weights of the same network."""
    graph = onnx.load_model_from_string(model)
    for each in graph.graph.initializer:
        value = numpy_helper.to_array(each)
        if "." in each.name:
            each.CopyFrom(numpy_helper.from_array(value + np.float32(0.125), each.name))
    return bytes(graph.SerializeToString())


def weights(model: bytes) -> dict[str, np.ndarray]:
    return {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load_model_from_string(model).graph.initializer
        if "." in each.name
    }


def test_weights_between_two_models_lie_on_the_way(exported: bytes) -> None:
    last = nudged(exported)
    mixed = weights(begin.between(exported, last, 0.4))
    for name, first in weights(exported).items():
        np.testing.assert_allclose(mixed[name], first + 0.05, atol=1e-5)
    for name, value in weights(begin.between(exported, last, 1.0)).items():
        np.testing.assert_allclose(value, weights(last)[name], atol=1e-5)


def test_the_best_of_the_way_is_kept(exported: bytes) -> None:
    name = next(iter(weights(exported)))
    wanted = weights(exported)[name] + 0.125 * 0.6

    def error(model: bytes) -> float:
        return float(np.abs(weights(model)[name] - wanted).mean())

    graph, share = begin.best_between(exported, nudged(exported), error)
    assert share == 0.6
    assert error(graph) < 1e-5


def test_nothing_lies_between_two_networks(exported: bytes) -> None:
    with pytest.raises(ModelError, match="different networks"):
        begin.between(begin.weights_of(MODELS, "autofocus"), exported, 0.5)
