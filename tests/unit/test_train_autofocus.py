"""The road from the twin to a package, driven for seconds: labels, pictures, learning, resuming, export, manifest."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agent.commands import calibrate
from agent.errors import BeamsideError
from calibration.networks.autofocus import CONDITION, AutofocusNet
from calibration.train import autofocus, data, export, figures, labels, learn, outside, scenes
from calibration.train.cycle import Cycle
from calibration.train.describe import AUTOFOCUS
from engines.autofocus import Autofocus
from engines.load import load
from engines.onnx import OnnxEngine

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PROBE = labels.Probe(pixel_size_m=50e-9, alpha_rad=5e-3, energy_ev=10e3, z_m=0.0, ax_m=0.0, ay_m=0.0)


def at(z_h: float, a_h: float = 0.0) -> labels.Probe:
    h = PROBE.half_depth_m
    return labels.Probe(PROBE.pixel_size_m, PROBE.alpha_rad, PROBE.energy_ev, z_h * h, a_h * h, 0.0)


@pytest.fixture(scope="module")
def few() -> data.Samples:
    return data.small(8, seed=5)


def silent(stage: str, done: int, of: int) -> None:
    assert 0 <= done <= of


def test_blur_of_a_disc_is_alpha_z_over_two_pixels() -> None:
    for z_h in (8.0, 20.0, 60.0):
        expected = PROBE.alpha_rad * z_h * PROBE.half_depth_m / (2 * PROBE.pixel_size_m)
        assert labels.blur_px(at(z_h)) == pytest.approx(expected, rel=0.08)
        assert labels.blur_px(at(-z_h)) == labels.blur_px(at(z_h))


def test_blur_of_an_astigmatic_beam_is_the_geometric_mean_of_its_axes() -> None:
    expected = math.sqrt((20.0 + 8.0) * (20.0 - 8.0)) / 4.0
    assert labels.blur_px(at(20.0, 8.0)) == pytest.approx(expected, rel=0.08)


def test_score_is_ten_in_focus_one_where_nothing_is_left_and_falls_between() -> None:
    scores = [labels.sharpness(at(z)) for z in (0.0, 0.5, 1.0, 4.0, 12.0, 40.0, 127.0)]
    assert scores[:2] == [10.0, 10.0]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] > 9.5
    assert scores[-1] == pytest.approx(1.0, abs=0.1)
    assert labels.sharpness(at(0.0, 12.0)) == pytest.approx(labels.sharpness(at(12.0)), abs=1e-9)


def test_content_is_in_texture_and_not_in_flatness_shading_or_noise() -> None:
    rng = np.random.default_rng(2)
    texture = 40.0 * scenes.scene("grains", pixel_size_m=20e-9, rng=rng)[:256, :256]
    shading = np.tile(np.linspace(50, 150, 256, dtype=np.float32), (256, 1))
    flat = np.full((256, 256), 90, np.float32)
    assert labels.content(texture, noise_variance=16.0, sigma_px=1.0) > 0.95
    assert labels.content(texture, noise_variance=1e5, sigma_px=1.0) < 0.05
    for nothing in (flat, shading):
        assert labels.content(nothing, noise_variance=16.0, sigma_px=3.0) < 0.05


def test_content_of_a_large_frame_is_that_of_its_parts() -> None:
    scene = 12.0 * scenes.scene("cells", pixel_size_m=20e-9, rng=np.random.default_rng(3))
    whole = labels.content(scene, noise_variance=60.0, sigma_px=1.0)
    part = labels.content(scene[:256, :256], noise_variance=60.0, sigma_px=1.0)
    assert whole == pytest.approx(part, abs=0.15)


def test_the_same_seed_and_scene_give_the_same_bytes() -> None:
    one, two, other = (data.samples_of(i, seed=9) for i in (4, 4, 5))
    assert np.array_equal(one["image"], two["image"])
    assert np.array_equal(one["score"], two["score"])
    assert not np.array_equal(one["image"], other["image"])


def test_labels_lie_where_the_model_can_answer(few: data.Samples) -> None:
    assert few.score.min() >= 0.0
    assert few.score.max() <= 10.0
    assert np.exp(few.log_blur).min() >= labels.BLUR_RANGE_PX[0] * 0.999
    assert few.content.min() >= 0.0
    assert few.content.max() <= 1.0


def test_a_specimen_can_be_left_out() -> None:
    drawn = {scenes.draw_kind(np.random.default_rng(i), without="grains") for i in range(200)}
    assert "grains" not in drawn
    assert {"tin-balls", scenes.LEAVES} <= drawn


def test_learning_reduces_the_loss(few: data.Samples) -> None:
    torch.set_num_threads(1)
    plan = learn.Plan(seed=3, samples=len(few), held_out=0, epochs=1)
    torch.manual_seed(plan.seed)
    network = AutofocusNet()
    training = Cycle(network, {}, steps=24, learning_rate=learn.LEARNING_RATE)
    network.settle(torch.from_numpy(few.image)[:, None])
    rows = np.arange(32)
    inputs = torch.from_numpy(few.image[rows, :128, :128].copy())[:, None], torch.from_numpy(few.condition[rows])
    targets = tuple(torch.from_numpy(c[rows]) for c in (few.score, few.log_blur, few.content))
    values = [training.step(learn.loss(network(*inputs), (targets[0], targets[1], targets[2]))) for _ in range(24)]
    assert np.mean(values[-4:]) < 0.5 * np.mean(values[:3])


def test_an_interrupted_training_goes_on_to_the_same_weights(few: data.Samples, tmp_path: Path) -> None:
    plan = learn.Plan(seed=3, samples=len(few), held_out=0, epochs=2, coarse_epochs=1, threads=1)
    straight = learn.train(few, plan, checkpoint=tmp_path / "straight.pt", progress=silent)

    def stop(stage: str, done: int, of: int) -> None:
        if done > of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn.train(few, plan, checkpoint=tmp_path / "broken.pt", progress=stop)
    resumed = learn.train(few, plan, checkpoint=tmp_path / "broken.pt", progress=silent)
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def exported(few: data.Samples, tmp_path_factory: pytest.TempPathFactory) -> tuple[AutofocusNet, bytes]:
    torch.set_num_threads(1)
    torch.manual_seed(4)
    network = AutofocusNet()
    network.settle(torch.from_numpy(few.image[:16])[:, None])
    network.eval()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export.to_onnx(network, path, condition=CONDITION, outputs=AUTOFOCUS.output_names)
    return network, path.read_bytes()


@pytest.mark.parametrize("shape", [(128, 320), (512, 384)])
def test_the_graph_says_what_torch_says_at_sizes_that_were_not_the_exports(
    exported: tuple[AutofocusNet, bytes], shape: tuple[int, int]
) -> None:
    network, model = exported
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    condition = np.array([0.4, 1.0], np.float32)
    said = OnnxEngine(model).run(image, condition)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)[None, None], torch.from_numpy(condition)[None])
    for name, value in zip(AUTOFOCUS.output_names, expected, strict=True):
        assert said[name][0] == pytest.approx(float(value[0]), abs=2e-4)


def test_a_plan_becomes_a_package_that_loads_and_leaves_nothing_else(tmp_path: Path) -> None:
    plan = learn.Plan(seed=2, samples=32, held_out=16, epochs=2, coarse_epochs=1, chunk=2)
    written = autofocus.run(plan, out=tmp_path, command="a test", progress=silent)
    loaded = load("autofocus", models=tmp_path, backend="onnxruntime")
    assert loaded.manifest == written
    assert written.training.seed == 2
    assert {"held_out", "held_out_pixel_size_unknown", "held_out_512px"} <= set(written.metrics)
    assert {f"baseline_{name}" for name in figures.BASELINES} <= set(written.metrics)
    assert [p.name for p in tmp_path.iterdir()] == ["autofocus"]


def test_ranks_and_roc_of_known_answers() -> None:
    up = np.arange(10, dtype=np.float32)
    assert figures.spearman(up, up**3) == pytest.approx(1.0)
    assert figures.spearman(up, -up) == pytest.approx(-1.0)
    assert figures.spearman(up, np.zeros(10, np.float32)) == 0.0
    assert figures.auroc(up, up >= 5) == 1.0
    assert figures.auroc(np.zeros(10, np.float32), up >= 5) == 0.5


def test_a_missing_extra_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calibrate, "find_spec", lambda name: None)
    result = CliRunner().invoke(calibrate.app, ["train", "autofocus", "--out", str(tmp_path)])
    assert isinstance(result.exception, BeamsideError)
    assert "pip install 'beamside[calibrate]'" in str(result.exception)


def test_json_is_the_manifest_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = load("autofocus", backend="onnxruntime").manifest
    monkeypatch.setattr(autofocus, "run", lambda *args, **more: shipped)
    result = CliRunner().invoke(calibrate.app, ["train", "autofocus", "--json", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sha256"] == shipped.sha256


@pytest.mark.skipif(not (SHARED / "artimagen").exists(), reason="the shared data folder is not beside this checkout")
@pytest.mark.parametrize("kind", ["lines", "grains"])
def test_blur_ranks_another_simulators_pictures(kind: str) -> None:
    model = Autofocus(load("autofocus", backend="onnxruntime"))
    row = outside.row(model, list(outside.artimagen(SHARED / "artimagen", kind, "200")))
    assert row["blur_spearman"] > 0.95
    assert row["score_spearman"] > 0.9
    assert row["blur_median_relative_error_from_1px"] < 0.5
