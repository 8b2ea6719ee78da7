"""The road from a relief to a depth package, driven for seconds: pictures, learning, resuming, export, figures."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.networks.depth import UNIT_PX, DepthNet
from calibration.train import depth, depth_data, depth_figures, depth_learn, export
from calibration.train.develop import develop, draw_look
from calibration.twin.emission import sky_view
from calibration.twin.relief import RELIEFS
from engines.depth import Depth
from engines.load import load
from engines.manifest import MODEL_FILE, Manifest
from engines.onnx import OnnxEngine
from engines.scene import CONDITION, Scene, condition, levels_of

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def few() -> depth_data.Fields:
    return depth_data.small(12, seed=5)


def silent(stage: str, done: int, of: int) -> None:
    assert 0 <= done <= of


def test_the_same_seed_and_index_give_the_same_bytes() -> None:
    one, two, other = (depth_data.fields_of(index, seed=9) for index in (4, 4, 5))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["image"], other["image"])


def test_chunks_on_disk_are_read_back_instead_of_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_data, "PER_CHUNK", 2)
    first = depth_data.generate(6, seed=3, folder=tmp_path, progress=lambda _: None)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = depth_data.generate(6, seed=3, folder=tmp_path, progress=lambda _: None)
    assert np.array_equal(first.image, again.image)
    assert len(first) == 6
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_more_electrons_give_less_noise() -> None:
    rng = np.random.default_rng(0)
    relief = RELIEFS["lines"]((128, 128), pixel_size_m=3e-9, rng=rng)
    sky = sky_view(relief, pixel_size_m=3e-9)
    look = draw_look(np.random.default_rng(1), pixel_size_m=3e-9)
    noise = []
    for electrons in (20.0, 80.0, 320.0):
        same = {**look.__dict__, "electrons_per_pixel": electrons}
        shown = develop(relief, type(look)(**same), pixel_size_m=3e-9, sky=sky, rng=np.random.default_rng(2))
        contrast = float(np.percentile(shown.clean, 99) - np.percentile(shown.clean, 1))
        noise.append(shown.noise / contrast)
    assert noise[0] == pytest.approx(2 * noise[1], rel=0.2)
    assert noise[1] == pytest.approx(2 * noise[2], rel=0.2)


def test_a_few_steps_lower_the_loss_and_a_checkpoint_goes_on_bit_for_bit(
    few: depth_data.Fields, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_learn, "BATCH", 6)
    before = loss_of(DepthNet().train(), few)
    plan = depth_learn.Plan(seed=1, pictures=len(few), held_out=6, epochs=3, coarse_epochs=3)
    whole = depth_learn.train(few, plan, checkpoint=tmp_path / "whole.pt", progress=silent)
    weights = {name: value.clone() for name, value in whole.state_dict().items()}  # before a look changes some
    assert loss_of(whole.train(), few) < before - 0.2

    def stopped(stage: str, done: int, of: int) -> None:
        if done > of * 2 // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        depth_learn.train(few, plan, checkpoint=tmp_path / "half.pt", progress=stopped)
    resumed = depth_learn.train(few, plan, checkpoint=tmp_path / "half.pt", progress=silent)
    for name, value in weights.items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def loss_of(network: DepthNet, few: depth_data.Fields) -> float:
    """In the manner of the training: normalised by the batch."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        image, told, height = depth_learn.batch(few, np.arange(len(few)), side=128, rng=rng)
        return float(depth_learn.loss(network.raw(image, told), height))


@dataclass(frozen=True)
class Made:
    """One whole run, the network that it exported, and the data it was judged by."""

    folder: Path
    manifest: Manifest
    network: DepthNet
    data: Path | None

    @property
    def model(self) -> bytes:
        return (self.folder / "depth" / MODEL_FILE).read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, networks, write = tmp_path_factory.mktemp("made"), list[DepthNet](), export.to_onnx

    def listening(network: DepthNet, path: Path, *, condition: int, outputs: tuple[str, ...]) -> None:
        networks.append(network)
        write(network, path, condition=condition, outputs=outputs)

    plan = depth_learn.Plan(seed=2, pictures=6, held_out=6, epochs=1, coarse_epochs=1)
    data = few_scenes(tmp_path_factory.mktemp("data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", listening)
        patch.setattr(depth_learn, "BATCH", 6)
        patch.setattr(depth_data, "PER_CHUNK", 2)
        written = depth.run(plan, out=folder, command="test", progress=silent, outside_data=data)
    (network,) = networks
    return Made(folder, written, network, data)


def test_the_exported_file_says_what_the_network_says_at_other_sizes(made: Made) -> None:
    network, data = made.network, made.model
    assert len(data) < 5_000_000
    engine = OnnxEngine(data, threads=1)
    for shape in ((32, 32), (160, 96), (256, 384)):
        image = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
        told = condition(levels_of(image), Scene(3e-9, 40.0, 1000.0))
        with torch.no_grad():
            height, scale = network(torch.from_numpy(image)[None, None], torch.from_numpy(told)[None])
        out = engine.run(image, told)
        np.testing.assert_allclose(out["height_px"], height.numpy(), atol=2e-3)
        np.testing.assert_allclose(out["scale_px"], scale.numpy(), rtol=2e-3)


def test_widening_multiplies_the_scale_and_leaves_the_height() -> None:
    torch.manual_seed(4)
    network = DepthNet().eval()
    image, told = torch.randint(0, 255, (1, 1, 64, 64), dtype=torch.uint8), torch.rand(1, CONDITION) + 0.1
    with torch.no_grad():
        height, scale = network(image, told)
        network.widen(2.0)
        height2, scale2 = network(image, told)
    assert torch.equal(height, height2)
    torch.testing.assert_close(scale2, 2.0 * scale)


def test_figures_of_a_perfect_and_of_a_flat_answer(few: depth_data.Fields) -> None:
    truth = depth_data.above_lowest_px(few.height_px)
    perfect = depth_figures.figures(few, truth, np.full_like(truth, 0.1))
    assert perfect["median_correlation"] == pytest.approx(1.0)
    assert perfect["median_rmse_of_spread"] == 0.0
    assert perfect["coverage_68"] == 1.0
    flat = depth_figures.figures(few, np.zeros_like(truth))
    assert flat["median_correlation"] == 0.0
    assert flat["median_rmse_of_spread"] > 1.0


def test_a_whole_run_leaves_a_package_that_loads_and_tells_what_it_is(made: Made) -> None:
    written = made.manifest
    assert set(written.metrics) >= {"held_out", "baseline_intensity", "baseline_constant", "correlation_by_kind"}
    assert ("montecarlo_all" in written.metrics) == (made.data is not None)
    assert not (made.folder / "depth.work").exists()
    model = Depth(load("depth", models=made.folder))
    image = np.random.default_rng(1).integers(0, 255, (96, 128)).astype(np.uint8)
    read = model.read(image, Scene(pixel_size_m=2e-9))
    assert read is not None
    assert read.height_m.shape == read.scale_m.shape == (96, 128)
    assert (read.scale_m > 0).all()
    assert model.read(image, Scene()) is None  # heights are read in pixels: without their size they are no lengths


def few_scenes(folder: Path) -> Path | None:
    """A data folder with three of the Monte Carlo scenes: what is asked here is whether they are read at all."""
    whole, few = SHARED / "montecarlo", folder / "montecarlo"
    if not whole.exists():
        return None
    few.mkdir(parents=True)
    scenes = json.loads((whole / "scenes.json").read_text())[::20]
    (few / "scenes.json").write_text(json.dumps(scenes))
    for file in (f"{scene['name']}_{end}" for scene in scenes for end in ("SE.png", "height_px_nm.npy")):
        (few / file).symlink_to(whole / file)
    return folder


def test_heights_scale_with_the_pixel_size_that_is_told() -> None:
    assert UNIT_PX > 0
    with pytest.raises(ValueError, match="multiples of 32"):
        Depth(load("depth")).read(np.zeros((33, 64), np.uint8), Scene(pixel_size_m=1e-9))


def test_heights_count_from_the_lowest_plateau() -> None:
    z = np.full((50, 50), -30.0, np.float32)
    z[:, 25:] = 12.0
    z[0, 0] = -90.0  # one deep pixel is no plateau
    (up,) = depth_data.above_lowest_px(z[None])
    assert up[10, 10] == pytest.approx(0.0, abs=1e-6)
    assert up[10, 40] == pytest.approx(42.0, rel=1e-6)
