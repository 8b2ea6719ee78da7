"""The cascade's training: candidates, two trainings, calibration, figures, and the package that serves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agent.commands import calibrate
from calibration.networks.cascade import INPUTS, CascadeNet, Fusion, Moments
from calibration.train import cascade, cascade_data, cascade_figures, cascade_learn
from calibration.train.cascade_data import NOT_A_DEFECT, Candidates
from calibration.train.cascade_figures import Said
from calibration.train.cascade_fit import fitted
from calibration.train.cascade_learn import Plan, inputs_of, train_deep, train_fusion, used_up_to
from calibration.train.defects_data import Recipe
from engines.cascade import Beside, Cascade, Graph, load_cascade
from engines.cascade_crops import PLANES, SIDE_PX
from engines.cascade_features import FEATURES, columns_of
from engines.cascade_levels import Sizes
from engines.defects import CLASSES, SEEN
from engines.errors import ModelError, PackageError
from engines.manifest import Manifest
from engines.moments import zernike
from engines.readings import FoundDefect
from engines.scene import Scene

PLAN = Plan(seed=3, pictures=80, tuning=40, held_out=40, epochs=2, left_out_epochs=1)
TAUGHT = (*range(6), 8, 9, 11)  # classes of the made-up candidates; the last three are those left out


def silent(stage: str, done: int, of: int) -> None:
    return None


def made_up(count: int, seed: int) -> Candidates:
    """A class is a stripe of its own across the crop and a column of its own; what is no defect has neither."""
    rng = np.random.default_rng(seed)
    label = np.array([NOT_A_DEFECT, *TAUGHT], np.int8)[rng.integers(0, len(TAUGHT) + 1, count)]
    planes = np.clip(rng.normal(120, 12, (count, PLANES, SIDE_PX, SIDE_PX)), 0, 255).astype(np.uint8)
    features = rng.normal(0.0, 0.3, (count, FEATURES)).astype(np.float32)
    features[:, columns_of("condition")] = (0.47, 0.1, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0)
    features[:, columns_of("fractions")] = features[:, columns_of("seen")] = 0.0  # nobody told
    for row, each in enumerate(label):
        if each != NOT_A_DEFECT:
            planes[row, 0, 16 + 3 * each : 18 + 3 * each] += 60
            features[row, columns_of("texture").start + each] += 2.0
    zeros = np.zeros(count, np.float32)
    return Candidates(
        planes, features, label, np.arange(count, dtype=np.int32) // 4, zeros, zeros, zeros + 9.0, zeros,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> Candidates:
    return cascade_data.small(2, Recipe(cascade_data.OWN_SEED + 4, clean=0.0, kinds=("contacts",)))


def test_candidates_are_defects_and_what_may_be_taken_for_one(drawn: Candidates) -> None:
    there = drawn.label != NOT_A_DEFECT
    assert there.any()
    assert (~there).any()
    assert (drawn.matched[there] > 0.0).all()
    assert not drawn.matched[~there].any()
    assert set(drawn.specimen) == {0, 1}
    assert np.isfinite(drawn.features).all()
    assert drawn.planes.shape[1:] == (PLANES, SIDE_PX, SIDE_PX)


def test_the_same_recipe_and_index_give_the_same_candidates(drawn: Candidates) -> None:
    again = cascade_data.candidates_at(1, recipe=Recipe(cascade_data.OWN_SEED + 4, clean=0.0, kinds=("contacts",)))
    own = drawn.rows(drawn.specimen == 1)
    for name in Candidates.__annotations__:
        np.testing.assert_array_equal(getattr(own, name), again[name])


def test_moments_in_the_graph_are_those_of_the_engine(drawn: Candidates) -> None:
    told = Moments()(torch.from_numpy(drawn.planes)).numpy()
    frame, reference = drawn.planes[:, 0].astype(np.float32), drawn.planes[:, 1].astype(np.float32)
    np.testing.assert_allclose(told[:, :25], zernike(frame), atol=2e-5)
    np.testing.assert_allclose(told[:, 25:50], zernike(np.abs(frame - reference)), atol=2e-5)


def test_what_a_row_of_the_table_may_see_grows_to_all() -> None:
    shares = [float(used_up_to(name).mean()) for name in cascade_learn.USED]
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0
    assert used_up_to("deep_alone").sum() == INPUTS["deep"] + 8 + SEEN + 1


def test_a_column_that_never_changed_counts_for_nothing() -> None:
    inputs = torch.randn(50, sum(INPUTS.values()))
    inputs[:, -9:] = 0.0  # fractions that nobody told
    fusion = Fusion(torch.ones(inputs.shape[1]))
    fusion.settle(inputs)
    fusion.eval()
    told = inputs.clone()
    told[:, -9:] = 0.5
    for one, other in zip(fusion(inputs), fusion(told), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[CascadeNet, Candidates]:
    torch.set_num_threads(1)
    training, tuning = made_up(800, 1), made_up(160, 2)
    work = tmp_path_factory.mktemp("work")
    deep = train_deep(training, PLAN, epochs=1, checkpoint=work / "crops.pt", progress=silent)
    told = inputs_of(deep, training), inputs_of(deep, tuning)
    fusion = train_fusion(told[0], training.label, used_up_to("all"), seed=1)
    fit = fitted(fusion, (told[0], training.label), (told[1], tuning.label))
    return CascadeNet(deep, fusion, fit).eval(), made_up(200, 5)


def test_what_was_taught_is_told_again_of_other_candidates(
    learnt: tuple[CascadeNet, Candidates], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, others = learnt
    monkeypatch.setattr(cascade_figures, "DRAWS", 20)
    row = cascade_figures.row(cascade.said_of(network, inputs_of(network.deep, others)), others, cascade.LIMITS)
    assert row["accuracy_end_to_end"] > 0.4  # one in ten by chance; seventy-five steps were learnt
    assert row["accuracy_end_to_end_low"] <= row["accuracy_end_to_end"] <= row["accuracy_end_to_end_high"]
    assert row["leaf_accuracy"] > 0.6
    assert row["defect_auroc"] > 0.8


def test_a_twentieth_of_the_known_look_stranger_than_the_limit(learnt: tuple[CascadeNet, Candidates]) -> None:
    network, others = learnt
    known = cascade.said_of(network, inputs_of(network.deep, others)).known[others.label != NOT_A_DEFECT]
    assert np.mean(known < 0.05) == pytest.approx(0.05, abs=0.05)


def test_what_is_far_from_every_class_is_strange(learnt: tuple[CascadeNet, Candidates]) -> None:
    network, others = learnt
    strange = replace(others, features=others.features.copy())
    strange.features[:, columns_of("texture")] = 9.0
    known = [cascade.said_of(network, inputs_of(network.deep, each)).known for each in (others, strange)]
    assert np.median(known[1]) < 0.2 * np.median(known[0])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """Of candidates that are made up: a whole training."""
    out = tmp_path_factory.mktemp("models")

    def here(specimens: int, recipe: Recipe, *, folder: Path, progress: Callable[[int], None]) -> Candidates:
        progress(specimens)
        return made_up(4 * specimens, recipe.seed % 1000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade_data, "generate", here)
        patch.setattr(cascade_figures, "DRAWS", 5)
        (out / "cascade.work").mkdir()
        return cascade.run(PLAN, out=out, command="a test", progress=silent), out


def test_a_plan_becomes_a_package_that_serves_and_leaves_nothing_else(package: tuple[Manifest, Path]) -> None:
    written, out = package
    assert [path.name for path in out.iterdir()] == ["cascade"]
    assert sorted(path.name for path in (out / "cascade").iterdir()) == ["golden.npz", "manifest.json", "model.onnx"]
    assert {f"ablation_{name}" for name in cascade_learn.USED} <= set(written.metrics)
    assert 0.0 <= written.metrics["unknown"]["auroc"] <= 1.0
    assert all(f"without_{name}" in written.metrics["unknown"] for name in cascade.LEFT_OUT)
    assert (out / "cascade" / "model.onnx").stat().st_size < 3_000_000
    cascade_served = load_cascade(out)
    assert cascade_served is not None
    assert cascade_served.name == written.label


def test_the_graph_says_of_its_golden_set_what_it_said_one_candidate_at_a_time_too(
    package: tuple[Manifest, Path],
) -> None:
    folder = package[1] / "cascade"
    graph = Graph((folder / "model.onnx").read_bytes())
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        assert str(golden["model"]) == package[0].sha256
        for size in (1, 5):
            said = graph.run(golden["planes"][:size], golden["features"][:size])
            for name, value in said.items():
                np.testing.assert_allclose(value, golden[f"out_{name}"][:size], atol=1e-4)


def finds(count: int) -> tuple[FoundDefect, ...]:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0.0, 160.0, (count, 2))
    return tuple(FoundDefect("bridge", 0.9, (x, y, x + 20.0, y + 14.0)) for x, y in corners.tolist())


def test_each_find_is_answered_in_its_order_whatever_it_is_shown_beside(package: tuple[Manifest, Path]) -> None:
    served = load_cascade(package[1])
    assert isinstance(served, Cascade)
    image = np.random.default_rng(1).integers(0, 256, (192, 256), np.uint8)
    beside, sizes = Beside(scene=Scene(2e-9)), Sizes(20e-9, 60e-9)
    told = served.judge(image, finds(5), beside=beside, sizes=sizes)
    assert [each.size_m for each in told] == pytest.approx([40e-9] * 5)
    assert all(each.levels and each.path[0] in ("defect", "not_defect") for each in told)
    alone = served.judge(image, finds(5)[3:4], beside=beside, sizes=sizes)[0]
    assert alone.path == told[3].path
    assert [e.probability for e in alone.levels] == pytest.approx([e.probability for e in told[3].levels], abs=1e-4)
    assert served.judge(image, ()) == ()


def test_five_hundred_finds_are_answered_and_those_beyond_the_most_keep_their_names(
    package: tuple[Manifest, Path],
) -> None:
    served = load_cascade(package[1])
    assert served is not None
    told = served.judge(np.full((192, 256), 90, np.uint8), finds(500))
    assert len(told) == 500
    assert told[-1].path == ("defect", "bridge")
    assert told[-1].levels == ()


def test_where_there_is_no_package_there_is_no_cascade_and_an_edited_one_is_refused(
    package: tuple[Manifest, Path], tmp_path: Path
) -> None:
    assert load_cascade(tmp_path) is None
    (tmp_path / "cascade").mkdir()
    for name in ("model.onnx", "manifest.json"):
        (tmp_path / "cascade" / name).write_bytes((package[1] / "cascade" / name).read_bytes())
    with (tmp_path / "cascade" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(PackageError, match="sha256"):
        load_cascade(tmp_path)


def test_it_begins_with_no_other_weights_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="leave --start"):
        cascade.run(PLAN, out=tmp_path, command="a test", progress=silent, start=b"x")


def test_the_command_gives_minutes_and_seed_to_the_trainer(
    package: tuple[Manifest, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    def run(plan: Plan, **more: object) -> Manifest:
        asked.update(more, plan=plan)
        return package[0]

    monkeypatch.setattr(cascade, "run", run)
    options = ["train", "cascade", "--minutes", "9", "--seed", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(calibrate.app, options)
    assert result.exit_code == 0
    assert "cascade@" in result.stdout
    assert asked["plan"] == cascade.plan_for(9.0, seed=2)
    assert asked["command"] == "beamside calibrate train cascade --minutes 9 --seed 2"


# --- figures ---


def said(defect: list[float], leaves: list[str], known: float = 0.5) -> Said:
    leaf = np.full((len(leaves), len(CLASSES)), 0.2 / 13, np.float32)
    leaf[np.arange(len(leaves)), [CLASSES.index(name) for name in leaves]] = 0.8
    return Said(np.array(defect, np.float32), leaf, np.full(len(leaves), known, np.float32))


def truth(labels: list[str | None]) -> Candidates:
    count = len(labels)
    zeros = np.zeros(count, np.float32)
    label = [NOT_A_DEFECT if name is None else CLASSES.index(name) for name in labels]
    return Candidates(
        np.zeros((count, 4, 0, 0), np.uint8), np.zeros((count, 0), np.float32), np.array(label, np.int8),
        np.arange(count, dtype=np.int32), zeros, zeros, zeros + 5.0, zeros,
    )  # fmt: skip


def test_figures_of_known_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade_figures, "DRAWS", 20)
    told = said([0.9, 0.9, 0.1, 0.8], ["bridge", "break", "bridge", "void"])
    there = truth(["bridge", "necking", None, None])
    row = cascade_figures.row(told, there, cascade.LIMITS)
    assert row["accuracy_end_to_end"] == 0.5
    assert row["defects_named_right"] == row["others_rejected"] == row["leaf_accuracy"] == 0.5
    assert row["defect_auroc"] == 1.0
    assert row["leaf_ece"] == pytest.approx(0.3)
    named, pure = cascade_figures.by_class(told, there, cascade.LIMITS)
    assert named == {"bridge": 1.0, "necking": 0.0, "not_defect": 0.5}
    assert pure == {"bridge": 1.0, "break": 0.0, "void": 0.0, "not_defect": 1.0}


def test_noise_the_unknown_and_the_undecidable_end_elsewhere() -> None:
    there = replace(
        truth(["pit", "bridge", "pit"]),
        chance=np.array([0.0, 0.9, 0.0], np.float32),
        shading=np.array([0.5, 9.0, 9.0], np.float32),
    )
    told = cascade_figures.names(said([0.9] * 3, ["pit", "bridge", "pit"]), there, cascade.LIMITS)
    assert told.tolist() == ["other", "not_defect", "pit"]
    strange = cascade_figures.names(said([0.9] * 3, ["pit"] * 3, known=0.01), there, cascade.LIMITS)
    assert strange.tolist() == ["unknown"] * 3


def test_the_automatic_share_is_the_surest_part_that_is_pure() -> None:
    sure = [0.99] * 30 + [0.6] * 10
    right = truth(["bridge"] * 30 + ["break"] * 10)
    assert cascade_figures.automatic_share(said(sure, ["bridge"] * 40), right, cascade.LIMITS) == pytest.approx(31 / 40)
    assert cascade_figures.automatic_share(said([0.1], ["bridge"]), truth(["bridge"]), cascade.LIMITS) == 0.0


def test_true_finds_are_kept_that_stand_above_the_false_alarms_allowed() -> None:
    score, there = np.array([0.9, 0.7, 0.4, 0.8, 0.6, 0.1], np.float32), truth(["bridge"] * 3 + [None] * 3)
    assert [cascade_figures.kept(score, there, false=each) for each in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_unknown_figures_of_known_answers() -> None:
    told = cascade_figures.unknown(np.linspace(1.0, 2.0, 101), np.array([0.0, 0.5, 1.5, 0.9]))
    assert told["fpr_at_95"] == 0.25
    assert told["auroc"] == pytest.approx((3 + 0.5) / 4, abs=0.01)
