"""What is evaluated: three kinds of folder become pictures with truth; whatever contradicts itself is one sentence."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from calibration.dataset import index
from calibration.dataset.outside import Picture as Read
from calibration.dataset.sources import TASKS, Task
from calibration.evaluate.defects_dataset import scene_of
from calibration.evaluate.defects_sets import open_set
from calibration.evaluate.defects_truth import PictureSet, SetError, TrueDefect
from engines.scene import Scene, condition, levels_of
from tests.fakes import defect_sets
from tests.fakes.defect_sets import SIDE, defect, scene


def reader(path: Path) -> Read:
    import cv2

    return Read(path.name, np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)), None)


def opened(folder: Path) -> PictureSet:
    return open_set(folder, reader)


def refused(folder: Path) -> str:
    with pytest.raises(SetError) as caught:
        list(opened(folder).read())
    return str(caught.value)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that takes no time, in the place of the defects'."""
    task = Task(defect_sets.drawn, defect_sets.KINDS, ("calibration.train.defects_data",))
    monkeypatch.setitem(TASKS, "defects", task)


def listed(folder: Path, *entries: Any) -> Path:
    (folder / "scenes.json").write_text(json.dumps(entries))
    return folder


# --- what counts ---


def test_what_must_be_found_is_large_and_clear() -> None:
    box = (0.0, 0.0, 20.0, 20.0)
    assert TrueDefect("pit", box, area_px=36.0, matched=10.0).must_be_found
    assert not TrueDefect("pit", box, area_px=35.0, matched=10.0).must_be_found
    assert TrueDefect("pit", box, area_px=35.0, pitch_share=0.5, matched=10.0).must_be_found
    assert not TrueDefect("pit", box, area_px=36.0, matched=9.9).must_be_found
    assert not TrueDefect("pit", box, visible=False, area_px=36.0, matched=10.0).must_be_found
    assert TrueDefect("particle", box).must_be_found  # nobody knows its contrast


@pytest.mark.parametrize("told", [Scene(3.7e-9, 60.0, 800.0), Scene(None, 60.0, None), Scene()])
def test_a_scene_comes_back_from_what_the_network_is_told(told: Scene) -> None:
    image = defect_sets.lines(0)
    back = scene_of(condition(levels_of(image), told))
    for name in ("pixel_size_m", "electrons_per_pixel", "accelerating_voltage_v"):
        known = getattr(told, name)
        assert getattr(back, name) == (None if known is None else pytest.approx(known, rel=1e-5))


# --- datasets ---


def test_a_dataset_is_read_split_by_split_with_its_golden_frames(quick: None, tmp_path: Path) -> None:
    found = opened(defect_sets.dataset(tmp_path / "d"))
    assert found.kind == "dataset"
    assert {split.name: split.tunes for split in found.splits} == {"train": True, "test": False}
    pictures = list(found.read())
    assert len(pictures) == found.count == 48
    dirty = [each for each in pictures if not each.case.clean]
    assert all(each.golden is not None for each in dirty)
    assert all(each.golden is None for each in pictures if each.case.clean)
    first = dirty[0].case
    assert (first.truth[0].name, first.truth[0].box_px) == ("pit", (48.0, 64.0, 56.0, 72.0))
    assert first.scene.pixel_size_m == pytest.approx(3e-9, rel=1e-5)
    assert len({each.case.specimen for each in pictures}) == 24  # two looks at each
    assert {each.case.kind: each.case.layout for each in pictures} == {"lines": True, "natural": False}


def test_a_dataset_of_another_task_or_unfinished_is_refused(quick: None, tmp_path: Path) -> None:
    folder = defect_sets.dataset(tmp_path / "d", 8)
    held = index.read(folder)
    index.write(folder, msgspec.structs.replace(held, complete=False))
    assert "not complete" in refused(folder)
    other = msgspec.structs.replace(held.identity, task="depth")
    index.write(folder, msgspec.structs.replace(held, identity=other))
    assert "a dataset of depth; one of defects is needed" in refused(folder)


def test_a_damaged_shard_is_named(quick: None, tmp_path: Path) -> None:
    folder = defect_sets.dataset(tmp_path / "d", 8)
    shard = next(folder.glob("train/*.npz"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert "00000.npz is damaged" in refused(folder)


# --- scenes ---


def test_scenes_have_their_limits_their_twins_and_their_dies(tmp_path: Path) -> None:
    folder = defect_sets.scenes(tmp_path / "s")
    entries = json.loads((folder / "scenes.json").read_text())
    entries[1]["defects"][0] |= {"limit": "below", "contrast_chi_se": 4.0}
    entries[3]["twin_of"] = "one"
    entries.append(scene("rough"))  # neither clean nor with a defect: nothing is known of it
    defect_sets.save(folder, "rough")
    found = opened(listed(folder, *entries))
    pictures = {each.case.key: each for each in found.read()}
    assert "rough" not in pictures and any("1 scenes" in note for note in found.notes)
    assert pictures["one"].golden is not None and pictures["clean0"].golden is not None
    assert pictures["two"].golden is None
    assert pictures["clean0"].case.specimen == "one"
    assert not pictures["two"].case.truth[0].visible
    assert pictures["one"].case.truth[0].must_be_found


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (scene("one", defects=[defect(8, 8)], defect_free=True), "told to be defect_free, and 1 defects are listed"),
        (scene("one", defects=[defect(8, 8, contrast_chi_se=3.0)]), "above the limit with contrast_chi_se 3"),
        (scene("one", defects=[defect(8, 8, **{"class": "brigde"})]), "class 'brigde' is none of ours"),
        (scene("one", defects=[defect(8, 8, box_px=[8, 8, 8, 20])]), "box 1 (pit) is 8, 8, 8, 20"),
        (scene("one", defects=[defect(SIDE, 8)]), "within the picture of 128x128 px"),
        (scene("one", defects=[defect(8, 8), defect(8, 8, **{"class": "particle"})]), "labelled pit and particle"),
        (scene("one", defects=[defect(8, 8, limit="near")]), "limit = 'near'"),
        (scene("one", defect_free="yes"), "`defect_free` (true or false)"),
        (scene("one", defect_free=True, pixel_size_m=3.0), "pixel_size_m = 3.0"),
        (scene("one", defect_free=True, reference_of="gone"), "one is reference_of gone"),
        (scene("gone", defect_free=True), "gone_SE.png: missing"),
        (scene("../one", defect_free=True), "plain file name"),
    ],
)
def test_a_scene_that_contradicts_itself_is_one_sentence(entry: dict[str, Any], told: str, tmp_path: Path) -> None:
    defect_sets.save(tmp_path, "one")
    assert told in refused(listed(tmp_path, entry))


def test_a_list_that_is_none_or_names_a_scene_twice_is_one_sentence(tmp_path: Path) -> None:
    defect_sets.save(tmp_path, "one")
    clean = scene("one", defect_free=True)
    assert "one is listed 2 times" in refused(listed(tmp_path, clean, clean))
    assert "no scene has a defect or is told to be defect_free" in refused(listed(tmp_path, scene("one")))
    assert "a list of scenes is expected" in refused(listed(tmp_path))
    (tmp_path / "scenes.json").write_text("{")
    assert "not JSON" in refused(tmp_path)


# --- boxes ---


def test_yolo_boxes_become_pixels_in_either_layout(tmp_path: Path) -> None:
    apart = defect_sets.pictures(tmp_path / "apart")
    (apart / "LICENSE").write_text("theirs")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (*apart.glob("images/*"), *apart.glob("labels/*")):
        (flat / path.name).write_bytes(path.read_bytes())
    (flat / "README.txt").write_text("no label")
    for folder in (apart, flat):
        first, second = opened(folder).read()
        assert [each.name for each in first.case.truth] == ["particle", "particle"]
        assert first.case.truth[0].box_px == pytest.approx((48, 64, 56, 72))
        assert second.case.clean


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0.5 0.5 0.1 0.1", "class 1; one class, 0 (particle), is expected"),
        ("0 0.5 0.5 0.1", "`class x y width height` is expected"),
        ("0 0.99 0.5 0.1 0.1", "shares of the picture from 0 to 1"),
        ("0 0.5 0.5 nan 0.1", "shares of the picture from 0 to 1"),
        ("0 0.5 0.5 0 0.1", "shares of the picture from 0 to 1"),
    ],
)
def test_a_line_that_is_no_box_is_named(line: str, told: str, tmp_path: Path) -> None:
    folder = defect_sets.pictures(tmp_path / "p")
    (folder / "labels/b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    said = refused(folder)
    assert told in said and "b.txt:2" in said


def test_pictures_and_labels_must_be_pairs(tmp_path: Path) -> None:
    folder = defect_sets.pictures(tmp_path / "p")
    (folder / "labels/c.txt").write_text("")
    assert "c.txt: no picture of that name" in refused(folder)
    (folder / "labels/c.txt").unlink()
    (folder / "labels/a.txt").unlink()
    assert "a.txt: missing; an empty file says" in refused(folder)


def test_a_folder_of_nothing_known_is_one_sentence(tmp_path: Path) -> None:
    assert "the folder is empty" in refused(tmp_path)
    (tmp_path / "notes.md").write_text("nothing")
    assert "nothing here that can be evaluated" in refused(tmp_path)
    assert "no folder" in refused(tmp_path / "notes.md")
    assert "no such folder" in refused(tmp_path / "gone")
    (tmp_path / "images").mkdir()
    assert "labels: missing" in refused(tmp_path)
