"""Inspected frames of the journal as COCO and CSV: opened again by what reads such files, and for people."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from agent.clock import ManualClock
from agent.commands.events import events
from agent.crops import FOLDER, Crops
from agent.errors import UsageError
from agent.journal import FILE, Journal
from agent.messages import DEFECT_CLASSES, Decision, Defect, FrameRef, Inspected, Lane, Mode

app = typer.Typer()
app.command()(events)


def inspected(number: int, *defects: Defect, **seen: Any) -> Decision:
    given = {"recipe": "via-2", "shape_px": (768, 1024), "pixel_size_m": 2e-9, "wafer": "W1", "die_x": 2, **seen}
    frame = FrameRef(number=number, session="s1", source="electron/SE2", lane=Lane.INSPECT)
    crops = (np.zeros((48, 48), np.uint8),) * min(len(defects), 16)
    about = Inspected(crops=crops, **given)
    return Decision(now_ns=1, mode=Mode.SUGGEST, frame=frame, defects=defects, inspected=about)


def defect(name: str = "bridge", **more: Any) -> Defect:
    given = {"path": ("defect", "small", name), "box_px": (10.0, 20.0, 40.0, 32.0), "confidence": 0.8, **more}
    return Defect(name=name, **given)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / FILE, ManualClock(), crops=Crops(tmp_path / FOLDER, quota_bytes=10**7))
    journal.write(inspected(1, defect(size_m=60e-9, stage_x_m=1e-3, stage_y_m=-2e-3), defect("pit")))
    journal.write(inspected(2, dropped={"streak": 2, "size": 1}))
    journal.write(inspected(3, *[defect("other")] * 128))
    journal.write(inspected(4, defect(), recipe=None, shape_px=None, pixel_size_m=None))
    journal.close()
    return tmp_path


def run(state: Path, *arguments: str) -> str:
    result = CliRunner().invoke(
        app, ["--state-dir", str(state), *arguments], catch_exceptions=False, env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0
    return result.stdout


def test_coco_has_an_image_for_each_frame_and_an_annotation_for_each_defect(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    told = json.loads(run(state, "--export-coco", str(out), "--json"))
    assert told == {"frames": 4, "defects": 131, "coco": str(out), "csv": None}
    found = json.loads(out.read_text())
    images = {each["id"]: each for each in found["images"]}
    assert len(images) == 4 and len({each["file_name"] for each in images.values()}) == 4
    assert len({each["id"] for each in found["annotations"]}) == len(found["annotations"]) == 131
    categories = {each["id"]: each["name"] for each in found["categories"]}
    assert tuple(categories.values()) == DEFECT_CLASSES and 0 not in categories
    for each in found["annotations"]:
        x, y, width, height = each["bbox"]
        assert each["area"] == width * height > 0 and each["iscrowd"] == 0 and each["segmentation"] == []
        image = images[each["image_id"]]
        assert image["width"] in (0, 1024) and x >= 0 and y >= 0
    first = found["annotations"][0]
    assert (categories[first["category_id"]], first["bbox"], first["score"]) == ("bridge", [10, 20, 30, 12], 0.8)
    assert (state / first["crop"]).is_file() and first["path"] == ["defect", "small", "bridge"]
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_a_spreadsheet_has_a_line_for_each_defect(state: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    assert "131 defects of 4 frames" in run(state, "--export-csv", str(out))
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 131
    assert (rows[0]["class"], rows[0]["path"], rows[0]["recipe"], rows[0]["die_x"]) == (
        "bridge", "defect/small/bridge", "via-2", "2",
    )  # fmt: skip
    assert float(rows[0]["size_m"]) == 60e-9 and float(rows[0]["stage_y_m"]) == -2e-3 and rows[1]["size_m"] == ""
    assert [row["frame"] for row in rows[:3]] == ["1", "1", "3"] and rows[-1]["recipe"] == ""
    assert rows[0]["lane"] == "inspect"


def test_an_export_begins_where_it_is_told_to(state: Path, tmp_path: Path) -> None:
    told = json.loads(run(state, "--export-csv", str(tmp_path / "a.csv"), "--since", "3", "--json"))
    assert (told["frames"], told["defects"]) == (1, 1)


def test_an_export_that_cannot_be_written_names_its_file_and_one_that_follows_is_refused(state: Path) -> None:
    with pytest.raises(UsageError, match=r"--export-coco .*none"):
        run(state, "--export-coco", str(state / "none" / "found.json"))
    with pytest.raises(UsageError, match="--follow"):
        run(state, "--export-csv", str(state / "a.csv"), "--follow")


def test_people_are_told_class_size_place_and_crop_and_what_was_left_out(state: Path) -> None:
    text = run(state)
    for words in (
        "2 defects; recipe via-2",
        "bridge 60 nm at (25, 26) px, stage (1.0000, -2.0000) mm, sure 0.80, crops/0000000001-00.png",
        "0 defects; recipe via-2; left out 2 by streak, 1 by size",
        "and 120 more",
        "bridge 30 px at (25, 26) px",
    ):
        assert words in text
    assert "suggestion" not in run(state, "--topic", "defects")


def test_a_journal_of_before_crops_is_told_and_exported_too(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / FILE, ManualClock())
    journal.write(Decision(now_ns=1, mode=Mode.SUGGEST, defects=(defect(),)))
    old = {
        "count": 1,
        "lane": None,
        "defects": [
            {"class": "pit", "path": ["defect", "pit"], "box_px": [0, 0, 2, 2], "confidence": 0.5, "height_m": None}
        ],
    }
    row = (1, "b", "defects", "suggest", 5, "s", "e", json.dumps(old))
    assert journal._connection is not None
    journal._connection.execute("INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    journal._connection.commit()
    journal.close()
    assert "pit 2 px" in run(tmp_path)
    assert json.loads(run(tmp_path, "--export-csv", str(tmp_path / "a.csv"), "--json"))["defects"] == 2
