"""Golden sets: what is written can be asked again, is the same each time, and is small enough for git."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.commands import calibrate
from agent.errors import EngineError
from calibration import golden
from engines import manifest
from engines.channels import shape_of
from engines.defects import CLASSES
from engines.golden import read_golden
from engines.load import MODELS
from engines.onnx import OnnxEngine

FEW = 2


def silent(stage: str, done: int, of: int) -> None:
    assert 0 < done <= of


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for task in golden.DRAW:
        shutil.copytree(MODELS / task, tmp_path / task, ignore=shutil.ignore_patterns(golden.GOLDEN_FILE))
    return tmp_path


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "CROPS", FEW)
    monkeypatch.setattr(golden, "PER_CROP", 3)


@pytest.mark.usefixtures("few")
def test_a_set_for_each_model_whose_answers_the_model_gives_again(models: Path) -> None:
    written = golden.write_all(models, seed=1, progress=silent)
    assert [each.model.split("@")[0] for each in written] == ["autofocus", "depth", "defects"]
    for each in written:
        package = Path(each.path).parent
        described, model = manifest.read(package)
        assert described.golden_sha256 == manifest.digest(Path(each.path).read_bytes())
        assert read_golden(package, described, model).label == each.model
        with np.load(each.path, allow_pickle=False) as kept:
            assert str(kept["model"]) == described.sha256
            assert kept["image"].shape == (FEW, *shape_of(described.channels, (golden.SIDE, golden.SIDE)))
            assert kept["image"].dtype == np.uint8
            assert kept["condition"].dtype == np.float32
            said = OnnxEngine(model, threads=1).run(kept["image"][1], kept["condition"][1])
            for name, value in said.items():
                np.testing.assert_array_equal(kept[f"out_{name}"][1], golden.thinned(value[0]))


@pytest.mark.usefixtures("few")
def test_the_same_seed_and_model_give_the_same_bytes(models: Path) -> None:
    one, two, other = ((golden.write(models / "defects", seed=seed), _bytes(models))[1] for seed in (1, 1, 2))
    assert one == two
    assert one != other


def _bytes(models: Path) -> bytes:
    return (models / "defects" / golden.GOLDEN_FILE).read_bytes()


@pytest.mark.parametrize("task", list(golden.DRAW))
def test_the_shipped_sets_belong_to_the_shipped_models_and_are_small_enough_for_git(task: str) -> None:
    path = MODELS / task / golden.GOLDEN_FILE
    assert path.stat().st_size < (3_000_000 if manifest.read(MODELS / task)[0].channels == 1 else 4_500_000)
    assert manifest.read(MODELS / task)[0].golden_sha256 == manifest.digest(path.read_bytes())
    with np.load(path, allow_pickle=False) as kept:
        assert str(kept["model"]) == manifest.read(MODELS / task)[0].sha256
        assert kept["image"].shape[0] == golden.CROPS


def test_the_shipped_defect_set_holds_two_hundred_defects_of_most_classes_within_their_crops() -> None:
    with np.load(MODELS / "defects" / golden.GOLDEN_FILE, allow_pickle=False) as kept:
        boxes, crops, classes = kept["defect_box_px"], kept["defect_crop"], kept["defect_class"]
    assert len(boxes) == len(crops) == len(classes) >= 200
    assert len(np.unique(crops)) > 0.9 * golden.CROPS
    assert len(np.unique(classes)) > 0.6 * len(CLASSES)
    assert boxes.min() >= 0
    assert boxes.max() <= golden.SIDE
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_map_is_thinned_so_that_every_part_of_a_networks_cell_is_kept() -> None:
    y, x = np.mgrid[: golden.SIDE, : golden.SIDE]
    kept = golden.thinned(np.stack([y % 4, x % 4])[None])
    assert {tuple(pair) for pair in kept[0].reshape(2, -1).T} == {(i, j) for i in range(4) for j in range(4)}


def test_a_folder_without_a_model_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(calibrate.app, ["golden", "--models", str(tmp_path)])
    assert isinstance(result.exception, EngineError)
    assert str(tmp_path) in str(result.exception)


@pytest.mark.usefixtures("few")
def test_the_command_tells_what_it_wrote_as_json(models: Path) -> None:
    shutil.rmtree(models / "depth")
    shutil.rmtree(models / "defects")
    result = CliRunner().invoke(calibrate.app, ["golden", "--models", str(models), "--seed", "3", "--json"])
    assert result.exit_code == 0
    assert '"model":"autofocus@' in result.stdout
    assert (models / "autofocus" / golden.GOLDEN_FILE).exists()
