"""The score's table: what is left out, who is taught, what is said of it; and that a stopped bench goes on."""

import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.evaluate import score_cells, score_learn, score_pictures, score_sharpness
from calibration.evaluate.score_cells import READERS, SHIPPED, Bench, measure
from calibration.evaluate.score_clock import Deadline, OutOfTimeError
from calibration.evaluate.score_figures import figures, rows, strata, totals
from calibration.evaluate.score_folds import MAGNIFICATIONS, Fold, bin_of, folds, pixel_size_m
from calibration.evaluate.score_learn import NETWORKS, Lesson, Taught
from calibration.networks.autofocus import AutofocusNet
from calibration.networks.resnet import resnet18, resnet50
from calibration.train.data import PER_SCENE, Samples
from calibration.train.scenes import KINDS
from tests.unit.scored import Slight
from tests.unit.scored import samples as drawn

WITHOUT_END = Deadline()


@lru_cache(maxsize=1)
def samples() -> Samples:
    return drawn()


def silent(stage: str, done: int, of: int) -> None:
    assert 0 <= done <= of


def test_what_is_asked_was_never_learnt_from() -> None:
    shown = samples()
    for fold in folds(shown):
        assert not set(fold.learnt) & set(fold.asked)
        assert (shown.kind[fold.asked] < len(KINDS)).all(), "a picture of nothing was asked"
        if fold.by == "specimen":
            assert not (shown.kind[fold.learnt] == KINDS.index(fold.name)).any()
        else:
            assert not set(bin_of(shown)[fold.learnt]) & set(bin_of(shown)[fold.asked])


def test_folds_are_the_kinds_and_the_magnifications_and_ask_each_picture_twice() -> None:
    found = folds(samples())
    assert [fold.name for fold in found if fold.by == "specimen"] == list(KINDS)
    assert [fold.by for fold in found[:4]] == ["specimen", "magnification"] * 2  # both are told of by a stopped bench
    assert [fold.name for fold in found if fold.by == "magnification"][-1] == "50 000 x"
    assert len(found) == len(KINDS) + len(MAGNIFICATIONS)
    times = np.bincount(np.concatenate([fold.asked for fold in found]), minlength=len(samples()))
    assert set(times[samples().kind < len(KINDS)]) == {2}


def test_a_magnification_is_that_of_the_nearest_pixel_size() -> None:
    assert pixel_size_m(50000) == pytest.approx(2.48e-9, rel=1e-3)
    assert pixel_size_m(500) == pytest.approx(248e-9, rel=1e-3)
    assert list(bin_of(samples())[::PER_SCENE]) == [i % len(MAGNIFICATIONS) for i in range(2 * len(KINDS))]


def test_scenes_take_the_kinds_in_turn_and_the_same_seed_gives_the_same_pictures(tmp_path: Path) -> None:
    for index in (0, 1, len(KINDS)):
        kinds = set(score_pictures.of_scene(index, seed=1)["kind"].tolist())
        assert kinds - {len(KINDS)} == {index % len(KINDS)}
    assert score_pictures.rounded(1) == score_pictures.rounded(120) == 120 and score_pictures.rounded(121) == 240


def test_drawing_stops_when_told_and_goes_on_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_pictures, "SCENES_PER_CHUNK", 1)

    def stop(done: int) -> None:
        raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        score_pictures.pictures(2 * PER_SCENE, seed=1, folder=tmp_path, progress=stop)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert kept
    whole = score_pictures.pictures(2 * PER_SCENE, seed=1, folder=tmp_path, progress=lambda done: None)
    assert len(whole) == 2 * PER_SCENE
    assert all(path.stat().st_mtime_ns == made for path, made in kept.items())


@pytest.mark.parametrize(("make", "weights"), [(resnet18, 11.2e6), (resnet50, 23.5e6)])
def test_the_resnets_have_the_published_size_and_answer_within_the_scale(make, weights) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = make()
    assert sum(each.numel() for each in network.parameters()) == pytest.approx(weights, rel=0.02)
    said = network(torch.randint(0, 256, (2, 1, 64, 96), dtype=torch.uint8), torch.zeros(2, 2))
    assert [tuple(each.shape) for each in said] == [(2,)] * 4
    assert bool(((said[0] >= 0.0) & (said[0] <= 10.0)).all())
    torch.autograd.backward(torch.stack(said).sum())
    assert all(each.grad is not None and bool(each.grad.any()) for each in network.parameters() if each.ndim > 1)


def test_the_pixel_size_reaches_the_head_of_a_resnet() -> None:
    torch.manual_seed(0)
    network = resnet18().eval()
    image = torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        told = [float(network(image, torch.tensor([[x, 1.0]]))[0]) for x in (-1.0, 1.0)]
    assert told[0] != told[1]


def test_a_monotone_curve_finds_a_score_that_a_measure_orders_and_each_magnification_has_its_own() -> None:
    shown = samples()
    sharp = np.asarray(shown.score**3 + 1000.0 * bin_of(shown), np.float32)
    fold = folds(shown)[0]
    said = score_sharpness.answers(sharp, shown, fold)
    assert figures(shown, fold.asked, said).rmse < 0.5
    wrong_way = score_sharpness.answers(-sharp, shown, fold)
    assert figures(shown, fold.asked, wrong_way).rmse < 0.5


def test_of_a_magnification_left_out_its_neighbours_answer() -> None:
    shown = samples()
    fold = next(each for each in folds(shown) if each.name == "5 000 x")
    said = score_sharpness.answers(shown.score**2, shown, fold)
    assert figures(shown, fold.asked, said).rmse < 0.5


def test_a_constant_answer_has_no_rank_and_the_spread_of_the_label_as_its_error() -> None:
    shown, asked = samples(), folds(samples())[0].asked
    told = figures(shown, asked, np.full(len(asked), shown.score[asked].mean(), np.float32))
    assert told.rmse == pytest.approx(float(shown.score[asked].std()), rel=1e-5)
    assert told.rmse_low <= told.rmse <= told.rmse_high and told.spearman == 0.0
    right = figures(shown, asked, shown.score[asked])
    assert right.rmse == 0.0 and right.spearman == pytest.approx(1.0) and right.n_beyond == len(asked)


def test_an_interval_is_that_of_scenes_and_not_of_their_crops() -> None:
    shown = samples()
    asked = np.nonzero(shown.kind < len(KINDS))[0]
    off = np.random.default_rng(0).standard_normal(len(shown) // PER_SCENE).repeat(PER_SCENE)[asked]
    told = figures(shown, asked, np.asarray(shown.score[asked] + off, np.float32))
    assert told.scenes == len(shown) // PER_SCENE
    assert told.rmse_high - told.rmse_low > 0.3, "30 witnesses leave more doubt than 225"


def test_a_stopped_lesson_goes_on_to_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_learn, "EPOCHS", 2)
    monkeypatch.setattr(score_learn, "COARSE_EPOCHS", 2)
    taught, learnt = Taught("beamside", AutofocusNet, 1e-3), np.arange(64)
    lesson = Lesson(samples(), learnt, 1, tmp_path / "whole.pt", WITHOUT_END)
    straight = score_learn.trained(taught, lesson)
    broken = replace(lesson, checkpoint=tmp_path / "broken.pt", deadline=_Stops(3))
    with pytest.raises(OutOfTimeError):
        score_learn.trained(taught, broken)
    resumed = score_learn.trained(taught, replace(broken, deadline=WITHOUT_END))
    for one, two in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


class _Stops(Deadline):
    """Over at the so manyth look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        object.__setattr__(self, "left", [None] * looks)

    def check(self) -> None:
        left: list[None] = self.left  # type: ignore[attr-defined]
        if not left:
            raise OutOfTimeError
        left.pop()


@pytest.fixture
def slight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of the test, two folds of each sort, networks of eight weights."""
    monkeypatch.setattr(score_cells, "pictures", lambda count, **more: samples())
    monkeypatch.setattr(score_cells, "folds", lambda shown: [folds(shown)[each] for each in (0, 1, -2, -1)])
    monkeypatch.setattr(score_cells, "NETWORKS", tuple(replace(each, make=Slight) for each in NETWORKS))
    monkeypatch.setattr(score_learn, "EPOCHS", 1)


BENCH = Bench(pictures=len(samples()), seed=1, model="sha")


def shipped(image: object, condition: object) -> float:
    return 5.0


@pytest.mark.usefixtures("slight")
def test_every_reader_answers_every_fold_and_the_second_run_reads_them_back(tmp_path: Path) -> None:
    measured = measure(BENCH, shipped, work=tmp_path, deadline=WITHOUT_END, progress=silent)
    assert len(measured.cells) == len(READERS) * 4
    assert all(cell.said is not None and len(cell.said) == len(cell.fold.asked) for cell in measured.cells)

    def never(*_: object) -> float:
        raise AssertionError("asked again")

    again = measure(BENCH, never, work=tmp_path, deadline=Deadline(time.monotonic() - 1.0), progress=silent)
    for one, two in zip(measured.cells, again.cells, strict=True):
        assert one.said is not None and two.said is not None and np.array_equal(one.said, two.said)
    assert not list(tmp_path.rglob("*.pt")), "a checkpoint was left"


@pytest.mark.usefixtures("slight")
def test_cells_without_time_are_told_as_not_finished_and_shared_folds_count_only_whole_lines(tmp_path: Path) -> None:
    measured = measure(BENCH, shipped, work=tmp_path, deadline=_Stops(25), progress=silent)
    told = rows(measured)
    undone = [row for row in told if row.figures is None]
    assert undone and len(undone) < len(told)
    for total in totals(measured):
        assert total.folds == sum(
            row.figures is not None for row in told if (row.by, row.reader) == (total.by, total.reader)
        )
        assert total.shared_folds == 0 or all(
            row.figures is not None for row in told if row.by == total.by and row.reader != SHIPPED
        )
    assert {row.reader for row in strata(measured)} <= set(READERS)


def test_another_number_seed_or_model_is_another_folder(tmp_path: Path) -> None:
    benches = (BENCH, replace(BENCH, seed=2), replace(BENCH, pictures=480), replace(BENCH, model="other"))
    assert len({bench.folder(tmp_path) for bench in benches}) == 4
    assert BENCH.folder(tmp_path) == replace(BENCH).folder(tmp_path)


def test_without_enough_pictures_of_a_magnification_one_curve_serves_all() -> None:
    shown = samples()
    fold = Fold("specimen", "few", np.arange(1, 13), np.arange(20, 30))
    said = score_sharpness.answers(shown.score, shown, fold)
    assert np.isfinite(said).all() and said.min() >= 0.0 and said.max() <= 10.0
