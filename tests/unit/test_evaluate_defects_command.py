"""`beamside evaluate defects`: one JSON document, baselines beside the detector, a page, one sentence for bad input."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from agent.__main__ import app
from agent.commands.evaluate_defects import read_picture
from agent.commands.report_defects_plots import range_words
from agent.commands.report_defects_worst import coloured, window
from agent.errors import BeamsideError, EngineError, ImageError, UsageError
from calibration.dataset.sources import TASKS, Task
from calibration.evaluate.defects_methods import Tree, judged, views
from calibration.evaluate.defects_outcome import Found
from calibration.evaluate.defects_package import seen_in_training, unknown
from calibration.evaluate.defects_sets import open_set
from calibration.evaluate.defects_targets import targets
from calibration.train.defects_data import TRAINING
from engines import manifest
from engines.cascade import Cascade, load_cascade
from engines.cascade_levels import EITHER, Judged, Level
from engines.load import MODELS
from tests.fakes import compares, defect_sets, judges

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DEADLINE_S = 120.0


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", "defects", *map(str, arguments)])


def told(*arguments: object) -> Any:
    result = run(*arguments, "--json", "--repeats", "2", "--threads", "1")
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def methods(split: Any) -> dict[str, Any]:
    return {each["name"]: each for each in split["methods"]}


def points(method: Any) -> dict[tuple[str, float], Any]:
    return {(each["by"], each["rate"]): each for each in method["points"]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that compares a frame with its reference."""
    folder = tmp_path_factory.mktemp("models")
    compares.package(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "defects", Task(defect_sets.drawn, defect_sets.KINDS, ("calibration.train.defects_data",)))
        return defect_sets.dataset(tmp_path_factory.mktemp("set") / "d", 48)


@pytest.fixture(scope="module")
def page(models: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """All three kinds of sets at once: the account, and the page."""
    folder = tmp_path_factory.mktemp("all")
    sets = (dataset, defect_sets.scenes(folder / "scenes"), defect_sets.pictures(folder / "pictures"))
    return told(*sets, "--package", models, "--report", folder / "page"), folder / "page/defects.html"


def test_the_detector_its_ablations_and_the_plain_difference_stand_side_by_side(page: tuple[Any, Path]) -> None:
    evaluation = page[0]["evaluation"]
    assert [each["kind"] for each in evaluation["sets"]] == ["dataset", "scenes", "boxes"]
    (test,) = evaluation["sets"][0]["splits"]  # `train` fixes thresholds and is no row
    found = methods(test)
    assert list(found) == [
        "detector",
        "detector without reference",
        "detector, golden reference",
        "template difference",
        "template difference, golden",
    ]
    package = points(found["detector"])["the package", 0.1]
    assert package["must"]["value"] == 1.0  # black squares on lines that repeat
    bare = points(found["detector without reference"])
    assert bare["clean layouts of the set", 0.0]["must"]["value"] == 0.0  # nothing to compare with
    assert found["template difference"]["precision"] is None  # it knows no classes
    assert found["detector"]["naming"]["leaves"][0]["name"] == "pit"
    assert {each["kind"] for each in found["detector"]["kinds"]} <= {"lines", "natural"}


def test_a_rate_without_enough_clean_frames_says_how_many_are_needed(page: tuple[Any, Path]) -> None:
    first = page[0]["evaluation"]["sets"][0]
    assert first["tuning_frames"] < 10.0
    point = points(methods(first["splits"][0])["detector"])["clean layouts of the set", 0.1]
    assert (point["threshold"], point["must"], point["needed_frames"]) == (None, None, 10.0)


def test_die_references_and_real_boxes_are_counted(page: tuple[Any, Path]) -> None:
    _, scenes, pictures = page[0]["evaluation"]["sets"]
    golden = methods(scenes["splits"][0])["detector, golden reference"]
    assert golden["pictures"] == 1
    assert points(golden)["the package", 0.1]["must"]["k"] == 1
    own = methods(scenes["splits"][0])["detector"]
    assert [(each["name"], each["captured"]["k"]) for each in own["naming"]["leaves"]] == [("pit", 2), ("void", 0)]
    boxes = methods(pictures["splits"][0])["detector"]
    assert boxes["naming"]["count_share"] == pytest.approx(1.0, abs=0.51)
    assert boxes["naming"]["leaves"][0]["name"] == "particle"


def test_times_are_told_for_the_sets_sizes_and_the_products(page: tuple[Any, Path]) -> None:
    rows = page[0]["evaluation"]["latency"]
    assert {(row["rows"], row["columns"]) for row in rows} == {(128, 128), (768, 1024)}
    assert {row["stage"] for row in rows} == {"reference", "detector", "frame"}
    whole = {row["stage"]: row["p50_s"] for row in rows if row["rows"] == 768}
    assert whole["frame"] >= max(whole["reference"], whole["detector"])
    assert any(each["name"].startswith("p99 of a frame of 768x1024") for each in page[0]["evaluation"]["targets"])


def test_the_page_stands_alone_and_shows_what_was_missed(page: tuple[Any, Path]) -> None:
    text = page[1].read_text(encoding="utf-8")
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    assert text.count("<svg") > 10
    missed = re.search(r'<figure><svg[^>]*aria-label="Missed void: nothing said there in two".*?</figure>', text, re.S)
    assert missed is not None and missed[0].count("data:image/png;base64") == 3  # frame, reference, difference
    assert "8 px; matched-filter SNR 50" in missed[0] and "reference: own repetition" in missed[0]
    for word in ("Worst misses and false alarms", "template difference", "must be found"):
        assert word.lower() in text.lower()
    assert not re.search(r">(nan|inf|None(?! false))\b|[ (]nan\b", re.sub(r"base64,[^\"]+", "", text))


def test_a_browser_draws_the_page(page: tuple[Any, Path]) -> None:
    assert CHROMIUM is not None, "the tests of pages need chromium"
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page[1].as_uri()]
    drawn = subprocess.run(line, capture_output=True, timeout=DEADLINE_S, text=True, check=True).stdout
    assert drawn.count("<section") == 7  # targets, three sets, the cascade's package, times, how
    assert drawn.count("<table") == page[1].read_text(encoding="utf-8").count("<table")


def test_a_person_gets_tables_and_what_was_left_out(models: Path, tmp_path: Path) -> None:
    result = run(defect_sets.scenes(tmp_path / "s"), "--package", models, "--repeats", 2, "--threads", 1)
    assert result.exit_code == 0
    for word in ("detector without reference", "template difference", "leaf by leaf", "missed", "10 for 0.1"):
        assert word in result.stdout
    for word in ("captured by size and signal", "matched-filter SNR", "a name that is right in 95 of 100", "AUROC"):
        assert word in result.stdout


def test_the_shipped_package_is_used_where_none_is_given(tmp_path: Path) -> None:
    account = told(defect_sets.scenes(tmp_path / "s", clean=1))
    assert account["evaluation"]["models"][0] == manifest.read(MODELS / "defects")[0].label


def test_what_cannot_be_evaluated_is_one_sentence(models: Path, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path / "gone").exception, UsageError)
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in str(run(tmp_path / "empty").exception)
    folder = defect_sets.scenes(tmp_path / "s")
    (folder / "two_SE.png").write_bytes(b"no picture")
    assert isinstance(run(folder, "--package", models).exception, ImageError)
    assert isinstance(run(folder, "--package", tmp_path / "gone").exception, EngineError)
    (tmp_path / "file").write_text("in the way")
    blocked = run(folder, "--report", tmp_path / "file/page", "--json")
    assert isinstance(blocked.exception, BeamsideError) and "--report" in str(blocked.exception)
    assert blocked.stdout == ""


def test_the_cascade_renames_and_takes_back_what_the_detector_found(tmp_path: Path) -> None:
    class Stub:
        """As engines.cascade.Cascade: a bridge, no defect, a pit or a particle."""

        def judge(self, image: Any, found: Any, *, beside: Any) -> tuple[Judged, ...]:
            assert image.shape == (128, 128) and beside.scene.pixel_size_m == 3e-9 and len(found) == 3
            return (
                Judged("bridge", ("defect", "bridge"), (Level("leaf", "bridge", 0.8),), None),
                Judged("not_defect", ("not_defect",), (Level("defect", "not_defect", 0.9),), None),
                Judged("other", ("defect", "other"), (Level("leaf", EITHER, 0.7),), None),
            )

    (picture, *_) = open_set(defect_sets.scenes(tmp_path / "s"), read_picture).read()
    found = [Found("pit", confidence, (0, 0, 8, 8)) for confidence in (0.9, 0.8, 0.7)]
    kept = judged(Tree(cast(Cascade, Stub()), None), views(picture), found)
    assert [(each.name, each.confidence, each.sure, each.undecided) for each in kept] == [
        ("bridge", 0.9, 0.8, False),
        ("other", 0.7, 0.7, True),
    ]


def test_a_set_the_package_was_trained_on_is_told(dataset: Path) -> None:
    found = open_set(dataset, read_picture)
    drawn_by = 5 * 16  # the split `train` of seed 5
    assert seen_in_training(found, drawn_by - TRAINING) == (
        "split train was drawn as the package's own training was: its figures are no test",
    )
    assert seen_in_training(found, drawn_by + 1) == ()


def test_the_unknown_are_told_from_the_cascades_manifest() -> None:
    assert unknown(None).auroc is None
    bare = manifest.read(MODELS / "defects")[0]
    assert "nothing of classes left out" in unknown(bare).note
    row = {"auroc": 0.97, "fpr_at_95": 0.2, "left_out": 321.0, "without_scratch": 1.0, "without_residue": 1.0}
    told = unknown(msgspec.structs.replace(bare, metrics={"unknown": row}))
    assert (told.auroc, told.fpr_at_95, told.n) == (0.97, 0.2, 321)
    assert told.note == "on scratch, residue, left out of a training like it"
    (target, *_) = targets([], [], told)
    assert (target.measured, target.met, target.n) == ("0.970; 20 % pass where 95 % of the known do", True, 321)
    assert targets([], [], unknown(None))[0].met is None


def test_a_picture_is_judged_beside_its_reference_and_with_its_pitch(tmp_path: Path) -> None:
    judges.package(tmp_path)
    cascade = load_cascade(tmp_path)
    assert cascade is not None
    (picture, *_) = open_set(defect_sets.scenes(tmp_path / "s"), read_picture).read()
    seen = views(picture)
    assert seen.pitch_px == pytest.approx(defect_sets.PITCH_PX, abs=0.5)
    (kept,) = judged(Tree(cascade, None), seen, [Found("pit", 0.9, (40.0, 56.0, 52.0, 68.0))])
    assert (kept.name, kept.confidence) == ("bridge", 0.9)


def test_windows_and_colours_of_what_went_wrong() -> None:
    assert window((0, 0, 10, 10), (128, 128)) == (0, 0, 72, 72)
    assert window((118, 60, 128, 70), (128, 128)) == (56, 29, 128, 101)
    assert window((0, 0, 128, 60), (100, 128)) == (14, 0, 114, 100)
    dark, grey, bright = (np.full((9, 9), level, np.uint8) for level in (20, 120, 220))
    assert coloured(grey, grey)[4, 4].tolist() == [255, 255, 255]
    assert coloured(bright, grey)[4, 4][2] > coloured(bright, grey)[4, 4][0]  # vermillion
    assert coloured(dark, grey)[4, 4][0] > coloured(dark, grey)[4, 4][2]  # blue
    assert [range_words(0, 4), range_words(4, 6), range_words(22, float("inf"))] == ["< 4", "4–6", "≥ 22"]
